//! Time of the next reconcile of a served domain, and use of the cache in it. Pure.

use tokio::time::Instant;

use super::report::step_conditions::{self, Outcome, Outcomes};

use crate::{
    api::conditions::Reason,
    model::step::{Plan, StepPlan, StepState},
    observation::seen::Seen,
};

/// Returns the time since which this generation of the domain has been in sync; `None`: the operator must not
/// use cached reads.
pub(crate) fn cached_since(in_sync: Option<(i64, Instant)>, generation: i64) -> Option<Instant> {
    in_sync
        .filter(|(of, _)| *of == generation)
        .map(|(_, since)| since)
}

/// Returns the start of the time in sync after a live pass that began at `began`; `None`: the plan has
/// actions or waits.
pub(crate) fn in_sync_since(plan: &Plan, generation: i64, began: Instant) -> Option<(i64, Instant)> {
    is_in_sync(plan).then_some((generation, began))
}

/// Returns the record change to ask Route 53 about in the next reconcile; `None` once Route 53 reports it in
/// sync.
pub(crate) fn pending_change(before: Option<String>, in_sync: &Seen<bool>) -> Option<String> {
    before.filter(|_| *in_sync != Ok(true))
}

/// Time of the next reconcile when no event comes first.
#[derive(Debug, PartialEq)]
pub(crate) enum Requeue {
    /// The operator changed something: the next action follows immediately.
    Immediately,
    /// AWS is working on something, did not answer, or failed a call: requeue with backoff.
    Backoff,
    /// Another party has to create something first, and no event will announce it: requeue with a longer
    /// backoff.
    SlowBackoff,
    /// Another party has to lift a refusal by AWS: requeue after the pause, or the medium refresh interval if
    /// that is shorter.
    AfterPause,
    /// The domain is in sync: resync soon, from the cache.
    ResyncSoon,
    /// Another party has to act, or the cached pass was inconclusive.
    ResyncLater,
}

pub(crate) fn requeue(plan: &Plan, effects: usize, outcomes: &Outcomes, cache_was_stale: bool) -> Requeue {
    let is_waiting = |step_plan: &StepPlan| {
        matches!(
            step_plan,
            StepPlan::Pending(StepState::Wait(..) | StepState::Unknown(_), _)
        )
    };
    let waits = plan.steps.values().any(is_waiting);
    // The quota queue triggers the reconcile of a queued domain. Polling would only take calls from the
    // domains ahead of it.
    let is_retryable = |outcome: &Outcome| step_conditions::passes(outcome) && !outcome.is_queued();
    let retryable = || outcomes.values().filter(|outcome| is_retryable(outcome));
    if effects > 0 {
        Requeue::Immediately
    } else if !waits && retryable().count() > 0 && retryable().all(step_conditions::is_missing) {
        Requeue::SlowBackoff
    } else if waits || outcomes.values().any(is_retryable) {
        Requeue::Backoff
    } else if outcomes.values().any(step_conditions::is_lasting) {
        Requeue::AfterPause
    } else {
        requeue_when_idle(plan, cache_was_stale)
    }
}

/// Returns the next reconcile when there is nothing to do now. `cache_was_stale`: a cached pass was
/// inconclusive.
pub(crate) fn requeue_when_idle(plan: &Plan, cache_was_stale: bool) -> Requeue {
    if is_in_sync(plan) && !cache_was_stale {
        Requeue::ResyncSoon
    } else {
        Requeue::ResyncLater
    }
}

/// True when the plan has no actions, and every step is done or is kept open by the spec.
pub(crate) fn is_in_sync(plan: &Plan) -> bool {
    let is_fine = |step_plan: &StepPlan| {
        let is_kept_open = || {
            matches!(
                step_plan,
                StepPlan::Pending(StepState::Blocked(Reason::KeptOpen, _), _)
            )
        };
        step_plan.is_done() || is_kept_open()
    };
    plan.actions().next().is_none() && plan.steps.values().all(is_fine)
}
