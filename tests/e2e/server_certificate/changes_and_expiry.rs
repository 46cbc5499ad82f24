//! A certificate is swapped in place, and its renewal, its expiry and a domain that AWS locks for it are
//! reported.
use aws_sdk_route53::types::RrType;
use sandbox::{
    control::{CertificateState, Fault, When},
    prepare::hosted_zone,
};
use serde_json::json;

use crate::support::{
    aws::server_certificates::{
        becomes, changed, count, described, epoch, events, existing, imported, in_days, in_use, public,
        refused, shown, told,
    },
    test_env::TestEnv,
    world::{eventually, run},
};

/// The operator is killed after the swap, and again while ACM says that the old certificate is still in use.
#[test]
fn a_changed_key_and_more_names_are_one_new_certificate_swapped_in_place() {
    run(async {
        let mut env = TestEnv::start("swap").await;
        let (account, control) = (env.account.id.clone(), env.control());
        let zone2 = format!("z{account}.example.org");
        let zone2_id = hosted_zone(&env.account, &zone2).await.unwrap();
        let request = json!({"keyAlgorithm": "EC_prime256v1"});
        env.create_domain("d", json!({"serverCertificate": {"request": request}}))
            .await;
        env.ready("d").await;
        let old = in_use(&env).await.0;
        let key = described(&env, &old).await.key_algorithm.unwrap();
        assert!(key.as_str().contains("prime256v1"), "{key}");
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
