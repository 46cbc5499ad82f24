//! Policies of an MtlsDomain: the resources that stay when it goes, observation without writes, places where
//! the operator may not write, and abandonment.
use kube::api::{DeleteParams, Patch, PatchParams};
use mtls_operator::domain::plan::OWNER_TAG;
use sandbox::control::Calls;
use serde_json::json;

use crate::support::{
    kubernetes::domains::{events, generated_authorities},
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn a_retained_domain_goes_on_serving_without_our_ownership_tags_and_can_be_taken_back() {
    run(async {
        let env = TestEnv::start("retained").await;
        env.create_domain("d", json!({"deletionPolicy": "Retain"})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        let identity = env.identity("client1").await;
        let (records, versions) = (env.records().await.len(), env.object_versions().await);
        let certificates = env.server_certificates().await;

        env.delete_domain("d").await;
        assert_eq!(env.call(&env.host(), "/", Some(&identity)).await.status, 200);
        assert_eq!(
            env.gateway_domain().await.tags.unwrap_or_default().get(OWNER_TAG),
            None
        );
        let request = env
            .acm()
            .list_tags_for_certificate()
            .certificate_arn(&certificates[0]);
        assert_eq!(request.send().await.unwrap().tags(), []);
        assert_eq!(env.server_certificates().await, certificates);
        assert_eq!(env.object_versions().await, versions);
        assert_eq!(
            env.records().await.len(),
            records - 1,
            "only the ownership record went"
        );
        assert_eq!(
            generated_authorities(&env).await,
            1,
            "the clients may need new certificates later"
        );
        assert_eq!(events(&env, "Retained").await.len(), 1);

        // Nothing of the domain is lost: the same manifest, with permission to take over, manages it again.
        env.create_domain("d", json!({"adoptionPolicy": "Unowned"})).await;
        env.ready("d").await;
        assert_eq!(
            env.gateway_domain().await.tags.unwrap_or_default().get(OWNER_TAG),
            Some(&env.owner("d"))
        );
        assert_eq!(env.call(&env.host(), "/", Some(&identity)).await.status, 200);
    });
}

#[test]
fn observing_reports_the_planned_writes_and_writes_nothing_to_aws() {
    run(async {
        let env = TestEnv::start("observe").await;
        let mark = env.mark().await;
        env.create_domain("d", json!({"managementPolicy": "Observe"}))
            .await;
        let issued = env
            .condition("d", "CertificateIssued", |c| c.reason == "Observing")
            .await;
        assert_eq!(issued.status, "False");
        assert!(issued.message.contains(&env.host()), "{}", issued.message);
        let plan = async || {
            env.domains()
                .get("d")
                .await
                .unwrap()
                .status
                .unwrap_or_default()
                .plan
        };
        let first = plan().await;
        assert!(
            first.iter().any(|line| line.contains("request certificate")),
            "{first:?}"
        );
        assert!(
            first
                .iter()
                .any(|line| line.contains("generate authority partners")),
            "{first:?}"
        );
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(generated_authorities(&env).await, 0);
        let object = env.domains().get("d").await.unwrap();
        assert_eq!(object.metadata.finalizers, None, "there is nothing to clean up");

        env.change("d", json!({"managementPolicy": "Manage"})).await;
        env.ready("d").await;
        assert_eq!(plan().await, [""; 0]);

        // The operator reports drift, and leaves it.
        env.change("d", json!({"managementPolicy": "Observe"})).await;
        env.ready("d").await;
        let id = env.mapping_id("").await;
        env.gateway()
            .delete_api_mapping()
            .domain_name(env.host())
            .api_mapping_id(id)
            .send()
            .await
            .unwrap();
        let mark = env.mark().await;
        env.condition("d", "MappingsProgrammed", |c| c.reason == "Observing")
            .await;
        let drift = plan().await;
        assert!(
            drift.len() == 1 && drift[0].contains("create mapping"),
            "{drift:?}"
        );
        env.reconciles(2).await;

        // The operator does not even delete.
        env.delete_domain("d").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(env.gateway_domains().await, [env.host()]);
        assert_eq!(events(&env, "Retained").await.len(), 1);
    });
}

#[test]
fn another_account_than_the_spec_names_is_refused_before_the_first_write() {
    run(async {
        let env = TestEnv::start("account").await;
        let mark = env.mark().await;
        env.create_domain("d", json!({"aws": {"accountId": "999999999999"}}))
            .await;
        let accepted = env.condition("d", "Accepted", |c| c.status == "False").await;
        assert_eq!(accepted.reason, "WrongAccount");
        assert!(accepted.message.contains(&env.account.id), "{}", accepted.message);
        env.condition("d", "Stalled", |c| c.status == "True").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        env.delete_domain("d").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}

#[test]
fn a_domain_whose_account_changed_has_no_second_set_of_resources() {
    run(async {
        let mut env = TestEnv::start("home").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.operator.stop().await.unwrap();
        // The operator returns with other credentials.
        let other = crate::support::world::world().aws.new_account();
        env.operator.set_env("AWS_ACCESS_KEY_ID", &other.id);
        env.operator.restart().unwrap();
        let accepted = env
            .condition("d", "Accepted", |c| c.reason == "HomeChanged")
            .await;
        assert!(accepted.message.contains(&env.account.id), "{}", accepted.message);
        env.condition("d", "Stalled", |c| c.status == "True").await;
        // The operator does not delete in the wrong account either.
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        let theirs = Calls {
            account: &other.id,
            writes: true,
            ..Calls::default()
        };
        assert_eq!(env.control().calls(&theirs).await.unwrap().calls.len(), 0);
        assert_eq!(env.gateway_domains().await, [env.host()]);
        env.operator.set_env("AWS_ACCESS_KEY_ID", &env.account.id.clone());
        env.operator.restart().unwrap();
        env.domain_gone("d").await;
        assert_eq!(env.gateway_domains().await, [""; 0]);
    });
}

#[test]
fn a_domain_lives_in_the_region_that_its_spec_names() {
    run(async {
        let env = TestEnv::start("region").await;
        let mut there = env.account.clone();
        there.region = "us-east-1".into();
        let bucket = format!("elsewhere-{}", there.id);
        sandbox::prepare::versioned_bucket(&there, &bucket).await.unwrap();
        let api = sandbox::prepare::http_api(&there, "elsewhere", None)
            .await
            .unwrap();
        env.create_domain(
            "d",
            json!({
                "aws": {"region": "us-east-1"},
                "truststore": {"bucket": bucket},
                "mappings": [{"path": "", "api": {"id": api, "stage": "$default"}}],
            }),
        )
        .await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        assert_eq!(
            env.gateway_domains().await,
            [""; 0],
            "the operator's own Region has no domain"
        );
        let gateway = aws_sdk_apigatewayv2::Client::new(&there.sdk());
        let domain = gateway
            .get_domain_name()
            .domain_name(env.host())
            .send()
            .await
            .unwrap();
        let config = &domain.domain_name_configurations()[0];
        assert!(
            config
                .certificate_arn()
                .unwrap()
                .starts_with("arn:aws:acm:us-east-1:")
        );
        assert!(config.api_gateway_domain_name().unwrap().contains(".us-east-1."));
        assert_eq!(
            env.call(&env.host(), "/", Some(&env.identity("client1").await))
                .await
                .status,
            200
        );
        env.delete_domain("d").await;
        assert_eq!(gateway.get_domain_names().send().await.unwrap().items().len(), 0);
    });
}

/// Names are unique in a Region, and the older object without a Region of its own is in the operator's.
#[test]
fn one_name_in_two_regions_is_no_conflict() {
    run(async {
        let env = TestEnv::start("regions").await;
        env.create_domain("here", json!({})).await;
        env.ready("here").await;
        let mut there = env.account.clone();
        there.region = "us-east-1".into();
        let bucket = format!("there-{}", there.id);
        sandbox::prepare::versioned_bucket(&there, &bucket).await.unwrap();
        let spec = json!({"aws": {"region": "us-east-1"}, "truststore": {"bucket": bucket}, "mappings": []});
        env.create_domain("there", spec).await;
        env.condition("there", "DomainProgrammed", |c| c.status == "True")
            .await;
        let gateway = aws_sdk_apigatewayv2::Client::new(&there.sdk());
        let domain = gateway
            .get_domain_name()
            .domain_name(env.host())
            .send()
            .await
            .unwrap();
        assert_eq!(
            domain.tags.unwrap_or_default().get(OWNER_TAG),
            Some(&env.owner("there"))
        );
        // Both domains want one record, and the first has it.
        env.condition("there", "DNSProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        env.ready("here").await;
        env.delete_domain("there").await;
        env.ready("here").await;
        assert_eq!(env.gateway_domains().await, [env.host()]);
    });
}

#[test]
fn nothing_is_deleted_while_suspended() {
    run(async {
        let env = TestEnv::start("suspendeddelete").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.change("d", json!({"suspend": true})).await;
        env.condition("d", "Accepted", |c| c.reason == "Suspended").await;
        let mark = env.mark().await;
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        // Another object goes through its whole lifecycle meanwhile.
        env.create_domain(
            "other",
            json!({"domainName": format!("other.{}", env.prepared.zone)}),
        )
        .await;
        env.ready("other").await;
        let writes = env.writes(mark).await;
        assert!(
            !writes
                .iter()
                .any(|w| w.starts_with("Delete") || w.contains("DELETE")),
            "{writes:?}"
        );
        assert!(env.gateway_domains().await.contains(&env.host()));
        env.change("d", json!({"suspend": false})).await;
        env.domain_gone("d").await;
        assert!(!env.gateway_domains().await.contains(&env.host()));
    });
}

#[test]
fn an_abandoned_domain_goes_without_aws() {
    run(async {
        let env = TestEnv::start("abandoned").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.control().deny(&env.account.id, &["*"]).await.unwrap();
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        env.condition("d", "DomainProgrammed", |c| {
            c.status == "False" && c.reason == "PermissionDenied"
        })
        .await;
        env.condition("d", "Ready", |c| c.status == "False" && c.reason == "Deleting")
            .await;

        let annotate = async |name: &str| {
            let patch =
                Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/abandon": name}}}));
            env.domains()
                .patch("d", &PatchParams::default(), &patch)
                .await
                .unwrap();
        };
        annotate("another").await; // came along with a copied manifest
        env.condition("d", "Ready", |c| c.status == "False").await;
        let mark = env.mark().await;
        annotate("d").await;
        env.domain_gone("d").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        let note = eventually("the Event", async || {
            events(&env, "Abandoned").await.pop().ok_or("none".into())
        })
        .await;
        for part in [
            env.host(),
            "arn:aws:acm:".into(),
            format!("s3://{}", env.prepared.bucket),
        ] {
            assert!(note.contains(&part), "{note}");
        }
    });
}
