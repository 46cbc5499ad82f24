//! Tests of `conditions`.

use super::*;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::conditions::{ConditionType, Reason},
    status::{
        Acceptance, StepCondition, StepStatus,
        text::{self, cut},
    },
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn step_condition(type_: ConditionType, status: StepStatus) -> StepCondition {
    StepCondition {
        type_,
        status,
        reason: Reason::Progressing,
        message: "m".into(),
    }
}

fn shown(conditions: &[Condition], type_: ConditionType) -> Option<String> {
    conditions
        .iter()
        .find(|c| c.type_ == type_.as_str())
        .map(|c| c.status.clone())
}

/// Ready, Reconciling, Stalled.
fn summary(conditions: &[Condition]) -> [Option<String>; 3] {
    [
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
    ]
    .map(|t| shown(conditions, t))
}

fn is(ready: &str, reconciling: bool, stalled: bool) -> [Option<String>; 3] {
    let present = |there: bool| there.then(|| "True".to_owned());
    [Some(ready.into()), present(reconciling), present(stalled)]
}

#[test]
fn the_situation_table() {
    use StepStatus::*;
    let go = |old: &[Condition], generation, status, now| {
        write(
            old,
            generation,
            &Acceptance::Accepted,
            &[
                step_condition(ConditionType::ResolvedRefs, Done),
                step_condition(ConditionType::Trusted, status),
            ],
            at(now),
        )
    };
    let first = go(&[], 1, Working, 0);
    assert_eq!(summary(&first), is("Unknown", true, false), "first reconcile");
    let served = go(&first, 1, Done, 10);
    assert_eq!(summary(&served), is("True", false, false));
    let drift = go(&served, 1, Working, 20);
    assert_eq!(
        summary(&drift),
        is("True", false, false),
        "repair of a served generation"
    );
    assert_eq!(
        summary(&go(&drift, 1, Working, 20 + 121)),
        is("True", true, false),
        "repair past two minutes"
    );
    assert_eq!(
        summary(&go(&served, 2, Working, 20)),
        is("Unknown", true, false),
        "a new generation"
    );
    let blind = go(&served, 1, Unreachable, 30);
    assert_eq!(summary(&blind), is("True", false, false), "out of reach");
    assert_eq!(
        summary(&go(&blind, 1, Unreachable, 30 + 121)),
        is("True", true, false)
    );
    assert_eq!(
        summary(&go(&blind, 1, Unreachable, 30 + 601)),
        is("Unknown", true, false)
    );
    assert_eq!(
        summary(&go(&[], 1, Unreachable, 0)),
        is("Unknown", true, false),
        "out of reach at the first reconcile"
    );
    let blocked = go(&served, 1, Blocked, 40);
    assert_eq!(summary(&blocked), is("False", false, false));
    assert_eq!(
        summary(&go(&blocked, 1, Unreachable, 50)),
        is("False", false, false),
        "as it was"
    );
    assert_eq!(summary(&go(&served, 1, Waived, 40)), is("True", false, false));
    let refused = |stalled| Acceptance::Refused {
        reason: Reason::InvalidSpec,
        message: "m".into(),
        stalled,
    };
    assert_eq!(
        summary(&write(&served, 2, &refused(true), &[], at(50))),
        is("False", false, true)
    );
    assert_eq!(
        summary(&write(&served, 2, &refused(false), &[], at(50))),
        is("False", false, false)
    );
    let unclear = |status| Acceptance::Unclear(step_condition(ConditionType::Accepted, status));
    let not_seen = write(&served, 1, &unclear(Unreachable), &[], at(50));
    assert_eq!(
        (summary(&not_seen), shown(&not_seen, ConditionType::Accepted)),
        (is("True", false, false), Some("Unknown".into()))
    );
    assert_eq!(
        shown(&not_seen, ConditionType::Trusted).as_deref(),
        Some("True"),
        "the steps are left alone"
    );
    assert_eq!(write(&not_seen, 1, &unclear(Unreachable), &[], at(60)), not_seen);
    assert_eq!(
        summary(&write(&served, 1, &unclear(Blocked), &[], at(50))),
        is("False", false, false)
    );
    assert_eq!(
        summary(&write(&[], 1, &unclear(Unreachable), &[], at(50))),
        is("Unknown", true, false)
    );
    let suspended = write(&drift, 2, &Acceptance::Suspended, &[], at(50));
    assert_eq!(
        summary(&suspended),
        is("True", false, false),
        "suspended: as it was"
    );
    assert_eq!(suspended[0].reason, "Suspended");
}

