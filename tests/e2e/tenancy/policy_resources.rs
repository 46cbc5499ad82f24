//! The policy knows APIs by their tags, zones by their names, and roles with their external ids.
use std::collections::BTreeSet;

use kube::api::DeleteParams;
use sandbox::{
    control::Calls,
    prepare::{Preparation, hosted_zone, prepare},
};
use serde_json::json;

use crate::support::{
    kubernetes::policy_files::Bounded,
    world::{eventually, run, world},
};

#[test]
fn an_api_is_allowed_by_its_tag_and_a_zone_by_its_name() {
    run(async {
        let bounded = Bounded::start("tagged", &[]).await;
        let env = &bounded.env;
        bounded.rules(&json!([bounded.rule(json!({}))]));
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        bounded
            .not_permitted("d", &format!("the API {}", env.prepared.api_id))
            .await;
        let reads = bounded.operations(mark).await;
        let needed = ["GetApi", "ListHostedZones"].map(str::to_owned);
        assert!(
            reads.is_subset(&needed.into()),
            "only what it takes to find out: {reads:?}"
        );
        assert_eq!(env.domains().get("d").await.unwrap().metadata.finalizers, None);

        bounded.tag_api().await;
        env.ready("d").await;
        // The API of a served domain loses its tag: the operator applies no further change.
        bounded.untag_api().await;
        bounded
            .not_permitted("d", &format!("the API {}", env.prepared.api_id))
            .await;
        let mark = env.mark().await;
        env.change("d", json!({"ipAddressType": "DualStack"})).await;
        bounded
            .not_permitted("d", &format!("the API {}", env.prepared.api_id))
            .await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        bounded.tag_api().await;
        env.ready("d").await;
        assert!(env.record(aws_sdk_route53::types::RrType::Aaaa).await.is_some());

        // A zone below, which no rule allows, takes the name.
        let below = hosted_zone(&env.account, &env.host()).await.unwrap();
        let told = bounded
            .not_permitted("d", &format!("the hosted zone that {} is in", env.host()))
            .await;
        assert!(!told.contains(&below), "{told}");
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        bounded.not_permitted("d", "mtls-operator.io/abandon").await;
        let which = Calls {
            account: &env.account.id,
            service: "route53",
            since: mark,
            ..Calls::default()
        };
        let calls = env.control().calls(&which).await.unwrap().calls;
        assert!(
            !calls.iter().any(|c| c.resource.contains(&below)),
            "nothing in that zone is read or written: {calls:?}"
        );
        env.route53()
            .delete_hosted_zone()
            .id(&below)
            .send()
            .await
            .unwrap();
        env.domain_gone("d").await;
    });
}

#[test]
fn an_unreadable_resource_is_neither_allowed_nor_refused() {
    run(async {
        let bounded = Bounded::start("unreadable", &[]).await;
        let env = &bounded.env;
        bounded.tag_api().await;
        bounded.rules(&json!([bounded.rule(json!({}))]));
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.control()
            .deny(&env.account.id, &["apigateway:GetApi", "apigateway:GetApis"])
            .await
            .unwrap();
        let unclear = env
            .condition("d", "Accepted", |c| c.reason == "PermissionDenied")
            .await;
        assert!(
            unclear.status == "Unknown" && unclear.message.contains("apigateway:GET"),
            "{unclear:?}"
        );
        env.condition("d", "Ready", |c| {
            c.status == "False" && c.reason == "PermissionDenied"
        })
        .await;
        env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        let mark = env.mark().await;
        env.change("d", json!({"ipAddressType": "DualStack"})).await;
        env.condition("d", "Accepted", |c| c.reason == "PermissionDenied")
            .await;
        assert_eq!(
            env.writes(mark).await,
            [""; 0],
            "nothing is written before it is clear"
        );
        env.control().deny(&env.account.id, &[]).await.unwrap();
        env.ready("d").await;
    });
}

#[test]
fn the_external_id_of_a_role_comes_from_the_policy() {
    run(async {
        let bounded = Bounded::start("externalid", &[]).await;
        let env = &bounded.env;
        let (home, dns) = (world().aws.new_account(), world().aws.new_account());
        let there = prepare(&home, &Preparation::of_its_own(&home)).await.unwrap();
        let zone_name = format!("z{}.example.net", dns.id);
        let zone = hosted_zone(&dns, &zone_name).await.unwrap();
        let arn = |account: &str, name: &str| format!("arn:aws:iam::{account}:role/{name}");
        let (domains, records) = (arn(&home.id, "domains"), arn(&dns.id, "records"));
        let rule = |id: &str| {
            json!([{
                "name": "roles", "namespaces": {"names": [env.namespace]},
                "domainSuffixes": [zone_name], "accounts": [home.id], "hostedZoneIds": [zone],
                "roles": [{"arn": domains, "externalId": id}, {"arn": records}],
            }])
        };
        bounded.rules(&rule("first"));
        let spec = json!({
            "domainName": format!("mtls.{zone_name}"),
            "aws": {"assumeRole": {"roleArn": domains}},
            "dns": {"route53": {"assumeRole": {"roleArn": records}}},
            "truststore": {"bucket": there.bucket},
            "mappings": [],
        });
        let mark = env.mark().await;
        env.create_domain("d", spec.clone()).await;
        env.ready("d").await;
        let given = async |role: &str, mark| {
            let which = Calls {
                account: &env.account.id,
                operation: "AssumeRole",
                since: mark,
                ..Calls::default()
            };
            let calls = env.control().calls(&which).await.unwrap().calls;
            calls
                .into_iter()
                .filter(|c| c.resource == role)
                .map(|c| c.external_id)
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(given(&domains, mark).await, ["first".to_owned()].into());
        assert_eq!(given(&records, mark).await, [String::new()].into());
        let mark = env.mark().await;
        bounded.rules(&rule("second"));
        eventually("the new external id", async || {
            match given(&domains, mark).await {
                ids if ids == ["second".to_owned()].into() => Ok(()),
                ids => Err(format!("{ids:?}")),
            }
        })
        .await;
        env.delete_domain("d").await;

        // The operator does not assume a role that no rule lists.
        let mark = env.mark().await;
        let mut other = spec;
        other["aws"]["assumeRole"]["roleArn"] = json!(arn(&home.id, "another"));
        env.create_domain("e", other).await;
        bounded.not_permitted("e", "spec.aws.assumeRole.roleArn").await;
        assert_eq!(given(&arn(&home.id, "another"), mark).await, BTreeSet::new());
    });
}
