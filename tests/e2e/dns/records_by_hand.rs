//! Records that a user makes at a registrar, as the status lists them, are enough for a domain that serves.
use aws_sdk_route53::types::{AliasTarget, ChangeAction, ResourceRecordSet, RrType};
use sandbox::control::Calls;
use serde_json::json;

use crate::support::{
    aws::{
        existing_resources::record,
        registrar::{Registrar, entrance, listed, nearly, self_signed, validation},
    },
    example_manifests,
    kubernetes::secrets::openssl,
    test_env::TestEnv,
    world::run,
};

#[test]
fn a_domain_with_records_made_by_hand_serves_a_self_signed_certificate() {
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
fn a_chain_of_cnames_is_accepted_and_one_that_leads_elsewhere_is_named() {
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
fn a_zone_apex_needs_an_alias_and_is_verified_by_its_addresses() {
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
fn records_are_not_verified_when_the_spec_says_so() {
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
