//! MtlsDomain `spec.identity`: telling back ends who the caller is.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What back ends learn about the caller. The operator writes it into every integration of every mapped API,
/// as far as it is not a default of API Gateway already. Routes and methods that are added later are covered
/// at the operator's next reconcile, within minutes: until then, and whenever the condition
/// IdentityPropagated is not True, a caller may send such a header itself and the back end must not believe
/// it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.authorizer) || !self.headers.exists(h, has(h.from.authorizerKey))")
    .message("set authorizer too: authorizerKey is what an authorizer returns"))]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Headers that the mapped APIs pass on to their back ends, 1 to 8. What a caller sends under such a name
    /// is overwritten. Of a caller without a certificate, who came by another name of the API or by its
    /// default endpoint, the header is empty or missing: a back end refuses that.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(min = 1, max = 8))]
    pub headers: Vec<IdentityHeader>,

    /// The Lambda authorizer whose results headers may hold (`authorizerKey`). It is put on every route and
    /// method behind the mappings that has no authorization yet, except OPTIONS, and then decides who is let
    /// in. A route with another authorization is left as it is, and named in the message of
    /// IdentityPropagated; a header with `authorizerKey` keeps that condition from becoming True then. Taken
    /// out again, it is taken off what it was put on. On a REST API that, too, takes a deployment
    /// (`restDeployment`). Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorizer: Option<Authorizer>,
}

/// One header and where its value comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IdentityHeader {
    /// Header name in lower case, for example `x-client-cert-sub`. Names that have a meaning in API Gateway
    /// or HTTP are refused (`x-amz-`, `x-amzn-`, `x-forwarded-for`, `apigw-`, `authorization`, `host` and so
    /// on).
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("write a header name of lower-case letters, digits and dashes, as in x-client-cert-sub"))]
    #[x_kube(validation = Rule::new("!self.matches('^((x-amz|x-amzn|apigw|access-control|content)-.*|x-forwarded-(for|host|port|proto)|proxy-authenticate|proxy-authorization|transfer-encoding|www-authenticate|authorization|connection|cookie|date|expect|forwarded|keep-alive|max-forwards|origin|te|trailers?|upgrade|user-agent|via|host)$')")
        .message("this header has a meaning in API Gateway or HTTP: choose a name of your own, as in \
                  x-client-cert-sub"))]
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Where the value comes from.
    pub from: IdentitySource,
}

/// Where a header's value comes from: exactly one of `clientCert` and `authorizerKey`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.clientCert) != has(self.authorizerKey)")
    .message("set exactly one of clientCert and authorizerKey, as in {clientCert: SubjectDN}"))]
#[serde(rename_all = "camelCase")]
pub struct IdentitySource {
    /// A field of the client certificate that API Gateway has verified: SubjectDN, IssuerDN, SerialNumber (as
    /// in `a1:b2:c3`), NotBefore or NotAfter. No Lambda function is needed for it.
    #[schemars(with = "ClientCertField")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<ClientCertField>,
    /// A key of the context that `authorizer` returns, of letters, digits and `_`, for example `commonName`.
    /// What the authorizer returns has to be fit for a header, and there for every caller: of a key that is
    /// missing, what the caller sent may be left.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_]*$')")
        .message("write a key of letters, digits and _, as in commonName"))]
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorizer_key: Option<String>,
}

/// A field of the caller's certificate, as API Gateway's context variables name them.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertField {
    /// The subject's distinguished name.
    SubjectDN,
    /// The issuer's distinguished name.
    IssuerDN,
    /// The serial number, as in `a1:b2:c3`.
    SerialNumber,
    /// Valid from.
    NotBefore,
    /// Valid until.
    NotAfter,
}

/// The Lambda authorizer of the mapped APIs: exactly one of `functionArn` and `existing`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.functionArn) != has(self.existing)").message("set exactly one of functionArn and existing"))]
#[serde(rename_all = "camelCase")]
pub struct Authorizer {
    /// ARN of a Lambda function, with or without a version or alias. The operator makes an authorizer of it
    /// in each mapped API, without a cache, and lets API Gateway call it. On HTTP APIs it is called with
    /// payload format 2.0 and answers `{isAuthorized, context}`; on REST APIs it is called as a REQUEST
    /// authorizer and answers with a policy and a context. `examples/authorizer` is such a function.
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[a-zA-Z0-9_-]+(:[a-zA-Z0-9_-]+)?$')")
        .message("write the whole ARN of a Lambda function, as in arn:aws:lambda:eu-west-1:123456789012:function:identity"))]
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_arn: Option<String>,
    /// Authorizers that are there already, one for each mapped API. The operator only puts them on routes and
    /// methods, and leaves them there when they are taken out here, so that nothing is opened that was closed
    /// before; their cache and the right to call their functions are yours to set.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["apiId".into()]))]
    #[schemars(with = "Vec<ExistingAuthorizer>", length(min = 1, max = 200))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<Vec<ExistingAuthorizer>>,
}

/// An authorizer that an API has already.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExistingAuthorizer {
    /// The API's id, as in `mappings`.
    #[x_kube(validation = super::api_id())]
    #[schemars(length(min = 1, max = 64))]
    pub api_id: String,
    /// The authorizer's id, as `aws apigatewayv2 get-authorizers` or `aws apigateway get-authorizers` shows
    /// it.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]+$')").message("write the authorizer's id, not its name, as in a1b2c3"))]
    #[schemars(length(min = 1, max = 64))]
    pub authorizer_id: String,
}
