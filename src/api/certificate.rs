//! The ClientCertificate kind: a client certificate for an MtlsDomain, with its private key in a Secret.

#![allow(clippy::duplicated_attributes)] // misfires on several printcolumns of one type

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{self, DeletionPolicy, Duration, PrivateKey, SecretKeyRef, is_default, object_id::ObjectId};

/// Desired state of the client certificate.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mtls-operator.io",
    version = "v1alpha1",
    kind = "ClientCertificate",
    namespaced,
    doc = "A client certificate that an MtlsDomain accepts, with its private key in a Secret. The operator renews it on time, and at once when the annotation mtls-operator.io/renew gets a new value or the spec changes, 5 times an hour at the most. Deletion does not revoke it: issued certificates work until they expire, or until their authority is distrusted.",
    status = "ClientCertificateStatus",
    derive = "PartialEq",
    shortname = "mcc",
    category = "mtls",
    selectable = ".spec.secretName",
    selectable = ".spec.domainRef.name",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters: it goes into label values"),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domainRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.notAfter"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Serial", type_ = "string", json_path = ".status.serialNumber", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.csr) != has(self.subject)")
    .message("set exactly one of subject (the operator makes the key) and csr (the requester keeps its key)"))]
#[x_kube(validation = Rule::new("has(self.csr) == has(oldSelf.csr)")
    .message("whether subject or csr is chosen at creation: create another ClientCertificate"))]
#[x_kube(validation = Rule::new("!has(self.csr) || !(has(self.privateKey) || has(self.keystores) || \
                                 self.?dnsNames.orValue([]).size() + self.?uris.orValue([]).size() + \
                                 self.?emailAddresses.orValue([]).size() > 0)")
    .message("with csr leave out privateKey and keystores (the requester has the key) and dnsNames, uris, \
              emailAddresses (they are in the request)"))]
#[x_kube(validation = Rule::new("(has(self.dnsNames) ? self.dnsNames.map(n, n.size()).sum() : 0) + \
                                 (has(self.uris) ? self.uris.map(n, n.size()).sum() : 0) + \
                                 (has(self.emailAddresses) ? self.emailAddresses.map(n, n.size()).sum() : 0) \
                                 <= 8192")
    .message("dnsNames, uris and emailAddresses may have 8192 characters together: leave some out"))]
#[x_kube(validation = Rule::new("self.issuance != 'SelfSigned' || !(has(self.csr) || has(self.authority))")
    .message("with issuance SelfSigned leave out csr and authority: the certificate signs itself with a key that the operator makes"))]
#[x_kube(validation = api::set_at_creation(&["secretName"], "create another ClientCertificate for the \
                                                               other Secret"))]
#[x_kube(validation = Rule::new("!(has(self.renewBefore) && has(self.renewBeforePercentage))")
    .message("set at most one of renewBefore and renewBeforePercentage"))]
