//! Rules by which conditions are written: the situation table of both kinds (Ready, Reconciling, Stalled),
//! and transitions. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::text;

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
                        ready.message = text::message(&format!("{SUSPENDED}{}", as_seen(&ready.message)));
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
                text::message(&format!("{LAST_SEEN}{seen}"))
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
        message: text::message(message),
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
mod tests;
