//! Steps of a plan, one for each condition, and their states. Pure.

use std::collections::BTreeMap;

use super::action::Action;

use crate::{
    api::conditions::{ConditionType, Reason},
    aws::acm,
    observation::seen::Unseen,
    pki::compile::Compiled,
};

/// Declares the steps: for each its condition, and what the report says of a step that waits for it.
macro_rules! steps {
    ($($(#[doc = $doc:literal])* $step:ident => $condition:ident, $reason:ident, $awaited:literal;)*) => {
        /// Steps of a plan. Each is a condition type, in the order in which they become true.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step { $($(#[doc = $doc])* $step,)* }

        impl Step {
            /// All steps, in their order.
            pub const ALL: &[Step] = &[$(Step::$step,)*];

            /// Returns the condition that reports the step.
            pub fn condition(self) -> ConditionType {
                match self { $(Step::$step => ConditionType::$condition,)* }
            }

            /// Returns the reason of a step that waits for this step, and the name of what it waits for.
            pub fn awaited(self) -> (Reason, &'static str) {
                match self { $(Step::$step => (Reason::$reason, $awaited),)* }
            }
        }
    };
}

steps! {
    ResolvedRefs => ResolvedRefs, WaitingForPrerequisite, "the resources that the spec refers to";
    CertificateIssued => CertificateIssued, WaitingForCertificate, "the server certificate";
    TruststorePublished => TruststorePublished, WaitingForTruststore, "the truststore";
    DomainProgrammed => DomainProgrammed, WaitingForDomain, "the custom domain";
    MappingsProgrammed => MappingsProgrammed, WaitingForMappings, "the API mappings";
    DnsProgrammed => DNSProgrammed, WaitingForDNS,
        "the DNS records, so that callers have another endpoint";
    BypassClosed => BypassClosed, WaitingForDNS,
        "the DNS records, so that callers have another endpoint";
    /// Planned only while the spec requests it, or parts of it are left to remove.
    IdentityPropagated => IdentityPropagated, WaitingForPrerequisite,
        "the removal of identity headers from an API";
}

impl Step {
    /// True when the step is planned for some domains only.
    fn is_optional(self) -> bool {
        self == Step::IdentityPropagated
    }

    /// Returns the steps of every domain.
    pub fn of_every_domain() -> impl Iterator<Item = Step> {
        Step::ALL.iter().copied().filter(|step| !step.is_optional())
    }

    /// True when the resources of the step are deleted with the custom domain.
    pub fn goes_with_the_domain(self) -> bool {
        match self {
            Step::ResolvedRefs | Step::DomainProgrammed | Step::BypassClosed => false,
            Step::CertificateIssued
            | Step::TruststorePublished
            | Step::MappingsProgrammed
            | Step::DnsProgrammed
            | Step::IdentityPropagated => true,
        }
    }
}

/// Reason why a step is not done, when the operator cannot bring it about by its own actions now.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
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
    pub(crate) fn wait(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Wait(reason, message.into())
    }

    pub(crate) fn blocked(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Blocked(reason, message.into())
    }

    pub(crate) fn unknown(unseen: &Unseen) -> Self {
        StepState::Unknown(unseen.clone())
    }

    /// Returns the plan of a step in this state, with actions for its other parts.
    pub(crate) fn with(self, actions: impl IntoIterator<Item: Into<Action>>) -> StepPlan {
        StepPlan::Pending(self, actions.into_iter().map(Into::into).collect())
    }
}

/// At least one action, in the order of execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Actions {
    /// Boxed, so that a [`StepPlan`] is not much larger than its texts.
    first: Box<Action>,
    more: Vec<Action>,
}

impl Actions {
    /// Returns the actions; `None` when there are none.
    pub(crate) fn of(actions: impl IntoIterator<Item: Into<Action>>) -> Option<Self> {
        let mut actions = actions.into_iter();
        let first = actions.next()?;
        Some(Actions::from(first).then(actions))
    }

    /// Adds later actions.
    pub(crate) fn then(mut self, later: impl IntoIterator<Item: Into<Action>>) -> Self {
        self.more.extend(later.into_iter().map(Into::into));
        self
    }

    /// Adds earlier actions.
    pub(crate) fn after(self, earlier: impl IntoIterator<Item: Into<Action>>) -> Self {
        match Actions::of(earlier) {
            None => self,
            Some(earlier) => earlier.then(Vec::from(self)),
        }
    }
}

