//! Mappings to HTTP and REST APIs, and the closing of their default endpoints: the result in AWS, the answers
//! to callers, and the operator's calls.
use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType};
use aws_sdk_apigatewayv2::types::ProtocolType;
use futures::future::join_all;
use mtls_operator::domain::plan::{ADOPTED_TAG, DEPLOYED};
use sandbox::{
    control::{Fault, When},
    prepare::{http_api, rest_api},
};
use serde_json::{Value, json};

use crate::support::{
    aws::mapped_apis::{
        about_apis, closed, deploy, execute_api, forbidden, knobs, mapping, replace, set_flag, state, tag,
        unseen, v1,
    },
    example_manifests,
    test_env::TestEnv,
    world::{eventually, run},
};

/// Follows the comments of examples/rest-api.yaml.
#[test]
fn the_example_with_a_rest_api() {
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
fn a_stage_whose_touch_is_not_enough_waits_for_a_deployment_and_gets_one_where_that_is_allowed() {
    run(async {
        let env = TestEnv::start("drafts").await;
        knobs(&env, &[("stage_update_publishes", 0.0)]).await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({"mappings": [mapping("", &api, "prod")]}))
            .await;
        let waits = env
            .condition("d", "BypassClosed", |c| c.reason == "WaitingForDeployment")
            .await;
        assert_eq!(
            waits.status, "Unknown",
            "the change may yet take effect: {}",
            waits.message
        );
        let ready = env
            .condition("d", "Ready", |c| c.reason == "WaitingForDeployment")
            .await;
        assert_eq!(ready.status, "Unknown");
        assert_eq!(
            about_apis(&env, mark).await,
            ["TagResource", "UpdateRestApi", "UpdateStage", "UntagResource"]
        );
        assert_eq!(
            (state(&env, &api).await, execute_api(&env, &api).await.0),
            ((true, None), 200)
        );

        // A minute later.
        knobs(&env, &[("rest_date_lag", 120.0)]).await;
        let touch = v1(&env).update_stage().rest_api_id(&api).stage_name("prod");
        touch
            .patch_operations(replace("/description", "later"))
            .send()
            .await
            .unwrap();
        let blocked = env.condition("d", "BypassClosed", |c| c.status == "False").await;
        assert_eq!(blocked.reason, "WaitingForDeployment");
        for part in [api.as_str(), "stage prod", "spec.restDeployment to Allow"] {
            assert!(blocked.message.contains(part), "{part}: {}", blocked.message);
        }
        env.condition("d", "Ready", |c| {
            c.status == "False" && c.reason == "WaitingForDeployment"
        })
        .await;
        let mark = env.mark().await;
        env.reconciles(2).await;
        assert_eq!(
            env.writes(mark).await,
            [""; 0],
            "the operator waits without a write"
        );

        env.change("d", json!({"restDeployment": "Allow"})).await;
        env.ready("d").await;
        closed(&env, &api).await;
        assert_eq!(execute_api(&env, &api).await, forbidden());
        let once = ["TagResource", "CreateDeployment", "TagResource", "UntagResource"];
        assert_eq!(about_apis(&env, mark).await, once);
        env.reconciles(2).await;
        assert_eq!(about_apis(&env, mark).await, once);

        // With restDeployment Never again, another user deploys in the operator's place.
        env.change("d", json!({"restDeployment": "Never"})).await;
        unseen(&env, "d", async || {
            set_flag(&env, &api, false).await;
            deploy(&env, &api).await;
        })
        .await;
        env.condition("d", "BypassClosed", |c| {
            c.status == "False" && c.reason == "WaitingForDeployment"
        })
        .await;
        deploy(&env, &api).await;
        env.ready("d").await;
        assert_eq!(execute_api(&env, &api).await, forbidden());
    });
}

