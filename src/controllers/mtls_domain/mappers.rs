//! Event handlers and predicates: map a change of a dependency to the MtlsDomains that it concerns. Read the
//! watches' stores only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use super::context::Ctx;

use crate::{
    api::{ClientCertificate, Issuance, MtlsDomain, durations, object_id::ObjectId},
    grants::{evaluation::Decision, index},
    model::{
        authorities::{self, DesiredAuthority},
        leaf_request,
    },
    policy::follow::InForce,
    runtime::{
        finalizer,
        watch::{Cached, Watch},
    },
};

/// Parts of a domain whose change triggers a reconcile. The operator's own status writes do not.
#[derive(Hash)]
pub(crate) struct Interest {
    generation: Option<i64>,
    deleting: bool,
    annotations: Vec<(String, String)>,
}

/// Predicate of a domain: changes with its generation, its deletion, and its annotations except the
/// placement.
pub(crate) fn change_predicate(d: &Cached<MtlsDomain>) -> Option<Interest> {
    let meta = &d.0.as_ref().ok()?.metadata;
    let annotations = meta.annotations.clone().unwrap_or_default();
    Some(Interest {
        generation: meta.generation,
        deleting: meta.deletion_timestamp.is_some(),
        annotations: annotations
            .into_iter()
            .filter(|(key, _)| key != finalizer::PLACEMENT)
            .collect(),
    })
}

/// Predicate of a certificate: changes with its duration and its deletion. A cross-namespace certificate may
/// request something that is not granted in any field, so its generation counts too.
pub(crate) fn certificate_predicate(
    c: &Cached<ClientCertificate>,
) -> Option<(Option<SignedDuration>, Option<i64>, bool)> {
    let c = c.0.as_ref().ok()?;
    let generation = c.metadata.generation.filter(|_| index::is_cross_namespace(c));
    Some((
        c.spec.duration.as_ref().map(durations::length),
        generation,
        c.metadata.deletion_timestamp.is_some(),
    ))
}

/// Returns the domain of a certificate that needs a reconcile of it: to trust the self-signed certificate, or
/// to allow longer leaves than now. Other certificates are issued without a call to AWS.
pub(crate) fn of_certificate(
    c: &Cached<ClientCertificate>,
    ctx: &Ctx,
) -> Option<ObjectRef<Cached<MtlsDomain>>> {
    let cert = c.0.as_ref().ok()?;
    let key = cert.domain_id();
    let domain = key.to_ref();
    let decision = || ctx.grant_index.decide(cert, Timestamp::now());
    let is_accepted = || is_accepted(cert, || ctx.grant_index.may_be_trusted(cert), decision);
    let max = ctx
        .domains
        .get(&domain)
        .and_then(|d| d.0.as_ref().ok()?.spec.clients.clone()?.max_duration);
    let lifetime = leaf_request::duration(cert, max.as_ref().map(durations::length));
    let allowed = || {
        ctx.active_trust
            .trust(&key)
            .is_some_and(|trust| trust.allows_everywhere(lifetime))
    };
    asks(cert, is_accepted, allowed).then_some(domain)
}

/// True when a cross-namespace certificate may make its domain call AWS. `may_be_trusted`: a grant may allow
/// it to be self-signed.
fn is_accepted(
    cert: &ClientCertificate,
    may_be_trusted: impl FnOnce() -> bool,
    decision: impl FnOnce() -> Option<Decision>,
) -> bool {
    match cert.spec.issuance {
        Issuance::SelfSigned => may_be_trusted(),
        Issuance::Authority => matches!(decision(), Some(Decision::Allowed(_))),
    }
}

/// True when the domain has to call AWS for a certificate. `is_accepted`: evaluated for a cross-namespace
/// certificate only; `allowed`: the domain already allows leaves of this duration.
fn asks(
    cert: &ClientCertificate,
    is_accepted: impl FnOnce() -> bool,
    allowed: impl FnOnce() -> bool,
) -> bool {
    if index::is_cross_namespace(cert) && !is_accepted() {
        return false; // a certificate without a grant must not cause AWS calls
    }
    cert.spec.issuance == Issuance::SelfSigned || !allowed()
}

/// Predicate of a domain for the other domains with its domain name: changes with its deletion, its release
/// and its Region. `Claims` tells of the other causes for which a claim ends.
pub(crate) fn conflict_predicate(d: &Cached<MtlsDomain>) -> Option<(bool, bool, Option<String>)> {
    let d = d.0.as_ref().ok()?;
    let region = d.region().map(str::to_owned);
    let deleting = d.metadata.deletion_timestamp.is_some();
    Some((deleting, deleting && finalizer::is_held(d), region))
}

