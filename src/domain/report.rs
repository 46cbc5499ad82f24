//! Says how things stand: the plan, what became of it and the old status in, the new status out. Pure.
use std::collections::{BTreeMap, BTreeSet};

mod certificate;
mod dns;

pub use certificate::notices;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    bypass::Bypass,
    desired::Placement,
    observed::{Leaf, LeafIssuer, Observed, Unseen},
    plan::{Plan, Step, StepPlan, StepState, custom_domain, told},
};
use crate::{
    api::{
        AuthorityStatus, MappingState, MtlsDomain, MtlsDomainStatus, TruststoreState,
        conditions::{ConditionType, Reason},
    },
    aws::{errors, gateway::Domain},
    conditions::{self, Acceptance, ConditionStatus, StepCondition, StepStatus},
    pki::{certificate::Certificate, lint::Severity},
};

/// What became of the first action of a step that did not simply succeed.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It waits in the queue under AWS's quota.
    Queued {
        ahead: usize,
        about: std::time::Duration,
    },
    /// This process may not write at the moment; another one may.
    NotLeading,
    /// It was done before, and AWS does not show it yet.
    NotShown(String),
    Failed(errors::Error),
    /// The Kubernetes API refused or did not answer.
    Kubernetes(String),
}

impl Outcome {
    pub fn is_queued(&self) -> bool {
        matches!(self, Outcome::Queued { .. })
    }
}

/// One outcome per step at the most: a step stops at its first failure, and hides nobody else's.
pub type Outcomes = BTreeMap<Step, Outcome>;

pub fn condition(step: Step) -> ConditionType {
    match step {
        Step::ResolvedRefs => ConditionType::ResolvedRefs,
        Step::CertificateIssued => ConditionType::CertificateIssued,
        Step::TruststorePublished => ConditionType::TruststorePublished,
        Step::DomainProgrammed => ConditionType::DomainProgrammed,
        Step::MappingsProgrammed => ConditionType::MappingsProgrammed,
        Step::DnsProgrammed => ConditionType::DNSProgrammed,
        Step::BypassClosed => ConditionType::BypassClosed,
        Step::IdentityPropagated => ConditionType::IdentityPropagated,
    }
}

/// The status after a reconcile of a served spec.
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

