//! The default endpoint of a mapped API is closed, for all domains that map it and across kills of the
//! operator.
use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType};
use aws_sdk_apigatewayv2::types::ProtocolType;
use futures::future::join_all;
use sandbox::{
    control::{Fault, When},
    prepare::rest_api,
};
use serde_json::json;

use crate::support::{
    aws::mapped_apis::{
        about_apis, closed, deploy, execute_api, forbidden, mapping, set_flag, state, tag, unseen, v1,
    },
    example_manifests,
    test_env::TestEnv,
    world::{eventually, run},
};

/// Follows the comments of examples/rest-api.yaml.
#[test]
fn the_rest_api_example_is_served_and_its_default_endpoint_closed() {
    run(async {
        let env = TestEnv::start("rest").await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        assert_eq!(execute_api(&env, &api).await.0, 200, "before");
        let mark = env.mark().await;
        example_manifests::apply(&env, "rest-api.yaml", &[("a1b2c3d4e5", &api)]).await;
        env.ready("partners").await;
        env.certificate_ready("client1").await;

        assert_eq!(execute_api(&env, &api).await, forbidden(), "afterwards");
        let seen = env
            .condition("partners", "BypassClosed", |c| c.status == "True")
            .await;
        assert_eq!(seen.reason, "Closed", "the probe has seen it");
        let client1 = env.identity("client1-mtls").await;
        let answer = env.call(&env.host(), "/hello", Some(&client1)).await;
        assert_eq!(
            (answer.status, answer.body.contains("Hello World!")),
            (200, true),
            "{}",
            answer.body
        );
        assert_eq!(env.call(&env.host(), "/hello", None).await.status, 0, "cut off");
        assert_eq!(state(&env, &api).await, (true, None));
        assert_eq!(
            about_apis(&env, mark).await,
            ["TagResource", "UpdateRestApi", "UpdateStage", "UntagResource"]
        );

        // The operator writes nothing more. When another user opens the endpoint, the operator closes it at
        // once.
        env.reconciles(2).await;
        unseen(&env, "partners", async || {
            set_flag(&env, &api, false).await;
            deploy(&env, &api).await;
            assert_eq!(execute_api(&env, &api).await.0, 200, "opened");
        })
        .await;
        closed(&env, &api).await;
        assert_eq!(execute_api(&env, &api).await, forbidden());
        assert_eq!(
            about_apis(&env, mark)
                .await
                .iter()
                .filter(|w| *w == "CreateDeployment")
                .count(),
            1,
            "theirs"
        );
        env.ready("partners").await;

        // The deletion of the object opens no endpoint.
        env.delete_domain("partners").await;
        assert_eq!(execute_api(&env, &api).await, forbidden());
    });
}

#[test]
fn an_api_of_two_domains_is_closed_if_one_of_them_closes_it() {
    run(async {
        let env = TestEnv::start("shared").await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        let mappings = json!([mapping("", &api, "prod")]);
        env.create_domain("closes", json!({"mappings": mappings})).await;
        env.ready("closes").await;
        closed(&env, &api).await;
        let mark = env.mark().await;
        let host = format!("second.{}", env.prepared.zone);
        env.create_domain(
            "keeps",
            json!({"domainName": host, "mappings": mappings, "defaultEndpoint": "Keep"}),
        )
        .await;
        env.ready("keeps").await;
        let kept = env
            .condition("keeps", "BypassClosed", |c| c.status == "False")
            .await;
        assert_eq!(kept.reason, "KeptOpen");
        env.reconciles(2).await;
        assert_eq!(about_apis(&env, mark).await, [""; 0]);
        assert_eq!(execute_api(&env, &api).await, forbidden());

        // An operator in another cluster has set the flag and was killed.
        unseen(&env, "closes", async || {
            set_flag(&env, &api, false).await;
            deploy(&env, &api).await;
            tag(&env, &api, "other/team/d").await;
            set_flag(&env, &api, true).await;
            assert_eq!(execute_api(&env, &api).await.0, 200);
            env.reconciles(2).await;
            assert_eq!(
                state(&env, &api).await.1.as_deref(),
                Some("other/team/d"),
                "the domain that keeps the endpoint closes nothing"
            );
        })
        .await;
        closed(&env, &api).await;
        assert_eq!(execute_api(&env, &api).await, forbidden());
    });
}

