//! Records go to the zone and account that the spec names, under its role, and to no other.
use aws_sdk_route53::types::{HostedZoneConfig, Vpc, VpcRegion};
use kube::api::DeleteParams;
use sandbox::{control::Calls, prepare::hosted_zone};
use serde_json::json;

use crate::support::{
    aws::hosted_zones::{names, ours, role, zone_elsewhere},
    test_env::TestEnv,
    world::run,
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
fn the_spec_chooses_among_zones_of_one_name_and_no_private_zone_is_used() {
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
