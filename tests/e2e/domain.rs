//! Lifecycle of one domain: from nothing to a call that succeeds only with the certificate, through changes
//! of the spec, back to nothing.
use aws_sdk_apigatewayv2::types::IpAddressType;
use aws_sdk_route53::types::RrType;
use kube::api::DeleteParams;
use sandbox::prepare::http_api;
use serde_json::json;

use crate::support::{
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn mappings_are_added_changed_and_removed_in_place() {
    run(async {
        let env = TestEnv::start("mappings").await;
        let orders = http_api(&env.account, "orders", None).await.unwrap();
        env.gateway()
            .create_stage()
            .api_id(&orders)
            .stage_name("v2")
            .auto_deploy(true)
            .send()
            .await
            .unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let mark = env.mark().await;
        let all = &env.prepared.api_id;
        let change = async |mappings: &[(&str, &str, &str)]| {
            let listed: Vec<_> = mappings
                .iter()
                .map(|(path, api, stage)| json!({"path": path, "api": {"id": api, "stage": stage}}))
                .collect();
            env.change("d", json!({"mappings": listed})).await;
            env.ready("d").await;
            let wanted: Vec<_> = mappings
                .iter()
                .map(|(p, a, s)| ((*p).to_owned(), (*a).to_owned(), (*s).to_owned()))
                .collect();
            assert_eq!(env.mapped().await, wanted);
        };

        change(&[("", all, "$default"), ("orders", &orders, "$default")]).await;
        let id = env.mapping_id("orders").await;
        change(&[("", all, "$default"), ("orders", &orders, "v2")]).await;
        assert_eq!(env.mapping_id("orders").await, id, "the same mapping");
        change(&[("", all, "$default"), ("orders/v2", &orders, "v2")]).await;
        change(&[("", all, "$default")]).await;

        let mut writes = env.writes(mark).await;
        // The operator closes the new API's own endpoint with its first mapping. A new path may come before
        // or after the old path goes.
        writes[3..5].sort();
        let expected = [
            "CreateApiMapping",
            "UpdateApi",
            "UpdateApiMapping",
            "CreateApiMapping",
            "DeleteApiMapping",
            "DeleteApiMapping",
        ];
        assert_eq!(writes, expected);
    });
}

#[test]
fn a_mapping_that_the_spec_does_not_list_goes_unless_it_is_to_be_kept() {
    run(async {
        let env = TestEnv::start("unlisted").await;
        let intrude = async || {
            let (api, host) = (env.prepared.api_id.clone(), env.host());
            let request = env
                .gateway()
                .create_api_mapping()
                .domain_name(host)
                .api_id(api)
                .stage("$default");
            request.api_mapping_key("intruder").send().await.unwrap();
        };
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        intrude().await;
        eventually("the intruder is gone", async || match env.mapped().await {
            mapped if mapped.len() == 1 => Ok(()),
            mapped => Err(format!("{mapped:?}")),
        })
        .await;

        env.change("d", json!({"unlistedMappings": "Keep"})).await;
        env.ready("d").await;
        intrude().await;
        env.condition("d", "MappingsProgrammed", |c| {
            c.status == "True" && c.message.contains("\"intruder\"")
        })
        .await;
        env.reconciles(2).await;
        assert_eq!(env.mapped().await.len(), 2);

        // The operator does not delete a domain with a mapping of another owner.
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        env.condition("d", "DomainProgrammed", |c| {
            c.status == "False" && c.reason == "ForeignOwner"
        })
        .await;
        let ready = env
            .condition("d", "Ready", |c| c.status == "False" && c.reason == "Deleting")
            .await;
        assert!(
            ready.message.contains("still has API mappings") && ready.message.contains("intruder"),
            "{}",
            ready.message
        );
        assert_eq!(env.mapped().await.len(), 2);
        let id = env.mapping_id("intruder").await;
        env.gateway()
            .delete_api_mapping()
            .domain_name(env.host())
            .api_mapping_id(id)
            .send()
            .await
            .unwrap();
        env.domain_gone("d").await;
        assert!(env.gateway_domains().await.is_empty());
    });
}

#[test]
fn the_address_type_changes_in_place_and_its_record_comes_and_goes() {
    run(async {
        let env = TestEnv::start("addresses").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let mark = env.mark().await;
        let has = async |addresses: IpAddressType| {
            let domain = env.gateway_domain().await;
            assert_eq!(
                domain.domain_name_configurations()[0].ip_address_type(),
                Some(&addresses)
            );
            assert!(env.record(RrType::A).await.is_some());
            assert_eq!(
                env.record(RrType::Aaaa).await.is_some(),
                addresses == IpAddressType::Dualstack
            );
        };
        has(IpAddressType::Ipv4).await;
        env.change("d", json!({"ipAddressType": "DualStack"})).await;
        env.ready("d").await;
        has(IpAddressType::Dualstack).await;
        env.change("d", json!({"ipAddressType": "IPv4"})).await;
        env.ready("d").await;
        has(IpAddressType::Ipv4).await;
        let (host, mut writes) = (env.host(), env.writes(mark).await);
        writes[0..2].sort();
        writes[2..4].sort();
        let expected = [
            &format!("ChangeResourceRecordSets CREATE AAAA {host}"),
            "UpdateDomainName",
            &format!("ChangeResourceRecordSets DELETE AAAA {host}"),
            "UpdateDomainName",
        ];
        assert_eq!(writes, expected);
    });
}

#[test]
fn two_domains_created_at_once_queue_for_the_quota_and_both_become_ready() {
    run(async {
        let rates = [("MTLS_OPERATOR_AWS_RATE", "*=unlimited,CreateDomainName=1/5:1")];
        let env = TestEnv::start_with("quota", &rates).await;
        // AWS is a little more patient than the operator's clock, and refuses a caller that does not keep to
        // AWS's interval.
        env.control()
            .set_knobs(&env.account.id, &[("domain_write_interval", 4.0)])
            .await
            .unwrap();
        env.create_domain("first", json!({})).await;
        env.create_domain(
            "second",
            json!({"domainName": format!("second.{}", env.prepared.zone)}),
        )
        .await;
        let queued = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| c.reason == "Queued";
        let either = futures::future::select(
            Box::pin(env.condition("first", "DomainProgrammed", queued)),
            Box::pin(env.condition("second", "DomainProgrammed", queued)),
        );
        let (condition, _) = either.await.factor_first();
        assert_ne!(condition.status, "False", "waiting is not an error");
        env.ready("first").await;
        env.ready("second").await;
        let writes = env.writes(0).await;
        assert_eq!(
            writes.iter().filter(|w| *w == "CreateDomainName").count(),
            2,
            "none was refused and repeated"
        );
        assert_eq!(env.gateway_domains().await.len(), 2);
    });
}
