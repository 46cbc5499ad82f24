//! Application of a plan to the Secrets of a certificate: one action, and its outcome.

use jiff::Timestamp;

use crate::{
    api::conditions::ConditionType,
    issuance::{
        action::Action,
        desired::Desired,
        execute::{self, ApplyContext, Completion},
        known_key::known_key,
        observed::Observed,
        pace::{Wait, record::Cause},
        plan::{self, Plan},
    },
    pki::certificate::Certificate,
    status::StepCondition,
};

/// Outcome of the plan's action.
pub(crate) enum Outcome {
    /// The Secret has a new leaf.
    Issued {
        leaf: Box<Certificate>,
        revision: i64,
        /// Version of the written Secret; `None` when another reconcile of the Secret follows.
        version: Option<String>,
    },
    /// The issuer has not answered the request.
    Pending,
    /// The operator corrected the Secret; key and leaf stay.
    Completed,
    /// Another writer keeps changing the Secret, and its correction has to wait until the time.
    Contested(Timestamp),
    Done,
}

/// Applies the plan's action.
pub(crate) async fn apply(
    apply_context: &ApplyContext<'_>,
    plan: &Plan,
    o: &Observed,
    now: Timestamp,
) -> Result<Outcome, execute::Error> {
    let (secret, next) = (o.secret.as_ref(), o.next.as_ref());
    match (&plan.action, &o.issuer) {
        (Some(Action::Issue(violation)), Ok(Some(issuer))) => {
            let revision = o.revision() + 1;
            tracing::debug!(certificate = %apply_context.d.name, reason = ?violation.reason, "issuing");
            let known = known_key(apply_context.d, o);
            let issued = execute::issue(apply_context, issuer, secret, known, revision, now).await?;
            let Some((leaf, version)) = issued else {
                return Ok(Outcome::Pending);
            };
            if let Some(next) = next {
                execute::unstage(apply_context, next).await?;
            }
            Ok(Outcome::Issued {
                leaf: Box::new(leaf),
                revision,
                version,
            })
        }
        (Some(Action::Stage { revision }), _) => {
            let known = known_key(apply_context.d, o);
            execute::stage(apply_context, known, next, *revision, now).await?;
            Ok(Outcome::Done)
        }
        (Some(Action::Swap), _) => match next.and_then(|next| Some((next, next.leaf()?))) {
            Some((next, leaf)) => {
                execute::swap(apply_context, secret, next).await?;
                execute::unstage(apply_context, next).await?;
                Ok(Outcome::Issued {
                    leaf: Box::new(leaf),
                    revision: next.revision,
                    version: None,
                })
            }
            None => Ok(Outcome::Done), // the plan swaps in only an existing Secret
        },
        (Some(Action::Unstage), _) => {
            if let Some(next) = next {
                execute::unstage(apply_context, next).await?;
            }
            Ok(Outcome::Done)
        }
        (Some(Action::Complete), _) => {
            let Some(secret) = secret else {
                return Ok(Outcome::Done);
            };
            let postponed = o.past.pace.next_correction(now);
            Ok(
                match (
                    execute::complete(apply_context, secret, postponed.is_some()).await?,
                    postponed,
                ) {
                    (Completion::Postponed, Some(until)) => Outcome::Contested(until),
                    (Completion::Written, _) => Outcome::Completed,
                    _ => Outcome::Done,
                },
            )
        }
        _ => Ok(Outcome::Done),
    }
}

/// Returns the step conditions while the issuer has not answered.
pub(crate) fn pending(step_conditions: Vec<StepCondition>, leaf: Option<&Certificate>) -> Vec<StepCondition> {
    let shown = |step_condition: StepCondition| match step_condition.type_ {
        ConditionType::Issued => plan::while_pending(step_condition, leaf),
        _ => step_condition,
    };
    step_conditions.into_iter().map(shown).collect()
}

/// Returns the occasion of the certificate that the outcome made; `None`: it made none, or the first one. The
/// pace needs no record of first certificates: a domain may have thousands.
pub(crate) fn made(outcome: &Outcome, plan: &Plan, d: &Desired, o: &Observed) -> Option<Cause> {
    let is_made = match (outcome, &plan.action) {
        (Outcome::Issued { .. }, Some(Action::Issue(_))) => o.revision() > 0,
        (_, Some(Action::Stage { .. })) => d.self_signed,
        _ => false,
    };
    plan.cause.filter(|_| is_made)
}

/// Returns the step conditions while another writer keeps changing the Secret; the leaf is usable. `wait`:
/// wait of the correction, once it is reported.
pub(crate) fn contested(step_conditions: Vec<StepCondition>, wait: Option<&Wait>) -> Vec<StepCondition> {
    let shown = |step_condition: StepCondition| match (step_condition.type_, wait) {
        (ConditionType::Issued, Some(wait)) => StepCondition {
            message: format!("{}; {}", step_condition.message, wait.message),
            ..step_condition
        },
        _ => step_condition,
    };
    step_conditions.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests;
