//! Refusals that the operator's IAM policy does not explain: the condition says what refuses the call and the
//! remedy, the operator waits before it repeats the call, and goes on once the refusal is lifted.
use kube::api::{DeleteParams, Patch, PatchParams};
use mtls_operator::api::MtlsDomain;
use sandbox::control::Fault;
use serde_json::json;

use crate::support::{
    aws::mapped_apis::knobs,
    kubernetes::domains::events,
    test_env::TestEnv,
    world::{eventually, run},
};

/// Refusal of a write, and the condition that reports it.
struct Refusal {
    operation: &'static str,
    status: u16,
    code: &'static str,
    message: &'static str,
    type_: &'static str,
    reason: &'static str,
    says: &'static [&'static str],
    lasts: bool,
}

const WHO: &str =
    "User: arn:aws:sts::123456789012:assumed-role/op/1732900000000 is not authorized to perform: ";

fn refusals() -> Vec<Refusal> {
    let request = |code, message, reason, says, lasts| Refusal {
        operation: "RequestCertificate",
        status: 400,
        code,
        message,
        type_: "CertificateIssued",
        reason,
        says,
        lasts,
    };
    let put = |message, says| Refusal {
        operation: "PutObject",
        status: 403,
        code: "AccessDenied",
        message,
        type_: "TruststorePublished",
        reason: "PermissionDenied",
        says,
        lasts: true,
    };
    vec![
        request(
            "AccessDeniedException",
            "acm:RequestCertificate with an explicit deny in a service control policy",
            "PermissionDenied",
            &["a service control policy of the organization denies acm:RequestCertificate"],
            true,
        ),
        request(
            "AccessDeniedException",
            "acm:RequestCertificate because no permissions boundary allows the acm:RequestCertificate action",
            "PermissionDenied",
            &["the permissions boundary of the operator's role does not allow acm:RequestCertificate"],
            true,
        ),
        request(
            "LimitExceededException",
            "Error: you have reached your limit of 20 certificates in the last year.",
            "QuotaExceeded",
            &[
                "a quota of the AWS account is exhausted",
                "20 certificates in the last year",
            ],
            true,
        ),
        request(
            "SignatureDoesNotMatch",
            "Signature expired: 20261129T225501Z is now earlier than 20261129T234001Z",
            "CredentialsRejected",
            &["clock"],
            false,
        ),
        request(
            "ExpiredTokenException",
            "The security token included in the request is expired",
            "CredentialsRejected",
            &["AWS rejects the operator's credentials", "is expired"],
            false,
        ),
        request(
            "ThrottlingException",
            "Rate exceeded (Request ID: 0a1b)",
            "Throttled",
            &["acm:RequestCertificate is throttled; trying again (AWS: Rate exceeded)"],
            false,
        ),
        put(
            "s3:PutObject on resource: \"arn:aws:s3:::b/k\" with an explicit deny in a resource-based policy",
            &[
                "the bucket's policy denies s3:PutObject",
                "spec.truststore.kmsKeyArn",
            ],
        ),
        put(
            "kms:GenerateDataKey on resource: arn:aws:kms:eu-west-1:1:key/k because no resource-based policy \
             allows the kms:GenerateDataKey action",
            &["the KMS key's policy does not allow kms:GenerateDataKey"],
        ),
        put(
            "s3:PutObject on resource: \"arn:aws:s3:::b/k\" with an explicit deny in a VPC endpoint policy",
            &["the policy of the VPC endpoint denies s3:PutObject"],
        ),
        Refusal {
            operation: "ChangeResourceRecordSets",
            status: 400,
            code: "InvalidChangeBatch",
            message: "[Tried to change resource record set but a resource record set protection protects it]",
            type_: "CertificateIssued",
            reason: "RecordProtected",
            says: &["remove the protection, or set spec.dns.external"],
            lasts: true,
        },
    ]
}

#[test]
fn a_refusal_says_what_refuses_and_is_repeated_after_a_pause() {
    run(async {
        let env = TestEnv::start("refusals").await;
        for (n, refusal) in refusals().iter().enumerate() {
            let message = match refusal.code.starts_with("AccessDenied") {
                true => format!("{WHO}{}", refusal.message),
                false => refusal.message.to_owned(),
            };
            let fault = Fault {
                operation: refusal.operation,
                account: &env.account.id,
                times: -1,
                status: refusal.status,
                code: refusal.code,
                message: &message,
                ..Fault::default()
            };
            let rules = env.control().add_faults(&[fault]).await.expect("a fault");
            let (mark, name) = (env.mark().await, format!("d{n}"));
            let host = format!("n{n}.{}", env.prepared.zone);
            env.create_domain(&name, json!({"domainName": host})).await;
            let told = env
                .condition(&name, refusal.type_, |c| c.reason == refusal.reason)
                .await;
            for part in refusal.says {
                assert!(told.message.contains(part), "{part}: {}", told.message);
            }
            for part in ["1732900000000", "20261129T", "0a1b", "allow it in its IAM policy"] {
                assert!(!told.message.contains(part), "{part}: {}", told.message);
            }
            env.reconciles(6).await;
            let attempts = async || {
                let writes = env.writes(mark).await;
                writes.iter().filter(|w| w.starts_with(refusal.operation)).count()
            };
            if refusal.lasts {
                assert_eq!(attempts().await, 1, "{}", told.message);
            } else {
                eventually("another attempt", async || match attempts().await {
                    0 | 1 => Err("none".to_owned()),
                    _ => Ok(()),
                })
                .await;
            }
            for rule in rules {
                env.control().remove_fault(rule.id).await.expect("removed");
            }
            // A changed spec is tried at once.
            env.change(&name, json!({"restDeployment": "Allow"})).await;
            env.ready(&name).await;
            env.delete_domain(&name).await;
        }
    });
}

