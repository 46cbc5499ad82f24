//! A REST API passes the headers on as soon as it is deployed, by its user or by the operator.
use sandbox::{
    echo::{Echo, Echoed},
    prepare::{add_rest_resource, deploy_rest, rest_orders_api, rest_proxy_api},
};
use serde_json::json;

use crate::support::{
    aws::back_ends::{HEADER, headers, mapped, programmed, told},
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn a_rest_api_waits_for_a_users_deployment_or_is_deployed() {
    run(async {
        let (env, echo) = (
            TestEnv::start("rest-identity").await,
            Echo::start().await.expect("a back end"),
        );
        let api = rest_proxy_api(&env.account, "orders", &echo.url())
            .await
            .expect("an API");
        let spec = json!({"mappings": mapped(&api, "prod"), "identity": headers(&[(HEADER, "SubjectDN")])});
        env.create_domain("d", spec).await;
        env.create_certificate("client1", "d").await;
        env.certificate_ready("client1").await;
        let waiting = env
            .condition("d", "IdentityPropagated", |c| c.reason == "WaitingForDeployment")
            .await;
        assert!(
            waiting.message.contains(&api) && waiting.message.contains("stage prod"),
            "{}",
            waiting.message
        );
        assert!(waiting.message.contains("restDeployment"), "{}", waiting.message);
        env.condition("d", "BypassClosed", |c| c.status == "True").await;
        assert_eq!(
            told(&env, "GET", "/a/b").await.as_deref(),
            Some("CN=somebody-else, CN=shouted"),
            "as the condition says"
        );
        deploy_rest(&env.account, &api)
            .await
            .expect("a user deploys the API");
        programmed(&env).await;
        assert_eq!(told(&env, "GET", "/a/b").await.as_deref(), Some("CN=client1"));
        assert_eq!(told(&env, "POST", "/a").await.as_deref(), Some("CN=client1"));

        // Each method of the other API's resources is covered, and so are later ones.
        let orders = rest_orders_api(&env.account, "several", &echo.url())
            .await
            .expect("an API");
        env.change(
            "d",
            json!({"mappings": mapped(&orders, "prod"), "restDeployment": "Allow"}),
        )
        .await;
        programmed(&env).await;
        for method in ["GET", "POST"] {
            assert_eq!(
                told(&env, method, "/orders").await.as_deref(),
                Some("CN=client1"),
                "{method}"
            );
        }
        let deployments = |calls: Vec<String>| calls.into_iter().filter(|c| c == "CreateDeployment").count();
        let mark = env.mark().await;
        add_rest_resource(&env.account, &orders, "invoices", &echo.url())
            .await
            .expect("a resource");
        eventually("the new resource is deployed with its header", async || {
            let client1 = env.identity("client1").await;
            let forged = format!("{HEADER}: CN=somebody-else");
            let answer = env
                .call_with(&env.host(), "/invoices", Some(&client1), &["--header", &forged])
                .await;
            match serde_json::from_str::<Echoed>(&answer.body) {
                Ok(got) if got.headers.get(HEADER).map(String::as_str) == Some("CN=client1") => Ok(()),
                _ => Err(answer.body),
            }
        })
        .await;
        programmed(&env).await;
        env.reconciles(2).await;
        assert_eq!(
            deployments(env.writes(mark).await),
            1,
            "once, not at every reconcile"
        );
        env.delete_domain("d").await;
        let sdk = aws_sdk_apigateway::Client::new(&env.account.sdk());
        for id in [&api, &orders] {
            let all = sdk
                .get_resources()
                .rest_api_id(id)
                .embed("methods")
                .send()
                .await
                .expect("GetResources");
            let methods = all
                .items()
                .iter()
                .flat_map(|r| r.resource_methods.iter().flatten());
            let integrations = methods.filter_map(|(_, m)| m.method_integration.as_ref());
            let parameters: Vec<_> = integrations
                .flat_map(|i| i.request_parameters.iter().flatten())
                .collect();
            assert!(
                parameters.iter().all(|(key, _)| !key.contains(HEADER)),
                "{parameters:?}"
            );
            let tags = sdk
                .get_rest_api()
                .rest_api_id(id)
                .send()
                .await
                .expect("GetRestApi")
                .tags
                .unwrap_or_default();
            assert!(
                tags.keys().all(|key| !key.starts_with("mtls-operator.io/")),
                "{tags:?}"
            );
        }
    });
}
