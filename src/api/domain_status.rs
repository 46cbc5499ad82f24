//! Status of the MtlsDomain: AWS state that users would otherwise have to query in AWS. The status does not
//! change while nothing else changes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Observed state, as of the last reconcile.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MtlsDomainStatus {
    /// `metadata.generation` that the rest of the status describes; -1 before the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, ResolvedRefs, CertificateIssued, TruststorePublished, DomainProgrammed, MappingsProgrammed,
    /// DNSProgrammed, BypassClosed and Ready; BypassDetected, Reconciling and Stalled only while True.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Name that DNS must point at, for example `d-abc123.execute-api.eu-west-1.amazonaws.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_domain_name: Option<String>,

    /// ID of the hosted zone of `targetDomainName`, which an alias record needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted_zone_id: Option<String>,

    /// Records that you must create, with `dns.external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsState>,

    /// Server certificate of the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateState>,

    /// Truststore that the domain uses now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truststore: Option<TruststoreState>,

    /// Existing API mappings of the spec.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<MappingState>,

    /// Planned actions with managementPolicy Observe, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
}

/// DNS records that the domain needs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DnsState {
    /// DNS records, one entry each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<DnsRecord>,
}

/// DNS record.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// Owner name, without trailing dot.
    pub name: String,
    /// CNAME or ALIAS. ALIAS is for the first name of a zone, where a CNAME is not possible: an alias to
    /// another name, under any name of the DNS provider for it (ALIAS, ANAME, flattened CNAME).
    pub r#type: String,
    /// Value of the record, without trailing dot.
    pub value: String,
}

/// Server certificate in ACM.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateState {
    /// ARN of the certificate.
    pub arn: String,
    /// Status of the certificate in ACM, for example `PENDING_VALIDATION` or `ISSUED`.
    pub status: String,
    /// Expiry of the certificate. ACM itself renews a certificate that was requested from ACM, under the same
    /// ARN, as long as its validation records are in public DNS. To renew an imported certificate, import its
    /// successor under the same ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Renewal status in ACM of the current or the last renewal: `PENDING_AUTO_RENEWAL`, `PENDING_VALIDATION`
    /// (ACM does not find the validation records), `SUCCESS` or `FAILED`. Unset before the first renewal, and
    /// for a certificate that ACM does not renew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<String>,
    /// Problems that need an action of yours: a renewal that ACM cannot finish, or the expiry within 30 days
    /// of the certificate, of the certificate that proves the name, or of the certificate still in use. The
    /// operator publishes an Event for each warning too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Truststore object and its contents.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TruststoreState {
    /// URI of the object, `s3://<bucket>/<key>`.
    pub uri: String,
    /// S3 version that the domain is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of that version's bytes, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Warnings of API Gateway about the truststore, and the operator's own warnings: certificates that
    /// expire soon or are left out, distrust without effect. At most 100, each of at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Trusted certificates, under the names of their authorities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<AuthorityStatus>,
}

/// Trusted certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Name of the certificate's authority in the spec; with `configMapSelector` followed by `/` and the name
    /// of the ConfigMap.
    pub name: String,
    /// Subject of the certificate (RFC 4514), cut to 1024 bytes.
    pub subject: String,
    /// Expiry of the certificate. API Gateway does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Number of ClientCertificates with an unexpired certificate under this authority, superseded
    /// certificates included, as of the last reconcile of this domain. Unset for an authority that the
    /// operator does not issue under, because the operator cannot know the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub living_leaves: Option<i32>,
}

/// Existing API mapping.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MappingState {
    /// Path, as in the spec.
    pub path: String,
    /// ID of the mapping in API Gateway.
    pub id: String,
}
