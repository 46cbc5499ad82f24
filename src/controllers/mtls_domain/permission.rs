//! Decision of the operator's policy on one reconcile of an `MtlsDomain`: made before the first call to AWS,
//! again when AWS has reported the account, and again when zones and APIs are found. Writes the status of a
//! domain that is not allowed.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action as Next};

use super::{claims::Finding, context::Ctx, report};

use crate::{
    api::{MtlsDomain, MtlsDomainStatus, conditions::Reason, object_id::ObjectId},
    observation::seen::Unseen,
    policy::{AccessRequest, Decision, Missing, Namespace, Policy, Resource},
    runtime::{finalizer, reconcile::Error},
    status::Acceptance,
};

/// Policy in force at the start of a reconcile. A change of the policy triggers another reconcile.
pub(crate) struct Permission<'a> {
    pub ctx: &'a Ctx,
    pub domain: &'a MtlsDomain,
    pub old: &'a MtlsDomainStatus,
    pub now: Timestamp,
    policy: Option<Arc<Policy>>,
}

impl<'a> Permission<'a> {
    pub fn of(domain: &'a MtlsDomain, old: &'a MtlsDomainStatus, ctx: &'a Ctx, now: Timestamp) -> Self {
        Permission {
            ctx,
            domain,
            old,
            now,
            policy: ctx.policy.borrow().clone(),
        }
    }

    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_deref()
    }

    /// True when the policy certainly allows these requests.
    pub fn allows(&self, requests: &[AccessRequest]) -> bool {
        self.answer(requests, None) == Answer::Allowed
    }

    /// Ends the reconcile and writes the status when the policy does not allow these requests; `None`: the
    /// policy allows them. `unseen` is a failed read that the answer may depend on.
    pub async fn ends(
        &self,
        requests: &[AccessRequest],
        unseen: Option<&Unseen>,
    ) -> Result<Option<Next>, Error> {
        match self.answer(requests, unseen) {
            Answer::Allowed => Ok(None),
            Answer::Unclear(unseen) => self.unclear(&unseen).await.map(Some),
            Answer::Refused(refused) => self.refuse(&refused).await.map(Some),
        }
    }

    /// Reports that the operator could not determine if the spec is allowed, and requeues with backoff.
    pub async fn unclear(&self, unseen: &Unseen) -> Result<Next, Error> {
        self.ctx.claims.record(self.domain, Finding::of_failure(unseen));
        let generation = self.domain.metadata.generation.unwrap_or_default();
        let new = report::unclear(self.old, generation, unseen, self.now);
        let next = Next::requeue(self.ctx.backoff(&self.domain.uid().unwrap_or_default()));
        self.ctx.write(self.domain, self.old, &new).await?;
        Ok(next)
    }

    /// Reports the refusal of the spec: the operator does not serve the domain.
    pub async fn refuse(&self, refused: &Acceptance) -> Result<Next, Error> {
        let domain = self.domain;
        self.ctx.bypasses.forget(&ObjectId::of(domain));
        self.ctx.claims.record(domain, Finding::of_refusal(refused));
        let generation = domain.metadata.generation.unwrap_or_default();
        let new = report::with_conditions(self.old, generation, refused, &[], self.now);
        self.ctx.write(domain, self.old, &new).await?;
        Ok(self.ctx.resync_later(&domain.uid().unwrap_or_default()))
    }

    fn answer(&self, requests: &[AccessRequest], unseen: Option<&Unseen>) -> Answer {
        let labels = |namespace: &str| self.ctx.labels(namespace);
        answer(
            self.domain,
            decide(self.policy(), self.domain, requests, labels),
            unseen,
        )
    }
}

/// Returns the policy's answer for all requests of `domain`; without a policy everything is allowed, except
/// for an unresolved placement.
/// `labels`: returns the labels of a namespace, if known.
pub(crate) fn decide(
    policy: Option<&Policy>,
    domain: &MtlsDomain,
    requests: &[AccessRequest],
    labels: impl FnOnce(&str) -> Option<BTreeMap<String, String>>,
) -> Decision {
    let Some(policy) = policy else {
        let is_unresolved = |r: &AccessRequest| r.resource == Resource::Unresolved;
        return match requests.iter().any(is_unresolved) {
            true => Decision::Unknown(Missing::Resource),
            false => Decision::Allowed,
        };
    };
    let name = domain.namespace().unwrap_or_default();
    policy.decide(
        Namespace {
            name: &name,
            labels: labels(&name).as_ref(),
        },
        requests,
    )
}

/// Consequence of the policy's answer for a reconcile.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Allowed,
    /// The answer depends on something that could not be read.
    Unclear(Unseen),
    Refused(Acceptance),
}

