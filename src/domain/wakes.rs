//! What wakes a domain up: which change of what concerns which MtlsDomains. Reads the watches' stores only.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    controller::{Ctx, Guard},
    desired::{self, AuthorityWish},
    served::DomainKey,
};
use crate::{
    api::{Issuance, MtlsDomain},
    certificate,
    cluster::{finalizer, watch::Watch},
    grant::{fit::Fit, permits},
    ops::policy_file::InForce,
};

/// What of a domain makes a look worth its calls: not our own writes of its status.
#[derive(Hash)]
pub(super) struct Interest {
    generation: Option<i64>,
    deleting: bool,
    annotations: Vec<(String, String)>,
}

pub(super) fn worth_a_look(d: &Guard) -> Option<Interest> {
    let meta = &d.0.as_ref().ok()?.metadata;
    let annotations = meta.annotations.clone().unwrap_or_default();
    Some(Interest {
        generation: meta.generation,
        deleting: meta.deletion_timestamp.is_some(),
        annotations: annotations.into_iter().filter(|(key, _)| key != finalizer::HOME).collect(),
    })
}

/// One of another namespace may ask for what it is not granted, in whatever field.
pub(super) fn wanted_life(c: &certificate::controller::Guard) -> Option<(Option<SignedDuration>, Option<i64>, bool)> {
    let c = c.0.as_ref().ok()?;
    let generation = c.metadata.generation.filter(|_| permits::is_foreign(c));
    Some((c.spec.duration.as_ref().map(desired::length), generation, c.metadata.deletion_timestamp.is_some()))
}

/// The domain of a certificate that asks something of it: to trust the certificate itself, or longer leaves than it allows for. Any
/// other is issued without a call to AWS.
pub(super) fn asked(c: &certificate::controller::Guard, ctx: &Ctx) -> Option<ObjectRef<Guard>> {
    let cert = c.0.as_ref().ok()?;
    let key = certificate::desired::domain_key(cert);
    let domain = ObjectRef::<Guard>::new(&key.1).within(&key.0);
    if permits::is_foreign(cert) {
        let is_let_in = match cert.spec.issuance {
            Issuance::SelfSigned => ctx.permits.may_be_trusted(cert),
            Issuance::Authority => matches!(ctx.permits.fit(cert, Timestamp::now()), Some(Fit::Fits(_))),
        };
        if !is_let_in {
            return None; // it is not for those whom nobody let in to have AWS called
        }
    }
    let max = ctx.domains.get(&domain).and_then(|d| d.0.as_ref().ok()?.spec.clients.clone()?.max_duration);
    let life = certificate::desired::duration(cert, max.as_ref().map(desired::length));
    let allowed = || ctx.served.trust(&key).is_some_and(|trust| trust.allows_everywhere(life));
    (cert.spec.issuance == Issuance::SelfSigned || !allowed()).then_some(domain)
}

pub(super) fn rivals(changed: &Guard, all: &Store<Guard>) -> Vec<ObjectRef<Guard>> {
    let Ok(changed) = &changed.0 else { return vec![] };
    let same =
        |d: &MtlsDomain| d.spec.domain_name == changed.spec.domain_name && d.metadata.uid != changed.metadata.uid;
    let state = all.state();
    state.iter().filter(|d| d.0.as_ref().is_ok_and(same)).map(|d| ObjectRef::from_obj(&**d)).collect()
}

/// The domains of a namespace, those that want the same names, because what a namespace may do decides who has a claim, and those that
/// certificates of the namespace are for.
pub(super) fn of_namespace(namespace: &str, ctx: &Ctx) -> Vec<ObjectRef<Guard>> {
    let all = &ctx.domains;
    let own = referring(all, Some(namespace.to_owned()), |_| true);
    let others = own.iter().filter_map(|d| all.get(d)).flat_map(|d| rivals(&d, all));
    let trusting = asking(namespace, ctx).into_iter().map(|(ns, name)| ObjectRef::new(&name).within(&ns));
    own.iter().cloned().chain(others).chain(trusting).collect()
}

/// The domains of other namespaces that self-signed certificates of this one are for.
fn asking(namespace: &str, ctx: &Ctx) -> BTreeSet<DomainKey> {
    let state = ctx.certificates.state();
    let theirs = state.iter().filter(|c| c.meta().namespace.as_deref() == Some(namespace));
    let foreign = theirs.filter_map(|c| c.0.as_ref().ok()).filter(|c| permits::is_foreign(c));
    foreign.filter(|c| c.spec.issuance == Issuance::SelfSigned).map(certificate::desired::domain_key).collect()
}

/// The domains of that name in other namespaces that may trust what is in a Secret of this one.
pub(super) fn trusting(namespace: &str, domain: &str, ctx: &Ctx) -> Vec<ObjectRef<Guard>> {
    let keys = asking(namespace, ctx).into_iter().filter(|key| key.1 == domain);
    keys.map(|(ns, name)| ObjectRef::new(&name).within(&ns)).collect()
}

/// Each time that another policy is in force.
pub(super) fn changes(policy: InForce) -> impl Stream<Item = ()> {
    stream::unfold(policy, async |mut policy| policy.changed().await.ok().map(|()| ((), policy)))
}

/// The domains that read these ConfigMaps, by name or by labels: by those that one has now, and by those that it had when it came by last.
pub(super) fn readers(
    maps: &Watch<PartialObjectMeta<ConfigMap>>,
    domains: Store<Guard>,
) -> impl Stream<Item = ObjectRef<Guard>> + use<> {
    let there = maps.store();
    let mut last: HashMap<ObjectRef<_>, BTreeMap<String, String>> = HashMap::new();
    maps.subscribe().flat_map(move |map| {
        let (name, labels, key) = (map.name_any(), map.labels().clone(), ObjectRef::from_obj(&*map));
        let before = last.insert(key.clone(), labels.clone()).unwrap_or_default();
        if there.get(&key).is_none() {
            last.remove(&key);
        }
        let reads = |d: &MtlsDomain| {
            let by = |a: &AuthorityWish| {
                a.source.reads_config_map(&name, &labels) || a.source.reads_config_map(&name, &before)
            };
            desired::authorities(d).is_ok_and(|all| all.iter().any(by))
        };
        stream::iter(referring(&domains, map.namespace(), reads))
    })
}

pub(super) fn referring(
    all: &Store<Guard>,
    namespace: Option<String>,
    refers: impl Fn(&MtlsDomain) -> bool,
) -> Vec<ObjectRef<Guard>> {
    let state = all.state();
    let there = state.iter().filter(|d| d.meta().namespace == namespace && d.0.as_ref().is_ok_and(&refers));
    there.map(|d| ObjectRef::from_obj(&**d)).collect()
}
