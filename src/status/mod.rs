//! Vocabulary of conditions: the status of a step, the acceptance of a spec, and refusals. [`conditions`]
//! writes them into a status. Pure.

pub mod conditions;
pub mod text;

use crate::api::conditions::{ConditionType, Reason};

pub(crate) fn refused(reason: Reason, message: String) -> Refused {
    Refused { reason, message }
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        }
    }
}

/// State of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// Condition True: the step is done.
    Done,
    /// Condition Unknown: the operator, AWS or an earlier step is still working.
    Working,
    /// Condition Unknown: the operator cannot observe the step's resource, or cannot write to it.
    Unreachable,
    /// Condition False: a user or another writer has to correct something.
    Blocked,
    /// Condition False as the spec asks for it: Ready ignores this step.
    Waived,
}

/// Condition of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCondition {
    pub type_: ConditionType,
    pub status: StepStatus,
    pub reason: Reason,
    pub message: String,
}

/// Decision on whether the operator serves a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    /// Name of the ClientGrant that allows the spec.
    Granted(String),
    Suspended,
    /// Refusal of the spec. `stalled`: only a changed spec can help.
    Refused {
        reason: Reason,
        message: String,
        stalled: bool,
    },
    /// Step that keeps the operator from deciding whether the spec is allowed. The operator leaves all other
    /// steps alone.
    Unclear(StepCondition),
}

/// Condition that is new, or whose status or reason is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub type_: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// Refusal of a spec, ready for the condition Accepted. The message names the field and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    pub message: String,
}

pub(crate) fn invalid(message: &str) -> Refused {
    Refused {
        reason: Reason::InvalidSpec,
        message: message.to_owned(),
    }
}
