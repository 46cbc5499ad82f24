//! The server certificate: requested, replaced, watched, given up and requested again; or an existing
//! certificate of ACM, which the operator only reads.
use aws_sdk_acm::types::ValidationMethod;
use aws_sdk_route53::types::RrType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use sandbox::{
    control::{CertificateState, Fault, When},
    prepare::hosted_zone,
};
use serde_json::json;

use crate::support::{
    aws::server_certificates::{
        DAY, becomes, changed, count, described, epoch, events, existing, imported, in_days, in_use, public,
        refused, shown, told, upsert,
    },
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn an_existing_certificate_is_used_and_otherwise_left_alone() {
    run(async {
        let env = TestEnv::start("existing").await;
        let wildcard = public(&env, &format!("*.{}", env.prepared.zone)).await;
        let (own, proof) = (
            imported(&env, &env.host(), 300, None).await,
            public(&env, &env.host()).await,
        );
        let other_proof = public(&env, &env.host()).await;
        let mut theirs = vec![wildcard.clone(), own.clone(), proof.clone(), other_proof.clone()];
        theirs.sort();

        // A certificate that ACM issued, for a wildcard.
        let mark = env.mark().await;
        env.create_domain("d", existing(&wildcard, None)).await;
        env.ready("d").await;
        assert_eq!(in_use(&env).await, (wildcard.clone(), None));
        let told = shown(&env, "its ARN", |c| c.arn == wildcard).await;
        assert_eq!((told.status.as_str(), told.not_after.is_some()), ("ISSUED", true));

        // An imported certificate needs a proof of the name; until then all stays as it is. Then both go into
        // one call.
        env.change("d", existing(&own, None)).await;
        refused(
            &env,
            "InvalidSpec",
            "spec.serverCertificate.existing.ownershipVerificationArn",
        )
        .await;
        assert_eq!(in_use(&env).await, (wildcard.clone(), None));
        changed(&env, existing(&own, Some(&proof))).await;
        assert_eq!(in_use(&env).await, (own.clone(), Some(proof.clone())));
        changed(&env, existing(&own, Some(&other_proof))).await;
        assert_eq!(in_use(&env).await, (own.clone(), Some(other_proof.clone())));
        env.change("d", existing(&wildcard, Some(&proof))).await;
        refused(&env, "InvalidSpec", "leave it out").await;
        changed(
            &env,
            json!({"serverCertificate": {"existing": {"arn": wildcard, "ownershipVerificationArn": null}}}),
        )
        .await;
        assert_eq!(in_use(&env).await.0, wildcard);

        env.delete_domain("d").await;
        let writes = env.writes(mark).await;
        assert_eq!(count(&writes, "CreateDomainName"), 1, "{writes:?}");
        assert_eq!(
            count(&writes, "UpdateDomainName"),
            3,
            "one for each change: {writes:?}"
        );
        let touches = |w: &&String| w.contains("Certificate") || w.contains("CNAME");
        assert_eq!(
            writes.iter().filter(touches).collect::<Vec<_>>(),
            [""; 0],
            "only read"
        );
        assert_eq!(env.server_certificates().await, theirs);
        for arn in theirs {
            let tags = env
                .acm()
                .list_tags_for_certificate()
                .certificate_arn(arn)
                .send()
                .await
                .unwrap();
            assert_eq!(tags.tags(), []);
        }
    });
}

#[test]
fn an_existing_certificate_that_cannot_serve_is_named_with_the_reason() {
    run(async {
        let env = TestEnv::start("unusable").await;
        let mark = env.mark().await;
        let (region, account) = (&env.account.region, &env.account.id);
        let arn = |region: &str, account: &str| format!("arn:aws:acm:{region}:{account}:certificate/nowhere");
        env.create_domain("d", existing(&arn("eu-north-1", account), None))
            .await;
        let elsewhere = |field: &'static str, where_: &'static str| {
            move |c: &Condition| {
                c.reason == "InvalidSpec" && c.message.contains(field) && c.message.contains(where_)
            }
        };
        let field = "spec.serverCertificate.existing.arn";
        env.condition("d", "Accepted", elsewhere(field, "eu-north-1"))
            .await;
        env.change("d", existing(&arn(region, "999999999999"), None))
            .await;
        env.condition("d", "Accepted", elsewhere(field, "999999999999"))
            .await;
        let proof = arn("eu-north-1", account);
        env.change("d", existing(&arn(region, account), Some(&proof)))
            .await;
        env.condition(
            "d",
            "Accepted",
            elsewhere("existing.ownershipVerificationArn", "eu-north-1"),
        )
        .await;
        assert_eq!(
            env.writes(mark).await,
            [""; 0],
            "refused before anything is written"
        );

        let spec = json!({
            "serverCertificate": {
                "existing": {"arn": arn(region, account), "ownershipVerificationArn": null},
            },
        });
        env.change("d", spec).await;
        let condition = refused(&env, "RefNotFound", &arn(region, account)).await;
        assert!(condition.message.contains(field), "{}", condition.message);
        let request = env.acm().request_certificate().domain_name(env.host());
        let pending = request
            .validation_method(ValidationMethod::Dns)
            .send()
            .await
            .unwrap()
            .certificate_arn
            .unwrap();
        env.change("d", existing(&pending, None)).await;
        refused(&env, "CertificateFailed", "PENDING_VALIDATION").await;
        let other_name = public(&env, &format!("www.{}", env.prepared.zone)).await;
        env.change("d", existing(&other_name, None)).await;
        refused(&env, "CertificateFailed", &format!("is not for {}", env.host())).await;
        assert_eq!(env.gateway_domains().await, [""; 0]);

        // The operator takes the certificate as it is once its owner has corrected it.
        env.change("d", existing(&pending, None)).await;
        let record = described(&env, &pending).await.domain_validation_options()[0]
            .resource_record()
            .unwrap()
            .clone();
        upsert(&env, &env.prepared.zone_id, record.name(), record.value()).await;
        env.ready("d").await;

        // The certificate expires: the operator says so, and removes nothing because of it.
        let mark = env.mark().await;
        becomes(
            &env,
            CertificateState {
                arn: &pending,
                status: "EXPIRED",
                ..CertificateState::default()
            },
        )
        .await;
        refused(&env, "CertificateFailed", "is EXPIRED").await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}

#[test]
fn a_requested_certificate_is_replaced_by_an_existing_one_and_back() {
    run(async {
        let env = TestEnv::start("exchanged").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let ours = in_use(&env).await.0;
        let theirs = public(&env, &env.host()).await;
        let only = async |arn: &str| {
            eventually("the other certificate is gone", async || {
                match env.server_certificates().await {
                    all if all == [arn] => Ok(()),
                    all => Err(format!("{all:?}")),
                }
            })
            .await;
        };
        let mark = env.mark().await;
        changed(&env, existing(&theirs, None)).await;
        assert_eq!(in_use(&env).await.0, theirs);
        only(&theirs).await;
        assert_eq!(env.writes(mark).await, ["UpdateDomainName", "DeleteCertificate"]);

        let mark = env.mark().await;
        changed(&env, json!({"serverCertificate": null})).await;
        let new = in_use(&env).await.0;
        assert!(new != theirs && new != ours);
        assert_eq!(
            env.writes(mark).await,
            ["RequestCertificate", "UpdateDomainName"],
            "the record stays"
        );
        assert_eq!(env.server_certificates().await.len(), 2, "theirs stays");
    });
}

/// The operator is killed after the swap, and again while ACM says that the old certificate is still in use.
#[test]
fn a_changed_key_and_more_names_are_one_new_certificate_swapped_in_place() {
    run(async {
        let mut env = TestEnv::start("swap").await;
        let (account, control) = (env.account.id.clone(), env.control());
        let zone2 = format!("z{account}.example.org");
        let zone2_id = hosted_zone(&env.account, &zone2).await.unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let old = in_use(&env).await.0;
        assert_eq!(
            described(&env, &old).await.key_algorithm.unwrap().as_str(),
            "EC-prime256v1"
        );
        control
            .set_knobs(&account, &[("in_use_linger", 3600.0)])
            .await
            .unwrap();
        let hold = Fault {
            operation: "UpdateDomainName",
            account: &account,
            when: When::After,
            hold: true,
            ..Fault::default()
        };
        let fault = control.add_faults(&[hold]).await.unwrap().remove(0).id;

        let mark = env.mark().await;
        let names = [
            format!("www.{}", env.prepared.zone),
            format!("*.{zone2}"),
            zone2.clone(),
        ];
        let request = json!({"keyAlgorithm": "RSA_2048", "subjectAlternativeNames": names});
        env.change("d", json!({"serverCertificate": {"request": request}}))
            .await;
        env.kill_at(fault, "the swap").await;
        env.ready("d").await;

        let new = in_use(&env).await.0;
        assert_ne!(new, old);
        let certificate = described(&env, &new).await;
        assert_eq!(certificate.status.as_ref().unwrap().as_str(), "ISSUED");
        assert_eq!(certificate.key_algorithm.as_ref().unwrap().as_str(), "RSA-2048");
        let mut covered = certificate.subject_alternative_names().to_vec();
        covered.sort();
        let mut wanted: Vec<_> = names.iter().cloned().chain([env.host()]).collect();
        wanted.sort();
        assert_eq!(covered, wanted);
        let in_zone2 = env
            .route53()
            .list_resource_record_sets()
            .hosted_zone_id(&zone2_id)
            .send()
            .await
            .unwrap();
        let cnames = in_zone2
            .resource_record_sets()
            .iter()
            .filter(|r| r.r#type == RrType::Cname)
            .count();
        assert_eq!(cnames, 1, "a name and its wildcard share a record");

        // ACM says that the old certificate is still in use: the operator keeps it, and neither tries to
        // delete it nor waits for that.
        env.reconciles(2).await;
        assert_eq!(env.server_certificates().await.len(), 2);
        env.operator.kill();
        env.operator.restart().unwrap();
        env.reconciles(2).await;
        assert_eq!(count(&env.writes(mark).await, "DeleteCertificate"), 0);
        control
            .advance(&account, std::time::Duration::from_secs(3601))
            .await
            .unwrap();
        eventually("the old certificate is gone", async || {
            match env.server_certificates().await {
                all if all == [new.as_str()] => Ok(()),
                all => Err(format!("{all:?}")),
            }
        })
        .await;
        let writes = env.writes(mark).await;
        let counted = [
            "RequestCertificate",
            "UpdateDomainName",
            "DeleteDomainName",
            "CreateDomainName",
            "DeleteCertificate",
        ]
        .map(|operation| count(&writes, operation));
        assert_eq!(counted, [1, 1, 0, 0, 1], "{writes:?}");
    });
}

#[test]
fn without_a_zone_for_every_name_nothing_is_requested() {
    run(async {
        let env = TestEnv::start("nozone").await;
        let other = format!("z{}.example.net", env.account.id);
        let request = json!({"subjectAlternativeNames": [format!("www.{other}")]});
        let mark = env.mark().await;
        env.create_domain("d", json!({"serverCertificate": {"request": request}}))
            .await;
        refused(&env, "HostedZoneNotFound", &format!("www.{other}")).await;
        env.reconciles(2).await;
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 0);
        hosted_zone(&env.account, &other).await.unwrap();
        env.ready("d").await;
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 1);
    });
}

#[test]
fn a_failed_or_timed_out_certificate_is_requested_again_with_growing_delays() {
    run(async {
        let env = TestEnv::start("invain").await;
        let control = env.control();
        control
            .set_knobs(&env.account.id, &[("issue_delay", 1e9)])
            .await
            .unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        let failed = async |known: &[String]| {
            let new = eventually("another request", async || {
                match env.server_certificates().await {
                    all if all.len() == known.len() + 1 => {
                        Ok(all.into_iter().find(|arn| !known.contains(arn)).unwrap())
                    }
                    all => Err(format!("{all:?}")),
                }
            })
            .await;
            env.condition("d", "CertificateIssued", |c| c.reason == "WaitingForValidation")
                .await;
            new
        };
        let ends = async |arn: &str, status: &str, reason: &str, age: SignedDuration| {
            let created_at = epoch(Timestamp::now() - age);
            becomes(
                &env,
                CertificateState {
                    arn,
                    status,
                    reason,
                    created_at,
                    ..CertificateState::default()
                },
            )
            .await;
        };
        let first = failed(&[]).await;
        ends(&first, "FAILED", "CAA_ERROR", DAY).await;
        let condition = refused(&env, "CertificateFailed", "CAA_ERROR").await;
        assert!(
            condition.message.contains("amazon.com") && condition.message.contains(&first),
            "{condition:?}"
        );
        env.reconciles(2).await;
        assert_eq!(
            env.server_certificates().await,
            [first.as_str()],
            "not before three days have gone"
        );

        ends(&first, "FAILED", "CAA_ERROR", DAY * 8).await;
        let second = failed(std::slice::from_ref(&first)).await;
        // ACM gives up after 72 hours.
        ends(&second, "VALIDATION_TIMED_OUT", "", DAY * 7 / 2).await;
        let record = described(&env, &second).await.domain_validation_options()[0]
            .resource_record()
            .unwrap()
            .clone();
        refused(
            &env,
            "CertificateFailed",
            &format!("{} CNAME {}", record.name(), record.value()),
        )
        .await;
        env.reconciles(2).await;
        assert_eq!(
            env.server_certificates().await.len(),
            2,
            "not before four days have gone"
        );
        ends(&second, "VALIDATION_TIMED_OUT", "", DAY * 9 / 2).await;
        let third = failed(&[first, second]).await;

        control
            .set_knobs(&env.account.id, &[("issue_delay", 0.0)])
            .await
            .unwrap();
        env.ready("d").await;
        assert_eq!(in_use(&env).await.0, third);
        eventually("the failed certificates are gone", async || {
            match env.server_certificates().await {
                all if all == [third.as_str()] => Ok(()),
                all => Err(format!("{all:?}")),
            }
        })
        .await;
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 3);
    });
}

#[test]
fn each_step_of_a_renewal_is_in_status_and_in_one_event() {
    run(async {
        let env = TestEnv::start("renewal").await;
        env.create_domain("d", json!({})).await;
        let ready = env.ready("d").await;
        let arn = in_use(&env).await.0;
        let mark = env.mark().await;
        let renewal_step = async |renewal: &str, reason: &str, days: i64| {
            let not_after = epoch(in_days(days));
            becomes(
                &env,
                CertificateState {
                    arn: &arn,
                    renewal,
                    reason,
                    not_after,
                    ..CertificateState::default()
                },
            )
            .await;
            shown(&env, renewal, |c| c.renewal.as_deref() == Some(renewal)).await
        };
        assert_eq!(
            renewal_step("PENDING_AUTO_RENEWAL", "", 45).await.warnings,
            [""; 0]
        );
        let record = described(&env, &arn).await.domain_validation_options()[0]
            .resource_record()
            .unwrap()
            .clone();
        let line = format!("{} CNAME {}", record.name(), record.value());
        assert!(renewal_step("PENDING_VALIDATION", "", 45).await.warnings[0].contains(&line));
        told(&env, "RenewalPending", "Warning", &line).await;
        renewal_step("PENDING_VALIDATION", "", 20).await;
        told(&env, "CertificateExpiring", "Warning", &arn).await;
        let state = renewal_step("FAILED", "CAA_ERROR", 20).await;
        assert_eq!(state.warnings.len(), 2, "{state:?}");
        told(&env, "RenewalFailed", "Warning", "CAA_ERROR").await;
        let state = renewal_step("SUCCESS", "", 198).await;
        assert_eq!(state.warnings, [""; 0]);
        told(&env, "CertificateRenewed", "Normal", &arn).await;

        env.reconciles(2).await;
        for reason in [
            "RenewalPending",
            "CertificateExpiring",
            "RenewalFailed",
            "CertificateRenewed",
        ] {
            assert_eq!(events(&env, reason).await.len(), 1, "{reason}");
        }
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(env.ready("d").await, ready, "Ready throughout");
    });
}

#[test]
fn an_imported_certificate_that_expires_is_reported() {
    run(async {
        let env = TestEnv::start("imported").await;
        let (own, proof) = (
            imported(&env, &env.host(), 10, None).await,
            public(&env, &env.host()).await,
        );
        env.create_domain("d", existing(&own, Some(&proof))).await;
        env.ready("d").await;
        told(&env, "CertificateExpiring", "Warning", &own).await;
        assert_eq!(
            shown(&env, "the warning", |c| !c.warnings.is_empty())
                .await
                .warnings
                .len(),
            1
        );
        imported(&env, &env.host(), 300, Some(&own)).await;
        told(&env, "CertificateRenewed", "Normal", &own).await;
        assert_eq!(
            shown(&env, "no warning", |c| c.warnings.is_empty()).await.arn,
            own
        );

        // The proof must stay valid as well.
        becomes(
            &env,
            CertificateState {
                arn: &proof,
                status: "EXPIRED",
                ..CertificateState::default()
            },
        )
        .await;
        refused(
            &env,
            "CertificateFailed",
            &format!("ownershipVerificationArn: {proof} is EXPIRED"),
        )
        .await;
    });
}

#[test]
fn a_domain_that_aws_locks_for_its_certificate_is_named_and_freed_by_another() {
    run(async {
        let env = TestEnv::start("locked").await;
        let (own, proof) = (
            imported(&env, &env.host(), 300, None).await,
            public(&env, &env.host()).await,
        );
        env.create_domain("d", existing(&own, Some(&proof))).await;
        env.ready("d").await;
        let mark = env.mark().await;
        for (status, message) in [
            (
                "PENDING_CERTIFICATE_REIMPORT",
                "the re-imported certificate has another name",
            ),
            (
                "PENDING_OWNERSHIP_VERIFICATION",
                "the ownership certificate has expired",
            ),
        ] {
            let set = env
                .control()
                .set_domain_status(&env.account.id, &env.host(), status, message)
                .await;
            assert_eq!(set.unwrap(), 1);
            let condition = env
                .condition("d", "DomainProgrammed", |c| c.message.contains(status))
                .await;
            assert_eq!(
                (condition.status.as_str(), condition.reason.as_str()),
                ("False", "DomainRejected")
            );
            assert!(condition.message.contains(message), "{}", condition.message);
        }
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0], "no write that AWS would refuse");
        let other_proof = public(&env, &env.host()).await;
        let mark = env.mark().await;
        changed(&env, existing(&own, Some(&other_proof))).await;
        assert_eq!(in_use(&env).await, (own, Some(other_proof)));
        assert_eq!(env.writes(mark).await, ["UpdateDomainName"]);
    });
}

