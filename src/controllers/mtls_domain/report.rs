//! Report: computes the new status from the plan, the outcomes of its actions and the old status. Pure.

pub mod dns;
pub mod server_certificate;
pub mod step_conditions;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::report::step_conditions::{Outcomes, step_condition};

use crate::{
    api::{
        AuthorityStatus, MappingState, MtlsDomain, MtlsDomainStatus, TruststoreState,
        conditions::{ConditionType, Reason},
    },
    aws::gateway::domains::Domain,
    background::bypass_scan::Bypass,
    dataplane::api_gateway::custom_domain,
    model::{
        observed::{Leaf, LeafIssuer, Observed},
        placement::Placement,
        step::{Plan, Step, StepPlan, StepState},
    },
    observation::seen::{self, Unseen},
    pki::{certificate::Certificate, lint::Severity},
    runtime::finalizer,
    status::{Acceptance, ConditionStatus, StepCondition, StepStatus, conditions, text},
    trust::truststore::told,
};

/// Returns the status after a reconcile of a served spec.
pub fn report(
    old: &MtlsDomainStatus,
    generation: i64,
    placement: &Placement,
    plan: &Plan,
    o: &Observed,
    outcomes: &Outcomes,
    now: Timestamp,
) -> MtlsDomainStatus {
    let step_conditions: Vec<_> = plan
        .steps
        .iter()
        .map(|(step, step_plan)| step_condition(*step, step_plan, outcomes.get(step)))
        .collect();
    let mut new = with_conditions(old, generation, &Acceptance::Accepted, &step_conditions, now);
    facts(&mut new, placement, plan, o, now);
    new.plan = vec![];
    new
}

/// Returns the status with `managementPolicy: Observe`: the operator does nothing, and the status says what
/// it would do.
pub fn observing(
    old: &MtlsDomainStatus,
    generation: i64,
    placement: &Placement,
    plan: &Plan,
    o: &Observed,
    now: Timestamp,
) -> MtlsDomainStatus {
    let step_conditions: Vec<_> = plan
        .steps
        .iter()
        .map(|(step, step_plan)| match step_plan {
            StepPlan::InProgress(what, _) => StepCondition {
                type_: step.condition(),
                status: StepStatus::Blocked,
                reason: Reason::Observing,
                message: format!("not done, because spec.managementPolicy is Observe: {what}"),
            },
            _ => step_condition(*step, step_plan, None),
        })
        .collect();
    let mut new = with_conditions(old, generation, &Acceptance::Accepted, &step_conditions, now);
    facts(&mut new, placement, plan, o, now);
    new.plan = plan.actions().map(|(_, action)| action.to_string()).collect();
    new
}

/// Returns the status of a spec that is not served, or of an object that is being deleted: only the
/// conditions change.
pub fn with_conditions(
    old: &MtlsDomainStatus,
    generation: i64,
    acceptance: &Acceptance,
    step_conditions: &[StepCondition],
    now: Timestamp,
) -> MtlsDomainStatus {
    MtlsDomainStatus {
        observed_generation: Some(generation),
        conditions: conditions::write(&old.conditions, generation, acceptance, step_conditions, now),
        ..old.clone()
    }
}

/// Returns the status when the operator could not determine if the spec is allowed.
pub fn unclear(old: &MtlsDomainStatus, generation: i64, unseen: &Unseen, now: Timestamp) -> MtlsDomainStatus {
    let step_condition = step_condition(
        Step::ResolvedRefs,
        &StepState::Unknown(unseen.clone()).into(),
        None,
    );
    let acceptance = Acceptance::Unclear(StepCondition {
        type_: ConditionType::Accepted,
        ..step_condition
    });
    with_conditions(old, generation, &acceptance, &[], now)
}

/// Fate of the resources in AWS of an object that is being deleted.
pub enum Fate<'a> {
    Deleted,
    /// They stay, or the deletion has not begun.
    Stay,
    /// The domain could not be read.
    Unknown(&'a Unseen),
}

