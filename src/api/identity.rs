//! MtlsDomain `spec.identity`: telling back ends who the caller is.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What back ends learn about the caller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Headers that the mapped APIs pass on to their back ends. What a caller sends under such a name is overwritten. At most 16.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<IdentityHeader>,
}

/// One header and where its value comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IdentityHeader {
    /// Header name in lower case, for example `x-client-cert-sub`. Names that API Gateway keeps to itself are refused
    /// (`x-amz-`, `x-amzn-`, `x-forwarded-`, `apigw-`, `authorization` and so on).
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("write a header name of lower-case letters, digits and dashes, as in x-client-cert-sub"))]
    #[x_kube(validation = Rule::new("!self.matches('^((x-amz|x-amzn|apigw|access-control)-.*|x-forwarded-(for|host|proto)|content-(encoding|length|location)|proxy-authenticate|proxy-authorization|transfer-encoding|authorization|connection|forwarded|keep-alive|origin|te|trailers|upgrade|via|host)$')")
        .message("API Gateway keeps this header to itself: choose a name of your own, as in x-client-cert-sub"))]
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Where the value comes from.
    pub from: IdentitySource,
}

/// Where a header's value comes from: exactly one member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.clientCert)").message("set clientCert, as in {clientCert: SubjectDN}"))]
#[serde(rename_all = "camelCase")]
pub struct IdentitySource {
    /// A field of the client certificate that API Gateway has verified: SubjectDN, IssuerDN, SerialNumber (as in `a1:b2:c3`), NotBefore or NotAfter.
    #[schemars(with = "ClientCertField")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<ClientCertField>,
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
