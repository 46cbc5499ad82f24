//! Other ways to a mapped API are named as long as they exist, and no other condition depends on them.
use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType, SecurityPolicy};
use aws_sdk_apigatewayv2::types::DomainNameConfiguration;
use sandbox::{control::Calls, prepare::rest_api};
use serde_json::json;

use crate::support::{
    test_env::TestEnv,
    world::{eventually, run},
};

const SCAN_INTERVAL: (&str, &str) = ("MTLS_OPERATOR_BYPASS_SCAN_INTERVAL", "1s");

fn v1(env: &TestEnv) -> aws_sdk_apigateway::Client {
    aws_sdk_apigateway::Client::new(&env.account.sdk())
}

/// Creates a custom domain without mutual TLS, of a kind that only v1 manages.
async fn of_v1(env: &TestEnv, name: &str, kind: EndpointType, policy: SecurityPolicy, api: &str) {
    let endpoint = EndpointConfiguration::builder().types(kind).build();
    let request = v1(env)
        .create_domain_name()
        .domain_name(name)
        .security_policy(policy);
    request.endpoint_configuration(endpoint).send().await.unwrap();
    let request = v1(env)
        .create_base_path_mapping()
        .domain_name(name)
        .base_path("x")
        .rest_api_id(api);
    request.stage("prod").send().await.unwrap();
}

async fn scans(env: &TestEnv, since: u64) -> usize {
    let which = Calls {
        account: &env.account.id,
        since,
        operation: "GetDomainNames",
        service: "apigateway",
        ..Calls::default()
    };
    env.control().calls(&which).await.unwrap().calls.len()
}

/// Waits until a scan has run from beginning to end.
async fn scanned(env: &TestEnv) {
    let mark = env.mark().await;
    eventually("a whole scan", async || {
        let begun = scans(env, mark).await;
        if begun >= 2 {
            Ok(())
        } else {
            Err(format!("{begun} begun"))
        }
    })
    .await
}

#[test]
fn domains_without_mutual_tls_that_lead_to_a_mapped_api_are_named_while_they_exist() {
    run(async {
        let env = TestEnv::start_with("bypass", &[SCAN_INTERVAL]).await;
        let (http, rest) = (
            env.prepared.api_id.clone(),
            rest_api(&env.account, "rest", None).await.unwrap(),
        );
        let other = rest_api(&env.account, "other", None).await.unwrap();
        // Domains from before the operator's start: one leads to a mapped API, the other does not.
        let (edge, old) = (
            format!("edge.{}", env.prepared.zone),
            format!("old.{}", env.prepared.zone),
        );
        of_v1(&env, &edge, EndpointType::Edge, SecurityPolicy::Tls12, &rest).await;
        of_v1(&env, &old, EndpointType::Regional, SecurityPolicy::Tls10, &other).await;
        let mappings = json!([
            {"path": "", "api": {"id": http, "stage": "$default"}},
            {"path": "r", "api": {"id": rest, "stage": "prod"}},
        ]);
        env.create_domain("d", json!({"mappings": mappings})).await;
        env.ready("d").await;
        let detected = env.condition("d", "BypassDetected", |c| c.status == "True").await;
        assert_eq!(detected.reason, "OtherDomain");
        assert!(
            detected.message.contains(&format!("{edge} (API {rest})")),
            "{}",
            detected.message
        );
        assert!(
            !detected.message.contains(&old) && !detected.message.contains(&env.host()),
            "{}",
            detected.message
        );
        assert_eq!(
            env.ready("d").await.status,
            "True",
            "a bypass does not affect Ready"
        );

        // The old domain gets a mapping to a mapped API too.
        let request = v1(&env)
            .create_base_path_mapping()
            .domain_name(&old)
            .base_path("y")
            .rest_api_id(&rest);
        request.stage("prod").send().await.unwrap();
        env.condition("d", "BypassDetected", |c| {
            c.message.contains(&old) && c.message.contains(&edge)
        })
        .await;

        // An MtlsDomain with managementPolicy Observe names the bypasses too.
        let observed = json!({
            "domainName": format!("o.{}", env.prepared.zone), "mappings": mappings,
            "managementPolicy": "Observe",
        });
        env.create_domain("o", observed).await;
        env.condition("o", "BypassDetected", |c| {
            c.message.contains(&old) && c.message.contains(&edge)
        })
        .await;

        // In an unchanged world the operator writes neither to AWS nor to the MtlsDomain.
        scanned(&env).await;
        let (mark, before) = (env.mark().await, env.domains().get("d").await.unwrap());
        scanned(&env).await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        let after = env.domains().get("d").await.unwrap();
        assert_eq!(after.metadata.resource_version, before.metadata.resource_version);

        // A failed scan changes no condition.
        env.control()
            .deny(&env.account.id, &["apigateway:GetBasePathMappings"])
            .await
            .unwrap();
        v1(&env)
            .delete_domain_name()
            .domain_name(&edge)
            .send()
            .await
            .unwrap();
        scanned(&env).await;
        env.reconciles(1).await;
        env.condition("d", "BypassDetected", |c| c.message.contains(&edge))
            .await;
        env.control().deny(&env.account.id, &[]).await.unwrap();
        env.condition("d", "BypassDetected", |c| !c.message.contains(&edge))
            .await;

        v1(&env)
            .delete_domain_name()
            .domain_name(&old)
            .send()
            .await
            .unwrap();
        eventually("the condition goes", async || {
            let conditions = env.domains().get("d").await.unwrap().status.unwrap().conditions;
            let there = conditions.into_iter().find(|c| c.type_ == "BypassDetected");
            there.map_or(Ok(()), |c| Err(c.message))
        })
        .await;
    });
}

