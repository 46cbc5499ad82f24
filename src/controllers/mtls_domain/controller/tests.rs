//! Tests of the controller against a Kubernetes and an AWS that are functions.

pub(crate) mod stage;

use super::*;

use std::sync::Arc;

use kube::{core::DeserializeGuard, runtime::controller::Action as Next};
use serde_json::{Value, json};

use self::stage::{Stage, deleted, domain};

use crate::{
    api::{MtlsDomain, object_id::ObjectId},
    aws::{
        errors::{self, Kind},
        fake::REGION,
    },
    controllers::mtls_domain::context::INITIAL_BACKOFF,
    runtime::{finalizer, reconcile::Error, watch::Cached},
};

fn guard(domain: MtlsDomain) -> Cached<MtlsDomain> {
    DeserializeGuard(Ok(domain))
}

/// Runs a test on a large stack: the futures of a reconcile do not fit on the default stack of a test thread.
fn on_a_large_stack<F: Future<Output = ()> + 'static>(test: fn() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    thread
        .spawn(move || runtime.block_on(test()))
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_reconcile_is_refused_or_held_before_its_first_write_to_aws() {
    on_a_large_stack(reconciles);
}

async fn reconciles() {
    let held = "PATCH hold 123456789012/eu-west-1";
    let first_writes = [
        "read AWS",
        held,
        "write POST acm.eu-west-1.amazonaws.com/ CertificateManager.RequestCertificate",
        "write PUT truststores.s3.eu-west-1.amazonaws.com/",
        "PATCH status Accepted",
    ];
    let winner = |change: fn(&mut Value)| {
        guard(domain(|o| {
            o["metadata"]["name"] = json!("older");
            o["metadata"]["uid"] = json!("older");
            o["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            change(o);
        }))
    };
    let elsewhere = |o: &mut Value| {
        o["metadata"]["annotations"] = json!({finalizer::PLACEMENT: "123456789012/us-east-1"})
    };
    let observe = |o: &mut Value| o["spec"]["managementPolicy"] = json!("Observe");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    let abandon = |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "partners"});
    let other_account = |o: &mut Value| o["spec"]["aws"] = json!({"accountId": "999999999999"});
    let everything = "rules: [{name: a, namespaces: {}}]";
    let by_label = "rules: [{name: a, namespaces: {matchLabels: {team: a}}}]";
    let by_zone = "rules: [{name: a, namespaces: {}, domainSuffixes: [example.org]}]";
    let retained = ["POST event Retained", "PATCH release"];
    type Case<'a> = (
        &'a str,
        MtlsDomain,
        Option<Cached<MtlsDomain>>,
        Option<&'a str>,
        Option<&'a str>,
        &'a [&'a str],
    );
    let cases: Vec<Case> = vec![
        (
            "a new domain is held before the first write",
            domain(|_| {}),
            None,
            None,
            None,
            &first_writes,
        ),
        (
            "only observed: nothing is written or held",
            domain(observe),
            None,
            None,
            None,
            &["read AWS", "PATCH status Accepted"],
        ),
        (
            "suspended",
            domain(suspend),
            None,
            None,
            None,
            &["PATCH status Suspended"],
        ),
        (
            "its resources are elsewhere",
            domain(elsewhere),
            None,
            None,
            None,
            &["PATCH status HomeChanged", "POST event HomeChanged"],
        ),
        (
            "another account",
            domain(other_account),
            None,
            None,
            None,
            &["PATCH status WrongAccount", "POST event WrongAccount"],
        ),
        (
            "an older one has the name",
            domain(|_| {}),
            Some(winner(|_| {})),
            None,
            None,
            &["PATCH status DomainNameClaimed", "POST event DomainNameClaimed"],
        ),
        (
            "an older one has another name",
            domain(|_| {}),
            Some(winner(|o| o["spec"]["domainName"] = json!("b.example.com"))),
            None,
            None,
            &first_writes,
        ),
        (
            "the policy allows it",
            domain(|_| {}),
            None,
            Some(everything),
            None,
            &first_writes,
        ),
        (
            "the policy allows it by label",
            domain(|_| {}),
            None,
            Some(by_label),
            Some("a"),
            &first_writes,
        ),
        (
            "the policy does not",
            domain(|_| {}),
            None,
            Some(by_zone),
            None,
            &["PATCH status NotPermitted", "POST event NotPermitted"],
        ),
        (
            "the policy does not by label",
            domain(|_| {}),
            None,
            Some(by_label),
            Some("b"),
            &["PATCH status NotPermitted", "POST event NotPermitted"],
        ),
        (
            "the policy's answer is not known",
            domain(|_| {}),
            None,
            Some(by_label),
            None,
            &["PATCH status Unreachable"],
        ),
        (
            "deleted, and nothing was created",
            deleted(|o| o["metadata"]["finalizers"] = json!(["other/one"])),
            None,
            None,
            None,
            &[],
        ),
        (
            "deleted",
            deleted(|_| {}),
            None,
            None,
            None,
            &["read AWS", "DELETE a Secret", "PATCH release"],
        ),
        (
            "deleted, and its AWS resources and Secrets are retained",
            deleted(|o| o["spec"]["deletionPolicy"] = json!("Retain")),
            None,
            None,
            None,
            &["read AWS", "POST event Retained", "PATCH release"],
        ),
        (
            "deleted and abandoned",
            deleted(abandon),
            None,
            None,
            None,
            &["POST event Abandoned", "PATCH release"],
        ),
        (
            "abandoned by an annotation that came with a copied manifest",
            deleted(|o| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "other"})),
            None,
            None,
            None,
            &["read AWS", "DELETE a Secret", "PATCH release"],
        ),
        (
            "abandoned, not deleted",
            domain(abandon),
            None,
            None,
            None,
            &first_writes,
        ),
        (
            "deleted, was only observed",
            deleted(observe),
            None,
            None,
            None,
            &retained,
        ),
        (
            "deleted while suspended",
            deleted(suspend),
            None,
            None,
            None,
            &["PATCH status Suspended", "POST event DeletionWaits"],
        ),
        (
            "deleted, and its resources are elsewhere",
            deleted(elsewhere),
            None,
            None,
            None,
            &[
                "PATCH status HomeChanged",
                "POST event HomeChanged",
                "POST event DeletionWaits",
            ],
        ),
        (
            "deleted, and the policy does not allow it",
            deleted(|_| {}),
            None,
            Some(by_zone),
            None,
            &[
                "PATCH status NotPermitted",
                "POST event NotPermitted",
                "POST event DeletionWaits",
            ],
        ),
        (
            "deleted, and the policy's answer is not known",
            deleted(|_| {}),
            None,
            Some(by_label),
            None,
            &["PATCH status Unreachable", "POST event DeletionWaits"],
        ),
        (
            "deleted, and an older one has the name",
            deleted(|_| {}),
            Some(winner(|_| {})),
            None,
            None,
            &["read AWS", "DELETE a Secret", "PATCH release"],
        ),
    ];
    for (what, object, other, policy, team, expected) in cases {
        let all: Vec<_> = [Some(guard(object.clone())), other.clone()]
            .into_iter()
            .flatten()
            .collect();
        let stage = Stage::new(all.clone(), policy, team);
        if let Some(Ok(other)) = other.as_ref().map(|other| &other.0) {
            let begun = Stage::new(all, policy, team);
            Box::pin(reconcile_domain(&object, &begun.ctx)).await.unwrap();
            let waits = object.metadata.deletion_timestamp.is_none()
                && other.spec.domain_name == object.spec.domain_name;
            assert_eq!(
                begun.log().is_empty(),
                waits,
                "{what}: before the older one is reconciled"
            );
            stage.ctx.claims.record(other, Finding::Valid);
        }
        Box::pin(reconcile_domain(&object, &stage.ctx)).await.unwrap();
        assert_eq!(stage.log(), expected, "{what}");
        // The domain publishes its trust to its ClientCertificates once AWS has been read.
        let served = expected.contains(&"PATCH status Accepted");
        let key = ObjectId::new("shop", "partners");
        let known = object.metadata.deletion_timestamp.is_none() && stage.ctx.active_trust.is_known(&key);
        assert_eq!(known, served, "{what}");
        let claim = match *expected {
            [.., "PATCH release"] | [] => None,
            _ if served || what.contains("not known") || what.contains("older") => Some(true),
            _ => Some(false),
        };
        assert_eq!(
            stage.ctx.claims.of(&object),
            claim,
            "{what}: the claim on the domain name"
        );
    }
}

