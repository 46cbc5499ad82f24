//! Resources that a user has in AWS before there is an MtlsDomain, made by hand as the walk-throughs do: a
//! certificate, a custom domain that serves, its record.
use aws_sdk_acm::types::ValidationMethod;
use aws_sdk_apigatewayv2::types::{
    DomainNameConfiguration, EndpointType, MutualTlsAuthenticationInput, SecurityPolicy,
};
use aws_sdk_route53::types::{AliasTarget, ChangeAction, ResourceRecord, ResourceRecordSet, RrType};

use crate::support::{test_env::TestEnv, world::eventually};

pub fn record(name: &str, kind: RrType, value: &str) -> ResourceRecordSet {
    let value = ResourceRecord::builder().value(value).build().unwrap();
    ResourceRecordSet::builder()
        .name(name)
        .r#type(kind)
        .ttl(60)
        .resource_records(value)
        .build()
        .unwrap()
}

/// Creates an ISSUED certificate for the host of this environment, and its validation record.
pub async fn certificate(env: &TestEnv) -> String {
    let request = env
        .acm()
        .request_certificate()
        .domain_name(env.host())
        .validation_method(ValidationMethod::Dns);
    let arn = request.send().await.unwrap().certificate_arn.unwrap();
    let described = async || {
        let answer = env
            .acm()
            .describe_certificate()
            .certificate_arn(&arn)
            .send()
            .await;
        answer.unwrap().certificate.unwrap()
    };
    let validation = described().await.domain_validation_options()[0]
        .resource_record()
        .unwrap()
        .clone();
    env.change_record(
        ChangeAction::Create,
        record(validation.name(), RrType::Cname, validation.value()),
    )
    .await;
    eventually("their certificate", async || {
        let status = described().await.status.unwrap();
        if status.as_str() == "ISSUED" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    arn
}

/// Creates a custom domain with that certificate, these tags, and mutual TLS where a truststore (URI and
/// version) is given; without mappings.
pub async fn domain(
    env: &TestEnv,
    certificate: &str,
    tags: &[(&str, &str)],
    truststore: Option<(&str, &str)>,
) {
    let config = DomainNameConfiguration::builder()
        .certificate_arn(certificate)
        .endpoint_type(EndpointType::Regional)
        .security_policy(SecurityPolicy::Tls12)
        .build();
    let mut request = env
        .gateway()
        .create_domain_name()
        .domain_name(env.host())
        .domain_name_configurations(config);
    for (key, value) in tags {
        request = request.tags(*key, *value);
    }
    if let Some((uri, version)) = truststore {
        let trust = MutualTlsAuthenticationInput::builder()
            .truststore_uri(uri)
            .truststore_version(version);
        request = request.mutual_tls_authentication(trust.build());
    }
    request.send().await.unwrap();
}

/// Creates a domain as [`domain`] does, which serves the API of this environment at `""` and has its alias
/// record. Returns the certificate's ARN.
pub async fn serving(env: &TestEnv, truststore: Option<(&str, &str)>) -> String {
    let arn = certificate(env).await;
    domain(env, &arn, &[], truststore).await;
    map(env, "").await;
    let config = env
        .gateway_domain()
        .await
        .domain_name_configurations
        .unwrap()
        .remove(0);
    let target = AliasTarget::builder()
        .dns_name(config.api_gateway_domain_name.unwrap())
        .hosted_zone_id(config.hosted_zone_id.unwrap())
        .evaluate_target_health(false)
        .build()
        .unwrap();
    let name = format!("{}.", env.host());
    let alias = ResourceRecordSet::builder()
        .name(name)
        .r#type(RrType::A)
        .alias_target(target)
        .build()
        .unwrap();
    env.change_record(ChangeAction::Create, alias).await;
    arn
}

/// Maps the API of this environment to a path of the domain.
pub async fn map(env: &TestEnv, path: &str) {
    let (api, host) = (env.prepared.api_id.clone(), env.host());
    let request = env
        .gateway()
        .create_api_mapping()
        .domain_name(host)
        .api_id(api)
        .stage("$default");
    request.api_mapping_key(path).send().await.unwrap();
}

pub async fn tags(env: &TestEnv) -> Vec<(String, String)> {
    let mut tags: Vec<_> = env
        .gateway_domain()
        .await
        .tags
        .unwrap_or_default()
        .into_iter()
        .collect();
    tags.sort();
    tags
}
