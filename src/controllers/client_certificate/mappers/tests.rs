//! Tests of `mappers`.

use super::*;

use k8s_openapi::api::core::v1::Secret;
use kube::{api::PartialObjectMeta, runtime::reflector::ObjectRef};
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, object_id::ObjectId},
    controllers::client_certificate::fixture::{Stage, There, certificate, domain, grant, guard, secret},
    issuance::desired::RENEW,
    runtime::watch::Cached,
};

fn named(name: &'static str, namespace: &'static str, change: fn(&mut Value)) -> Cached<ClientCertificate> {
    guard(certificate(|o| {
        for field in ["name", "uid"] {
            o["metadata"][field] = json!(name);
        }
        o["metadata"]["namespace"] = json!(namespace);
        change(o);
    }))
}

fn names(refs: impl IntoIterator<Item = ObjectRef<Cached<ClientCertificate>>>) -> Vec<String> {
    let mut names: Vec<_> = refs.into_iter().map(|r| r.name).collect();
    names.sort();
    names
}

fn self_signed(o: &mut Value) {
    o["spec"]["issuance"] = json!("SelfSigned");
}

fn deleted(o: &mut Value) {
    self_signed(o);
    o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
}

#[test]
fn a_certificate_is_reconciled_after_a_new_spec_a_deletion_or_a_renewal_request() {
    let of = |change: fn(&mut Value)| change_predicate(&named("a", "shop", change));
    let before = of(|_| {});
    type Change = fn(&mut Value);
    let changes: [(&str, Change, bool); 5] = [
        ("our status", |o| o["status"] = json!({"revision": 1}), false),
        (
            "an annotation",
            |o| o["metadata"]["annotations"] = json!({"a": "b"}),
            false,
        ),
        (
            "a request for a renewal",
            |o| o["metadata"]["annotations"] = json!({RENEW: "now"}),
            true,
        ),
        ("the spec", |o| o["metadata"]["generation"] = json!(2), true),
        (
            "its deletion",
            |o| o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z"),
            true,
        ),
    ];
    for (what, change, expected) in changes {
        assert_eq!(of(change) != before, expected, "{what}");
    }
}

#[tokio::test]
async fn a_deleted_certificate_requeues_its_possible_conflicts() {
    let there = || There {
        certificates: vec![
            named("a", "shop", self_signed),
            named("b", "shop", self_signed),
            named("c", "shop", |_| {}),
            named("d", "shop", |o| {
                self_signed(o);
                o["spec"]["domainRef"]["name"] = json!("other");
            }),
            named("going", "shop", deleted),
        ],
        ..There::default()
    };
    let ctx = Stage::new(there()).ctx;
    assert_eq!(
        names(conflicting(&named("going", "shop", deleted), &ctx)),
        ["a", "b"],
        "is being deleted"
    );
    assert_eq!(
        names(conflicting(&named("gone", "shop", self_signed), &ctx)),
        ["a", "b", "going"],
        "no longer exists"
    );
    assert_eq!(
        names(conflicting(&named("a", "shop", self_signed), &ctx)),
        [""; 0],
        "exists"
    );
    assert_eq!(
        names(conflicting(&named("gone", "shop", |_| {}), &ctx)),
        [""; 0],
        "is in no truststore"
    );
    assert!(is_there(&named("a", "shop", |_| {}), &ctx));
    let again = named("a", "shop", |o| o["metadata"]["uid"] = json!("another"));
    assert!(!is_there(&again, &ctx), "another object has its name");
}

#[tokio::test]
async fn a_grant_requeues_the_certificates_of_other_namespaces_that_it_may_be_for() {
    let stage = Stage::new(There {
        certificates: vec![
            named("a", "acme", |_| {}),
            named("b", "acme", |o| o["spec"]["domainRef"]["name"] = json!("other")),
            named("c", "shop", |_| {}),
            named("d", "acme", |o| {
                o["spec"]["domainRef"]["namespace"] = json!("elsewhere")
            }),
        ],
        ..There::default()
    });
    assert_eq!(names(of_grant(&grant(|_| {}), &stage.ctx)), ["a"]);
    assert_eq!(
        names(of_grant(&grant(|o| o["spec"] = json!(1)), &stage.ctx)),
        ["b"],
        "the grant is not readable, and for a nothing has changed"
    );
    assert_eq!(names(of_namespace("acme", &stage.ctx)), ["d"]);
    assert_eq!(
        names(of_namespace("shop", &stage.ctx)),
        [""; 0],
        "the domain's own namespace needs no grant"
    );
    assert_eq!(
        names(of_domain(&stage.ctx, &ObjectId::new("shop", "partners"))),
        ["a", "c"]
    );
}

#[tokio::test]
async fn certificates_with_shared_slots_are_requeued_with_their_namespace() {
    let certificates = vec![named("a", "acme", |_| {}), named("b", "zeta", |_| {})];
    let with = |grants| {
        Stage::new(There {
            certificates: certificates.clone(),
            grants,
            ..There::default()
        })
    };
    let slots = grant(|o| {
        o["spec"]["maxCertificates"] = json!(1);
        o["spec"]["namespaces"] = json!({});
    });
    assert_eq!(
        names(of_namespace("acme", &with(vec![slots.clone()]).ctx)),
        ["a", "b"]
    );
    let ctx = with(vec![slots]).ctx;
    for cert in &certificates {
        let decision = ctx
            .grant_index
            .announce(cert.0.as_ref().unwrap(), Timestamp::now());
        assert!(decision.is_some());
    }
    assert_eq!(
        names(of_namespace("acme", &ctx)),
        [""; 0],
        "their reconciles read the decisions"
    );
}

#[tokio::test]
async fn a_self_signed_certificate_with_another_decision_requeues_those_that_may_want_its_subject() {
    let stage = Stage::new(There {
        certificates: vec![
            named("a", "acme", self_signed),
            named("own", "shop", self_signed),
            named("issued", "shop", |_| {}),
        ],
        ..There::default()
    });
    let of_grant = || names(of_grant(&grant(|_| {}), &stage.ctx));
    assert_eq!(of_grant(), ["a", "a", "own"]);
    assert_eq!(of_grant(), [""; 0]);
}

#[tokio::test]
async fn a_secret_requeues_the_certificates_that_use_it_or_are_issued_with_it() {
    let stage = Stage::new(There {
        certificates: vec![
            named("client1", "shop", |_| {}),
            named("b", "shop", |_| {}),
            named("c", "acme", |_| {}),
        ],
        domains: vec![
            domain(|_| {}),
            domain(|o| o["metadata"]["namespace"] = json!("acme")),
        ],
        secrets: vec![secret("client1", &[], |_| {}), secret("acme-ca", &[], |_| {})],
        ..There::default()
    });
    let metadata = |name: &str, version: &str| {
        let meta = json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": version}});
        serde_json::from_value::<PartialObjectMeta<Secret>>(meta).unwrap()
    };
    let touched = |name: &str, version: &str| names(touched_by(&stage.ctx, &metadata(name, version)));
    assert_eq!(touched("client1", "7"), ["client1"]);
    assert_eq!(
        touched("acme-ca", "7"),
        ["b", "c", "client1"],
        "all certificates of the domain that issues with it"
    );
    assert_eq!(touched("unused", "7"), [""; 0]);
    stage
        .ctx
        .states
        .lock()
        .unwrap()
        .entry("client1".into())
        .or_default()
        .set_wrote("7");
    assert_eq!(touched("client1", "7"), [""; 0], "the operator's own write");
    assert_eq!(touched("client1", "8"), ["client1"]);
}
