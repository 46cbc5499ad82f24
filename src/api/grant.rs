//! The ClientGrant kind: permission for other namespaces to request ClientCertificates for an MtlsDomain of
//! its namespace.

#![allow(clippy::duplicated_attributes)] // misfires on several printcolumns of one type

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::api::{self, Duration, Issuance, Namespaces};

/// Namespaces and the certificates that they may request. A certificate must fit one grant as a whole. A
/// grant permits only the names that it lists: an unset list permits none.
///
/// In these lists `*` matches one or more characters, except separators: in the subject `.`, `/`, `:` and
/// `@`; in DNS names `.`; in mail addresses `@` and the `.` behind it; in URIs `/`, `:`, `@`, `?`, `#`, `%`
/// and the `.` of the host (a path with `.` or `..` as a segment matches nothing). It does not match `*`
/// itself either, so that no namespace gets a wildcard name by it. All other characters match literally, in
/// upper and lower case.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mtls-operator.io",
    version = "v1alpha1",
    kind = "ClientGrant",
    namespaced,
    doc = "Allows other namespaces to request ClientCertificates for an MtlsDomain of its own namespace. The domain's own namespace needs no grant; other namespaces get no certificate without one. After a grant is deleted, narrowed or expired, the operator renews no certificate that only this grant allowed. It removes such a self-signed certificate from the truststore at once; other issued certificates work until they expire.",
    status = "ClientGrantStatus",
    derive = "PartialEq",
    shortname = "mcg",
    category = "mtls",
    selectable = ".spec.domainRef.name",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domainRef.name"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Certificates", type_ = "integer", json_path = ".status.certificates"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.notAfter"),
    printcolumn(
        name = "Latest",
        type_ = "string",
        json_path = ".status.latestExpiry",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self.issuance != 'SelfSigned' || !has(self.authority)")
    .message("with issuance SelfSigned leave out authority: such certificates sign themselves"))]
#[serde(rename_all = "camelCase")]
pub struct ClientGrantSpec {
    /// MtlsDomain of the grant, in this namespace. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("domainRef is immutable: create another ClientGrant for the other domain"))]
    pub domain_ref: GrantedDomain,

    /// Namespaces that may request ClientCertificates. Everyone with the right to label a namespace, or to
    /// create a namespace with such a name, can extend the grant to that namespace.
    pub namespaces: Namespaces,

    /// Common names (CN) that the namespaces may request, for example `acme-*`. 1 to 50.
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 64)))]
    pub common_names: Vec<String>,

    /// DNS names that the namespaces may request, for example `*.acme.example.com`. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,

    /// URIs that the namespaces may request, for example `spiffe://example.com/acme/*`. At most 50. Unset:
    /// none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 2048)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,

    /// Mail addresses that the namespaces may request, for example `*@acme.example.com`. At most 50. Unset:
    /// none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 254)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,

    /// Organizations (O) that the namespaces may request. At most 50. Unset: none. Back ends may identify
    /// callers by any part of the subject, this part included.
    #[schemars(length(max = 50), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,

    /// Organizational units (OU) that the namespaces may request. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizational_units: Vec<String>,

    /// Countries (C) that the namespaces may request. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,

    /// Localities (L) that the namespaces may request. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub localities: Vec<String>,

    /// States or provinces (ST) that the namespaces may request. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provinces: Vec<String>,

    /// Issuance that the namespaces may request: Authority or SelfSigned. A self-signed certificate is an
    /// entry of its own in the domain's truststore. For both, create two grants. Default: Authority.
    #[serde(default)]
    pub issuance: Issuance,

    /// Name of the domain's authority that certificates may name, at most 63 characters. Unset: the domain's
    /// issuing authority, also after it changes; a certificate must then name no authority.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,

    /// Maximum validity period of a certificate, at least 1h. Unset: the domain's maximum.
    #[x_kube(validation = api::duration_of_at_least("1h", "720h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,

    /// Maximum number of ClientCertificates that the grant allows at the same time, over all its namespaces,
    /// 1 to 100000. The oldest come first. A ClientCertificate that also fits a grant without this field does
    /// not count. Unset: no maximum. For a maximum in each namespace, create a grant for each namespace.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_certificates: Option<u32>,

    /// Maximum bytes of the grant's self-signed certificates in the domain's truststore, over all its
    /// namespaces and with the operator's comments, 1024 to 1000000. The oldest come first. A certificate
    /// beyond it is not trusted (reason TruststoreFull); those that are trusted already stay, and count. One
    /// certificate of each ClientCertificate that has several does not count, so that a renewal needs no
    /// room. Unset: 65536.
    #[schemars(range(min = 1024, max = 1_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u32>,

    /// End of the grant, for example `2027-06-30T00:00:00Z`. No certificate is valid longer. Unset: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}

/// Reference to an MtlsDomain in the namespace of the object that names it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GrantedDomain {
    /// Name of the MtlsDomain.
    #[x_kube(validation = api::object_name())]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// Observed state, as of the last reconcile.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientGrantStatus {
    /// `metadata.generation` that the rest of the status describes; -1 before the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, ResolvedRefs (the domain exists) and Ready; Reconciling and Stalled only while True.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Number of ClientCertificates that this grant allows now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<u32>,

    /// Latest expiry of these ClientCertificates, according to their own status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_expiry: Option<Time>,
}
