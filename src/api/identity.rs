//! MtlsDomain `spec.identity`: the caller's identity for back ends.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api;

/// Identity of the caller that back ends receive as headers. The operator writes the headers into every
/// integration of every mapped API, unless API Gateway passes the value by default. The next reconcile,
/// within minutes, covers routes and methods that a user adds later. Until then, and whenever the condition
/// IdentityPropagated is not True, a caller can send such a header itself, and the back end must not trust
/// the header.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.authorizer) || !self.headers.exists(h, has(h.from.authorizerKey))")
    .message("set authorizer too: authorizerKey is what an authorizer returns"))]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Headers that the mapped APIs pass on to their back ends, 1 to 8. API Gateway overwrites a header of
    /// the same name that the caller sends. The header is empty or missing when a caller without a
    /// certificate calls the API by another host name or by its default endpoint: the back end must reject
    /// such a request.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(min = 1, max = 8))]
    pub headers: Vec<IdentityHeader>,

    /// Lambda authorizer whose results headers may hold (`authorizerKey`). The operator attaches the
    /// authorizer to every route and method behind the mappings that has no authorization yet, except
    /// OPTIONS; the authorizer then decides which callers are accepted. The operator leaves a route with
    /// another authorization as it is and names the route in the message of IdentityPropagated; with a header
    /// that uses `authorizerKey`, that condition then does not become True. When this field is removed, the
    /// operator detaches the authorizer from the routes and methods that it attached the authorizer to. On a
    /// REST API each of these changes needs a deployment (`restDeployment`). Unset: no authorizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorizer: Option<Authorizer>,
}

/// Header and the source of its value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IdentityHeader {
    /// Header name in lower case, for example `x-client-cert-sub`. 1 to 64 letters, digits and dashes. The
    /// API server rejects names that have a meaning in API Gateway or HTTP (`x-amz-`, `x-amzn-`,
    /// `x-forwarded-for`, `apigw-`, `authorization`, `host` and so on).
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("write a header name of lower-case letters, digits and dashes, as in x-client-cert-sub"))]
    #[x_kube(validation = Rule::new("!self.matches('^((x-amz|x-amzn|apigw|access-control|content)-.*|x-forwarded-(for|host|port|proto)|proxy-authenticate|proxy-authorization|transfer-encoding|www-authenticate|authorization|connection|cookie|date|expect|forwarded|keep-alive|max-forwards|origin|te|trailers?|upgrade|user-agent|via|host)$')")
        .message("this header has a meaning in API Gateway or HTTP: choose a name of your own, as in \
                  x-client-cert-sub"))]
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Source of the header's value.
    pub from: IdentitySource,
}

/// Source of a header's value: exactly one of `clientCert` and `authorizerKey`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.clientCert) != has(self.authorizerKey)")
    .message("set exactly one of clientCert and authorizerKey, as in {clientCert: SubjectDN}"))]
#[serde(rename_all = "camelCase")]
pub struct IdentitySource {
    /// Field of the client certificate that API Gateway has verified: SubjectDN, IssuerDN, SerialNumber (as
    /// in `a1:b2:c3`), NotBefore or NotAfter. Needs no Lambda function.
    #[schemars(with = "ClientCertField")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<ClientCertField>,
    /// Key of the context that `authorizer` returns: a letter, then letters, digits and `_`, at most 64
    /// characters, for example `commonName`. The authorizer must return a valid header value under this key
    /// for every caller: when the key is missing, the header may keep the value that the caller sent.
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z][A-Za-z0-9_]*$')")
        .message("write a key of letters, digits and _, as in commonName"))]
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorizer_key: Option<String>,
}

/// Field of the caller's certificate, under the name of API Gateway's context variable.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertField {
    /// Distinguished name of the subject.
    SubjectDN,
    /// Distinguished name of the issuer.
    IssuerDN,
    /// Serial number, as in `a1:b2:c3`.
    SerialNumber,
    /// Start of the validity period.
    NotBefore,
    /// End of the validity period.
    NotAfter,
}

/// Lambda authorizer of the mapped APIs: exactly one of `functionArn` and `existing`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.functionArn) != has(self.existing)").message("set exactly one of functionArn and existing"))]
#[serde(rename_all = "camelCase")]
pub struct Authorizer {
    /// ARN of a Lambda function, with or without a version or alias. The operator creates an authorizer with
    /// this function in each mapped API, without a cache, and permits API Gateway to call the function. On
    /// HTTP APIs the function receives payload format 2.0 and returns `{isAuthorized, context}`; on REST APIs
    /// it is called as a REQUEST authorizer and returns a policy and a context. `examples/authorizer` is such
    /// a function.
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[a-zA-Z0-9_-]+(:[a-zA-Z0-9_-]+)?$')")
        .message("write the whole ARN of a Lambda function, as in arn:aws:lambda:eu-west-1:123456789012:function:identity"))]
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_arn: Option<String>,
    /// Existing authorizers, one for each mapped API, 1 to 200. The operator only attaches them to routes and
    /// methods. It does not detach them when they are removed here, so that no route becomes open that
    /// required authorization before. You set their cache and the permission to call their functions.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["apiId".into()]))]
    #[schemars(with = "Vec<ExistingAuthorizer>", length(min = 1, max = 200))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<Vec<ExistingAuthorizer>>,
}

/// Existing authorizer of one API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExistingAuthorizer {
    /// ID of the API, as in `mappings`.
    #[x_kube(validation = api::api_id())]
    #[schemars(length(min = 1, max = 64))]
    pub api_id: String,
    /// ID of the authorizer, as `aws apigatewayv2 get-authorizers` or `aws apigateway get-authorizers` shows
    /// it.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]+$')").message("write the authorizer's id, not its name, as in a1b2c3"))]
    #[schemars(length(min = 1, max = 64))]
    pub authorizer_id: String,
}
