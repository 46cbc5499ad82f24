//! Writing of one X.509 certificate with x509-cert, signed with rcgen's key. rcgen's own writer allows one
//! value per subject attribute and rebuilds issuer names, which goes wrong for authorities with repeated
//! attributes (DC=com, DC=example).

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use signature::{Keypair, Signer};
use x509_cert::{
    attr::AttributeTypeAndValue,
    builder::{Builder, CertificateBuilder, Result, profile::BuilderProfile},
    certificate::TbsCertificate,
    der::{
        self, Any, DateTime, Decode, Document, Encode, Tag,
        asn1::{BitString, ObjectIdentifier, SetOfVec},
        oid::db::{rfc4519, rfc5912},
    },
    ext::Extension,
    name::{Name, RdnSequence, RelativeDistinguishedName},
    serial_number::SerialNumber,
    spki::{
        self, AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey,
        SignatureBitStringEncoding, SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef,
    },
    time::Validity,
};

/// Content of a certificate without its signature.
pub(crate) struct Draft {
    /// DER of the issuer's subject, byte for byte.
    pub issuer: Vec<u8>,
    /// DER of the subject, as [`Subject::to_der`] writes it.
    pub subject: Vec<u8>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// DER SubjectPublicKeyInfo of the certified key.
    pub spki: Vec<u8>,
    pub extensions: Vec<Extension>,
}

/// Octets of a serial number.
const SERIAL_OCTETS: usize = 16;

/// Writes and signs a certificate. The serial is random and positive (RFC 5280, section 4.1.2.2). Returns
/// DER.
pub(crate) fn sign(draft: Draft, key: &KeyPair) -> Result<Vec<u8>> {
    write(draft, &random_serial()?, &Signing(key))
}

/// Writes an existing certificate again, with its own serial and signature. Returns DER, for comparison:
/// equal octets mean that [`sign`] could have written the certificate.
pub(crate) fn rewrite(
    draft: Draft,
    serial: &[u8],
    algorithm: &'static SignatureAlgorithm,
    signature: &[u8],
) -> Result<Vec<u8>> {
    let signed = Signed {
        spki: draft.spki.clone(),
        algorithm,
        signature: signature.to_vec(),
    };
    write(draft, serial, &signed)
}

/// True for a serial number that [`sign`] gives: [`SERIAL_OCTETS`] long, its first bits 01.
pub(crate) fn is_our_serial(serial: &[u8]) -> bool {
    serial.len() == SERIAL_OCTETS && serial[0] & 0xc0 == 0x40
}

fn write<S>(draft: Draft, serial: &[u8], signer: &S) -> Result<Vec<u8>>
where
    S: Signer<Sig> + Keypair<VerifyingKey = Spki> + DynSignatureAlgorithmIdentifier,
{
    let serial = SerialNumber::new(serial)?;
    let validity = Validity::new(time(draft.not_before)?, time(draft.not_after)?);
    let spki = SubjectPublicKeyInfoOwned::from_der(&draft.spki)?;
    let profile = Profile {
        issuer: Name::from_der(&draft.issuer)?,
        subject: Name::from_der(&draft.subject)?,
        extensions: draft.extensions,
    };
    let certificate = CertificateBuilder::new(profile, serial, validity, spki)?.build::<_, Sig>(signer)?;
    Ok(certificate.to_der()?)
}

fn random_serial() -> Result<[u8; SERIAL_OCTETS]> {
    let mut serial = [0; SERIAL_OCTETS];
    aws_lc_rs::rand::fill(&mut serial).map_err(signature::Error::from_source)?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and never shorter than 16 octets
    Ok(serial)
}

/// Converts a time, in whole seconds as in X.509. A time before 1970 becomes 1970.
fn time(at: Timestamp) -> der::Result<x509_cert::time::Time> {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    Ok(DateTime::from_unix_duration(Duration::from_secs(seconds))?.into())
}

