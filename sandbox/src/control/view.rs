//! External view of the emulator's AWS: custom domain names for the edge, hosted zones for the DNS server.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// State that the TLS front needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeView {
    /// CA of all server certificates that are not imported, PEM.
    pub authority: String,
    /// Certificate of the default endpoints, for a host that is one.
    pub default_endpoint: Option<Shown>,
    /// Value of the header `secret_header` in each request to the data plane.
    pub secret: String,
    pub secret_header: String,
    /// Header -> the field of `clientCert` in the header.
    pub certificate_headers: BTreeMap<String, String>,
    pub domains: Vec<Domain>,
}

/// Custom domain name with its current configuration at the endpoint.
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
    /// True when the domain answers at all; false before it has been AVAILABLE once.
    pub serving: bool,
    pub mutual_tls: bool,
    /// True when a certificate of the truststore with CA:FALSE counts as an authority. Assumed to be false in
    /// AWS.
    pub leaf_anchor_issues: bool,
    /// True when a `Host` header alone reaches the domain. Assumed to be false in AWS.
    pub host_alone_selects: bool,
    pub truststore: Option<Truststore>,
    pub certificate: Option<ServerCertificate>,
}

/// Truststore that API Gateway read at the last update.
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
    #[serde(flatten)]
    pub shown: Option<Shown>,
}

/// Certificate that the edge shows, with its chain, and its key, in PEM.
#[derive(Clone, Deserialize, PartialEq, Eq, Hash)]
pub struct Shown {
    pub pem: String,
    pub key: String,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("pem", &self.pem)
            .finish_non_exhaustive()
    }
}

/// Hosted zone and all its record sets. Names end in a dot and are in lower case.
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
    /// Time to live in seconds; none for an alias.
    pub ttl: Option<u32>,
    /// Values in the presentation format of zone files.
    pub values: Vec<String>,
    pub alias: Option<Alias>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alias {
    pub target: String,
    pub hosted_zone_id: String,
    /// Custom domain name with this regional target; `None` when no domain name has it.
    pub regional_domain: Option<RegionalDomain>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionalDomain {
    pub domain_name: String,
    pub account: String,
    pub region: String,
}
