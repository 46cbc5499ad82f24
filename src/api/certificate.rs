//! The ClientCertificate: one caller's certificate for an MtlsDomain, with its private key in a Secret.

#![allow(clippy::duplicated_attributes)] // misfires on several printcolumns of one type

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeletionPolicy, Duration, PrivateKey, SecretKeyRef, is_default};

/// What the certificate should be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mtls-operator.io",
    version = "v1alpha1",
    kind = "ClientCertificate",
    namespaced,
    doc = "A client certificate that an MtlsDomain lets in, with its private key in a Secret, renewed on time, or at once when the annotation mtls-operator.io/renew gets a new value. Deleting it is not revocation: what was handed out works until it expires, or until its authority is distrusted.",
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
#[x_kube(validation = Rule::new("self.issuance != 'SelfSigned' || !(has(self.csr) || has(self.authority))")
    .message("with issuance SelfSigned leave out csr and authority: the certificate signs itself with a key that the operator makes"))]
#[x_kube(validation = super::set_at_creation(&["secretName"], "create another ClientCertificate for the \
                                                               other Secret"))]
#[x_kube(validation = Rule::new("!(has(self.renewBefore) && has(self.renewBeforePercentage))")
    .message("set at most one of renewBefore and renewBeforePercentage"))]
#[x_kube(validation = Rule::new("!has(self.renewBefore) || duration(self.renewBefore) < \
                                 duration(has(self.duration) ? self.duration : '2160h')")
    .message("renewBefore must be shorter than duration (2160h when unset)").field_path(".renewBefore"))]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateSpec {
    /// The MtlsDomain that the certificate is for. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("domainRef is immutable: create another ClientCertificate for the other domain"))]
    pub domain_ref: DomainRef,

    /// Name of the domain's authority to issue under. Unset: follows the domain's issuingAuthority. A
    /// certificate is handed out only once the domain trusts its authority.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,

    /// Who signs. Authority: one of the domain's authorities. SelfSigned: the certificate itself, which goes
    /// into the truststore as it is and is out of it as soon as it is deleted; each renewal then has another
    /// subject (a serialNumber is added, because API Gateway refuses two certificates with one subject), so
    /// back ends should match the CN. It is handed out only once the truststore with it has been in use for
    /// as long as AWS needs (`--truststore-propagation`, 90 s); the one before stays trusted for the domain's
    /// `trust.overlap`. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("issuance is immutable: create another ClientCertificate"))]
    #[serde(default)]
    pub issuance: Issuance,

    /// Whom the certificate names. Instead of it: `csr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,

    /// DNS names in the certificate (subject alternative names), in lower case. API Gateway does not check
    /// them; back ends may. At most 50.
    #[x_kube(validation = super::host_names())]
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,

    /// URIs in the certificate, for example `spiffe://example.com/client1`. At most 50.
    #[x_kube(validation = Rule::new("self.all(u, u.matches('^[a-zA-Z][a-zA-Z0-9+.-]*:[!-~]+$'))")
        .message("write URIs with their scheme, in ASCII and without blanks, as in spiffe://example.com/client1"))]
    #[schemars(length(max = 50), inner(length(min = 1, max = 2048)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,

    /// Mail addresses in the certificate. At most 50.
    #[x_kube(validation = Rule::new("self.all(a, a.matches('^[!-?A-~]+@[!-?A-~]+$'))")
        .message("write bare mail addresses in ASCII, as in ops@example.com"))]
    #[schemars(length(max = 50), inner(length(min = 1, max = 254)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,

    /// How long the certificate lives, at least 1h. Unset: 2160h (90 days), or the domain's
    /// `clients.maxDuration` when that is shorter. It never outlives its authority.
    #[x_kube(validation = super::duration_of_at_least("1h", "2160h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,

    /// How long before it expires the certificate is renewed, at least 5m. Unset: when a third of its life is
    /// left.
    #[x_kube(validation = super::duration_of_at_least("5m", "720h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<Duration>,

    /// Instead of renewBefore: the part of the certificate's life, in percent, that is left when it is
    /// renewed. 1 to 99.
    #[schemars(range(min = 1, max = 99))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before_percentage: Option<i32>,

    /// The private key that the operator makes. Unset: ECDSA P-256, a new one at each renewal.
    // As `dns.external` of the MtlsDomain.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// A PEM certificate signing request: the requester keeps its private key, and the Secret, of type
    /// Opaque, has `tls.crt` and `ca.crt` but no `tls.key`. Instead of subject and privateKey; chosen at
    /// creation. The request itself may be replaced later, which issues again. Its subject (CN, O, OU, C, L
    /// and ST only) and its DNS names, URIs and mail addresses are taken over within the limits of the fields
    /// here; the parts of the subject stand in the order C, ST, L, O, OU, CN. Other extensions that it asks
    /// for are left out. Its key: RSA from 2048 to 4096 bits, P-256 or P-384.
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE REQUEST-----') || self.contains('-----BEGIN NEW CERTIFICATE REQUEST-----')")
        .message("write a PEM certificate signing request, beginning with -----BEGIN CERTIFICATE REQUEST-----"))]
    #[schemars(length(min = 1, max = 16384))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,

    /// The Secret to write, in this namespace; type kubernetes.io/tls with `tls.crt` (leaf first, then
    /// chain), `tls.key` and `ca.crt`. Its `ca.crt` is the authority that issued the client certificate, not
    /// what signs the server certificate, which is Amazon's public authority. Unset: the name of this object.
    /// Cannot be set, changed or removed later. A Secret that somebody else made is not touched.
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("write a Secret's name: lower-case letters, digits, dots and dashes, as in client1-mtls"))]
    #[schemars(length(min = 1, max = 248))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// Labels and annotations for the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// More files in the Secret, for software that wants its key and certificate in another form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keystores: Option<Keystores>,

    /// What becomes of the Secret once this object is deleted: Delete or Retain. Neither is revocation:
    /// whoever has a copy is let in until it expires. A self-signed certificate is let in no longer, whatever
    /// becomes of the Secret.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// true: do not issue or renew until this is false again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,
}

