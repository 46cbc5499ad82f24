//! Facts about X.509 certificates, and their parsing from PEM. Pure: decides nothing, knows no time.

pub mod signature;

use jiff::Timestamp;
use x509_cert::der::{
    Encode, Tag,
    asn1::{Any, BitStringRef, Null, ObjectIdentifier},
    pem::{LineEnding, encode_string},
};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_X509_EXT_NAME_CONSTRAINTS,
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use self::signature::{SignatureClass, verifies};

use super::{
    digest::sha256,
    keys::{KeyStrength, is_rsa_key},
    name,
    name_constraints::NameConstraints,
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

    /// True when the certificate is of this public key (DER SubjectPublicKeyInfo), in whatever form it has
    /// the algorithm and its parameters.
    pub fn has_key(&self, spki: &[u8]) -> bool {
        let bits = |spki| Some(SubjectPublicKeyInfo::from_der(spki).ok()?.1.subject_public_key);
        bits(spki).is_some_and(|key| bits(self.spki_der()) == Some(key))
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

fn is_signed_by(x509: &X509Certificate<'_>, spki: &SubjectPublicKeyInfo<'_>) -> bool {
    verifies(
        &x509.signature_algorithm,
        &x509.signature_value,
        x509.tbs_certificate.as_ref(),
        spki,
    )
}

fn serial(raw: &[u8]) -> String {
    match raw {
        [0, rest @ ..] if !rest.is_empty() => name::hex(rest),
        raw => name::hex(raw),
    }
}

/// Converts a time of a certificate. RFC 5280's "no expiry" (31 December 9999) lies hours beyond the last
/// timestamp of jiff.
pub(crate) fn timestamp(seconds: i64) -> Timestamp {
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

#[cfg(test)]
pub(crate) mod tests;
