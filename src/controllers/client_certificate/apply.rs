//! Application of a plan to the Secrets of a certificate: one action, and its outcome.

use jiff::Timestamp;

use crate::{
    api::conditions::ConditionType,
    issuance::{
        action::Action,
        execute::{self, ApplyContext},
        known_key::known_key,
        observed::Observed,
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
            if let Some(secret) = secret {
                execute::complete(apply_context, secret).await?;
            }
            Ok(Outcome::Done)
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

#[cfg(test)]
mod tests;