impl<A: Into<Action>> From<A> for Actions {
    fn from(first: A) -> Self {
        Actions {
            first: Box::new(first.into()),
            more: Vec::new(),
        }
    }
}

impl From<Actions> for Vec<Action> {
    fn from(Actions { first, mut more }: Actions) -> Self {
        more.insert(0, *first);
        more
    }
}

/// State of a step, and its actions.
#[derive(Clone, Debug, PartialEq)]
pub enum StepPlan {
    /// The step is in its desired state: there is nothing to do.
    Done(Reason, String),
    /// The step is done as far as its condition says. The actions correct other parts of it: a setting of the
    /// bucket, a superseded certificate, a tag that is no longer needed.
    Correcting(Reason, String, Actions),
    /// The operator is working on it now.
    InProgress(String, Actions),
    /// The operator cannot finish the step now. There may be actions for its other parts.
    Pending(StepState, Vec<Action>),
}

impl StepPlan {
    pub(crate) fn done(reason: Reason, message: impl Into<String>) -> Self {
        StepPlan::Done(reason, message.into())
    }

    pub(crate) fn in_progress(what: impl Into<String>, actions: impl Into<Actions>) -> Self {
        StepPlan::InProgress(what.into(), actions.into())
    }

    /// True when the condition of the step is true.
    pub fn is_done(&self) -> bool {
        matches!(self, StepPlan::Done(..) | StepPlan::Correcting(..))
    }

    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        let (first, more): (_, &[Action]) = match self {
            StepPlan::Done(..) => (None, &[]),
            StepPlan::Correcting(.., actions) | StepPlan::InProgress(_, actions) => {
                (Some(&*actions.first), &actions.more)
            }
            StepPlan::Pending(_, actions) => (None, actions),
        };
        first.into_iter().chain(more)
    }

    pub fn has_actions(&self) -> bool {
        self.actions().next().is_some()
    }

    pub(crate) fn into_actions(self) -> Vec<Action> {
        match self {
            StepPlan::Done(..) => Vec::new(),
            StepPlan::Correcting(.., actions) | StepPlan::InProgress(_, actions) => actions.into(),
            StepPlan::Pending(_, actions) => actions,
        }
    }

    /// Adds later actions, which do not change the condition of the step.
    pub(crate) fn then(self, later: impl IntoIterator<Item: Into<Action>>) -> Self {
        self.around(Vec::new(), later.into_iter().map(Into::into).collect())
    }

    fn around(self, earlier: Vec<Action>, later: Vec<Action>) -> Self {
        match self {
            StepPlan::Done(reason, message) => match Actions::of(earlier.into_iter().chain(later)) {
                None => StepPlan::Done(reason, message),
                Some(actions) => StepPlan::Correcting(reason, message, actions),
            },
            StepPlan::Correcting(reason, message, actions) => {
                StepPlan::Correcting(reason, message, actions.after(earlier).then(later))
            }
            StepPlan::InProgress(what, actions) => {
                StepPlan::InProgress(what, actions.after(earlier).then(later))
            }
            StepPlan::Pending(state, actions) => StepPlan::Pending(state, [earlier, actions, later].concat()),
        }
    }

    /// Combines the plans for several APIs into one: all their actions, and the worst of their states.
    /// `None`: there are no plans.
    pub(crate) fn of_all(all: Vec<StepPlan>) -> Option<Self> {
        let join = |all: StepPlan, next: StepPlan| {
            if next.badness() > all.badness() {
                next.around(all.into_actions(), Vec::new())
            } else {
                all.then(next.into_actions())
            }
        };
        all.into_iter().reduce(join)
    }

    fn badness(&self) -> u8 {
        match self {
            StepPlan::Done(reason, _) | StepPlan::Correcting(reason, ..) => {
                u8::from(*reason == Reason::NotVerified)
            }
            StepPlan::Pending(StepState::WaitingFor(_), _) => 2,
            StepPlan::Pending(StepState::Wait(..), _) => 3,
            StepPlan::InProgress(..) => 4,
            StepPlan::Pending(StepState::Unknown(_), _) => 5,
            StepPlan::Pending(StepState::Blocked(..), _) => 6,
        }
    }
}