#[test]
fn an_unchanged_spec_goes_on_after_the_pause() {
    run(async {
        let env = TestEnv::start("paused").await;
        let message =
            format!("{WHO}acm:RequestCertificate with an explicit deny in a service control policy");
        let fault = Fault {
            operation: "RequestCertificate",
            account: &env.account.id,
            code: "AccessDeniedException",
            message: &message,
            ..Fault::default()
        };
        env.control().add_faults(&[fault]).await.expect("a fault");
        env.create_domain("d", json!({})).await;
        env.condition("d", "CertificateIssued", |c| c.reason == "PermissionDenied")
            .await;
        env.ready("d").await;
    });
}

async fn deleting(env: &TestEnv) {
    env.domains()
        .delete("d", &DeleteParams::default())
        .await
        .expect("the MtlsDomain can be deleted");
}

/// Message of Ready while the deletion waits, as soon as it has all these parts.
async fn waits_for(env: &TestEnv, parts: &[&str]) {
    let told = env
        .condition("d", "Ready", |c| {
            c.reason == "Deleting" && parts.iter().all(|part| c.message.contains(part))
        })
        .await;
    assert_eq!(told.status, "False");
    eventually("the Event", async || {
        let notes = events(env, "DeletionWaits").await;
        match notes.iter().any(|note| note.contains(parts[0])) {
            true => Ok(()),
            false => Err(format!("{notes:?}")),
        }
    })
    .await;
}

#[test]
fn a_deletion_that_a_lock_holds_up_names_the_ways_out() {
    run(async {
        let env = TestEnv::start("locked").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let fault = Fault {
            operation: "DeleteObject*",
            account: &env.account.id,
            times: -1,
            status: 403,
            code: "AccessDenied",
            message: "Access Denied because object protected by object lock.",
            ..Fault::default()
        };
        env.control().add_faults(&[fault]).await.expect("a fault");
        let mark = env.mark().await;
        deleting(&env).await;
        waits_for(
            &env,
            &[
                "S3 Object Lock",
                "retention",
                "Retain",
                "mtls-operator.io/abandon: d",
            ],
        )
        .await;
        env.reconciles(6).await;
        let writes = env.writes(mark).await;
        let attempts = writes.iter().filter(|w| w.starts_with("DeleteObject")).count();
        assert_eq!(attempts, 1, "{writes:?}");
        let patch = json!({"metadata": {"annotations": {"mtls-operator.io/abandon": "d"}}});
        env.domains()
            .patch(
                "d",
                &PatchParams::default(),
                &Patch::Merge::<serde_json::Value>(patch),
            )
            .await
            .map(|_: MtlsDomain| ())
            .expect("an annotation");
        env.domain_gone("d").await;
    });
}

#[test]
fn a_deletion_without_valid_credentials_names_the_annotation_that_lets_go() {
    run(async {
        let env = TestEnv::start("dead").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let fault = Fault {
            account: &env.account.id,
            times: -1,
            status: 403,
            code: "InvalidClientTokenId",
            message: "The security token included in the request is invalid.",
            ..Fault::default()
        };
        let rules = env.control().add_faults(&[fault]).await.expect("a fault");
        deleting(&env).await;
        waits_for(
            &env,
            &[
                "AWS rejects the operator's credentials",
                "mtls-operator.io/abandon: d",
            ],
        )
        .await;
        for rule in rules {
            env.control().remove_fault(rule.id).await.expect("removed");
        }
        env.domain_gone("d").await;
    });
}

#[test]
fn a_protected_record_holds_up_the_deletion_before_the_domain_goes() {
    run(async {
        for (knob, says) in [
            ("protected_records", "protection protects it"),
            ("active_record_check", "ACTIVE_RECORD_CHECK"),
        ] {
            let env = TestEnv::start("protected").await;
            env.create_domain("d", json!({})).await;
            env.ready("d").await;
            knobs(&env, &[(knob, 1.0)]).await;
            let mark = env.mark().await;
            deleting(&env).await;
            let parts = [
                "a record protection or a change guardrail of Route 53",
                "set spec.deletionPolicy to Retain",
                "mtls-operator.io/abandon: d",
                says,
            ];
            waits_for(&env, &parts).await;
            env.reconciles(6).await;
            let writes = env.writes(mark).await;
            let attempts = writes
                .iter()
                .filter(|w| w.starts_with("ChangeResourceRecordSets"));
            assert_eq!((attempts.count(), writes.len()), (1, 1), "{writes:?}");
            assert_eq!(
                env.gateway_domains().await,
                [env.host()],
                "callers still reach it"
            );
            knobs(&env, &[(knob, 0.0)]).await;
            env.domain_gone("d").await;
        }
    });
}
