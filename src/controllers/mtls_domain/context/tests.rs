//! Tests of the current status, of the Events about transitions, and of the backoff.

use super::*;

use crate::{
    api::{MtlsDomainStatus, conditions::Reason},
    status::Transition,
};

#[test]
fn the_last_written_status_is_current_until_the_cache_shows_another() {
    let status = |generation| MtlsDomainStatus {
        observed_generation: Some(generation),
        ..MtlsDomainStatus::default()
    };
    let (before, written, other) = (status(1), status(2), status(3));
    for (state, shown, expected) in [
        (None, None, MtlsDomainStatus::default()),
        (None, Some(&before), before.clone()),
        (Some((written.clone(), None)), None, written.clone()),
        (
            Some((written.clone(), Some(before.clone()))),
            Some(&before),
            written.clone(),
        ),
        (
            Some((written.clone(), Some(before.clone()))),
            Some(&written),
            written.clone(),
        ),
        (
            Some((written.clone(), Some(before.clone()))),
            Some(&other),
            other.clone(),
        ),
        (Some((written.clone(), None)), Some(&other), other.clone()),
    ] {
        assert_eq!(current(state, shown), expected);
    }
}

#[test]
fn failures_and_recovery_get_events() {
    for (type_, status, reason, expected) in [
        ("Ready", "True", Reason::Ready, true),
        ("Ready", "False", Reason::PermissionDenied, true),
        ("Ready", "Unknown", Reason::PermissionDenied, false),
        ("BypassDetected", "True", Reason::OtherDomain, true),
        ("Stalled", "True", Reason::InvalidSpec, false),
        ("Accepted", "False", Reason::InvalidSpec, true),
        ("ResolvedRefs", "True", Reason::RefNotFound, false),
        ("DNSProgrammed", "False", Reason::Queued, false),
    ] {
        let (type_, status, reason) = (type_.to_owned(), status.to_owned(), reason.as_str().to_owned());
        let turned = Transition {
            type_,
            status,
            reason,
            message: "m".into(),
        };
        assert_eq!(event_of(&turned).is_some(), expected, "{turned:?}");
    }
}

#[test]
fn polls_of_aws_back_off_exponentially() {
    let waits = [1, 2, 3, 8, 9, 1000].map(|backoff_attempts| backoff_after(backoff_attempts).as_millis());
    assert_eq!(waits, [100, 200, 400, 12_800, 15_000, 15_000]);
}
