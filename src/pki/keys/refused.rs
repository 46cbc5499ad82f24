//! Reason why a private key cannot be read: its algorithm, its length or its encryption. Pure; tells nothing
//! of its numbers.

use x509_cert::der::{
    Decode, Tag, Tagged,
    asn1::{AnyRef, ObjectIdentifier},
};

/// Reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key is under a password, whatever its label says.
    Encrypted,
    /// A kind of key, with its article.
    Unsupported(String),
}

/// Returns the reason why the key library refuses this DER of a private key: PKCS #8, PKCS #1, SEC 1 or
/// OpenSSL's form of a DSA key. `None`: it is damaged.
pub(crate) fn reason(der: &[u8]) -> Option<Refused> {
    elements(der).and_then(
        |parts| match parts.iter().map(AnyRef::tag).collect::<Vec<_>>()[..] {
            // EncryptedPrivateKeyInfo, under the label of a plain key.
            [Tag::Sequence, Tag::OctetString] => Some(Refused::Encrypted),
            [Tag::Integer, Tag::Sequence, Tag::OctetString, ..] => pkcs8(parts[1], parts[2]),
            [Tag::Integer, Tag::OctetString, Tag::ContextSpecific { .. }, ..] => {
                other_curve(AnyRef::from_der(parts[2].value()).ok()?)
            }
            [Tag::Integer, Tag::Integer, ..] if parts.len() == DSA_NUMBERS => unsupported("a DSA key"),
            [Tag::Integer, Tag::Integer, ..] => other_length(parts[1]),
            _ => None,
        },
    )
}

/// Version, p, q, g, public and private key.
const DSA_NUMBERS: usize = 6;

fn pkcs8(algorithm: AnyRef<'_>, key: AnyRef<'_>) -> Option<Refused> {
    let algorithm = parts_of(algorithm)?;
    let oid = algorithm.first()?.decode_as::<ObjectIdentifier>().ok()?;
    match oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => other_length(*elements(key.value())?.get(1)?),
        "1.2.840.10045.2.1" => other_curve(*algorithm.get(1)?),
        // aws-lc reads it, so that this one is damaged.
        "1.3.101.112" => None,
        "1.2.840.113549.1.1.10" => unsupported("an RSA key for RSASSA-PSS only"),
        "1.2.840.10040.4.1" => unsupported("a DSA key"),
        "1.3.101.113" => unsupported("an Ed448 key"),
        "1.3.101.110" | "1.3.101.111" => unsupported("a key for key agreement only (X25519 or X448)"),
        _ => unsupported(&format!("a key of the algorithm {oid}")),
    }
}

/// RSA key of a length that is not supported; `None` for another fault.
fn other_length(modulus: AnyRef<'_>) -> Option<Refused> {
    let zeros = modulus.value().iter().take_while(|byte| **byte == 0).count();
    let modulus = &modulus.value()[zeros..];
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    match bits {
        2048..=8192 => None,
        _ => unsupported(&format!("an RSA key of {bits} bits")),
    }
}

/// ECDSA key on a curve that is not supported, or by explicit parameters; `None` for another fault.
fn other_curve(curve: AnyRef<'_>) -> Option<Refused> {
    const READ: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
    match curve.decode_as::<ObjectIdentifier>() {
        Ok(oid) if READ.contains(&oid.to_string().as_str()) => None,
        Ok(_) => unsupported("an ECDSA key on another curve"),
        Err(_) => unsupported("an ECDSA key with explicit curve parameters"),
    }
}

fn unsupported(kind: &str) -> Option<Refused> {
    Some(Refused::Unsupported(kind.to_owned()))
}

fn elements(der: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    parts_of(AnyRef::from_der(der).ok()?)
}

fn parts_of(sequence: AnyRef<'_>) -> Option<Vec<AnyRef<'_>>> {
    let (mut parts, mut rest) = (Vec::new(), sequence.value());
    while !rest.is_empty() {
        let (part, after) = AnyRef::from_der_partial(rest).ok()?;
        parts.push(part);
        rest = after;
    }
    Some(parts)
}