/// An MtlsDomain by name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DomainRef {
    /// The MtlsDomain's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The MtlsDomain's namespace. Unset: this object's own.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Who signs a client certificate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Issuance {
    /// One of the domain's authorities.
    #[default]
    Authority,
    /// Itself: the certificate goes into the truststore as it is, and is out of it as soon as it is deleted.
    /// Each renewal has another subject (a serialNumber is added), because API Gateway refuses two
    /// certificates with one subject: back ends should match the CN.
    SelfSigned,
}

/// Whom a certificate names.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Common name (CN), at most 64 characters.
    #[schemars(length(min = 1, max = 64))]
    pub common_name: String,
    /// O, at most 8 of at most 64 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// OU, at most 8 of at most 64 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizational_units: Vec<String>,
    /// C: two-letter codes in upper case (ISO 3166), at most 8.
    #[x_kube(validation = Rule::new("self.all(c, c.matches('^[A-Z]{2}$'))").message("write two-letter country codes in upper case, as in DE"))]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,
    /// L, at most 8 of at most 128 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub localities: Vec<String>,
    /// ST, at most 8 of at most 128 characters.
    #[schemars(length(max = 8), inner(length(min = 1, max = 128)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provinces: Vec<String>,
}

/// What else the Secret carries.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels to set. At most 50.
    #[schemars(extend("maxProperties" = 50))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to set. At most 50.
    #[schemars(extend("maxProperties" = 50))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Other forms of key and certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Keystores {
    /// `keystore.p12`, readable by OpenSSL 1.1 and Java 8u301 and later. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs12: Option<Pkcs12Keystore>,
}

/// A PKCS #12 file with key, certificate and chain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pkcs12Keystore {
    /// Where its password is, in this namespace: the bytes as they are, a line break at the end included.
    /// ASCII, if Java is to open it.
    pub password_secret_ref: SecretKeyRef,
}

/// What is, as of the last reconcile.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateStatus {
    /// The `metadata.generation` that the rest of the status speaks of; -1 before the operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, Issued, Trusted and Ready; Reconciling and Stalled only while True.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Name of the Secret that holds the certificate, in this namespace. Objects of an earlier release get it
    /// with their next change or renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// Serial number in lower-case hexadecimal, two digits a byte, joined by colons, as API Gateway tells it
    /// to back ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,

    /// SHA-256 of the certificate (DER), in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint_sha256: Option<String>,

    /// Its authority key identifier, in hexadecimal: with the serial number it tells this certificate from
    /// every other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_key_id: Option<String>,

    /// The issuer's distinguished name (RFC 4514).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,

    /// Valid from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,

    /// Valid until.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,

    /// When it will be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<Time>,

    /// 1 for the first certificate, more for each after it; a self-signed one carries it as serialNumber in
    /// its subject, but for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,

    /// Certificates that this one superseded and that are still alive: whoever has a copy is let in with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<PreviousLeaf>,
}

/// A superseded certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PreviousLeaf {
    /// Its authority key identifier, in hexadecimal.
    pub issuer_key_id: String,
    /// Its serial number, written as `serialNumber` is.
    pub serial_number: String,
    /// Valid until.
    pub not_after: Time,
}
