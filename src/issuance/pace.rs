//! Pace of the certificates of one object: when the operator may issue the next one, and when it has to wait.
//! Each certificate is accepted until it expires, so that an object that causes certificates without end also
//! causes callers without end. Pure: plain data and a time in, a wait out.

use jiff::{SignedDuration, Timestamp};

use super::{desired::Desired, observed::Observed};

use crate::{
    api::conditions::Reason,
    pki::{
        authority::later,
        certificate::Certificate,
        inspect::{self, Violation, least_interval},
        keys::DesiredKey,
    },
    status::conditions::in_seconds,
};

/// Maximum number of certificates within [`WINDOW`] that the annotation `mtls-operator.io/renew` and changes of
/// the spec or of the authority cause.
pub const MOST_ASKED: usize = 5;
const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of superseded certificates that have not expired.
pub const MOST_SUPERSEDED: usize = 20;
/// Maximum number of superseded certificates when callers have no usable certificate: a lost Secret is no
/// outage of weeks.
pub const MOST_AFTER_LOSS: usize = 40;
/// Delay of the second correction of a Secret. Each further correction doubles the delay, up to [`LAST_DELAY`].
const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(1);
const LAST_DELAY: SignedDuration = SignedDuration::from_mins(10);
/// Time without a write by another writer after which the operator corrects the Secret before the delay ends.
const QUIET: SignedDuration = SignedDuration::from_secs(60);
/// Time without a correction and without a write by another writer after which a correction is the first one
/// again.
const CALM: SignedDuration = SignedDuration::from_mins(30);
/// Number of corrections after which the conditions report the other writer.
const CONTESTED: u32 = 3;
/// Time after a certificate in which a valid reason cannot make the next one necessary.
const YOUNG: SignedDuration = SignedDuration::from_mins(5);

/// Occasion of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Callers have no certificate yet, or none that the domain accepts.
    Needed,
    /// The certificate is due for renewal.
    Due,
    /// The annotation, the spec or the authority asks for another certificate.
    Asked,
    /// Another writer changed or deleted the Secret.
    Correction,
}

/// Record of the last certificates of one object. In memory only: after a restart the operator issues sooner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Times of the certificates with [`Cause::Asked`] within [`WINDOW`].
    asked: Vec<Timestamp>,
    last: Option<Timestamp>,
    /// Generation for which the operator completed the Secret last, and the time.
    completed: Option<(i64, Timestamp)>,
    contest: Option<Contest>,
}

/// Corrections of a Secret that another writer also changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contest {
    corrections: u32,
    last: Timestamp,
    /// Time of the last write by another writer.
    written: Timestamp,
    /// Version of the Secret that the operator saw last.
    seen: Option<String>,
}

impl Contest {
    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.written.max(self.last) + CALM
    }

    fn delay(&self) -> SignedDuration {
        let doublings = self.corrections.saturating_sub(1).min(16);
        (FIRST_DELAY * (1 << doublings)).min(LAST_DELAY)
    }
}

impl Pace {
    /// Records the version of the Secret before a reconcile; `own` is the version that the operator wrote last.
    pub fn saw(&mut self, version: Option<&String>, own: Option<&String>, now: Timestamp) {
        if let Some(contest) = self.contest.as_mut().filter(|c| c.seen.as_ref() != version) {
            contest.seen = version.cloned();
            if version.is_none() || version != own {
                contest.written = now;
            }
        }
    }

    /// Records a certificate.
    pub fn issued(&mut self, cause: Cause, now: Timestamp) {
        self.last = Some(now);
        match cause {
            Cause::Needed | Cause::Due => {}
            Cause::Asked => {
                self.asked.retain(|at| now < *at + WINDOW);
                self.asked.push(now);
            }
            Cause::Correction => self.corrected(now),
        }
    }

    /// Records a correction of the Secret.
    pub fn corrected(&mut self, now: Timestamp) {
        let before = self.contest.take().filter(|contest| !contest.is_over(now));
        self.contest = Some(Contest {
            corrections: before.as_ref().map_or(0, |c| c.corrections).saturating_add(1),
            last: now,
            written: now,
            seen: before.and_then(|c| c.seen),
        });
    }

    /// Records that the operator completed the Secret: its labels, annotations or keystore. With the same
    /// `generation` as the last time, another writer must have changed them.
    pub fn completed(&mut self, generation: i64, now: Timestamp) {
        let last = self.completed.replace((generation, now));
        if last.is_some_and(|(of, at)| of == generation && now < at + CALM) {
            self.corrected(now);
        }
    }

    /// Returns the time before which the operator issues no certificate for the cause; `None`: it may now.
    /// `life`: lifetime of the certificates.
    pub fn not_before(&self, cause: Cause, life: SignedDuration, now: Timestamp) -> Option<Timestamp> {
        let at = match cause {
            Cause::Needed => None,
            Cause::Due => self.last.map(|last| last + least_interval(life).min(WINDOW)),
            Cause::Asked => {
                let lately = self.asked.iter().filter(|at| now < **at + WINDOW);
                let oldest = lately.clone().min().map(|at| *at + WINDOW);
                oldest.filter(|_| lately.count() >= MOST_ASKED)
            }
            Cause::Correction => self.next_correction(now),
        };
        at.filter(|at| now < *at)
    }

    /// Returns the time before which the operator does not correct the Secret; `None`: it may now.
    pub fn next_correction(&self, now: Timestamp) -> Option<Timestamp> {
        let contest = self.contest.as_ref().filter(|contest| !contest.is_over(now))?;
        let at = (contest.last + contest.delay()).min(contest.written + QUIET);
        Some(at).filter(|at| now < *at)
    }

    /// Returns the end of the current delay while the conditions report another writer.
    pub fn contested_until(&self, now: Timestamp) -> Option<Timestamp> {
        let contest = self.contest.as_ref().filter(|contest| !contest.is_over(now))?;
        (contest.corrections >= CONTESTED).then(|| contest.last + contest.delay())
    }

    /// True while a record can still delay a certificate.
    pub fn is_worth_keeping(&self, now: Timestamp) -> bool {
        let is_recent = |at: &Timestamp| now < *at + WINDOW;
        let completed = self.completed.as_ref().map(|(_, at)| at);
        self.last.as_ref().is_some_and(is_recent)
            || completed.is_some_and(is_recent)
            || self.asked.iter().any(is_recent)
            || self.contest.as_ref().is_some_and(|contest| !contest.is_over(now))
    }
}

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
            "{most} certificates of this object that were superseded have not expired, and the operator issues \
             no further one before {}: until then use the certificate in the Secret, or create another \
             ClientCertificate",
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
