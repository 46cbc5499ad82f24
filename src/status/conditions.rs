//! Rules by which conditions are written: the situation table of both kinds (Ready, Reconciling, Stalled),
//! and transitions. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::text::{MAX_MESSAGE, cut};

use crate::{
    api::conditions::{ConditionType, Reason},
    status::{Acceptance, ConditionStatus, StepCondition, StepStatus, Transition},
};

/// Time for which the operator works on a served object before it sets Reconciling.
pub const REPAIR_GRACE: SignedDuration = SignedDuration::from_mins(2);
/// Time without an observation after which Ready no longer keeps the last state seen.
pub const BLIND: SignedDuration = SignedDuration::from_mins(10);
/// Time after an object's creation during which a missing object, applied together with it, does not count as
/// missing.
pub const FRESH: SignedDuration = SignedDuration::from_secs(30);
/// Message of Ready when all steps are done or waived.
const READY: &str = "All resources are in the desired state";
/// Beginning of Ready's message while the state of a step cannot be observed.
const LAST_SEEN: &str = "AWS or the API server is out of reach, and this is the last state seen: ";
/// Beginning of Ready's message while the object is suspended.
const SUSPENDED: &str = "suspended; the last state seen: ";

/// End of the time during which an object is fresh; `None` after that end.
pub fn fresh_until(created: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    created.map(|created| created + FRESH).filter(|end| now < *end)
}

/// Returns the conditions after a reconcile. `step_conditions` are the steps in their order; their conditions
/// stay untouched unless the spec is served.
pub fn write(
    old: &[Condition],
    generation: i64,
    acceptance: &Acceptance,
    step_conditions: &[StepCondition],
    now: Timestamp,
) -> Vec<Condition> {
    let mut new = old.to_vec();
    let mut put = |type_: ConditionType, condition_status, reason: Reason, message: &str| {
        set(
            &mut new,
            generation,
            type_,
            condition_status,
            reason,
            message,
            now,
        );
    };
    // Reconciling and Stalled are there only while they are True.
    let mut abnormal = None;
    match acceptance {
        Acceptance::Suspended => {
            put(
                ConditionType::Accepted,
                ConditionStatus::True,
                Reason::Suspended,
                "spec.suspend is true: everything is left as it is",
            );
            let is = |type_: ConditionType| move |c: &&Condition| c.type_ == type_.as_str();
            match old.iter().find(is(ConditionType::Ready)) {
                None => put(
                    ConditionType::Ready,
                    ConditionStatus::Unknown,
                    Reason::Suspended,
                    "suspended before the first reconcile",
                ),
                // Only the reason changes: the status and the observed generation stay. The operator leaves
                // an object that an earlier release suspended as it is.
                Some(_)
                    if old
                        .iter()
                        .find(is(ConditionType::Accepted))
                        .is_some_and(is_suspended) => {}
                Some(_) => {
                    for ready in new
                        .iter_mut()
                        .filter(|c| c.type_ == ConditionType::Ready.as_str())
                    {
                        ready.reason = Reason::Suspended.as_str().into();
                        ready.message = cut(&format!("{SUSPENDED}{}", as_seen(&ready.message)), MAX_MESSAGE);
                    }
                }
            }
        }
        Acceptance::Refused {
            reason,
            message,
            stalled,
        } => {
            put(ConditionType::Accepted, ConditionStatus::False, *reason, message);
            put(ConditionType::Ready, ConditionStatus::False, *reason, message);
            if *stalled {
                abnormal = Some((ConditionType::Stalled, *reason, "only a changed spec can help"));
            }
        }
        Acceptance::Unclear(step_condition) => {
            put(
                ConditionType::Accepted,
                ConditionStatus::Unknown,
                step_condition.reason,
                &step_condition.message,
            );
            abnormal = summarize(
                &mut new,
                old,
                generation,
                std::slice::from_ref(step_condition),
                now,
            );
        }
        Acceptance::Accepted | Acceptance::Granted(_) => {
            let by = match acceptance {
                Acceptance::Granted(grant) => format!(", by the ClientGrant {grant}"),
                _ => String::new(),
            };
            let message = format!("Spec is valid and permitted{by}");
            put(
                ConditionType::Accepted,
                ConditionStatus::True,
                Reason::Accepted,
                &message,
            );
            for step_condition in step_conditions {
                let condition_status = match step_condition.status {
                    StepStatus::Done => ConditionStatus::True,
                    StepStatus::Working | StepStatus::Unreachable => ConditionStatus::Unknown,
                    StepStatus::Blocked | StepStatus::Waived => ConditionStatus::False,
                };
                put(
                    step_condition.type_,
                    condition_status,
                    step_condition.reason,
                    &step_condition.message,
                );
            }
            abnormal = summarize(&mut new, old, generation, step_conditions, now);
        }
    }
    for type_ in [ConditionType::Reconciling, ConditionType::Stalled] {
        match &abnormal {
            Some((wanted, reason, message)) if *wanted == type_ => {
                set(
                    &mut new,
                    generation,
                    type_,
                    ConditionStatus::True,
                    *reason,
                    message,
                    now,
                );
            }
            _ => new.retain(|c| c.type_ != type_.as_str()),
        }
    }
    new
}

