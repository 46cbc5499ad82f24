//! Mapped HTTP and REST APIs: their default endpoints, tags, deployments and the operator's calls about them.
use aws_sdk_apigateway::types::{Op, PatchOperation};
use mtls_operator::aws::tags::PENDING_TAG;
use serde_json::{Value, json};

use crate::support::{test_env::TestEnv, world::eventually};

pub fn v1(env: &TestEnv) -> aws_sdk_apigateway::Client {
    aws_sdk_apigateway::Client::new(&env.account.sdk())
}

pub fn replace(path: &str, value: &str) -> PatchOperation {
    PatchOperation::builder()
        .op(Op::Replace)
        .path(path)
        .value(value)
        .build()
}

/// Answer to callers of the API's default endpoint, at the stage `prod`.
pub async fn execute_api(env: &TestEnv, api: &str) -> (u16, String) {
    let answer = env
        .call(
            &format!("{api}.execute-api.{}.amazonaws.com", env.account.region),
            "/prod/hello",
            None,
        )
        .await;
    (answer.status, answer.body)
}

pub fn forbidden() -> (u16, String) {
    (403, r#"{"message":"Forbidden"}"#.to_owned())
}

/// Flag of the REST API, and its tag while a change of the flag waits for a deployment.
pub async fn state(env: &TestEnv, api: &str) -> (bool, Option<String>) {
    let seen = v1(env)
        .get_rest_api()
        .rest_api_id(api)
        .send()
        .await
        .expect("GetRestApi");
    (
        seen.disable_execute_api_endpoint(),
        seen.tags().and_then(|t| t.get(PENDING_TAG).cloned()),
    )
}

/// Writes after `mark` that concern APIs.
pub async fn about_apis(env: &TestEnv, mark: u64) -> Vec<String> {
    let about = [
        "TagResource",
        "UntagResource",
        "UpdateRestApi",
        "UpdateStage",
        "CreateDeployment",
        "UpdateApi",
    ];
    env.writes(mark)
        .await
        .into_iter()
        .filter(|w| about.contains(&w.as_str()))
        .collect()
}

/// Changes AWS while the MtlsDomain is suspended, so that the operator does not see the change.
pub async fn unseen(env: &TestEnv, name: &str, act: impl AsyncFnOnce()) {
    env.change(name, json!({"suspend": true})).await;
    env.condition(name, "Accepted", |c| c.reason == "Suspended").await;
    act().await;
    env.change(name, json!({"suspend": false})).await;
}

pub async fn set_flag(env: &TestEnv, api: &str, closed: bool) {
    let patch = replace("/disableExecuteApiEndpoint", &closed.to_string());
    v1(env)
        .update_rest_api()
        .rest_api_id(api)
        .patch_operations(patch)
        .send()
        .await
        .expect("UpdateRestApi");
}

pub async fn deploy(env: &TestEnv, api: &str) {
    v1(env)
        .create_deployment()
        .rest_api_id(api)
        .stage_name("prod")
        .send()
        .await
        .expect("CreateDeployment");
}

pub async fn tag(env: &TestEnv, api: &str, value: &str) {
    let arn = format!("arn:aws:apigateway:{}::/restapis/{api}", env.account.region);
    v1(env)
        .tag_resource()
        .resource_arn(arn)
        .tags(PENDING_TAG, value)
        .send()
        .await
        .expect("TagResource");
}

pub async fn knobs(env: &TestEnv, values: &[(&str, f64)]) {
    env.control()
        .set_knobs(&env.account.id, values)
        .await
        .expect("a knob");
}

/// Waits until the flag is set and its ownership tag is removed.
pub async fn closed(env: &TestEnv, api: &str) {
    eventually("the tag is removed", async || {
        let state = state(env, api).await;
        if state == (true, None) {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await
}

pub fn mapping(path: &str, api: &str, stage: &str) -> Value {
    json!({"path": path, "api": {"id": api, "stage": stage}})
}
