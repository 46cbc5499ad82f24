//! MtlsDomain `spec.trust` and `spec.truststore`: whose client certificates are let in, and where that list
//! is kept.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AuthorityKey, Duration, SecretRef};

/// Whose client certificates the domain lets in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.issuingAuthority) || (has(self.authorities) && self.authorities.exists(a, a.name == self.issuingAuthority && (has(a.generate) || has(a.secretRef))))")
    .message("issuingAuthority must name an entry of authorities with generate or secretRef: the others have no key to issue with").field_path(".issuingAuthority"))]
#[x_kube(validation = Rule::new("has(self.issuingAuthority) || !has(self.authorities) || \
                                 self.authorities.filter(a, has(a.generate)).size() <= 1")
    .message("more than one authority has generate: say with issuingAuthority which one issues").field_path(".issuingAuthority"))]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Name of the authority that issues ClientCertificates of this domain, unless they name another
    /// themselves. Unset: the only one that can issue (one with `generate`, or with a `secretRef` that holds
    /// a key); required as soon as two can. To rotate an authority, add a new entry and point this at it:
    /// certificates follow by themselves, and the old entry's certificate is trusted as long as a certificate
    /// under it is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub issuing_authority: Option<String>,

    /// The authorities whose certificates are let in, each under a name of its own and from exactly one
    /// source. At most 500. API Gateway refuses two certificates with the same subject, and chains longer
    /// than 4.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 500))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<Authority>,

    /// How long an authority's certificate stays trusted after another took its place, for example `720h`.
    /// Unset: until the last client certificate under it has expired. Shorter means that certificates under
    /// it stop working earlier than they say. To drop one at once, whatever hangs on it, set its `state` to
    /// Distrusted.
    #[x_kube(validation = super::duration_of_at_least("0s", "720h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Duration>,
}

/// Field by field, with unset standing for the default on both sides: a server-side apply of a manifest
/// without a field removes the field, which an earlier release's schema filled in. An empty list is the same
/// as none. Spelled out with `has()` because the API server takes what `?` selects for unbounded and refuses
/// the rule's cost.
const SAME_AUTHORITY: &str = "(has(self.commonName) ? has(oldSelf.commonName) && self.commonName == \
     oldSelf.commonName : !has(oldSelf.commonName)) \
     && (has(self.organizations) && size(self.organizations) > 0 \
     ? has(oldSelf.organizations) && self.organizations == oldSelf.organizations : \
     !has(oldSelf.organizations) || size(oldSelf.organizations) == 0) \
     && (has(self.duration) ? self.duration : '87600h') == (has(oldSelf.duration) ? oldSelf.duration : \
     '87600h') \
     && (has(self.privateKey) && has(self.privateKey.algorithm) ? self.privateKey.algorithm : 'ECDSA') \
     == (has(oldSelf.privateKey) && has(oldSelf.privateKey.algorithm) ? oldSelf.privateKey.algorithm : \
     'ECDSA') \
     && (has(self.privateKey) && has(self.privateKey.size) ? self.privateKey.size \
     : has(self.privateKey) && has(self.privateKey.algorithm) && self.privateKey.algorithm == 'RSA' ? 2048 : \
     256) \
     == (has(oldSelf.privateKey) && has(oldSelf.privateKey.size) ? oldSelf.privateKey.size \
     : has(oldSelf.privateKey) && has(oldSelf.privateKey.algorithm) && oldSelf.privateKey.algorithm == 'RSA' \
     ? 2048 : 256)";

/// One authority, from exactly one source: `generate`, `secretRef`, `configMapRef`, `configMapSelector` or
/// `pem`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("[has(self.generate), has(self.secretRef), has(self.configMapRef), has(self.configMapSelector), has(self.pem)].filter(x, x).size() == 1")
    .message("set exactly one of generate, secretRef, configMapRef, configMapSelector, pem"))]
#[x_kube(validation = Rule::new("has(self.generate) == has(oldSelf.generate)")
    .message("generate cannot be added to or taken from an authority: add one under another name, point \
              issuingAuthority at it, then remove this one"))]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// The name under which this domain knows the authority: lower-case letters, digits and dashes, at most
    /// 63.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("write lower-case letters, digits and dashes, beginning and ending with a letter or digit"))]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Active: trusted. Distrusted: what the entry lists leaves the truststore at once, with every other
    /// certificate of the same keys and everything issued under them, and stays out, whatever becomes of the
    /// entry's source, until the entry is removed or Active again. A source that cannot be read from the
    /// start sets ResolvedRefs to False: the distrust has no effect yet. API Gateway judges issuers only: to
    /// shut out a single client, distrust its issuer, or delete its self-signed ClientCertificate.
    #[serde(default)]
    pub state: AuthorityState,

    /// Have the operator make this authority and keep it in the Secret `<MtlsDomain>.<authority>-ca`.
    /// Immutable: to have other values, add an authority under another name and point `issuingAuthority` at
    /// it. Back that Secret up, with its labels: without its key nothing can be issued under this authority
    /// again. The operator records the public key in the annotation `mtls-operator.io/generated.<authority>`
    /// of the MtlsDomain before it writes the Secret; a Secret of that name with a key that neither the
    /// annotation nor the truststore knows is not used (`SecretNotOwned`).
    #[x_kube(validation = Rule::new(SAME_AUTHORITY)
        .message("generate is immutable: add an authority under another name and point issuingAuthority at it"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GeneratedAuthority>,

    /// A Secret in this namespace. With `tls.crt` its first certificate is the authority, and with `tls.key`
    /// beside it the authority can issue; `ca.crt` beside it counts only as far as it completes the chain of
    /// `tls.crt`: `status.truststore.warnings` names other certificates in it, which are not trusted. With
    /// `ca.crt` alone its certificates are trusted and nothing is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// One key of a ConfigMap in this namespace, in `data` or `binaryData`, with PEM certificates. Trusted
    /// only, never issued from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKeyRef>,

    /// Every ConfigMap in this namespace with these labels, for one file per partner. Trusted only, never
    /// issued from. Each counts by itself: one that cannot be read keeps what it had last, one that is
    /// deleted or loses the labels is no longer trusted (or, in a Distrusted entry, stays distrusted). In
    /// `status.truststore` they are called `<authority>/<ConfigMap>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_selector: Option<ConfigMapSelector>,

    /// PEM certificates, written out here: the authority and what its chain needs up to the root. Trusted
    /// only, never issued from. At most 16384 characters, about eight certificates; for long lists use
    /// ConfigMaps.
    // Ten letters, common to the labels of certificates: a longer or second text exceeds the API server's
    // cost limit.
    #[x_kube(validation = Rule::new("self.contains('CERTIFICAT') && !self.contains('PRIVATE KEY')")
        .message("write PEM certificates, beginning with -----BEGIN CERTIFICATE-----, and no private key: that belongs into a Secret (secretRef)"))]
    #[schemars(length(min = 1, max = 16384))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
}

