//! The MtlsDomain's status: what people would otherwise dig for in AWS. Nothing here changes in an unchanged
//! world.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What is, as of the last reconcile.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MtlsDomainStatus {
    /// The `metadata.generation` that the rest of the status speaks of; -1 before the operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, ResolvedRefs, CertificateIssued, TruststorePublished, DomainProgrammed, MappingsProgrammed,
    /// DNSProgrammed, BypassClosed and Ready; BypassDetected, Reconciling and Stalled only while True.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// The name that DNS must point at, for example `d-abc123.execute-api.eu-west-1.amazonaws.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_domain_name: Option<String>,

    /// The hosted zone of `targetDomainName`, as an alias record needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted_zone_id: Option<String>,

    /// The records that somebody else must create, with `dns.external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsState>,

    /// The server certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateState>,

    /// The truststore that the domain uses now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truststore: Option<TruststoreState>,

    /// The API mappings of the spec that are there.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<MappingState>,

    /// With managementPolicy Observe: what would be done, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
}

/// DNS records that the domain needs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DnsState {
    /// One entry each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<DnsRecord>,
}

/// A DNS record.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// Owner name, without trailing dot.
    pub name: String,
    /// CNAME; or ALIAS for the first name of a zone, where a CNAME cannot be: an alias to another name,
    /// whatever the DNS provider calls it (ALIAS, ANAME, flattened CNAME).
    pub r#type: String,
    /// What it must say, without trailing dot.
    pub value: String,
}

/// The server certificate in ACM.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateState {
    /// Its ARN.
    pub arn: String,
    /// ACM's word for its state, for example `PENDING_VALIDATION` or `ISSUED`.
    pub status: String,
    /// When it expires. ACM renews one that was requested from it by itself, under the same ARN, as long as
    /// its validation records stand in public DNS; one that was imported is renewed by importing its
    /// successor under the same ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// ACM's word for how it gets on with renewing it, or how the last renewal went: `PENDING_AUTO_RENEWAL`,
    /// `PENDING_VALIDATION` (it does not find the validation records), `SUCCESS` or `FAILED`. Unset before
    /// the first renewal, and where ACM does not renew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<String>,
    /// What will go wrong unless somebody does something: a renewal that ACM cannot finish, or the end of the
    /// certificate, of the one that proves the name, or of the one still in use, within 30 days. Each is told
    /// in an Event too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The truststore object and what is in it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TruststoreState {
    /// `s3://<bucket>/<key>`.
    pub uri: String,
    /// The S3 version that the domain is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of that version's bytes, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What API Gateway warned of when it took the truststore, and what the operator itself sees:
    /// certificates that expire soon or were left out, distrust without effect. At most 100, each of at most
    /// 1024 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The trusted certificates, under the names of their authorities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<AuthorityStatus>,
}

/// One trusted certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Name of the authority in the spec that it belongs to; with `configMapSelector` followed by `/` and the
    /// ConfigMap's name.
    pub name: String,
    /// Its subject (RFC 4514), cut to 1024 bytes.
    pub subject: String,
    /// When it expires. API Gateway does not say so by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// How many ClientCertificates have an unexpired certificate under it, superseded ones included, as of
    /// the last reconcile of this domain. Unset where the operator cannot know, because it does not issue
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub living_leaves: Option<i32>,
}

/// One API mapping that is there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MappingState {
    /// As in the spec.
    pub path: String,
    /// API Gateway's id of the mapping.
    pub id: String,
}
