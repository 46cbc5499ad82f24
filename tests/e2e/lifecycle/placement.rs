//! A domain is created in the account and region that its spec names, and stays there.
use kube::api::DeleteParams;
use mtls_operator::aws::tags::OWNER_TAG;
use sandbox::{
    control::Calls,
    prepare::{Preparation, hosted_zone, prepare},
};
use serde_json::json;

use crate::support::{
    aws::hosted_zones::{ours, role},
    test_env::TestEnv,
    world::{run, world},
};

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
fn a_domain_is_created_in_the_account_of_its_role_and_stays_there() {
    run(async {
        let env = TestEnv::start("role").await;
        let (home, dns, other) = (
            world().aws.new_account(),
            world().aws.new_account(),
            world().aws.new_account(),
        );
        let there = prepare(&home, &Preparation::of_its_own(&home)).await.unwrap();
        let zone_name = format!("z{}.example.net", dns.id);
        let zone = hosted_zone(&dns, &zone_name).await.unwrap();
        let name = format!("mtls.{zone_name}");
        let mark = env.mark().await;
        let spec = json!({
            "domainName": name,
            "aws": {"assumeRole": role(&home, "domains"), "accountId": home.id},
            "dns": {"route53": {"assumeRole": role(&dns, "dns"), "hostedZoneId": zone}},
            "truststore": {"bucket": there.bucket},
            "mappings": [{"path": "", "api": {"id": there.api_id, "stage": "$default"}}],
        });
        env.control()
            .deny(&env.account.id, &["sts:AssumeRole"])
            .await
            .unwrap();
        env.create_domain("d", spec).await;
        let refused = env
            .condition("d", "Ready", |c| c.reason == "PermissionDenied")
            .await;
        let arn = format!("arn:aws:iam::{}:role/domains", home.id);
        assert!(
            refused.message.contains("sts:AssumeRole") && refused.message.contains(&arn),
            "{}",
            refused.message
        );
        env.control().deny(&env.account.id, &[]).await.unwrap();
        env.ready("d").await;
        let gateway = aws_sdk_apigatewayv2::Client::new(&home.sdk());
        let domain = gateway.get_domain_name().domain_name(&name).send().await.unwrap();
        assert_eq!(domain.tags.unwrap().get(OWNER_TAG), Some(&env.owner("d")));
        let arn = domain.domain_name_configurations.unwrap()[0]
            .certificate_arn
            .clone()
            .unwrap();
        assert!(arn.contains(&format!(":{}:", home.id)), "{arn}");
        assert_eq!(
            ours(&dns, &zone).await,
            [format!("A {name}"), format!("TXT _mtls-operator.{name}")]
        );
        let which = Calls {
            account: &env.account.id,
            since: mark,
            ..Calls::default()
        };
        let own = env.control().calls(&which).await.unwrap().calls;
        assert!(
            own.iter().all(|c| c.service == "sts"),
            "with the operator's own rights only roles are assumed: {own:?}"
        );
        let object = env.domains().get("d").await.unwrap();
        let place = format!("{}/{}", home.id, home.region);
        assert_eq!(
            object.metadata.annotations.unwrap().get("mtls-operator.io/home"),
            Some(&place)
        );

        // A role in another account would lead to a second set of everything.
        let mark = env.mark().await;
        env.change("d", json!({"aws": {"assumeRole": role(&other, "domains")}}))
            .await;
        let accepted = env
            .condition("d", "Accepted", |c| c.reason == "HomeChanged")
            .await;
        assert!(accepted.message.contains(&place), "{}", accepted.message);
        let everywhere = Calls {
            since: mark,
            writes: true,
            account: &other.id,
            ..Calls::default()
        };
        assert_eq!(env.control().calls(&everywhere).await.unwrap().calls.len(), 0);
        env.change("d", json!({"aws": {"assumeRole": role(&home, "domains-too")}}))
            .await;
        env.ready("d").await;

        env.delete_domain("d").await;
        assert_eq!(ours(&dns, &zone).await, [""; 0]);
        assert!(
            gateway
                .get_domain_names()
                .send()
                .await
                .unwrap()
                .items()
                .is_empty()
        );
    });
}