#[test]
fn the_operator_makes_no_second_deployment_while_one_takes_effect() {
    run(async {
        let env = TestEnv::start("effect").await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        env.create_domain(
            "d",
            json!({"mappings": [mapping("", &api, "prod")], "restDeployment": "Allow"}),
        )
        .await;
        env.ready("d").await;
        closed(&env, &api).await;
        // As if the deployment had been made a while ago, and the endpoint did not know of it yet.
        knobs(&env, &[("rest_date_lag", 120.0)]).await;
        unseen(&env, "d", async || {
            set_flag(&env, &api, false).await;
            deploy(&env, &api).await;
            set_flag(&env, &api, true).await;
            tag(&env, &api, DEPLOYED).await;
        })
        .await;
        let mark = env.mark().await;
        let answers = env
            .condition("d", "BypassClosed", |c| c.reason == "StillAnswering")
            .await;
        assert_eq!(answers.status, "Unknown");
        env.reconciles(3).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        // The deployment takes effect.
        deploy(&env, &api).await;
        closed(&env, &api).await;
        env.ready("d").await;
        assert_eq!(
            about_apis(&env, mark).await,
            ["CreateDeployment", "UntagResource"],
            "the user's deployment, and the operator's"
        );
    });
}

#[test]
fn several_stages_get_one_deployment() {
    run(async {
        let rates = [("MTLS_OPERATOR_AWS_RATE", "*=unlimited,CreateDeployment=1/3:1")];
        let env = TestEnv::start_with("stages", &rates).await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        for stage in ["dev", "test"] {
            v1(&env)
                .create_deployment()
                .rest_api_id(&api)
                .stage_name(stage)
                .send()
                .await
                .unwrap();
        }
        let mark = env.mark().await;
        let mappings = json!([
            mapping("", &api, "prod"),
            mapping("dev", &api, "dev"),
            mapping("test", &api, "test")
        ]);
        env.create_domain("d", json!({"mappings": mappings, "restDeployment": "Allow"}))
            .await;
        env.ready("d").await;
        closed(&env, &api).await;
        let writes = about_apis(&env, mark).await;
        assert_eq!(
            writes.iter().filter(|w| *w == "CreateDeployment").count(),
            1,
            "{writes:?}"
        );
        let stages = v1(&env).get_stages().rest_api_id(&api).send().await.unwrap();
        let served: std::collections::BTreeSet<_> = stages.item().iter().map(|s| s.deployment_id()).collect();
        assert_eq!(served.len(), 1, "{stages:?}");
    });
}

