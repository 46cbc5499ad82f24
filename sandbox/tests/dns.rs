//! Tests of the local DNS server, with the resolver that the operator uses.

mod common;

use std::net::{IpAddr, Ipv4Addr};

use aws_sdk_apigatewayv2::types::{DomainNameConfiguration, IpAddressType};
use aws_sdk_route53::types::{AliasTarget, ChangeAction, ResourceRecord, ResourceRecordSet, RrType};
use common::{apply, change};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use sandbox::aws::{Aws, Options};
use sandbox::dns::Dns;
use sandbox::prepare::{Preparation, hosted_zone, prepare};

fn resolver(dns: &Dns) -> TokioResolver {
    let mut server = NameServerConfig::udp_and_tcp(dns.address().ip());
    for connection in &mut server.connections {
        connection.port = dns.address().port();
    }
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.build().unwrap()
}

/// Returns the answers as text, or the failure: `NXDOMAIN`, `NODATA`, or another error's text.
async fn ask(resolver: &TokioResolver, name: &str, kind: RecordType) -> String {
    match resolver.lookup(name, kind).await {
        Ok(found) => {
            let mut values: Vec<_> = found
                .answers()
                .iter()
                .map(|record| match &record.data {
                    RData::TXT(text) => format!("TXT {text}"),
                    other => format!("{} {other}", record.record_type()),
                })
                .collect();
            values.sort();
            values.join(", ")
        }
        Err(error) if error.is_nx_domain() => "NXDOMAIN".into(),
        Err(error) if error.is_no_records_found() => "NODATA".into(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn zones_are_answered_as_they_are_now() {
    let dir = tempfile::tempdir().unwrap();
    let aws = Aws::start(dir.path(), &Options::default()).await.unwrap();
    let account = aws.new_account();
    let prepared = prepare(&account, &Preparation::of_its_own(&account))
        .await
        .unwrap();
    let (zone, zone_id) = (&prepared.zone, &prepared.zone_id);
    let dns = Dns::start(aws.control().clone(), Ipv4Addr::LOCALHOST)
        .await
        .unwrap();
    let resolver = resolver(&dns);
    let at = |label: &str| format!("{label}.{zone}.");

    for (label, kind, value) in [
        ("plain", RrType::A, "192.0.2.1"),
        ("text", RrType::Txt, r#""one \"quoted\"" "two""#),
        ("mail", RrType::Mx, "10 plain.example.net."),
        ("issue", RrType::Caa, r#"0 issue "amazon.com""#),
        ("away", RrType::Cname, "plain.example.net"),
        ("a.b.deep", RrType::A, "192.0.2.2"),
        ("*.wild", RrType::A, "192.0.2.3"),
        ("kept.wild", RrType::Txt, r#""here""#),
    ] {
        change(&account, zone_id, ChangeAction::Create, &at(label), kind, value).await;
    }
    change(
        &account,
        zone_id,
        ChangeAction::Create,
        &at("here"),
        RrType::Cname,
        &at("plain"),
    )
    .await;
    for (name, kind, want) in [
        (at("plain"), RecordType::A, "A 192.0.2.1"),
        (at("PLAIN"), RecordType::A, "A 192.0.2.1"),
        (at("plain"), RecordType::TXT, "NODATA"),
        (at("none"), RecordType::A, "NXDOMAIN"),
        (at("b.deep"), RecordType::A, "NODATA"),
        (at("x.deep"), RecordType::A, "NXDOMAIN"),
        (at("mail"), RecordType::MX, "MX 10 plain.example.net."),
        (at("issue"), RecordType::CAA, "CAA 0 issue \"amazon.com\""),
        (at("some.wild"), RecordType::A, "A 192.0.2.3"),
        (at("one.more.wild"), RecordType::A, "A 192.0.2.3"),
        (at("kept.wild"), RecordType::A, "NODATA"),
        (at("x.kept.wild"), RecordType::A, "NXDOMAIN"),
        (at("away"), RecordType::CNAME, "CNAME plain.example.net."),
        (format!("{zone}."), RecordType::A, "NODATA"),
    ] {
        assert_eq!(ask(&resolver, &name, kind).await, want, "{name} {kind}");
    }
    let chased = ask(&resolver, &at("here"), RecordType::A).await;
    assert!(
        chased.contains("A 192.0.2.1") && chased.contains("CNAME plain."),
        "{chased}"
    );
    let text = resolver.txt_lookup(at("text")).await.unwrap();
    let RData::TXT(text) = &text.answers()[0].data else {
        panic!("{text:?}")
    };
    let strings: Vec<_> = text
        .txt_data
        .iter()
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    assert_eq!(strings, ["one \"quoted\"", "two"]);
    let elsewhere = ask(&resolver, "plain.example.net.", RecordType::A).await;
    assert!(
        !elsewhere.starts_with("A "),
        "a name without a zone is refused: {elsewhere}"
    );
    let negative = resolver.lookup(at("none"), RecordType::A).await.unwrap_err();
    assert!(
        format!("{negative:?}").contains("awsdns"),
        "with the zone's SOA record: {negative:?}"
    );

    // A child zone has the names below it, and a deleted name is gone.
    let below = hosted_zone(&account, &format!("below.{zone}")).await.unwrap();
    change(
        &account,
        &below,
        ChangeAction::Create,
        &at("x.below"),
        RrType::A,
        "192.0.2.9",
    )
    .await;
    assert_eq!(ask(&resolver, &at("x.below"), RecordType::A).await, "A 192.0.2.9");
    change(
        &account,
        zone_id,
        ChangeAction::Delete,
        &at("plain"),
        RrType::A,
        "192.0.2.1",
    )
    .await;
    assert_eq!(ask(&resolver, &at("plain"), RecordType::A).await, "NXDOMAIN");
}

#[tokio::test]
async fn api_gateway_s_names_are_at_the_edge() {
    let dir = tempfile::tempdir().unwrap();
    let aws = Aws::start(dir.path(), &Options::default()).await.unwrap();
    let account = aws.new_account();
    let prepared = prepare(&account, &Preparation::of_its_own(&account))
        .await
        .unwrap();
    let edge = Ipv4Addr::new(127, 0, 0, 7);
    let dns = Dns::start(aws.control().clone(), edge).await.unwrap();
    let resolver = resolver(&dns);
    let name = format!("api.{}", prepared.zone);
    let (arn, target) = common::domain(&account, &prepared, &name, None).await;

    let alias = |kind: RrType, target: &str| {
        let alias = AliasTarget::builder()
            .dns_name(target)
            .hosted_zone_id("Z1")
            .evaluate_target_health(false);
        ResourceRecordSet::builder()
            .name(&name)
            .r#type(kind)
            .alias_target(alias.build().unwrap())
            .build()
            .unwrap()
    };
    // The certificate's validation record is below the name, so the name exists.
    assert_eq!(ask(&resolver, &format!("{name}."), RecordType::A).await, "NODATA");
    for kind in [RrType::A, RrType::Aaaa] {
        apply(
            &account,
            &prepared.zone_id,
            ChangeAction::Create,
            alias(kind, &target),
        )
        .await;
    }
    let execute_api = prepared.execute_api_host.clone();
    for host in [&name, &target, &execute_api] {
        assert_eq!(
            ask(&resolver, &format!("{host}."), RecordType::A).await,
            "A 127.0.0.7",
            "{host}"
        );
        assert_eq!(
            ask(&resolver, &format!("{host}."), RecordType::AAAA).await,
            "NODATA",
            "{host}"
        );
    }
    let nobodys = "d-0000000000.execute-api.eu-west-1.amazonaws.com.";
    assert_eq!(ask(&resolver, nobodys, RecordType::A).await, "NXDOMAIN");

    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk());
    let both = DomainNameConfiguration::builder()
        .certificate_arn(&arn)
        .endpoint_type("REGIONAL".into())
        .security_policy("TLS_1_2".into())
        .ip_address_type(IpAddressType::Dualstack);
    gateway
        .update_domain_name()
        .domain_name(&name)
        .domain_name_configurations(both.build())
        .send()
        .await
        .unwrap();
    let found = resolver.ipv6_lookup(format!("{name}.")).await.unwrap();
    let RData::AAAA(address) = &found.answers()[0].data else {
        panic!("{found:?}")
    };
    assert_eq!(IpAddr::V6(address.0).to_canonical(), IpAddr::V4(edge));

    gateway
        .delete_domain_name()
        .domain_name(&name)
        .send()
        .await
        .unwrap();
    assert_eq!(
        ask(&resolver, &format!("{name}."), RecordType::A).await,
        "NODATA",
        "the alias is there, its target is not"
    );
    let record = ResourceRecord::builder().value("192.0.2.1").build().unwrap();
    let plain = ResourceRecordSet::builder()
        .name(format!("p.{name}"))
        .r#type(RrType::A)
        .ttl(5);
    apply(
        &account,
        &prepared.zone_id,
        ChangeAction::Create,
        plain.resource_records(record).build().unwrap(),
    )
    .await;
    assert_eq!(
        ask(&resolver, &format!("p.{name}."), RecordType::A).await,
        "A 192.0.2.1"
    );
}