/// Returns the status of an object that is being deleted: Ready is False, and its message is `why`, the
/// current action of the deletion or the reason of its wait. No condition stays True of a resource that may
/// be gone.
pub fn deleting(
    mut status: MtlsDomainStatus,
    generation: i64,
    why: &str,
    fate: &Fate,
    now: Timestamp,
) -> MtlsDomainStatus {
    let all = Step::ALL.iter().filter(|step| step.goes_with_the_domain());
    let all: Vec<_> = all.map(|step| step.condition()).collect();
    let gone = match fate {
        Fate::Deleted => &all[..],
        Fate::Stay | Fate::Unknown(_) => &[],
    };
    if let Fate::Unknown(unseen) = fate {
        let is_true = |c: &Condition| c.status == ConditionStatus::True.as_str();
        let stands = |type_: &ConditionType| {
            let mut conditions = status.conditions.iter();
            conditions.any(|c| c.type_ == type_.as_str() && is_true(c))
        };
        let stale: Vec<_> = all.iter().copied().filter(stands).collect();
        for type_ in stale {
            conditions::set(
                &mut status.conditions,
                generation,
                type_,
                ConditionStatus::Unknown,
                unseen.reason,
                &unseen.message,
                now,
            );
        }
    }
    conditions::deleting(&mut status.conditions, generation, gone, why, now);
    status
}

/// Returns the status of an object whose deletion waits, with the current message of Ready as the reason.
/// `None`: the object is not being deleted, or its status reports the deletion already.
pub fn waiting_deletion(
    domain: &MtlsDomain,
    status: &MtlsDomainStatus,
    now: Timestamp,
) -> Option<MtlsDomainStatus> {
    const SUSPENDED: &str = "the object is to be deleted, and spec.suspend is true: nothing is deleted in \
                             AWS until spec.suspend is false";
    let ready = status
        .conditions
        .iter()
        .find(|c| c.type_ == ConditionType::Ready.as_str())?;
    if domain.metadata.deletion_timestamp.is_none() || ready.reason == Reason::Deleting.as_str() {
        return None;
    }
    let why = match Reason::parse(&ready.reason) {
        _ if domain.spec.suspend => SUSPENDED.to_owned(),
        Some(reason) => with_way_out(domain, reason, &ready.message),
        None => ready.message.clone(),
    };
    let generation = status.observed_generation.unwrap_or_default();
    Some(deleting(status.clone(), generation, &why, &Fate::Stay, now))
}

/// Returns the reason of a deletion's wait. Where AWS refuses the operator, the message names the annotation
/// that releases the object.
pub fn with_way_out(domain: &MtlsDomain, reason: Reason, why: &str) -> String {
    if !seen::is_refused(reason) {
        return why.to_owned();
    }
    let retain = match reason {
        Reason::RecordProtected => "set spec.deletionPolicy to Retain, or ",
        _ => "",
    };
    seen::with_remedy(
        why,
        &format!(
            ". To leave all resources in AWS as they are, {retain}annotate this object with {}: {}",
            finalizer::ABANDON,
            domain.name_any()
        ),
    )
}

/// Returns what a deletion does or waits for, according to the status.
pub fn waits_for(status: &MtlsDomainStatus) -> Option<&str> {
    let is_it =
        |c: &&Condition| c.type_ == ConditionType::Ready.as_str() && c.reason == Reason::Deleting.as_str();
    status.conditions.iter().find(is_it).map(|c| c.message.as_str())
}

/// Returns the status when the operator has no AWS credentials, or none that AWS accepts; `remedy` is the way
/// to provide them.
pub fn without_credentials(
    old: &MtlsDomainStatus,
    generation: i64,
    remedy: &Unseen,
    now: Timestamp,
) -> MtlsDomainStatus {
    let step_plan = StepPlan::from(StepState::Unknown(remedy.clone()));
    let of_step = |step: Step| StepCondition {
        status: match step {
            Step::CertificateIssued => StepStatus::Blocked,
            _ => StepStatus::Unreachable,
        },
        ..step_condition(step, &step_plan, None)
    };
    let step_conditions: Vec<_> = Step::of_every_domain().map(of_step).collect();
    with_conditions(old, generation, &Acceptance::Accepted, &step_conditions, now)
}

/// Sets the facts of a status that users would otherwise search for. A fact that could not be read stays as
/// it was.
pub(crate) fn facts(
    status: &mut MtlsDomainStatus,
    placement: &Placement,
    plan: &Plan,
    o: &Observed,
    now: Timestamp,
) {
    for step in Step::ALL.iter().filter(|step| !plan.steps.contains_key(step)) {
        let type_ = step.condition().as_str();
        status.conditions.retain(|condition| condition.type_ != type_);
    }
    if o.certificates.is_ok() && o.domain.is_ok() && o.named.values().all(Result::is_ok) {
        status.certificate = server_certificate::state(placement, plan, o, now);
    }
    if let Ok(domain) = &o.domain {
        let ours = domain.as_ref().filter(|g| custom_domain::is_ours(placement, g));
        status.target_domain_name = ours.map(|g| g.target.clone());
        status.hosted_zone_id = ours.map(|g| g.hosted_zone_id.clone());
        status.truststore = ours
            .and_then(|g| truststore(g, plan, o, now))
            .or_else(|| status.truststore.clone().filter(|_| ours.is_some()));
        if let Ok(mappings) = &o.mappings {
            let listed = mappings.iter().filter(|_| ours.is_some());
            status.mappings = listed
                .map(|m| MappingState {
                    path: m.path.clone(),
                    id: m.id.clone(),
                })
                .collect();
            status.mappings.sort_by(|a, b| a.path.cmp(&b.path));
        }
    }
    status.dns = dns::records(status, placement, plan, o);
}