fn ready(conditions: &[Condition]) -> &Condition {
    conditions.iter().find(|c| c.type_ == "Ready").unwrap()
}

#[test]
fn ready_says_that_it_shows_the_last_state_seen() {
    let go = |old: &[Condition], status, now| {
        write(
            old,
            1,
            &Acceptance::Accepted,
            &[step_condition(ConditionType::Trusted, status)],
            at(now),
        )
    };
    let served = go(&[], StepStatus::Done, 0);
    let blind = go(&served, StepStatus::Unreachable, 10);
    assert_eq!(ready(&blind).message, format!("{LAST_SEEN}{READY}"));
    assert_eq!(ready(&blind).reason, "Ready");
    assert_eq!(
        go(&blind, StepStatus::Unreachable, 20),
        blind,
        "the same outage, byte for byte"
    );
    assert_eq!(
        ready(&go(&blind, StepStatus::Working, 30)).message,
        READY,
        "in reach again, and at work"
    );
    assert_eq!(ready(&go(&blind, StepStatus::Done, 30)).message, READY);
    let blocked = go(&served, StepStatus::Blocked, 10);
    let blind = go(&blocked, StepStatus::Unreachable, 20);
    assert_eq!(
        (ready(&blind).status.as_str(), ready(&blind).message.as_str()),
        ("False", &*format!("{LAST_SEEN}m"))
    );
    assert_eq!(go(&blind, StepStatus::Unreachable, 30), blind);
    assert_eq!(
        ready(&go(&blind, StepStatus::Unreachable, 20 + 601)).message,
        "m",
        "no longer vouched for"
    );
}

#[test]
fn suspended_shows_in_the_reason_of_ready() {
    let step_conditions = [step_condition(ConditionType::Trusted, StepStatus::Done)];
    let served = write(&[], 1, &Acceptance::Accepted, &step_conditions, at(0));
    let suspended = write(&served, 2, &Acceptance::Suspended, &[], at(10));
    let told = ready(&suspended);
    assert_eq!(
        (told.status.as_str(), told.reason.as_str()),
        ("True", "Suspended")
    );
    assert_eq!(told.message, format!("{SUSPENDED}{READY}"));
    assert_eq!(told.observed_generation, Some(1), "the observed generation stays");
    assert_eq!(told.last_transition_time, ready(&served).last_transition_time);
    assert_eq!(
        write(&suspended, 2, &Acceptance::Suspended, &[], at(20)),
        suspended
    );
    let again = write(&suspended, 3, &Acceptance::Accepted, &step_conditions, at(30));
    assert_eq!(
        (ready(&again).reason.as_str(), ready(&again).message.as_str()),
        ("Ready", READY)
    );
    // The object as an earlier release left it.
    let mut before = suspended.clone();
    before
        .iter_mut()
        .filter(|c| c.type_ == "Ready")
        .for_each(|c| *c = ready(&served).clone());
    assert_eq!(
        write(&before, 2, &Acceptance::Suspended, &[], at(40)),
        before,
        "an upgrade writes nothing"
    );
}

#[test]
fn a_deletion_sets_ready_and_the_deleted_conditions_to_false() {
    let step_conditions = [
        step_condition(ConditionType::CertificateIssued, StepStatus::Done),
        step_condition(ConditionType::BypassClosed, StepStatus::Done),
    ];
    let mut all = write(&[], 1, &Acceptance::Accepted, &step_conditions, at(0));
    let gone = [
        ConditionType::CertificateIssued,
        ConditionType::IdentityPropagated,
    ];
    deleting(&mut all, 2, &gone, "waiting for ACM", at(5));
    let says = |type_: &str| {
        all.iter()
            .find(|c| c.type_ == type_)
            .map(|c| (c.status.as_str(), c.reason.as_str()))
    };
    assert_eq!(says("CertificateIssued"), Some(("False", "Deleting")));
    assert_eq!(says("IdentityPropagated"), None, "it was not there");
    assert_eq!(says("BypassClosed").map(|c| c.0), Some("True"), "it stays closed");
    assert_eq!(
        (says("Ready"), ready(&all).message.as_str()),
        (Some(("False", "Deleting")), "waiting for ACM")
    );
    let once = all.clone();
    deleting(&mut all, 2, &gone, "waiting for ACM", at(50));
    assert_eq!(all, once);
}

#[test]
fn an_object_is_fresh_for_half_a_minute() {
    assert_eq!(fresh_until(Some(at(0)), at(29)), Some(at(30)));
    assert_eq!(fresh_until(Some(at(0)), at(30)), None);
    assert_eq!(fresh_until(None, at(0)), None);
}

