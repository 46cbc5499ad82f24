//! Comparison of a certificate with the one that a release of this operator would have written, octet for
//! octet. Pure.
//!
//! Decides whether the operator may trust the content of a Secret: any writer of Secrets can forge labels and
//! names. Only the serial number, the times, the key and the signature are the maker's choice. With these
//! parts the operator writes the certificate again, and all other parts follow: version, usages, extensions
//! and their order, string types, encoding. A release that writes another form has to accept the forms of all
//! releases before it.

use jiff::Timestamp;
use rcgen::SignatureAlgorithm;
use x509_cert::{
    builder,
    ext::{
        Extension,
        pkix::{KeyUsage, KeyUsages},
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, x509::X509Name};

use super::{
    authority::{AuthorityChain, CLOCK_SLACK, later},
    certificate::Certificate,
    compile::offer::whole_seconds,
    keys::{KeyKind, KeyStrength},
    leaf::{LeafRequest, extensions, key_id_of, subject_der, usage, validate},
    signing::{Draft, is_our_serial, rewrite},
};

/// Reason why a certificate is not one of the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("its key is of a kind, or written in a way, that the operator never makes")]
    Key,
    #[error(
        "it is not written as the operator writes one: version, extensions, usages, names or encoding differ"
    )]
    Form,
    #[error("it is not signed by its own key")]
    Signature,
    #[error("it differs from the request")]
    Request,
    #[error("it is valid for longer than requested or allowed")]
    Life,
    #[error("its validity begins in the future")]
    Future,
}

/// Returns the content of a self-signed client certificate that a release of the operator may have written,
/// without `duration` and `not_after`. Such a certificate issues no others: it is no authority.
pub fn signed_itself(certificate: &Certificate) -> Result<LeafRequest, Mismatch> {
    let kind = KeyKind::of_der(certificate.spki_der()).ok_or(Mismatch::Key)?;
    let said = said(certificate).ok_or(Mismatch::Form)?;
    let key_id = key_id_of(certificate.spki_der()).map_err(|_| Mismatch::Form)?;
    is_written_as(
        certificate,
        &said,
        (&certificate.subject_der, key_id),
        kind.signature(),
    )?;
    if certificate.self_signed {
        Ok(said)
    } else {
        Err(Mismatch::Signature)
    }
}

/// Checks that a self-signed client certificate is the one that a release of the operator would have issued
/// for `request`, in any revision.
pub fn signed_itself_for(
    certificate: &Certificate,
    request: &LeafRequest,
    now: Timestamp,
) -> Result<(), Mismatch> {
    is_as_asked(certificate, signed_itself(certificate)?, request, now)
}

/// Checks that a self-signed client certificate with the content `said`, as [`signed_itself`] returns it, is
/// one for `request`, in any revision.
pub fn is_as_asked(
    certificate: &Certificate,
    said: LeafRequest,
    request: &LeafRequest,
    now: Timestamp,
) -> Result<(), Mismatch> {
    if !is_asked_for(
        &LeafRequest {
            serial_number: None,
            ..said
        },
        &LeafRequest {
            serial_number: None,
            ..request.clone()
        },
    ) {
        return Err(Mismatch::Request);
    }
    lives_as_asked(certificate, request, now)
}

/// Checks that a client certificate is the one that a release of the operator would have issued for `request`
/// under the current `issuer`.
pub fn issued_for(
    certificate: &Certificate,
    request: &LeafRequest,
    issuer: &AuthorityChain,
    now: Timestamp,
) -> Result<(), Mismatch> {
    let (authority, said) = (issuer.authority(), said(certificate).ok_or(Mismatch::Form)?);
    let key_id = match &authority.subject_key_id {
        Some(id) => id.clone(),
        None => key_id_of(authority.spki_der()).map_err(|_| Mismatch::Form)?,
    };
    is_written_as(
        certificate,
        &said,
        (&authority.subject_der, key_id),
        issuer.signature().ok_or(Mismatch::Form)?,
    )?;
    if !certificate.is_issued_by(authority) {
        return Err(Mismatch::Signature);
    }
    if !is_asked_for(&said, request) {
        return Err(Mismatch::Request);
    }
    lives_as_asked(certificate, request, now)
}

