//! MtlsDomain `spec.trust` and `spec.truststore`: the trusted authorities, and the place of the truststore.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{self, AuthorityKey, Duration, SecretRef};

/// Authorities whose client certificates the domain accepts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.issuingAuthority) || (has(self.authorities) && self.authorities.exists(a, a.name == self.issuingAuthority && (has(a.generate) || has(a.secretRef))))")
    .message("issuingAuthority must name an entry of authorities with generate or secretRef: the others have no key to issue with").field_path(".issuingAuthority"))]
#[x_kube(validation = Rule::new("has(self.issuingAuthority) || !has(self.authorities) || \
                                 self.authorities.filter(a, has(a.generate)).size() <= 1")
    .message("more than one authority has generate: say with issuingAuthority which one issues").field_path(".issuingAuthority"))]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Name of the authority that issues ClientCertificates of this domain, unless a ClientCertificate names
    /// another authority. Unset: the only authority that can issue (with `generate`, or with a `secretRef`
    /// that holds a key); required as soon as two can. To rotate an authority, add a new entry and set this
    /// field to its name: the operator issues the certificates again under the new authority, and the old
    /// entry's certificate stays trusted as long as a certificate under it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub issuing_authority: Option<String>,

    /// Trusted authorities, each with a name of its own and exactly one source. At most 500. API Gateway
    /// rejects two certificates with the same subject, and chains longer than 4. The operator tries at most
    /// 64 keys of one name as the issuer of a certificate. Unset: none.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 500))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<Authority>,

    /// Time for which an authority's certificate stays trusted after another certificate replaced it, for
    /// example `720h`. Unset: until the last client certificate under it has expired. With a shorter time,
    /// certificates under it stop working before they expire. To remove an authority at once, with all
    /// certificates under it, set its `state` to Distrusted.
    #[x_kube(validation = api::duration_of_at_least("0s", "720h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Duration>,
}

/// CEL rule that compares an authority field by field, with the default for an unset field on both sides: a
/// server-side apply of a manifest without a field removes the field, which an earlier release's schema
/// filled in. An empty list equals an unset list. The rule uses `has()` because the API server estimates the
/// cost of a `?` selection as unbounded and rejects the rule.
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

/// Authority with exactly one source: `generate`, `secretRef`, `configMapRef`, `configMapSelector` or `pem`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("[has(self.generate), has(self.secretRef), has(self.configMapRef), has(self.configMapSelector), has(self.pem)].filter(x, x).size() == 1")
    .message("set exactly one of generate, secretRef, configMapRef, configMapSelector, pem"))]
#[x_kube(validation = Rule::new("has(self.generate) == has(oldSelf.generate)")
    .message("generate cannot be added to or taken from an authority: add one under another name, point \
              issuingAuthority at it, then remove this one"))]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Name of the authority in this domain: lower-case letters, digits and dashes, at most 63.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("write lower-case letters, digits and dashes, beginning and ending with a letter or digit"))]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Trust in the authority. Active: trusted. Distrusted: the operator removes the entry's certificates
    /// from the truststore at once, with every other certificate of the same keys and everything issued under
    /// them. They stay removed, also after the entry's source changes or disappears, until the entry is
    /// removed or Active again. When the operator has never been able to read the source, ResolvedRefs is
    /// False: the distrust has no effect yet. API Gateway checks issuers only: to reject a single client,
    /// distrust its issuer, or delete its self-signed ClientCertificate. Default: Active.
    #[serde(default)]
    pub state: AuthorityState,

    /// Authority that the operator generates and keeps in the Secret `<MtlsDomain>.<authority>-ca`.
    /// Immutable: for other values, add an authority under another name and set `issuingAuthority` to it.
    /// Back up that Secret, with its labels: without its key the operator can never issue under this
    /// authority again. The operator records the public key in the annotation
    /// `mtls-operator.io/generated.<authority>` of the MtlsDomain before it writes the Secret. It does not
    /// use a Secret of that name with a key that neither the annotation nor the truststore knows
    /// (`SecretNotOwned`).
    #[x_kube(validation = Rule::new(SAME_AUTHORITY)
        .message("generate is immutable: add an authority under another name and point issuingAuthority at it"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GeneratedAuthority>,

    /// Secret in this namespace. With `tls.crt` and `tls.key` the authority can issue: it is the certificate
    /// of the key, at any place in `tls.crt`. A `ca.crt` with `tls.crt` only completes its chain:
    /// `status.truststore.warnings` names other certificates in it, which are not trusted. With `ca.crt`
    /// alone, its certificates are trusted and the authority cannot issue. Each key at most 1 MiB and 500
    /// certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Key of a ConfigMap in this namespace, in `data` or `binaryData`, with PEM certificates, at most 1 MiB
    /// and 500 certificates. The certificates are trusted, and the authority cannot issue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKeyRef>,

    /// ConfigMaps in this namespace with these labels, for one file per partner, each at most 1 MiB and 500
    /// certificates. The certificates are trusted, and the authority cannot issue. Each ConfigMap is a source
    /// of its own: when the operator cannot read a ConfigMap, its last certificates stay trusted; when a
    /// ConfigMap is deleted or loses the labels, its certificates are no longer trusted (or, in a Distrusted
    /// entry, stay distrusted). The names of these sources in `status.truststore` are
    /// `<authority>/<ConfigMap>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_selector: Option<ConfigMapSelector>,

    /// PEM certificates: the authority and its chain up to the root. The certificates are trusted, and the
    /// authority cannot issue. At most 16384 characters, about eight certificates; for long lists use
    /// ConfigMaps.
    // The rule checks for ten letters that the labels of all certificates share: a longer or second text
    // exceeds the API server's cost limit.
    #[x_kube(validation = Rule::new("self.contains('CERTIFICAT') && !self.contains('PRIVATE KEY')")
        .message("write PEM certificates, beginning with -----BEGIN CERTIFICATE-----, and no private key: that belongs into a Secret (secretRef)"))]
    #[schemars(length(min = 1, max = 16384))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pem: Option<String>,
}