/// The status with `managementPolicy: Observe`: nothing is done, and what would be is said.
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
        .map(|(step, step_plan)| match &step_plan.state {
            StepState::InProgress(what) => StepCondition {
                type_: condition(*step),
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

/// The status of a spec that is not served, or of one that is being deleted: only the conditions say
/// something new.
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

/// The status when it could not be found out whether the spec is allowed.
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

/// Conditions of what goes with the custom domain.
const GONE: [ConditionType; 5] = [
    ConditionType::CertificateIssued,
    ConditionType::TruststorePublished,
    ConditionType::MappingsProgrammed,
    ConditionType::DNSProgrammed,
    ConditionType::IdentityPropagated,
];

/// The status of an object that is being deleted: Ready is False, and its message is `why`, what the deletion
/// does or waits for. `goes`: what the object has in AWS is deleted with it, and does not stay.
pub fn deleting(
    mut status: MtlsDomainStatus,
    generation: i64,
    why: &str,
    goes: bool,
    now: Timestamp,
) -> MtlsDomainStatus {
    let gone = if goes { GONE.as_slice() } else { &[] };
    conditions::deleting(&mut status.conditions, generation, gone, why, now);
    status
}

/// The status of an object that is being deleted while something else than the deletion decides what Ready
/// says, which is what the deletion waits for. `None`: it is not being deleted, or the status says so
/// already.
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

/// What a deletion does or waits for, as the status says it.
pub fn waits_for(status: &MtlsDomainStatus) -> Option<&str> {
    let is_it =
        |c: &&Condition| c.type_ == ConditionType::Ready.as_str() && c.reason == Reason::Deleting.as_str();
    status.conditions.iter().find(is_it).map(|c| c.message.as_str())
}

/// The status when the operator has no AWS credentials; `remedy` says what to do about that.
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
    let step_conditions: Vec<_> = Step::ALL.into_iter().map(of_step).collect();
    with_conditions(old, generation, &Acceptance::Accepted, &step_conditions, now)
}

/// The one line of an object that is being deleted.
pub fn deletion_condition(step_plan: &StepPlan, outcome: Option<&Outcome>) -> StepCondition {
    let step_condition = step_condition(Step::DomainProgrammed, step_plan, outcome);
    match step_condition.status {
        // Whatever is done here, it is not there any more.
        StepStatus::Done | StepStatus::Working => StepCondition {
            status: StepStatus::Working,
            reason: Reason::Deleting,
            ..step_condition
        },
        _ => step_condition,
    }
}

pub fn step_condition(step: Step, step_plan: &StepPlan, outcome: Option<&Outcome>) -> StepCondition {
    let (status, reason, message) = match (&step_plan.state, outcome) {
        (StepState::Done(reason, message), Some(outcome)) => {
            let (_, _, problem) = explain(outcome);
            (StepStatus::Done, *reason, format!("{message}; {problem}"))
        }
        (StepState::Blocked(reason, message), _) if *reason == Reason::KeptOpen => {
            (StepStatus::Waived, *reason, message.clone())
        }
        (StepState::Blocked(reason, message), _) => (StepStatus::Blocked, *reason, message.clone()),
        (_, Some(outcome)) => explain(outcome),
        (StepState::Done(reason, message), None) => (StepStatus::Done, *reason, message.clone()),
        (StepState::InProgress(what), None) => (StepStatus::Working, Reason::Progressing, what.clone()),
        (StepState::Wait(reason, message), None) => (StepStatus::Working, *reason, message.clone()),
        (StepState::WaitingFor(before), None) => {
            let (reason, what) = waiting_for(*before);
            (StepStatus::Working, reason, format!("waiting for {what}"))
        }
        (StepState::Unknown(unseen), None) => {
            let status = match unseen.reason {
                Reason::PermissionDenied | Reason::HostedZoneNotFound => StepStatus::Blocked,
                _ => StepStatus::Unreachable,
            };
            (status, unseen.reason, unseen.message.clone())
        }
    };
    StepCondition {
        type_: condition(step),
        status,
        reason,
        message,
    }
}

fn waiting_for(step: Step) -> (Reason, &'static str) {
    match step {
        Step::ResolvedRefs => (Reason::WaitingForPrerequisite, "what the spec refers to"),
        Step::CertificateIssued => (Reason::WaitingForCertificate, "the server certificate"),
        Step::TruststorePublished => (Reason::WaitingForTruststore, "the truststore"),
        Step::DomainProgrammed => (Reason::WaitingForDomain, "the custom domain"),
        Step::MappingsProgrammed => (Reason::WaitingForMappings, "the API mappings"),
        Step::IdentityPropagated => (
            Reason::WaitingForPrerequisite,
            "identity headers to be taken out of an API first",
        ),
        Step::DnsProgrammed | Step::BypassClosed => (
            Reason::WaitingForDNS,
            "the DNS records, so that callers have another way in",
        ),
    }
}

/// Whether the conditions say already what became of this step.
pub fn stands_in(conditions: &[Condition], step: Step, outcome: &Outcome) -> bool {
    let (type_, (_, reason, message)) = (condition(step).as_str(), explain(outcome));
    conditions
        .iter()
        .any(|c| c.type_ == type_ && c.reason == reason.as_str() && c.message == message)
}

/// Whether somebody has to make the thing first: to ask again and again is of no use, and to look now and
/// then is.
pub fn is_missing(outcome: &Outcome) -> bool {
    explain(outcome).1 == Reason::RefNotFound
}

/// Whether it is worth trying again soon: not at a name that another account has, because each try spends a
/// turn at AWS's quota.
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

/// What an AWS error means to the one who waits.
pub fn refusal(error: &errors::Error) -> (StepStatus, Reason, String) {
    match error.kind {
        errors::Kind::Denied if error.operation == errors::ASSUME_ROLE => (
            StepStatus::Blocked,
            Reason::PermissionDenied,
            format!(
                "the operator may not assume a role: {error}. Allow {} on it in the operator's IAM policy, \
                 and the operator in the role's \
                 trust policy",
                errors::ASSUME_ROLE
            ),
        ),
        // We looked, and this account has none: names are unique in a Region across all accounts.
        errors::Kind::Conflict if error.operation == "apigateway:CreateDomainName" => (
            StepStatus::Blocked,
            Reason::ForeignOwner,
            "another AWS account has a custom domain of this name in this Region; it has to go there first".into(),
        ),
        errors::Kind::Denied => (
            StepStatus::Blocked,
            Reason::PermissionDenied,
            format!("the operator may not {}: allow it in its IAM policy", error.iam_action()),
        ),
        errors::Kind::Throttled => {
            (StepStatus::Unreachable, Reason::Throttled, format!("{} is throttled; trying again", error.operation))
        }
        errors::Kind::Transient => (StepStatus::Unreachable, Reason::Unreachable, error.to_string()),
        errors::Kind::NotFound if error.operation == "lambda:AddPermission" => (
            StepStatus::Blocked,
            Reason::RefNotFound,
            "spec.identity.authorizer.functionArn: there is no such function, or no such version or alias of \
             it: make it, or name another".into(),
        ),
        // Something changed since we looked; the next reconcile says what.
        errors::Kind::NotFound | errors::Kind::Conflict => {
            (StepStatus::Working, Reason::Progressing, format!("{error}; trying again"))
        }
        errors::Kind::Invalid => (StepStatus::Blocked, Reason::AwsRejected, error.to_string()),
    }
}

/// What people would otherwise dig for. What could not be seen stays as it was.
fn facts(status: &mut MtlsDomainStatus, placement: &Placement, plan: &Plan, o: &Observed, now: Timestamp) {
    if !plan.steps.contains_key(&Step::IdentityPropagated) {
        let type_ = ConditionType::IdentityPropagated.as_str();
        status.conditions.retain(|condition| condition.type_ != type_);
    }
    if o.certificates.is_ok() && o.domain.is_ok() && o.named.values().all(Result::is_ok) {
        status.certificate = certificate::state(placement, plan, o, now);
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
                .map(|warning| conditions::shown(warning))
                .chain(findings.map(told))
                .collect(),
        ),
        authorities: bundle
            .entries
            .iter()
            .map(|e| AuthorityStatus {
                name: conditions::shown(&e.authority),
                subject: conditions::shown(&e.certificate.subject),
                not_after: Some(conditions::in_seconds(e.certificate.not_after)),
                // Of others we do not know.
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

/// The same, with the other ways to the mapped APIs; as long as nothing is known of them, what was said last
/// still stands.
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
                "mapped APIs also answer, without asking for a client certificate, at {}: turn mutual TLS on \
                 there, or remove those mappings",
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

/// How many ClientCertificates have an unexpired leaf under it.
fn living_leaves(authority: &Certificate, o: &Observed, now: Timestamp) -> i32 {
    let key_id = authority
        .subject_key_id
        .iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let is_of = |leaf: &&Leaf| match &leaf.issuer {
        LeafIssuer::Name(name) => *name == conditions::shown(&authority.subject),
        LeafIssuer::KeyId(id) => !id.is_empty() && *id == key_id,
    };
    let living = o.leaves.iter().filter(|leaf| now < leaf.not_after).filter(is_of);
    let holders: BTreeSet<_> = living.map(|leaf| &leaf.holder).collect();
    i32::try_from(holders.len()).unwrap_or(i32::MAX)
}

/// The status when nothing at all could be looked at.
pub fn blind(old: &MtlsDomainStatus, generation: i64, unseen: &Unseen, now: Timestamp) -> MtlsDomainStatus {
    let step_plan = StepPlan::from(StepState::Unknown(unseen.clone()));
    let step_conditions: Vec<_> = Step::ALL
        .into_iter()
        .map(|step| step_condition(step, &step_plan, None))
        .collect();
    with_conditions(old, generation, &Acceptance::Accepted, &step_conditions, now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        aws::errors::{Error, Kind},
        domain::{
            plan::{Action, plan},
            simulation::{now, settled},
        },
    };

    fn error(kind: Kind, operation: &'static str) -> Error {
        Error {
            kind,
            operation,
            code: None,
            message: "m".into(),
            source: None,
        }
    }

    fn unseen(reason: Reason) -> Unseen {
        Unseen {
            reason,
            message: "m".into(),
        }
    }

    #[test]
    fn what_somebody_has_to_put_right_is_false_and_what_passes_is_unknown() {
        let of = |state: StepState, outcome: Option<&Outcome>| {
            let step_condition = step_condition(Step::DomainProgrammed, &state.into(), outcome);
            (step_condition.status, step_condition.reason)
        };
        for (reason, expected) in [
            (Reason::PermissionDenied, StepStatus::Blocked),
            (Reason::HostedZoneNotFound, StepStatus::Blocked),
            (Reason::Unreachable, StepStatus::Unreachable),
            (Reason::Throttled, StepStatus::Unreachable),
            (Reason::AwsRejected, StepStatus::Unreachable),
        ] {
            assert_eq!(of(StepState::Unknown(unseen(reason)), None), (expected, reason));
        }
        let failed = Outcome::Failed(error(Kind::Denied, "acm:RequestCertificate"));
        let text = || "m".to_owned();
        for (what, state, outcome, expected) in [
            (
                "done",
                StepState::Done(Reason::Programmed, text()),
                None,
                (StepStatus::Done, Reason::Programmed),
            ),
            (
                "done, and the rest failed",
                StepState::Done(Reason::Programmed, text()),
                Some(&failed),
                (StepStatus::Done, Reason::Programmed),
            ),
            (
                "acted",
                StepState::InProgress(text()),
                None,
                (StepStatus::Working, Reason::Progressing),
            ),
            (
                "acted and failed",
                StepState::InProgress(text()),
                Some(&failed),
                (StepStatus::Blocked, Reason::PermissionDenied),
            ),
            (
                "waits",
                StepState::Wait(Reason::WaitingForDomain, text()),
                None,
                (StepStatus::Working, Reason::WaitingForDomain),
            ),
            (
                "behind",
                StepState::WaitingFor(Step::TruststorePublished),
                None,
                (StepStatus::Working, Reason::WaitingForTruststore),
            ),
            (
                "blocked",
                StepState::Blocked(Reason::ForeignOwner, text()),
                None,
                (StepStatus::Blocked, Reason::ForeignOwner),
            ),
            (
                "blocked, and the rest failed",
                StepState::Blocked(Reason::ForeignOwner, text()),
                Some(&failed),
                (StepStatus::Blocked, Reason::ForeignOwner),
            ),
            (
                "as the spec wants it",
                StepState::Blocked(Reason::KeptOpen, text()),
                None,
                (StepStatus::Waived, Reason::KeptOpen),
            ),
        ] {
            assert_eq!(of(state, outcome), expected, "{what}");
        }
    }

    #[test]
    fn what_an_aws_error_means_to_the_one_who_waits() {
        for (kind, operation, status, reason, told) in [
            (
                Kind::Denied,
                errors::ASSUME_ROLE,
                StepStatus::Blocked,
                Reason::PermissionDenied,
                "trust policy",
            ),
            (
                Kind::Denied,
                "acm:ListCertificates",
                StepStatus::Blocked,
                Reason::PermissionDenied,
                "acm:ListCertificates",
            ),
            (
                Kind::Conflict,
                "apigateway:CreateDomainName",
                StepStatus::Blocked,
                Reason::ForeignOwner,
                "another AWS account",
            ),
            (
                Kind::Conflict,
                "apigateway:UpdateDomainName",
                StepStatus::Working,
                Reason::Progressing,
                "trying again",
            ),
            (
                Kind::NotFound,
                "apigateway:UpdateDomainName",
                StepStatus::Working,
                Reason::Progressing,
                "trying again",
            ),
            (
                Kind::NotFound,
                "lambda:AddPermission",
                StepStatus::Blocked,
                Reason::RefNotFound,
                "functionArn",
            ),
            (
                Kind::Throttled,
                "acm:ListCertificates",
                StepStatus::Unreachable,
                Reason::Throttled,
                "throttled",
            ),
            (
                Kind::Transient,
                "acm:ListCertificates",
                StepStatus::Unreachable,
                Reason::Unreachable,
                "m",
            ),
            (
                Kind::Invalid,
                "acm:RequestCertificate",
                StepStatus::Blocked,
                Reason::AwsRejected,
                "m",
            ),
        ] {
            let found = refusal(&error(kind, operation));
            assert_eq!((found.0, found.1), (status, reason), "{operation} {kind:?}");
            assert!(found.2.contains(told), "{}", found.2);
        }
    }

    #[test]
    fn an_outcome_says_what_is_waited_for_and_whether_it_passes() {
        let queued = |ahead, seconds| Outcome::Queued {
            ahead,
            about: Duration::from_secs(seconds),
        };
        for (outcome, status, reason, told, passing) in [
            (
                queued(0, 5000),
                StepStatus::Working,
                Reason::Queued,
                ": next",
                true,
            ),
            (
                queued(1, 300),
                StepStatus::Working,
                Reason::Queued,
                "within 5 minutes",
                true,
            ),
            (
                queued(9, 301),
                StepStatus::Working,
                Reason::Queued,
                "within 30 minutes",
                true,
            ),
            (
                queued(99, 1801),
                StepStatus::Working,
                Reason::Queued,
                "in more than 30 minutes",
                true,
            ),
            (
                Outcome::NotLeading,
                StepStatus::Unreachable,
                Reason::Unreachable,
                "lease",
                true,
            ),
            (
                Outcome::NotShown("n".into()),
                StepStatus::Working,
                Reason::Progressing,
                "n",
                true,
            ),
            (
                Outcome::Kubernetes("c".into()),
                StepStatus::Unreachable,
                Reason::Unreachable,
                "c",
                true,
            ),
            (
                Outcome::Failed(error(Kind::Transient, "acm:ListCertificates")),
                StepStatus::Unreachable,
                Reason::Unreachable,
                "m",
                true,
            ),
            (
                Outcome::Failed(error(Kind::Conflict, "apigateway:CreateDomainName")),
                StepStatus::Blocked,
                Reason::ForeignOwner,
                "another",
                false,
            ),
        ] {
            let found = explain(&outcome);
            assert_eq!(
                (found.0, found.1, passes(&outcome)),
                (status, reason, passing),
                "{outcome:?}"
            );
            assert!(found.2.contains(told), "{}", found.2);
        }
    }

    #[test]
    fn what_is_being_deleted_is_never_done() {
        let of = |state: StepState| {
            let step_condition = deletion_condition(&state.into(), None);
            (step_condition.status, step_condition.reason)
        };
        assert_eq!(
            of(StepState::Done(Reason::Programmed, "m".into())),
            (StepStatus::Working, Reason::Deleting)
        );
        assert_eq!(
            of(StepState::InProgress("m".into())),
            (StepStatus::Working, Reason::Deleting)
        );
        assert_eq!(
            of(StepState::Blocked(Reason::ForeignOwner, "m".into())),
            (StepStatus::Blocked, Reason::ForeignOwner)
        );
        let denied = unseen(Reason::PermissionDenied);
        assert_eq!(
            of(StepState::Unknown(denied)),
            (StepStatus::Blocked, Reason::PermissionDenied)
        );
    }

    fn condition_of(status: &MtlsDomainStatus, type_: ConditionType) -> (String, String) {
        let found = status.conditions.iter().find(|c| c.type_ == type_.as_str());
        found
            .map(|c| (c.status.clone(), c.reason.clone()))
            .unwrap_or_default()
    }

    #[test]
    fn only_observed_a_domain_says_what_would_be_done_and_is_not_ready() {
        let (d, mut o) = settled();
        o.domain.as_mut().unwrap().as_mut().unwrap().ip_address_type =
            crate::aws::gateway::IpAddressType::Dualstack;
        let plan = plan(&d, &o, now());
        let told: Vec<_> = plan
            .actions()
            .map(|(_, action): (_, &Action)| action.to_string())
            .collect();
        assert_eq!(told.len(), 1);
        let old = MtlsDomainStatus::default();
        let new = observing(&old, 1, &d.placement, &plan, &o, now());
        assert_eq!(new.plan, told);
        let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(
            condition_of(&new, ConditionType::DomainProgrammed),
            is("False", "Observing")
        );
        assert_eq!(
            condition_of(&new, ConditionType::TruststorePublished),
            is("True", "Published")
        );
        assert_eq!(condition_of(&new, ConditionType::Ready), is("False", "Observing"));
        let served = report(&new, 1, &d.placement, &plan, &o, &Outcomes::new(), now());
        assert!(served.plan.is_empty(), "what was planned before is done now");
    }

    #[test]
    fn what_could_not_be_seen_stays_in_the_status_as_it_was() {
        let (d, o) = settled();
        let plan_of = |o: &Observed| plan(&d, o, now());
        let seen = report(
            &MtlsDomainStatus::default(),
            1,
            &d.placement,
            &plan_of(&o),
            &o,
            &Outcomes::new(),
            now(),
        );
        assert!(seen.truststore.is_some() && seen.certificate.is_some() && seen.target_domain_name.is_some());
        assert_eq!(seen.mappings.len(), 3);
        type Change = fn(&mut Observed);
        let changes: [(&str, Change); 4] = [
            ("the domain", |o| {
                o.domain = Err(Unseen {
                    reason: Reason::Unreachable,
                    message: "m".into(),
                })
            }),
            ("the certificates", |o| {
                o.certificates = Err(Unseen {
                    reason: Reason::Unreachable,
                    message: "m".into(),
                })
            }),
            ("the mappings", |o| {
                o.mappings = Err(Unseen {
                    reason: Reason::Unreachable,
                    message: "m".into(),
                })
            }),
            ("the truststore", |o| {
                o.pinned = Err(Unseen {
                    reason: Reason::Unreachable,
                    message: "m".into(),
                })
            }),
        ];
        for (what, change) in changes {
            let mut o = o.clone();
            change(&mut o);
            let new = report(&seen, 1, &d.placement, &plan_of(&o), &o, &Outcomes::new(), now());
            let facts = |s: &MtlsDomainStatus| {
                (
                    s.truststore.clone(),
                    s.certificate.clone(),
                    s.target_domain_name.clone(),
                    s.mappings.clone(),
                )
            };
            assert_eq!(facts(&new), facts(&seen), "{what}");
        }
        let mut gone = o.clone();
        (gone.domain, gone.pinned, gone.mappings) = (Ok(None), Ok(None), Ok(vec![]));
        let new = report(
            &seen,
            1,
            &d.placement,
            &plan_of(&gone),
            &gone,
            &Outcomes::new(),
            now(),
        );
        assert!(new.truststore.is_none() && new.target_domain_name.is_none() && new.mappings.is_empty());
        let mut cross_namespace = o.clone();
        cross_namespace
            .domain
            .as_mut()
            .unwrap()
            .as_mut()
            .unwrap()
            .tags
            .clear();
        let new = report(
            &seen,
            1,
            &d.placement,
            &plan_of(&cross_namespace),
            &cross_namespace,
            &Outcomes::new(),
            now(),
        );
        assert!(new.truststore.is_none() && new.target_domain_name.is_none() && new.mappings.is_empty());
    }

    #[test]
    fn bypasses_are_told_while_they_are_known_and_there() {
        let old = MtlsDomainStatus::default();
        let way = [Bypass {
            domain: "plain.example.com".into(),
            api_id: "a1".into(),
        }];
        let found = with_bypasses(old.clone(), 1, Some(&way), now());
        assert_eq!(condition_of(&found, ConditionType::BypassDetected).0, "True");
        assert_eq!(
            with_bypasses(found.clone(), 1, None, now()),
            found,
            "nothing is known: as it was"
        );
        assert_eq!(
            with_bypasses(found, 1, Some(&[]), now()).conditions,
            old.conditions
        );
    }

    #[test]
    fn living_leaves_are_those_of_the_authority_that_have_not_expired() {
        let (_, mut o) = settled();
        let authority = crate::domain::simulation::authority_certificate();
        let hour = jiff::SignedDuration::from_hours(1);
        let key_id: String = authority
            .subject_key_id
            .iter()
            .flatten()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let leaf = |holder: &str, issuer: LeafIssuer, end| Leaf {
            holder: holder.into(),
            issuer,
            not_after: end,
        };
        let name = || LeafIssuer::Name(authority.subject.clone());
        o.leaves = vec![
            leaf("a", name(), now() + hour),
            leaf("a", LeafIssuer::KeyId(key_id.clone()), now() + hour),
            leaf("b", LeafIssuer::KeyId(key_id), now() + hour),
            leaf("c", name(), now()),
            leaf("d", LeafIssuer::Name("CN=Other".into()), now() + hour),
            leaf("e", LeafIssuer::KeyId(String::new()), now() + hour),
        ];
        assert_eq!(living_leaves(&authority, &o, now()), 2);
        let mut nameless = authority.clone();
        nameless.subject_key_id = None;
        assert_eq!(living_leaves(&nameless, &o, now()), 1, "no id is nobody's");
    }

    #[test]
    fn when_nothing_can_be_looked_at_every_step_says_so() {
        let new = blind(
            &MtlsDomainStatus::default(),
            1,
            &unseen(Reason::PermissionDenied),
            now(),
        );
        for step in Step::ALL {
            assert_eq!(
                condition_of(&new, condition(step)),
                ("False".into(), "PermissionDenied".into())
            );
        }
        let new = unclear(
            &MtlsDomainStatus::default(),
            1,
            &unseen(Reason::Unreachable),
            now(),
        );
        assert_eq!(
            condition_of(&new, ConditionType::Accepted),
            ("Unknown".into(), "Unreachable".into())
        );
        assert_eq!(
            condition_of(&new, ConditionType::ResolvedRefs),
            (String::new(), String::new())
        );
    }
}