#[test]
fn of_two_domains_on_one_api_the_one_that_closes_wins_and_either_finishes_what_the_other_began() {
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
fn killed_at_any_call_about_a_rest_api_the_next_operator_finishes() {
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
fn mappings_of_several_levels_to_both_kinds_change_in_place_and_wait_for_what_is_not_there() {
    run(async {
        let env = TestEnv::start("mapped").await;
        let http = env.prepared.api_id.clone();
        let rest = rest_api(&env.account, "rest", None).await.unwrap();
        v1(&env)
            .create_deployment()
            .rest_api_id(&rest)
            .stage_name("next")
            .send()
            .await
            .unwrap();
        let later = format!("later{}", env.account.id);
        let mappings = |orders: &str, items: &Value| {
            json!({"mappings": [
                mapping("", &http, "$default"), mapping("orders/v2", &rest, orders), items,
                mapping("later", &later, "$default"),
            ]})
        };
        let items = mapping("orders/v2/items", &http, "$default");
        env.create_domain("d", mappings("prod", &items)).await;

        // The operator serves everything else, DNS and the closed endpoints included.
        let missing = env.condition("d", "ResolvedRefs", |c| c.status == "False").await;
        assert_eq!(missing.reason, "ApiNotFound");
        assert!(
            missing.message.contains(&later) && missing.message.contains("\"later\""),
            "{}",
            missing.message
        );
        env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        let unmapped = env
            .condition("d", "MappingsProgrammed", |c| c.status == "False")
            .await;
        assert!(
            unmapped.message.contains(&later) && !unmapped.message.contains(&rest),
            "{}",
            unmapped.message
        );
        let line = |path: &str, api: &str, stage: &str| (path.to_owned(), api.to_owned(), stage.to_owned());
        let served = [
            line("", &http, "$default"),
            line("orders/v2", &rest, "prod"),
            line("orders/v2/items", &http, "$default"),
        ];
        assert_eq!(env.mapped().await, served);
        closed(&env, &rest).await;
        assert!(env.endpoint_closed().await);
        env.create_certificate("client1", "d").await;
        env.certificate_ready("client1").await;
        let client1 = env.identity("client1").await;
        for path in ["/hello", "/orders/v2/hello", "/orders/v2/items/1"] {
            let answer = env.call(&env.host(), path, Some(&client1)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        }

        // The API appears, first without its stage.
        let made = env
            .gateway()
            .create_api()
            .name("later")
            .protocol_type(ProtocolType::Http);
        made.tags("awsdouble:id", &later).send().await.unwrap();
        let missing = env
            .condition("d", "ResolvedRefs", |c| c.reason == "StageNotFound")
            .await;
        assert!(
            missing.message.contains(&later) && missing.message.contains("$default"),
            "{}",
            missing.message
        );
        env.gateway()
            .create_stage()
            .api_id(&later)
            .stage_name("$default")
            .auto_deploy(true)
            .send()
            .await
            .unwrap();
        env.ready("d").await;
        assert!(env.mapped().await.contains(&line("later", &later, "$default")));

        // The first mapping gets another stage, the second another API of the other kind.
        let (orders_id, items_id) = (
            env.mapping_id("orders/v2").await,
            env.mapping_id("orders/v2/items").await,
        );
        let mark = env.mark().await;
        env.change("d", mappings("next", &mapping("orders/v2/items", &rest, "prod")))
            .await;
        env.ready("d").await;
        let changed = env.mapped().await;
        for wanted in [
            line("orders/v2", &rest, "next"),
            line("orders/v2/items", &rest, "prod"),
        ] {
            assert!(changed.contains(&wanted), "{changed:?}");
        }
        assert_eq!(
            (
                env.mapping_id("orders/v2").await,
                env.mapping_id("orders/v2/items").await
            ),
            (orders_id, items_id)
        );
        assert_eq!(env.writes(mark).await, ["UpdateApiMapping", "UpdateApiMapping"]);
    });
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

#[test]
fn unlisted_mappings_go_from_a_domain_that_was_made_and_stay_on_one_that_was_taken_over() {
    run(async {
        let env = TestEnv::start("unlisted").await;
        let other = http_api(&env.account, "other", None).await.unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let add = async |path: &str| {
            let request = env
                .gateway()
                .create_api_mapping()
                .domain_name(env.host())
                .api_mapping_key(path);
            request.api_id(&other).stage("$default").send().await.unwrap();
        };
        add("theirs").await;
        eventually("the unlisted mapping is gone", async || {
            let mapped = env.mapped().await;
            if mapped.len() == 1 {
                Ok(())
            } else {
                Err(format!("{mapped:?}"))
            }
        })
        .await;

        let arn = format!(
            "arn:aws:apigateway:{}::/domainnames/{}",
            env.account.region,
            env.host()
        );
        env.gateway()
            .tag_resource()
            .resource_arn(arn)
            .tags(ADOPTED_TAG, "true")
            .send()
            .await
            .unwrap();
        env.reconciles(1).await;
        add("theirs").await;
        let named = env
            .condition("d", "MappingsProgrammed", |c| c.message.contains("\"theirs\""))
            .await;
        assert_eq!(named.status, "True");
        env.ready("d").await;
        env.reconciles(2).await;
        assert_eq!(env.mapped().await.len(), 2);
        env.change("d", json!({"unlistedMappings": "Delete"})).await;
        eventually("the mapping is gone, as the spec says", async || {
            let mapped = env.mapped().await;
            if mapped.len() == 1 {
                Ok(())
            } else {
                Err(format!("{mapped:?}"))
            }
        })
        .await;
    });
}