/// Returns the other domains with the domain name of `changed`.
pub(crate) fn conflicting(
    changed: &Cached<MtlsDomain>,
    all: &Store<Cached<MtlsDomain>>,
) -> Vec<ObjectRef<Cached<MtlsDomain>>> {
    let Ok(changed) = &changed.0 else { return vec![] };
    let same = |d: &MtlsDomain| {
        d.spec.domain_name == changed.spec.domain_name && d.metadata.uid != changed.metadata.uid
    };
    let state = all.state();
    state
        .iter()
        .filter(|d| d.0.as_ref().is_ok_and(same))
        .map(|d| ObjectRef::from_obj(&**d))
        .collect()
}

/// Returns the domains of a namespace, the domains with the same domain names, because the permissions of a
/// namespace decide who has a claim, and the domains that certificates of the namespace are for.
pub(crate) fn of_namespace(namespace: &str, ctx: &Ctx) -> Vec<ObjectRef<Cached<MtlsDomain>>> {
    let all = &ctx.domains;
    let own = referring(all, Some(namespace.to_owned()), |_| true);
    let others = own
        .iter()
        .filter_map(|d| all.get(d))
        .flat_map(|d| conflicting(&d, all));
    let trusting = asking(namespace, ctx).into_iter().map(|key| key.to_ref());
    own.iter().cloned().chain(others).chain(trusting).collect()
}

/// Returns the domains of other namespaces that self-signed certificates of this namespace are for.
fn asking(namespace: &str, ctx: &Ctx) -> BTreeSet<ObjectId> {
    asked_by(namespace, &ctx.certificates.state())
}

fn asked_by(namespace: &str, state: &[Arc<Cached<ClientCertificate>>]) -> BTreeSet<ObjectId> {
    let theirs = state
        .iter()
        .filter(|c| c.meta().namespace.as_deref() == Some(namespace));
    let cross_namespace = theirs
        .filter_map(|c| c.0.as_ref().ok())
        .filter(|c| index::is_cross_namespace(c));
    cross_namespace
        .filter(|c| c.spec.issuance == Issuance::SelfSigned)
        .map(ClientCertificate::domain_id)
        .collect()
}

/// Returns the domains of this name in other namespaces that may trust the content of a Secret in this
/// namespace.
pub(crate) fn trusting(namespace: &str, domain: &str, ctx: &Ctx) -> Vec<ObjectRef<Cached<MtlsDomain>>> {
    let keys = asking(namespace, ctx)
        .into_iter()
        .filter(|key| key.name == domain);
    keys.map(|key| key.to_ref()).collect()
}

/// Emits an item each time another policy comes into force.
pub(crate) fn changes(policy: InForce) -> impl Stream<Item = ()> {
    stream::unfold(policy, async |mut policy| {
        policy.changed().await.ok().map(|()| ((), policy))
    })
}

/// Returns the domains that read these ConfigMaps, by name or by labels. The labels that a ConfigMap has now
/// count, and the labels that it had at its previous event.
pub(crate) fn readers(
    maps: &Watch<PartialObjectMeta<ConfigMap>>,
    domains: Store<Cached<MtlsDomain>>,
) -> impl Stream<Item = ObjectRef<Cached<MtlsDomain>>> + use<> {
    let there = maps.store();
    let mut last: HashMap<ObjectRef<_>, BTreeMap<String, String>> = HashMap::new();
    maps.subscribe().flat_map(move |map| {
        let (name, labels, key) = (map.name_any(), map.labels().clone(), ObjectRef::from_obj(&*map));
        let before = last.insert(key.clone(), labels.clone()).unwrap_or_default();
        if there.get(&key).is_none() {
            last.remove(&key);
        }
        let reads = |d: &MtlsDomain| {
            let by = |a: &DesiredAuthority| {
                a.source.reads_config_map(&name, &labels) || a.source.reads_config_map(&name, &before)
            };
            authorities::authorities(d).is_ok_and(|all| all.iter().any(by))
        };
        stream::iter(referring(&domains, map.namespace(), reads))
    })
}

/// Returns the readable domains of a namespace that fulfil `refers`.
pub(crate) fn referring(
    all: &Store<Cached<MtlsDomain>>,
    namespace: Option<String>,
    refers: impl Fn(&MtlsDomain) -> bool,
) -> Vec<ObjectRef<Cached<MtlsDomain>>> {
    let state = all.state();
    let there = state
        .iter()
        .filter(|d| d.meta().namespace == namespace && d.0.as_ref().is_ok_and(&refers));
    there.map(|d| ObjectRef::from_obj(&**d)).collect()
}

#[cfg(test)]
mod tests;