/// Whether an authority is trusted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthorityState {
    /// Trusted.
    #[default]
    Active,
    /// Out of the truststore at once, with everything issued under it, until the entry is removed or Active
    /// again.
    Distrusted,
}

/// An authority that the operator makes: a self-signed CA certificate and its key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedAuthority {
    /// The certificate's common name (CN), at most 64 characters. Unset: the authority's name. No two
    /// certificates of a truststore may have the same subject, so that a later authority of this domain needs
    /// another common name or organization.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,

    /// The certificate's organizations (O), at most 8 of at most 64 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,

    /// How long the authority lives, at least 24h. Unset: 87600h (ten years). No certificate under it
    /// outlives it.
    #[x_kube(validation = super::duration_of_at_least("24h", "87600h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,

    /// The authority's key. Unset: ECDSA P-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<AuthorityKey>,
}

/// One key of a ConfigMap in this namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key with the PEM certificates.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default = "ca_crt")]
    pub key: String,
}

/// All ConfigMaps of this namespace with certain labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSelector {
    /// The labels a ConfigMap must have, all of them. At least one: an empty selector would trust every
    /// ConfigMap.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// The key with the PEM certificates, the same in each.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default = "ca_crt")]
    pub key: String,
}

fn ca_crt() -> String {
    "ca.crt".into()
}

/// The S3 object that API Gateway reads the trusted certificates from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Truststore {
    /// A versioned S3 bucket in the domain's account and Region. Unset: the operator's `--truststore-bucket`.
    /// Each change is a new version of one object, and the domain is told which version to use. When `bucket`
    /// or `key` change, the domain moves to the new place with everything that is trusted; the object at the
    /// old place stays, also when the MtlsDomain is deleted.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')")
        .message("write the bucket's name only (3 to 63 lower-case letters, digits, dots, dashes), without s3:// and without a path"))]
    #[schemars(length(min = 1, max = 255))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,

    /// The object's key in the bucket. Unset: `<cluster id>/<namespace>/<name>.pem`. Two MtlsDomains must not
    /// share one. An object that is there already and carries no ownership tag is stored over, as a new
    /// version, only with `adoptionPolicy: Unowned`; versions that the operator did not store are never
    /// deleted. When bucket or key change later, what the operator stored at the old place stays there, with
    /// its ownership tag.
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.startsWith('s3://')")
        .message("write the key without s3:// or bucket and without a leading slash, as in payments/partners.pem"))]
    #[schemars(length(min = 1, max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,

    /// Whether the operator may create the bucket. Never: it must be there, with versioning enabled.
    /// IfMissing: it is created when it is not there: versioned, all public access blocked, encrypted (with
    /// `kmsKeyArn` when given), tagged as the operator's; and these settings are restored when somebody
    /// changes them, as long as the tag is there. The operator never deletes a bucket, nor changes one that
    /// it did not make. S3 may take up to 15 minutes to give a new bucket's objects versions. Unset: Never.
    #[schemars(with = "BucketCreation")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_creation: Option<BucketCreation>,

    /// KMS key to encrypt the object with. Unset: as the bucket does by default. Another key means another
    /// version of the same bytes, to which the domain is moved; an alias is followed when a version is
    /// stored, not later. The operator's role needs kms:GenerateDataKey and kms:Decrypt on it: API Gateway
    /// reads the object with the rights of whoever updates the domain.
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/.+$')")
        .message("write the whole ARN of a KMS key, as in arn:aws:kms:eu-west-1:123456789012:key/1234abcd-..."))]
    #[schemars(length(min = 1, max = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_arn: Option<String>,
}

/// Whether the operator may create the truststore's bucket.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BucketCreation {
    /// The bucket must be there, with versioning enabled.
    #[default]
    Never,
    /// Create it when it is not there: versioned, private, encrypted, tagged.
    IfMissing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_of_a_generated_authority_can_be_changed() {
        let schema = schemars::schema_for!(GeneratedAuthority);
        let fields = schema
            .get("properties")
            .and_then(|all| all.as_object())
            .expect("it has fields");
        for field in fields.keys() {
            for side in ["self", "oldSelf"] {
                assert!(
                    SAME_AUTHORITY.contains(&format!("has({side}.{field})")),
                    "{field}"
                );
            }
        }
    }
}
