//! The policy that `mtls-operator iam-policy` prints is enough and no more than that: without any right of
//! it, a condition names the missing one.
use std::{collections::BTreeSet, path::Path, time::Duration};

use futures::{StreamExt, future, stream};
use sandbox::{control::Calls, prepare::rest_api};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    kubernetes::{
        objects::{DOMAIN, create, domain_spec, generated},
        recorder::Recorder,
    },
    scenario,
    test_env::TestEnv,
    world::{eventually, run},
};

/// Number of environments at a time: each mostly waits.
const AT_ONCE: usize = 6;

/// Policy that the command prints for MtlsDomains with these specs.
async fn policy(env: &TestEnv, specs: &[Value]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    for (number, spec) in specs.iter().enumerate() {
        let metadata = json!({"name": "d", "namespace": env.namespace});
        let object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": metadata,
            "spec": spec,
        });
        std::fs::write(folder.path().join(format!("{number}.json")), object.to_string()).expect("a file");
    }
    let printed = printed(folder.path(), env).await;
    serde_json::from_slice(&printed).expect("the policy is JSON")
}

async fn printed(manifests: &Path, env: &TestEnv) -> Vec<u8> {
    let out = Command::new(env!("CARGO_BIN_EXE_mtls-operator"))
        .arg("iam-policy")
        .arg(manifests)
        .args([
            "--account",
            &env.account.id,
            "--region",
            &env.account.region,
            "--bucket",
            &env.prepared.bucket,
        ])
        .output()
        .await
        .expect("the program runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Limits the operator to the rights of this policy from now on. The operator runs as a role, because the
/// test itself does more.
async fn under(env: &mut TestEnv, policy: &Value) {
    env.operator.kill();
    let role = format!("arn:aws:iam::{}:role/mtls-operator", env.account.id);
    let sts = aws_sdk_sts::Client::new(&env.account.sdk());
    let given = sts
        .assume_role()
        .role_arn(role)
        .role_session_name("operator")
        .send()
        .await
        .expect("AssumeRole");
    let given = given.credentials.expect("credentials");
    env.control()
        .allow(&given.access_key_id, policy)
        .await
        .expect("the emulator understands the policy");
    env.operator.set_env("AWS_ACCESS_KEY_ID", &given.access_key_id);
    env.operator
        .set_env("AWS_SECRET_ACCESS_KEY", &given.secret_access_key);
    env.operator.set_env("AWS_SESSION_TOKEN", &given.session_token);
    env.operator.restart().expect("the operator starts");
    env.end_lease().await;
}

/// Calls after `mark` that AWS refused for missing rights.
async fn refused(env: &TestEnv, mark: u64) -> BTreeSet<String> {
    let which = Calls {
        account: &env.account.id,
        since: mark,
        ..Calls::default()
    };
    let calls = env.control().calls(&which).await.expect("the journal").calls;
    calls
        .into_iter()
        .filter(|c| c.code.starts_with("AccessDenied") || c.status == Some(403))
        .map(|c| c.operation)
        .collect()
}

/// Actions of the statements, each with the policy without it.
fn each_left_out(policy: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (at, statement) in policy["Statement"]
        .as_array()
        .expect("statements")
        .iter()
        .enumerate()
    {
        for (number, action) in statement["Action"]
            .as_array()
            .expect("actions")
            .iter()
            .enumerate()
        {
            let mut without = policy.clone();
            without["Statement"][at]["Action"]
                .as_array_mut()
                .expect("actions")
                .remove(number);
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            all.push((text(&statement["Sid"]), text(action), without));
        }
    }
    all
}

/// Text of the conditions about an action that is not allowed.
fn words(action: &str) -> String {
    format!("the operator may not {action}: allow it in its IAM policy")
}

#[test]
fn the_printed_policy_is_enough_for_a_whole_scenario() {
    run(async {
        let mut env = TestEnv::start("allowed").await;
        scenario::prepare(&env).await;
        let policy = policy(&env, &scenario::specs(&env)).await;
        under(&mut env, &policy).await;
        let mark = env.mark().await;
        scenario::tell(&mut env, None).await;
        assert_eq!(refused(&env, mark).await, BTreeSet::new());
    });
}

/// Actions that this scenario does not use: no mapping changes its target, no authorizer differs from its
/// first state, and API Gateway itself deploys to the API's stage.
const NOT_IN_THIS_SCENARIO: [(&str, &str); 4] = [
    ("Authorizers", "apigateway:PATCH"),
    ("Deployments", "apigateway:POST"),
    ("Mapping", "apigateway:PATCH"),
    ("Stages", "apigateway:PATCH"),
];

#[test]
fn each_action_missing_from_the_policy_is_named_by_a_condition() {
    run(async {
        let env = TestEnv::start("parts").await;
        let parts = each_left_out(&policy(&env, &scenario::specs(&env)).await);
        let runs = parts.iter().map(|(sid, action, _)| left_out(sid, action));
        let not_needed: BTreeSet<_> = stream::iter(runs)
            .buffer_unordered(AT_ONCE)
            .filter_map(future::ready)
            .collect()
            .await;
        let expected = NOT_IN_THIS_SCENARIO.map(|(sid, action)| (sid.to_owned(), action.to_owned()));
        assert_eq!(not_needed, expected.into());
        println!(
            "actions left out={} named={}",
            parts.len(),
            parts.len() - not_needed.len()
        );
    });
}

/// Runs a scenario without the action, until a condition names it. Returns the action when no condition does.
/// Each environment has names of its own, and with them its own policy.
async fn left_out(sid: &str, action: &str) -> Option<(String, String)> {
    let mut env = TestEnv::start("without").await;
    scenario::prepare(&env).await;
    let parts = each_left_out(&policy(&env, &scenario::specs(&env)).await);
    let (_, _, without) = parts
        .into_iter()
        .find(|(s, a, _)| s == sid && a == action)
        .expect("the same statements");
    under(&mut env, &without).await;
    let record = Recorder::start(&env, DOMAIN, "d").await;
    let words = words(action);
    // No deadline here: the scenario has one at each step.
    let named = async {
        while !record
            .seen()
            .iter()
            .any(|object| object["status"].to_string().contains(&words))
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let not_needed = tokio::select! {
        _ = scenario::tell(&mut env, None) => Some((sid.to_owned(), action.to_owned())),
        () = named => None,
    };
    env.operator.kill();
    not_needed
}

/// Spec with the parts that the other scenario lacks: a REST API, which takes deployments, a bucket and key
/// of the user's own, and a domain that stays.
fn kept(env: &TestEnv, api: &str) -> Value {
    let mut spec = domain_spec(env, generated());
    let kms_key = format!(
        "arn:aws:kms:{}:{}:key/0d0c5d4e-0000-4000-8000-000000000000",
        env.account.region, env.account.id
    );
    spec["truststore"] = json!({
        "bucket": format!("kept-{}", env.account.id), "bucketCreation": "IfMissing", "kmsKeyArn": kms_key,
    });
    spec["mappings"] = json!([{"path": "", "api": {"id": api, "stage": "prod"}}]);
    spec["dns"] = json!({"route53": {"hostedZoneId": env.prepared.zone_id}});
    spec["restDeployment"] = json!("Allow");
    spec["deletionPolicy"] = json!("Retain");
    spec
}

#[test]
fn the_printed_policy_covers_a_bucket_a_key_a_rest_api_and_a_retained_domain() {
    run(async {
        let mut env = TestEnv::start("kept").await;
        let api = rest_api(&env.account, "rest", None).await.expect("a REST API");
        let spec = kept(&env, &api);
        let policy = policy(&env, std::slice::from_ref(&spec)).await;
        under(&mut env, &policy).await;
        let mark = env.mark().await;
        create(&env, DOMAIN, "d", spec).await;
        env.ready("d").await;
        env.delete_domain("d").await;
        assert_eq!(refused(&env, mark).await, BTreeSet::new());
        assert_eq!(env.gateway_domains().await, [env.host()], "the domain stays");
    });
}

#[test]
fn each_action_missing_for_a_bucket_a_key_or_a_retained_domain_is_named_by_a_condition() {
    run(async {
        let missing = [
            ("KmsKey", "kms:GenerateDataKey"),
            ("KmsKey", "kms:Decrypt"),
            ("Bucket", "s3:CreateBucket"),
            ("Bucket", "s3:PutEncryptionConfiguration"),
            ("HostedZone", "route53:GetHostedZone"),
            ("Deployments", "apigateway:POST"),
        ];
        let runs = missing.map(async |(sid, action)| {
            let mut env = TestEnv::start("unkept").await;
            let api = rest_api(&env.account, "rest", None).await.expect("a REST API");
            let spec = kept(&env, &api);
            let parts = each_left_out(&policy(&env, std::slice::from_ref(&spec)).await);
            let (_, _, without) = parts
                .into_iter()
                .find(|(s, a, _)| s == sid && a == action)
                .expect("the action is in the policy");
            under(&mut env, &without).await;
            create(&env, DOMAIN, "d", spec).await;
            let words = words(action);
            eventually(&words, async || {
                let domain = env.domains().get("d").await.map_err(|e| e.to_string())?;
                let status = serde_json::to_string(&domain.status).expect("JSON");
                if status.contains(&words) {
                    Ok(())
                } else {
                    Err(status)
                }
            })
            .await;
            env.operator.kill();
        });
        stream::iter(runs).buffer_unordered(AT_ONCE).collect::<()>().await;
    });
}
