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

use super::controller::Ctx;

use crate::{
    api::{
        ClientCertificate, Issuance, MtlsDomain, durations,
        object_id::{self, DomainKey},
    },
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
    let key = object_id::domain_key(cert);
    let domain = ObjectRef::<Cached<MtlsDomain>>::new(&key.1).within(&key.0);
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
    let trusting = asking(namespace, ctx)
        .into_iter()
        .map(|(ns, name)| ObjectRef::new(&name).within(&ns));
    own.iter().cloned().chain(others).chain(trusting).collect()
}

/// Returns the domains of other namespaces that self-signed certificates of this namespace are for.
fn asking(namespace: &str, ctx: &Ctx) -> BTreeSet<DomainKey> {
    asked_by(namespace, &ctx.certificates.state())
}

fn asked_by(namespace: &str, state: &[Arc<Cached<ClientCertificate>>]) -> BTreeSet<DomainKey> {
    let theirs = state
        .iter()
        .filter(|c| c.meta().namespace.as_deref() == Some(namespace));
    let cross_namespace = theirs
        .filter_map(|c| c.0.as_ref().ok())
        .filter(|c| index::is_cross_namespace(c));
    cross_namespace
        .filter(|c| c.spec.issuance == Issuance::SelfSigned)
        .map(object_id::domain_key)
        .collect()
}

