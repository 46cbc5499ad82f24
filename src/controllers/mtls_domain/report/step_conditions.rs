//! Conditions of the steps, from their plans and the outcomes of their actions. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::conditions::Reason,
    aws::errors,
    model::step::{Step, StepPlan, StepState},
    observation::seen::refusal,
    server_certificate::request_limiter::A_DAY,
    status::{StepCondition, StepStatus},
};

/// Outcome of the first action of a step that did not succeed at once.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The action waits in the queue for AWS quota.
    Queued {
        ahead: usize,
        about: std::time::Duration,
    },
    /// The operator itself limits the certificate requests of an object.
    Limited {
        about: std::time::Duration,
    },
    /// The action was done before, and AWS does not show its effect yet.
    NotShown(String),
    Failed(errors::Error),
    /// The Kubernetes API refused the request or did not answer.
    Kubernetes(String),
    /// The Kubernetes API rejects a Secret that the operator writes.
    Rejected(String),
}

impl Outcome {
    pub fn is_queued(&self) -> bool {
        matches!(self, Outcome::Queued { .. } | Outcome::Limited { .. })
    }
}

/// Outcomes by step. A step has at most one, because it stops at its first failure, and does not affect other
/// steps.
pub type Outcomes = BTreeMap<Step, Outcome>;

/// Returns the single condition of an object that is being deleted.
pub fn deletion_condition(step_plan: &StepPlan, outcome: Option<&Outcome>) -> StepCondition {
    let step_condition = step_condition(Step::DomainProgrammed, step_plan, outcome);
    match step_condition.status {
        // A finished step is reported as deleting too: the resource is not available any more.
        StepStatus::Done | StepStatus::Working => StepCondition {
            status: StepStatus::Working,
            reason: Reason::Deleting,
            ..step_condition
        },
        _ => step_condition,
    }
}

pub fn step_condition(step: Step, step_plan: &StepPlan, outcome: Option<&Outcome>) -> StepCondition {
    let (status, reason, message) = match (step_plan, outcome) {
        (StepPlan::Correcting(reason, message, _), Some(outcome)) => {
            let (_, _, problem) = explain(outcome);
            (StepStatus::Done, *reason, format!("{message}; {problem}"))
        }
        (StepPlan::Done(reason, message) | StepPlan::Correcting(reason, message, _), _) => {
            (StepStatus::Done, *reason, message.clone())
        }
        (StepPlan::Pending(StepState::Blocked(reason, message), _), _) => {
            let status = match reason {
                Reason::KeptOpen => StepStatus::Waived,
                _ => StepStatus::Blocked,
            };
            (status, *reason, message.clone())
        }
        (_, Some(outcome)) => explain(outcome),
        (StepPlan::InProgress(what, _), None) => (StepStatus::Working, Reason::Progressing, what.clone()),
        (StepPlan::Pending(StepState::Wait(reason, message), _), None) => {
            (StepStatus::Working, *reason, message.clone())
        }
        (StepPlan::Pending(StepState::WaitingFor(before), _), None) => {
            let (reason, what) = before.awaited();
            (StepStatus::Working, reason, format!("waiting for {what}"))
        }
        (StepPlan::Pending(StepState::Unknown(unseen), _), None) => {
            let status = match unseen.reason {
                Reason::PermissionDenied | Reason::HostedZoneNotFound => StepStatus::Blocked,
                Reason::CredentialsRejected | Reason::QuotaExceeded | Reason::RecordProtected => {
                    StepStatus::Blocked
                }
                _ => StepStatus::Unreachable,
            };
            (status, unseen.reason, unseen.message.clone())
        }
    };
    StepCondition {
        type_: step.condition(),
        status,
        reason,
        message,
    }
}

/// True when the conditions already report this outcome of the step.
pub fn stands_in(conditions: &[Condition], step: Step, outcome: &Outcome) -> bool {
    let (type_, (_, reason, message)) = (step.condition().as_str(), explain(outcome));
    conditions
        .iter()
        .any(|c| c.type_ == type_ && c.reason == reason.as_str() && c.message == message)
}

/// True when a user has to create a missing resource first: frequent retries are useless, and occasional ones
/// are not.
pub fn is_missing(outcome: &Outcome) -> bool {
    explain(outcome).1 == Reason::RefNotFound
}

/// True when a retry soon may help. It does not when another party has to lift the refusal, or when another
/// account has the domain name, and each attempt uses up AWS quota.
pub fn passes(outcome: &Outcome) -> bool {
    explain(outcome).1 != Reason::ForeignOwner && !is_lasting(outcome)
}

/// True when another party has to lift the refusal. The operator repeats the action after a pause.
pub fn is_lasting(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(error) if error.is_lasting())
}

pub(crate) fn explain(outcome: &Outcome) -> (StepStatus, Reason, String) {
    match outcome {
        Outcome::Queued { ahead, about } => {
            let when = if *ahead == 0 { "next" } else { roughly(*about) };
            (
                StepStatus::Working,
                Reason::Queued,
                format!("queued for AWS quota: {when}"),
            )
        }
        Outcome::Limited { about } => (
            StepStatus::Working,
            Reason::Queued,
            format!(
                "the operator requested {A_DAY} certificates for this object within a day, its own limit, \
                 because AWS counts each for a year: the next request follows {}",
                roughly(*about)
            ),
        ),
        Outcome::NotShown(what) => (StepStatus::Working, Reason::Progressing, what.clone()),
        Outcome::Kubernetes(why) => (StepStatus::Unreachable, Reason::Unreachable, why.clone()),
        Outcome::Rejected(why) => (StepStatus::Blocked, Reason::SecretRejected, why.clone()),
        Outcome::Failed(error) => refusal(error),
    }
}

/// Returns a delay as text that does not change with every reconcile.
fn roughly(about: std::time::Duration) -> &'static str {
    match about.as_secs() {
        0..=300 => "within 5 minutes",
        301..=1800 => "within 30 minutes",
        _ => "in more than 30 minutes",
    }
}
