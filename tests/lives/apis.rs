//! Mappings to HTTP and REST APIs, and the closing of their default endpoints: what is in AWS afterwards, what callers get, and by which calls.
use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType, Op, PatchOperation};
use aws_sdk_apigatewayv2::types::ProtocolType;
use futures::future::join_all;
use mtls_operator::domain::plan::{ADOPTED_TAG, DEPLOYED, PENDING_TAG};
use sandbox::{
    control::{Fault, When},
    prepare::{http_api, rest_api},
};
use serde_json::{Value, json};

use crate::{
    examples,
    world::{Life, eventually, run},
};

fn v1(life: &Life) -> aws_sdk_apigateway::Client {
    aws_sdk_apigateway::Client::new(&life.account.sdk())
}

fn replace(path: &str, value: &str) -> PatchOperation {
    PatchOperation::builder().op(Op::Replace).path(path).value(value).build()
}

/// What callers get at the API's default endpoint, at the stage `prod`.
async fn execute_api(life: &Life, api: &str) -> (u16, String) {
    let answer =
        life.call(&format!("{api}.execute-api.{}.amazonaws.com", life.account.region), "/prod/hello", None).await;
    (answer.status, answer.body)
}

fn forbidden() -> (u16, String) {
    (403, r#"{"message":"Forbidden"}"#.to_owned())
}

/// The flag of the REST API, and its tag while a change of it waits for its deployment.
async fn state(life: &Life, api: &str) -> (bool, Option<String>) {
    let seen = v1(life).get_rest_api().rest_api_id(api).send().await.expect("GetRestApi");
    (seen.disable_execute_api_endpoint(), seen.tags().and_then(|t| t.get(PENDING_TAG).cloned()))
}

/// The writes after `mark` that are about APIs.
async fn about_apis(life: &Life, mark: u64) -> Vec<String> {
    let about = ["TagResource", "UntagResource", "UpdateRestApi", "UpdateStage", "CreateDeployment", "UpdateApi"];
    life.writes(mark).await.into_iter().filter(|w| about.contains(&w.as_str())).collect()
}

/// What somebody does while the operator looks away.
async fn unseen(life: &Life, name: &str, act: impl AsyncFnOnce()) {
    life.change(name, json!({"suspend": true})).await;
    life.condition(name, "Accepted", |c| c.reason == "Suspended").await;
    act().await;
    life.change(name, json!({"suspend": false})).await;
}

async fn set_flag(life: &Life, api: &str, closed: bool) {
    let patch = replace("/disableExecuteApiEndpoint", &closed.to_string());
    v1(life).update_rest_api().rest_api_id(api).patch_operations(patch).send().await.expect("UpdateRestApi");
}

async fn deploy(life: &Life, api: &str) {
    v1(life).create_deployment().rest_api_id(api).stage_name("prod").send().await.expect("CreateDeployment");
}

async fn tag(life: &Life, api: &str, value: &str) {
    let arn = format!("arn:aws:apigateway:{}::/restapis/{api}", life.account.region);
    v1(life).tag_resource().resource_arn(arn).tags(PENDING_TAG, value).send().await.expect("TagResource");
}

async fn knobs(life: &Life, values: &[(&str, f64)]) {
    life.control().set_knobs(&life.account.id, values).await.expect("a knob");
}

/// Waits until the flag is set and its ownership tag is off.
async fn closed(life: &Life, api: &str) {
    eventually("the mark is off", async || {
        let state = state(life, api).await;
        if state == (true, None) { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
}

fn mapping(path: &str, api: &str, stage: &str) -> Value {
    json!({"path": path, "api": {"id": api, "stage": stage}})
}

/// examples/rest-api.yaml as its comments tell it.
#[test]
fn the_example_with_a_rest_api() {
    run(async {
        let life = Life::start("rest").await;
        let api = rest_api(&life.account, "rest", None).await.unwrap();
        assert_eq!(execute_api(&life, &api).await.0, 200, "before");
        let mark = life.mark().await;
        examples::apply(&life, "rest-api.yaml", &[("a1b2c3d4e5", &api)]).await;
        life.ready("partners").await;
        life.certificate_ready("client1").await;

        assert_eq!(execute_api(&life, &api).await, forbidden(), "afterwards");
        let seen = life.condition("partners", "BypassClosed", |c| c.status == "True").await;
        assert_eq!(seen.reason, "Closed", "the probe has seen it");
        let client1 = life.identity("client1-mtls").await;
        let answer = life.call(&life.host(), "/hello", Some(&client1)).await;
        assert_eq!((answer.status, answer.body.contains("Hello World!")), (200, true), "{}", answer.body);
        assert_eq!(life.call(&life.host(), "/hello", None).await.status, 0, "cut off");
        assert_eq!(state(&life, &api).await, (true, None));
        assert_eq!(about_apis(&life, mark).await, ["TagResource", "UpdateRestApi", "UpdateStage", "UntagResource"]);

        // Nothing of it again, and opened by somebody it is closed at once.
        life.reconciles(2).await;
        unseen(&life, "partners", async || {
            set_flag(&life, &api, false).await;
            deploy(&life, &api).await;
            assert_eq!(execute_api(&life, &api).await.0, 200, "opened");
        })
        .await;
        closed(&life, &api).await;
        assert_eq!(execute_api(&life, &api).await, forbidden());
        assert_eq!(about_apis(&life, mark).await.iter().filter(|w| *w == "CreateDeployment").count(), 1, "theirs");
        life.ready("partners").await;

        // Deleting the object opens nothing.
        life.delete_domain("partners").await;
        assert_eq!(execute_api(&life, &api).await, forbidden());
    });
}

#[test]
fn a_stage_whose_touch_is_not_enough_waits_for_a_deployment_and_gets_one_where_that_is_allowed() {
    run(async {
        let life = Life::start("drafts").await;
        knobs(&life, &[("stage_update_publishes", 0.0)]).await;
        let api = rest_api(&life.account, "rest", None).await.unwrap();
        let mark = life.mark().await;
        life.create_domain("d", json!({"mappings": [mapping("", &api, "prod")]})).await;
        let waits = life.condition("d", "BypassClosed", |c| c.reason == "WaitingForDeployment").await;
        assert_eq!(waits.status, "Unknown", "it may yet take effect: {}", waits.message);
        let ready = life.condition("d", "Ready", |c| c.reason == "WaitingForDeployment").await;
        assert_eq!(ready.status, "Unknown");
        assert_eq!(about_apis(&life, mark).await, ["TagResource", "UpdateRestApi", "UpdateStage", "UntagResource"]);
        assert_eq!((state(&life, &api).await, execute_api(&life, &api).await.0), ((true, None), 200));

        // A minute later.
        knobs(&life, &[("rest_date_lag", 120.0)]).await;
        let touch = v1(&life).update_stage().rest_api_id(&api).stage_name("prod");
        touch.patch_operations(replace("/description", "later")).send().await.unwrap();
        let blocked = life.condition("d", "BypassClosed", |c| c.status == "False").await;
        assert_eq!(blocked.reason, "WaitingForDeployment");
        for part in [api.as_str(), "stage prod", "spec.restDeployment to Allow"] {
            assert!(blocked.message.contains(part), "{part}: {}", blocked.message);
        }
        life.condition("d", "Ready", |c| c.status == "False" && c.reason == "WaitingForDeployment").await;
        let mark = life.mark().await;
        life.reconciles(2).await;
        assert_eq!(life.writes(mark).await, [""; 0], "waiting is not trying again");

        life.change("d", json!({"restDeployment": "Allow"})).await;
        life.ready("d").await;
        closed(&life, &api).await;
        assert_eq!(execute_api(&life, &api).await, forbidden());
        let once = ["TagResource", "CreateDeployment", "TagResource", "UntagResource"];
        assert_eq!(about_apis(&life, mark).await, once);
        life.reconciles(2).await;
        assert_eq!(about_apis(&life, mark).await, once);

        // Never again, and somebody deploys in the operator's place.
        life.change("d", json!({"restDeployment": "Never"})).await;
        unseen(&life, "d", async || {
            set_flag(&life, &api, false).await;
            deploy(&life, &api).await;
        })
        .await;
        life.condition("d", "BypassClosed", |c| c.status == "False" && c.reason == "WaitingForDeployment").await;
        deploy(&life, &api).await;
        life.ready("d").await;
        assert_eq!(execute_api(&life, &api).await, forbidden());
    });
}

#[test]
fn while_a_deployment_takes_effect_there_is_no_other() {
    run(async {
        let life = Life::start("effect").await;
        let api = rest_api(&life.account, "rest", None).await.unwrap();
        life.create_domain("d", json!({"mappings": [mapping("", &api, "prod")], "restDeployment": "Allow"})).await;
        life.ready("d").await;
        closed(&life, &api).await;
        // As if the deployment had been made a while ago, and the endpoint did not know of it yet.
        knobs(&life, &[("rest_date_lag", 120.0)]).await;
        unseen(&life, "d", async || {
            set_flag(&life, &api, false).await;
            deploy(&life, &api).await;
            set_flag(&life, &api, true).await;
            tag(&life, &api, DEPLOYED).await;
        })
        .await;
        let mark = life.mark().await;
        let answers = life.condition("d", "BypassClosed", |c| c.reason == "StillAnswering").await;
        assert_eq!(answers.status, "Unknown");
        life.reconciles(3).await;
        assert_eq!(life.writes(mark).await, [""; 0]);
        // It does now.
        deploy(&life, &api).await;
        closed(&life, &api).await;
        life.ready("d").await;
        assert_eq!(about_apis(&life, mark).await, ["CreateDeployment", "UntagResource"], "theirs, and ours");
    });
}

#[test]
fn several_stages_get_one_deployment() {
    run(async {
        let rates = [("MTLS_OPERATOR_AWS_RATE", "*=unlimited,CreateDeployment=1/3:1")];
        let life = Life::start_with("stages", &rates).await;
        let api = rest_api(&life.account, "rest", None).await.unwrap();
        for stage in ["dev", "test"] {
            v1(&life).create_deployment().rest_api_id(&api).stage_name(stage).send().await.unwrap();
        }
        let mark = life.mark().await;
        let mappings = json!([mapping("", &api, "prod"), mapping("dev", &api, "dev"), mapping("test", &api, "test")]);
        life.create_domain("d", json!({"mappings": mappings, "restDeployment": "Allow"})).await;
        life.ready("d").await;
        closed(&life, &api).await;
        let writes = about_apis(&life, mark).await;
        assert_eq!(writes.iter().filter(|w| *w == "CreateDeployment").count(), 1, "{writes:?}");
        let stages = v1(&life).get_stages().rest_api_id(&api).send().await.unwrap();
        let served: std::collections::BTreeSet<_> = stages.item().iter().map(|s| s.deployment_id()).collect();
        assert_eq!(served.len(), 1, "{stages:?}");
    });
}

#[test]
fn of_two_domains_on_one_api_the_one_that_closes_wins_and_either_finishes_what_the_other_began() {
    run(async {
        let life = Life::start("shared").await;
        let api = rest_api(&life.account, "rest", None).await.unwrap();
        let mappings = json!([mapping("", &api, "prod")]);
        life.create_domain("closes", json!({"mappings": mappings})).await;
        life.ready("closes").await;
        closed(&life, &api).await;
        let mark = life.mark().await;
        let host = format!("second.{}", life.prepared.zone);
        life.create_domain("keeps", json!({"domainName": host, "mappings": mappings, "defaultEndpoint": "Keep"})).await;
        life.ready("keeps").await;
        let kept = life.condition("keeps", "BypassClosed", |c| c.status == "False").await;
        assert_eq!(kept.reason, "KeptOpen");
        life.reconciles(2).await;
        assert_eq!(about_apis(&life, mark).await, [""; 0]);
        assert_eq!(execute_api(&life, &api).await, forbidden());

        // An operator in another cluster has set the flag and was killed.
        unseen(&life, "closes", async || {
            set_flag(&life, &api, false).await;
            deploy(&life, &api).await;
            tag(&life, &api, "other/team/d").await;
            set_flag(&life, &api, true).await;
            assert_eq!(execute_api(&life, &api).await.0, 200);
            life.reconciles(2).await;
            assert_eq!(state(&life, &api).await.1.as_deref(), Some("other/team/d"), "who keeps closes nothing");
        })
        .await;
        closed(&life, &api).await;
        assert_eq!(execute_api(&life, &api).await, forbidden());
    });
}

#[test]
fn killed_at_any_call_about_a_rest_api_the_next_operator_finishes() {
    run(async {
        let calls = ["TagResource", "UpdateRestApi", "UpdateStage", "UntagResource"];
        let touched = calls.iter().flat_map(|call| [(*call, When::Before, "Never"), (*call, When::After, "Never")]);
        let deployed = [("CreateDeployment", When::Before, "Allow"), ("CreateDeployment", When::After, "Allow")];
        join_all(touched.chain(deployed).map(|(call, when, may)| Box::pin(killed_at(call, when, may)))).await;
    });
}

async fn killed_at(operation: &str, when: When, rest_deployment: &str) {
    let mut life = Life::start("killed").await;
    let point = format!("killed {when:?} {operation}");
    let api = rest_api(&life.account, "rest", None).await.unwrap();
    let account = life.account.id.clone();
    let hold = Fault { service: "apigateway", operation, account: &account, when, hold: true, ..Fault::default() };
    let fault = life.control().add_faults(&[hold]).await.unwrap().remove(0).id;
    let mark = life.mark().await;
    life.create_domain("d", json!({"mappings": [mapping("", &api, "prod")], "restDeployment": rest_deployment})).await;
    life.kill_at(fault, &point).await;
    life.ready("d").await;
    closed(&life, &api).await;
    assert_eq!(execute_api(&life, &api).await, forbidden(), "{point}");
    let deployments = about_apis(&life, mark).await.iter().filter(|w| *w == "CreateDeployment").count();
    // One that was held and not begun is in the journal too.
    assert!(deployments <= if rest_deployment == "Allow" { 2 } else { 0 }, "{point}: {deployments} deployments");
}

#[test]
fn mappings_of_several_levels_to_both_kinds_change_in_place_and_wait_for_what_is_not_there() {
    run(async {
        let life = Life::start("mapped").await;
        let http = life.prepared.api_id.clone();
        let rest = rest_api(&life.account, "rest", None).await.unwrap();
        v1(&life).create_deployment().rest_api_id(&rest).stage_name("next").send().await.unwrap();
        let later = format!("later{}", life.account.id);
        let mappings = |orders: &str, items: &Value| {
            json!({"mappings": [
                mapping("", &http, "$default"), mapping("orders/v2", &rest, orders), items, mapping("later", &later, "$default"),
            ]})
        };
        let items = mapping("orders/v2/items", &http, "$default");
        life.create_domain("d", mappings("prod", &items)).await;

        // Everything else is served, DNS and the closed endpoints included.
        let missing = life.condition("d", "ResolvedRefs", |c| c.status == "False").await;
        assert_eq!(missing.reason, "ApiNotFound");
        assert!(missing.message.contains(&later) && missing.message.contains("\"later\""), "{}", missing.message);
        life.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        let unmapped = life.condition("d", "MappingsProgrammed", |c| c.status == "False").await;
        assert!(unmapped.message.contains(&later) && !unmapped.message.contains(&rest), "{}", unmapped.message);
        let line = |path: &str, api: &str, stage: &str| (path.to_owned(), api.to_owned(), stage.to_owned());
        let served =
            [line("", &http, "$default"), line("orders/v2", &rest, "prod"), line("orders/v2/items", &http, "$default")];
        assert_eq!(life.mapped().await, served);
        closed(&life, &rest).await;
        assert!(life.endpoint_closed().await);
        life.create_certificate("client1", "d").await;
        life.certificate_ready("client1").await;
        let client1 = life.identity("client1").await;
        for path in ["/hello", "/orders/v2/hello", "/orders/v2/items/1"] {
            let answer = life.call(&life.host(), path, Some(&client1)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        }

        // It comes, first without its stage.
        let made = life.gateway().create_api().name("later").protocol_type(ProtocolType::Http);
        made.tags("awsdouble:id", &later).send().await.unwrap();
        let missing = life.condition("d", "ResolvedRefs", |c| c.reason == "StageNotFound").await;
        assert!(missing.message.contains(&later) && missing.message.contains("$default"), "{}", missing.message);
        life.gateway().create_stage().api_id(&later).stage_name("$default").auto_deploy(true).send().await.unwrap();
        life.ready("d").await;
        assert!(life.mapped().await.contains(&line("later", &later, "$default")));

        // Another stage for the one, another API of the other kind for the other.
        let (orders_id, items_id) = (life.mapping_id("orders/v2").await, life.mapping_id("orders/v2/items").await);
        let mark = life.mark().await;
        life.change("d", mappings("next", &mapping("orders/v2/items", &rest, "prod"))).await;
        life.ready("d").await;
        let changed = life.mapped().await;
        for wanted in [line("orders/v2", &rest, "next"), line("orders/v2/items", &rest, "prod")] {
            assert!(changed.contains(&wanted), "{changed:?}");
        }
        assert_eq!(
            (life.mapping_id("orders/v2").await, life.mapping_id("orders/v2/items").await),
            (orders_id, items_id)
        );
        assert_eq!(life.writes(mark).await, ["UpdateApiMapping", "UpdateApiMapping"]);
    });
}

#[test]
fn what_cannot_be_served_with_mutual_tls_is_named_and_left_alone() {
    run(async {
        let life = Life::start("unsuited").await;
        let socket = life.gateway().create_api().name("socket").protocol_type(ProtocolType::Websocket);
        let socket = socket.route_selection_expression("$request.body.action").send().await.unwrap().api_id.unwrap();
        life.gateway().create_stage().api_id(&socket).stage_name("live").send().await.unwrap();
        let endpoint = EndpointConfiguration::builder().types(EndpointType::Private).build();
        let private = v1(&life).create_rest_api().name("private").endpoint_configuration(endpoint);
        let private = private.send().await.unwrap().id.unwrap();
        let stage = v1(&life).create_stage().rest_api_id(&private).stage_name("prod").deployment_id("none");
        stage.send().await.unwrap();

        let mark = life.mark().await;
        let mappings = json!([
            mapping("", &life.prepared.api_id, "$default"),
            mapping("s", &socket, "live"),
            mapping("p", &private, "prod")
        ]);
        life.create_domain("d", json!({"mappings": mappings})).await;
        let unsuited = life.condition("d", "ResolvedRefs", |c| c.status == "False").await;
        assert_eq!(unsuited.reason, "ApiNotSupported");
        for part in [&socket, "WebSocket", &private, "private"] {
            assert!(unsuited.message.contains(part), "{part}: {}", unsuited.message);
        }
        life.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        eventually("the API that can be served is closed", async || {
            if life.endpoint_closed().await { Ok(()) } else { Err("open".to_owned()) }
        })
        .await;
        life.reconciles(2).await;
        assert_eq!(about_apis(&life, mark).await, ["UpdateApi"], "the others stay as they are");
        assert_eq!(life.mapped().await.len(), 1);
    });
}

#[test]
fn unlisted_mappings_go_from_a_domain_that_was_made_and_stay_on_one_that_was_taken_over() {
    run(async {
        let life = Life::start("unlisted").await;
        let other = http_api(&life.account, "other", None).await.unwrap();
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        let add = async |path: &str| {
            let request = life.gateway().create_api_mapping().domain_name(life.host()).api_mapping_key(path);
            request.api_id(&other).stage("$default").send().await.unwrap();
        };
        add("theirs").await;
        eventually("it goes", async || {
            let mapped = life.mapped().await;
            if mapped.len() == 1 { Ok(()) } else { Err(format!("{mapped:?}")) }
        })
        .await;

        let arn = format!("arn:aws:apigateway:{}::/domainnames/{}", life.account.region, life.host());
        life.gateway().tag_resource().resource_arn(arn).tags(ADOPTED_TAG, "true").send().await.unwrap();
        life.reconciles(1).await;
        add("theirs").await;
        let named = life.condition("d", "MappingsProgrammed", |c| c.message.contains("\"theirs\"")).await;
        assert_eq!(named.status, "True");
        life.ready("d").await;
        life.reconciles(2).await;
        assert_eq!(life.mapped().await.len(), 2);
        life.change("d", json!({"unlistedMappings": "Delete"})).await;
        eventually("it goes, the spec says so", async || {
            let mapped = life.mapped().await;
            if mapped.len() == 1 { Ok(()) } else { Err(format!("{mapped:?}")) }
        })
        .await;
    });
}