pub(crate) fn answer(domain: &MtlsDomain, decision: Decision, unseen: Option<&Unseen>) -> Answer {
    match decision {
        Decision::Allowed => Answer::Allowed,
        Decision::Unknown(_) => Answer::Unclear(unseen.cloned().unwrap_or_else(|| {
            Unseen {
                reason: Reason::Unreachable,
                message:
                    "the labels of the namespace, by which the operator's policy decides, are not known yet"
                        .into(),
            }
        })),
        Decision::Denied(mut message) => {
            if domain.metadata.deletion_timestamp.is_some() {
                message = format!(
                    "{message}. Until then nothing is deleted in AWS; to keep all resources there, \
                     annotate this object with {}: {}",
                    finalizer::ABANDON,
                    domain.name_any()
                );
            }
            Answer::Refused(Acceptance::Refused {
                reason: Reason::NotPermitted,
                message,
                stalled: false,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    use crate::{
        api::{MtlsDomain, conditions::Reason},
        controllers::mtls_domain::access_request,
        model::placement::UnresolvedPlacement,
        observation::seen::Unseen,
        policy::{AccessRequest, Decision, Missing, Resource, file},
        status::Acceptance,
    };

    fn domain(spec: Value) -> MtlsDomain {
        let metadata = json!({"name": "partners", "namespace": "shop"});
        let mut object = json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain"});
        (object["metadata"], object["spec"]) = (metadata, spec);
        serde_json::from_value(object).unwrap()
    }

    fn deleted(mut domain: MtlsDomain) -> MtlsDomain {
        let at = jiff::Timestamp::UNIX_EPOCH;
        domain.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
        domain
    }

    #[test]
    fn a_reconcile_continues_only_when_the_policy_allows_it() {
        let domain = domain(json!({"domainName": "a.example.com"}));
        let zones = Unseen {
            reason: Reason::Throttled,
            message: "the zones".into(),
        };
        assert_eq!(answer(&domain, Decision::Allowed, None), Answer::Allowed);
        assert_eq!(
            answer(&domain, Decision::Allowed, Some(&zones)),
            Answer::Allowed,
            "the answer does not depend on the failed read"
        );
        assert_eq!(
            answer(&domain, Decision::Unknown(Missing::Resource), Some(&zones)),
            Answer::Unclear(zones.clone())
        );
        let Answer::Unclear(labels) = answer(&domain, Decision::Unknown(Missing::Labels), None) else {
            panic!("not known")
        };
        assert!(
            labels.reason == Reason::Unreachable && labels.message.contains("the labels of the namespace")
        );
        let refused = |domain: &MtlsDomain| match answer(domain, Decision::Denied("m".into()), Some(&zones)) {
            Answer::Refused(Acceptance::Refused {
                reason: Reason::NotPermitted,
                message,
                stalled: false,
            }) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&domain), "m");
        assert!(
            refused(&deleted(domain))
                .ends_with("annotate this object with mtls-operator.io/abandon: partners")
        );
    }

    #[test]
    fn the_policy_decides_by_the_namespace_and_its_labels() {
        let domain = domain(json!({"domainName": "a.example.com"}));
        let requests = [AccessRequest {
            part: "p".into(),
            resource: Resource::Name("a.example.com".into()),
        }];
        let of = |text: &str, labels: Option<&str>| {
            let policy = file::parse(text).unwrap();
            decide(Some(&policy), &domain, &requests, |namespace| {
                assert_eq!(namespace, "shop");
                labels.map(|team| [("team".to_owned(), team.to_owned())].into())
            })
        };
        let by_label = "rules: [{name: a, namespaces: {matchLabels: {team: a}}}]";
        assert_eq!(of(by_label, Some("a")), Decision::Allowed);
        assert!(matches!(of(by_label, Some("b")), Decision::Denied(_)));
        assert_eq!(of(by_label, None), Decision::Unknown(Missing::Labels));
        assert!(matches!(
            of("rules: [{name: a, namespaces: {names: [other]}}]", None),
            Decision::Denied(_)
        ));
        assert_eq!(
            decide(None, &domain, &requests, |_| None),
            Decision::Allowed,
            "without a policy"
        );
    }

    #[test]
    fn an_unresolved_placement_is_unknown_or_denied() {
        let aws = json!({"accountId": "123456789012", "region": "eu-west-1"});
        let bucket = json!({"bucket": "bkt"});
        let rules = |bounds: &str| format!("rules: [{{name: a, namespaces: {{}}, {bounds}}}]");
        for (spec, bounds, denied) in [
            (json!({}), None, false),
            (json!({"aws": aws, "truststore": bucket}), None, false),
            (json!({}), Some("regions: [eu-west-1]"), false),
            (json!({}), Some("accounts: [\"123456789012\"]"), false),
            (json!({}), Some("buckets: [{name: bkt}]"), false),
            (
                json!({"aws": aws}),
                Some("regions: [eu-west-1], buckets: [{name: bkt}]"),
                false,
            ),
            (
                json!({"aws": aws, "truststore": bucket}),
                Some("adoption: Never"),
                false,
            ),
            (json!({"aws": aws}), Some("regions: [us-east-1]"), true),
            (json!({"aws": aws}), Some("accounts: []"), true),
            (
                json!({"truststore": bucket}),
                Some("buckets: [{name: other}]"),
                true,
            ),
        ] {
            let mut whole = spec.clone();
            whole["domainName"] = json!("a.example.com");
            let domain = domain(whole);
            let policy = bounds.map(|bounds| file::parse(&rules(bounds)).unwrap());
            let placement = UnresolvedPlacement::of(&domain, "c");
            let requests = access_request::unresolved(&domain, &placement, false);
            let decision = decide(policy.as_ref(), &domain, &requests, |_| None);
            match decision {
                Decision::Denied(_) => assert!(denied, "{spec} {bounds:?}"),
                Decision::Unknown(Missing::Resource) => assert!(!denied, "{spec} {bounds:?}"),
                other => panic!("{spec} {bounds:?}: {other:?}"),
            }
        }
    }
}
