//! Course of one reconcile of an `MtlsDomain`: what the operator does next, decided from the object, the
//! operator's policy, the answer of AWS about account and Region, the other domains and the certificates.
//! Pure: the caller reads what the course asks for, and decides again.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    access_request, conflicts,
    permission::{self, Answer},
};

use crate::{
    api::{ManagementPolicy, MtlsDomain, conditions::Reason},
    aws::{partitions, tags::Tags},
    model::{
        desired::{self, Clients, Desired},
        placement::{OperatorConfig, Placement, UnresolvedPlacement},
    },
    observation::seen::Unseen,
    policy::{AccessRequest, Decision, Missing, Policy},
    runtime::{finalizer, watch::Cached},
    status::{Acceptance, Refused},
};

/// Facts that the course depends on. The functions are called only when the course depends on their result.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub domain: &'a MtlsDomain,
    pub cluster_id: &'a str,
    /// Value of `--truststore-bucket`.
    pub truststore_bucket: Option<&'a str>,
    /// Value of `--aws-tags`.
    pub aws_tags: &'a Tags,
    pub policy: Option<&'a Policy>,
    /// Returns the labels of a namespace, if known.
    pub labels: &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    /// Answer of AWS to the operator's credentials; `None`: the operator has not asked yet.
    pub session: Option<&'a Result<Located, Blind>>,
    /// Returns all domains.
    pub all: &'a dyn Fn() -> Vec<Arc<Cached<MtlsDomain>>>,
    /// Returns whether a domain keeps its claim on its domain name, by its own last reconcile; `None`: the
    /// operator has not reconciled it since its start.
    pub claim: &'a dyn Fn(&MtlsDomain) -> Option<bool>,
    /// Returns the requirements of the domain's ClientCertificates.
    pub clients: &'a dyn Fn() -> Clients,
}

/// Account and Region of a session.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub account: String,
    pub region: String,
    /// Region of domains that specify none; empty when the operator has no Region of its own.
    pub own_region: String,
}

/// Cause of a missing session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Blind {
    /// The operator has no AWS credentials, or none that AWS accepts; holds the remedy.
    WithoutCredentials(Unseen),
    Unseen(Unseen),
}

/// What a reconcile does next. Only [`Course::Delete`] and [`Course::Serve`] write to AWS.
#[derive(Debug)]
pub(crate) enum Course {
    /// The object is deleted and has nothing in AWS: the operator drops its in-memory state.
    Forget,
    /// The object is deleted and has the annotation `mtls-operator.io/abandon`: the operator removes the
    /// finalizer without an AWS call.
    Abandon,
    /// The object is deleted and was only observed: the operator changes nothing in AWS.
    Leave,
    /// The operator changes nothing.
    Suspend,
    /// The operator asks AWS for account and Region, and decides again.
    OpenSession,
    /// The operator has no session: it tries again.
    Retry(Blind),
    /// The policy's answer depends on something that the operator could not read: it tries again.
    Unclear(Unseen),
    /// An older domain has the domain name, and the operator has not reconciled it since its start: the
    /// operator leaves everything as it is, and tries again.
    AwaitOlder,
    /// The operator does not serve the domain.
    Refuse(Acceptance),
    /// The object's resources are in another account or Region: the operator changes nothing in either.
    Moved(Acceptance),
    Delete(Box<Placement>),
    Serve(Box<Desired>),
}

/// Decides the course of a reconcile. Without a session the answer never is to write to AWS.
pub(crate) fn course(facts: &Facts) -> Course {
    let Facts { domain, .. } = *facts;
    let deleting = domain.metadata.deletion_timestamp.is_some();
    if deleting && !finalizer::is_held(domain) {
        return Course::Forget;
    } else if deleting && finalizer::is_abandoned(domain) {
        return Course::Abandon;
    } else if domain.spec.suspend {
        return Course::Suspend;
    } else if deleting && domain.spec.management_policy == ManagementPolicy::Observe {
        return Course::Leave;
    }
    let Some(session) = facts.session else {
        return before_session(facts, deleting);
    };
    let located = match session {
        Ok(located) => located,
        Err(blind) => return Course::Retry(blind.clone()),
    };
    let placement = match permitted(facts, domain, located) {
        Ok(placement) => placement,
        Err(course) => return course,
    };
    if deleting {
        return Course::Delete(Box::new(placement));
    }
    if let Some(course) = claimed(facts, located) {
        return course;
    }
    match desired::desired(domain, &operator_config(facts, located), (facts.clients)()) {
        Ok(desired) => Course::Serve(Box::new(desired)),
        Err(Refused { reason, message }) => Course::Refuse(Acceptance::Refused {
            reason,
            message,
            stalled: true,
        }),
    }
}