#[test]
fn a_change_of_a_claim_reconciles_the_domains_with_the_same_name() {
    on_a_large_stack(claims);
}

async fn claims() {
    let older = domain(|o| {
        o["metadata"]["name"] = json!("older");
        o["metadata"]["uid"] = json!("older");
        o["spec"]["suspend"] = json!(true);
    });
    let stage = Stage::new(vec![guard(domain(|_| {})), guard(older.clone())], None, None);
    let mut changes = Box::pin(stage.ctx.claims.clone().changes());
    Box::pin(reconcile_domain(&older, &stage.ctx)).await.unwrap();
    assert_eq!(changes.next().await, Some(ObjectId::new("shop", "older")));
    assert_eq!(
        stage.ctx.claims.of(&older),
        Some(false),
        "suspended before it was served"
    );
    failed(
        Arc::new(guard(domain(|_| {}))),
        &Error::TooLong,
        stage.ctx.clone(),
    );
    assert_eq!(changes.next().await, Some(ObjectId::new("shop", "partners")));
    assert_eq!(
        stage.ctx.claims.of(&domain(|_| {})),
        Some(true),
        "a failed reconcile keeps the claim"
    );
    stage.ctx.forget_claim(&guard(older.clone()));
    assert_eq!(stage.ctx.claims.of(&older), Some(false), "it is there");
    let gone = domain(|o| o["metadata"]["uid"] = json!("an earlier one"));
    stage.ctx.claims.record(&gone, Finding::Valid);
    stage.ctx.forget_claim(&guard(gone.clone()));
    assert_eq!(stage.ctx.claims.of(&gone), None);
}

