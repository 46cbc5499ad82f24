//! Says how a `ClientCertificate` stands: lines and leaf in, status out. Pure.
use jiff::Timestamp;

use crate::{
    api::ClientCertificateStatus,
    conditions::{self, Acceptance, Line},
    pki::certificate::Certificate,
};

/// What is known of the leaf in the Secret.
pub struct Leaf<'a> {
    pub certificate: &'a Certificate,
    pub renewal: Timestamp,
    pub revision: i64,
}

pub fn report(
    old: &ClientCertificateStatus,
    generation: i64,
    acceptance: &Acceptance,
    lines: &[Line],
    leaf: Option<Leaf>,
    now: Timestamp,
) -> ClientCertificateStatus {
    let mut new = ClientCertificateStatus {
        observed_generation: Some(generation),
        conditions: conditions::write(&old.conditions, generation, acceptance, lines, now),
        ..old.clone()
    };
    if let Some(Leaf { certificate, renewal, revision }) = leaf {
        new.serial_number = Some(certificate.serial.clone());
        new.fingerprint_sha256 = Some(certificate.fingerprint_sha256.clone());
        new.issuer = Some(certificate.issuer.clone());
        new.not_before = Some(conditions::in_seconds(certificate.not_before));
        new.not_after = Some(conditions::in_seconds(certificate.not_after));
        new.renewal_time = Some(conditions::in_seconds(renewal));
        new.revision = Some(revision);
    }
    new
}
