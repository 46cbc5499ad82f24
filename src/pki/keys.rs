//! Private keys: generation, parsing from PEM, encoding as PEM. In memory only: no files, no network.

mod refused;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair},
};
use num_bigint::BigUint;
use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SignatureAlgorithm};
use x509_cert::der::{
    self, Encode, Tag,
    asn1::{Any, UintRef},
    pem::{LineEnding, encode_string},
};
use x509_parser::{public_key::PublicKey, x509::SubjectPublicKeyInfo};
use zeroize::Zeroizing;

use self::refused::Refused;

use super::{
    pem::{self, Block},
    pem_error::{Kind, ParseError},
};

/// Kind of a key that the operator generates, as `spec.privateKey.{algorithm,size}` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

impl KeyKind {
    pub(crate) fn is_rsa(self) -> bool {
        matches!(self, KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096)
    }

    /// Returns the kind of an existing key; `None` for a key that the operator never generates (P-521,
    /// Ed25519, RSA of another size or with another public exponent than 65537).
    pub fn of(key: &KeyPair) -> Option<KeyKind> {
        KeyKind::of_der(&key.subject_public_key_info())
    }

    /// Returns the kind of a public key (DER SubjectPublicKeyInfo); `None` also for an encoding that the
    /// operator never writes.
    pub(crate) fn of_der(spki: &[u8]) -> Option<KeyKind> {
        let is_it = |shape: &&Shape| {
            let rest = spki
                .strip_prefix(shape.head)
                .and_then(|rest| rest.strip_suffix(shape.tail));
            rest.is_some_and(|body| body.len() == shape.octets && (shape.tail.is_empty() || body[0] >= 0x80))
        };
        SHAPES.iter().find(is_it).map(|shape| shape.kind)
    }

    /// Returns the algorithm with which the key signs.
    pub(crate) fn signature(self) -> &'static SignatureAlgorithm {
        match self {
            KeyKind::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// Shape of the DER SubjectPublicKeyInfo of a kind of key: all but the point or the modulus is fixed.
struct Shape {
    kind: KeyKind,
    head: &'static [u8],
    /// Octets of the point, or of the modulus, whose first bit is set.
    octets: usize,
    tail: &'static [u8],
}

/// Shapes: an uncompressed point (RFC 5480), or a modulus and the exponent 65537 under rsaEncryption with
/// NULL (RFC 3279).
const SHAPES: [Shape; 5] = [
    Shape {
        kind: KeyKind::EcdsaP256,
        head: b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\
            \x07\x03\x42\x00\x04",
        octets: 64,
        tail: &[],
    },
    Shape {
        kind: KeyKind::EcdsaP384,
        head: b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\
            \x00\x04",
        octets: 96,
        tail: &[],
    },
    Shape {
        kind: KeyKind::Rsa2048,
        head: b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\
            \x0f\x00\x30\x82\x01\x0a\x02\x82\x01\x01\x00",
        octets: 256,
        tail: &EXPONENT,
    },
    Shape {
        kind: KeyKind::Rsa3072,
        head: b"\x30\x82\x01\xa2\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\
            \x8f\x00\x30\x82\x01\x8a\x02\x82\x01\x81\x00",
        octets: 384,
        tail: &EXPONENT,
    },
    Shape {
        kind: KeyKind::Rsa4096,
        head: b"\x30\x82\x02\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x02\
            \x0f\x00\x30\x82\x02\x0a\x02\x82\x02\x01\x00",
        octets: 512,
        tail: &EXPONENT,
    },
];

/// DER of INTEGER 65537.
const EXPONENT: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KeyKind::EcdsaP256 => "ECDSA 256",
            KeyKind::EcdsaP384 => "ECDSA 384",
            KeyKind::Rsa2048 => "RSA 2048",
            KeyKind::Rsa3072 => "RSA 3072",
            KeyKind::Rsa4096 => "RSA 4096",
        })
    }
}

/// Owner of a leaf's private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredKey {
    /// The operator generates the key.
    Made {
        kind: KeyKind,
        encoding: Encoding,
        /// True when the operator keeps an existing key that still fits.
        keep: bool,
    },
    /// The requester keeps the key: DER SubjectPublicKeyInfo of the CSR.
    Requested { spki: Vec<u8> },
}

/// Strength of a public key in a certificate. RSA by the bits of its modulus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStrength {
    Rsa(usize),
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Ed25519,
    Other,
}

/// Writes an RSAPublicKey (RFC 8017, appendix A.1.1).
fn rsa_key(modulus: &[u8], exponent: &[u8]) -> der::Result<Vec<u8>> {
    let numbers = [
        UintRef::new(modulus)?.to_der()?,
        UintRef::new(exponent)?.to_der()?,
    ];
    Any::new(Tag::Sequence, numbers.concat())?.to_der()
}

