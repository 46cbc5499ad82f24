//! Changed flags and parameters of mapped APIs are restored: the default endpoint, and the parameters that
//! tell the back end who called.
use aws_sdk_apigateway::types::{Op, PatchOperation};
use mtls_operator::dataplane::api_gateway::ownership::HEADER_TAG;
use sandbox::prepare::{http_proxy_api, rest_proxy_api};
use serde_json::json;

use super::table::{
    Figures,
    Notice::{EveryMinute, EveryQuarter},
    THEIRS, Table,
};
use crate::support::test_env::TestEnv;

const HEADER: &str = "x-client-cert-sub";

/// Back end that no caller reaches.
const NOWHERE: &str = "http://192.0.2.1";

fn v1(env: &TestEnv) -> aws_sdk_apigateway::Client {
    aws_sdk_apigateway::Client::new(&env.account.sdk())
}

/// Sets the value of the operator's header in an integration of an HTTP API; empty: removes it.
async fn set(env: &TestEnv, api: &str, value: &str) {
    let all = env.gateway().get_integrations().api_id(api).send().await.unwrap();
    let request = env.gateway().update_integration().api_id(api);
    let request = request.integration_id(all.items()[0].integration_id().unwrap());
    let parameters = [(format!("overwrite:header.{HEADER}"), value.to_owned())].into();
    request
        .set_request_parameters(Some(parameters))
        .send()
        .await
        .unwrap();
}

pub async fn rows() -> Figures {
    let env = TestEnv::start("drift-apis").await;
    let http = http_proxy_api(&env.account, "http", NOWHERE, true).await.unwrap();
    let rest = rest_proxy_api(&env.account, "rest", NOWHERE).await.unwrap();
    // Not mapped, so the operator leaves it alone.
    http_proxy_api(&env.account, "theirs", NOWHERE, true)
        .await
        .unwrap();
    let mapping =
        |path: &str, api: &str, stage: &str| json!({"path": path, "api": {"id": api, "stage": stage}});
    let spec = json!({
        "mappings": [mapping("", &http, "$default"), mapping("rest", &rest, "prod")],
        "restDeployment": "Allow",
        "identity": {"headers": [{"name": HEADER, "from": {"clientCert": "SubjectDN"}}]},
    });
    env.create_domain("d", spec).await;
    env.condition("d", "IdentityPropagated", |c| c.status == "True")
        .await;
    let mut table = Table::of(env).await;

    table
        .corrected(
            "the endpoint of an HTTP API opened",
            EveryMinute,
            &["UpdateApi"],
            &["UpdateApi"],
            async |env| {
                let request = env
                    .gateway()
                    .update_api()
                    .api_id(&http)
                    .disable_execute_api_endpoint(false);
                request.send().await.unwrap();
            },
        )
        .await;
    let ours = [
        "TagResource",
        "UpdateRestApi",
        "CreateDeployment",
        "TagResource",
        "UntagResource",
    ];
    table
        .corrected(
            "the endpoint of a REST API opened",
            EveryMinute,
            &["UpdateRestApi"],
            &ours,
            async |env| {
                let patch = PatchOperation::builder()
                    .op(Op::Replace)
                    .path("/disableExecuteApiEndpoint")
                    .value("false");
                let request = v1(env)
                    .update_rest_api()
                    .rest_api_id(&rest)
                    .patch_operations(patch.build());
                request.send().await.unwrap();
            },
        )
        .await;
    let both = (&["UpdateIntegration"], &["UpdateIntegration"]);
    for (what, value) in [("taken out of", ""), ("changed in", "'somebody-else'")] {
        let what = format!("the header {what} an integration of an HTTP API");
        table
            .corrected(&what, EveryQuarter, both.0, both.1, async |env| {
                set(env, &http, value).await
            })
            .await;
    }
    let ours = [
        "TagResource",
        "UpdateIntegration",
        "CreateDeployment",
        "UntagResource",
    ];
    table
        .corrected(
            "the header taken out of an integration of a REST API",
            EveryQuarter,
            &["UpdateIntegration"],
            &ours,
            async |env| {
                let resources = v1(env)
                    .get_resources()
                    .rest_api_id(&rest)
                    .embed("methods")
                    .send()
                    .await
                    .unwrap();
                let with = resources
                    .items()
                    .iter()
                    .find(|r| r.resource_methods().is_some_and(|m| !m.is_empty()))
                    .unwrap();
                let method = with.resource_methods().unwrap().keys().next().unwrap();
                let path = format!("/requestParameters/integration.request.header.{HEADER}");
                let patch = PatchOperation::builder().op(Op::Remove).path(path).build();
                let request = v1(env)
                    .update_integration()
                    .rest_api_id(&rest)
                    .resource_id(with.id().unwrap());
                request
                    .http_method(method)
                    .patch_operations(patch)
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;
    // The owner of such a header is unknown, so the operator adds no ownership tag for it.
    let arn = format!("arn:aws:apigateway:{}::/apis/{http}", table.env.account.region);
    let tag = format!("{HEADER_TAG}{HEADER}");
    let mark = async |env: &TestEnv, owner: &str| {
        env.gateway()
            .tag_resource()
            .resource_arn(&arn)
            .tags(&tag, owner)
            .send()
            .await
            .unwrap();
    };
    let unmarked = format!(
        "without the ownership tag (the tag {HEADER_TAG}...), so that it stays after its removal from the \
         spec: {HEADER} of {http}"
    );
    let says = ("IdentityPropagated", "True", "Programmed", unmarked.as_str());
    let back = async |env: &TestEnv| mark(env, &env.owner("d")).await;
    table
        .reported(
            "the tag of a header taken off an API",
            EveryMinute,
            &["UntagResource"],
            says,
            async |env| {
                env.gateway()
                    .untag_resource()
                    .resource_arn(&arn)
                    .tag_keys(&tag)
                    .send()
                    .await
                    .unwrap();
            },
            back,
        )
        .await;
    let theirs = async |env: &TestEnv| mark(env, THEIRS).await;
    table
        .reported(
            "another owner's tag of a header on an API",
            EveryMinute,
            &["TagResource"],
            says,
            theirs,
            back,
        )
        .await;
    // The second time, it is clear that another writer insists on the change.
    table
        .corrected("the same again", EveryQuarter, both.0, both.1, async |env| {
            set(env, &http, "").await
        })
        .await;
    table
        .reported(
            "the header taken out again and again",
            EveryQuarter,
            &["UpdateIntegration"],
            ("IdentityPropagated", "False", "ContestedByOther", HEADER),
            async |env| set(env, &http, "").await,
            async |env| set(env, &http, "$context.identity.clientCert.subjectDN").await,
        )
        .await;
    table.end().await
}