#[test]
fn one_scan_serves_all_domains_of_an_account_and_there_is_none_without_any() {
    run(async {
        let env = TestEnv::start_with("scans", &[SCAN_INTERVAL]).await;
        assert_eq!(scans(&env, 0).await, 0, "no domain is served");
        let plain = format!("plain.{}", env.prepared.zone);
        let certificate = json!({"request": {"subjectAlternativeNames": [plain]}});
        env.create_domain("d", json!({"serverCertificate": certificate}))
            .await;
        env.create_domain(
            "e",
            json!({"domainName": format!("second.{}", env.prepared.zone)}),
        )
        .await;
        env.ready("d").await;
        env.ready("e").await;
        scanned(&env).await;
        // A domain of v2's kind, with a path of several levels.
        let arn = env.gateway_domain().await.domain_name_configurations()[0]
            .certificate_arn()
            .unwrap()
            .to_owned();
        let config = DomainNameConfiguration::builder().certificate_arn(arn).build();
        let request = env
            .gateway()
            .create_domain_name()
            .domain_name(&plain)
            .domain_name_configurations(config);
        request.send().await.unwrap();
        let request = env
            .gateway()
            .create_api_mapping()
            .domain_name(&plain)
            .api_mapping_key("orders/v2");
        request
            .api_id(&env.prepared.api_id)
            .stage("$default")
            .send()
            .await
            .unwrap();
        for name in ["d", "e"] {
            env.condition(name, "BypassDetected", |c| c.message.contains(&plain))
                .await;
        }
        let count = async |operation: &str, mark| {
            let which = Calls {
                account: &env.account.id,
                since: mark,
                operation,
                ..Calls::default()
            };
            let calls = env.control().calls(&which).await.unwrap().calls;
            calls.into_iter().filter(|c| c.resource == plain).count()
        };
        let mark = env.mark().await;
        scanned(&env).await;
        let (begun, asked) = (scans(&env, mark).await, count("GetApiMappings", mark).await);
        assert!(
            asked <= begun + 1,
            "one scan for both: {asked} reads of {plain} in {begun} scans"
        );

        env.gateway()
            .delete_domain_name()
            .domain_name(&plain)
            .send()
            .await
            .unwrap();
        env.delete_domain("d").await;
        env.delete_domain("e").await;
        let mark = env.mark().await;
        env.create_domain("f", json!({"suspend": true})).await;
        env.condition("f", "Accepted", |c| c.reason == "Suspended").await;
        assert_eq!(scans(&env, mark).await, 0, "no domain is served any more");
    });
}