/// Sets Ready, and returns Reconciling when it has to be set.
fn summarize<'a>(
    new: &mut Vec<Condition>,
    old: &[Condition],
    generation: i64,
    step_conditions: &'a [StepCondition],
    now: Timestamp,
) -> Option<(ConditionType, Reason, &'a str)> {
    let open: Vec<_> = step_conditions
        .iter()
        .filter(|l| !matches!(l.status, StepStatus::Done | StepStatus::Waived))
        .collect();
    if let Some(blocked) = open.iter().find(|l| l.status == StepStatus::Blocked) {
        set(
            new,
            generation,
            ConditionType::Ready,
            ConditionStatus::False,
            blocked.reason,
            &blocked.message,
            now,
        );
        return None;
    }
    let Some(first) = open.first() else {
        set(
            new,
            generation,
            ConditionType::Ready,
            ConditionStatus::True,
            Reason::Ready,
            READY,
            now,
        );
        return None;
    };
    let blind = open.iter().any(|l| l.status == StepStatus::Unreachable);
    let is_ready = |c: &&Condition| {
        c.type_ == ConditionType::Ready.as_str() && c.observed_generation == Some(generation)
    };
    let keeps = match old.iter().find(is_ready).map(|c| c.status.as_str()) {
        Some("True") => true,
        Some("False") => blind,
        _ => false,
    };
    let of_open = |c: &&Condition| open.iter().any(|l| l.type_.as_str() == c.type_);
    let since = new.iter().filter(of_open).map(|c| c.last_transition_time.0).min();
    let lasted = since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    if !keeps || (blind && lasted > BLIND) {
        set(
            new,
            generation,
            ConditionType::Ready,
            ConditionStatus::Unknown,
            first.reason,
            &first.message,
            now,
        );
    } else {
        for ready in new
            .iter_mut()
            .filter(|c| c.type_ == ConditionType::Ready.as_str())
        {
            let seen = as_seen(&ready.message);
            ready.message = if blind {
                cut(&format!("{LAST_SEEN}{seen}"), MAX_MESSAGE)
            } else {
                seen.to_owned()
            };
        }
    }
    (!keeps || lasted > REPAIR_GRACE).then_some((
        ConditionType::Reconciling,
        first.reason,
        first.message.as_str(),
    ))
}

/// Returns Ready's message without the prefixes [`SUSPENDED`] and [`LAST_SEEN`].
fn as_seen(message: &str) -> &str {
    let message = message.strip_prefix(SUSPENDED).unwrap_or(message);
    message.strip_prefix(LAST_SEEN).unwrap_or(message)
}

fn is_suspended(c: &Condition) -> bool {
    c.reason == Reason::Suspended.as_str()
}

/// Sets Ready of an object that is being deleted to False, and each present condition of `gone`, whose
/// resource the operator deletes with the object. `why`: the deletion's current action, or the event it waits
/// for.
pub fn deleting(
    conditions: &mut Vec<Condition>,
    generation: i64,
    gone: &[ConditionType],
    why: &str,
    now: Timestamp,
) {
    for type_ in gone {
        if conditions.iter().any(|c| c.type_ == type_.as_str()) {
            set(
                conditions,
                generation,
                *type_,
                ConditionStatus::False,
                Reason::Deleting,
                "it is deleted with this object",
                now,
            );
        }
    }
    set(
        conditions,
        generation,
        ConditionType::Ready,
        ConditionStatus::False,
        Reason::Deleting,
        why,
        now,
    );
}

/// Rounds a time down to whole seconds, as the API server stores it: a finer time would differ from the one
/// read back.
pub fn in_seconds(t: Timestamp) -> Time {
    Time(Timestamp::from_second(t.as_second()).expect("a Timestamp's own seconds are in its range"))
}

/// Sets one condition in its place. `last_transition_time` changes only with the status, in whole seconds, as
/// the API server stores it.
pub fn set(
    conditions: &mut Vec<Condition>,
    generation: i64,
    type_: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: &str,
    now: Timestamp,
) {
    let old = conditions.iter().position(|c| c.type_ == type_.as_str());
    let last_transition_time = match old.map(|i| &conditions[i]) {
        Some(c) if c.status == status.as_str() => c.last_transition_time.clone(),
        _ => in_seconds(now),
    };
    let new = Condition {
        type_: type_.as_str().into(),
        status: status.as_str().into(),
        reason: reason.as_str().into(),
        message: cut(message, MAX_MESSAGE),
        observed_generation: Some(generation),
        last_transition_time,
    };
    match old {
        Some(i) => conditions[i] = new,
        None => conditions.push(new),
    }
}

/// Returns the transitions between two sets of conditions; each is worth an Event.
pub fn transitions(old: &[Condition], new: &[Condition]) -> Vec<Transition> {
    new.iter()
        .filter(|n| {
            !old.iter()
                .any(|o| o.type_ == n.type_ && o.status == n.status && o.reason == n.reason)
        })
        .map(|n| Transition {
            type_: n.type_.clone(),
            status: n.status.clone(),
            reason: n.reason.clone(),
            message: n.message.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
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
        assert!(
            written.iter().all(|c| c.message.len() <= 32_768),
            "as much as a condition may hold"
        );
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
}
