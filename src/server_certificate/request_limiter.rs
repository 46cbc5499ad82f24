//! Limit of the certificate requests for one object. Failed certificates stay in ACM, where they slow the
//! plan down. But certificates that a user deletes, and a spec that changes back and forth, leave nothing in
//! ACM, and AWS counts each request for a year. The limiter keeps its state in memory only: it bounds this
//! process, and decides nothing else.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::api::object_id::ObjectId;

/// Maximum number of certificates for one object in a day: below the 5,000 a year that AWS allows an account
/// (ACM User Guide, "Quotas"), and low because new accounts are reported to have 20 a year.
pub const A_DAY: usize = 5;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Time and ARN of the recent certificate requests, by object.
#[derive(Debug, Default)]
pub struct RequestLimiter(Mutex<HashMap<ObjectId, Vec<(Timestamp, String)>>>);

impl RequestLimiter {
    /// Returns the delay until another certificate may be requested; `None`: now.
    pub fn wait(&self, object: &ObjectId, now: Timestamp) -> Option<Duration> {
        self.of(object, now, |made| {
            let last = made.len().checked_sub(A_DAY)?;
            Duration::try_from((made[last].0 + DAY).duration_since(now)).ok()
        })
    }

    /// Records the ARN that a request returned. Returns false when that certificate was requested before,
    /// because ACM does not list it yet.
    pub fn note(&self, object: &ObjectId, arn: &str, now: Timestamp) -> bool {
        self.of(object, now, |made| {
            let is_new = made.iter().all(|(_, known)| known != arn);
            if is_new {
                made.push((now, arn.to_owned()));
            }
            is_new
        })
    }

    fn of<T>(
        &self,
        object: &ObjectId,
        now: Timestamp,
        update: impl FnOnce(&mut Vec<(Timestamp, String)>) -> T,
    ) -> T {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        for made in all.values_mut() {
            made.retain(|(at, _)| now < *at + DAY);
        }
        all.retain(|name, made| name == object || !made.is_empty());
        update(all.entry(object.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn at_most_five_certificates_a_day_are_requested() {
        let a = ObjectId::new("ns", "a");
        let (request_limiter, start) = (
            RequestLimiter::default(),
            Timestamp::from_second(1_800_000_000).unwrap(),
        );
        let (mut granted, mut year) = (vec![], 0);
        for minute in (0..366 * 24 * 60).step_by(10) {
            let now = start + SignedDuration::from_mins(minute);
            if request_limiter.wait(&a, now).is_none() {
                assert!(request_limiter.note(&a, &minute.to_string(), now));
                granted.push(now);
                year += usize::from(minute < 365 * 24 * 60);
            }
        }
        assert!(
            granted
                .windows(A_DAY + 1)
                .all(|w| w[A_DAY].duration_since(w[0]) >= DAY)
        );
        assert!((1700..1900).contains(&year), "{year}");
    }

    #[test]
    fn a_repeated_request_does_not_count_and_objects_do_not_share_the_limit() {
        let (a, b) = (ObjectId::new("ns", "a"), ObjectId::new("ns", "b"));
        let (request_limiter, now) = (
            RequestLimiter::default(),
            Timestamp::from_second(1_800_000_000).unwrap(),
        );
        for n in 0..A_DAY {
            assert!(request_limiter.note(&a, &n.to_string(), now));
            assert!(!request_limiter.note(&a, &n.to_string(), now + SignedDuration::from_secs(1)));
        }
        let hour = SignedDuration::from_hours(1);
        assert_eq!(
            request_limiter.wait(&a, now + hour),
            Some(Duration::from_secs(23 * 3600))
        );
        assert_eq!(request_limiter.wait(&b, now), None);
        assert_eq!(request_limiter.wait(&a, now + DAY), None);
    }
}
