//! An authorizer tells the back end of an HTTP API who called, and goes with the domain.
use std::collections::BTreeMap;

use sandbox::{
    control::Calls,
    echo::{Echo, Echoed},
    prepare::{add_http_route, authorizer_function, http_proxy_api},
};
use serde_json::json;

use crate::support::{
    aws::back_ends::{
        HEADER, NAME, asked, authorizers, by_authorizer, fingerprint, mapped, marks, named, parameters,
        programmed, served, statements,
    },
    example_manifests,
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn an_authorizer_tells_the_back_end_of_an_http_api_who_called() {
    run(async {
        let (env, echo) = (
            TestEnv::start("authorizer").await,
            Echo::start().await.expect("a back end"),
        );
        let function = authorizer_function(&env.account, "who")
            .await
            .expect("a function");
        let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
            .await
            .expect("an API");
        add_http_route(&env.account, &api, "OPTIONS /cors", &echo.url())
            .await
            .expect("a route");
        let spec = json!({
            "mappings": mapped(&api, "$default"), "identity": by_authorizer(json!({"functionArn": function})),
        });
        served(&env, spec).await;
        programmed(&env).await;
        let who = ("client1".to_owned(), fingerprint(&env).await);
        assert_eq!(named(&env, "GET", "/a").await.as_ref(), Ok(&who));
        assert_eq!(asked(&env, &api).await["OPTIONS /cors"], None);
        let first = authorizers(&env, &api).await;
        assert_eq!((first.len(), statements(&env, &function).await.len()), (1, 1));

        // A later route, and a route that another user took the authorizer off.
        add_http_route(&env.account, &api, "GET /late", &echo.url())
            .await
            .expect("a route");
        eventually("the new route has the authorizer", async || {
            match named(&env, "GET", "/late").await {
                Ok(got) if got == who => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        programmed(&env).await;
        // Another user may also remove the authorizer's right to call the function.
        let lambda = aws_sdk_lambda::Client::new(&env.account.sdk());
        let sid = statements(&env, &function).await.remove(0);
        lambda
            .remove_permission()
            .function_name(&function)
            .statement_id(&sid)
            .send()
            .await
            .expect("RemovePermission");
        eventually("the authorizer may call again", async || {
            match named(&env, "GET", "/late").await {
                Ok(got) if got == who => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        programmed(&env).await;

        // The operator leaves a route with another user's authorizer alone, and names it.
        let not_owned = env.gateway().create_authorizer().api_id(&api).name("theirs");
        let not_owned = not_owned.authorizer_type(aws_sdk_apigatewayv2::types::AuthorizerType::Request);
        let theirs = not_owned
            .authorizer_uri("arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/f/invocations");
        let theirs = theirs
            .send()
            .await
            .expect("CreateAuthorizer")
            .authorizer_id
            .expect("an id");
        let all = env
            .gateway()
            .get_routes()
            .api_id(&api)
            .send()
            .await
            .expect("GetRoutes")
            .items
            .unwrap_or_default();
        let late = all
            .iter()
            .find(|r| r.route_key.as_deref() == Some("GET /late"))
            .expect("the route is there");
        let request = env
            .gateway()
            .update_route()
            .api_id(&api)
            .route_id(late.route_id().expect("an id"));
        request.authorizer_id(&theirs).send().await.expect("UpdateRoute");
        let told = env
            .condition("d", "IdentityPropagated", |c| c.reason == "ForeignOwner")
            .await;
        assert!(
            told.message.contains("route GET /late") && !told.message.contains("$default"),
            "{}",
            told.message
        );
        assert_eq!(asked(&env, &api).await["GET /late"].as_ref(), Some(&theirs));
        let request = env
            .gateway()
            .delete_route()
            .api_id(&api)
            .route_id(late.route_id().expect("an id"));
        request.send().await.expect("DeleteRoute");
        env.gateway()
            .delete_authorizer()
            .api_id(&api)
            .authorizer_id(&theirs)
            .send()
            .await
            .expect("DeleteAuthorizer");
        programmed(&env).await;

        // Another function is another authorizer, and the operator removes the first one completely.
        let other = authorizer_function(&env.account, "who-else")
            .await
            .expect("a function");
        env.change(
            "d",
            json!({"identity": by_authorizer(json!({"functionArn": other}))}),
        )
        .await;
        programmed(&env).await;
        assert_eq!(named(&env, "GET", "/a").await.as_ref(), Ok(&who));
        let second = authorizers(&env, &api).await;
        assert!(second.len() == 1 && second != first, "{second:?}");
        assert_eq!(
            (
                statements(&env, &function).await.len(),
                statements(&env, &other).await.len()
            ),
            (0, 1)
        );

        // The operator names a missing function, and the existing authorizer continues.
        let missing = other.replace("who-else", "absent");
        env.change(
            "d",
            json!({"identity": by_authorizer(json!({"functionArn": missing}))}),
        )
        .await;
        let told = env
            .condition("d", "IdentityPropagated", |c| c.reason == "RefNotFound")
            .await;
        assert!(
            told.message.contains("spec.identity.authorizer.functionArn"),
            "{}",
            told.message
        );
        // The operator tries again, and does not report it again.
        let mark = env.mark().await;
        eventually("the operator has tried three times more", async || {
            let which = Calls {
                account: &env.account.id,
                since: mark,
                operation: "AddPermission",
                ..Calls::default()
            };
            let calls = env
                .control()
                .calls(&which)
                .await
                .map_err(|e| e.to_string())?
                .calls
                .len();
            if calls >= 3 {
                Ok(())
            } else {
                Err(format!("{calls} calls"))
            }
        })
        .await;
        let log = std::fs::read_to_string(env.operator.log()).expect("the log");
        let refused = log
            .lines()
            .filter(|line| line.contains(": refused ") && line.contains("AddPermission"));
        assert_eq!(refused.count(), 1, "logged once");
        assert_eq!(named(&env, "GET", "/a").await.as_ref(), Ok(&who));

        // Without the block the operator removes everything that belongs to it.
        env.change("d", json!({"identity": null})).await;
        eventually("everything is removed", async || match marks(&env, &api).await {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
        env.ready("d").await;
        assert_eq!(authorizers(&env, &api).await, [""; 0]);
        assert_eq!(
            (
                statements(&env, &function).await.len(),
                statements(&env, &other).await.len()
            ),
            (0, 0)
        );
        assert!(asked(&env, &api).await.values().all(Option::is_none));
        assert!(parameters(&env, &api).await.iter().all(BTreeMap::is_empty));
        assert_eq!(
            named(&env, "GET", "/a").await,
            Ok(("root".to_owned(), "00".to_owned()))
        );
    });
}

/// Follows the comments of examples/identity-authorizer.yaml.
#[test]
fn the_example_with_an_authorizer_names_the_caller() {
    run(async {
        let (env, echo) = (
            TestEnv::start("who-cn").await,
            Echo::start().await.expect("a back end"),
        );
        let function = authorizer_function(&env.account, "identity")
            .await
            .expect("a function");
        let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
            .await
            .expect("an API");
        let named = "arn:aws:lambda:eu-west-1:123456789012:function:identity";
        example_manifests::apply(
            &env,
            "identity-authorizer.yaml",
            &[("a1b2c3d4e5", &api), (named, &function)],
        )
        .await;
        env.ready("partners").await;
        env.certificate_ready("client1").await;
        let client1 = env.identity("client1-mtls").await;
        let answer = env.call(&env.host(), "/hello", Some(&client1)).await;
        let got: Echoed = serde_json::from_str(&answer.body).expect("the back end answers in JSON");
        let header = |name: &str| got.headers.get(name).cloned().unwrap_or_default();
        assert_eq!(
            (header(NAME), header(HEADER)),
            ("client1".to_owned(), "CN=client1".to_owned())
        );
        assert_eq!(header("x-client-sha256").len(), 64);
    });
}
