//! Which certificates are to be looked at when, as far as that is far away: of thousands nearly all wait for
//! months. In memory only, since whoever begins to lead looks at all of them. The controller's own queue
//! keeps half a kilobyte of each that waits in it.
use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use jiff::{SignedDuration, Timestamp};

/// What is nearer waits in the controller's own queue, to the millisecond. To be well above the time between
/// two questions what is due.
const NEAR: SignedDuration = SignedDuration::from_secs(15);

/// By UID.
#[derive(Default)]
pub struct DueQueue(Mutex<HashMap<String, Timestamp>>);

impl DueQueue {
    /// Whether it is far enough away to be kept here; what was kept of the certificate before is forgotten in
    /// any case.
    pub fn put(&self, uid: &str, at: Timestamp, now: Timestamp) -> bool {
        let mut all = self.0.lock().expect("nobody panics while holding it");
        let is_far = at.duration_since(now) > NEAR;
        if is_far {
            all.insert(uid.to_owned(), at);
        } else {
            all.remove(uid);
        }
        is_far
    }

    /// One that is gone.
    pub fn remove(&self, uid: &str) {
        self.0.lock().expect("nobody panics while holding it").remove(uid);
    }

    /// What is due now, and is kept no longer.
    pub fn due(&self, now: Timestamp) -> HashSet<String> {
        let mut all = self.0.lock().expect("nobody panics while holding it");
        let mut due = HashSet::new();
        all.retain(|uid, at| *at > now || !due.insert(uid.clone()));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_away_is_due_once_and_in_its_time() {
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
            "looked at soon, and that look says when again"
        );
        later.remove("c");
        assert_eq!(later.due(day - SignedDuration::from_secs(1)), HashSet::new());
        assert_eq!(later.due(day), ["b".to_owned()].into());
        assert_eq!(later.due(day), HashSet::new());
        assert_eq!(later.due(Timestamp::MAX), ["a".to_owned()].into());
        assert!(later.0.lock().unwrap().is_empty());
    }
}
