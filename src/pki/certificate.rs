//! Facts about X.509 certificates, and their parsing from PEM. Pure: decides nothing, knows no time.

use super::constraints::NameConstraints;
use super::keys::{KeyStrength, is_rsa_key};
pub use super::pem::ParseError;
use super::{name, pem};
use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{
        ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
        ECDSA_P521_SHA512_ASN1, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use jiff::Timestamp;
use x509_cert::der::{
    Encode, Tag,
    asn1::{Any, BitStringRef, Null, ObjectIdentifier},
    pem::{LineEnding, encode_string},
};
use x509_parser::{
    asn1_rs::BitString,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_X509_EXT_NAME_CONSTRAINTS,
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
    verify::verify_signature,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

/// Parsed certificate: its DER and the facts that the operator needs. Two certificates are equal when their
/// DER is.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    spki: std::ops::Range<usize>,
    /// Subject by RFC 4514, most specific part first, for people. Always one line.
    pub subject: String,
    pub subject_der: Vec<u8>,
    pub issuer: String,
    pub issuer_der: Vec<u8>,
    /// Normal form of the subject: equal for two subjects of the same name, which may differ in case, spaces
    /// and string types.
    pub subject_key: String,
    pub issuer_key: String,
    /// Serial number in lower-case hex, without separators and without the sign octet.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// X.509 version: 1, 2 or 3.
    pub version: u32,
    /// True when basicConstraints says CA:TRUE.
    pub is_ca: bool,
    /// True when the key may sign certificates: keyUsage is absent or has keyCertSign.
    pub may_sign: bool,
    /// True when issuer and subject are equal and the signature verifies with the certificate's own key.
    pub self_signed: bool,
    /// Number of authorities that basicConstraints allows between this certificate and a client certificate;
    /// `None`: any number.
    pub path_len: Option<u32>,
    /// True when the extended key usage is absent, or names clientAuth or any usage.
    pub client_auth: bool,
    /// Name constraints for certificates below this one; `None`: any name.
    pub name_constraints: Option<NameConstraints>,
    /// True when it has a critical extension that is not known here: a verifier that does not know it either
    /// rejects the certificate (RFC 5280, section 4.2).
    pub unknown_critical: bool,
    pub subject_key_id: Option<Vec<u8>>,
    /// Key identifier of the issuer's key, in lower-case hex.
    pub authority_key_id: Option<String>,
    /// SHA-256 of the DER SubjectPublicKeyInfo, in lower-case hex: the same for every certificate of one key.
    /// An RSA key is hashed in the form of RFC 3279, section 2.3.1, in any form that the certificate has it.
    pub spki_sha256: String,
    /// SHA-256 of the DER, in lower-case hex.
    pub fingerprint_sha256: String,
    pub key: KeyStrength,
    pub signature: SignatureClass,
    /// Subject alternative names, in the certificate's order.
    pub dns_names: Vec<String>,
    pub uris: Vec<String>,
    pub email_addresses: Vec<String>,
    /// True when there are subject alternative names of another kind (IP addresses, UPNs, ...).
    pub other_names: bool,
}

/// Class of the signature's hash. API Gateway takes SHA-256 or stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureClass {
    /// SHA-256, SHA-384 or SHA-512 with RSA (also PSS) or ECDSA.
    Sha2,
    Sha1,
    /// Others: Ed25519, SHA-224, MD5, ...
    Other,
}

