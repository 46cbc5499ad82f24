//! Lifecycle of one domain: from nothing to a call that succeeds only with the certificate, through changes
//! of the spec, back to nothing.
use std::collections::HashMap;

use aws_sdk_acm::types::CertificateStatus;
use aws_sdk_apigatewayv2::types::{DomainNameStatus, IpAddressType};
use aws_sdk_route53::types::RrType;
use kube::api::{DeleteParams, ListParams};
use mtls_operator::domain::plan::{OWNER_METADATA, OWNER_TAG};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use sandbox::prepare::http_api;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{
    edge_calls::Identity,
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn an_applied_domain_becomes_ready_with_every_resource_that_it_needs() {
    run(async {
        let env = TestEnv::start("ready").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let owner = env.owner("d");

        let domain = env.gateway_domain().await;
        let config = &domain.domain_name_configurations()[0];
        assert_eq!(config.domain_name_status(), Some(&DomainNameStatus::Available));
        assert_eq!(domain.tags().and_then(|t| t.get(OWNER_TAG)), Some(&owner));

        let arn = config.certificate_arn().expect("a certificate");
        assert_eq!(env.server_certificates().await, [arn]);
        let certificate = env
            .acm()
            .describe_certificate()
            .certificate_arn(arn)
            .send()
            .await
            .unwrap()
            .certificate;
        assert_eq!(certificate.unwrap().status(), Some(&CertificateStatus::Issued));
        let tags = env
            .acm()
            .list_tags_for_certificate()
            .certificate_arn(arn)
            .send()
            .await
            .unwrap();
        let tags: HashMap<_, _> = tags
            .tags()
            .iter()
            .map(|t| (t.key(), t.value().unwrap_or_default()))
            .collect();
        assert_eq!(tags.get(OWNER_TAG), Some(&owner.as_str()));

        let trust = domain.mutual_tls_authentication().expect("mutual TLS");
        let (bucket, key) = (&env.prepared.bucket, format!("{owner}.pem"));
        assert_eq!(
            trust.truststore_uri(),
            Some(format!("s3://{bucket}/{key}").as_str())
        );
        let object = env
            .s3()
            .head_object()
            .bucket(bucket)
            .key(&key)
            .send()
            .await
            .unwrap();
        assert_eq!(
            object.metadata().and_then(|m| m.get(OWNER_METADATA)),
            Some(&owner)
        );
        assert!(object.version_id().is_some());
        assert_eq!(
            trust.truststore_version(),
            object.version_id(),
            "pinned to what was uploaded"
        );
        assert_eq!(env.object_versions().await.len(), 1);

        assert_eq!(
            env.mapped().await,
            [(String::new(), env.prepared.api_id.clone(), "$default".to_owned())]
        );

        let alias = env
            .record(RrType::A)
            .await
            .expect("the alias")
            .alias_target
            .expect("an alias");
        let target = config.api_gateway_domain_name().expect("a target");
        assert_eq!(alias.dns_name.trim_end_matches('.'), target);
        assert_eq!(Some(alias.hosted_zone_id.as_str()), config.hosted_zone_id());
        let marker = format!("_mtls-operator.{}.", env.host());
        let marker = env
            .records()
            .await
            .into_iter()
            .find(|r| r.name == marker)
            .expect("the ownership record");
        let hash: String = Sha256::digest(&owner)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            marker.resource_records()[0].value,
            format!("\"mtls-operator={}\"", &hash[..32])
        );
        assert_eq!(
            env.records().await.len(),
            3,
            "the alias, its ownership record, the validation record"
        );

        assert!(env.endpoint_closed().await);
    });
}

#[test]
fn only_the_certificate_of_the_secret_opens_the_domain() {
    run(async {
        let env = TestEnv::start("callers").await;
        let host = env.host();
        assert_eq!(
            env.call(&env.prepared.execute_api_host, "/", None).await.status,
            200,
            "open before"
        );
        env.create_domain("d", json!({})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;

        let answer = env.call(&host, "/", Some(&env.identity("client1").await)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("Hello"), "{}", answer.body);
        assert_eq!(
            env.call(&host, "/", None).await.status,
            0,
            "no certificate: the handshake fails"
        );
        let answer = env.call(&host, "/", Some(&of_another_ca())).await;
        assert_eq!(answer.status, 403, "{}", answer.body);
        assert!(answer.body.contains("Forbidden"), "{}", answer.body);
        assert_eq!(
            env.call(&env.prepared.execute_api_host, "/", None).await.status,
            404,
            "closed"
        );
    });
}

/// Identity with the names of the test's authority and client, but with other keys.
fn of_another_ca() -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "partners");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec![]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "client1");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    Identity {
        certificate: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    }
}

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
fn a_deleted_domain_leaves_nothing_but_the_validation_record_and_a_closed_endpoint() {
    run(async {
        let env = TestEnv::start("deleted").await;
        env.create_domain("d", json!({})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        assert!(env.secrets().get_opt("d.partners-ca").await.unwrap().is_some());
        let mark = env.mark().await;
        env.delete_domain("d").await;

        assert_eq!(env.gateway_domains().await, [""; 0]);
        assert_eq!(env.server_certificates().await, [""; 0]);
        assert_eq!(env.object_versions().await, [""; 0]);
        let left: Vec<_> = env.records().await.into_iter().map(|r| r.r#type).collect();
        assert_eq!(left, [RrType::Cname], "the validation record");
        assert!(env.endpoint_closed().await);
        let secrets = env
            .secrets()
            .list(&ListParams::default().labels("mtls-operator.io/authority"))
            .await
            .unwrap();
        assert_eq!(secrets.items.len(), 0, "the authority went with its domain");

        // The operator deletes the record that leads callers here before the domain, and the domain before
        // its parts.
        let writes = env.writes(mark).await;
        let at = |operation: &str| {
            let found = writes.iter().position(|w| w.starts_with(operation));
            found.unwrap_or_else(|| panic!("no {operation} in {writes:?}"))
        };
        assert!(
            at("ChangeResourceRecordSets") < at("DeleteDomainName"),
            "{writes:?}"
        );
        assert!(at("DeleteDomainName") < at("DeleteCertificate"), "{writes:?}");
        assert!(at("DeleteDomainName") < at("DeleteObject"), "{writes:?}");
        assert!(!writes.iter().any(|w| w == "UpdateApi"), "{writes:?}");
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
