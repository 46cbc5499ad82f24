//! Refusals that another party has to lift, such as a service control policy, a lock or a quota. The operator
//! repeats the refused action after a pause and not in each reconcile. Pure.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fmt::{self, Write},
    hash::Hasher,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    aws::errors::Error,
    model::{action::Action, step::Step},
};

/// Pause after the first refusal. Doubles with each further refusal of the same action.
pub const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Last lasting refusal of each step.
pub type Refusals = BTreeMap<Step, Lasting>;

/// Lasting refusal of an action.
#[derive(Clone, Debug)]
pub struct Lasting {
    action: Fingerprint,
    pub error: Error,
    /// End of the pause.
    pub until: Instant,
    /// Number of refusals of this action.
    refusals: u32,
}

impl Lasting {
    /// Returns the refusal of an action at `now`. `before`: the step's previous refusal. `longest`: the
    /// maximum pause, at least [`FIRST_PAUSE`].
    pub fn new(
        action: Fingerprint,
        error: Error,
        before: Option<&Lasting>,
        longest: Duration,
        now: Instant,
    ) -> Lasting {
        let refusals = before.filter(|b| b.action == action).map_or(0, |b| b.refusals);
        let pause = FIRST_PAUSE
            .saturating_mul(1 << refusals.min(16))
            .min(longest.max(FIRST_PAUSE));
        Lasting {
            action,
            error,
            until: now + pause,
            refusals: refusals + 1,
        }
    }

    /// True while the operator leaves out this action.
    pub fn holds(&self, action: Fingerprint, now: Instant) -> bool {
        self.action == action && now < self.until
    }

    pub fn is_of(&self, action: Fingerprint) -> bool {
        self.action == action
    }
}

/// Hash of an action with all its values: an action with another value is another action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub fn of(action: &Action) -> Fingerprint {
        struct Digest(DefaultHasher);
        impl Write for Digest {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        let mut digest = Digest(DefaultHasher::new());
        write!(digest, "{action:?}").expect("a hasher takes all text");
        Fingerprint(digest.0.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::aws::{action::acm::AcmAction, errors::Kind};

    fn fingerprint(arn: &str) -> Fingerprint {
        Fingerprint::of(&AcmAction::DeleteCertificate { arn: arn.into() }.into())
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest_and_starts_again_with_another_action() {
        let now = Instant::now();
        let error = || Error::ours(Kind::Quota, "acm:RequestCertificate", "m");
        let (one, two) = (fingerprint("1"), fingerprint("2"));
        let mut last: Option<Lasting> = None;
        for (action, longest, expected) in [
            (one, 300, 60),
            (one, 300, 120),
            (one, 300, 240),
            (one, 300, 300),
            (one, 300, 300),
            (two, 300, 60),
            (one, 1, 60),
            (one, 1, 60),
        ] {
            let next = Lasting::new(action, error(), last.as_ref(), Duration::from_secs(longest), now);
            assert_eq!(next.until - now, Duration::from_secs(expected));
            last = Some(next);
        }
    }

    #[test]
    fn only_the_same_action_is_left_out_and_only_until_the_end() {
        let now = Instant::now();
        let error = Error::ours(Kind::Quota, "acm:RequestCertificate", "m");
        let lasting = Lasting::new(fingerprint("1"), error, None, FIRST_PAUSE, now);
        assert!(lasting.holds(fingerprint("1"), now));
        assert!(lasting.holds(fingerprint("1"), now + FIRST_PAUSE - Duration::from_millis(1)));
        assert!(!lasting.holds(fingerprint("1"), now + FIRST_PAUSE));
        assert!(!lasting.holds(fingerprint("2"), now));
    }
}
