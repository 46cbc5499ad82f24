//! Contents of a certificate that a `ClientCertificate` requests, from its fields or its CSR. Pure.

use jiff::SignedDuration;

use super::authorities::key_kind;

use crate::{
    api::{
        ClientCertificate, KeyEncoding, PrivateKey, RotationPolicy, Subject,
        conditions::Reason,
        durations::{DEFAULT_LEAF, length},
    },
    pki::{
        csr,
        keys::{DesiredKey, Encoding},
        leaf::{self, LeafRequest},
        subject::Problem,
    },
    status::{Refused, refused},
};

/// Returns the validity period of the leaf; `max` is the domain's `clients.maxDuration`.
pub fn duration(cert: &ClientCertificate, max: Option<SignedDuration>) -> SignedDuration {
    match (cert.spec.duration.as_ref().map(length), max) {
        (Some(wanted), _) => wanted,
        (None, Some(max)) => DEFAULT_LEAF.min(max),
        (None, None) => DEFAULT_LEAF,
    }
}

/// Returns the request and its key, within the limits of a new certificate.
pub(crate) fn issuable(
    cert: &ClientCertificate,
    duration: SignedDuration,
) -> Result<(LeafRequest, DesiredKey), Refused> {
    let asked = asked(cert, duration)?;
    leaf::validate_length(&asked.0).map_err(|problem| invalid(&problem))?;
    Ok(asked)
}

/// Returns the request and its key. Fields of an object that an earlier release accepted may have more bytes
/// of names than [`issuable`] admits: its certificate stays trusted for as long as a grant allows it.
pub(crate) fn asked(
    cert: &ClientCertificate,
    duration: SignedDuration,
) -> Result<(LeafRequest, DesiredKey), Refused> {
    match &cert.spec.csr {
        Some(csr) => requested(csr, duration),
        None => described(cert, duration),
    }
}

/// Returns the request of `spec.csr`, for the key that its requester keeps.
fn requested(csr: &str, duration: SignedDuration) -> Result<(LeafRequest, DesiredKey), Refused> {
    let csr = csr::read(csr, duration)
        .map_err(|error| refused(Reason::InvalidSpec, format!("spec.csr: {error}")))?;
    Ok((csr.request, DesiredKey::Requested { spki: csr.spki }))
}

fn invalid(problem: &Problem) -> Refused {
    refused(Reason::InvalidSpec, format!("spec.{problem}"))
}

/// Returns the request of the other fields.
fn described(
    cert: &ClientCertificate,
    duration: SignedDuration,
) -> Result<(LeafRequest, DesiredKey), Refused> {
    let spec = &cert.spec;
    let Subject {
        common_name,
        organizations,
        organizational_units,
        countries,
        localities,
        provinces,
    } = spec.subject.clone().unwrap_or_default();
    let request = LeafRequest {
        common_name,
        organizations,
        organizational_units,
        countries,
        localities,
        provinces,
        serial_number: None,
        dns_names: spec.dns_names.clone(),
        uris: spec.uris.clone(),
        email_addresses: spec.email_addresses.clone(),
        duration,
        not_after: None,
    };
    leaf::validate(&request).map_err(|problem| invalid(&problem))?;
    let PrivateKey {
        algorithm,
        size,
        encoding,
        rotation_policy,
    } = spec.private_key.clone().unwrap_or_default();
    let kind = key_kind(algorithm.unwrap_or_default(), size).ok_or_else(|| {
        refused(
            Reason::InvalidSpec,
            "spec.privateKey.size: write 256 or 384 for ECDSA; 2048, 3072 or 4096 for RSA".into(),
        )
    })?;
    let encoding = match encoding.unwrap_or_default() {
        KeyEncoding::PKCS8 => Encoding::Pkcs8,
        KeyEncoding::PKCS1 => Encoding::Pkcs1,
    };
    Ok((
        request,
        DesiredKey::Made {
            kind,
            encoding,
            keep: rotation_policy == Some(RotationPolicy::Never),
        },
    ))
}
