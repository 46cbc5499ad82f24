//! Pace of the certificates of one object: when the operator may issue the next one, and when it has to wait.
//! Each certificate is accepted until it expires, so that an object that causes certificates without end also
//! causes callers without end. Pure: plain data and a time in, a wait out.

pub mod record;

use jiff::{SignedDuration, Timestamp};

use self::record::{Cause, MOST_AFTER_LOSS, MOST_ASKED, MOST_SUPERSEDED, YOUNG};

use super::{desired::Desired, observed::Observed};

use crate::{
    api::conditions::Reason,
    pki::{
        authority::later,
        certificate::Certificate,
        inspect::{self, Violation},
        keys::DesiredKey,
    },
    status::conditions::in_seconds,
};

/// Returns the occasion of the certificate that the violation requires. `leaf`: certificate in the Secret.
pub fn cause(
    d: &Desired,
    o: &Observed,
    violation: &Violation,
    leaf: Option<&Certificate>,
    now: Timestamp,
) -> Cause {
    use inspect::Reason::*;
    let is_overwritten = o.secret.as_ref().is_some_and(|held| !held.writers.is_empty());
    let is_accepted = leaf.is_none_or(|leaf| o.trust.as_ref().is_none_or(|trust| trust.accepts(leaf)));
    let cause = match violation.reason {
        SecretMissing if o.past.last_revision == 0 => Cause::Needed,
        SecretMissing | DataMissing | Damaged | FormDiffers => Cause::Correction,
        KeyMismatch if matches!(d.key, DesiredKey::Made { .. }) => Cause::Correction,
        _ if is_overwritten => Cause::Correction,
        Expired => Cause::Needed,
        RenewalDue => Cause::Due,
        _ if !is_accepted => Cause::Needed,
        KeyMismatch | KeyDiffers | SubjectDiffers | DurationDiffers | IssuerDiffers | ChainDiffers
        | RenewalAsked => Cause::Asked,
    };
    // Another writer can make a Secret look like that.
    let is_young = o.past.pace.last.is_some_and(|last| now < last + YOUNG);
    match cause {
        Cause::Needed if is_young => Cause::Correction,
        cause => cause,
    }
}

/// Wait before the next certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Reason of the condition; `None` while the wait is too short for a report of its own.
    pub reason: Option<Reason>,
    pub message: String,
    pub until: Timestamp,
}

/// Returns the wait before the certificate that the violation requires; `None`: the operator issues it now.
/// `cause`: its occasion.
pub fn wait(d: &Desired, o: &Observed, violation: &Violation, cause: Cause, now: Timestamp) -> Option<Wait> {
    if let Some(wait) = too_many(&o.past.superseded, cause, now) {
        return Some(wait);
    }
    let until = o.past.pace.not_before(cause, d.request.duration, now)?;
    let (reason, message) = match cause {
        Cause::Needed | Cause::Due => (
            None,
            format!("the operator issues it at {}", in_seconds(later_second(until)).0),
        ),
        Cause::Asked => (
            Some(Reason::TooManyCertificates),
            format!(
                "the operator issued {MOST_ASKED} certificates within an hour because the annotation \
                 mtls-operator.io/renew, the spec or the authority changed; it issues the next one at {}",
                in_seconds(later_second(until)).0
            ),
        ),
        Cause::Correction => contested(d, o, violation, until, now),
    };
    Some(Wait {
        reason,
        message,
        until,
    })
}

/// Returns the wait of an object with too many superseded certificates that have not expired.
fn too_many(superseded: &[Timestamp], cause: Cause, now: Timestamp) -> Option<Wait> {
    let most = match cause {
        Cause::Due | Cause::Asked => MOST_SUPERSEDED,
        Cause::Needed | Cause::Correction => MOST_AFTER_LOSS,
    };
    let mut ends: Vec<_> = superseded.iter().filter(|end| now < **end).copied().collect();
    ends.sort();
    let until = *ends.get(ends.len().checked_sub(most + 1)?)?;
    Some(Wait {
        reason: Some(Reason::TooManyCertificates),
        message: format!(
            "{most} certificates of this object that were superseded have not expired, and the operator \
             issues no further one before {}: until then use the certificate in the Secret, or create \
             another ClientCertificate",
            in_seconds(later_second(until)).0
        ),
        until,
    })
}

/// Returns reason and message while a correction waits.
fn contested(
    d: &Desired,
    o: &Observed,
    violation: &Violation,
    until: Timestamp,
    now: Timestamp,
) -> (Option<Reason>, String) {
    match postponed(d, o, until, now) {
        Some(wait) => (wait.reason, wait.message),
        None => {
            let until = in_seconds(later_second(until)).0;
            let message = format!("{}; the operator corrects it at {until}", violation.message);
            (None, message)
        }
    }
}

/// Returns the wait of a correction until a time, once the conditions report the other writer.
pub fn postponed(d: &Desired, o: &Observed, until: Timestamp, now: Timestamp) -> Option<Wait> {
    let latest = o.past.pace.contested_until(now)?;
    let who = match o.secret.as_ref().map(|held| &held.writers[..]) {
        None | Some([]) => String::new(),
        Some(writers) => format!(" (managedFields: {})", writers.join(", ")),
    };
    Some(Wait {
        reason: Some(Reason::ContestedByOther),
        message: format!(
            "another writer{who} keeps changing or deleting the Secret {}: the operator corrects it once no \
             other writer has changed it for a minute, at the latest at {}",
            d.secret_name,
            in_seconds(later_second(latest)).0
        ),
        until,
    })
}

/// Returns the time in whole seconds that is not before `at`.
fn later_second(at: Timestamp) -> Timestamp {
    later(at, SignedDuration::from_nanos(999_999_999))
}

#[cfg(test)]
mod tests;