/// True when these bytes are the DER of the key with these numbers, and nothing else.
pub(crate) fn is_rsa_key(bytes: &[u8], modulus: &[u8], exponent: &[u8]) -> bool {
    rsa_key(modulus, exponent).is_ok_and(|key| key == bytes)
}

impl KeyStrength {
    pub(crate) fn of(spki: &SubjectPublicKeyInfo<'_>) -> KeyStrength {
        if let Ok(PublicKey::RSA(rsa)) = spki.parsed() {
            // Bytes after the key, or zeros before its numbers: a verifier may refuse the certificate.
            if !is_rsa_key(&spki.subject_public_key.data, rsa.modulus, rsa.exponent) {
                return KeyStrength::Other;
            }
            let modulus = rsa.modulus;
            let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
            let top = modulus.get(zeros).map_or(0, |byte| byte.leading_zeros());
            return KeyStrength::Rsa((modulus.len() - zeros) * 8 - top as usize);
        }
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        // A compressed point is the same key in other bytes: a distrust by hash would miss it.
        let bits = &spki.subject_public_key;
        let is_plain = bits.unused_bits == 0 && bits.data.first() == Some(&4);
        let curve = curve.filter(|_| is_plain);
        match (
            spki.algorithm.algorithm.to_id_string().as_str(),
            curve.map(|oid| oid.to_id_string()).as_deref(),
        ) {
            ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => KeyStrength::EcdsaP256,
            ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => KeyStrength::EcdsaP384,
            ("1.2.840.10045.2.1", Some("1.3.132.0.35")) => KeyStrength::EcdsaP521,
            ("1.3.101.112", _) => KeyStrength::Ed25519,
            _ => KeyStrength::Other,
        }
    }
}

/// Flaw of an RSA key that a requester made, whatever its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RsaFlaw {
    #[error("its RSA key has a public exponent below 65537: make a key with 65537, as openssl genrsa does")]
    Exponent,
    #[error(
        "the primes of its RSA key are so near to each other that anyone can compute them: make another key"
    )]
    ClosePrimes,
}

/// Returns the flaw of an RSA key, by the baseline requirements for public authorities (section 6.1.6).
pub(crate) fn rsa_flaw(spki: &SubjectPublicKeyInfo<'_>) -> Option<RsaFlaw> {
    let Ok(PublicKey::RSA(rsa)) = spki.parsed() else {
        return None;
    };
    if BigUint::from_bytes_be(rsa.exponent) < BigUint::from(65_537_u32) {
        return Some(RsaFlaw::Exponent);
    }
    has_close_primes(&BigUint::from_bytes_be(rsa.modulus)).then_some(RsaFlaw::ClosePrimes)
}

/// True when a hundred rounds of Fermat's method factor the number.
fn has_close_primes(modulus: &BigUint) -> bool {
    const ROUNDS: usize = 100;
    let root = modulus.sqrt();
    // The method looks for a and b with a² - b² = modulus, from the least possible a.
    let mut a = if &root * &root == *modulus {
        root
    } else {
        root + 1_u32
    };
    let mut b_squared = &a * &a - modulus;
    (0..ROUNDS).any(|_| {
        let found = is_square(&b_squared);
        b_squared += (&a << 1) + 1_u32;
        a += 1_u32;
        found
    })
}

fn is_square(number: &BigUint) -> bool {
    // Most numbers have a remainder that no square has; the root of a long number takes longer.
    let may_be = |by: u32| {
        let rest = (number % by).iter_u32_digits().next().unwrap_or_default();
        (0..by).any(|root| root * root % by == rest)
    };
    let root = || number.sqrt();
    [64, 63, 65, 11].into_iter().all(may_be) && &root().pow(2) == number
}

/// Encoding of a private key, as cert-manager names it: `PKCS1` is PKCS#1 for RSA and SEC1 for ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Pkcs8,
    Pkcs1,
}

/// Problem with a private key. Never tells anything of its bytes.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key could not be generated")]
    Generate(#[source] rcgen::Error),
    #[error("there is no PEM block with a private key")]
    NoKey,
    #[error(
        "the private key is encrypted; only plain keys can be used: openssl pkey -in FILE -out NEW decrypts it"
    )]
    Encrypted,
    #[error(
        "the private key is in OpenSSH's own form: ssh-keygen -p -m PEM -f FILE rewrites that file as PEM"
    )]
    OpenSsh,
    #[error("it is a public key: put the private key here")]
    Public,
    #[error(transparent)]
    Pem(#[from] ParseError),
    #[error(
        "the private key is {kind}, which API Gateway does not support: use RSA from 2048 bits, P-256 or P-384"
    )]
    Unsupported { kind: String },
    #[error("the private key is damaged or of an unknown kind")]
    Unreadable,
    #[error("the private key cannot be written in this encoding")]
    Encode,
}

