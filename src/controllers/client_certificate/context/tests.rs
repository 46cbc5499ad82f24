//! Tests of `context`.

use super::{LATE_WATCH, ReconcileState, is_own_write, retry_after};

use std::time::Instant;

use jiff::Timestamp;

#[test]
fn the_retry_delay_doubles_up_to_five_minutes() {
    let waits = [1, 2, 3, 10, 11, 1000].map(|failures| retry_after(failures).as_millis());
    assert_eq!(waits, [500, 1000, 2000, 256_000, 300_000, 300_000]);
}

#[test]
fn an_own_write_of_a_secret_is_no_change() {
    let [seven, eight] = ["7", "8"].map(str::to_owned);
    for (is_there, wrote, version, expected) in [
        (true, Some(&seven), Some(&seven), true),
        (true, Some(&seven), Some(&eight), false),
        (true, None, None, false),
        (true, None, Some(&seven), false),
        (false, Some(&seven), Some(&seven), false),
    ] {
        assert_eq!(is_own_write(is_there, wrote, version), expected);
    }
}

#[test]
fn a_reconcile_waits_for_its_own_last_write_for_a_limited_time() {
    let (now, [one, two]) = (Instant::now(), ["1", "2"].map(str::to_owned));
    let mut state = ReconcileState::default();
    assert!(!state.is_behind(Some(&one), now), "nothing was written");
    state.wrote_over = Some((Some(one.clone()), now));
    assert!(
        state.is_behind(Some(&one), now),
        "the cache still shows the previous version"
    );
    assert!(
        !state.is_behind(Some(&two), now) && state.wrote_over.is_none(),
        "the cache shows the write"
    );
    state.wrote_over = Some((Some(one.clone()), now));
    assert!(
        !state.is_behind(Some(&one), now + LATE_WATCH * 2),
        "a write without a change never arrives"
    );
}

#[test]
fn only_recent_writes_new_objects_and_failures_stay_in_the_state() {
    let now = Instant::now();
    let wrote = |at| ReconcileState {
        wrote_over: Some((None, at)),
        ..ReconcileState::default()
    };
    for (what, state, expected) in [
        ("nothing", ReconcileState::default(), false),
        ("a recent write", wrote(now), true),
        (
            "a failure",
            ReconcileState {
                failures: 1,
                ..ReconcileState::default()
            },
            true,
        ),
        (
            "a new object",
            ReconcileState {
                is_new: true,
                ..ReconcileState::default()
            },
            true,
        ),
        (
            "a write of its Secret",
            ReconcileState {
                wrote_secret: Some("7".into()),
                ..ReconcileState::default()
            },
            false,
        ),
    ] {
        assert_eq!(
            state.is_worth_keeping(now, Timestamp::UNIX_EPOCH),
            expected,
            "{what}"
        );
    }
    assert!(
        !wrote(now).is_worth_keeping(now + LATE_WATCH * 2, Timestamp::UNIX_EPOCH),
        "an old write"
    );
}
