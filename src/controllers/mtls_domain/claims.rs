//! Claims on domain names: what the reconciles of this process have found about each `MtlsDomain`. A domain
//! that the operator does not serve has no claim, and only its own reconcile finds some of the causes, such
//! as a hosted zone that the policy does not allow. In memory: a restart forgets all of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use futures::Stream;
use kube::ResourceExt;

use crate::{
    api::{MtlsDomain, conditions::Reason, object_id::ObjectId},
    observation::seen::Unseen,
    runtime::changes::Changes,
    status::Acceptance,
};

/// Finding of a reconcile about the claim of its domain on the domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The operator serves the domain.
    Valid,
    /// The operator does not serve the domain, whatever other domains there are.
    Invalid,
    /// The reconcile could not decide: an earlier finding stays, and a domain without one keeps its claim.
    Undecided,
}

impl Finding {
    /// Returns the finding of a reconcile that ends with this refusal.
    pub fn of_refusal(refused: &Acceptance) -> Self {
        match refused {
            Acceptance::Refused {
                reason: Reason::DomainNameClaimed,
                ..
            } => Finding::Undecided,
            Acceptance::Refused { .. } => Finding::Invalid,
            _ => Finding::Undecided,
        }
    }

    /// Returns the finding of a reconcile that ends with this failed read. A spec can name a role or an API
    /// that AWS never lets the operator use, so a denied call does not keep the claim.
    pub fn of_failure(unseen: &Unseen) -> Self {
        match unseen.reason {
            Reason::PermissionDenied => Finding::Invalid,
            _ => Finding::Undecided,
        }
    }
}

/// Last finding about each domain, by the uid of its object.
#[derive(Default)]
pub struct Claims {
    /// True for a domain that keeps its claim.
    known: Mutex<HashMap<String, bool>>,
    /// Domains whose claim has changed.
    changed: Changes,
}

impl Claims {
    /// Returns whether the domain keeps its claim, by its last reconcile; `None`: the operator has not
    /// reconciled it since its start.
    pub(crate) fn of(&self, domain: &MtlsDomain) -> Option<bool> {
        self.known().get(domain.metadata.uid.as_ref()?).copied()
    }

    pub(crate) fn record(&self, domain: &MtlsDomain, finding: Finding) {
        let (mut known, uid) = (self.known(), domain.uid().unwrap_or_default());
        let before = known.get(&uid).copied();
        let now = match finding {
            Finding::Valid => true,
            Finding::Invalid => false,
            Finding::Undecided => before.unwrap_or(true),
        };
        if before != Some(now) {
            known.insert(uid, now);
            self.changed.add([ObjectId::of(domain)]);
        }
    }

    /// Drops the finding about an object that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.known().remove(uid);
    }

    /// Stream of the MtlsDomains whose claim has changed. For a single listener.
    pub(crate) fn changes(self: Arc<Self>) -> impl Stream<Item = ObjectId> + Send {
        futures::stream::unfold(self, |claims| async move {
            let next = claims.changed.next().await;
            Some((next, claims))
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.known.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures::{FutureExt, StreamExt};
    use serde_json::json;

    fn domain() -> MtlsDomain {
        serde_json::from_value(json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
            "metadata": {"name": "d", "namespace": "shop", "uid": "1"},
            "spec": {"domainName": "a.example.com"},
        }))
        .unwrap()
    }

    #[test]
    fn the_last_finding_decides_and_each_change_is_told_once() {
        let (claims, domain) = (Arc::new(Claims::default()), domain());
        let mut changes = Box::pin(claims.clone().changes());
        let told = |changes: &mut futures::stream::BoxStream<ObjectId>| {
            std::iter::from_fn(|| changes.next().now_or_never().flatten()).count()
        };
        let mut changes: futures::stream::BoxStream<ObjectId> = Box::pin(&mut changes);
        assert_eq!(claims.of(&domain), None);
        for (finding, claim, news) in [
            (Finding::Undecided, true, 1),
            (Finding::Valid, true, 0),
            (Finding::Invalid, false, 1),
            (Finding::Invalid, false, 0),
            (Finding::Undecided, false, 0),
            (Finding::Valid, true, 1),
            (Finding::Undecided, true, 0),
        ] {
            claims.record(&domain, finding);
            assert_eq!(claims.of(&domain), Some(claim), "{finding:?}");
            assert_eq!(told(&mut changes), news, "{finding:?}");
        }
        claims.forget("1");
        assert_eq!(claims.of(&domain), None);
    }

    #[test]
    fn every_refusal_but_an_older_claim_ends_the_claim_and_a_failed_read_only_when_aws_denies_it() {
        let refused = |reason| {
            Finding::of_refusal(&Acceptance::Refused {
                reason,
                message: "m".into(),
                stalled: false,
            })
        };
        for reason in [
            Reason::NotPermitted,
            Reason::InvalidSpec,
            Reason::WrongAccount,
            Reason::HomeChanged,
        ] {
            assert_eq!(refused(reason), Finding::Invalid, "{reason:?}");
        }
        assert_eq!(refused(Reason::DomainNameClaimed), Finding::Undecided);
        let failed = |reason| {
            Finding::of_failure(&Unseen {
                reason,
                message: "m".into(),
            })
        };
        assert_eq!(failed(Reason::PermissionDenied), Finding::Invalid);
        for reason in [Reason::Throttled, Reason::Unreachable, Reason::CredentialsMissing] {
            assert_eq!(failed(reason), Finding::Undecided, "{reason:?}");
        }
    }
}