/// Returns the course before AWS has answered: the policy may refuse the spec, and never admits it. A Region
/// that does not exist has no endpoint that could answer.
fn before_session(facts: &Facts, deleting: bool) -> Course {
    let decision = decide_unresolved(facts, facts.domain, deleting);
    if decision != Decision::Unknown(Missing::Resource) {
        match permission::answer(facts.domain, decision, None) {
            Answer::Refused(refused) => return Course::Refuse(refused),
            Answer::Unclear(unseen) => return Course::Unclear(unseen),
            Answer::Allowed => {}
        }
    }
    match facts.domain.region().map_or(Ok(()), partitions::check) {
        Err(unknown) if !deleting => Course::Refuse(Acceptance::Refused {
            reason: Reason::InvalidSpec,
            message: format!("spec.aws.region: {unknown}"),
            stalled: true,
        }),
        _ => Course::OpenSession,
    }
}

/// Returns the placement of a domain in this account and Region; `Err`: the course of a domain that the
/// policy does not certainly allow there, or whose resources are elsewhere.
fn permitted(facts: &Facts, domain: &MtlsDomain, located: &Located) -> Result<Placement, Course> {
    let placement = Placement::of(domain, &operator_config(facts, located));
    let requests = access_request::of(domain, &placement, domain.metadata.deletion_timestamp.is_some());
    match permission::answer(domain, decide(facts, domain, &requests), None) {
        Answer::Allowed => {}
        Answer::Unclear(unseen) => return Err(Course::Unclear(unseen)),
        Answer::Refused(refused) => return Err(Course::Refuse(refused)),
    }
    match moved(domain, &placement) {
        Some(moved) => Err(Course::Moved(moved)),
        None => Ok(placement),
    }
}

fn operator_config<'a>(facts: &Facts<'a>, located: &'a Located) -> OperatorConfig<'a> {
    OperatorConfig {
        cluster_id: facts.cluster_id,
        account: &located.account,
        region: &located.region,
        truststore_bucket: facts.truststore_bucket,
        tags: facts.aws_tags,
    }
}

fn decide(facts: &Facts, domain: &MtlsDomain, requests: &[AccessRequest]) -> Decision {
    permission::decide(facts.policy, domain, requests, facts.labels)
}

fn decide_unresolved(facts: &Facts, domain: &MtlsDomain, deleting: bool) -> Decision {
    let placement = UnresolvedPlacement::of(domain, facts.cluster_id);
    let requests = access_request::unresolved(domain, &placement, deleting);
    decide(facts, domain, &requests)
}

/// Returns the course of a domain whose domain name another domain has the claim on. A domain about which the
/// operator does not know whether it is served keeps its claim.
fn claimed(facts: &Facts, located: &Located) -> Option<Course> {
    let all = (facts.all)();
    let all = all.iter().filter_map(|d| d.0.as_ref().ok());
    let has_no_claim = |other: &MtlsDomain| has_no_claim(facts, other, located);
    let winner = conflicts::winner(facts.domain, all, has_no_claim, &located.own_region)?;
    Some(match (facts.claim)(winner) {
        Some(_) => Course::Refuse(conflicts::refusal(facts.domain, winner)),
        None => Course::AwaitOlder,
    })
}

/// True when the operator does not serve `other`, whatever the older domains with its domain name are.
/// `located` is the account and Region of a domain in the same Region as `other`.
fn has_no_claim(facts: &Facts, other: &MtlsDomain, located: &Located) -> bool {
    let deleting = other.metadata.deletion_timestamp.is_some();
    if (facts.claim)(other) == Some(false) || !conflicts::may_hold_its_name(other) {
        return true;
    }
    let role = |d: &MtlsDomain| d.spec.aws.as_ref().and_then(|aws| aws.assume_role.clone());
    if role(other) != role(facts.domain) {
        // Only its own reconcile learns its account.
        return matches!(decide_unresolved(facts, other, deleting), Decision::Denied(_));
    }
    match permitted(facts, other, located) {
        Err(course) => matches!(course, Course::Refuse(_) | Course::Moved(_)),
        Ok(_) => !deleting && desired::refusal(other, &operator_config(facts, located)).is_some(),
    }
}

/// Returns a refusal when the resources of this object are in another account or Region than its placement.
fn moved(domain: &MtlsDomain, placement: &Placement) -> Option<Acceptance> {
    let before = finalizer::placement(domain).filter(|before| *before != placement.location())?;
    Some(Acceptance::Refused {
        reason: Reason::HomeChanged,
        message: format!(
            "the resources of this object are in {before}, but its account and Region are now {}; the \
             operator changes nothing in either. Set account and Region back to {before}, or \
             delete this object there first",
            placement.location()
        ),
        stalled: true,
    })
}

#[cfg(test)]
mod tests;
