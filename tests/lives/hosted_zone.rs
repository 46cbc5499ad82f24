//! The records of a domain in Route 53: in which zone and account they go, and what of others' stands in their way.
use std::time::Duration;

use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, HostedZoneConfig, ResourceRecord, ResourceRecordSet, RrType, Vpc,
    VpcRegion,
};
use kube::api::DeleteParams;
use mtls_operator::domain::plan::OWNER_TAG;
use sandbox::{
    aws::Account,
    control::{Calls, Fault},
    prepare::{Preparation, hosted_zone, prepare},
};
use serde_json::json;

use crate::{
    existing::record,
    world::{Life, eventually, run, world},
};

/// The record sets of a zone but its own NS and SOA, as in `A mtls.example.com`, sorted.
pub async fn names(account: &Account, zone_id: &str) -> Vec<String> {
    let client = aws_sdk_route53::Client::new(&account.sdk());
    let request = client.list_resource_record_sets().hosted_zone_id(zone_id);
    let all = request.send().await.expect("ListResourceRecordSets").resource_record_sets;
    let others = all.into_iter().filter(|r| !matches!(r.r#type, RrType::Ns | RrType::Soa));
    let mut names: Vec<_> = others.map(|r| format!("{} {}", r.r#type.as_str(), r.name.trim_end_matches('.'))).collect();
    names.sort();
    names
}

/// `names` without the validation records.
async fn ours(account: &Account, zone_id: &str) -> Vec<String> {
    names(account, zone_id).await.into_iter().filter(|r| !r.starts_with("CNAME _")).collect()
}

fn role(account: &Account, name: &str) -> serde_json::Value {
    json!({"roleArn": format!("arn:aws:iam::{}:role/{name}", account.id)})
}

/// Takes the zone of this life away and makes one of the same name in another account.
pub async fn zone_elsewhere(life: &Life) -> (Account, String) {
    life.route53().delete_hosted_zone().id(&life.prepared.zone_id).send().await.unwrap();
    let other = world().aws.new_account();
    let zone = hosted_zone(&other, &life.prepared.zone).await.unwrap();
    (other, zone)
}

#[test]
fn a_zone_of_another_account_is_written_as_its_role_and_nothing_else_is() {
    run(async {
        let life = Life::start("zonerole").await;
        let (dns, zone) = zone_elsewhere(&life).await;
        let host = life.host();
        life.create_domain("d", json!({})).await;
        let issued = life.condition("d", "CertificateIssued", |c| c.reason == "HostedZoneNotFound").await;
        assert!(issued.message.contains(&format!("in account {}", life.account.id)), "{}", issued.message);
        assert_eq!(life.server_certificates().await, [""; 0], "none is requested that cannot be issued");

        let mark = life.mark().await;
        let spec = json!({"dns": {"route53": {"assumeRole": role(&dns, "dns")}}, "ipAddressType": "DualStack"});
        life.change("d", spec).await;
        life.ready("d").await;
        let marker = format!("TXT _mtls-operator.{host}");
        assert_eq!(ours(&dns, &zone).await, [format!("A {host}"), format!("AAAA {host}"), marker.clone()]);
        assert_eq!(names(&dns, &zone).await.len(), 4, "the validation record is there too");
        assert!(!life.writes(mark).await.iter().any(|w| w.contains("ResourceRecordSets")));
        let which = Calls { account: &dns.id, since: mark, ..Calls::default() };
        let calls = life.control().calls(&which).await.unwrap().calls;
        assert!(calls.iter().all(|c| c.service == "route53"), "the role is for Route 53 alone: {calls:?}");
        assert_eq!(life.gateway_domains().await, [host.as_str()]);

        // Drift there is put back, and the address type goes back too.
        life.change("d", json!({"ipAddressType": "IPv4"})).await;
        life.ready("d").await;
        assert_eq!(ours(&dns, &zone).await, [format!("A {host}"), marker]);
        life.delete_domain("d").await;
        assert_eq!(ours(&dns, &zone).await, [""; 0]);
        assert_eq!(names(&dns, &zone).await.len(), 1, "the validation record");
    });
}

#[test]
fn a_role_for_route_53_that_is_refused_is_named_and_holds_up_nothing_else() {
    run(async {
        let mut life = Life::start("zonedenied").await;
        let (dns, _) = zone_elsewhere(&life).await;
        life.control().deny(&life.account.id, &["sts:AssumeRole"]).await.unwrap();
        life.create_domain("d", json!({"dns": {"route53": {"assumeRole": role(&dns, "dns")}}})).await;
        let issued = life.condition("d", "CertificateIssued", |c| c.reason == "PermissionDenied").await;
        assert_eq!(issued.status, "False");
        let arn = format!("arn:aws:iam::{}:role/dns", dns.id);
        assert!(issued.message.contains("sts:AssumeRole") && issued.message.contains(&arn), "{}", issued.message);
        life.condition("d", "TruststorePublished", |c| c.status == "True").await;
        life.control().deny(&life.account.id, &[]).await.unwrap();
        life.ready("d").await;

        // The same on a living domain, after a restart: what is not Route 53's goes on.
        life.control().deny(&life.account.id, &["sts:AssumeRole"]).await.unwrap();
        life.operator.restart().unwrap();
        let named = life.condition("d", "DNSProgrammed", |c| c.reason == "PermissionDenied").await;
        assert!(named.message.contains(&arn), "{}", named.message);
        life.change("d", json!({"mappings": []})).await;
        life.condition("d", "MappingsProgrammed", |c| c.status == "True").await;
        assert_eq!(life.mapped().await, []);
        life.control().deny(&life.account.id, &[]).await.unwrap();
        life.ready("d").await;
        life.delete_domain("d").await;
    });
}

#[test]
fn a_domain_is_made_in_the_account_of_its_role_and_stays_there() {
    run(async {
        let life = Life::start("role").await;
        let (home, dns, other) = (world().aws.new_account(), world().aws.new_account(), world().aws.new_account());
        let there = prepare(&home, &Preparation::of_its_own(&home)).await.unwrap();
        let zone_name = format!("z{}.example.net", dns.id);
        let zone = hosted_zone(&dns, &zone_name).await.unwrap();
        let name = format!("mtls.{zone_name}");
        let mark = life.mark().await;
        let spec = json!({
            "domainName": name,
            "aws": {"assumeRole": role(&home, "domains"), "accountId": home.id},
            "dns": {"route53": {"assumeRole": role(&dns, "dns"), "hostedZoneId": zone}},
            "truststore": {"bucket": there.bucket},
            "mappings": [{"path": "", "api": {"id": there.api_id, "stage": "$default"}}],
        });
        life.control().deny(&life.account.id, &["sts:AssumeRole"]).await.unwrap();
        life.create_domain("d", spec).await;
        let refused = life.condition("d", "Ready", |c| c.reason == "PermissionDenied").await;
        let arn = format!("arn:aws:iam::{}:role/domains", home.id);
        assert!(refused.message.contains("sts:AssumeRole") && refused.message.contains(&arn), "{}", refused.message);
        life.control().deny(&life.account.id, &[]).await.unwrap();
        life.ready("d").await;
        let gateway = aws_sdk_apigatewayv2::Client::new(&home.sdk());
        let domain = gateway.get_domain_name().domain_name(&name).send().await.unwrap();
        assert_eq!(domain.tags.unwrap().get(OWNER_TAG), Some(&life.owner("d")));
        let arn = domain.domain_name_configurations.unwrap()[0].certificate_arn.clone().unwrap();
        assert!(arn.contains(&format!(":{}:", home.id)), "{arn}");
        assert_eq!(ours(&dns, &zone).await, [format!("A {name}"), format!("TXT _mtls-operator.{name}")]);
        let which = Calls { account: &life.account.id, since: mark, ..Calls::default() };
        let own = life.control().calls(&which).await.unwrap().calls;
        assert!(
            own.iter().all(|c| c.service == "sts"),
            "with the operator's own rights only roles are taken on: {own:?}"
        );
        let object = life.domains().get("d").await.unwrap();
        let place = format!("{}/{}", home.id, home.region);
        assert_eq!(object.metadata.annotations.unwrap().get("mtls-operator.io/home"), Some(&place));

        // A role in another account would be a second set of everything.
        let mark = life.mark().await;
        life.change("d", json!({"aws": {"assumeRole": role(&other, "domains")}})).await;
        let accepted = life.condition("d", "Accepted", |c| c.reason == "HomeChanged").await;
        assert!(accepted.message.contains(&place), "{}", accepted.message);
        let everywhere = Calls { since: mark, writes: true, account: &other.id, ..Calls::default() };
        assert_eq!(life.control().calls(&everywhere).await.unwrap().calls.len(), 0);
        life.change("d", json!({"aws": {"assumeRole": role(&home, "domains-too")}})).await;
        life.ready("d").await;

        life.delete_domain("d").await;
        assert_eq!(ours(&dns, &zone).await, [""; 0]);
        assert!(gateway.get_domain_names().send().await.unwrap().items().is_empty());
    });
}

#[test]
fn of_two_zones_of_one_name_the_spec_says_which_and_a_private_one_is_never_it() {
    run(async {
        let life = Life::start("twins").await;
        let (host, first) = (life.host(), life.prepared.zone_id.clone());
        let private = life.route53().create_hosted_zone().name(&host).caller_reference("private");
        let vpc = Vpc::builder().vpc_id("vpc-1").vpc_region(VpcRegion::EuWest1).build();
        let config = HostedZoneConfig::builder().private_zone(true).build();
        let private = private.vpc(vpc).hosted_zone_config(config).send().await.unwrap();
        let private = private.hosted_zone.unwrap().id.trim_start_matches("/hostedzone/").to_owned();
        let second = hosted_zone(&life.account, &life.prepared.zone).await.unwrap();

        life.create_domain("d", json!({})).await;
        let issued = life.condition("d", "CertificateIssued", |c| c.reason == "HostedZoneNotFound").await;
        let (message, field) = (&issued.message, "spec.dns.route53.hostedZoneId");
        assert!([field, &first, &second].iter().all(|part| message.contains(*part)), "{message}");
        assert!(!message.contains(&private), "{message}");
        life.change("d", json!({"dns": {"route53": {"hostedZoneId": private}}})).await;
        life.condition("d", "CertificateIssued", |c| c.message.contains("no public hosted zone")).await;
        assert_eq!(life.server_certificates().await, [""; 0]);

        life.change("d", json!({"dns": {"route53": {"hostedZoneId": second}}})).await;
        life.ready("d").await;
        assert_eq!(ours(&life.account, &second).await, [format!("A {host}"), format!("TXT _mtls-operator.{host}")]);
        assert_eq!(names(&life.account, &first).await, [""; 0]);
        assert_eq!(names(&life.account, &private).await, [""; 0]);

        // Where the records are is not guessed at the end either.
        life.change("d", json!({"dns": null})).await;
        life.condition("d", "DNSProgrammed", |c| c.reason == "HostedZoneNotFound").await;
        life.domains().delete("d", &DeleteParams::default()).await.unwrap();
        let last = life.condition("d", "DomainProgrammed", |c| c.reason == "HostedZoneNotFound").await;
        assert!([&first, &second].iter().all(|zone| last.message.contains(*zone)), "{}", last.message);
        assert_eq!(life.gateway_domains().await, [host.as_str()]);
        life.route53().delete_hosted_zone().id(&first).send().await.unwrap();
        life.domain_gone("d").await;
        assert_eq!(ours(&life.account, &second).await, [""; 0]);
    });
}

#[test]
fn records_of_other_tools_and_routing_policies_are_named_and_stay() {
    run(async {
        let life = Life::start("others").await;
        let name = format!("{}.", life.host());
        let theirs = record(&name, RrType::Cname, "ingress.example.net");
        let registry = record(
            &format!("cname-{name}"),
            RrType::Txt,
            "\"heritage=external-dns,external-dns/owner=prod,external-dns/resource=ingress/shop/web\"",
        );
        life.change_record(ChangeAction::Create, theirs.clone()).await;
        life.change_record(ChangeAction::Create, registry).await;
        life.create_domain("d", json!({})).await;
        let dns = life.condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner").await;
        let message = &dns.message;
        assert!(
            message.contains("ingress.example.net") && message.contains("external-dns made for ingress/shop/web"),
            "{message}"
        );
        life.reconciles(2).await;
        assert_eq!(life.record(RrType::Cname).await, Some(theirs.clone()));

        let value = ResourceRecord::builder().value("192.0.2.7").build().unwrap();
        let weighted = ResourceRecordSet::builder().name(&name).r#type(RrType::A).ttl(60).resource_records(value);
        let weighted = weighted.set_identifier("blue").weight(1).build().unwrap();
        let change = |action, record| Change::builder().action(action).resource_record_set(record).build().unwrap();
        let batch = ChangeBatch::builder()
            .changes(change(ChangeAction::Delete, theirs))
            .changes(change(ChangeAction::Create, weighted.clone()))
            .build()
            .unwrap();
        let request = life.route53().change_resource_record_sets().hosted_zone_id(&life.prepared.zone_id);
        request.change_batch(batch).send().await.unwrap();
        let dns = life.condition("d", "DNSProgrammed", |c| c.message.contains("routing policy")).await;
        assert!(dns.message.contains("192.0.2.7"), "{}", dns.message);
        life.reconciles(2).await;
        assert_eq!(life.record(RrType::A).await.and_then(|r| r.set_identifier), Some("blue".to_owned()));
        life.change_record(ChangeAction::Delete, weighted).await;
        life.ready("d").await;
    });
}

#[test]
fn a_record_that_comes_between_read_and_write_is_not_overwritten() {
    run(async {
        let life = Life::start("race").await;
        let name = format!("{}.", life.host());
        let hold = Fault {
            operation: "ChangeResourceRecordSets",
            account: &life.account.id,
            skip: 1,
            hold: true,
            ..Fault::default()
        };
        let fault = life.control().add_faults(&[hold]).await.unwrap().remove(0).id;
        life.create_domain("d", json!({})).await;
        life.holds(fault, "the batch with the alias").await;
        let theirs = record(&name, RrType::A, "192.0.2.1");
        life.change_record(ChangeAction::Create, theirs.clone()).await;
        life.control().release(fault).await.unwrap();
        life.control().remove_fault(fault).await.unwrap();
        let dns = life.condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner").await;
        assert!(dns.message.contains("192.0.2.1"), "{}", dns.message);
        assert_eq!(
            ours(&life.account, &life.prepared.zone_id).await,
            [format!("A {}", life.host())],
            "no marker either"
        );
        life.change_record(ChangeAction::Delete, theirs).await;
        life.ready("d").await;
    });
}

/// Route 53 takes one change of a zone at a time.
#[test]
fn a_zone_that_is_busy_with_another_change_is_written_a_moment_later() {
    run(async {
        let life = Life::start("busy").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        life.control().advance(&life.account.id, Duration::from_secs(60)).await.unwrap();
        life.control().set_knobs(&life.account.id, &[("change_window", 6.0)]).await.unwrap();
        let mark = life.mark().await;
        life.change_record(ChangeAction::Delete, life.record(RrType::A).await.unwrap()).await;
        eventually("the alias again", async || match life.record(RrType::A).await {
            Some(_) => Ok(()),
            None => Err("no alias".into()),
        })
        .await;
        let which =
            Calls { account: &life.account.id, since: mark, operation: "ChangeResourceRecordSets", ..Calls::default() };
        let calls = life.control().calls(&which).await.unwrap().calls;
        assert!(calls.iter().any(|c| c.code == "PriorRequestNotComplete"), "{calls:?}");
        life.ready("d").await;
    });
}

/// Of somebody who made the alias by hand before the operator was told to write to Route 53.
#[test]
fn a_record_that_is_right_already_is_accepted_as_it_is_and_outlives_the_domain() {
    run(async {
        let life = Life::start("right").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        let name = format!("{}.", life.host());
        let marker = life.records().await.into_iter().find(|r| r.name == format!("_mtls-operator.{name}")).unwrap();
        let config = life.gateway_domain().await.domain_name_configurations.unwrap().remove(0);
        let target = AliasTarget::builder()
            .dns_name(format!("{}.", config.api_gateway_domain_name.unwrap()))
            .hosted_zone_id(config.hosted_zone_id.unwrap())
            .evaluate_target_health(true)
            .build()
            .unwrap();
        let theirs = ResourceRecordSet::builder().name(&name).r#type(RrType::A).alias_target(target).build().unwrap();
        // As if it had been there first: without the operator's ownership record.
        life.change_record(ChangeAction::Upsert, theirs.clone()).await;
        life.change_record(ChangeAction::Delete, marker).await;
        let mark = life.mark().await;
        life.reconciles(2).await;
        life.ready("d").await;
        life.change("d", json!({"ipAddressType": "DualStack"})).await;
        let dns = life.condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner").await;
        assert!(dns.message.contains("AAAA"), "{}", dns.message);
        life.delete_domain("d").await;
        assert_eq!(life.record(RrType::A).await, Some(theirs));
        let writes = life.writes(mark).await;
        assert!(!writes.iter().any(|w| w.contains("ResourceRecordSets")), "{writes:?}");
    });
}
