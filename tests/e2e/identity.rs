//! Identity of callers in the back end: headers on every integration of the mapped APIs, HTTP and REST, as a
//! real back end behind the edge gets them, and their removal.
use std::collections::BTreeMap;

use sandbox::{
    control::Calls,
    echo::{Echo, Echoed},
    prepare::{
        add_http_route, add_rest_resource, authorizer_function, deploy_rest, http_proxy_api, rest_orders_api,
        rest_proxy_api,
    },
};
use serde_json::json;

use crate::support::{
    aws::back_ends::{
        HEADER, NAME, asked, authorizers, by_authorizer, echoed, fingerprint, headers, mapped, marks, named,
        parameters, programmed, served, statements, told,
    },
    example_manifests,
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn the_back_end_of_an_http_api_learns_who_called_and_no_caller_can_forge_it() {
    run(async {
        let (env, echo) = (
            TestEnv::start("identity").await,
            Echo::start().await.expect("a back end"),
        );
        let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
            .await
            .expect("an API");
        // A parameter of another owner, on one of two integrations.
        let added = add_http_route(&env.account, &api, "GET /added", &echo.url())
            .await
            .expect("a route");
        let theirs = BTreeMap::from([("overwrite:header.x-theirs".to_owned(), "'kept'".to_owned())]);
        let request = env
            .gateway()
            .update_integration()
            .api_id(&api)
            .integration_id(&added);
        request
            .set_request_parameters(Some(theirs.clone().into_iter().collect()))
            .send()
            .await
            .expect("UpdateIntegration");
        let before = parameters(&env, &api).await;
        let wanted = headers(&[
            (HEADER, "SubjectDN"),
            ("x-client-cert-issuer", "IssuerDN"),
            ("x-client-cert-serial", "SerialNumber"),
        ]);
        served(
            &env,
            json!({"mappings": mapped(&api, "$default"), "identity": wanted}),
        )
        .await;
        programmed(&env).await;
        for path in ["/", "/added"] {
            let mut got = echoed(&env, "GET", path).await.headers;
            assert_eq!(got.remove(HEADER).as_deref(), Some("CN=client1"), "{path}");
            assert_eq!(
                got.remove("x-client-cert-issuer").as_deref(),
                Some("CN=partners"),
                "{path}"
            );
            let serial = env
                .certificates()
                .get("client1")
                .await
                .unwrap()
                .status
                .unwrap()
                .serial_number;
            assert_eq!(got.remove("x-client-cert-serial"), serial, "{path}");
        }

        // Another user adds a route later: until the next reconcile its back end gets the header as the
        // caller sends it.
        add_http_route(&env.account, &api, "GET /late", &echo.url())
            .await
            .expect("a route");
        eventually("the new route is covered", async || {
            match told(&env, "GET", "/late").await.as_deref() {
                Some("CN=client1") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        programmed(&env).await;

        // One header is removed, then all: parameters from before the operator stay.
        env.change("d", json!({"identity": headers(&[(HEADER, "SubjectDN")])}))
            .await;
        programmed(&env).await;
        assert_eq!(
            marks(&env, &api).await,
            [format!("mtls-operator.io/header.{HEADER}")]
        );
        assert!(
            parameters(&env, &api)
                .await
                .iter()
                .all(|p| !p.contains_key("overwrite:header.x-client-cert-serial"))
        );
        env.change("d", json!({"identity": null})).await;
        env.ready("d").await;
        eventually("no condition", async || {
            let status = env.domains().get("d").await.unwrap().status.unwrap();
            match status.conditions.iter().find(|c| c.type_ == "IdentityPropagated") {
                None => Ok(()),
                Some(left) => Err(format!("{left:?}")),
            }
        })
        .await;
        assert_eq!(marks(&env, &api).await, [""; 0]);
        let after = parameters(&env, &api).await;
        assert_eq!(after[..before.len()], before, "as before the operator");
        assert!(after.contains(&theirs));
        assert_eq!(
            told(&env, "GET", "/late").await.as_deref(),
            Some("CN=somebody-else, CN=shouted"),
            "the operator no longer sets the header"
        );
    });
}

#[test]
fn an_http_api_that_does_not_deploy_by_itself_is_deployed() {
    run(async {
        let (env, echo) = (
            TestEnv::start("undeployed").await,
            Echo::start().await.expect("a back end"),
        );
        let api = http_proxy_api(&env.account, "orders", &echo.url(), false)
            .await
            .expect("an API");
        served(
            &env,
            json!({"mappings": mapped(&api, "$default"), "identity": headers(&[(HEADER, "SubjectDN")])}),
        )
        .await;
        programmed(&env).await;
        assert_eq!(told(&env, "GET", "/").await.as_deref(), Some("CN=client1"));
        assert_eq!(
            marks(&env, &api).await,
            [format!("mtls-operator.io/header.{HEADER}")],
            "nothing is pending"
        );
        // With the domain the operator removes all of it.
        env.delete_domain("d").await;
        assert_eq!(marks(&env, &api).await, [""; 0]);
        assert!(parameters(&env, &api).await.iter().all(BTreeMap::is_empty));
    });
}

#[test]
fn an_api_that_leaves_the_spec_is_left_as_it_was() {
    run(async {
        let (env, echo) = (
            TestEnv::start("leaving").await,
            Echo::start().await.expect("a back end"),
        );
        let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
            .await
            .expect("an API");
        let identity = headers(&[(HEADER, "SubjectDN")]);
        served(
            &env,
            json!({"mappings": mapped(&api, "$default"), "identity": identity}),
        )
        .await;
        programmed(&env).await;
        let mark = env.mark().await;
        env.change("d", json!({"mappings": mapped(&env.prepared.api_id, "$default")}))
            .await;
        env.ready("d").await;
        assert_eq!(marks(&env, &api).await, [""; 0]);
        assert!(parameters(&env, &api).await.iter().all(BTreeMap::is_empty));
        let writes = env.writes(mark).await;
        let position = |operation: &str| writes.iter().rposition(|write| write == operation);
        assert!(
            position("UntagResource") < position("UpdateApiMapping"),
            "the operator finds the API only through its mapping: {writes:?}"
        );
        assert_eq!(env.mapped().await[0].1, env.prepared.api_id);
    });
}

/// Follows the comments of examples/identity-rest-api.yaml.
#[test]
fn the_example_shows_the_back_end_who_called() {
    run(async {
        let (env, echo) = (
            TestEnv::start("who").await,
            Echo::start().await.expect("a back end"),
        );
        let api = rest_proxy_api(&env.account, "orders", &echo.url())
            .await
            .expect("an API");
        example_manifests::apply(&env, "identity-rest-api.yaml", &[("a1b2c3d4e5", &api)]).await;
        env.ready("partners").await;
        env.certificate_ready("client1").await;
        let client1 = env.identity("client1-mtls").await;
        let answer = env.call(&env.host(), "/hello", Some(&client1)).await;
        let got: Echoed = serde_json::from_str(&answer.body).expect("the back end answers in JSON");
        assert_eq!(got.headers.get(HEADER).map(String::as_str), Some("CN=client1"));
        assert_eq!(got.path, "/hello");
    });
}

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

#[test]
fn headers_of_others_are_left_alone_and_contention_ends() {
    run(async {
        let (env, echo) = (
            TestEnv::start("contested").await,
            Echo::start().await.expect("a back end"),
        );
        let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
            .await
            .expect("an API");
        let id = env
            .gateway()
            .get_integrations()
            .api_id(&api)
            .send()
            .await
            .unwrap()
            .items
            .unwrap()
            .remove(0)
            .integration_id
            .unwrap();
        let set = async |value: &str| {
            let parameters = [(format!("overwrite:header.{HEADER}"), value.to_owned())].into();
            let request = env
                .gateway()
                .update_integration()
                .api_id(&api)
                .integration_id(&id);
            request
                .set_request_parameters(Some(parameters))
                .send()
                .await
                .expect("UpdateIntegration");
        };
        set("'fixed'").await;
        env.create_domain(
            "d",
            json!({"mappings": mapped(&api, "$default"), "identity": headers(&[(HEADER, "SubjectDN")])}),
        )
        .await;
        let not_owned = env
            .condition("d", "IdentityPropagated", |c| c.reason == "ForeignOwner")
            .await;
        assert!(
            not_owned.message.contains(HEADER) && not_owned.message.contains(&api),
            "{}",
            not_owned.message
        );
        assert_eq!(
            parameters(&env, &api).await[0][&format!("overwrite:header.{HEADER}")],
            "'fixed'"
        );
        set("").await;
        programmed(&env).await;

        for _ in 0..3 {
            let mark = env.mark().await;
            set("").await;
            eventually("the header is restored", async || {
                let writes = env.writes(mark).await;
                // The other writer's update and the operator's.
                if writes.iter().filter(|w| *w == "UpdateIntegration").count() == 2 {
                    Ok(())
                } else {
                    Err(format!("{writes:?}"))
                }
            })
            .await;
            programmed(&env).await;
            env.reconciles(1).await;
        }
        set("").await;
        let contested = env
            .condition("d", "IdentityPropagated", |c| c.reason == "ContestedByOther")
            .await;
        assert!(
            contested.message.contains(HEADER) && contested.message.contains(&api),
            "{}",
            contested.message
        );
        let mark = env.mark().await;
        env.reconciles(3).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        // A changed spec makes the operator try again.
        let both = headers(&[(HEADER, "SubjectDN"), ("x-client-cert-until", "NotAfter")]);
        env.change("d", json!({"identity": both})).await;
        programmed(&env).await;
    });
}

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

/// AWS does not document whether it keeps request parameters that a change does not name: both ways are
/// tried.
#[test]
fn parameters_of_others_survive_partial_and_full_replacements() {
    run(async {
        for merge in [0.0, 1.0] {
            let (env, echo) = (
                TestEnv::start("parameters").await,
                Echo::start().await.expect("a back end"),
            );
            env.control()
                .set_knobs(&env.account.id, &[("parameters_merge", merge)])
                .await
                .expect("a knob");
            let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
                .await
                .expect("an API");
            let all = env
                .gateway()
                .get_integrations()
                .api_id(&api)
                .send()
                .await
                .expect("GetIntegrations");
            let id = all
                .items
                .unwrap_or_default()
                .remove(0)
                .integration_id
                .expect("an id");
            let theirs = BTreeMap::from([("overwrite:header.x-theirs".to_owned(), "kept".to_owned())]);
            let request = env
                .gateway()
                .update_integration()
                .api_id(&api)
                .integration_id(&id);
            let request = request.set_request_parameters(Some(theirs.clone().into_iter().collect()));
            request.send().await.expect("UpdateIntegration");
            let both = headers(&[(HEADER, "SubjectDN"), ("x-client-cert-until", "NotAfter")]);
            served(
                &env,
                json!({"mappings": mapped(&api, "$default"), "identity": both}),
            )
            .await;
            programmed(&env).await;
            assert_eq!(parameters(&env, &api).await[0].len(), 3, "merge {merge}");
            env.change("d", json!({"identity": headers(&[(HEADER, "SubjectDN")])}))
                .await;
            programmed(&env).await;
            let mut got = echoed(&env, "GET", "/").await.headers;
            assert_eq!(got.remove(HEADER).as_deref(), Some("CN=client1"), "merge {merge}");
            assert_eq!(got.remove("x-theirs").as_deref(), Some("kept"), "merge {merge}");
            assert_eq!(parameters(&env, &api).await[0].len(), 2, "merge {merge}");
            env.delete_domain("d").await;
            assert_eq!(parameters(&env, &api).await, [theirs], "merge {merge}");
        }
    });
}
