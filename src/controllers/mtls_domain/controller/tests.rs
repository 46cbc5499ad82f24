//! Tests of the controller against a Kubernetes and an AWS that are functions.

pub(crate) mod stage;

use super::*;

use std::sync::Arc;

use kube::{ResourceExt, core::DeserializeGuard, runtime::controller::Action as Next};
use serde_json::{Value, json};

use self::stage::{Stage, deleted, domain};

use crate::{
    api::{MtlsDomain, conditions::Reason},
    aws::{
        errors::{self, Kind},
        fake::{ACCOUNT, REGION},
    },
    controllers::mtls_domain::{clients::clients_of, context::INITIAL_BACKOFF},
    model::{
        desired,
        placement::{OperatorConfig, Placement},
    },
    runtime::{finalizer, reconcile::Error, watch::Cached},
    status::{Acceptance, Refused},
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
        let stage = Stage::new(
            [Some(guard(object.clone())), other]
                .into_iter()
                .flatten()
                .collect(),
            policy,
            team,
        );
        Box::pin(reconcile_domain(&object, &stage.ctx)).await.unwrap();
        assert_eq!(stage.log(), expected, "{what}");
        // The domain publishes its trust to its ClientCertificates once AWS has been read.
        let served = expected.contains(&"PATCH status Accepted");
        let key = ("shop".to_owned(), "partners".to_owned());
        let known = object.metadata.deletion_timestamp.is_none() && stage.ctx.active_trust.is_known(&key);
        assert_eq!(known, served, "{what}");
    }
}

#[test]
fn metadata_and_spec_decide_the_course_before_aws_is_called() {
    let observe = |o: &mut Value| o["spec"]["managementPolicy"] = json!("Observe");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    let abandon = |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "partners"});
    let gone = |o: &mut Value| o["metadata"]["finalizers"] = json!([]);
    for (what, object, expected) in [
        ("new", domain(|_| {}), Precheck::Continue),
        ("observed", domain(observe), Precheck::Continue),
        ("abandoned", domain(abandon), Precheck::Continue),
        ("suspended", domain(suspend), Precheck::Suspended),
        ("deleted", deleted(|_| {}), Precheck::Continue),
        (
            "deleted without the operator's finalizer",
            deleted(gone),
            Precheck::Forget,
        ),
        (
            "deleted and abandoned",
            deleted(abandon),
            Precheck::AbandonResources,
        ),
        ("deleted and suspended", deleted(suspend), Precheck::Suspended),
        (
            "deleted and observed",
            deleted(observe),
            Precheck::ReleaseObserved,
        ),
        (
            "deleted, abandoned and suspended",
            deleted(|o| (abandon(o), suspend(o)).0),
            Precheck::AbandonResources,
        ),
        (
            "deleted, observed and suspended",
            deleted(|o| (observe(o), suspend(o)).0),
            Precheck::Suspended,
        ),
        (
            "deleted and observed, without the operator's finalizer",
            deleted(|o| (observe(o), gone(o)).0),
            Precheck::Forget,
        ),
    ] {
        assert_eq!(precheck(&object), expected, "{what}");
    }
}

#[test]
fn resources_in_another_account_or_region_are_neither_changed_nor_deleted() {
    let operator_config = OperatorConfig {
        cluster_id: "c",
        account: ACCOUNT,
        region: REGION,
        truststore_bucket: None,
    };
    let at = |place: &'static str| {
        move |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::PLACEMENT: place})
    };
    for (what, object, expected) in [
        ("nothing is created yet", domain(|_| {}), "Serve"),
        ("here", domain(at("123456789012/eu-west-1")), "Serve"),
        (
            "another account",
            domain(at("999999999999/eu-west-1")),
            "HomeChanged",
        ),
        (
            "another Region",
            domain(at("123456789012/us-east-1")),
            "HomeChanged",
        ),
        ("deleted", deleted(|_| {}), "Delete"),
        ("deleted here", deleted(at("123456789012/eu-west-1")), "Delete"),
        (
            "deleted, and in another Region",
            deleted(at("123456789012/us-east-1")),
            "HomeChanged",
        ),
    ] {
        let found = match disposition(&object, &Placement::of(&object, &operator_config)) {
            Disposition::Refuse(Acceptance::Refused {
                reason,
                stalled: true,
                ..
            }) => reason.as_str(),
            Disposition::Refuse(other) => panic!("{what}: {other:?}"),
            Disposition::Delete => "Delete",
            Disposition::Serve => "Serve",
        };
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn an_older_claim_is_checked_before_the_spec_unless_the_policy_denies_it() {
    let with = |name: &'static str, namespace: &'static str, created: &'static str| {
        domain(|o| {
            for field in ["name", "uid"] {
                o["metadata"][field] = json!(name);
            }
            o["metadata"]["namespace"] = json!(namespace);
            o["metadata"]["creationTimestamp"] = json!(created);
        })
    };
    let me = with("me", "shop", "2026-01-02T00:00:00Z");
    let winner = with("older", "shop", "2026-01-01T00:00:00Z");
    let cross_namespace = with("older", "acme", "2026-01-01T00:00:00Z");
    let younger = with("younger", "acme", "2026-01-03T00:00:00Z");
    let told = |all: &[&MtlsDomain], refused: &str| {
        let found = contested(&me, all.iter().copied(), |d| d.name_any() == refused, REGION);
        found.map(|found| match found {
            Acceptance::Refused {
                reason: Reason::DomainNameClaimed,
                message,
                stalled: false,
            } => message,
            other => panic!("{other:?}"),
        })
    };
    let message = |who: &str| Some(format!("spec.domainName: {who} has mtls.example.com already"));
    assert_eq!(told(&[&me, &younger], ""), None);
    assert_eq!(
        told(&[&me, &winner, &younger], ""),
        message("the older MtlsDomain older")
    );
    assert_eq!(
        told(&[&me, &cross_namespace], ""),
        message("an older MtlsDomain"),
        "the name of an object in another namespace is not disclosed"
    );
    assert_eq!(
        told(&[&me, &winner], "older"),
        None,
        "an object that the policy denies has no claim"
    );
    assert_eq!(told(&[&me, &winner], "me"), message("the older MtlsDomain older"));

    let operator_config = OperatorConfig {
        cluster_id: "c",
        account: ACCOUNT,
        region: REGION,
        truststore_bucket: None,
    };
    let clients = || clients_of(&me, &[], &[], &[], None, &|_| None);
    let wanted = || desired::desired(&me, &operator_config, clients());
    assert!(admit(None, wanted).is_ok());
    let claimed = Acceptance::Suspended;
    assert_eq!(admit(Some(claimed.clone()), wanted).unwrap_err(), claimed);
    let wrong = || {
        Err(Refused {
            reason: Reason::WrongAccount,
            message: "m".into(),
        })
    };
    let refused = Acceptance::Refused {
        reason: Reason::WrongAccount,
        message: "m".into(),
        stalled: true,
    };
    assert_eq!(admit(None, wrong).unwrap_err(), refused);
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