#[test]
fn a_request_that_acm_does_not_list_yet_makes_no_second_certificate() {
    run(async {
        let env = TestEnv::start("unlisted").await;
        let delays = [("certificate_delay", 3.0), ("record_delay", 5.0)];
        env.control().set_knobs(&env.account.id, &delays).await.unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        assert_eq!(env.server_certificates().await, [in_use(&env).await.0]);
        let writes = env.writes(mark).await;
        assert!(count(&writes, "RequestCertificate") < 10, "{writes:?}");
    });
}

/// Certificates that another user deletes leave no trace in ACM, but AWS counts them for a year.
#[test]
fn certificates_that_a_user_keeps_deleting_are_requested_at_most_twelve_times_a_day() {
    run(async {
        let env = TestEnv::start("deleter").await;
        env.control()
            .set_knobs(&env.account.id, &[("issue_delay", 1e9)])
            .await
            .unwrap();
        env.create_domain("d", json!({})).await;
        for n in 1..=12 {
            let arn = eventually(&format!("request {n}"), async || {
                match &env.server_certificates().await[..] {
                    [arn] => Ok(arn.clone()),
                    all => Err(format!("{all:?}")),
                }
            })
            .await;
            env.acm()
                .delete_certificate()
                .certificate_arn(arn)
                .send()
                .await
                .expect("the certificate can be deleted");
        }
        let queued = env
            .condition("d", "CertificateIssued", |c| c.reason == "Queued")
            .await;
        assert_eq!(queued.status, "Unknown", "{queued:?}");
        env.reconciles(2).await;
        assert_eq!(env.server_certificates().await, [""; 0]);
    });
}