/// Subject in the conventional order C, ST, L, O, OU, serialNumber, CN, so that its RFC 4514 string begins
/// with the CN.
#[derive(Default)]
pub(crate) struct Subject<'a> {
    pub countries: &'a [String],
    pub provinces: &'a [String],
    pub localities: &'a [String],
    pub organizations: &'a [String],
    pub organizational_units: &'a [String],
    /// Attribute serialNumber of the subject, not the certificate's own serial number.
    pub serial_number: Option<&'a str>,
    pub common_name: &'a str,
}

impl Subject<'_> {
    pub(crate) fn to_der(&self) -> der::Result<Vec<u8>> {
        let common_name = [self.common_name.to_owned()];
        let serial_number: Vec<_> = self.serial_number.map(str::to_owned).into_iter().collect();
        let attributes: [(ObjectIdentifier, Tag, &[String]); 7] = [
            (rfc4519::C, Tag::PrintableString, self.countries), // RFC 5280: PrintableString, two letters
            (rfc4519::ST, Tag::Utf8String, self.provinces),
            (rfc4519::L, Tag::Utf8String, self.localities),
            (rfc4519::O, Tag::Utf8String, self.organizations),
            (rfc4519::OU, Tag::Utf8String, self.organizational_units),
            (rfc4519::SERIAL_NUMBER, Tag::PrintableString, &serial_number), // digits
            (rfc4519::CN, Tag::Utf8String, &common_name),
        ];
        let mut rdns = RdnSequence::default();
        for (oid, tag, values) in attributes {
            for value in values {
                let part = AttributeTypeAndValue {
                    oid,
                    value: Any::new(tag, value.as_bytes())?,
                };
                rdns.push(RelativeDistinguishedName::from(SetOfVec::try_from([part])?));
            }
        }
        rdns.to_der()
    }
}

struct Profile {
    issuer: Name,
    subject: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _: &Name) -> Name {
        self.issuer.clone()
    }
    fn get_subject(&self) -> Name {
        self.subject.clone()
    }
    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        _: &TbsCertificate,
    ) -> Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

/// Signer for x509-cert with rcgen's key.
struct Signing<'a>(&'a KeyPair);
struct Sig(Vec<u8>);
#[derive(Clone)]
struct Spki(Vec<u8>);

impl SignatureBitStringEncoding for Sig {
    fn to_bitstring(&self) -> der::Result<BitString> {
        BitString::from_bytes(&self.0)
    }
}

impl EncodePublicKey for Spki {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.0.clone())?)
    }
}

impl Signer<Sig> for Signing<'_> {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Sig, signature::Error> {
        self.0
            .sign(message)
            .map(Sig)
            .map_err(signature::Error::from_source)
    }
}

impl Keypair for Signing<'_> {
    type VerifyingKey = Spki;
    fn verifying_key(&self) -> Spki {
        Spki(self.0.subject_public_key_info())
    }
}

impl DynSignatureAlgorithmIdentifier for Signing<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        identifier(KeyPair::algorithm(self.0))
    }
}

/// Signer that returns an existing signature.
struct Signed {
    spki: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
    signature: Vec<u8>,
}

impl Signer<Sig> for Signed {
    fn try_sign(&self, _: &[u8]) -> std::result::Result<Sig, signature::Error> {
        Ok(Sig(self.signature.clone()))
    }
}

impl Keypair for Signed {
    type VerifyingKey = Spki;
    fn verifying_key(&self) -> Spki {
        Spki(self.spki.clone())
    }
}

impl DynSignatureAlgorithmIdentifier for Signed {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        identifier(self.algorithm)
    }
}

fn identifier(algorithm: &SignatureAlgorithm) -> spki::Result<AlgorithmIdentifierOwned> {
    let (oid, parameters) = if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        (rfc5912::ECDSA_WITH_SHA_256, None)
    } else if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        (rfc5912::ECDSA_WITH_SHA_384, None)
    } else if algorithm == &rcgen::PKCS_RSA_SHA256 {
        (rfc5912::SHA_256_WITH_RSA_ENCRYPTION, Some(der::Any::null()))
    } else {
        return Err(spki::Error::AlgorithmParametersMissing); // P-521, Ed25519: API Gateway takes neither
    };
    Ok(AlgorithmIdentifierOwned { oid, parameters })
}
