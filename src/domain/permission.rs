//! Whether the operator's policy allows what one look at an `MtlsDomain` is about to do: asked before the first call to AWS, again when AWS has
//! said which account it is, and again when zones and APIs have been found. Writes the status of one that is not allowed.
use std::sync::Arc;

use jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action as Next};

use super::{
    controller::Ctx,
    desired::{Home, Surroundings},
    observed::Unseen,
    reach, report,
};
use crate::{
    api::{MtlsDomain, MtlsDomainStatus, conditions::Reason},
    cluster::{finalizer, look::Error},
    conditions::Acceptance,
    policy::{Fit, Namespace, Policy, Reach},
};

/// The policy as it is at the beginning of a look; one that changes meanwhile brings about another look.
pub(super) struct Permission<'a> {
    pub ctx: &'a Ctx,
    pub domain: &'a MtlsDomain,
    pub old: &'a MtlsDomainStatus,
    pub now: Timestamp,
    policy: Option<Arc<Policy>>,
}

impl<'a> Permission<'a> {
    pub fn of(domain: &'a MtlsDomain, old: &'a MtlsDomainStatus, ctx: &'a Ctx, now: Timestamp) -> Self {
        Permission { ctx, domain, old, now, policy: ctx.policy.borrow().clone() }
    }

    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_deref()
    }

    /// Whether this is certain to be allowed.
    pub fn allows(&self, reach: &[Reach]) -> bool {
        matches!(self.fit(self.domain, reach), Fit::Fits)
    }

    /// Ends the look when this is not allowed, and says so; `None`: it is. `unseen` is what the answer may hang on.
    pub async fn ends(&self, reach: &[Reach], unseen: Option<&Unseen>) -> Result<Option<Next>, Error> {
        let Permission { ctx, domain, old, now, .. } = *self;
        let (uid, generation) = (domain.uid().unwrap_or_default(), domain.metadata.generation.unwrap_or_default());
        let key = (domain.namespace().unwrap_or_default(), domain.name_any());
        let (new, next) = match self.fit(domain, reach) {
            Fit::Fits => return Ok(None),
            Fit::Unknown => {
                let labels = Unseen {
                    reason: Reason::Unreachable,
                    message: "the labels of the namespace, by which the operator's policy goes, are not known yet"
                        .into(),
                };
                (report::unclear(old, generation, unseen.unwrap_or(&labels), now), Next::requeue(ctx.poll(&uid)))
            }
            Fit::Misfits(mut message) => {
                ctx.bypasses.forget(&key);
                if domain.metadata.deletion_timestamp.is_some() {
                    message = format!(
                        "{message}. Until then nothing is deleted in AWS; to leave everything there as it is, annotate this object with {}: {}",
                        finalizer::ABANDON,
                        key.1
                    );
                }
                let refused = Acceptance::Refused { reason: Reason::NotPermitted, message, stalled: false };
                (report::with_conditions(old, generation, &refused, &[], now), ctx.settled(&uid))
            }
        };
        ctx.write(domain, old, &new).await?;
        Ok(Some(next))
    }

    /// Whether another object is certain to be refused, so that its claim on a name is none.
    pub fn is_refused(&self, other: &MtlsDomain) -> bool {
        let reach = reach::of(other, &before_aws(other, &self.ctx.cluster_id), false);
        matches!(self.fit(other, &reach), Fit::Misfits(_))
    }

    fn fit(&self, domain: &MtlsDomain, reach: &[Reach]) -> Fit {
        let Some(policy) = self.policy() else { return Fit::Fits };
        let name = domain.namespace().unwrap_or_default();
        let labels = self.ctx.labels(&name);
        policy.fit(Namespace { name: &name, labels: labels.as_ref() }, reach)
    }
}

/// As far as the spec alone says where its resources go.
pub(super) fn before_aws(domain: &MtlsDomain, cluster_id: &str) -> Home {
    let aws = domain.spec.aws.clone().unwrap_or_default();
    let (account, region) = (aws.account_id.unwrap_or_default(), aws.region.unwrap_or_default());
    Home::of(domain, &Surroundings { cluster_id, account: &account, region: &region, truststore_bucket: None })
}
