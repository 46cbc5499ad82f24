//! An applied domain gets every resource that it needs, and opens for its own certificate only.
use std::collections::HashMap;

use aws_sdk_acm::types::CertificateStatus;
use aws_sdk_apigatewayv2::types::DomainNameStatus;
use aws_sdk_route53::types::RrType;
use mtls_operator::aws::tags::{OWNER_METADATA, OWNER_TAG};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{edge_calls::Identity, test_env::TestEnv, world::run};

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
