//! Decides: what is desired and what is there in, what to do next out. Pure and total: no I/O, no clock, no
//! failure.
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

/// The tag on certificates and domains, and the metadata key on truststore objects, that says whose they are.
pub const OWNER_TAG: &str = "mtls-operator.io/owner";
/// On a domain beside the ownership tag: it was there before, and was taken over.
pub const ADOPTED_TAG: &str = "mtls-operator.io/adopted";
/// S3 keeps metadata keys in lower case and without `/`.
pub const OWNER_METADATA: &str = "owner";
/// Metadata key on truststore objects: the KMS key that the spec named when the object was stored.
pub const KMS_KEY_METADATA: &str = "kms-key";
/// On an API between a change and what makes it effective: a deployment, or a touched stage.
pub const PENDING_TAG: &str = "mtls-operator.io/pending-deployment";
/// Its value once a REST API has been deployed and until its endpoint is seen refusing callers, so that it is
/// deployed once and not again while that takes effect. Until then the value is the ownership tag.
pub const DEPLOYED: &str = "deployed";

/// Each step is a condition type, in the order in which they come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    ResolvedRefs,
    CertificateIssued,
    TruststorePublished,
    DomainProgrammed,
    MappingsProgrammed,
    DnsProgrammed,
    BypassClosed,
    /// Only while the spec asks for it, or something of it is left to take away.
    IdentityPropagated,
}

impl Step {
    /// Those of every domain.
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

/// How a step stands.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    Done(Reason, String),
    /// We are on it now.
    InProgress(String),
    /// Somebody else is working on it: nothing to do but reconcile again.
    Wait(Reason, String),
    /// What it builds on does not exist yet.
    WaitingFor(Step),
    /// Somebody has to put something right first.
    Blocked(Reason, String),
    /// It could not be looked at.
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

/// What to do for one step and how it stands. A blocked step may still have something to do for its other
/// parts.
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

    /// A step that is as many as there are APIs: everything that is to be done, and the worst of them speaks
    /// for it. `None`: there are none.
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
    /// The certificate that the domain shall have, if there is one.
    pub certificate: Option<acm::Certificate>,
    /// The public one beside it that proves the name, where API Gateway asks for that.
    pub ownership: Option<acm::Certificate>,
    /// The truststore as it shall be, when enough could be seen to say so.
    pub truststore: Option<Compiled>,
}

impl Plan {
    pub fn actions(&self) -> impl Iterator<Item = (Step, &Action)> {
        self.steps
            .iter()
            .flat_map(|(step, step_plan)| step_plan.actions.iter().map(|a| (*step, a)))
    }
}

/// What to do next so that what is there becomes what is desired.
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
        // Nothing is made for a domain that is somebody else's.
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