/// Returns the domains of this name in other namespaces that may trust the content of a Secret in this
/// namespace.
pub(crate) fn trusting(namespace: &str, domain: &str, ctx: &Ctx) -> Vec<ObjectRef<Cached<MtlsDomain>>> {
    let keys = asking(namespace, ctx).into_iter().filter(|key| key.1 == domain);
    keys.map(|(ns, name)| ObjectRef::new(&name).within(&ns)).collect()
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
mod tests {
    use super::*;

    use std::sync::Arc;

    use jiff::Timestamp;

    use kube::runtime::reflector::ObjectRef;
    use serde_json::{Value, json};

    use crate::{
        api::{ClientCertificate, MtlsDomain},
        grants::evaluation::{Decision, Terms},
        runtime::{fake::store, finalizer, watch::Cached},
    };

    fn certificate(namespace: &str, issuance: &str) -> ClientCertificate {
        serde_json::from_value(json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": "c", "namespace": namespace, "generation": 3},
            "spec": {
                "domainRef": {"name": "partners", "namespace": "shop"}, "issuance": issuance,
                "duration": "2h",
                "subject": {"commonName": "c"},
            },
        }))
        .unwrap()
    }

    fn domain(namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Cached<MtlsDomain> {
        let mut object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
            "metadata": {
                "name": name, "namespace": namespace, "uid": format!("{namespace}/{name}"), "generation": 1,
            },
            "spec": {"domainName": "a.example.com"},
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    fn names(refs: Vec<ObjectRef<Cached<MtlsDomain>>>) -> Vec<String> {
        let mut names: Vec<_> = refs
            .into_iter()
            .map(|r| format!("{}/{}", r.namespace.unwrap_or_default(), r.name))
            .collect();
        names.sort();
        names
    }

    fn terms() -> Terms {
        Terms {
            grant: "g".into(),
            authority: None,
            max_duration: None,
            not_after: None,
            is_counted: false,
        }
    }

    #[test]
    fn a_certificate_without_a_grant_makes_no_calls_to_aws() {
        let (fits, misfits) = (
            Some(Decision::Allowed(terms())),
            Some(Decision::Denied("m".into())),
        );
        let unknown = Some(Decision::Unknown("m".into()));
        for (issuance, may_be_trusted, decision, expected) in [
            ("Authority", false, fits.clone(), true),
            ("Authority", true, misfits.clone(), false),
            ("Authority", true, unknown.clone(), false),
            ("Authority", true, None, false),
            ("SelfSigned", true, misfits, true),
            ("SelfSigned", true, unknown, true),
            ("SelfSigned", false, fits, false),
        ] {
            let cert = certificate("acme", issuance);
            let found = is_accepted(&cert, || may_be_trusted, || decision.clone());
            assert_eq!(found, expected, "{issuance} {may_be_trusted} {decision:?}");
        }
        // Namespace, issuance, accepted, leaves of its duration are allowed already.
        for (namespace, issuance, is_accepted, allowed, expected) in [
            ("shop", "SelfSigned", false, true, true),
            ("shop", "Authority", false, true, false),
            ("shop", "Authority", false, false, true),
            ("acme", "SelfSigned", true, true, true),
            ("acme", "SelfSigned", false, false, false),
            ("acme", "Authority", true, false, true),
            ("acme", "Authority", true, true, false),
            ("acme", "Authority", false, false, false),
        ] {
            let cert = certificate(namespace, issuance);
            let found = asks(&cert, || is_accepted, || allowed);
            assert_eq!(found, expected, "{namespace} {issuance} {is_accepted} {allowed}");
        }
    }

    fn hash(interest: Option<impl std::hash::Hash>) -> Option<u64> {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        interest.map(|interest| {
            interest.hash(&mut hasher);
            hasher.finish()
        })
    }

    #[test]
    fn a_domain_is_reconciled_after_any_change_but_the_operators_own_writes() {
        let of = |change: fn(&mut Value)| hash(change_predicate(&domain("shop", "partners", change)));
        let before = of(|_| {});
        assert!(before.is_some());
        for (what, change, expected) in [
            (
                "the operator's status",
                (|o| o["status"] = json!({"observedGeneration": 1})) as fn(&mut Value),
                false,
            ),
            (
                "the operator's annotation",
                |o| o["metadata"]["annotations"] = json!({finalizer::PLACEMENT: "1/eu-west-1"}),
                false,
            ),
            ("a label", |o| o["metadata"]["labels"] = json!({"a": "b"}), false),
            ("the spec", |o| o["metadata"]["generation"] = json!(2), true),
            (
                "the abandon annotation",
                |o| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "partners"}),
                true,
            ),
            (
                "its deletion",
                |o| o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                true,
            ),
        ] {
            assert_eq!(of(change) != before, expected, "{what}");
        }
        assert_eq!(
            hash(change_predicate(
                &domain("shop", "partners", |o| o["spec"] = json!(1))
            )),
            None,
            "it cannot be read"
        );
    }

    #[test]
    fn a_certificate_triggers_its_domain_when_its_duration_or_deletion_changes() {
        let of = |namespace: &str, change: fn(&mut ClientCertificate)| {
            let mut cert = certificate(namespace, "Authority");
            change(&mut cert);
            certificate_predicate(&kube::core::DeserializeGuard(Ok(cert)))
        };
        type Change = fn(&mut ClientCertificate);
        let changes: [(&str, Change, [bool; 2]); 3] = [
            (
                "its generation",
                |c| c.metadata.generation = Some(4),
                [false, true],
            ),
            ("its duration", |c| c.spec.duration = None, [true, true]),
            (
                "its deletion",
                |c| {
                    let at = Timestamp::UNIX_EPOCH;
                    c.metadata.deletion_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
                },
                [true, true],
            ),
        ];
        for (what, change, expected) in changes {
            let news = ["shop", "acme"].map(|namespace| of(namespace, change) != of(namespace, |_| {}));
            assert_eq!(
                news, expected,
                "{what}: in the domain's namespace, and in another"
            );
        }
    }

    #[test]
    fn domains_with_the_same_name_trigger_each_other() {
        let me = domain("a", "me", |_| {});
        let all = store(vec![
            domain("a", "me", |_| {}),
            domain("b", "same", |_| {}),
            domain("b", "other", |o| o["spec"]["domainName"] = json!("b.example.com")),
            domain("b", "unreadable", |o| o["spec"] = json!(1)),
        ]);
        assert_eq!(names(conflicting(&me, &all)), ["b/same"]);
        assert_eq!(
            names(conflicting(
                &domain("b", "unreadable", |o| o["spec"] = json!(1)),
                &all
            )),
            [""; 0]
        );
        let all = names(referring(&all, Some("b".into()), |_| true));
        assert_eq!(
            all,
            ["b/other", "b/same"],
            "the readable domains of that namespace"
        );
    }

    #[test]
    fn a_namespace_triggers_the_domains_that_its_self_signed_certificates_are_for() {
        let guard = |cert| Arc::new(kube::core::DeserializeGuard(Ok(cert)));
        let all = [
            guard(certificate("acme", "SelfSigned")),
            guard(certificate("acme", "Authority")),
            guard(certificate("shop", "SelfSigned")),
        ];
        assert_eq!(
            asked_by("acme", &all),
            [("shop".to_owned(), "partners".to_owned())].into()
        );
        assert!(
            asked_by("acme", &all[1..]).is_empty(),
            "an authority's leaf is in no truststore"
        );
        assert!(
            asked_by("shop", &all).is_empty(),
            "the domain itself finds the certificates of its own namespace"
        );
    }
}