#[test]
fn an_operator_without_a_region_serves_domains_that_specify_one() {
    let error = |kind| errors::Error {
        kind,
        operation: "sts:GetCallerIdentity",
        code: None,
        message: "m".into(),
        source: None,
    };
    assert_eq!(own_region(Ok(REGION.into())).unwrap(), REGION);
    assert_eq!(own_region(Err(error(Kind::Invalid))).unwrap(), "");
    for kind in [Kind::Denied, Kind::Transient, Kind::Throttled] {
        assert_eq!(own_region(Err(error(kind))).unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn a_failed_reconcile_is_retried_unless_only_a_change_of_the_object_can_help() {
    let object = Arc::new(guard(domain(|_| {})));
    let stage = Stage::new(vec![(*object).clone()], None, None);
    assert_eq!(
        failed(object.clone(), &Error::TooLong, stage.ctx.clone()),
        Next::requeue(INITIAL_BACKOFF)
    );
    let bad: Cached<MtlsDomain> =
        serde_json::from_value(json!({"metadata": {"name": "partners", "namespace": "shop"}, "spec": 1}))
            .unwrap();
    let error = Error::Unreadable(Box::new(bad.0.unwrap_err()));
    assert_eq!(failed(object, &error, stage.ctx.clone()), Next::await_change());
}

#[test]
fn the_current_object_is_reconciled_and_only_with_a_permit() {
    on_a_large_stack(as_it_is_now);
}

async fn as_it_is_now() {
    let suspended = guard(domain(|o| o["spec"]["suspend"] = json!(true)));
    let stage = Stage::new(vec![suspended], None, None);
    let (then, gone) = (
        Arc::new(guard(domain(|_| {}))),
        Arc::new(guard(domain(|o| o["metadata"]["name"] = json!("gone")))),
    );
    reconcile(then.clone(), stage.ctx.clone()).await.unwrap();
    assert_eq!(
        stage.log(),
        ["PATCH status Suspended"],
        "the current object, not the queued one"
    );
    assert_eq!(
        reconcile(gone, stage.ctx.clone()).await.unwrap(),
        Next::await_change()
    );
    stage.ctx.concurrency.close();
    assert_eq!(
        reconcile(then, stage.ctx.clone()).await.unwrap(),
        Next::await_change()
    );
    assert_eq!(stage.log(), [""; 0]);
}