impl Certificate {
    /// Parses one DER certificate. Returns `None` also when bytes follow it.
    pub fn from_der(der: &[u8]) -> Option<Certificate> {
        let (rest, x509) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let within = |part: &[u8]| {
            let start = part.as_ptr() as usize - der.as_ptr() as usize;
            start..start + part.len()
        };
        let spki = x509.public_key();
        let subject_key = name::normal_form(x509.subject());
        let issuer_key = name::normal_form(x509.issuer());
        let mut certificate = Certificate {
            spki: within(spki.raw),
            subject: name::text(x509.subject()),
            subject_der: x509.subject().as_raw().to_vec(),
            issuer: name::text(x509.issuer()),
            issuer_der: x509.issuer().as_raw().to_vec(),
            serial: serial(x509.raw_serial()),
            not_before: timestamp(x509.validity().not_before.timestamp()),
            not_after: timestamp(x509.validity().not_after.timestamp()),
            version: x509.version().0 + 1,
            is_ca: x509.is_ca(),
            may_sign: match x509.key_usage() {
                Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
                Err(_) => false,
            },
            self_signed: false,
            path_len: None,
            client_auth: true,
            name_constraints: None,
            unknown_critical: false,
            subject_key_id: None,
            authority_key_id: None,
            spki_sha256: key_hash(spki),
            fingerprint_sha256: sha256(der),
            key: KeyStrength::of(spki),
            signature: SignatureClass::of(&x509.signature_algorithm),
            dns_names: vec![],
            uris: vec![],
            email_addresses: vec![],
            other_names: false,
            subject_key,
            issuer_key,
            der: der.to_vec(),
        };
        for extension in x509.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => certificate.subject_key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    certificate.authority_key_id = id.key_identifier.as_ref().map(|id| name::hex(id.0));
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::DNSName(name) => certificate.dns_names.push(name.to_string()),
                            GeneralName::URI(uri) => certificate.uris.push(uri.to_string()),
                            GeneralName::RFC822Name(mail) => {
                                certificate.email_addresses.push(mail.to_string())
                            }
                            _ => certificate.other_names = true,
                        }
                    }
                }
                ParsedExtension::BasicConstraints(basic) => certificate.path_len = basic.path_len_constraint,
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    certificate.client_auth = usage.any || usage.client_auth
                }
                ParsedExtension::NameConstraints(names) => {
                    certificate.name_constraints = Some(NameConstraints::of(names));
                }
                _ if extension.oid == OID_X509_EXT_NAME_CONSTRAINTS => {
                    certificate.name_constraints = Some(NameConstraints::unreadable());
                }
                ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::ParseError { .. } => {
                    certificate.unknown_critical |= extension.critical;
                }
                _ => {}
            }
        }
        certificate.self_signed =
            certificate.subject_key == certificate.issuer_key && is_signed_by(&x509, spki);
        Some(certificate)
    }

    /// Returns the serial number as API Gateway passes it to back ends: two digits a byte, joined by colons.
    pub fn serial_text(&self) -> String {
        let digits: Vec<char> = self.serial.chars().collect();
        digits
            .chunks(2)
            .map(String::from_iter)
            .collect::<Vec<_>>()
            .join(":")
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.der[self.spki.clone()]
    }

    /// True when the certificate's issuer name is `issuer`'s subject and `issuer`'s key verifies its
    /// signature. Does not check `issuer`'s right to sign, or its validity.
    pub fn is_issued_by(&self, issuer: &Certificate) -> bool {
        if self.issuer_key != issuer.subject_key {
            return false;
        }
        let Ok((_, x509)) = X509Certificate::from_der(&self.der) else {
            return false;
        };
        let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(issuer.spki_der()) else {
            return false;
        };
        is_signed_by(&x509, &spki)
    }

    /// Encodes the certificate as one `CERTIFICATE` block, lines of 64, with a newline at the end.
    pub fn to_pem(&self) -> String {
        encode_string("CERTIFICATE", LineEnding::LF, &self.der).expect("a certificate is far below 4 GB")
    }

    /// Returns the length of [`Certificate::to_pem`] in bytes.
    pub fn pem_length(&self) -> usize {
        let base64 = self.der.len().div_ceil(3) * 4;
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".len() + base64 + base64.div_ceil(64)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Certificate) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Certificate({} {})",
            self.subject,
            &self.fingerprint_sha256[..8]
        )
    }
}