#[test]
fn a_text_of_any_length_is_cut_between_characters() {
    assert_eq!(
        (cut("Größe", 7), cut("Größe", 6), cut("", 0)),
        ("Größe".into(), "Gr…".into(), String::new())
    );
    assert_eq!(text::shown(&"ö".repeat(512)), "ö".repeat(512), "1,024 bytes");
    assert_eq!(text::shown(&"ö".repeat(513)), format!("{}…", "ö".repeat(510)));
    let long = StepCondition {
        message: "m".repeat(1 << 20),
        ..step_condition(ConditionType::ResolvedRefs, StepStatus::Blocked)
    };
    let written = write(&[], 1, &Acceptance::Accepted, &[long], at(0));
    assert!(written.iter().all(|c| c.message.len() <= 1024));
}

#[test]
fn a_long_message_ends_after_a_part_and_counts_the_rest() {
    let parts: Vec<_> = (0..500)
        .map(|n| format!("authority a{n}: {}", "x".repeat(30)))
        .collect();
    let told = |message: String| {
        let step_condition = StepCondition {
            message,
            ..step_condition(ConditionType::ResolvedRefs, StepStatus::Blocked)
        };
        let written = write(&[], 1, &Acceptance::Accepted, &[step_condition], at(0));
        let is_it = |c: &&Condition| c.type_ == ConditionType::ResolvedRefs.as_str();
        written.iter().find(is_it).expect("it is written").message.clone()
    };
    let listed = |room| text::listed(parts.iter().map(String::as_str), 500, room);
    // As a list with room of its own, and as a message that another list grew.
    for (what, message) in [
        ("a list", told(listed(text::WHOLE))),
        ("a joined text", told(parts.join("; "))),
        ("a list within the message", told(listed(2000))),
        (
            "a list within a sentence",
            format!("{}: outside of the grant", listed(text::WITHIN)),
        ),
    ] {
        let message = message.trim_end_matches(": outside of the grant");
        assert!(message.len() <= 1024, "{what}: {}", message.len());
        let (whole, more) = message.rsplit_once("; and ").expect(what);
        let count = whole.split("; ").count();
        assert_eq!(
            (whole, more),
            (
                parts[..count].join("; ").as_str(),
                format!("{} more", 500 - count).as_str()
            ),
            "{what}"
        );
        assert!(count > 10, "{what}: {count}");
    }
    let one = "x".repeat(2000);
    for message in [
        told(one.clone()),
        text::listed([one.as_str(), "b"].into_iter(), 20, text::WHOLE),
    ] {
        assert!(message.len() <= 1024 && message.starts_with("xxx"), "{message}");
    }
    assert_eq!(
        text::listed(["a", "b", "c"].into_iter(), 2, 100),
        "a; b; and 1 more"
    );
    assert_eq!(
        text::listed(["a", "b", "c"].into_iter(), 3, 4),
        "a; b; and 1 more"
    );
    assert_eq!(text::listed([].into_iter(), 3, 4), "");
}

#[test]
fn an_equal_write_changes_nothing() {
    let step_conditions = [
        step_condition(ConditionType::ResolvedRefs, StepStatus::Done),
        step_condition(ConditionType::Trusted, StepStatus::Working),
    ];
    let once = write(&[], 1, &Acceptance::Accepted, &step_conditions, at(0));
    assert_eq!(
        write(&once, 1, &Acceptance::Accepted, &step_conditions, at(1000)),
        once
    );
}

#[test]
fn the_transition_time_moves_only_with_the_status() {
    let once = write(
        &[],
        1,
        &Acceptance::Accepted,
        &[step_condition(ConditionType::ResolvedRefs, StepStatus::Working)],
        at(1),
    );
    let twice = write(
        &once,
        2,
        &Acceptance::Accepted,
        &[step_condition(
            ConditionType::ResolvedRefs,
            StepStatus::Unreachable,
        )],
        at(5),
    );
    assert_eq!(
        (twice[1].last_transition_time.0, twice[1].observed_generation),
        (at(1), Some(2))
    );
    let done = write(
        &twice,
        2,
        &Acceptance::Accepted,
        &[step_condition(ConditionType::ResolvedRefs, StepStatus::Done)],
        at(6) + SignedDuration::from_millis(7),
    );
    assert_eq!(
        done[1].last_transition_time.0,
        at(6),
        "seconds, as the API server keeps them"
    );
    assert_eq!(
        transitions(&twice, &done)
            .iter()
            .map(|t| t.type_.as_str())
            .collect::<Vec<_>>(),
        ["ResolvedRefs", "Ready"]
    );
}
