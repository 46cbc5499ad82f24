//! What the emulator's AWS shows to the outside: custom domain names to the edge, hosted zones to the DNS.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What the TLS front has to know.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeView {
    /// Goes into the header `secret_header` of each request to the data plane.
    pub secret: String,
    pub secret_header: String,
    /// Header -> the field of `clientCert` that it carries.
    pub certificate_headers: BTreeMap<String, String>,
    pub domains: Vec<Domain>,
}

/// A custom domain name, as its endpoint serves it now.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Domain {
    pub account: String,
    pub region: String,
    pub domain_name: String,
    pub regional_domain_name: String,
    pub ip_address_type: String,
    pub status: String,
    pub status_message: String,
    /// Whether it answers at all; not before it has been AVAILABLE once.
    pub serving: bool,
    pub mutual_tls: bool,
    /// Assumed not to be so of AWS: a certificate of the truststore that says CA:FALSE is taken for an
    /// authority.
    pub leaf_anchor_issues: bool,
    pub truststore: Option<Truststore>,
    pub certificate: Option<ServerCertificate>,
}

/// The truststore that API Gateway read at the last update.
#[derive(Clone, Debug, Deserialize)]
pub struct Truststore {
    pub uri: String,
    pub version: String,
    pub pem: String,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ServerCertificate {
    pub arn: String,
    pub names: Vec<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

/// A hosted zone and all its record sets. Names end in a dot and are in lower case.
#[derive(Clone, Debug, Deserialize)]
pub struct Zone {
    pub id: String,
    pub name: String,
    pub private: bool,
    pub account: String,
    pub records: Vec<RecordSet>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RecordSet {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Seconds; none for an alias.
    pub ttl: Option<u32>,
    /// In the presentation format of zone files.
    pub values: Vec<String>,
    pub alias: Option<Alias>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alias {
    pub target: String,
    pub hosted_zone_id: String,
    /// The custom domain name whose regional target this is; `None`: nobody's.
    pub regional_domain: Option<RegionalDomain>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionalDomain {
    pub domain_name: String,
    pub account: String,
    pub region: String,
}
