//! A custom domain whose fields or tags changed, or that is gone, is restored.
use aws_sdk_apigateway::types::{
    EndpointConfiguration, EndpointType as V1Type, Op, PatchOperation, SecurityPolicy as V1Policy,
};
use aws_sdk_apigatewayv2::types::{
    DomainNameConfiguration, IpAddressType, MutualTlsAuthenticationInput, RoutingMode,
    builders::DomainNameConfigurationBuilder,
};
use mtls_operator::aws::tags::OWNER_TAG;
use serde_json::json;

use super::table::{Figures, Notice::EveryMinute, THEIRS, Table};
use crate::support::{
    aws::truststores::truststore,
    kubernetes::objects::{DOMAIN, create, domain_spec},
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

/// Configuration as it is now.
async fn configuration(env: &TestEnv) -> DomainNameConfigurationBuilder {
    let now = env
        .gateway_domain()
        .await
        .domain_name_configurations
        .unwrap()
        .remove(0);
    DomainNameConfiguration::builder()
        .set_certificate_arn(now.certificate_arn)
        .set_endpoint_type(now.endpoint_type)
        .set_security_policy(now.security_policy)
        .set_ip_address_type(now.ip_address_type)
}

/// Updates the domain: the configuration as it is now, with the change that `change` makes.
async fn update(
    env: &TestEnv,
    change: impl FnOnce(DomainNameConfigurationBuilder) -> DomainNameConfigurationBuilder,
) {
    let config = change(configuration(env).await).build();
    let request = env.gateway().update_domain_name().domain_name(env.host());
    request.domain_name_configurations(config).send().await.unwrap();
}

/// Updates the domain with another truststore.
async fn trust(env: &TestEnv, uri: &str, version: &str) {
    let config = configuration(env).await.build();
    let mut input = MutualTlsAuthenticationInput::builder().truststore_uri(uri);
    if !version.is_empty() {
        input = input.truststore_version(version);
    }
    let request = env
        .gateway()
        .update_domain_name()
        .domain_name(env.host())
        .domain_name_configurations(config);
    request
        .mutual_tls_authentication(input.build())
        .send()
        .await
        .unwrap();
}

async fn arn(env: &TestEnv) -> String {
    format!(
        "arn:aws:apigateway:{}::/domainnames/{}",
        env.account.region,
        env.host()
    )
}

async fn tag(env: &TestEnv, value: &str) {
    let request = env.gateway().tag_resource().resource_arn(arn(env).await);
    request.tags(OWNER_TAG, value).send().await.unwrap();
}

async fn untag(env: &TestEnv) {
    let request = env.gateway().untag_resource().resource_arn(arn(env).await);
    request.tag_keys(OWNER_TAG).send().await.unwrap();
}

/// Requests another certificate of the same name, without an ownership tag.
async fn another_certificate(env: &TestEnv) -> String {
    let request = env.acm().request_certificate().domain_name(env.host());
    let request = request.validation_method(aws_sdk_acm::types::ValidationMethod::Dns);
    let arn = request.send().await.unwrap().certificate_arn.unwrap();
    eventually("the certificate is issued", async || {
        let found = env
            .acm()
            .describe_certificate()
            .certificate_arn(&arn)
            .send()
            .await
            .unwrap();
        let status = found.certificate.unwrap().status.unwrap();
        if status.as_str() == "ISSUED" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    arn
}

/// Changes AWS while the MtlsDomain is suspended, so that the operator does not see the change.
async fn unseen(env: &TestEnv, act: impl AsyncFnOnce()) {
    env.change("d", json!({"suspend": true})).await;
    env.condition("d", "Accepted", |c| c.reason == "Suspended").await;
    act().await;
    env.change("d", json!({"suspend": false})).await;
}

/// Sets a TLS policy that mutual TLS does not work with.
async fn lower_policy(env: &TestEnv) {
    policy(env, &[("/securityPolicy", "TLS_1_0")]).await;
}

/// Sets an enhanced policy, which has an endpoint access mode and excludes mutual TLS.
async fn enhanced_policy(env: &TestEnv) {
    let enhanced = "SecurityPolicy_TLS13_1_3_2025_09";
    let patch = [("/securityPolicy", enhanced), ("/endpointAccessMode", "BASIC")];
    policy(env, &patch).await;
}

async fn policy(env: &TestEnv, patch: &[(&str, &str)]) {
    let v1 = aws_sdk_apigateway::Client::new(&env.account.sdk());
    unseen(env, async || {
        trust(env, "", "").await;
        eventually("the domain is updated", async || {
            let config = env
                .gateway_domain()
                .await
                .domain_name_configurations
                .unwrap()
                .remove(0);
            let status = config.domain_name_status.unwrap();
            if status.as_str() == "AVAILABLE" {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await;
        let operation = |(path, value): &(&str, &str)| {
            let operation = PatchOperation::builder().op(Op::Replace);
            operation.path(*path).value(*value).build()
        };
        v1.update_domain_name()
            .domain_name(env.host())
            .set_patch_operations(Some(patch.iter().map(operation).collect()))
            .send()
            .await
            .unwrap();
    })
    .await;
}

/// Replaces the operator's domain by one with the same ownership tag that mutual TLS does not work with.
async fn replaced_by_an_edge_optimized_one(env: &TestEnv) {
    let v1 = aws_sdk_apigateway::Client::new(&env.account.sdk());
    unseen(env, async || {
        let config = env
            .gateway_domain()
            .await
            .domain_name_configurations
            .unwrap()
            .remove(0);
        env.gateway()
            .delete_domain_name()
            .domain_name(env.host())
            .send()
            .await
            .unwrap();
        let types = EndpointConfiguration::builder().types(V1Type::Edge).build();
        let request = v1
            .create_domain_name()
            .domain_name(env.host())
            .endpoint_configuration(types);
        let request = request
            .certificate_arn(config.certificate_arn.unwrap())
            .security_policy(V1Policy::Tls12);
        request.tags(OWNER_TAG, env.owner("d")).send().await.unwrap();
    })
    .await;
}

async fn delete(env: &TestEnv) {
    let v1 = aws_sdk_apigateway::Client::new(&env.account.sdk());
    v1.delete_domain_name()
        .domain_name(env.host())
        .send()
        .await
        .unwrap();
}

pub async fn rows() -> Figures {
    let env = TestEnv::start("drift-domain").await;
    let spec = json!({"authorities": [{"name": "partners", "generate": {}}]});
    create(&env, DOMAIN, "d", domain_spec(&env, spec)).await;
    env.ready("d").await;
    let other = another_certificate(&env).await;
    let request = env.gateway().tag_resource().resource_arn(arn(&env).await);
    request.tags("team", "payments").send().await.unwrap();
    // A truststore of another owner, and an older version of the operator's.
    let bucket = env.prepared.bucket.clone();
    let ours = format!("s3://{bucket}/{}.pem", env.owner("d"));
    let first = truststore(&env).await.0;
    let partner = Ca::new("partner").pem;
    env.change(
        "d",
        json!({"trust": {"issuingAuthority": "partners", "authorities": [
            {"name": "partners", "generate": {}}, {"name": "partner", "pem": partner},
        ]}}),
    )
    .await;
    let text = Ca::new("stranger").pem;
    let put = env
        .s3()
        .put_object()
        .bucket(&bucket)
        .key("theirs.pem")
        .body(text.into_bytes().into());
    put.send().await.unwrap();
    let mut table = Table::of(env).await;

    let (theirs, update_back) = (&["UpdateDomainName"], &["UpdateDomainName"]);
    table
        .corrected(
            "another certificate of the domain",
            EveryMinute,
            theirs,
            update_back,
            async |env| {
                update(env, |config| config.certificate_arn(&other)).await;
            },
        )
        .await;
    table
        .corrected(
            "an older truststore version",
            EveryMinute,
            theirs,
            update_back,
            async |env| {
                trust(env, &ours, &first).await;
            },
        )
        .await;
    table
        .corrected(
            "another truststore",
            EveryMinute,
            theirs,
            update_back,
            async |env| {
                trust(env, &format!("s3://{bucket}/theirs.pem"), "").await;
            },
        )
        .await;
    table
        .corrected(
            "mutual TLS turned off",
            EveryMinute,
            theirs,
            update_back,
            async |env| trust(env, "", "").await,
        )
        .await;
    table
        .corrected(
            "another IP address type",
            EveryMinute,
            theirs,
            update_back,
            async |env| {
                update(env, |config| config.ip_address_type(IpAddressType::Dualstack)).await;
            },
        )
        .await;
    table
        .corrected(
            "another routing mode",
            EveryMinute,
            theirs,
            update_back,
            async |env| {
                let config = configuration(env).await.build();
                let request = env.gateway().update_domain_name().domain_name(env.host());
                let request = request.domain_name_configurations(config);
                request
                    .routing_mode(RoutingMode::RoutingRuleThenApiMapping)
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;
    // API Gateway allows no other policy with mutual TLS: mutual TLS goes first, and comes back last.
    let twice = ["UpdateDomainName"; 2];
    table
        .corrected(
            "another security policy",
            EveryMinute,
            &twice,
            &twice,
            lower_policy,
        )
        .await;
    table
        .corrected(
            "an enhanced security policy",
            EveryMinute,
            &twice,
            &twice,
            enhanced_policy,
        )
        .await;
    table
        .corrected(
            "the owner's tag taken off the domain",
            EveryMinute,
            &["UntagResource"],
            &["TagResource"],
            untag,
        )
        .await;
    let tags = table.env.gateway_domain().await.tags.unwrap();
    assert_eq!(
        tags.get("team").map(String::as_str),
        Some("payments"),
        "a tag of another owner stays"
    );
    let says = ("DomainProgrammed", "False", "ForeignOwner", THEIRS);
    let undo = async |env: &TestEnv| tag(env, &env.owner("d")).await;
    table
        .reported(
            "another owner's tag on the domain",
            EveryMinute,
            &["TagResource"],
            says,
            async |l| tag(l, THEIRS).await,
            undo,
        )
        .await;
    let made = [
        "CreateDomainName",
        "CreateApiMapping",
        "ChangeResourceRecordSets UPSERT A HOST",
    ];
    table
        .corrected(
            "the domain deleted",
            EveryMinute,
            &["DeleteDomainName"],
            &made,
            delete,
        )
        .await;
    let replaced = ["DeleteDomainName", "CreateDomainName"];
    let says = ("DomainProgrammed", "False", "DomainRejected", "EDGE");
    table
        .reported(
            "another endpoint type",
            EveryMinute,
            &replaced,
            says,
            replaced_by_an_edge_optimized_one,
            delete,
        )
        .await;
    table.end().await
}
