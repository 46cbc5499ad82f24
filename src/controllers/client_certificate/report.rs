//! Status of a `ClientCertificate`: step conditions and leaf in, status out. Pure.

use jiff::Timestamp;

use crate::{
    api::{ClientCertificate, ClientCertificateStatus, Issuance, PreviousLeaf, conditions::ConditionType},
    pki::certificate::Certificate,
    status::{Acceptance, StepCondition, conditions, text},
};

/// Leaf in the Secret with its metadata.
pub struct Leaf<'a> {
    pub certificate: &'a Certificate,
    pub renewal: Timestamp,
    pub revision: i64,
    /// Name of the Secret.
    pub secret: &'a str,
}

pub fn report(
    old: &ClientCertificateStatus,
    generation: i64,
    acceptance: &Acceptance,
    step_conditions: &[StepCondition],
    leaf: Option<Leaf>,
    now: Timestamp,
) -> ClientCertificateStatus {
    let mut new = ClientCertificateStatus {
        observed_generation: Some(generation),
        conditions: conditions::write(&old.conditions, generation, acceptance, step_conditions, now),
        ..old.clone()
    };
    if let Some(Leaf {
        certificate,
        renewal,
        revision,
        secret,
    }) = leaf
    {
        new.previous = previous(old, certificate, now);
        new.serial_number = Some(text::shown(&certificate.serial_text()));
        new.issuer_key_id = certificate.authority_key_id.as_deref().map(text::shown);
        new.fingerprint_sha256 = Some(certificate.fingerprint_sha256.clone());
        new.issuer = Some(text::shown(&certificate.issuer));
        new.not_before = Some(conditions::in_seconds(certificate.not_before));
        new.not_after = Some(conditions::in_seconds(certificate.not_after));
        new.renewal_time = Some(conditions::in_seconds(renewal));
        new.revision = Some(revision);
        // Only with another change: an upgrade does not write the status of thousands of certificates for
        // this field.
        if new != *old {
            new.secret_name = Some(secret.to_owned());
        }
    }
    new
}

/// Returns the superseded leaves that have not expired, with the leaf of the last written status.
fn previous(old: &ClientCertificateStatus, current: &Certificate, now: Timestamp) -> Vec<PreviousLeaf> {
    let mut all = old.previous.clone();
    if let (Some(serial_number), Some(not_after)) = (&old.serial_number, &old.not_after) {
        let issuer_key_id = old.issuer_key_id.clone().unwrap_or_default();
        all.push(PreviousLeaf {
            issuer_key_id,
            serial_number: serial_number.clone(),
            not_after: not_after.clone(),
        });
    }
    let (serial_number, issuer_key_id) = (
        text::shown(&current.serial_text()),
        current
            .authority_key_id
            .as_deref()
            .map(text::shown)
            .unwrap_or_default(),
    );
    let is_current =
        |leaf: &PreviousLeaf| leaf.serial_number == serial_number && leaf.issuer_key_id == issuer_key_id;
    all.retain(|leaf| now < leaf.not_after.0 && !is_current(leaf));
    all
}

/// Returns the ends of the leaves in the status: of those that are superseded, and of the current one.
pub fn superseded(status: &ClientCertificateStatus) -> Vec<Timestamp> {
    let previous = status.previous.iter().map(|leaf| &leaf.not_after);
    previous.chain(&status.not_after).map(|end| end.0).collect()
}

/// Returns the note about a leaf that replaced another leaf; `None` for the first leaf.
pub fn after_renewal(old: &ClientCertificateStatus, leaf: &Certificate) -> Option<String> {
    let before = old.serial_number.as_ref()?;
    let (serial, end) = (
        text::shown(&leaf.serial_text()),
        conditions::in_seconds(leaf.not_after).0,
    );
    (*before != serial)
        .then(|| format!("the Secret holds a new certificate with serial number {serial}, valid until {end}"))
}

/// True when the condition Issued contains the message already.
pub fn issued_says(status: &ClientCertificateStatus, message: &str) -> bool {
    let issued = status
        .conditions
        .iter()
        .find(|c| c.type_ == ConditionType::Issued.as_str());
    issued.is_some_and(|c| c.message.contains(message))
}