impl From<StepState> for StepPlan {
    fn from(state: StepState) -> Self {
        StepPlan::Pending(state, Vec::new())
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
            .flat_map(|(step, step_plan)| step_plan.actions().map(|a| (*step, a)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::aws::action::ApiGatewayAction;

    fn tag(arn: &str) -> Action {
        ApiGatewayAction::TagDomain { arn: arn.into() }.into()
    }

    fn unseen() -> Unseen {
        Unseen {
            reason: Reason::Unreachable,
            message: "no answer".into(),
        }
    }

    /// Returns one plan for each state, from the best state to the worst.
    fn all() -> Vec<StepPlan> {
        let with = |state: StepState| state.with(vec![tag("other part")]);
        vec![
            StepPlan::done(Reason::Programmed, "done"),
            StepPlan::done(Reason::NotVerified, "done, as far as known"),
            with(StepState::WaitingFor(Step::DnsProgrammed)),
            with(StepState::wait(Reason::StillAnswering, "waits")),
            StepPlan::in_progress("works", tag("part")),
            with(StepState::unknown(&unseen())),
            with(StepState::blocked(Reason::ForeignOwner, "blocked")),
        ]
    }

    fn arns(step_plan: &StepPlan) -> Vec<&str> {
        let arns = step_plan.actions().map(|action| match action {
            Action::ApiGateway(ApiGatewayAction::TagDomain { arn }) => arn.as_str(),
            other => panic!("{other:?}"),
        });
        arns.collect()
    }

    #[test]
    fn every_step_has_its_own_condition_in_the_order_of_the_conditions() {
        let conditions: Vec<_> = Step::ALL.iter().map(|step| step.condition()).collect();
        assert!(conditions.is_sorted_by(|one, next| one < next), "{conditions:?}");
        assert!(Step::ALL.is_sorted());
    }

    #[test]
    fn no_actions_are_no_work_and_actions_are_in_order() {
        assert_eq!(Actions::of(Vec::<Action>::new()), None);
        let actions = Actions::from(tag("b"))
            .after([tag("a")])
            .then([tag("c"), tag("d")]);
        assert_eq!(Actions::of(["a", "b", "c", "d"].map(tag)), Some(actions.clone()));
        assert_eq!(
            Actions::from(tag("a"))
                .after(Vec::<Action>::new())
                .then(Vec::<Action>::new()),
            tag("a").into()
        );
        let step_plan = StepPlan::in_progress("works", actions);
        assert_eq!(arns(&step_plan), ["a", "b", "c", "d"]);
        assert_eq!(step_plan.into_actions(), ["a", "b", "c", "d"].map(tag));
    }

    #[test]
    fn a_step_with_a_correction_is_done_and_not_finished() {
        let done = StepPlan::done(Reason::Published, "m");
        assert!(done.is_done() && !done.has_actions());
        assert_eq!(done.clone().then(Vec::<Action>::new()), done);
        let correcting = done.then(vec![tag("a")]).then(vec![tag("b")]);
        assert!(correcting.is_done() && correcting.has_actions());
        assert!(matches!(correcting, StepPlan::Correcting(Reason::Published, ..)));
        assert_eq!(arns(&correcting), ["a", "b"]);
        for other in &all()[2..] {
            assert!(!other.is_done(), "{other:?}");
        }
    }

    #[test]
    fn plans_combine_to_the_worst_state_and_all_actions_in_order() {
        assert_eq!(StepPlan::of_all(vec![]), None);
        for (i, better) in all().into_iter().enumerate() {
            for worse in all().split_off(i + 1) {
                for two in [[&better, &worse], [&worse, &better]] {
                    let expected: Vec<_> = two.iter().flat_map(|one| arns(one)).collect();
                    let combined = StepPlan::of_all(two.map(Clone::clone).into()).unwrap();
                    assert_eq!(arns(&combined), expected);
                    assert_eq!(combined.badness(), worse.badness(), "{two:?}");
                }
            }
        }
        let wait = |message| StepState::wait(Reason::StillAnswering, message).into();
        let first = StepPlan::of_all(vec![wait("first"), wait("second")]);
        assert_eq!(first, Some(wait("first")), "the first of equal states");
        let done = |action| StepPlan::done(Reason::Closed, "m").then(vec![tag(action)]);
        let both = StepPlan::of_all(vec![done("a"), done("b")]).unwrap();
        assert_eq!(arns(&both), ["a", "b"]);
        assert!(both.is_done());
    }
}
