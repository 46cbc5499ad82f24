//! Custom domain name created by hand, with the SDK.

use std::time::Duration;

use aws_sdk_acm::types::{CertificateStatus, ValidationMethod};
use aws_sdk_apigatewayv2::types::{
    DomainNameConfiguration, EndpointType, MutualTlsAuthenticationInput, SecurityPolicy,
};
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use sandbox::aws::Account;
use sandbox::prepare::Prepared;
use tokio::time::{Instant, sleep};

/// Waits for a condition.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Returns a change of one plain record.
pub async fn change(
    account: &Account,
    zone_id: &str,
    action: ChangeAction,
    name: &str,
    kind: RrType,
    value: &str,
) {
    let record = ResourceRecord::builder().value(value).build().unwrap();
    let set = ResourceRecordSet::builder()
        .name(name)
        .r#type(kind)
        .ttl(60)
        .resource_records(record)
        .build()
        .unwrap();
    apply(account, zone_id, action, set).await;
}

pub async fn apply(account: &Account, zone_id: &str, action: ChangeAction, set: ResourceRecordSet) {
    let change = Change::builder()
        .action(action)
        .resource_record_set(set)
        .build()
        .unwrap();
    let batch = ChangeBatch::builder().changes(change).build().unwrap();
    let route53 = aws_sdk_route53::Client::new(&account.sdk());
    route53
        .change_resource_record_sets()
        .hosted_zone_id(zone_id)
        .change_batch(batch)
        .send()
        .await
        .unwrap();
}

/// Creates an issued certificate; returns its ARN.
pub async fn certificate(account: &Account, zone_id: &str, name: &str) -> String {
    let acm = aws_sdk_acm::Client::new(&account.sdk());
    let requested = acm
        .request_certificate()
        .domain_name(name)
        .validation_method(ValidationMethod::Dns);
    let arn = requested.send().await.unwrap().certificate_arn.unwrap();
    let described = acm
        .describe_certificate()
        .certificate_arn(&arn)
        .send()
        .await
        .unwrap()
        .certificate
        .unwrap();
    let record = described.domain_validation_options()[0]
        .resource_record
        .clone()
        .unwrap();
    change(
        account,
        zone_id,
        ChangeAction::Upsert,
        &record.name,
        RrType::Cname,
        &record.value,
    )
    .await;
    eventually("the certificate is issued", async || {
        let described = acm
            .describe_certificate()
            .certificate_arn(&arn)
            .send()
            .await
            .unwrap();
        described.certificate.unwrap().status == Some(CertificateStatus::Issued)
    })
    .await;
    arn
}

/// Puts a truststore into the bucket, and returns its location.
pub async fn truststore(account: &Account, bucket: &str, pem: &str) -> MutualTlsAuthenticationInput {
    let s3 = aws_sdk_s3::Client::new(&account.sdk());
    let put = s3
        .put_object()
        .bucket(bucket)
        .key("truststore.pem")
        .body(pem.as_bytes().to_vec().into());
    let version = put.send().await.unwrap().version_id.unwrap();
    let uri = format!("s3://{bucket}/truststore.pem");
    MutualTlsAuthenticationInput::builder()
        .truststore_uri(uri)
        .truststore_version(version)
        .build()
}

pub fn configuration(certificate_arn: &str) -> DomainNameConfiguration {
    DomainNameConfiguration::builder()
        .certificate_arn(certificate_arn)
        .endpoint_type(EndpointType::Regional)
        .security_policy(SecurityPolicy::Tls12)
        .build()
}

/// Creates a custom domain name, with mutual TLS when there is a truststore, whose every path leads to the
/// prepared API; returns its certificate's ARN and its regional target.
pub async fn domain(
    account: &Account,
    prepared: &Prepared,
    name: &str,
    trusted: Option<&str>,
) -> (String, String) {
    let arn = certificate(account, &prepared.zone_id, name).await;
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk());
    let mut create = gateway
        .create_domain_name()
        .domain_name(name)
        .domain_name_configurations(configuration(&arn));
    if let Some(pem) = trusted {
        create = create.mutual_tls_authentication(truststore(account, &prepared.bucket, pem).await);
    }
    let created = create.send().await.unwrap();
    let target = created.domain_name_configurations()[0]
        .api_gateway_domain_name
        .clone()
        .unwrap();
    let mapping = gateway
        .create_api_mapping()
        .domain_name(name)
        .api_id(&prepared.api_id)
        .stage("$default");
    mapping.send().await.unwrap();
    (arn, target)
}
