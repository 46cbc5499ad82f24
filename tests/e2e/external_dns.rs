//! Domains whose records a user makes at a registrar: a hosted zone in an account that the operator does not
//! know, where the test creates by hand the records that the status lists.
use std::{net::SocketAddr, sync::Arc};

use aws_sdk_route53::types::{AliasTarget, ChangeAction, ResourceRecordSet, RrType};
use mtls_operator::api::DnsRecord;
use sandbox::control::Calls;
use serde_json::json;
use tokio::{net::UdpSocket, task::JoinHandle};

use crate::support::{
    aws::{
        existing_resources::record,
        registrar::{Registrar, entrance, listed, nearly, self_signed, validation},
    },
    example_manifests,
    kubernetes::secrets::openssl,
    test_env::TestEnv,
    world::{run, world},
};

#[test]
fn a_self_signed_certificate_and_records_made_by_hand_are_enough() {
    run(async {
        let env = TestEnv::start("selfsigned").await;
        let (registrar, host) = (Registrar::of(&env).await, env.host());
        let client = self_signed().await;
        let pem = String::from_utf8(client.certificate.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let shown = openssl(dir.path(), &["x509", "-noout", "-text"], &pem)
            .await
            .unwrap();
        assert!(
            shown.contains("Version: 1 (0x0)"),
            "the walk-through is about certificates of version 1: {shown}"
        );

        let mark = env.mark().await;
        let body: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let paste = ("<-- the lines of client.crt", body.join("\n          "));
        example_manifests::apply(&env, "self-signed-external-dns.yaml", &[(paste.0, &paste.1)]).await;
        let proofs = validation(&env, "partners", 1).await;
        let issued = env
            .condition("partners", "CertificateIssued", |c| c.message.contains("CNAME"))
            .await;
        assert_eq!(issued.reason, "WaitingForValidation");
        let line = format!("{}. CNAME {}.", proofs[0].name, proofs[0].value);
        assert!(issued.message.contains(&line), "{}", issued.message);
        registrar.create(&proofs[0]).await;

        let record = entrance(&env, "partners", &host).await;
        let named = env
            .condition("partners", "DNSProgrammed", |c| c.reason == "WaitingForDNS")
            .await;
        assert_eq!(
            named.message,
            format!("create in public DNS: {host}. CNAME {}.", record.value)
        );
        assert_eq!(record.r#type, "CNAME");
        env.condition("partners", "MappingsProgrammed", |c| c.status == "True")
            .await;
        env.reconciles(2).await;
        assert!(!env.endpoint_closed().await, "callers have no other way in yet");
        let ready = env
            .condition("partners", "Ready", |c| c.status == "Unknown")
            .await;
        assert_eq!(
            ready.reason, "WaitingForDNS",
            "waiting for a user is not an error"
        );

        registrar.create(&record).await;
        env.ready("partners").await;
        let named = env
            .condition("partners", "DNSProgrammed", |c| c.status == "True")
            .await;
        assert_eq!(named.reason, "Verified");
        assert_eq!(
            env.call(&host, "/", None).await.status,
            0,
            "no certificate: no answer"
        );
        let answer = env.call(&host, "/", Some(&client)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(
            env.call(&host, "/", Some(&self_signed().await)).await.status,
            403,
            "the name alone opens nothing"
        );
        assert_eq!(
            env.call(&env.prepared.execute_api_host, "/", None).await.status,
            404,
            "closed"
        );

        // Records that renewals need stay listed, in one order, and the operator touches none of them.
        assert_eq!(listed(&env, "partners").await, [&proofs[..], &[record]].concat());
        let theirs = registrar.names().await;
        env.delete_domain("partners").await;
        assert_eq!(registrar.names().await, theirs);
        let which = Calls {
            account: &env.account.id,
            since: mark,
            service: "route53",
            ..Calls::default()
        };
        assert_eq!(
            env.control().calls(&which).await.unwrap().calls.len(),
            0,
            "the operator does not call Route 53"
        );
    });
}

#[test]
fn a_cname_counts_at_any_remove_and_one_that_leads_elsewhere_is_named() {
    run(async {
        let env = TestEnv::start("chain").await;
        let (registrar, host) = (Registrar::of(&env).await, env.host());
        let elsewhere = format!("gateway.{}", env.prepared.zone);
        let elsewhere = (
            record(&host, RrType::Cname, &elsewhere),
            format!("now it is a CNAME of {elsewhere}"),
        );
        registrar.change(ChangeAction::Create, elsewhere.0).await;
        let extra = format!("also.{}", env.prepared.zone);
        let request = json!({"request": {"subjectAlternativeNames": [extra]}});
        env.create_domain(
            "d",
            json!({"dns": {"external": {}}, "serverCertificate": request}),
        )
        .await;
        let proofs = validation(&env, "d", 2).await;
        assert!(proofs.is_sorted_by_key(|r| r.name.clone()), "{proofs:?}");
        for proof in &proofs {
            registrar.create(proof).await;
        }
        let target = entrance(&env, "d", &host).await;
        let named = env
            .condition("d", "DNSProgrammed", |c| c.reason == "WaitingForDNS")
            .await;
        assert!(
            named
                .message
                .contains(&format!("{host}. CNAME {}.", target.value)),
            "{}",
            named.message
        );
        assert!(named.message.contains(&elsewhere.1), "{}", named.message);

        let hop = format!("hop.{}", env.prepared.zone);
        registrar
            .change(ChangeAction::Upsert, record(&host, RrType::Cname, &hop))
            .await;
        registrar
            .change(ChangeAction::Create, record(&hop, RrType::Cname, &target.value))
            .await;
        env.ready("d").await;
        assert!(env.endpoint_closed().await);

        // The record is deleted. A caller that knows the address still gets in, and the domain stays Ready.
        // The status names the missing record.
        registrar
            .change(ChangeAction::Delete, record(&hop, RrType::Cname, &target.value))
            .await;
        let named = env
            .condition("d", "DNSProgrammed", |c| c.reason == "WaitingForDNS")
            .await;
        assert!(
            named.message.contains(&format!("now it is a CNAME of {hop}")),
            "{}",
            named.message
        );
        env.condition("d", "Ready", |c| c.status == "True").await;
    });
}

#[test]
fn at_the_first_name_of_a_zone_an_alias_is_asked_for_and_its_addresses_count() {
    run(async {
        let env = TestEnv::start("apex").await;
        let registrar = Registrar::of(&env).await;
        let host = env.prepared.zone.clone();
        let first = nearly(
            &env,
            &registrar,
            json!({"domainName": host, "dns": {"external": {}}}),
        )
        .await;
        let named = env
            .condition("d", "DNSProgrammed", |c| c.reason == "WaitingForDNS")
            .await;
        assert!(
            named.message.contains("no CNAME can be") && named.message.contains("ALIAS"),
            "{}",
            named.message
        );
        assert!(named.message.contains(&first.value), "{}", named.message);
        assert_eq!(entrance(&env, "d", &host).await.r#type, "ALIAS");

        registrar
            .change(ChangeAction::Create, record(&host, RrType::A, "192.0.2.80"))
            .await;
        let named = env
            .condition("d", "DNSProgrammed", |c| c.message.contains("192.0.2.80"))
            .await;
        assert_eq!(named.reason, "WaitingForDNS");
        assert!(!env.endpoint_closed().await);

        let target = AliasTarget::builder()
            .dns_name(&first.value)
            .hosted_zone_id("Z1")
            .evaluate_target_health(false);
        let flattened = ResourceRecordSet::builder()
            .name(&host)
            .r#type(RrType::A)
            .alias_target(target.build().unwrap());
        registrar
            .change(ChangeAction::Upsert, flattened.build().unwrap())
            .await;
        env.ready("d").await;
        assert_eq!(
            entrance(&env, "d", &host).await.r#type,
            "ALIAS",
            "also once the record is there"
        );
    });
}

#[test]
fn records_that_are_not_to_be_verified_are_taken_on_trust() {
    run(async {
        // No resolver answers at this address.
        let env = TestEnv::start_with("trusted", &[("MTLS_OPERATOR_DNS_RESOLVER", "127.0.0.1:1")]).await;
        let registrar = Registrar::of(&env).await;
        let record = nearly(&env, &registrar, json!({"dns": {"external": {"verify": "None"}}})).await;
        env.ready("d").await;
        let named = env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        assert_eq!(named.reason, "NotVerified");
        assert!(named.message.contains(&record.value), "{}", named.message);
        assert_eq!(record.r#type, "CNAME");
    });
}

/// Forwards questions to the DNS server of the world, until it is stopped.
struct Forwarder {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forwarder {
    async fn start(at: &str) -> Forwarder {
        let socket = Arc::new(UdpSocket::bind(at).await.unwrap());
        let (address, server) = (socket.local_addr().unwrap(), world().dns.address());
        let task = tokio::spawn(async move {
            let mut packet = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                upstream.send_to(&packet[..length], server).await.unwrap();
                let length = upstream.recv(&mut packet).await.unwrap();
                socket.send_to(&packet[..length], from).await.unwrap();
            }
        });
        Forwarder { address, task }
    }

    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[test]
fn a_resolver_that_does_not_answer_is_no_answer_and_changes_nothing() {
    run(async {
        let resolver = Forwarder::start("127.0.0.1:0").await;
        let at = resolver.address.to_string();
        let env = TestEnv::start_with("resolver", &[("MTLS_OPERATOR_DNS_RESOLVER", &at)]).await;
        let registrar = Registrar::of(&env).await;
        resolver.stop().await;

        let record = nearly(&env, &registrar, json!({"dns": {"external": {}}})).await;
        let unanswered =
            |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| c.reason == "Unreachable";
        let named = env.condition("d", "DNSProgrammed", unanswered).await;
        assert_eq!(named.status, "Unknown");
        assert!(named.message.contains(&env.host()), "{}", named.message);
        registrar.create(&record).await;
        env.reconciles(1).await;
        assert!(
            !env.endpoint_closed().await,
            "without an answer the operator does not close the only way in"
        );

        let resolver = Forwarder::start(&at).await;
        env.ready("d").await;
        resolver.stop().await;
        env.condition("d", "DNSProgrammed", unanswered).await;
        env.condition("d", "Ready", |c| c.status == "True").await;
        assert_eq!(entrance(&env, "d", &env.host()).await, record);
        let _resolver = Forwarder::start(&at).await;
        env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
    });
}

#[test]
fn handing_the_records_over_and_back_touches_none_of_them() {
    run(async {
        let env = TestEnv::start("handover").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        assert_eq!(listed(&env, "d").await, []);
        let (records, mark) = (env.records().await, env.mark().await);

        env.change("d", json!({"dns": {"external": {}}})).await;
        env.ready("d").await;
        let named = env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        assert_eq!(
            named.reason, "Verified",
            "the operator's alias still leads callers here"
        );
        assert_eq!(listed(&env, "d").await.len(), 2);
        env.change("d", json!({"dns": {"external": null, "route53": {}}}))
            .await;
        env.ready("d").await;
        let named = env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        assert_eq!(named.reason, "Programmed");
        assert_eq!(listed(&env, "d").await, []);

        env.change("d", json!({"dns": {"external": {}, "route53": null}}))
            .await;
        env.ready("d").await;
        env.delete_domain("d").await;
        assert_eq!(env.records().await, records);
        let writes = env.writes(mark).await;
        assert!(
            !writes.iter().any(|w| w.contains("ResourceRecordSets")),
            "{writes:?}"
        );
    });
}

#[test]
fn records_made_by_hand_are_accepted_when_route_53_is_to_be_written() {
    run(async {
        let env = TestEnv::start("takeback").await;
        env.create_domain("d", json!({"dns": {"external": {}}})).await;
        let create = async |r: &DnsRecord| {
            env.change_record(ChangeAction::Create, record(&r.name, RrType::Cname, &r.value))
                .await
        };
        create(&validation(&env, "d", 1).await[0]).await;
        create(&entrance(&env, "d", &env.host()).await).await;
        env.ready("d").await;
        let (records, mark) = (env.records().await, env.mark().await);
        env.change(
            "d",
            json!({"dns": {"external": null, "route53": {}}, "ipAddressType": "DualStack"}),
        )
        .await;
        env.ready("d").await;
        env.delete_domain("d").await;
        assert_eq!(
            env.records().await,
            records,
            "the operator does not delete the user's records"
        );
        let writes = env.writes(mark).await;
        assert!(
            !writes.iter().any(|w| w.contains("ResourceRecordSets")),
            "{writes:?}"
        );

        // Without a record there, the operator makes its own.
        let theirs = env.record(RrType::Cname).await.unwrap();
        env.change_record(ChangeAction::Delete, theirs).await;
        env.create_domain("e", json!({"dns": {"external": {"verify": "None"}}}))
            .await;
        env.ready("e").await;
        env.change("e", json!({"dns": {"external": null, "route53": {}}}))
            .await;
        env.ready("e").await;
        assert!(env.record(RrType::A).await.unwrap().alias_target.is_some());
        env.delete_domain("e").await;
        assert_eq!(env.records().await.len(), 1, "the validation record");
    });
}