/// Reads every certificate of a PEM text, of at most [`pem::MAX_SOURCE_BYTES`] and
/// [`pem::MAX_SOURCE_CERTIFICATES`]. Text between the blocks is skipped; a block of any other kind is an
/// error.
pub fn parse_pem_bundle(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<Vec<Certificate>, ParseError> {
    pem::source(text.as_ref())
}

fn is_signed_by(x509: &X509Certificate<'_>, spki: &SubjectPublicKeyInfo<'_>) -> bool {
    verifies(
        &x509.signature_algorithm,
        &x509.signature_value,
        x509.tbs_certificate.as_ref(),
        spki,
    )
}

/// True when the key of `spki` made this signature over `signed`.
pub(crate) fn verifies(
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &BitString<'_>,
    signed: &[u8],
    spki: &SubjectPublicKeyInfo<'_>,
) -> bool {
    match ecdsa_beyond_x509_parser(algorithm, KeyStrength::of(spki)) {
        Some(known) => UnparsedPublicKey::new(known, &spki.subject_public_key.data)
            .verify(signed, &signature.data)
            .is_ok(),
        None => verify_signature(spki, algorithm, signature, signed).is_ok(),
    }
}

/// Returns the algorithm of an ECDSA signature that x509-parser cannot verify: it knows P-256 and P-384 with
/// SHA-256 and SHA-384 only.
fn ecdsa_beyond_x509_parser(
    algorithm: &AlgorithmIdentifier<'_>,
    key: KeyStrength,
) -> Option<&'static dyn VerificationAlgorithm> {
    match (algorithm.algorithm.to_id_string().as_str(), key) {
        (ECDSA_SHA512, KeyStrength::EcdsaP256) => Some(&ECDSA_P256_SHA512_ASN1),
        (ECDSA_SHA512, KeyStrength::EcdsaP384) => Some(&ECDSA_P384_SHA512_ASN1),
        (ECDSA_SHA512, KeyStrength::EcdsaP521) => Some(&ECDSA_P521_SHA512_ASN1),
        (ECDSA_SHA384, KeyStrength::EcdsaP521) => Some(&ECDSA_P521_SHA384_ASN1),
        (ECDSA_SHA256, KeyStrength::EcdsaP521) => Some(&ECDSA_P521_SHA256_ASN1),
        _ => None,
    }
}

const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const ECDSA_SHA512: &str = "1.2.840.10045.4.3.4";

impl SignatureClass {
    pub(crate) fn of(algorithm: &AlgorithmIdentifier<'_>) -> SignatureClass {
        match algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.11" | "1.2.840.113549.1.1.12" | "1.2.840.113549.1.1.13" => {
                SignatureClass::Sha2
            }
            ECDSA_SHA256 | ECDSA_SHA384 | ECDSA_SHA512 => SignatureClass::Sha2,
            // RSASSA-PSS names its hash in the parameters, SHA-1 when they are silent (RFC 8017, A.2.3).
            "1.2.840.113549.1.1.10" => match algorithm.parameters.as_ref().map(|p| pss_hash(p.data)) {
                Some(true) => SignatureClass::Sha2,
                _ => SignatureClass::Sha1,
            },
            "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" | "1.2.840.10045.4.1" => SignatureClass::Sha1,
            _ => SignatureClass::Other,
        }
    }
}

/// True when PSS parameters name SHA-256, SHA-384 or SHA-512: their identifiers differ in the last octet
/// only.
fn pss_hash(parameters: &[u8]) -> bool {
    const SHA2: [u8; 10] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    parameters
        .windows(11)
        .any(|window| window[..10] == SHA2 && (1..=3).contains(&window[10]))
}

fn serial(raw: &[u8]) -> String {
    match raw {
        [0, rest @ ..] if !rest.is_empty() => name::hex(rest),
        raw => name::hex(raw),
    }
}

/// Converts a time of a certificate. RFC 5280's "no expiry" (31 December 9999) lies hours beyond the last
/// timestamp of jiff.
fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// Returns the SHA-256 of the SubjectPublicKeyInfo as RFC 3279 (RSA) and RFC 5480 (ECDSA) write it: an
/// algorithm without its NULL parameters, or a length in a longer form, does not make it another key.
fn key_hash(spki: &SubjectPublicKeyInfo<'_>) -> String {
    sha256(&rewritten(spki).unwrap_or_else(|| spki.raw.to_vec()))
}

/// Returns the usual form of an RSA or ECDSA key. `None` for a key of another kind, and for an RSA key whose
/// own bytes are not the usual ones: verifiers do not agree on it.
fn rewritten(spki: &SubjectPublicKeyInfo<'_>) -> Option<Vec<u8>> {
    let sequence = |parts: [Vec<u8>; 2]| Any::new(Tag::Sequence, parts.concat())?.to_der();
    if spki.subject_public_key.unused_bits != 0 {
        return None; // a verifier may read it as another key, or not at all
    }
    let (bits, algorithm) = (&spki.subject_public_key.data, &spki.algorithm);
    let identifier = match spki.parsed().ok()? {
        PublicKey::RSA(rsa) if is_rsa_key(bits, rsa.modulus, rsa.exponent) => {
            [RSA_ENCRYPTION.to_der(), Null.to_der()]
        }
        PublicKey::EC(_) => {
            let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
            let curve = Any::new(Tag::ObjectIdentifier, curve.as_bytes()).and_then(|curve| curve.to_der());
            [EC_PUBLIC_KEY.to_der(), curve]
        }
        _ => return None,
    };
    let [kind, parameters] = identifier;
    let key = BitStringRef::from_bytes(bits).and_then(|bits| bits.to_der());
    sequence([sequence([kind.ok()?, parameters.ok()?]).ok()?, key.ok()?]).ok()
}

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

