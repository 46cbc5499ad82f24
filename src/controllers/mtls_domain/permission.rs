//! Decision of the operator's policy on one reconcile of an `MtlsDomain`: made before the first call to AWS,
//! again when AWS has reported the account, and again when zones and APIs are found. Writes the status of a
//! domain that is not allowed.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action as Next};

use super::{access_request, context::Ctx, report};

use crate::{
    api::{MtlsDomain, MtlsDomainStatus, conditions::Reason},
    model::placement::{OperatorConfig, Placement},
    observation::seen::Unseen,
    policy::{AccessRequest, Decision, Namespace, Policy},
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
        is_allowed(&self.decide(self.domain, requests))
    }

    /// Ends the reconcile and writes the status when the policy does not allow these requests; `None`: the
    /// policy allows them. `unseen` is a failed read that the answer may depend on.
    pub async fn ends(
        &self,
        requests: &[AccessRequest],
        unseen: Option<&Unseen>,
    ) -> Result<Option<Next>, Error> {
        let Permission {
            ctx,
            domain,
            old,
            now,
            ..
        } = *self;
        let (uid, generation) = (
            domain.uid().unwrap_or_default(),
            domain.metadata.generation.unwrap_or_default(),
        );
        let (new, next) = match answer(domain, self.decide(domain, requests), unseen) {
            Answer::Allowed => return Ok(None),
            Answer::Unclear(unseen) => (
                report::unclear(old, generation, &unseen, now),
                Next::requeue(ctx.backoff(&uid)),
            ),
            Answer::Refused(refused) => {
                ctx.bypasses
                    .forget(&(domain.namespace().unwrap_or_default(), domain.name_any()));
                (
                    report::with_conditions(old, generation, &refused, &[], now),
                    ctx.resync_later(&uid),
                )
            }
        };
        ctx.write(domain, old, &new).await?;
        Ok(Some(next))
    }

    /// True when the policy certainly denies another object, which then has no claim on its domain name.
    pub fn is_refused(&self, other: &MtlsDomain) -> bool {
        let requests = access_request::of(other, &before_aws(other, &self.ctx.cluster_id), false);
        is_certainly_refused(&self.decide(other, &requests))
    }

    fn decide(&self, domain: &MtlsDomain, requests: &[AccessRequest]) -> Decision {
        decide(self.policy(), domain, requests, |namespace| {
            self.ctx.labels(namespace)
        })
    }
}

/// Returns the policy's answer for all requests of `domain`; without a policy everything is allowed.
/// `labels`: returns the labels of a namespace, if known.
fn decide(
    policy: Option<&Policy>,
    domain: &MtlsDomain,
    requests: &[AccessRequest],
    labels: impl FnOnce(&str) -> Option<BTreeMap<String, String>>,
) -> Decision {
    let Some(policy) = policy else {
        return Decision::Allowed;
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

/// True only for requests that the policy certainly allows: an unknown answer does not allow.
fn is_allowed(decision: &Decision) -> bool {
    matches!(decision, Decision::Allowed)
}

/// True only for requests that the policy certainly denies: with an unknown answer a domain keeps its claim
/// on a name.
fn is_certainly_refused(decision: &Decision) -> bool {
    matches!(decision, Decision::Denied(_))
}

/// Consequence of the policy's answer for a reconcile.
#[derive(Debug, PartialEq)]
enum Answer {
    Allowed,
    /// The answer depends on something that could not be read.
    Unclear(Unseen),
    Refused(Acceptance),
}

fn answer(domain: &MtlsDomain, decision: Decision, unseen: Option<&Unseen>) -> Answer {
    match decision {
        Decision::Allowed => Answer::Allowed,
        Decision::Unknown => Answer::Unclear(unseen.cloned().unwrap_or_else(|| {
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

/// Returns the placement as far as the spec alone determines it.
pub(crate) fn before_aws(domain: &MtlsDomain, cluster_id: &str) -> Placement {
    let aws = domain.spec.aws.clone().unwrap_or_default();
    let (account, region) = (aws.account_id.unwrap_or_default(), aws.region.unwrap_or_default());
    Placement::of(
        domain,
        &OperatorConfig {
            cluster_id,
            account: &account,
            region: &region,
            truststore_bucket: None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    use crate::{
        api::{MtlsDomain, conditions::Reason},
        observation::seen::Unseen,
        policy::{AccessRequest, Decision, Resource, file},
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
    fn only_a_certain_answer_allows_or_refuses() {
        for (decision, allowed, refused) in [
            (Decision::Allowed, true, false),
            (Decision::Unknown, false, false),
            (Decision::Denied("m".into()), false, true),
        ] {
            assert_eq!(
                (is_allowed(&decision), is_certainly_refused(&decision)),
                (allowed, refused),
                "{decision:?}"
            );
        }
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
            answer(&domain, Decision::Unknown, Some(&zones)),
            Answer::Unclear(zones.clone())
        );
        let Answer::Unclear(labels) = answer(&domain, Decision::Unknown, None) else {
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
        assert_eq!(of(by_label, None), Decision::Unknown);
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
    fn before_aws_answers_the_spec_alone_determines_the_placement() {
        let spec = json!({
            "domainName": "a.example.com", "aws": {"accountId": "123456789012", "region": "eu-west-1"},
            "truststore": {"bucket": "b"},
        });
        let placement = before_aws(&domain(spec), "c");
        assert_eq!(
            (
                placement.account.as_str(),
                placement.region.as_str(),
                placement.bucket.as_str()
            ),
            ("123456789012", "eu-west-1", "b")
        );
        let placement = before_aws(&domain(json!({"domainName": "a.example.com"})), "c");
        assert_eq!(
            (
                placement.account.as_str(),
                placement.region.as_str(),
                placement.bucket.as_str()
            ),
            ("", "", "")
        );
        assert_eq!(placement.owner, "c/shop/partners");
    }
}
