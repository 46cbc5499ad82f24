//! Plan: computes the next actions from the desired and the observed state. Pure and total: no I/O, no clock,
//! no failure.
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    desired::Desired,
    observed::{Observed, Unseen},
};
use crate::{api::conditions::Reason, aws::acm, pki::compile::Compiled};

mod action;
pub mod authorizer;
mod bucket;
pub mod certificates;
pub mod custom_domain;
mod default_endpoint;
pub mod dns;
pub mod identity;
mod mappings;
mod references;
pub mod self_signed;
mod truststore;

pub use action::Action;
pub use truststore::{told, without_trust};

/// Ownership tag on AWS resources: names the MtlsDomain that owns them.
pub const OWNER_TAG: &str = "mtls-operator.io/owner";
/// Tag on a domain beside the ownership tag: the domain existed before, and was taken over.
pub const ADOPTED_TAG: &str = "mtls-operator.io/adopted";
/// Metadata key of the ownership tag on truststore objects. S3 keeps metadata keys in lower case and without
/// `/`.
pub const OWNER_METADATA: &str = "owner";
/// Metadata key on truststore objects: the KMS key that the spec named when the object was stored.
pub const KMS_KEY_METADATA: &str = "kms-key";
/// Tag on an API between a change and the deployment, or touched stage, that makes the change effective.
pub const PENDING_TAG: &str = "mtls-operator.io/pending-deployment";
/// Value of [`PENDING_TAG`] once a REST API is deployed and until its endpoint is seen refusing callers, so
/// that the operator deploys only once while that takes effect. Until then the value is the ownership tag.
pub const DEPLOYED: &str = "deployed";

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

    fn done(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Done(reason, message.into())
    }

    fn wait(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Wait(reason, message.into())
    }

    fn blocked(reason: Reason, message: impl Into<String>) -> Self {
        StepState::Blocked(reason, message.into())
    }

    fn unknown(unseen: &Unseen) -> Self {
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
    fn in_progress(what: impl Into<String>, actions: Vec<Action>) -> Self {
        StepPlan {
            state: StepState::InProgress(what.into()),
            actions,
        }
    }

    /// Combines the plans for several APIs into one: all their actions, and the worst of their states.
    /// `None`: there are no plans.
    fn of_all(all: Vec<StepPlan>) -> Option<Self> {
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

/// Returns the next actions that bring the observed state closer to the desired state.
pub fn plan(d: &Desired, o: &Observed, now: Timestamp) -> Plan {
    let truststore = truststore::compile(d, o, now);
    let (certificate, ownership) = (
        certificates::chosen(d, o).cloned(),
        certificates::ownership(d, o).cloned(),
    );
    let refs = references::resolved_refs(d, o, truststore.as_ref());
    let mut published = truststore::publish(d, o, &refs, truststore.as_ref());
    let mut issued = certificates::certificates(d, o, now);
    if custom_domain::is_barred(d, o) {
        // The operator creates nothing for a domain that it does not own.
        for step_plan in [&mut published, &mut issued]
            .into_iter()
            .filter(|j| !j.actions.is_empty())
        {
            *step_plan = StepState::WaitingFor(Step::DomainProgrammed).into();
        }
    }
    let wanted = certificate.as_ref().filter(|_| issued.state.is_done());
    let programmed = custom_domain::domain(d, o, wanted, ownership.as_ref(), &published.state, now);
    let mapped = mappings::mappings(d, o);
    let named = dns::dns(d, o, &mapped.state);
    let closed = default_endpoint::bypass(d, o, &named.state, now);
    let step_plan = [refs, issued, published, programmed, mapped, named, closed];
    let told = identity::identity(d, o).map(|step_plan| (Step::IdentityPropagated, step_plan));
    let steps = Step::ALL.into_iter().zip(step_plan).chain(told).collect();
    Plan {
        steps,
        certificate,
        ownership,
        truststore,
    }
}