fn truststore(g: &Domain, plan: &Plan, o: &Observed, now: Timestamp) -> Option<TruststoreState> {
    let used = g.truststore.as_ref()?;
    let bundle = &o.pinned.as_ref().ok()?.as_ref()?.bundle;
    let published = o.published.as_ref().ok()?.as_ref();
    let findings = plan
        .truststore
        .iter()
        .flat_map(|c| &c.findings)
        .filter(|f| f.severity != Severity::Refused);
    Some(TruststoreState {
        uri: used.uri.clone(),
        version: used.version.clone(),
        sha256: published
            .filter(|p| Some(&p.version) == used.version.as_ref())
            .map(|p| p.sha256.clone()),
        warnings: warnings(
            used.warnings
                .iter()
                .map(|warning| text::shown(warning))
                .chain(findings.map(told))
                .collect(),
        ),
        authorities: bundle
            .entries
            .iter()
            .map(|e| AuthorityStatus {
                name: text::shown(&e.authority),
                subject: text::shown(&e.certificate.subject),
                not_after: Some(conditions::in_seconds(e.certificate.not_after)),
                // The operator does not know the leaves of other authorities.
                living_leaves: e.max_leaf.map(|_| living_leaves(&e.certificate, o, now)),
            })
            .collect(),
    })
}

/// Maximum number of warnings in the status of a truststore: an object of any more does not fit into etcd.
pub const MOST_WARNINGS: usize = 100;

fn warnings(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(MOST_WARNINGS);
    all.truncate(MOST_WARNINGS);
    all.extend((more > 0).then(|| format!("and {more} more")));
    all
}

/// Returns the status with the mTLS bypasses of the mapped APIs. While they are not known, the previous
/// condition stays.
pub fn with_bypasses(
    mut status: MtlsDomainStatus,
    generation: i64,
    bypasses: Option<&[Bypass]>,
    now: Timestamp,
) -> MtlsDomainStatus {
    let type_ = ConditionType::BypassDetected;
    match bypasses {
        None => {}
        Some([]) => status.conditions.retain(|c| c.type_ != type_.as_str()),
        Some(ways) => {
            let ways: Vec<_> = ways
                .iter()
                .map(|w| format!("{} (API {})", w.domain, w.api_id))
                .collect();
            let message = format!(
                "mapped APIs also answer without a client certificate at {}: enable mutual TLS there, or \
                 remove those mappings",
                ways.join(", ")
            );
            conditions::set(
                &mut status.conditions,
                generation,
                type_,
                ConditionStatus::True,
                Reason::OtherDomain,
                &message,
                now,
            );
        }
    }
    status
}

/// Returns the number of ClientCertificates with an unexpired leaf under this authority.
pub(crate) fn living_leaves(authority: &Certificate, o: &Observed, now: Timestamp) -> i32 {
    let key_id = authority
        .subject_key_id
        .iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let is_of = |leaf: &&Leaf| match &leaf.issuer {
        LeafIssuer::Name(name) => *name == text::shown(&authority.subject),
        LeafIssuer::KeyId(id) => !id.is_empty() && *id == key_id,
    };
    let living = o.leaves.iter().filter(|leaf| now < leaf.not_after).filter(is_of);
    let holders: BTreeSet<_> = living.map(|leaf| &leaf.holder).collect();
    i32::try_from(holders.len()).unwrap_or(i32::MAX)
}

/// Returns the status when the operator could read nothing in AWS.
pub fn blind(old: &MtlsDomainStatus, generation: i64, unseen: &Unseen, now: Timestamp) -> MtlsDomainStatus {
    let step_plan = StepPlan::from(StepState::Unknown(unseen.clone()));
    let step_conditions: Vec<_> = Step::of_every_domain()
        .map(|step| step_condition(step, &step_plan, None))
        .collect();
    with_conditions(old, generation, &Acceptance::Accepted, &step_conditions, now)
}

#[cfg(test)]
pub(crate) mod tests;
