//! Steps of a plan, one for each condition, and their states. Pure.

use std::collections::BTreeMap;

use super::action::Action;

use crate::{api::conditions::Reason, aws::acm, observation::seen::Unseen, pki::compile::Compiled};

/// Steps of a plan. Each is a condition type, in the order in which they become true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    ResolvedRefs,
    CertificateIssued,
    TruststorePublished,
    DomainProgrammed,
    MappingsProgrammed,
    DnsProgrammed,
    BypassClosed,
    /// Planned only while the spec requests it, or parts of it are left to remove.
    IdentityPropagated,
}

impl Step {
    /// The steps of every domain.
    pub const ALL: [Step; 7] = [
        Step::ResolvedRefs,
        Step::CertificateIssued,
        Step::TruststorePublished,
        Step::DomainProgrammed,
        Step::MappingsProgrammed,
        Step::DnsProgrammed,
        Step::BypassClosed,
    ];
}

/// State of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    Done(Reason, String),
    /// The operator is working on it now.
    InProgress(String),
    /// Another party is working on it: the operator only reconciles again.
    Wait(Reason, String),
    /// A step that this step depends on is not done yet.
    WaitingFor(Step),
    /// A user has to correct something first.
    Blocked(Reason, String),
    /// The operator could not read its state.
    Unknown(Unseen),
}

impl StepState {
    pub fn is_done(&self) -> bool {
        matches!(self, StepState::Done(..))
    }

    pub(crate) fn done(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Done(reason, message.into())
    }

    pub(crate) fn wait(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Wait(reason, message.into())
    }

    pub(crate) fn blocked(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Blocked(reason, message.into())
    }

    pub(crate) fn unknown(unseen: &Unseen) -> Self {
        StepState::Unknown(unseen.clone())
    }
}

/// State of a step, and its actions. A blocked step may still have actions for its other parts.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    pub state: StepState,
    pub actions: Vec<Action>,
}

impl StepPlan {
    pub(crate) fn in_progress(what: impl Into<String>, actions: Vec<Action>) -> Self {
        StepPlan {
            state: StepState::InProgress(what.into()),
            actions,
        }
    }

    /// Combines the plans for several APIs into one: all their actions, and the worst of their states.
    /// `None`: there are no plans.
    pub(crate) fn of_all(all: Vec<StepPlan>) -> Option<Self> {
        let worst = |v: &StepState| match v {
            StepState::Blocked(..) => 0,
            StepState::Unknown(_) => 1,
            StepState::InProgress(_) => 2,
            StepState::Wait(..) => 3,
            StepState::WaitingFor(_) => 4,
            StepState::Done(Reason::NotVerified, _) => 5,
            StepState::Done(..) => 6,
        };
        let (states, actions): (Vec<_>, Vec<_>) = all.into_iter().map(|j| (j.state, j.actions)).unzip();
        let state = states.into_iter().min_by_key(worst)?;
        Some(StepPlan {
            state,
            actions: actions.concat(),
        })
    }
}

impl From<StepState> for StepPlan {
    fn from(state: StepState) -> Self {
        StepPlan {
            state,
            actions: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: BTreeMap<Step, StepPlan>,
    /// The certificate that the domain is to have, if there is one.
    pub certificate: Option<acm::Certificate>,
    /// The public certificate beside it that proves the ownership of the name, where API Gateway requires
    /// that.
    pub ownership: Option<acm::Certificate>,
    /// The desired truststore, when enough could be read to compute it.
    pub truststore: Option<Compiled>,
}

impl Plan {
    pub fn actions(&self) -> impl Iterator<Item = (Step, &Action)> {
        self.steps
            .iter()
            .flat_map(|(step, step_plan)| step_plan.actions.iter().map(|a| (*step, a)))
    }
}
