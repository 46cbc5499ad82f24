//! Records of a domain in Route 53: the zone and account that they go to, and records of other owners in
//! their way.
use std::time::Duration;

use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, HostedZoneConfig, ResourceRecord, ResourceRecordSet,
    RrType, Vpc, VpcRegion,
};
use kube::api::DeleteParams;
use sandbox::{
    control::{Calls, Fault},
    prepare::hosted_zone,
};
use serde_json::json;

use crate::support::{
    aws::{
        existing_resources::record,
        hosted_zones::{names, ours, role, zone_elsewhere},
    },
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn a_zone_of_another_account_is_written_as_its_role_and_nothing_else_is() {
    run(async {
        let env = TestEnv::start("zonerole").await;
        let (dns, zone) = zone_elsewhere(&env).await;
        let host = env.host();
        env.create_domain("d", json!({})).await;
        let issued = env
            .condition("d", "CertificateIssued", |c| c.reason == "HostedZoneNotFound")
            .await;
        assert!(
            issued.message.contains(&format!("in account {}", env.account.id)),
            "{}",
            issued.message
        );
        assert_eq!(
            env.server_certificates().await,
            [""; 0],
            "the operator requests no certificate that cannot be issued"
        );

        let mark = env.mark().await;
        let spec =
            json!({"dns": {"route53": {"assumeRole": role(&dns, "dns")}}, "ipAddressType": "DualStack"});
        env.change("d", spec).await;
        env.ready("d").await;
        let marker = format!("TXT _mtls-operator.{host}");
        assert_eq!(
            ours(&dns, &zone).await,
            [format!("A {host}"), format!("AAAA {host}"), marker.clone()]
        );
        assert_eq!(
            names(&dns, &zone).await.len(),
            4,
            "the validation record is there too"
        );
        assert!(
            !env.writes(mark)
                .await
                .iter()
                .any(|w| w.contains("ResourceRecordSets"))
        );
        let which = Calls {
            account: &dns.id,
            since: mark,
            ..Calls::default()
        };
        let calls = env.control().calls(&which).await.unwrap().calls;
        assert!(
            calls.iter().all(|c| c.service == "route53"),
            "the role is for Route 53 alone: {calls:?}"
        );
        assert_eq!(env.gateway_domains().await, [host.as_str()]);

        // The operator corrects drift there, and applies the changed address type too.
        env.change("d", json!({"ipAddressType": "IPv4"})).await;
        env.ready("d").await;
        assert_eq!(ours(&dns, &zone).await, [format!("A {host}"), marker]);
        env.delete_domain("d").await;
        assert_eq!(ours(&dns, &zone).await, [""; 0]);
        assert_eq!(names(&dns, &zone).await.len(), 1, "the validation record");
    });
}

#[test]
fn a_role_for_route_53_that_is_refused_is_named_and_holds_up_nothing_else() {
    run(async {
        let mut env = TestEnv::start("zonedenied").await;
        let (dns, _) = zone_elsewhere(&env).await;
        env.control()
            .deny(&env.account.id, &["sts:AssumeRole"])
            .await
            .unwrap();
        env.create_domain(
            "d",
            json!({"dns": {"route53": {"assumeRole": role(&dns, "dns")}}}),
        )
        .await;
        let issued = env
            .condition("d", "CertificateIssued", |c| c.reason == "PermissionDenied")
            .await;
        assert_eq!(issued.status, "False");
        let arn = format!("arn:aws:iam::{}:role/dns", dns.id);
        assert!(
            issued.message.contains("sts:AssumeRole") && issued.message.contains(&arn),
            "{}",
            issued.message
        );
        env.condition("d", "TruststorePublished", |c| c.status == "True")
            .await;
        env.control().deny(&env.account.id, &[]).await.unwrap();
        env.ready("d").await;

        // The same on a served domain, after a restart: work outside of Route 53 continues.
        env.control()
            .deny(&env.account.id, &["sts:AssumeRole"])
            .await
            .unwrap();
        env.operator.restart().unwrap();
        let named = env
            .condition("d", "DNSProgrammed", |c| c.reason == "PermissionDenied")
            .await;
        assert!(named.message.contains(&arn), "{}", named.message);
        env.change("d", json!({"mappings": []})).await;
        env.condition("d", "MappingsProgrammed", |c| c.status == "True")
            .await;
        assert_eq!(env.mapped().await, []);
        env.control().deny(&env.account.id, &[]).await.unwrap();
        env.ready("d").await;
        env.delete_domain("d").await;
    });
}

#[test]
fn of_two_zones_of_one_name_the_spec_chooses_and_a_private_one_is_never_used() {
    run(async {
        let env = TestEnv::start("twins").await;
        let (host, first) = (env.host(), env.prepared.zone_id.clone());
        let private = env
            .route53()
            .create_hosted_zone()
            .name(&host)
            .caller_reference("private");
        let vpc = Vpc::builder()
            .vpc_id("vpc-1")
            .vpc_region(VpcRegion::EuWest1)
            .build();
        let config = HostedZoneConfig::builder().private_zone(true).build();
        let private = private.vpc(vpc).hosted_zone_config(config).send().await.unwrap();
        let private = private
            .hosted_zone
            .unwrap()
            .id
            .trim_start_matches("/hostedzone/")
            .to_owned();
        let second = hosted_zone(&env.account, &env.prepared.zone).await.unwrap();

        env.create_domain("d", json!({})).await;
        let issued = env
            .condition("d", "CertificateIssued", |c| c.reason == "HostedZoneNotFound")
            .await;
        let (message, field) = (&issued.message, "spec.dns.route53.hostedZoneId");
        assert!(
            [field, &first, &second]
                .iter()
                .all(|part| message.contains(*part)),
            "{message}"
        );
        assert!(!message.contains(&private), "{message}");
        env.change("d", json!({"dns": {"route53": {"hostedZoneId": private}}}))
            .await;
        env.condition("d", "CertificateIssued", |c| {
            c.message.contains("no public hosted zone")
        })
        .await;
        assert_eq!(env.server_certificates().await, [""; 0]);

        env.change("d", json!({"dns": {"route53": {"hostedZoneId": second}}}))
            .await;
        env.ready("d").await;
        assert_eq!(
            ours(&env.account, &second).await,
            [format!("A {host}"), format!("TXT _mtls-operator.{host}")]
        );
        assert_eq!(names(&env.account, &first).await, [""; 0]);
        assert_eq!(names(&env.account, &private).await, [""; 0]);

        // The operator does not guess the zone of the records at the end either.
        env.change("d", json!({"dns": null})).await;
        env.condition("d", "DNSProgrammed", |c| c.reason == "HostedZoneNotFound")
            .await;
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        let last = env
            .condition("d", "DomainProgrammed", |c| c.reason == "HostedZoneNotFound")
            .await;
        assert!(
            [&first, &second].iter().all(|zone| last.message.contains(*zone)),
            "{}",
            last.message
        );
        assert_eq!(env.gateway_domains().await, [host.as_str()]);
        env.route53()
            .delete_hosted_zone()
            .id(&first)
            .send()
            .await
            .unwrap();
        env.domain_gone("d").await;
        assert_eq!(ours(&env.account, &second).await, [""; 0]);
    });
}

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
fn a_zone_that_is_busy_with_another_change_is_written_a_moment_later() {
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
fn a_record_that_is_right_already_is_accepted_as_it_is_and_outlives_the_domain() {
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
