//! Somebody changes in AWS what the operator made: it is put back, by the one call that this takes, and nothing else is touched.
use aws_sdk_apigatewayv2::types::{DomainNameConfiguration, MutualTlsAuthenticationInput};
use aws_sdk_route53::types::{ChangeAction, RrType};
use serde_json::json;

use crate::world::{Life, eventually, run};

/// A life that is Ready.
async fn served(name: &str) -> Life {
    let life = Life::start(name).await;
    life.create_domain("d", json!({})).await;
    life.ready("d").await;
    life
}

/// The writes after `mark` once there are as many as `expected`, and two looks later: theirs and ours.
async fn repaired_by(life: &Life, mark: u64, expected: &[&str]) {
    eventually(&format!("{expected:?}"), async || {
        let writes = life.writes(mark).await;
        if writes.len() >= expected.len() { Ok(()) } else { Err(format!("{writes:?}")) }
    })
    .await;
    life.looks(2).await;
    assert_eq!(life.writes(mark).await, expected);
}

#[test]
fn deleted_records_are_put_back() {
    run(async {
        let life = served("records").await;
        let before = life.ready("d").await;
        let (host, all) = (life.host(), life.records().await);
        let mark = life.mark().await;
        life.change_record(ChangeAction::Delete, life.record(RrType::A).await.unwrap()).await;
        let change = |action: &str, kind: &str, name: &str| format!("ChangeResourceRecordSets {action} {kind} {name}");
        repaired_by(&life, mark, &[&change("DELETE", "A", &host), &change("CREATE", "A", &host)]).await;

        let mark = life.mark().await;
        let validation = life.records().await.into_iter().find(|r| r.r#type == RrType::Cname).unwrap();
        let name = validation.name.trim_end_matches('.').to_owned();
        life.change_record(ChangeAction::Delete, validation).await;
        repaired_by(&life, mark, &[&change("DELETE", "CNAME", &name), &change("CREATE", "CNAME", &name)]).await;
        assert_eq!(life.records().await, all);
        assert_eq!(life.ready("d").await, before, "Ready throughout");
    });
}

#[test]
fn a_deleted_mapping_is_put_back() {
    run(async {
        let life = served("unmapped").await;
        let (before, mapped) = (life.ready("d").await, life.mapped().await);
        let mark = life.mark().await;
        let id = life.mapping_id("").await;
        life.gateway().delete_api_mapping().domain_name(life.host()).api_mapping_id(id).send().await.unwrap();
        repaired_by(&life, mark, &["DeleteApiMapping", "CreateApiMapping"]).await;
        assert_eq!(life.mapped().await, mapped);
        assert_eq!(life.ready("d").await, before, "Ready throughout");
    });
}

#[test]
fn a_reopened_default_endpoint_is_closed_again() {
    run(async {
        let life = served("reopened").await;
        let mark = life.mark().await;
        let request = life.gateway().update_api().api_id(&life.prepared.api_id);
        request.disable_execute_api_endpoint(false).send().await.unwrap();
        repaired_by(&life, mark, &["UpdateApi", "UpdateApi"]).await;
        assert!(life.endpoint_closed().await);
        assert_eq!(life.call(&life.prepared.execute_api_host, "/", None).await.status, 404);
    });
}

#[test]
fn an_overwritten_truststore_and_an_older_pin_are_put_right() {
    run(async {
        let life = served("pinned").await;
        let pinned =
            async || life.gateway_domain().await.mutual_tls_authentication.unwrap().truststore_version.unwrap();
        let (key, first) = (format!("{}.pem", life.owner("d")), pinned().await);
        let content = async |version: &str| {
            let request = life.s3().get_object().bucket(&life.prepared.bucket).key(&key).version_id(version);
            request.send().await.unwrap().body.collect().await.unwrap().into_bytes()
        };

        // Nobody reads the other version: the domain is pinned. But nobody can tell from the object what is trusted either.
        let mark = life.mark().await;
        let request = life.s3().put_object().bucket(&life.prepared.bucket).key(&key);
        request.body(b"nothing".to_vec().into()).send().await.unwrap();
        repaired_by(&life, mark, &["PutObject", "PutObject", "UpdateDomainName"]).await;
        let second = pinned().await;
        assert_ne!(second, first);
        assert_eq!(content(&second).await, content(&first).await);

        let mark = life.mark().await;
        let config = life.gateway_domain().await.domain_name_configurations.unwrap().remove(0);
        let config = DomainNameConfiguration::builder()
            .certificate_arn(config.certificate_arn.unwrap())
            .endpoint_type(config.endpoint_type.unwrap())
            .security_policy(config.security_policy.unwrap())
            .set_ip_address_type(config.ip_address_type)
            .build();
        let trust = MutualTlsAuthenticationInput::builder()
            .truststore_uri(format!("s3://{}/{key}", life.prepared.bucket))
            .truststore_version(&first)
            .build();
        let request = life.gateway().update_domain_name().domain_name(life.host());
        request.domain_name_configurations(config).mutual_tls_authentication(trust).send().await.unwrap();
        repaired_by(&life, mark, &["UpdateDomainName", "UpdateDomainName"]).await;
        assert_eq!(pinned().await, second);
    });
}
