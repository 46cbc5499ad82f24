//! The ClientGrant: which ClientCertificates other namespaces may have for an MtlsDomain of this one.

#![allow(clippy::duplicated_attributes)] // misfires on several printcolumns of one type

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Duration, Issuance, Namespaces};

/// Who may have which certificates. A certificate has to fit one grant as a whole. What a grant does not name
/// may not be asked for: a list of names that is left out admits none.
///
/// In these lists `*` stands for one or more characters, and never for what names are divided by: in the
/// subject `.`, `/`, `:` and `@`; in DNS names `.`; in mail addresses `@` and the `.` behind it; in URIs `/`,
/// `:`, `@`, `?`, `#`, `%` and the `.` of the host (a path with `.` or `..` as a segment fits nothing).
/// Neither does it stand for `*` itself, so that nobody gets a wildcard name by one. All else is taken
/// literally, upper and lower case too.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mtls-operator.io",
    version = "v1alpha1",
    kind = "ClientGrant",
    namespaced,
    doc = "Allows ClientCertificates of other namespaces for an MtlsDomain of this one. Without one there are none; the domain's own namespace needs none. When it is deleted, narrowed or over, nothing is renewed that it allowed, and self-signed certificates leave the truststore at once; others that were handed out work until they expire.",
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
    /// The MtlsDomain, in this namespace. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("domainRef is immutable: create another ClientGrant for the other domain"))]
    pub domain_ref: GrantedDomain,

    /// The namespaces whose ClientCertificates it is for. Whoever may label a namespace, or create one of
    /// such a name, lets it in.
    pub namespaces: Namespaces,

    /// Common names (CN) that may be asked for, for example `acme-*`. At most 50.
    #[schemars(length(min = 1, max = 50), inner(length(min = 1, max = 64)))]
    pub common_names: Vec<String>,

    /// DNS names that may be asked for, for example `*.acme.example.com`. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,

    /// URIs that may be asked for, for example `spiffe://example.com/acme/*`. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 2048)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,

    /// Mail addresses that may be asked for, for example `*@acme.example.com`. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 254)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,

    /// Organizations (O) that may be asked for. At most 50. Unset: none. As every part of the subject, back
    /// ends may tell callers apart by it.
    #[schemars(length(max = 50), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,

    /// Organizational units (OU) that may be asked for. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizational_units: Vec<String>,

    /// Countries (C) that may be asked for. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,

    /// Localities (L) that may be asked for. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub localities: Vec<String>,

    /// States or provinces (ST) that may be asked for. At most 50. Unset: none.
    #[schemars(length(max = 50), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provinces: Vec<String>,

    /// What certificates it is for: Authority or SelfSigned, which go into the domain's truststore each by
    /// itself. For both write two grants.
    #[serde(default)]
    pub issuance: Issuance,

    /// Name of the domain's authority to issue under. Unset: the domain's issuing one, whichever that is; a
    /// certificate then names none.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,

    /// The longest life that a certificate may ask for, at least 1h. Unset: what the domain allows.
    #[x_kube(validation = super::duration_of_at_least("1h", "720h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,

    /// How many ClientCertificates it allows at the same time, over all its namespaces; the oldest have the
    /// places. One that fits a grant without this takes no place. Unset: any number. For a number for each
    /// namespace write a grant for each.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_certificates: Option<u32>,

    /// When it is over, for example `2027-06-30T00:00:00Z`. No certificate lives longer. Unset: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
}

/// An MtlsDomain of the namespace of the object that names it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GrantedDomain {
    /// The MtlsDomain's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// What is, as of the last reconcile.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientGrantStatus {
    /// The `metadata.generation` that the rest of the status speaks of; -1 before the operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, ResolvedRefs (the domain is there) and Ready; Reconciling and Stalled only while True.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// How many ClientCertificates fit it and are there by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<u32>,

    /// When the last of their certificates expires, as they say themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_expiry: Option<Time>,
}
