//! Records in Route 53 follow the spec, and records of other owners are named and stay.
use std::time::Duration;

use aws_sdk_apigatewayv2::types::IpAddressType;
use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType,
};
use sandbox::control::{Calls, Fault};
use serde_json::json;

use crate::support::{
    aws::{existing_resources::record, hosted_zones::ours},
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn records_of_other_tools_and_routing_policies_are_named_and_stay() {
    run(async {
        let env = TestEnv::start("others").await;
        let name = format!("{}.", env.host());
        let theirs = record(&name, RrType::Cname, "ingress.example.net");
        let registry = record(
            &format!("cname-{name}"),
            RrType::Txt,
            "\"heritage=external-dns,external-dns/owner=prod,external-dns/resource=ingress/shop/web\"",
        );
        env.change_record(ChangeAction::Create, theirs.clone()).await;
        env.change_record(ChangeAction::Create, registry).await;
        env.create_domain("d", json!({})).await;
        let dns = env
            .condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        let message = &dns.message;
        assert!(
            message.contains("ingress.example.net")
                && message.contains("external-dns made for ingress/shop/web"),
            "{message}"
        );
        env.reconciles(2).await;
        assert_eq!(env.record(RrType::Cname).await, Some(theirs.clone()));

        let value = ResourceRecord::builder().value("192.0.2.7").build().unwrap();
        let weighted = ResourceRecordSet::builder()
            .name(&name)
            .r#type(RrType::A)
            .ttl(60)
            .resource_records(value);
        let weighted = weighted.set_identifier("blue").weight(1).build().unwrap();
        let change = |action, record| {
            Change::builder()
                .action(action)
                .resource_record_set(record)
                .build()
                .unwrap()
        };
        let batch = ChangeBatch::builder()
            .changes(change(ChangeAction::Delete, theirs))
            .changes(change(ChangeAction::Create, weighted.clone()))
            .build()
            .unwrap();
        let request = env
            .route53()
            .change_resource_record_sets()
            .hosted_zone_id(&env.prepared.zone_id);
        request.change_batch(batch).send().await.unwrap();
        let dns = env
            .condition("d", "DNSProgrammed", |c| c.message.contains("routing policy"))
            .await;
        assert!(dns.message.contains("192.0.2.7"), "{}", dns.message);
        env.reconciles(2).await;
        assert_eq!(
            env.record(RrType::A).await.and_then(|r| r.set_identifier),
            Some("blue".to_owned())
        );
        env.change_record(ChangeAction::Delete, weighted).await;
        env.ready("d").await;
    });
}

#[test]
fn a_record_that_comes_between_read_and_write_is_not_overwritten() {
    run(async {
        let env = TestEnv::start("race").await;
        let name = format!("{}.", env.host());
        let hold = Fault {
            operation: "ChangeResourceRecordSets",
            account: &env.account.id,
            skip: 1,
            hold: true,
            ..Fault::default()
        };
        let fault = env.control().add_faults(&[hold]).await.unwrap().remove(0).id;
        env.create_domain("d", json!({})).await;
        env.holds(fault, "the batch with the alias").await;
        let theirs = record(&name, RrType::A, "192.0.2.1");
        env.change_record(ChangeAction::Create, theirs.clone()).await;
        env.control().release(fault).await.unwrap();
        env.control().remove_fault(fault).await.unwrap();
        let dns = env
            .condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        assert!(dns.message.contains("192.0.2.1"), "{}", dns.message);
        assert_eq!(
            ours(&env.account, &env.prepared.zone_id).await,
            [format!("A {}", env.host())],
            "no ownership record either"
        );
        env.change_record(ChangeAction::Delete, theirs).await;
        env.ready("d").await;
    });
}

/// Route 53 accepts one change of a zone at a time.
#[test]
fn a_busy_zone_is_written_a_moment_later() {
    run(async {
        let env = TestEnv::start("busy").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.control()
            .advance(&env.account.id, Duration::from_secs(60))
            .await
            .unwrap();
        env.control()
            .set_knobs(&env.account.id, &[("change_window", 6.0)])
            .await
            .unwrap();
        let mark = env.mark().await;
        env.change_record(ChangeAction::Delete, env.record(RrType::A).await.unwrap())
            .await;
        eventually("the alias again", async || match env.record(RrType::A).await {
            Some(_) => Ok(()),
            None => Err("no alias".into()),
        })
        .await;
        let which = Calls {
            account: &env.account.id,
            since: mark,
            operation: "ChangeResourceRecordSets",
            ..Calls::default()
        };
        let calls = env.control().calls(&which).await.unwrap().calls;
        assert!(
            calls.iter().any(|c| c.code == "PriorRequestNotComplete"),
            "{calls:?}"
        );
        env.ready("d").await;
    });
}

/// Alias that a user made by hand before the operator was told to write to Route 53.
#[test]
fn a_correct_record_of_a_user_is_accepted_and_outlives_the_domain() {
    run(async {
        let env = TestEnv::start("right").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let name = format!("{}.", env.host());
        let marker = env
            .records()
            .await
            .into_iter()
            .find(|r| r.name == format!("_mtls-operator.{name}"))
            .unwrap();
        let config = env
            .gateway_domain()
            .await
            .domain_name_configurations
            .unwrap()
            .remove(0);
        let target = AliasTarget::builder()
            .dns_name(format!("{}.", config.api_gateway_domain_name.unwrap()))
            .hosted_zone_id(config.hosted_zone_id.unwrap())
            .evaluate_target_health(true)
            .build()
            .unwrap();
        let theirs = ResourceRecordSet::builder()
            .name(&name)
            .r#type(RrType::A)
            .alias_target(target)
            .build()
            .unwrap();
        // As if the record had been there first: without the operator's ownership record.
        env.change_record(ChangeAction::Upsert, theirs.clone()).await;
        env.change_record(ChangeAction::Delete, marker).await;
        let mark = env.mark().await;
        env.reconciles(2).await;
        env.ready("d").await;
        env.change("d", json!({"ipAddressType": "DualStack"})).await;
        let dns = env
            .condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        assert!(dns.message.contains("AAAA"), "{}", dns.message);
        env.delete_domain("d").await;
        assert_eq!(env.record(RrType::A).await, Some(theirs));
        let writes = env.writes(mark).await;
        assert!(
            !writes.iter().any(|w| w.contains("ResourceRecordSets")),
            "{writes:?}"
        );
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