/// Returns the content of the certificate as a request; `None` when no spec could request it.
fn said(certificate: &Certificate) -> Option<LeafRequest> {
    let (_, name) = X509Name::from_der(&certificate.subject_der).ok()?;
    let (mut request, mut common_names, mut numbers) = (LeafRequest::default(), Vec::new(), Vec::new());
    for part in name.iter_attributes() {
        let values = match part.attr_type().to_id_string().as_str() {
            "2.5.4.3" => &mut common_names,
            "2.5.4.5" => &mut numbers,
            "2.5.4.6" => &mut request.countries,
            "2.5.4.7" => &mut request.localities,
            "2.5.4.8" => &mut request.provinces,
            "2.5.4.10" => &mut request.organizations,
            "2.5.4.11" => &mut request.organizational_units,
            _ => return None,
        };
        values.push(part.as_str().ok()?.to_owned());
    }
    let [common_name] = <[String; 1]>::try_from(common_names).ok()?;
    let is_revision = |number: &String| {
        number
            .parse::<i64>()
            .is_ok_and(|n| n > 1 && n.to_string() == *number)
    };
    if certificate.other_names || numbers.len() > 1 || !numbers.iter().all(is_revision) {
        return None;
    }
    let said = LeafRequest {
        common_name,
        serial_number: numbers.pop(),
        dns_names: certificate.dns_names.clone(),
        uris: certificate.uris.clone(),
        email_addresses: certificate.email_addresses.clone(),
        duration: certificate.not_after.duration_since(certificate.not_before),
        ..request
    };
    validate(&said).is_ok().then_some(said)
}

/// True when the certificate has the content of the request. Names may be in another order: a spec whose list
/// was sorted again requests the same.
fn is_asked_for(said: &LeafRequest, request: &LeafRequest) -> bool {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let names = [
        (&said.dns_names, &request.dns_names),
        (&said.uris, &request.uris),
        (&said.email_addresses, &request.email_addresses),
    ];
    let subject = |request: &LeafRequest| subject_der(request).ok();
    subject(said).is_some()
        && subject(said) == subject(request)
        && names
            .into_iter()
            .all(|(said, asked)| sorted(said) == sorted(asked))
}

/// Checks the validity. The certificate was made at most [`CLOCK_SLACK`] after its beginning.
fn lives_as_asked(certificate: &Certificate, request: &LeafRequest, now: Timestamp) -> Result<(), Mismatch> {
    let made = later(certificate.not_before, CLOCK_SLACK);
    let request = LeafRequest {
        duration: whole_seconds(request.duration),
        ..request.clone()
    };
    if certificate.not_after > request.end(made, None) {
        return Err(Mismatch::Life);
    }
    if certificate.not_before > later(now, CLOCK_SLACK) {
        Err(Mismatch::Future)
    } else {
        Ok(())
    }
}

/// Writes the certificate again, with its own serial, times, key and signature, and compares. `issuer`: name
/// (DER) and key id.
fn is_written_as(
    certificate: &Certificate,
    said: &LeafRequest,
    issuer: (&[u8], Vec<u8>),
    algorithm: &'static SignatureAlgorithm,
) -> Result<(), Mismatch> {
    let is_it = |usage| {
        let extensions = extensions(said, certificate.spki_der(), issuer.1.clone(), usage)?;
        again(certificate, issuer.0, subject_der(said)?, extensions, algorithm)
    };
    let same = |usage| is_it(usage).is_ok_and(|der: Vec<u8>| der == certificate.der());
    // The first versions allowed RSA keys to encipher keys too.
    let with_encipherment = || KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment);
    let is_rsa = matches!(certificate.key, KeyStrength::Rsa(_));
    if same(usage()) || (is_rsa && same(with_encipherment())) {
        Ok(())
    } else {
        Err(Mismatch::Form)
    }
}

fn again(
    certificate: &Certificate,
    issuer: &[u8],
    subject: Vec<u8>,
    extensions: Vec<Extension>,
    algorithm: &'static SignatureAlgorithm,
) -> builder::Result<Vec<u8>> {
    let Ok((_, x509)) = X509Certificate::from_der(certificate.der()) else {
        return Ok(vec![]);
    };
    if !is_our_serial(x509.raw_serial()) {
        return Ok(vec![]);
    }
    let draft = Draft {
        issuer: issuer.to_vec(),
        subject,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        spki: certificate.spki_der().to_vec(),
        extensions,
    };
    rewrite(draft, x509.raw_serial(), algorithm, &x509.signature_value.data)
}

#[cfg(test)]
pub(crate) mod tests;
