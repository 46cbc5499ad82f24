//! Maximum ages of cached reads. Pure.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Maximum age of cached reads. Account-wide lists have the shortest interval. Whatever changes least and
/// concerns callers least has the longest.
#[derive(Clone, Copy, Debug)]
pub struct RefreshIntervals {
    /// Interval for custom domains, APIs and certificates, from the lists of the account and Region. Also the
    /// time between two reconciles of an object in sync.
    pub short: Duration,
    /// Interval for mappings, records and hosted zones, and for the answer of the default endpoint.
    pub medium: Duration,
    /// Interval for truststore and bucket, stages, integrations and authorizers, and for tags and validation
    /// of certificates.
    pub long: Duration,
}

/// Minimum of every interval.
const LEAST: Duration = Duration::from_secs(1);

impl RefreshIntervals {
    /// Returns the intervals for a full resync within `interval`.
    pub fn within(interval: Duration) -> Self {
        RefreshIntervals {
            short: (interval / 15).max(LEAST),
            medium: (interval / 3).max(LEAST),
            long: interval,
        }
    }

    /// Returns the intervals of one object: up to a fifth shorter, so that not all objects are due at once.
    pub fn of(self, object: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        let share = 0.8 + 0.2 * (hasher.finish() % 1000) as f64 / 1000.0;
        let [short, medium, long] =
            [self.short, self.medium, self.long].map(|interval| interval.mul_f64(share));
        RefreshIntervals { short, medium, long }
    }
}
