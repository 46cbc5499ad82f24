//! Certificate signing requests: requests by a requester who keeps the private key, within the limits of a
//! spec. Pure.

mod attributes;

use jiff::SignedDuration;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer, x509::X509Name};

use self::attributes::NamesError;

use super::{
    certificate::signature::{SignatureClass, verifies},
    keys::{KeyStrength, RsaFlaw, rsa_flaw},
    leaf::{LeafRequest, validate, validate_length},
    name,
    pem::{self, Block},
    pem_error::{Kind, ParseError},
    subject::Problem,
};

/// Maximum bytes of a request, in PEM and with the text around it.
pub const MAX_REQUEST: usize = 16 * 1024;
/// Maximum number of values of one subject attribute, as in a spec.
pub const MAX_PARTS: usize = 8;
/// Maximum number of alternative names of one kind, as in a spec.
pub const MAX_NAMES: usize = 50;

/// Request with a good signature that a spec could make as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    pub request: LeafRequest,
    /// DER SubjectPublicKeyInfo of the requester's key.
    pub spki: Vec<u8>,
}

/// Reason why a request cannot be served. Never quotes the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("it has more than {MAX_REQUEST} bytes: leave out extensions, and text around the PEM block")]
    TooLong,
    #[error("it is not one PEM block of a certificate signing request (PKCS #10)")]
    Unreadable,
    #[error("it holds {0} instead of a certificate signing request (PKCS #10)")]
    Other(Kind),
    #[error(transparent)]
    Pem(#[from] ParseError),
    #[error(
        "its signature is not good: it is damaged, or signed in a way other than SHA-256 or stronger with RSA or ECDSA"
    )]
    Signature,
    #[error(
        "its key is too weak or of a kind that API Gateway does not support: use RSA from 2048 to 4096 bits, \
         P-256 or P-384"
    )]
    Key,
    #[error(transparent)]
    Rsa(#[from] RsaFlaw),
    #[error("its subject has {0}, which cannot be certified: use CN, O, OU, C, L and ST")]
    SubjectPart(String),
    #[error("its subject has {part} in {kind} that is no text: have it written as UTF8String")]
    NoText { part: String, kind: String },
    #[error("its subject has {0}: one CN and at most {MAX_PARTS} of each other part are possible")]
    Count(&'static str),
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error("it asks for more than {MAX_NAMES} alternative names of one kind")]
    TooManyNames,
    #[error("the request cannot be certified: {0}")]
    Problem(#[from] Problem),
}

/// Parses a request. Takes its subject and alternative names; ignores every other extension (keytool requests
/// a key identifier, other programs request usages).
pub fn read(text: &(impl AsRef<[u8]> + ?Sized), duration: SignedDuration) -> Result<Csr, CsrError> {
    if text.as_ref().len() > MAX_REQUEST {
        return Err(CsrError::TooLong);
    }
    let blocks = pem::scan(text.as_ref()).collect::<Result<Vec<_>, _>>()?;
    match blocks.iter().map(Block::kind).find(|kind| *kind != Kind::Request) {
        Some(Kind::PrivateKey) => return Err(ParseError::PrivateKey.into()),
        Some(kind) => return Err(CsrError::Other(kind)),
        None => {}
    }
    let [block] = blocks.as_slice() else {
        return Err(CsrError::Unreadable);
    };
    let (rest, csr) = X509CertificationRequest::from_der(&block.der).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let (info, spki) = (
        &csr.certification_request_info,
        &csr.certification_request_info.subject_pki,
    );
    match KeyStrength::of(spki) {
        KeyStrength::Rsa(2048..=4096) | KeyStrength::EcdsaP256 | KeyStrength::EcdsaP384 => {}
        _ => return Err(CsrError::Key),
    }
    if let Some(flaw) = rsa_flaw(spki) {
        return Err(flaw.into());
    }
    if SignatureClass::of(&csr.signature_algorithm) != SignatureClass::Sha2
        || !verifies(&csr.signature_algorithm, &csr.signature_value, info.raw, spki)
    {
        return Err(CsrError::Signature);
    }
    let mut request = subject(&info.subject)?;
    request.duration = duration;
    attributes::add_names(&mut request, info.raw)?;
    if [&request.dns_names, &request.uris, &request.email_addresses]
        .iter()
        .any(|names| names.len() > MAX_NAMES)
    {
        return Err(CsrError::TooManyNames);
    }
    validate(&request)?;
    validate_length(&request)?;
    Ok(Csr {
        request,
        spki: spki.raw.to_vec(),
    })
}

/// Sorts the parts of a subject by their kind; the operator chooses their order.
fn subject(name: &X509Name<'_>) -> Result<LeafRequest, CsrError> {
    let mut request = LeafRequest::default();
    let mut common_names = Vec::new();
    for part in name.iter_attributes() {
        let oid = part.attr_type().to_id_string();
        let values = match oid.as_str() {
            "2.5.4.3" => &mut common_names,
            "2.5.4.6" => &mut request.countries,
            "2.5.4.7" => &mut request.localities,
            "2.5.4.8" => &mut request.provinces,
            "2.5.4.10" => &mut request.organizations,
            "2.5.4.11" => &mut request.organizational_units,
            _ => {
                return Err(CsrError::SubjectPart(
                    name::short_name(&oid).unwrap_or(&oid).to_owned(),
                ));
            }
        };
        let value = name::value(part).ok_or_else(|| CsrError::NoText {
            part: name::short_name(&oid).unwrap_or(&oid).to_owned(),
            kind: name::type_name(part.attr_value().tag()),
        })?;
        values.push(value.into_owned());
    }
    let lists = [
        &request.countries,
        &request.localities,
        &request.provinces,
        &request.organizations,
        &request.organizational_units,
    ];
    if lists.iter().any(|list| list.len() > MAX_PARTS) {
        return Err(CsrError::Count("too many parts of one kind"));
    }
    let Ok([common_name]) = <[String; 1]>::try_from(common_names) else {
        return Err(CsrError::Count("no CN, or several"));
    };
    Ok(LeafRequest {
        common_name,
        ..request
    })
}

#[cfg(test)]
mod tests;
