//! Ready, Reconciling, Stalled and observedGeneration say in each situation what kstatus expects. Unit tests
//! of the conditions have the situations that last for minutes.
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use sandbox::{control::Fault, tools};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{
    journal::{control, last_call, writes_since},
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, certificate_spec, change, condition, create, domain_spec, generated, get,
            ready_domain, says, summary, until, until_object,
        },
        recorder::Recorder,
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

/// Answer of kstatus for each object.
async fn statuses(objects: &[&Value]) -> Vec<String> {
    let program = tokio::task::spawn_blocking(kstatus)
        .await
        .expect("the program is built");
    let mut child = tokio::process::Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kstatus runs");
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(lines.as_bytes())
        .await
        .expect("kstatus reads");
    let out = child.wait_with_output().await.expect("kstatus ends");
    assert!(out.status.success(), "kstatus understands every object");
    String::from_utf8(out.stdout)
        .expect("words")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Program around kstatus's own library.
fn kstatus() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kstatus");
    tools::go_program("kstatus", &source, ".", &[]).expect("kstatus can be built")
}

async fn kstatus_says(object: &Value, status: &str) {
    assert_eq!(statuses(&[object]).await, [status], "{}", object["status"]);
}

fn was_reconciled(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

/// True in the row "first reconcile, or a new generation": the object waits. Ready is False at no time.
fn waits(object: &Value) -> bool {
    was_reconciled(object) && summary(object) == ["Unknown", "True", ""]
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_never_false_on_the_way_to_the_first_success() {
    let mut env = TestEnv::start("birth").await;
    env.operator.kill();
    control()
        .set_knobs(&env.account.id, &[("issue_delay", 1e9)])
        .await
        .expect("a knob");
    let (domain_record, certificate_record) = (
        Recorder::start(&env, DOMAIN, "partners").await,
        Recorder::start(&env, CERTIFICATE, "client1").await,
    );
    create(&env, DOMAIN, "partners", domain_spec(&env, generated())).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let kinds = [(DOMAIN, "partners"), (CERTIFICATE, "client1")];
    for (kind, name) in kinds {
        let new = get(&env, kind, name).await;
        assert_eq!(
            new["status"],
            json!({"observedGeneration": -1}),
            "never reconciled"
        );
        kstatus_says(&new, "InProgress").await;
    }

    // First reconcile: ACM takes its time.
    env.operator.restart().expect("the operator starts");
    let waiting = until(
        &env,
        DOMAIN,
        "partners",
        "CertificateIssued",
        "Unknown",
        "WaitingForValidation",
    )
    .await;
    assert!(waits(&waiting), "{}", waiting["status"]);
    let ready = condition(&waiting, "Ready").expect("Ready");
    let step = condition(&waiting, "CertificateIssued").expect("the step");
    assert_eq!(
        (&ready["reason"], &ready["message"]),
        (&step["reason"], &step["message"]),
        "Ready names the cause of the wait"
    );
    kstatus_says(&waiting, "InProgress").await;
    let waiting = until_object(&env, CERTIFICATE, "client1", "waits for its domain", waits).await;
    kstatus_says(&waiting, "InProgress").await;

    // Served.
    control()
        .set_knobs(&env.account.id, &[("issue_delay", 0.0)])
        .await
        .expect("a knob");
    for (kind, name) in kinds {
        let served = until(&env, kind, name, "Ready", "True", "").await;
        assert_eq!(summary(&served), ["True", "", ""]);
        assert!(was_reconciled(&served));
        kstatus_says(&served, "Current").await;
    }

    // A new generation: API Gateway takes its time.
    control()
        .set_domain_status(&env.account.id, &env.host(), "UPDATING", "")
        .await
        .expect("a status");
    let trust = json!({"authorities": [{"name": "ca", "generate": {}}, {"name": "acme", "pem": Ca::new("Acme \
                                                    CA").pem}]});
    change(&env, DOMAIN, "partners", json!({"trust": trust})).await;
    let waiting = until(&env, DOMAIN, "partners", "DomainProgrammed", "Unknown", "").await;
    assert!(waits(&waiting), "{}", waiting["status"]);
    assert_eq!(waiting["status"]["observedGeneration"], 2);
    kstatus_says(&waiting, "InProgress").await;
    control()
        .set_domain_status(&env.account.id, &env.host(), "", "")
        .await
        .expect("a status");
    let served = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(summary(&served), ["True", "", ""]);
    assert_eq!(served["status"]["observedGeneration"], 2);

    // The same at all times in between.
    let certificate = get(&env, CERTIFICATE, "client1").await;
    for (recorder, last) in [(&domain_record, &served), (&certificate_record, &certificate)] {
        let seen = recorder.until(last).await;
        assert_eq!(
            seen[0]["status"],
            json!({"observedGeneration": -1}),
            "the record begins with the creation"
        );
        for object in &seen {
            assert_ne!(says(object, "Ready"), "False", "{}", object["status"]);
            assert_eq!(says(object, "Stalled"), "", "{}", object["status"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_and_an_aws_out_of_reach_leave_ready_as_it_was() {
    let env = TestEnv::start("served").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
    let recorders = (
        Recorder::start(&env, DOMAIN, "partners").await,
        Recorder::start(&env, CERTIFICATE, "client1").await,
    );

    // Drift: another writer deletes the mapping. The operator restores it; Ready was True all the time.
    let gateway = aws_sdk_apigatewayv2::Client::new(&env.account.sdk());
    let mapping = async || {
        let all = gateway
            .get_api_mappings()
            .domain_name(env.host())
            .send()
            .await
            .map_err(|e| format!("{e:?}"))?;
        all.items()
            .first()
            .and_then(|m| m.api_mapping_id().map(str::to_owned))
            .ok_or("no mapping".to_owned())
    };
    let before = mapping().await.expect("the mapping");
    gateway
        .delete_api_mapping()
        .domain_name(env.host())
        .api_mapping_id(&before)
        .send()
        .await
        .expect("deleted");
    eventually("the mapping is back", mapping).await;

    // AWS is unreachable: every call fails.
    let fault = Fault {
        account: &env.account.id,
        times: -1,
        status: 503,
        code: "ServiceUnavailable",
        ..Fault::default()
    };
    let rules = control().add_faults(&[fault]).await.expect("a fault");
    let blind = until_object(&env, DOMAIN, "partners", "sees nothing", |o| {
        condition(o, "DomainProgrammed")
            .is_some_and(|c| c["status"] == "Unknown" && c["reason"] == "Unreachable")
    })
    .await;
    assert_eq!(summary(&blind), ["True", "", ""], "the summary is unchanged");
    let ready = condition(&blind, "Ready").expect("Ready");
    assert!(
        ready["message"]
            .as_str()
            .is_some_and(|m| m.contains("this is the last state seen")),
        "{ready}"
    );
    assert!(was_reconciled(&blind));
    kstatus_says(&blind, "Current").await;
    // A certificate needs no AWS.
    create(&env, CERTIFICATE, "client2", certificate_spec("client2")).await;
    until(&env, CERTIFICATE, "client2", "Ready", "True", "").await;
    for rule in rules {
        control().remove_fault(rule.id).await.expect("removed");
    }
    let seeing = until(&env, DOMAIN, "partners", "DomainProgrammed", "True", "").await;
    let certificate = get(&env, CERTIFICATE, "client1").await;
    for (recorder, last) in [(&recorders.0, &seeing), (&recorders.1, &certificate)] {
        for object in recorder.until(last).await {
            assert_eq!(summary(&object), ["True", "", ""], "{}", object["status"]);
        }
    }

    // Suspended: the summary is unchanged, and Accepted says so.
    change(&env, DOMAIN, "partners", json!({"suspend": true})).await;
    let suspended = until(&env, DOMAIN, "partners", "Accepted", "True", "Suspended").await;
    assert_eq!(summary(&suspended), ["True", "", ""]);
    assert!(was_reconciled(&suspended));
    kstatus_says(&suspended, "Current").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_aws_refuses_is_named_with_the_missing_right() {
    let env = TestEnv::start("denied").await;
    control()
        .deny(&env.account.id, &["acm:RequestCertificate"])
        .await
        .expect("denied");
    create(&env, DOMAIN, "partners", domain_spec(&env, generated())).await;
    let refused = until(&env, DOMAIN, "partners", "Ready", "False", "PermissionDenied").await;
    assert_eq!(
        summary(&refused),
        ["False", "", ""],
        "the remedy is outside of the spec"
    );
    assert!(was_reconciled(&refused));
    for type_ in ["Ready", "CertificateIssued"] {
        let message = condition(&refused, type_).expect(type_)["message"].to_string();
        assert!(message.contains("acm:RequestCertificate"), "{message}");
    }
    kstatus_says(&refused, "InProgress").await; // nothing that kstatus takes for final
    control().deny(&env.account.id, &[]).await.expect("allowed");
    let served = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(summary(&served), ["True", "", ""]);

    // A right that a read needs, taken from a served domain.
    control()
        .deny(&env.account.id, &["apigateway:GET"])
        .await
        .expect("denied");
    let refused = until(&env, DOMAIN, "partners", "Ready", "False", "PermissionDenied").await;
    assert!(
        condition(&refused, "Ready").expect("Ready")["message"]
            .to_string()
            .contains("apigateway:GET")
    );
    control().deny(&env.account.id, &[]).await.expect("allowed");
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_object_recovers_by_a_changed_spec_only() {
    let env = TestEnv::start("stalled").await;
    ready_domain(&env).await;
    let since = last_call().await;
    let role = json!({"roleArn": "arn:aws:iam::210987654321:role/domains"});
    change(&env, DOMAIN, "partners", json!({"aws": {"assumeRole": role}})).await;
    let stalled = until(&env, DOMAIN, "partners", "Ready", "False", "HomeChanged").await;
    assert_eq!(summary(&stalled), ["False", "", "True"]);
    assert_eq!(says(&stalled, "Accepted"), "False");
    assert!(was_reconciled(&stalled));
    let message = condition(&stalled, "Ready").expect("Ready")["message"].to_string();
    assert!(message.contains(&env.account.id), "{message}");
    kstatus_says(&stalled, "Failed").await;
    assert_eq!(writes_since(&env, since).await.len(), 0);

    change(&env, DOMAIN, "partners", json!({"aws": null})).await;
    let served = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(summary(&served), ["True", "", ""]);
    kstatus_says(&served, "Current").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_before_the_first_reconcile_says_neither_ready_nor_failed() {
    let env = TestEnv::start("asleep").await;
    let mut spec = domain_spec(&env, generated());
    spec["suspend"] = json!(true);
    let since = last_call().await;
    create(&env, DOMAIN, "partners", spec).await;
    let suspended = until(&env, DOMAIN, "partners", "Accepted", "True", "Suspended").await;
    assert_eq!(summary(&suspended), ["Unknown", "", ""]);
    kstatus_says(&suspended, "InProgress").await;
    assert!(
        writes_since(&env, since).await.is_empty(),
        "nothing is done for it"
    );
    change(&env, DOMAIN, "partners", json!({"suspend": false})).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
}
