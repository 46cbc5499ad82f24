//! An authorizer tells the back end of a REST API who called; an existing one is put on routes and stays
//! there.
use std::collections::BTreeMap;

use sandbox::{
    control::Calls,
    echo::Echo,
    prepare::{authorizer_function, deploy_rest, http_proxy_api, rest_orders_api},
};
use serde_json::json;

use crate::support::{
    aws::back_ends::{
        asked, authorizers, by_authorizer, fingerprint, mapped, marks, named, parameters, programmed, served,
        statements,
    },
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn an_authorizer_tells_the_back_end_of_a_rest_api_who_called() {
    run(async {
        let (env, echo) = (
            TestEnv::start("rest-authorizer").await,
            Echo::start().await.expect("a back end"),
        );
        let function = authorizer_function(&env.account, "who")
            .await
            .expect("a function");
        let api = rest_orders_api(&env.account, "several", &echo.url())
            .await
            .expect("an API");
        let spec = json!({
            "mappings": mapped(&api, "prod"), "restDeployment": "Allow",
            "identity": by_authorizer(json!({"functionArn": function})),
        });
        served(&env, spec).await;
        programmed(&env).await;
        let who = ("client1".to_owned(), fingerprint(&env).await);
        for method in ["GET", "POST"] {
            assert_eq!(
                named(&env, method, "/orders").await.as_ref(),
                Ok(&who),
                "{method}"
            );
        }
        let client1 = env.identity("client1").await;
        let preflight = env
            .call_with(&env.host(), "/orders", Some(&client1), &["--request", "OPTIONS"])
            .await;
        assert_eq!(
            preflight.status, 200,
            "OPTIONS needs no authorizer: {}",
            preflight.body
        );
        let sdk = aws_sdk_apigateway::Client::new(&env.account.sdk());
        let there = async || {
            let all = sdk
                .get_authorizers()
                .rest_api_id(&api)
                .send()
                .await
                .expect("GetAuthorizers");
            (all.items().len(), statements(&env, &function).await.len())
        };
        assert_eq!(there().await, (1, 1));
        // Methods and their integrations come from one read, whichever half of it a step needs. One more read
        // may just be under way.
        env.reconciles(1).await;
        let read = async |operation: &str| {
            let which = Calls {
                account: &env.account.id,
                service: "apigateway",
                operation,
                ..Calls::default()
            };
            env.control().stats(&which).await.expect("the journal").calls
        };
        let (resources, authorizers) = (read("GetResources").await, read("GetAuthorizers").await);
        assert!(
            resources <= authorizers,
            "{resources} reads of the resources, {authorizers} of the authorizers"
        );

        // As long as the deployment uses the authorizer, the authorizer stays, and may be called.
        env.change("d", json!({"identity": null, "restDeployment": "Never"}))
            .await;
        let waiting = env
            .condition("d", "IdentityPropagated", |c| c.reason == "WaitingForDeployment")
            .await;
        assert!(waiting.message.contains("stage prod"), "{}", waiting.message);
        assert_eq!(
            (named(&env, "GET", "/orders").await.as_ref(), there().await),
            (Ok(&who), (1, 1))
        );
        // The same when the operator is to remove everything.
        env.domains()
            .delete("d", &Default::default())
            .await
            .expect("delete");
        env.condition("d", "DomainProgrammed", |c| c.reason == "WaitingForDeployment")
            .await;
        assert_eq!(
            (named(&env, "GET", "/orders").await.as_ref(), there().await),
            (Ok(&who), (1, 1))
        );
        deploy_rest(&env.account, &api)
            .await
            .expect("a user deploys the API");
        eventually("the end of d", async || {
            match env.domains().get_opt("d").await.unwrap() {
                None => Ok(()),
                Some(left) => Err(format!("{:?}", left.status)),
            }
        })
        .await;
        assert_eq!(there().await, (0, 0));
        let all = sdk
            .get_resources()
            .rest_api_id(&api)
            .embed("methods")
            .send()
            .await
            .expect("GetResources");
        let methods = all
            .items()
            .iter()
            .flat_map(|r| r.resource_methods.iter().flatten());
        for (method, what) in methods {
            assert_eq!(what.authorization_type(), Some("NONE"), "{method}");
            assert_eq!(what.authorizer_id(), None, "{method}");
        }
        let tags = sdk
            .get_rest_api()
            .rest_api_id(&api)
            .send()
            .await
            .expect("GetRestApi")
            .tags
            .unwrap_or_default();
        assert!(
            tags.keys().all(|key| !key.starts_with("mtls-operator.io/")),
            "{tags:?}"
        );
    });
}

#[test]
fn an_existing_authorizer_is_put_on_routes_and_stays_there() {
    run(async {
        let (env, echo) = (
            TestEnv::start("existing-auth").await,
            Echo::start().await.expect("a back end"),
        );
        let function = authorizer_function(&env.account, "who")
            .await
            .expect("a function");
        let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
            .await
            .expect("an API");
        let existing = |id: &str| by_authorizer(json!({"existing": [{"apiId": api, "authorizerId": id}]}));
        let spec = json!({"mappings": mapped(&api, "$default"), "identity": existing("zzzzzz")});
        env.create_domain("d", spec).await;
        let told = env
            .condition("d", "IdentityPropagated", |c| c.reason == "RefNotFound")
            .await;
        assert!(
            told.message.contains("zzzzzz") && told.message.contains(&api),
            "{}",
            told.message
        );
        // Made as a user would: with the right to call the function for any of the API's authorizers.
        let request = env.gateway().create_authorizer().api_id(&api).name("theirs");
        let request = request.authorizer_type(aws_sdk_apigatewayv2::types::AuthorizerType::Request);
        let uri = format!(
            "arn:aws:apigateway:{}:lambda:path/2015-03-31/functions/{function}/invocations",
            env.account.region
        );
        let request = request
            .authorizer_uri(uri)
            .authorizer_payload_format_version("2.0")
            .enable_simple_responses(true);
        let made = request
            .authorizer_result_ttl_in_seconds(0)
            .send()
            .await
            .expect("CreateAuthorizer");
        let theirs = made.authorizer_id.expect("an id");
        let lambda = aws_sdk_lambda::Client::new(&env.account.sdk());
        let source = format!(
            "arn:aws:execute-api:{}:{}:{api}/authorizers/*",
            env.account.region, env.account.id
        );
        let permission = lambda
            .add_permission()
            .function_name(&function)
            .statement_id("theirs")
            .source_arn(source);
        let permission = permission
            .action("lambda:InvokeFunction")
            .principal("apigateway.amazonaws.com");
        permission.send().await.expect("AddPermission");

        env.change("d", json!({"identity": existing(&theirs)})).await;
        env.create_certificate("client1", "d").await;
        env.certificate_ready("client1").await;
        programmed(&env).await;
        let who = ("client1".to_owned(), fingerprint(&env).await);
        assert_eq!(named(&env, "GET", "/a").await.as_ref(), Ok(&who));
        env.delete_domain("d").await;
        // The operator opens no route, neither one that it closed nor one that the user closed.
        assert_eq!(asked(&env, &api).await["$default"].as_ref(), Some(&theirs));
        assert_eq!(
            (authorizers(&env, &api).await, statements(&env, &function).await),
            (vec![theirs], vec!["theirs".to_owned()])
        );
        assert!(parameters(&env, &api).await.iter().all(BTreeMap::is_empty));
        assert_eq!(marks(&env, &api).await, [""; 0]);
    });
}
