//! A certificate is requested where a zone can prove it, again after a failure, and at most five times a
//! day.
use jiff::{SignedDuration, Timestamp};
use sandbox::{control::CertificateState, prepare::hosted_zone};
use serde_json::json;

use crate::support::{
    aws::server_certificates::{DAY, becomes, count, described, epoch, in_use, refused},
    test_env::TestEnv,
    world::{eventually, run},
};

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

/// A real account may refuse elliptic curves: a spec without a key algorithm is served there too.
#[test]
fn a_spec_without_a_key_algorithm_needs_no_elliptic_curve() {
    run(async {
        let env = TestEnv::start("nocurve").await;
        let knobs = [("ec_certificates", 0.0)];
        env.control().set_knobs(&env.account.id, &knobs).await.unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let (rsa, _) = in_use(&env).await;

        let request = json!({"keyAlgorithm": "EC_prime256v1"});
        env.change("d", json!({"serverCertificate": {"request": request}}))
            .await;
        let condition = env
            .condition("d", "DomainProgrammed", |c| c.status == "False")
            .await;
        assert!(
            condition.message.contains("unsupported key algorithm"),
            "{condition:?}"
        );
        assert_eq!(in_use(&env).await.0, rsa);

        let mark = env.mark().await;
        env.change("d", json!({"serverCertificate": null})).await;
        env.ready("d").await;
        env.reconciles(2).await;
        assert_eq!(in_use(&env).await.0, rsa, "it fits, and so does the other");
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 0);
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

/// An ACM that ignores the key. ACM is the operator's memory, so a restart makes no second request.
#[test]
fn a_certificate_that_does_not_fit_is_reported_and_not_requested_again_at_once() {
    run(async {
        let mut env = TestEnv::start("misfit").await;
        let knobs = [("ignore_key_algorithm", 1.0)];
        env.control().set_knobs(&env.account.id, &knobs).await.unwrap();
        let mark = env.mark().await;
        let request = json!({"keyAlgorithm": "EC_prime256v1"});
        env.create_domain("d", json!({"serverCertificate": {"request": request}}))
            .await;
        let condition = refused(
            &env,
            "CertificateFailed",
            "with the key RSA_2048, and not EC_prime256v1",
        )
        .await;
        let all = env.server_certificates().await;
        assert!(condition.message.contains(&all[0]), "{condition:?}");
        env.operator.kill();
        env.operator.restart().expect("the operator starts");
        env.reconciles(2).await;
        assert_eq!(env.server_certificates().await, all);
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 1);

        // After an hour, once more.
        becomes(
            &env,
            CertificateState {
                arn: &all[0],
                created_at: epoch(Timestamp::now() - SignedDuration::from_mins(61)),
                ..CertificateState::default()
            },
        )
        .await;
        eventually("another request", async || {
            match env.server_certificates().await.len() {
                2 => Ok(()),
                n => Err(format!("{n}")),
            }
        })
        .await;
        // The way out that the message names.
        env.change(
            "d",
            json!({"serverCertificate": {"request": {"keyAlgorithm": null}}}),
        )
        .await;
        env.ready("d").await;
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 2);
    });
}

/// Certificates that another user deletes leave no trace in ACM, but AWS counts them for a year.
#[test]
fn certificates_that_a_user_keeps_deleting_are_requested_at_most_five_times_a_day() {
    run(async {
        let env = TestEnv::start("deleter").await;
        env.control()
            .set_knobs(&env.account.id, &[("issue_delay", 1e9)])
            .await
            .unwrap();
        env.create_domain("d", json!({})).await;
        for n in 1..=5 {
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
        assert!(
            queued
                .message
                .contains("5 certificates for this object within a day"),
            "{queued:?}"
        );
        env.reconciles(2).await;
        assert_eq!(env.server_certificates().await, [""; 0]);
    });
}
