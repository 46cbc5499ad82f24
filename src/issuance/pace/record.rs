//! Record of one object's certificates and corrections, and the times before which the next one waits. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::pki::inspect::least_interval;

/// Maximum number of certificates within [`WINDOW`] that the annotation `mtls-operator.io/renew` and changes
/// of the spec or of the authority cause.
pub const MOST_ASKED: usize = 5;
pub(super) const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// Maximum number of superseded certificates that have not expired.
pub const MOST_SUPERSEDED: usize = 20;
/// Maximum number of superseded certificates when callers have no usable certificate: a lost Secret is no
/// outage of weeks.
pub const MOST_AFTER_LOSS: usize = 40;
/// Delay of the second correction of a Secret. Each further correction doubles the delay, up to
/// [`LAST_DELAY`].
pub(super) const FIRST_DELAY: SignedDuration = SignedDuration::from_secs(1);
pub(super) const LAST_DELAY: SignedDuration = SignedDuration::from_mins(10);
/// Time without a write by another writer after which the operator corrects the Secret before the delay ends.
pub(super) const QUIET: SignedDuration = SignedDuration::from_secs(60);
/// Time without a correction and without a write by another writer after which a correction is the first one
/// again.
pub(super) const CALM: SignedDuration = SignedDuration::from_mins(30);
/// Number of corrections after which the conditions report the other writer.
pub(super) const CONTESTED: u32 = 3;
/// Time after a certificate in which a valid reason cannot make the next one necessary.
pub(super) const YOUNG: SignedDuration = SignedDuration::from_mins(5);

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
    pub(super) asked: Vec<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// Generation for which the operator completed the Secret last, and the time.
    pub(super) completed: Option<(i64, Timestamp)>,
    pub(super) contest: Option<Contest>,
}

/// Corrections of a Secret that another writer also changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contest {
    pub(super) corrections: u32,
    pub(super) last: Timestamp,
    /// Time of the last write by another writer.
    pub(super) written: Timestamp,
    /// Version of the Secret that the operator saw last.
    pub(super) seen: Option<String>,
}

impl Contest {
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now >= self.written.max(self.last) + CALM
    }

    pub(super) fn delay(&self) -> SignedDuration {
        let doublings = self.corrections.saturating_sub(1).min(16);
        (FIRST_DELAY * (1 << doublings)).min(LAST_DELAY)
    }
}

impl Pace {
    /// Records the version of the Secret before a reconcile; `own` is the version that the operator wrote
    /// last.
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