/// Trust in an authority.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthorityState {
    /// The authority is trusted.
    #[default]
    Active,
    /// The authority and everything issued under it are not in the truststore, until the entry is removed or
    /// Active again.
    Distrusted,
}

/// Authority that the operator generates: a self-signed CA certificate and its key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedAuthority {
    /// Common name (CN) of the certificate, at most 64 characters. Unset: the authority's name. A truststore
    /// cannot hold two certificates with the same subject: a later authority of this domain needs another
    /// common name or organization.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,

    /// Organizations (O) of the certificate, at most 8 of at most 64 characters. Unset: none.
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,

    /// Validity period of the authority, at least 24h. Unset: 87600h (ten years). No certificate under the
    /// authority outlives it.
    #[x_kube(validation = api::duration_of_at_least("24h", "87600h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,

    /// Private key of the authority. Unset: ECDSA P-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<AuthorityKey>,
}

/// Key of a ConfigMap in this namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[x_kube(validation = api::object_name())]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key with the PEM certificates. Default: `ca.crt`.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default = "ca_crt")]
    pub key: String,
}

/// ConfigMaps of this namespace with certain labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSelector {
    /// Labels that a ConfigMap must have, all of them, 1 to 16. An empty selector would trust every
    /// ConfigMap.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// Key with the PEM certificates, the same in each ConfigMap. Default: `ca.crt`.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default = "ca_crt")]
    pub key: String,
}

fn ca_crt() -> String {
    "ca.crt".into()
}

/// S3 object that API Gateway reads the trusted certificates from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.kmsKeyArn) || !has(self.encryption) || self.encryption == 'SSEKMS'")
    .message("with kmsKeyArn leave encryption out, or set it to SSEKMS"))]
#[serde(rename_all = "camelCase")]
pub struct Truststore {
    /// Versioned S3 bucket in the domain's account and Region. Unset: the operator's `--truststore-bucket`.
    /// Each change is a new version of one object, and the operator pins the domain to that version. When
    /// `bucket` or `key` change, the domain moves to the new place with all trusted certificates; the object
    /// at the old place stays, also when the MtlsDomain is deleted.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')")
        .message("write the bucket's name only (3 to 63 lower-case letters, digits, dots, dashes), without s3:// and without a path"))]
    #[schemars(length(min = 1, max = 255))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,

    /// Key of the object in the bucket, at most 512 characters. Unset: `<cluster id>/<namespace>/<name>.pem`.
    /// Two MtlsDomains must not share an object. The operator overwrites an existing object without an
    /// ownership tag, with a new version, only with `adoptionPolicy: Unowned`. It never deletes versions that
    /// it did not store. When `bucket` or `key` change later, the operator's versions at the old place stay
    /// there, with its ownership tag.
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.startsWith('s3://')")
        .message("write the key without s3:// or bucket and without a leading slash, as in payments/partners.pem"))]
    #[schemars(length(min = 1, max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,

    /// Permission to create the bucket. Never: the bucket must exist, with versioning enabled. IfMissing: the
    /// operator creates a missing bucket: versioned, with all public access blocked, encrypted (with
    /// `kmsKeyArn` when set), and with the operator's ownership tag. It restores these settings when another
    /// writer changes them, as long as the bucket has the tag. The operator never deletes a bucket, and does
    /// not change a bucket that it did not create. S3 may take up to 15 minutes until the objects of a new
    /// bucket have versions. Unset: Never.
    #[schemars(with = "BucketCreation")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_creation: Option<BucketCreation>,

    /// Encryption that the operator names when it stores the object, as some bucket policies demand.
    /// BucketDefault: none, so that S3 applies the bucket's default. SSES3: S3's own keys. SSEKMS: the key
    /// `kmsKeyArn`, or the AWS managed key `aws/s3` when that is unset. After a change the operator stores a
    /// new version of the same bytes and moves the domain to that version. Unset: SSEKMS with `kmsKeyArn`,
    /// and else BucketDefault.
    #[schemars(with = "Encryption")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,

    /// ARN of the KMS key that encrypts the object. Unset: as `encryption` says. After a change of
    /// the key the operator stores a new version of the same bytes and moves the domain to that version. The
    /// operator resolves an alias when it stores a version, not later. The operator's role needs
    /// kms:GenerateDataKey and kms:Decrypt on the key: API Gateway reads the object with the permissions of
    /// the caller that updates the domain.
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/.+$')")
        .message("write the whole ARN of a KMS key, as in arn:aws:kms:eu-west-1:123456789012:key/1234abcd-..."))]
    #[schemars(length(min = 1, max = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_arn: Option<String>,
}

/// Encryption that a request to store the truststore names.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// None: S3 applies the bucket's default.
    #[default]
    BucketDefault,
    /// S3's own keys.
    SSES3,
    /// A KMS key.
    SSEKMS,
}

/// Permission to create the truststore's bucket.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BucketCreation {
    /// The bucket must exist, with versioning enabled.
    #[default]
    Never,
    /// The operator creates a missing bucket: versioned, private, encrypted, tagged.
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