/// Generates a random key. RSA keys take up to 1.6 s of CPU: call this from a thread of `runtime::workers`.
pub fn generate(kind: KeyKind) -> Result<KeyPair, KeyError> {
    match kind {
        KeyKind::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyKind::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyKind::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
    }
    .map_err(KeyError::Generate)
}

/// Parses the first private key of a PEM file: PKCS#8, PKCS#1 or SEC1. Skips blocks before it, such as `EC
/// PARAMETERS`.
pub fn parse(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<KeyPair, KeyError> {
    let block = private_block(text.as_ref())?;
    KeyPair::try_from(block.der.as_slice()).map_err(|_| match refused::reason(&block.der) {
        Some(Refused::Encrypted) => KeyError::Encrypted,
        Some(Refused::Unsupported(kind)) => KeyError::Unsupported { kind },
        None => KeyError::Unreadable,
    })
}

/// Returns the encoding of the first private key of a PEM file; `None` when there is none.
pub fn encoding_of(text: &(impl AsRef<[u8]> + ?Sized)) -> Option<Encoding> {
    match private_block(text.as_ref()).ok()?.label.as_str() {
        "PRIVATE KEY" => Some(Encoding::Pkcs8),
        "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Some(Encoding::Pkcs1),
        _ => None,
    }
}

/// Returns the first private key of a PEM file as a block of its own, in the shape that every program reads.
/// Keeps its encoding.
pub fn alone(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<Zeroizing<String>, KeyError> {
    Ok(private_block(text.as_ref())?.to_pem())
}

/// Encodes a key as PEM, for keys that the operator generates or re-encodes. An unchanged key of a Secret is
/// passed on byte for byte, never through this function.
pub fn pem(key: &KeyPair, encoding: Encoding) -> Result<Zeroizing<String>, KeyError> {
    let pkcs8 = pkcs8(key)?;
    let write = |label, der: &[u8]| {
        encode_string(label, LineEnding::LF, der)
            .map(Zeroizing::new)
            .map_err(|_| KeyError::Encode)
    };
    if encoding == Encoding::Pkcs8 {
        return write("PRIVATE KEY", &pkcs8);
    }
    if is_rsa(key) {
        // The octet string inside PKCS#8 is the PKCS#1 structure.
        let info = pkcs8::PrivateKeyInfoRef::try_from(pkcs8.as_slice()).map_err(|_| KeyError::Encode)?;
        return write("RSA PRIVATE KEY", info.private_key.as_bytes());
    }
    let pair = ecdsa(key)?;
    // RFC 5915 form, with the curve in it.
    let sec1 = pair.private_key().as_der().map_err(|_| KeyError::Encode)?;
    write("EC PRIVATE KEY", sec1.as_ref())
}

/// Returns PKCS#8 for a key read from any form (rcgen keeps the original bytes).
pub(crate) fn pkcs8(key: &KeyPair) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let der = key.serialized_der();
    if pkcs8::PrivateKeyInfoRef::try_from(der).is_ok() {
        return Ok(Zeroizing::new(der.to_vec()));
    }
    if is_rsa(key) {
        let pair = rsa::KeyPair::from_der(der).map_err(|_| KeyError::Encode)?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Encode)?;
        return Ok(Zeroizing::new(pkcs8.as_ref().to_vec()));
    }
    let pkcs8 = ecdsa(key)?.to_pkcs8v1().map_err(|_| KeyError::Encode)?;
    Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
}

fn is_rsa(key: &KeyPair) -> bool {
    KeyPair::algorithm(key) == &rcgen::PKCS_RSA_SHA256
}

fn ecdsa(key: &KeyPair) -> Result<EcdsaKeyPair, KeyError> {
    let algorithm = if KeyPair::algorithm(key) == &rcgen::PKCS_ECDSA_P256_SHA256 {
        &ECDSA_P256_SHA256_ASN1_SIGNING
    } else {
        &ECDSA_P384_SHA384_ASN1_SIGNING
    };
    EcdsaKeyPair::from_private_key_der(algorithm, key.serialized_der()).map_err(|_| KeyError::Encode)
}

/// Returns the first private key. Ignores text and blocks after it.
fn private_block(text: &[u8]) -> Result<Block, KeyError> {
    let mut public = false;
    for block in pem::scan(text) {
        let block = block?;
        match block.kind() {
            Kind::PrivateKey if block.encrypted => return Err(KeyError::Encrypted),
            Kind::PrivateKey if block.label == "OPENSSH PRIVATE KEY" => return Err(KeyError::OpenSsh),
            Kind::PrivateKey => return Ok(block),
            kind => public |= kind == Kind::PublicKey,
        }
    }
    Err(if public { KeyError::Public } else { KeyError::NoKey })
}

#[cfg(test)]
pub(crate) mod tests;
