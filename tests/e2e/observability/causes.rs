//! An operator that cannot continue names the cause: missing credentials, a deletion that waits, a missing
//! object.
use aws_sdk_acm::types::CertificateStatus;
use sandbox::control::Fault;
use serde_json::{Value, json};

use crate::support::{
    journal::control,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, ask_for_renewal, certificate_spec, change, condition, create, delete,
            domain_spec, generated, issued, ready_domain, says, until, until_object,
        },
        recorder::{Recorder, event, events_about},
    },
    test_env::TestEnv,
    world::{eventually, world},
};

fn reason(object: &Value, type_: &str) -> String {
    condition(object, type_)
        .and_then(|c| Some(c["reason"].as_str()?.to_owned()))
        .unwrap_or_default()
}

fn message(object: &Value, type_: &str) -> String {
    condition(object, type_)
        .and_then(|c| Some(c["message"].as_str()?.to_owned()))
        .unwrap_or_default()
}

fn logged(env: &TestEnv, part: &str) -> usize {
    let log = std::fs::read_to_string(env.operator.log()).unwrap_or_default();
    log.lines().filter(|line| line.contains(part)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_the_missing_role_is_named_and_work_continues_once_it_exists() {
    let none = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_SESSION_TOKEN", ""),
    ];
    let mut env = TestEnv::start_with("credentials", &none).await;
    // There is no object yet that could carry the report.
    eventually("the log says it", async || {
        match logged(&env, "no usable AWS credentials") {
            0 => Err("nothing yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    create(&env, DOMAIN, "partners", domain_spec(&env, generated())).await;
    let refused = until(&env, DOMAIN, "partners", "Ready", "False", "CredentialsMissing").await;
    assert_eq!(
        (
            says(&refused, "CertificateIssued"),
            reason(&refused, "CertificateIssued")
        ),
        ("False".into(), "CredentialsMissing".into())
    );
    assert_eq!(says(&refused, "Accepted"), "True");
    let told = message(&refused, "Ready");
    let account = format!("ServiceAccount {}/mtls-operator", env.namespace);
    for part in [
        account.as_str(),
        "eks.amazonaws.com/role-arn",
        "Pod Identity association",
        "no credentials found",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(
        told.starts_with(&event(&env, "partners", "CredentialsMissing").await),
        "{told}"
    );
    assert_eq!(logged(&env, "no usable AWS credentials"), 1, "once");

    // A policy that denies the operator the request for its identity is another matter.
    for (name, value) in keys(&env) {
        env.operator.set_env(&name, &value);
    }
    let fault = Fault {
        operation: "GetCallerIdentity",
        account: &env.account.id,
        times: -1,
        status: 403,
        code: "AccessDenied",
        ..Fault::default()
    };
    let rules = control().add_faults(&[fault]).await.expect("a fault");
    env.operator.kill();
    env.end_lease().await;
    env.operator.restart().expect("the operator starts");
    let denied = until_object(&env, DOMAIN, "partners", "denied", |o| {
        reason(o, "Ready") == "PermissionDenied"
    })
    .await;
    assert!(
        !message(&denied, "Ready").contains("role-arn"),
        "{}",
        denied["status"]
    );
    for rule in rules {
        control().remove_fault(rule.id).await.expect("removed");
    }
    until(&env, DOMAIN, "partners", "Ready", "True", "Ready").await;
}

/// Credentials of this environment's account.
fn keys(env: &TestEnv) -> Vec<(String, String)> {
    let all = world().operator_env(&env.account, &env.prepared.bucket);
    all.into_iter()
        .filter(|(name, _)| name.starts_with("AWS_") && (name.contains("KEY") || name.contains("TOKEN")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_waits_names_the_cause() {
    let env = TestEnv::start("deletion").await;
    ready_domain(&env).await;
    change(&env, DOMAIN, "partners", json!({"suspend": true})).await;
    let suspended = until_object(&env, DOMAIN, "partners", "suspended", |o| {
        reason(o, "Ready") == "Suspended"
    })
    .await;
    assert_eq!(says(&suspended, "Ready"), "True", "as it was");
    let waits = |what: &'static str| {
        move |o: &Value| {
            reason(o, "Ready") == "Deleting"
                && says(o, "Ready") == "False"
                && message(o, "Ready").contains(what)
        }
    };
    delete(&env, DOMAIN, "partners").await;
    let waiting = until_object(
        &env,
        DOMAIN,
        "partners",
        "suspended",
        waits("spec.suspend is true"),
    )
    .await;
    assert_eq!(
        says(&waiting, "DomainProgrammed"),
        "True",
        "nothing is deleted yet"
    );
    assert!(
        event(&env, "partners", "DeletionWaits")
            .await
            .contains("spec.suspend is true")
    );

    control()
        .set_knobs(&env.account.id, &[("in_use_linger", 20.0)])
        .await
        .expect("a knob");
    change(&env, DOMAIN, "partners", json!({"suspend": false})).await;
    let waiting = until_object(&env, DOMAIN, "partners", "in use", waits("in use")).await;
    for type_ in [
        "CertificateIssued",
        "TruststorePublished",
        "MappingsProgrammed",
        "DNSProgrammed",
    ] {
        assert_eq!(
            (says(&waiting, type_), reason(&waiting, type_)),
            ("False".into(), "Deleting".into()),
            "{type_}"
        );
    }
    assert_ne!(says(&waiting, "DomainProgrammed"), "True");
    assert_eq!(
        says(&waiting, "BypassClosed"),
        "True",
        "the endpoint stays closed"
    );
    let acm = aws_sdk_acm::Client::new(&env.account.sdk());
    let arn = waiting["status"]["certificate"]["arn"].as_str().expect("an ARN");
    let there = acm
        .describe_certificate()
        .certificate_arn(arn)
        .send()
        .await
        .expect("the server certificate is there")
        .certificate;
    assert_eq!(
        there.expect("a certificate").status,
        Some(CertificateStatus::Issued)
    );
    env.domain_gone("partners").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_applied_before_its_domain_is_never_false() {
    let env = TestEnv::start("order").await;
    let record = Recorder::start(&env, CERTIFICATE, "client1").await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let early = until(
        &env,
        CERTIFICATE,
        "client1",
        "Ready",
        "Unknown",
        "WaitingForDomainTrust",
    )
    .await;
    assert!(
        message(&early, "Ready").contains("there is no MtlsDomain partners"),
        "{}",
        early["status"]
    );
    create(&env, DOMAIN, "partners", domain_spec(&env, generated())).await;
    let ready = until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
    for object in record.until(&ready).await {
        assert_ne!(says(&object, "Ready"), "False", "{}", object["status"]);
    }
    assert_eq!(ready["status"]["secretName"], "client1");

    // The operator reports a domain that does not come after half a minute, without any other event.
    let mut lost = certificate_spec("client2");
    lost["domainRef"] = json!({"name": "nowhere"});
    create(&env, CERTIFICATE, "client2", lost).await;
    until(
        &env,
        CERTIFICATE,
        "client2",
        "Ready",
        "Unknown",
        "WaitingForDomainTrust",
    )
    .await;
    until(&env, CERTIFICATE, "client2", "Ready", "False", "RefNotFound").await;

    // A renewal causes an Event, and the first issuance does not.
    assert!(
        !events_about(&env, "client1")
            .await
            .contains(&"Renewed".to_owned())
    );
    ask_for_renewal(&env, "client1", "now").await;
    let (renewed, _) = issued(&env, "client1", 2).await;
    let note = event(&env, "client1", "Renewed").await;
    assert!(
        note.contains(renewed["status"]["serialNumber"].as_str().expect("a number")),
        "{note}"
    );
}