/// Returns the note about a deleted object; `None` when none of its certificates is valid any more.
pub fn after_deletion(cert: &ClientCertificate, now: Timestamp) -> Option<String> {
    let status = cert.status.as_ref()?;
    let alive = |end: &Timestamp| now < *end;
    let current = status.not_after.as_ref().map(|t| t.0).filter(alive)?;
    let serial = status.serial_number.as_deref().unwrap_or("unknown");
    let earlier: Vec<_> = status
        .previous
        .iter()
        .map(|leaf| leaf.not_after.0)
        .filter(alive)
        .collect();
    let and_earlier = match earlier.iter().max() {
        None => String::new(),
        Some(last) => format!(", and {} that it superseded until {last}", earlier.len()),
    };
    if cert.spec.issuance == Issuance::SelfSigned {
        return Some(format!(
            "the operator removes the certificate with serial number {serial} and its predecessors from the \
             truststore now; the domain accepts them until the new truststore is in use"
        ));
    }
    Some(format!(
        "deletion does not revoke: the domain accepts every copy of the certificate with serial number \
         {serial} until {current}{and_earlier}, unless its authority is Distrusted before"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::Timestamp;

    use crate::{
        api::ClientCertificateStatus,
        pki::{
            authority::tests::{at, issuer},
            keys::KeyKind,
            leaf::{
                self,
                tests::{request, spki},
            },
        },
        status::Acceptance,
    };

    #[test]
    fn superseded_leaves_are_listed_until_they_expire() {
        let day = jiff::SignedDuration::from_hours(24);
        let born = at("2026-11-24T12:00:00Z");
        let issuer = issuer("Partners", born);
        let write = |old: &ClientCertificateStatus, revision: i64, now: Timestamp| {
            let leaf = leaf::issue(&request("client1"), &spki(KeyKind::EcdsaP256), &issuer, now)
                .unwrap()
                .certificate;
            let shown = Leaf {
                certificate: &leaf,
                renewal: leaf.not_after,
                revision,
                secret: "client1-mtls",
            };
            report(old, 1, &Acceptance::Accepted, &[], Some(shown), now)
        };
        let first = write(&ClientCertificateStatus::default(), 1, born);
        assert!(first.previous.is_empty());
        let leaf = leaf::issue(&request("client1"), &spki(KeyKind::EcdsaP256), &issuer, born)
            .unwrap()
            .certificate;
        assert_eq!(
            after_renewal(&ClientCertificateStatus::default(), &leaf),
            None,
            "the first leaf"
        );
        let told = after_renewal(&first, &leaf).unwrap();
        assert!(
            told.contains(&leaf.serial_text()) && told.contains(&leaf.not_after.to_string()),
            "{told}"
        );
        let second = write(&first, 2, born + day * 60);
        let serials = |s: &ClientCertificateStatus| {
            s.previous
                .iter()
                .map(|p| Some(p.serial_number.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(serials(&second), std::slice::from_ref(&first.serial_number));
        assert_eq!(
            Some(&second.previous[0].issuer_key_id),
            first.issuer_key_id.as_ref()
        );
        let third = write(&second, 3, born + day * 61);
        assert_eq!(
            serials(&third),
            [first.serial_number.clone(), second.serial_number.clone()]
        );
        let fourth = write(&third, 4, born + day * 90);
        assert_eq!(
            serials(&fourth),
            [second.serial_number, third.serial_number.clone()],
            "the first leaf has expired"
        );
    }

    #[test]
    fn the_same_leaf_again_changes_nothing() {
        let now = at("2026-11-24T12:00:00Z");
        let issuer = issuer("Partners", now);
        let leaf = leaf::issue(&request("client1"), &spki(KeyKind::EcdsaP256), &issuer, now)
            .unwrap()
            .certificate;
        let write = |old: &ClientCertificateStatus| {
            let shown = Leaf {
                certificate: &leaf,
                renewal: leaf.not_after,
                revision: 1,
                secret: "client1-mtls",
            };
            report(old, 1, &Acceptance::Accepted, &[], Some(shown), now)
        };
        let once = write(&ClientCertificateStatus::default());
        assert_eq!(write(&once), once);
        assert_eq!(once.secret_name.as_deref(), Some("client1-mtls"));
        let before = ClientCertificateStatus {
            secret_name: None,
            ..once.clone()
        };
        assert_eq!(write(&before), before, "an upgrade writes no status");
        let changed = ClientCertificateStatus {
            observed_generation: Some(0),
            ..before
        };
        assert_eq!(write(&changed), once, "except with another change of the status");
    }
}
