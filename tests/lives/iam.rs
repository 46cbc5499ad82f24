//! The operator with the rights that `mtls-operator iam-policy` prints for the manifests of a life and with no others: nothing is refused, and
//! without any one of them something is, which the conditions name.
use std::{collections::BTreeSet, path::Path, time::Duration};

use futures::{StreamExt, future, stream};
use sandbox::{control::Calls, prepare::rest_api};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    objects::{DOMAIN, Recorder, create, domain_spec, generated},
    story,
    world::{Life, eventually, run},
};

/// Lives at a time: each mostly waits.
const AT_ONCE: usize = 6;

/// What the command prints for MtlsDomains with these specs.
async fn policy(life: &Life, specs: &[Value]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    for (number, spec) in specs.iter().enumerate() {
        let metadata = json!({"name": "d", "namespace": life.namespace});
        let object = json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": metadata, "spec": spec});
        std::fs::write(folder.path().join(format!("{number}.json")), object.to_string()).expect("a file");
    }
    let printed = printed(folder.path(), life).await;
    serde_json::from_slice(&printed).expect("the policy is JSON")
}

async fn printed(manifests: &Path, life: &Life) -> Vec<u8> {
    let out = Command::new(env!("CARGO_BIN_EXE_mtls-operator"))
        .arg("iam-policy")
        .arg(manifests)
        .args(["--account", &life.account.id, "--region", &life.account.region, "--bucket", &life.prepared.bucket])
        .output()
        .await
        .expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// From now on the operator has the rights of this policy: it runs as a role, for the test does more than it.
async fn under(life: &mut Life, policy: &Value) {
    life.operator.kill();
    let role = format!("arn:aws:iam::{}:role/mtls-operator", life.account.id);
    let sts = aws_sdk_sts::Client::new(&life.account.sdk());
    let given = sts.assume_role().role_arn(role).role_session_name("operator").send().await.expect("AssumeRole");
    let given = given.credentials.expect("credentials");
    life.control().allow(&given.access_key_id, policy).await.expect("the double understands the policy");
    life.operator.set_env("AWS_ACCESS_KEY_ID", &given.access_key_id);
    life.operator.set_env("AWS_SECRET_ACCESS_KEY", &given.secret_access_key);
    life.operator.set_env("AWS_SESSION_TOKEN", &given.session_token);
    life.operator.restart().expect("it starts");
    life.end_lease().await;
}

/// The calls after `mark` that AWS refused for want of rights.
async fn refused(life: &Life, mark: u64) -> BTreeSet<String> {
    let which = Calls { account: &life.account.id, since: mark, ..Calls::default() };
    let calls = life.control().calls(&which).await.expect("the journal").calls;
    calls
        .into_iter()
        .filter(|c| c.code.starts_with("AccessDenied") || c.status == Some(403))
        .map(|c| c.operation)
        .collect()
}

/// Of each statement, each action: with what the policy is without it.
fn each_left_out(policy: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (at, statement) in policy["Statement"].as_array().expect("statements").iter().enumerate() {
        for (number, action) in statement["Action"].as_array().expect("actions").iter().enumerate() {
            let mut without = policy.clone();
            without["Statement"][at]["Action"].as_array_mut().expect("actions").remove(number);
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            all.push((text(&statement["Sid"]), text(action), without));
        }
    }
    all
}

/// What the conditions say of an action that is not allowed.
fn words(action: &str) -> String {
    format!("the operator may not {action}: allow it in its IAM policy")
}

#[test]
fn the_printed_policy_is_enough_for_a_whole_life() {
    run(async {
        let mut life = Life::start("allowed").await;
        story::prepare(&life).await;
        let policy = policy(&life, &story::specs(&life)).await;
        under(&mut life, &policy).await;
        let mark = life.mark().await;
        story::tell(&mut life, None).await;
        assert_eq!(refused(&life, mark).await, BTreeSet::new());
    });
}

/// In this life no mapping changes where it leads to, no authorizer differs from what was made, and the API's stage is deployed to by API Gateway
/// itself.
const NOT_IN_THIS_LIFE: [(&str, &str); 4] = [
    ("Authorizers", "apigateway:PATCH"),
    ("Deployments", "apigateway:POST"),
    ("Mapping", "apigateway:PATCH"),
    ("Stages", "apigateway:PATCH"),
];

#[test]
fn without_any_part_of_it_a_condition_names_what_is_missing() {
    run(async {
        let life = Life::start("parts").await;
        let parts = each_left_out(&policy(&life, &story::specs(&life)).await);
        let lives = parts.iter().map(|(sid, action, _)| left_out(sid, action));
        let not_needed: BTreeSet<_> =
            stream::iter(lives).buffer_unordered(AT_ONCE).filter_map(future::ready).collect().await;
        let expected = NOT_IN_THIS_LIFE.map(|(sid, action)| (sid.to_owned(), action.to_owned()));
        assert_eq!(not_needed, expected.into());
        println!("actions left out={} named={}", parts.len(), parts.len() - not_needed.len());
    });
}

/// A life without it, until a condition names it; the action, when none does. Each life has names of its own, and with them its own policy.
async fn left_out(sid: &str, action: &str) -> Option<(String, String)> {
    let mut life = Life::start("without").await;
    story::prepare(&life).await;
    let parts = each_left_out(&policy(&life, &story::specs(&life)).await);
    let (_, _, without) = parts.into_iter().find(|(s, a, _)| s == sid && a == action).expect("the same statements");
    under(&mut life, &without).await;
    let record = Recorder::start(&life, DOMAIN, "d").await;
    let words = words(action);
    // Without a deadline of its own: the story it is about has one at each step.
    let named = async {
        while !record.seen().iter().any(|object| object["status"].to_string().contains(&words)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let not_needed = tokio::select! {
        _ = story::tell(&mut life, None) => Some((sid.to_owned(), action.to_owned())),
        () = named => None,
    };
    life.operator.kill();
    not_needed
}

/// What the other life does not do: a REST API, which takes deployments, a bucket and key of one's own, and a domain that stays.
fn kept(life: &Life, api: &str) -> Value {
    let mut spec = domain_spec(life, generated());
    let kms_key =
        format!("arn:aws:kms:{}:{}:key/0d0c5d4e-0000-4000-8000-000000000000", life.account.region, life.account.id);
    spec["truststore"] =
        json!({"bucket": format!("kept-{}", life.account.id), "bucketCreation": "IfMissing", "kmsKeyArn": kms_key});
    spec["mappings"] = json!([{"path": "", "api": {"id": api, "stage": "prod"}}]);
    spec["dns"] = json!({"route53": {"hostedZoneId": life.prepared.zone_id}});
    spec["restDeployment"] = json!("Allow");
    spec["deletionPolicy"] = json!("Retain");
    spec
}

#[test]
fn a_bucket_a_key_a_rest_api_and_a_domain_that_stays_are_in_it_too() {
    run(async {
        let mut life = Life::start("kept").await;
        let api = rest_api(&life.account, "rest", None).await.expect("a REST API");
        let spec = kept(&life, &api);
        let policy = policy(&life, std::slice::from_ref(&spec)).await;
        under(&mut life, &policy).await;
        let mark = life.mark().await;
        create(&life, DOMAIN, "d", spec).await;
        life.ready("d").await;
        life.delete_domain("d").await;
        assert_eq!(refused(&life, mark).await, BTreeSet::new());
        assert_eq!(life.gateway_domains().await, [life.host()], "it stays");
    });
}

#[test]
fn of_that_too_a_condition_names_what_is_missing() {
    run(async {
        let missing = [
            ("KmsKey", "kms:GenerateDataKey"),
            ("KmsKey", "kms:Decrypt"),
            ("Bucket", "s3:CreateBucket"),
            ("Bucket", "s3:PutEncryptionConfiguration"),
            ("HostedZone", "route53:GetHostedZone"),
            ("Deployments", "apigateway:POST"),
        ];
        let lives = missing.map(async |(sid, action)| {
            let mut life = Life::start("unkept").await;
            let api = rest_api(&life.account, "rest", None).await.expect("a REST API");
            let spec = kept(&life, &api);
            let parts = each_left_out(&policy(&life, std::slice::from_ref(&spec)).await);
            let (_, _, without) =
                parts.into_iter().find(|(s, a, _)| s == sid && a == action).expect("it is in the policy");
            under(&mut life, &without).await;
            create(&life, DOMAIN, "d", spec).await;
            let words = words(action);
            eventually(&words, async || {
                let domain = life.domains().get("d").await.map_err(|e| e.to_string())?;
                let status = serde_json::to_string(&domain.status).expect("JSON");
                if status.contains(&words) { Ok(()) } else { Err(status) }
            })
            .await;
            life.operator.kill();
        });
        stream::iter(lives).buffer_unordered(AT_ONCE).collect::<()>().await;
    });
}