fn sha256(bytes: &[u8]) -> String {
    name::hex(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;
    use x509_cert::der::{Decode, asn1::AnyRef};

    /// Self-signed certificate by the openssl CLI, as people make them.
    fn openssl(args: &[&str]) -> Certificate {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key.pem");
        let out = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                "30",
                "-keyout",
                key.to_str().unwrap(),
            ])
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        parse_pem_bundle(&out.stdout).unwrap().remove(0)
    }

    const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

    #[test]
    fn facts_of_a_certificate_made_by_openssl() {
        let san = "subjectAltName=DNS:a.example,URI:spiffe://x/y,email:a@b.example";
        let subject = "/DC=com/DC=example/O=Acme, Inc./CN=Root \"1\"";
        let c = openssl(
            &[
                &EC[..],
                &["-subj", subject, "-set_serial", "0xfedc01", "-addext", san],
            ]
            .concat(),
        );
        assert_eq!(c.subject, "CN=Root \\\"1\\\",O=Acme\\, Inc.,DC=example,DC=com");
        assert_eq!(c.issuer, c.subject);
        assert_eq!(
            (c.serial.as_str(), c.serial_text().as_str()),
            ("fedc01", "fe:dc:01")
        );
        assert_eq!(
            (c.version, c.is_ca, c.may_sign, c.self_signed),
            (3, true, true, true)
        );
        assert_eq!(c.not_after.duration_since(c.not_before).as_hours(), 30 * 24);
        assert_eq!(
            (c.key, c.signature),
            (KeyStrength::EcdsaP256, SignatureClass::Sha2)
        );
        assert_eq!(c.subject_key_id.as_ref().map(Vec::len), Some(20));
        assert_eq!(c.dns_names, ["a.example"]);
        assert_eq!(c.uris, ["spiffe://x/y"]);
        assert_eq!(c.email_addresses, ["a@b.example"]);
        assert!(!c.other_names);
        assert_eq!(parse_pem_bundle(&c.to_pem()).unwrap(), [c]);
    }

    #[test]
    fn key_and_signature_classes() {
        let cases: [(&[&str], KeyStrength, SignatureClass); 7] = [
            (
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha512"],
                KeyStrength::EcdsaP384,
                SignatureClass::Sha2,
            ),
            (
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512"],
                KeyStrength::EcdsaP521,
                SignatureClass::Sha2,
            ),
            (
                &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha256"],
                KeyStrength::EcdsaP521,
                SignatureClass::Sha2,
            ),
            (
                &["-newkey", "rsa:1024", "-sha256"],
                KeyStrength::Rsa(1024),
                SignatureClass::Sha2,
            ),
            (
                &["-newkey", "rsa:2048", "-sha1"],
                KeyStrength::Rsa(2048),
                SignatureClass::Sha1,
            ),
            (
                &[
                    "-newkey",
                    "rsa:2048",
                    "-sha384",
                    "-sigopt",
                    "rsa_padding_mode:pss",
                    "-sigopt",
                    "rsa_pss_saltlen:digest",
                ],
                KeyStrength::Rsa(2048),
                SignatureClass::Sha2,
            ),
            (
                &["-newkey", "ed25519"],
                KeyStrength::Ed25519,
                SignatureClass::Other,
            ),
        ];
        for (args, key, signature) in cases {
            let c = openssl(&[args, &["-subj", "/CN=x"]].concat());
            assert_eq!((c.key, c.signature), (key, signature), "{args:?}");
            // aws-lc verifies SHA-2 signatures of RSA keys from 2048 bits on only.
            assert_eq!(c.self_signed, key != KeyStrength::Rsa(1024), "{args:?}");
        }
    }

    /// Certificate of the same key in another encoding. Its signature does not verify.
    fn with_key(of: &Certificate, spki: &[u8]) -> Certificate {
        let sequence = |value: Vec<u8>| Any::new(Tag::Sequence, value).unwrap();
        let outer = AnyRef::from_der(of.der()).unwrap();
        let length = AnyRef::from_der_partial(outer.value()).unwrap().1.len();
        let (tbs, rest) = outer.value().split_at(outer.value().len() - length);
        let body = AnyRef::from_der(tbs).unwrap().value();
        let at = body
            .windows(of.spki_der().len())
            .position(|window| window == of.spki_der())
            .unwrap();
        let body = [&body[..at], spki, &body[at + of.spki_der().len()..]].concat();
        let whole = sequence([sequence(body).to_der().unwrap(), rest.to_vec()].concat());
        Certificate::from_der(&whole.to_der().unwrap()).unwrap()
    }

    #[test]
    fn a_key_has_one_hash_in_all_encodings() {
        let rsa = openssl(&["-newkey", "rsa:2048", "-subj", "/CN=x"]);
        let spki = rsa.spki_der().to_vec();
        assert_eq!(rsa.spki_sha256, sha256(&spki), "as openssl writes it");
        // 30 82 01 22, 30 0d, OID, 05 00: without the NULL, each two bytes shorter.
        assert_eq!(&spki[..6], [0x30, 0x82, 0x01, 0x22, 0x30, 0x0d]);
        let mut without_null = spki.clone();
        without_null.drain(17..19);
        (without_null[3], without_null[5]) = (0x20, 0x0b);
        let other = with_key(&rsa, &without_null);
        assert_ne!(other.spki_der(), rsa.spki_der());
        assert_eq!((&other.spki_sha256, other.key), (&rsa.spki_sha256, rsa.key));
        // A byte after the key: no verifier has to read it, and it must not be taken for the key without it.
        let mut longer = spki.clone();
        longer.push(0);
        (longer[3], longer[22]) = (0x23, 0x10);
        let odd = with_key(&rsa, &longer);
        assert_ne!(odd.spki_sha256, rsa.spki_sha256);
        assert_eq!(odd.key, KeyStrength::Other);
        let ec = openssl(&[
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-subj",
            "/CN=x",
        ]);
        assert_eq!(
            (ec.key, ec.spki_sha256.clone()),
            (KeyStrength::EcdsaP256, sha256(ec.spki_der()))
        );
        // The length in the long form.
        let long = [&[0x30, 0x81, 0x59], &ec.spki_der()[2..]].concat();
        assert_eq!(with_key(&ec, &long).spki_sha256, ec.spki_sha256);
        let mut compressed = ec.spki_der()[..27 + 32].to_vec();
        compressed[26] = 2 + (ec.spki_der()[90] & 1);
        (compressed[1], compressed[24]) = (57, 34);
        assert_eq!(
            with_key(&ec, &compressed).key,
            KeyStrength::Other,
            "lint refuses it"
        );
    }

    #[test]
    fn an_infinite_certificate_is_read() {
        let c = openssl(&[&EC[..], &["-subj", "/CN=x", "-days", "2900000"]].concat());
        assert!(c.not_after > "9950-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(timestamp(253_402_300_799), Timestamp::MAX);
    }

    #[test]
    fn names_are_compared_by_value() {
        let a = openssl(&[&EC[..], &["-subj", "/O=Acme  Inc/CN=root"]].concat());
        let b = openssl(&[&EC[..], &["-subj", "/O=ACME Inc/CN=Root"]].concat());
        let c = openssl(&[&EC[..], &["-subj", "/O=Acme Inc/CN=root2"]].concat());
        assert_eq!(a.subject_key, b.subject_key);
        assert_ne!(a.subject_key, c.subject_key);
        assert!(!a.is_issued_by(&b), "the name fits, the key does not");
        assert!(a.is_issued_by(&a));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let _ = Certificate::from_der(&bytes);
        }

        #[test]
        fn a_damaged_certificate_never_panics(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
            let mut der = SAMPLE.with(|sample| sample.der().to_vec());
            let length = der.len();
            der[at % length] = byte;
            let _ = Certificate::from_der(&der);
            let _ = Certificate::from_der(&der[..cut % length]);
        }
    }

    thread_local! {
        static SAMPLE: Certificate = openssl(
            &[&EC[..], &["-subj", "/CN=x", "-addext", "subjectAltName=DNS:a"]].concat(),
        );
    }
}
