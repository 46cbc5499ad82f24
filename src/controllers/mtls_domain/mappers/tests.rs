//! Tests of `mappers`.

use super::*;

use std::sync::Arc;

use jiff::Timestamp;

use kube::runtime::reflector::ObjectRef;
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, MtlsDomain, object_id::ObjectId},
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
        max_bytes: 65_536,
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
fn the_deletion_the_release_and_the_region_of_a_domain_trigger_the_others_and_its_other_changes_do_not() {
    let of = |change: &dyn Fn(&mut Value)| conflict_predicate(&domain("a", "d", |o| change(o)));
    let delete = |o: &mut Value| o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
    let hold = |o: &mut Value| o["metadata"]["finalizers"] = json!([finalizer::FINALIZER]);
    let as_before = of(&|_| {});
    assert_ne!(of(&delete), as_before);
    assert_ne!(of(&|o| (delete(o), hold(o)).0), of(&delete), "its release");
    assert_ne!(
        of(&|o| o["spec"]["aws"] = json!({"region": "us-east-1"})),
        as_before
    );
    assert_eq!(of(&hold), as_before);
    assert_eq!(of(&|o| o["metadata"]["generation"] = json!(2)), as_before);
    assert_eq!(of(&|o| o["spec"]["suspend"] = json!(true)), as_before);
}

#[test]
fn a_namespace_triggers_the_domains_that_its_self_signed_certificates_are_for() {
    let guard = |cert| Arc::new(kube::core::DeserializeGuard(Ok(cert)));
    let all = [
        guard(certificate("acme", "SelfSigned")),
        guard(certificate("acme", "Authority")),
        guard(certificate("shop", "SelfSigned")),
    ];
    assert_eq!(asked_by("acme", &all), [ObjectId::new("shop", "partners")].into());
    assert!(
        asked_by("acme", &all[1..]).is_empty(),
        "an authority's leaf is in no truststore"
    );
    assert!(
        asked_by("shop", &all).is_empty(),
        "the domain itself finds the certificates of its own namespace"
    );
}
