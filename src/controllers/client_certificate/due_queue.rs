//! Queue of certificates whose next reconcile is far away: of thousands, nearly all wait for months. The
//! queue is in memory only, since a new leader reconciles all certificates. The controller's own queue needs
//! half a kilobyte for each certificate in it.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use jiff::{SignedDuration, Timestamp};

/// Limit below which a certificate waits in the controller's own queue, to the millisecond. The limit must be
/// well above the interval of calls of [`DueQueue::due`].
const NEAR: SignedDuration = SignedDuration::from_secs(15);

/// Time of the next reconcile by UID.
#[derive(Default)]
pub struct DueQueue(Mutex<HashMap<String, Timestamp>>);

impl DueQueue {
    /// Stores the time of the next reconcile when it is far enough away, and returns true then. Removes an
    /// earlier entry of the certificate in any case.
    pub fn put(&self, uid: &str, at: Timestamp, now: Timestamp) -> bool {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        let is_far = at.duration_since(now) > NEAR;
        if is_far {
            all.insert(uid.to_owned(), at);
        } else {
            all.remove(uid);
        }
        is_far
    }

    /// Removes a deleted certificate.
    pub fn remove(&self, uid: &str) {
        self.0.lock().expect("no holder of the lock panics").remove(uid);
    }

    /// Removes and returns the certificates that are due.
    pub fn due(&self, now: Timestamp) -> HashSet<String> {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        let mut due = HashSet::new();
        all.retain(|uid, at| *at > now || !due.insert(uid.clone()));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::HashSet;

    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn a_distant_reconcile_is_due_once_at_its_time() {
        let (later, now) = (DueQueue::default(), Timestamp::UNIX_EPOCH);
        let (month, day) = (
            now + SignedDuration::from_hours(24 * 30),
            now + SignedDuration::from_hours(24),
        );
        assert!(
            !later.put("near", now + NEAR, now),
            "the controller's own queue has it"
        );
        assert!(later.put("a", month, now) && later.put("b", day, now) && later.put("c", day, now));
        assert!(
            later.put("d", day, now) && !later.put("d", now, now),
            "the near reconcile replaces the distant one"
        );
        later.remove("c");
        assert_eq!(later.due(day - SignedDuration::from_secs(1)), HashSet::new());
        assert_eq!(later.due(day), ["b".to_owned()].into());
        assert_eq!(later.due(day), HashSet::new());
        assert_eq!(later.due(Timestamp::MAX), ["a".to_owned()].into());
        assert!(later.0.lock().unwrap().is_empty());
    }
}
