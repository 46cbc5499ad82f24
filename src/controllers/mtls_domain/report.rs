//! Report: computes the new status from the plan, the outcomes of its actions and the old status. Pure.

pub mod dns;
pub mod server_certificate;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        AuthorityStatus, MappingState, MtlsDomain, MtlsDomainStatus, TruststoreState,
        conditions::{ConditionType, Reason},
    },
    aws::{errors, gateway::domains::Domain},
    background::bypass_scan::Bypass,
    dataplane::api_gateway::custom_domain,
    model::{
        observed::{Leaf, LeafIssuer, Observed},
        placement::Placement,
        step::{Plan, Step, StepPlan, StepState},
    },
    observation::seen::{Unseen, refusal},
    pki::{certificate::Certificate, lint::Severity},
    status::{Acceptance, ConditionStatus, StepCondition, StepStatus, conditions, text},
    trust::truststore::told,
};

/// Outcome of the first action of a step that did not succeed at once.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The action waits in the queue for AWS quota.
    Queued {
        ahead: usize,
        about: std::time::Duration,
    },
    /// This process may not write at the moment; another process may.
    NotLeading,
    /// The action was done before, and AWS does not show its effect yet.
    NotShown(String),
    Failed(errors::Error),
    /// The Kubernetes API refused the request or did not answer.
    Kubernetes(String),
}

impl Outcome {
    pub fn is_queued(&self) -> bool {
        matches!(self, Outcome::Queued { .. })
    }
}

/// Outcomes by step. A step has at most one, because it stops at its first failure, and does not affect other
/// steps.
pub type Outcomes = BTreeMap<Step, Outcome>;

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

/// Returns the status of an object that is being deleted: Ready is False, and its message is `why`, the
/// current action of the deletion or the reason of its wait. `goes`: the object's resources in AWS are
/// deleted, not retained.
pub fn deleting(
    mut status: MtlsDomainStatus,
    generation: i64,
    why: &str,
    goes: bool,
    now: Timestamp,
) -> MtlsDomainStatus {
    let gone: Vec<_> = Step::ALL
        .iter()
        .filter(|step| goes && step.goes_with_the_domain())
        .map(|step| step.condition())
        .collect();
    conditions::deleting(&mut status.conditions, generation, &gone, why, now);
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
    let why = if domain.spec.suspend {
        SUSPENDED
    } else {
        &ready.message
    };
    let generation = status.observed_generation.unwrap_or_default();
    Some(deleting(status.clone(), generation, why, false, now))
}

/// Returns what a deletion does or waits for, according to the status.
pub fn waits_for(status: &MtlsDomainStatus) -> Option<&str> {
    let is_it =
        |c: &&Condition| c.type_ == ConditionType::Ready.as_str() && c.reason == Reason::Deleting.as_str();
    status.conditions.iter().find(is_it).map(|c| c.message.as_str())
}

/// Returns the status when the operator has no AWS credentials; `remedy` is the way to provide them.
pub fn without_credentials(
    old: &MtlsDomainStatus,
    generation: i64,
    remedy: &str,
    now: Timestamp,
) -> MtlsDomainStatus {
    let unseen = Unseen {
        reason: Reason::CredentialsMissing,
        message: remedy.to_owned(),
    };
    let step_plan = StepPlan::from(StepState::Unknown(unseen));
    let of_step = |step| match (step, step_condition(step, &step_plan, None)) {
        (Step::CertificateIssued, step_condition) => StepCondition {
            status: StepStatus::Blocked,
            ..step_condition
        },
        (_, step_condition) => step_condition,
    };
    let step_conditions: Vec<_> = Step::of_every_domain().map(of_step).collect();
    with_conditions(old, generation, &Acceptance::Accepted, &step_conditions, now)
}

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

/// True when a retry soon may help. It does not when another account has the domain name, and each attempt
/// uses up AWS quota.
pub fn passes(outcome: &Outcome) -> bool {
    explain(outcome).1 != Reason::ForeignOwner
}

fn explain(outcome: &Outcome) -> (StepStatus, Reason, String) {
    match outcome {
        Outcome::Queued { ahead, about } => {
            let when = match (ahead, about.as_secs()) {
                (0, _) => "next",
                (_, 0..=300) => "within 5 minutes",
                (_, 301..=1800) => "within 30 minutes",
                _ => "in more than 30 minutes",
            };
            (
                StepStatus::Working,
                Reason::Queued,
                format!("queued for AWS quota: {when}"),
            )
        }
        Outcome::NotLeading => (
            StepStatus::Unreachable,
            Reason::Unreachable,
            "this operator does not hold its lease at the moment".into(),
        ),
        Outcome::NotShown(what) => (StepStatus::Working, Reason::Progressing, what.clone()),
        Outcome::Kubernetes(why) => (StepStatus::Unreachable, Reason::Unreachable, why.clone()),
        Outcome::Failed(error) => refusal(error),
    }
}

/// Sets the facts of a status that users would otherwise search for. A fact that could not be read stays as
/// it was.
fn facts(status: &mut MtlsDomainStatus, placement: &Placement, plan: &Plan, o: &Observed, now: Timestamp) {
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
const MOST_WARNINGS: usize = 100;

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
fn living_leaves(authority: &Certificate, o: &Observed, now: Timestamp) -> i32 {
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
mod tests;
