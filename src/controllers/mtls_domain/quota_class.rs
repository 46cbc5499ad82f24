//! Position of a domain in the queue for scarce AWS calls. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        MtlsDomainStatus,
        conditions::{ConditionType, Reason},
    },
    aws::{action::api_gateway::ApiGatewayAction, quota::Class},
    model::{
        action::Action,
        desired::Desired,
        observed::{Observed, Pinned},
        step::Plan,
    },
    status::ConditionStatus,
    trust::self_signed_sources,
};

/// Returns the priority class for calls with a low AWS quota. The class and the waiting time decide the
/// position in the quota queue.
pub(crate) fn class(
    d: &Desired,
    o: &Observed,
    plan: &Plan,
    old: &MtlsDomainStatus,
    generation: i64,
) -> Class {
    let withdrawn = |pinned: &Pinned| !self_signed_sources::withdrawn(d, &pinned.bundle).is_empty();
    let served = old.conditions.iter().any(|c| {
        c.type_ == ConditionType::Ready.as_str()
            && c.status == "True"
            && c.observed_generation == Some(generation)
    });
    if plan
        .actions()
        .any(|(_, a)| matches!(a, Action::ApiGateway(ApiGatewayAction::CreateDomain(_))))
    {
        Class::Creation
    } else if plan
        .truststore
        .as_ref()
        .is_some_and(|compiled| compiled.distrusts)
        || o.pinned.iter().flatten().any(withdrawn)
    {
        Class::Distrust
    } else if served {
        Class::Drift
    } else {
        Class::SpecChange
    }
}

/// Returns the start of the domain's wait according to its status. Kept in the status, this time decides the
/// position in the quota queue also after a restart.
pub(crate) fn waiting_since(old: &MtlsDomainStatus) -> Option<Timestamp> {
    let programmed = old
        .conditions
        .iter()
        .find(|c| c.type_ == ConditionType::DomainProgrammed.as_str());
    programmed
        .filter(|c| c.status == ConditionStatus::Unknown.as_str())
        .map(|c| c.last_transition_time.0)
}

/// True when the domain was queued at the time its status was written.
pub(crate) fn is_queued(old: &MtlsDomainStatus) -> bool {
    let is_it = |c: &Condition| {
        c.type_ == ConditionType::DomainProgrammed.as_str() && c.reason == Reason::Queued.as_str()
    };
    old.conditions.iter().any(is_it)
}
