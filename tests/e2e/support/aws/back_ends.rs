//! Back ends that echo a request, and the integrations and authorizers in front of them.
use std::collections::BTreeMap;

use sandbox::echo::Echoed;
use serde_json::{Value, json};

use crate::support::test_env::TestEnv;

pub const HEADER: &str = "x-client-cert-sub";

pub const NAME: &str = "x-client-cn";

pub fn headers(all: &[(&str, &str)]) -> Value {
    let header = |(name, field): &(&str, &str)| json!({"name": name, "from": {"clientCert": field}});
    json!({"headers": all.iter().map(header).collect::<Vec<_>>()})
}

pub fn mapped(api: &str, stage: &str) -> Value {
    json!([{"path": "", "api": {"id": api, "stage": stage}}])
}

/// Creates a domain `d` and a certificate `client1`, both Ready.
pub async fn served(env: &TestEnv, spec: Value) {
    env.create_domain("d", spec).await;
    env.create_certificate("client1", "d").await;
    env.ready("d").await;
    env.certificate_ready("client1").await;
}

/// Request that the back end got from a caller who sends the header itself.
pub async fn echoed(env: &TestEnv, method: &str, path: &str) -> Echoed {
    let client1 = env.identity("client1").await;
    let forged = format!("{HEADER}: CN=somebody-else");
    let shouted = "X-CLIENT-CERT-SUB: CN=shouted";
    let options = ["--request", method, "--header", &forged, "--header", shouted];
    let answer = env.call_with(&env.host(), path, Some(&client1), &options).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("the back end answers in JSON")
}

pub async fn told(env: &TestEnv, method: &str, path: &str) -> Option<String> {
    echoed(env, method, path).await.headers.remove(HEADER)
}

/// Request parameters of each integration of an HTTP API.
pub async fn parameters(env: &TestEnv, api: &str) -> Vec<BTreeMap<String, String>> {
    let all = env
        .gateway()
        .get_integrations()
        .api_id(api)
        .send()
        .await
        .expect("GetIntegrations");
    let all = all.items.unwrap_or_default().into_iter();
    all.map(|i| i.request_parameters.unwrap_or_default().into_iter().collect())
        .collect()
}

/// Tags of the operator on an HTTP API.
pub async fn marks(env: &TestEnv, api: &str) -> Vec<String> {
    let api = env.gateway().get_api().api_id(api).send().await.expect("GetApi");
    let mut keys: Vec<_> = api
        .tags
        .unwrap_or_default()
        .into_keys()
        .filter(|k| k.starts_with("mtls-operator.io/"))
        .collect();
    keys.sort();
    keys
}

pub async fn programmed(env: &TestEnv) {
    env.condition("d", "IdentityPropagated", |c| c.status == "True")
        .await;
    env.ready("d").await;
}

pub fn by_authorizer(authorizer: Value) -> Value {
    let header = |name: &str, key: &str| json!({"name": name, "from": {"authorizerKey": key}});
    json!({
        "headers": [header(NAME, "commonName"), header("x-client-sha256", "fingerprint")],
        "authorizer": authorizer,
    })
}

/// Ids of the statements in the policy of a function.
pub async fn statements(env: &TestEnv, function: &str) -> Vec<String> {
    let lambda = aws_sdk_lambda::Client::new(&env.account.sdk());
    let Ok(answer) = lambda.get_policy().function_name(function).send().await else {
        return vec![];
    };
    let policy: Value = serde_json::from_str(answer.policy().unwrap_or_default()).expect("a policy");
    let all = policy["Statement"].as_array().expect("statements").iter();
    all.map(|statement| statement["Sid"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Authorizer of each route of an HTTP API, by the route's key.
pub async fn asked(env: &TestEnv, api: &str) -> BTreeMap<String, Option<String>> {
    let all = env
        .gateway()
        .get_routes()
        .api_id(api)
        .send()
        .await
        .expect("GetRoutes")
        .items
        .unwrap_or_default();
    all.into_iter()
        .map(|route| (route.route_key.unwrap_or_default(), route.authorizer_id))
        .collect()
}

pub async fn authorizers(env: &TestEnv, api: &str) -> Vec<String> {
    let all = env
        .gateway()
        .get_authorizers()
        .api_id(api)
        .send()
        .await
        .expect("GetAuthorizers");
    all.items
        .unwrap_or_default()
        .into_iter()
        .map(|a| a.authorizer_id.unwrap_or_default())
        .collect()
}

/// Values that the back end got for `NAME` and for the fingerprint's header, from a caller who sends both
/// itself.
pub async fn named(env: &TestEnv, method: &str, path: &str) -> Result<(String, String), String> {
    let client1 = env.identity("client1").await;
    let options = [
        "--request",
        method,
        "--header",
        "x-client-cn: root",
        "--header",
        "X-Client-Sha256: 00",
    ];
    let answer = env.call_with(&env.host(), path, Some(&client1), &options).await;
    let echoed = serde_json::from_str::<Echoed>(&answer.body)
        .map_err(|_| format!("{} {}", answer.status, answer.body))?;
    let got = |name: &str| echoed.headers.get(name).cloned().unwrap_or_default();
    Ok((got(NAME), got("x-client-sha256")))
}

pub async fn fingerprint(env: &TestEnv) -> String {
    let status = env.certificates().get("client1").await.unwrap().status.unwrap();
    status
        .fingerprint_sha256
        .expect("the certificate has a fingerprint")
        .to_lowercase()
        .replace(':', "")
}
