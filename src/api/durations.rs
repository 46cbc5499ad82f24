//! Durations of specs, and the default lifetime of a leaf.

use std::time::Duration as StdDuration;

use jiff::SignedDuration;

use crate::api::Duration;

/// Lifetime of a leaf whose ClientCertificate specifies none, and the minimum that an authority's entry
/// allows for.
pub const DEFAULT_LEAF: SignedDuration = SignedDuration::from_hours(2160);

/// Converts a spec's duration to the operator's internal type.
pub fn length(duration: &Duration) -> SignedDuration {
    let duration = StdDuration::from(*duration);
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