#[x_kube(validation = Rule::new("!has(self.renewBefore) || duration(self.renewBefore) < \
                                 duration(has(self.duration) ? self.duration : '2160h')")
    .message("renewBefore must be shorter than duration (2160h when unset)").field_path(".renewBefore"))]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateSpec {
    /// MtlsDomain that the certificate is for. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("domainRef is immutable: create another ClientCertificate for the other domain"))]
    pub domain_ref: DomainRef,

    /// Name of the domain's authority to issue under, at most 63 characters. Unset: the domain's issuing
    /// authority, also after it changes. The operator writes a certificate into the Secret only once the
    /// domain trusts its authority.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,

    /// Signer of the certificate. Authority: one of the domain's authorities. SelfSigned: the certificate
    /// signs itself; the operator adds the certificate to the truststore and removes it as soon as this
    /// object is deleted. Each renewal of a self-signed certificate has another subject (with a serialNumber,
    /// because API Gateway rejects two certificates with the same subject): back ends should match the CN.
    /// The operator writes a self-signed certificate into the Secret only once the truststore with it has
    /// been in use for as long as AWS needs (`--truststore-propagation`, 90 s); the previous certificate
    /// stays trusted for the domain's `trust.overlap`. Default: Authority. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("issuance is immutable: create another ClientCertificate"))]
    #[serde(default)]
    pub issuance: Issuance,

    /// Subject of the certificate. Exactly one of `subject` and `csr` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,

    /// DNS names in the certificate (subject alternative names), in lower case. At most 50, and 8192 bytes
    /// together with `uris` and `emailAddresses`. API Gateway does not check the names; back ends may. Unset:
    /// none.
    #[x_kube(validation = api::host_names())]
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,

    /// URIs in the certificate, for example `spiffe://example.com/client1`. At most 50, and 8192 bytes
    /// together with `dnsNames` and `emailAddresses`. Unset: none.
    #[x_kube(validation = Rule::new("self.all(u, u.matches('^[a-zA-Z][a-zA-Z0-9+.-]*:[!-~]+$'))")
        .message("write URIs with their scheme, in ASCII and without blanks, as in spiffe://example.com/client1"))]
    #[schemars(length(max = 50), inner(length(min = 1, max = 2048)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,

    /// Mail addresses in the certificate. At most 50, and 8192 bytes together with `dnsNames` and `uris`.
    /// Unset: none.
    #[x_kube(validation = Rule::new("self.all(a, a.matches('^[!-?A-~]+@[!-?A-~]+$'))")
        .message("write bare mail addresses in ASCII, as in ops@example.com"))]
    #[schemars(length(max = 50), inner(length(min = 1, max = 254)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,

    /// Validity period of the certificate, at least 1h. Unset: 2160h (90 days), or the domain's
    /// `clients.maxDuration` when that is shorter. A certificate never outlives its authority.
    #[x_kube(validation = api::duration_of_at_least("1h", "2160h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,

    /// Time before the expiry at which the operator renews the certificate, at least 5m and shorter than
    /// `duration`. The operator never renews sooner than 5 minutes, or a hundredth of `duration` when that is
    /// longer, after the issue. Unset: a third of the validity period.
    #[x_kube(validation = api::duration_of_at_least("5m", "720h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<Duration>,

    /// Remaining part of the validity period, in percent, at which the operator renews the certificate, 1 to
    /// 99. The least interval of `renewBefore` applies. At most one of `renewBefore` and this field is set.
    /// Unset: `renewBefore` applies.
    #[schemars(range(min = 1, max = 99))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before_percentage: Option<i32>,

    /// Private key that the operator generates. Unset: ECDSA P-256, a new key at each renewal.
    // As `dns.external` of the MtlsDomain.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// PEM certificate signing request, at most 16384 bytes. The requester keeps its private key, and
    /// the Secret, of type Opaque, holds `tls.crt` and `ca.crt` but no `tls.key`. Exactly one of `subject`
    /// and `csr` is set, and the choice is final at creation; `privateKey` cannot be set with `csr`. A
    /// replaced request causes a new certificate. The operator copies the subject (CN, O, OU, C, L and ST
    /// only), DNS names, URIs and mail addresses of the request within the limits of the fields here; the
    /// parts of the subject are in the order C, ST, L, O, OU, CN. The operator ignores other requested
    /// extensions. The key must be RSA of 2048 to 4096 bits, P-256 or P-384; an RSA key must have a public
    /// exponent of at least 65537, and primes that are not close to each other.
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE REQUEST-----') || self.contains('-----BEGIN NEW CERTIFICATE REQUEST-----')")
        .message("write a PEM certificate signing request, beginning with -----BEGIN CERTIFICATE REQUEST-----"))]
    #[schemars(length(min = 1, max = 16384))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,

    /// Name of the Secret that the operator writes in this namespace, of type kubernetes.io/tls with
    /// `tls.crt` (leaf first, then chain), `tls.key` and `ca.crt`. The `ca.crt` is the authority that issued
    /// the client certificate. It is not the authority of the server certificate, which Amazon's public
    /// authority signs. Unset: the name of this object. Cannot be set, changed or removed later. The operator
    /// does not change a Secret that it did not create.
    #[x_kube(validation = api::object_name())]
    #[schemars(length(min = 1, max = 248))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// Labels and annotations for the Secret. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// Additional keystore files in the Secret, for software that needs key and certificate in another
    /// format. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keystores: Option<Keystores>,

    /// Fate of the Secret after this object is deleted: Delete or Retain. Default: Delete. Neither revokes
    /// the certificate: the domain accepts every copy of it until it expires. The domain no longer accepts a
    /// self-signed certificate, with either policy.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// true: the operator does not issue or renew until this is false again. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,
}

impl ClientCertificate {
    /// Returns the identity of the MtlsDomain that the certificate is for.
    pub fn domain_id(&self) -> ObjectId {
        let domain = &self.spec.domain_ref;
        let namespace = domain.namespace.clone().or_else(|| self.namespace());
        ObjectId::new(namespace.unwrap_or_default(), &domain.name)
    }
}

