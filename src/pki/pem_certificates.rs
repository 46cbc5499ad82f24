//! Certificates in a PEM text, within the limits of a source. Pure.

use memchr::memmem;
use x509_parser::{
    asn1_rs::{Any, Tag},
    prelude::FromDer,
};

use super::{
    certificate::Certificate,
    pem::{Block, TRUSTED_CERTIFICATE, scan, trusted},
    pem_error::{Kind, MAX_SOURCE_BYTES, MAX_SOURCE_CERTIFICATES, ParseError},
    pem_outside::names_private_key,
    pem_text::{BEGIN, is_blank},
};

/// Reads every certificate of a PEM text, of at most [`MAX_SOURCE_BYTES`] and
/// [`MAX_SOURCE_CERTIFICATES`]. Text between the blocks is skipped; a block of any other kind is an
/// error.
pub fn parse_pem_bundle(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<Vec<Certificate>, ParseError> {
    source(text.as_ref())
}

/// Reads a text that may hold certificates only: each with its block, in the order of the text, at least one.
pub fn certificates(text: &[u8]) -> Result<Vec<(Certificate, Block)>, ParseError> {
    // This check comes first, so that no damaged block before the key hides it.
    if names_private_key(text) {
        return Err(ParseError::PrivateKey);
    }
    read(text, false).map_err(|error| match error {
        ParseError::Der {
            kind: Kind::PrivateKey,
            ..
        }
        | ParseError::EncodedDer {
            kind: Kind::PrivateKey,
            ..
        } => ParseError::PrivateKey,
        other => other,
    })
}

/// Reads the first block of a text, and nothing behind it: a certificate of at most [`MAX_SOURCE_BYTES`].
pub fn first(text: &[u8]) -> Option<Certificate> {
    let text = &text[..text.len().min(MAX_SOURCE_BYTES)];
    certificate(&scan(text).next()?.ok()?).ok()
}

/// Reads one source of certificates: [`certificates`], within the limits of a source. Parses nothing of a
/// longer source.
pub fn source(text: &[u8]) -> Result<Vec<Certificate>, ParseError> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(ParseError::TooLong);
    }
    if memmem::find_iter(text, BEGIN).count() > MAX_SOURCE_CERTIFICATES {
        return Err(ParseError::TooMany);
    }
    Ok(certificates(text)?
        .into_iter()
        .map(|(certificate, _)| certificate)
        .collect())
}

/// Reads a text that may hold private keys and their parameters beside certificates; at least one
/// certificate.
pub fn certificates_beside_keys(text: &[u8]) -> Result<Vec<Certificate>, ParseError> {
    Ok(read(text, true)?
        .into_iter()
        .map(|(certificate, _)| certificate)
        .collect())
}

pub(crate) fn read(text: &[u8], keys_belong: bool) -> Result<Vec<(Certificate, Block)>, ParseError> {
    let mut found = Vec::new();
    let mut is_pem = false;
    for block in scan(text) {
        let block = block?;
        is_pem = true;
        match block.kind() {
            Kind::Certificate => found.push((certificate(&block)?, block)),
            Kind::PrivateKey | Kind::Other if keys_belong => {}
            kind => {
                return Err(ParseError::Misplaced {
                    line: block.line,
                    kind,
                });
            }
        }
    }
    if found.is_empty() {
        return Err(if is_pem || is_blank(text) {
            ParseError::Empty
        } else {
            ParseError::NotPem
        });
    }
    Ok(found)
}

/// Returns the certificate of a block; an error when the block holds something else.
pub(crate) fn certificate(block: &Block) -> Result<Certificate, ParseError> {
    let line = block.line;
    let mut der = block.der.as_slice();
    if block.label == TRUSTED_CERTIFICATE {
        let (certificate, allowed) = trusted(der).ok_or(ParseError::NotCertificate { line })?;
        if !allowed {
            return Err(ParseError::NotTrusted { line });
        }
        der = certificate;
    }
    Certificate::from_der(der).ok_or_else(|| match Kind::of_der(der) {
        Some(Kind::Certificate) | None if is_whole(der) => ParseError::Irregular { line },
        Some(Kind::Certificate) | None => ParseError::NotCertificate { line },
        Some(kind) => ParseError::Mislabelled { line, kind },
    })
}

/// True when the DER has the three parts of a certificate and ends with them: nothing of it is missing.
fn is_whole(der: &[u8]) -> bool {
    let parts = || {
        let (rest, outer) = Any::from_der(der).ok()?;
        let (after_body, body) = Any::from_der(outer.data).ok()?;
        let (after_algorithm, algorithm) = Any::from_der(after_body).ok()?;
        let (end, signature) = Any::from_der(after_algorithm).ok()?;
        let tags = [outer.tag(), body.tag(), algorithm.tag(), signature.tag()];
        let is_it = tags == [Tag::Sequence, Tag::Sequence, Tag::Sequence, Tag::BitString];
        Some(is_it && rest.is_empty() && end.is_empty())
    };
    parts().unwrap_or(false)
}
