//! The back end of an HTTP API learns in a header who called, and an API that leaves the spec is as it was
//! before.
use std::collections::BTreeMap;

use sandbox::{
    echo::{Echo, Echoed},
    prepare::{add_http_route, http_proxy_api, rest_proxy_api},
};
use serde_json::json;

use crate::support::{
    aws::back_ends::{HEADER, echoed, headers, mapped, marks, parameters, programmed, served, told},
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
