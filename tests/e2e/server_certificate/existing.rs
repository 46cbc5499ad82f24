//! An existing certificate of ACM is used and otherwise left alone; one that cannot serve is named with the
//! reason.
use aws_sdk_acm::types::ValidationMethod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use sandbox::control::CertificateState;
use serde_json::json;

use crate::support::{
    aws::server_certificates::{
        becomes, changed, count, described, existing, imported, in_use, public, refused, shown, upsert,
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