/// Reference to an MtlsDomain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DomainRef {
    /// Name of the MtlsDomain.
    #[x_kube(validation = api::object_name())]
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Namespace of the MtlsDomain. Unset: the namespace of this object.
    #[x_kube(validation = api::object_name())]
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Signer of a client certificate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Issuance {
    /// An authority of the domain signs the certificate.
    #[default]
    Authority,
    /// The certificate signs itself. The operator adds it to the truststore and removes it as soon as the
    /// ClientCertificate is deleted. Each renewal has another subject (with a serialNumber), because API
    /// Gateway rejects two certificates with the same subject: back ends should match the CN.
    SelfSigned,
}

/// Subject of a certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Common name (CN), at most 64 characters.
    #[schemars(length(min = 1, max = 64))]
    pub common_name: String,
    /// Organizations (O), at most 8 of at most 64 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// Organizational units (OU), at most 8 of at most 64 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizational_units: Vec<String>,
    /// Countries (C): two-letter codes in upper case (ISO 3166), at most 8.
    #[x_kube(validation = Rule::new("self.all(c, c.matches('^[A-Z]{2}$'))").message("write two-letter country codes in upper case, as in DE"))]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,
    /// Localities (L), at most 8 of at most 128 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub localities: Vec<String>,
    /// States or provinces (ST), at most 8 of at most 128 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provinces: Vec<String>,
}

/// Metadata for the Secret, other than the operator's own: keys that begin with `mtls-operator.io/`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("(has(self.labels) ? self.labels.map(k, k.size() + \
                                 bytes(self.labels[k]).size()).sum() : 0) + (has(self.annotations) ? \
                                 self.annotations.map(k, k.size() + bytes(self.annotations[k]).size()).sum() \
                                 : 0) <= 16384")
    .message("labels and annotations may have 16384 bytes together, keys and values: leave some out"))]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels to set. At most 50, and 16384 bytes together with `annotations`, keys and values; without keys
    /// that begin with `mtls-operator.io/`.
    #[x_kube(validation = api::not_our_keys())]
    #[schemars(extend("maxProperties" = 50, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to set. At most 50, and 16384 bytes together with `labels`, keys and values; without keys
    /// that begin with `mtls-operator.io/`.
    #[x_kube(validation = api::not_our_keys())]
    #[schemars(extend("maxProperties" = 50, "additionalProperties" = {"type": "string", "maxLength": 16384}))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Additional formats of key and certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Keystores {
    /// PKCS #12 file under the Secret's key `keystore.p12`, readable by OpenSSL 1.1 and Java 8u301 and later.
    /// Unset: no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs12: Option<Pkcs12Keystore>,
}

/// PKCS #12 file with key, certificate and chain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pkcs12Keystore {
    /// Secret in this namespace with the password. It needs the label
    /// `mtls-operator.io/keystore-password: "true"`: a Secret that is not meant for a keystore is never used.
    /// The operator uses the bytes as they are, including a line break at the end. They are UTF-8, without
    /// characters above U+FFFF such as emojis, which PKCS #12 cannot hold. Java needs an ASCII password.
    /// While the Secret is missing, an existing keystore stays until its certificate is due for renewal.
    pub password_secret_ref: SecretKeyRef,
}

/// Observed state, as of the last reconcile.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateStatus {
    /// `metadata.generation` that the rest of the status describes; -1 before the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, Issued, Trusted and Ready; Reconciling and Stalled only while True.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Name of the Secret that holds the certificate, in this namespace. Objects of an earlier release get
    /// this field with their next change or renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// Serial number in lower-case hexadecimal, two digits a byte, joined by colons, as API Gateway passes it
    /// to back ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,

    /// SHA-256 of the certificate (DER), in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint_sha256: Option<String>,

    /// Authority key identifier of the certificate, in hexadecimal. Together with the serial number it
    /// identifies the certificate uniquely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_key_id: Option<String>,

    /// Distinguished name of the issuer (RFC 4514).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,

    /// Start of the validity period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,

    /// End of the validity period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,

    /// Time of the next renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,

    /// Number of the certificate: 1 for the first, higher for each later certificate. A self-signed
    /// certificate other than the first carries this number as serialNumber in its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,

    /// Superseded certificates that have not expired: the domain accepts every copy of them. With 20 of them
    /// the operator issues no further certificate while the Secret holds a good one; after the loss of the
    /// Secret it issues until there are 40.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<PreviousLeaf>,
}

/// Superseded certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PreviousLeaf {
    /// Authority key identifier, in hexadecimal.
    pub issuer_key_id: String,
    /// Serial number, in the format of `serialNumber`.
    pub serial_number: String,
    /// End of the validity period.
    pub not_after: Time,
}