#[test]
fn a_kill_at_any_call_about_a_rest_api_is_finished_by_the_next_operator() {
    run(async {
        let calls = ["TagResource", "UpdateRestApi", "UpdateStage", "UntagResource"];
        let touched = calls
            .iter()
            .flat_map(|call| [(*call, When::Before, "Never"), (*call, When::After, "Never")]);
        let deployed = [
            ("CreateDeployment", When::Before, "Allow"),
            ("CreateDeployment", When::After, "Allow"),
        ];
        join_all(
            touched
                .chain(deployed)
                .map(|(call, when, may)| Box::pin(killed_at(call, when, may))),
        )
        .await;
    });
}

async fn killed_at(operation: &str, when: When, rest_deployment: &str) {
    let mut env = TestEnv::start("killed").await;
    let point = format!("killed {when:?} {operation}");
    let api = rest_api(&env.account, "rest", None).await.unwrap();
    let account = env.account.id.clone();
    let hold = Fault {
        service: "apigateway",
        operation,
        account: &account,
        when,
        hold: true,
        ..Fault::default()
    };
    let fault = env.control().add_faults(&[hold]).await.unwrap().remove(0).id;
    let mark = env.mark().await;
    env.create_domain(
        "d",
        json!({"mappings": [mapping("", &api, "prod")], "restDeployment": rest_deployment}),
    )
    .await;
    env.kill_at(fault, &point).await;
    env.ready("d").await;
    closed(&env, &api).await;
    assert_eq!(execute_api(&env, &api).await, forbidden(), "{point}");
    let deployments = about_apis(&env, mark)
        .await
        .iter()
        .filter(|w| *w == "CreateDeployment")
        .count();
    // A call that was held and did not begin is in the journal too.
    assert!(
        deployments <= if rest_deployment == "Allow" { 2 } else { 0 },
        "{point}: {deployments} deployments"
    );
}

#[test]
fn an_api_that_cannot_be_served_with_mutual_tls_is_named_and_left_alone() {
    run(async {
        let env = TestEnv::start("unsuited").await;
        let socket = env
            .gateway()
            .create_api()
            .name("socket")
            .protocol_type(ProtocolType::Websocket);
        let socket = socket
            .route_selection_expression("$request.body.action")
            .send()
            .await
            .unwrap()
            .api_id
            .unwrap();
        env.gateway()
            .create_stage()
            .api_id(&socket)
            .stage_name("live")
            .send()
            .await
            .unwrap();
        let endpoint = EndpointConfiguration::builder()
            .types(EndpointType::Private)
            .build();
        let private = v1(&env)
            .create_rest_api()
            .name("private")
            .endpoint_configuration(endpoint);
        let private = private.send().await.unwrap().id.unwrap();
        let stage = v1(&env)
            .create_stage()
            .rest_api_id(&private)
            .stage_name("prod")
            .deployment_id("none");
        stage.send().await.unwrap();

        let mark = env.mark().await;
        let mappings = json!([
            mapping("", &env.prepared.api_id, "$default"),
            mapping("s", &socket, "live"),
            mapping("p", &private, "prod")
        ]);
        env.create_domain("d", json!({"mappings": mappings})).await;
        let unsuited = env.condition("d", "ResolvedRefs", |c| c.status == "False").await;
        assert_eq!(unsuited.reason, "ApiNotSupported");
        for part in [&socket, "WebSocket", &private, "private"] {
            assert!(unsuited.message.contains(part), "{part}: {}", unsuited.message);
        }
        env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        eventually("the API that can be served is closed", async || {
            if env.endpoint_closed().await {
                Ok(())
            } else {
                Err("open".to_owned())
            }
        })
        .await;
        env.reconciles(2).await;
        assert_eq!(
            about_apis(&env, mark).await,
            ["UpdateApi"],
            "the others stay as they are"
        );
        assert_eq!(env.mapped().await.len(), 1);
    });
}
