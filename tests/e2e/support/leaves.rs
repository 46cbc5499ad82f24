//! Leaves under one authority, by the dozen, and the truststore's comments about them.
use futures::{StreamExt, stream};
use kube::{
    ResourceExt,
    api::{DynamicObject, ListParams},
};
use serde_json::{Value, json};

use super::{
    aws::truststores::truststore,
    edge_calls::Caller,
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, api, certificate_spec, create, domain_spec, says, until},
        secrets::{create_secret, text},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

pub const LEAVES: usize = 50;

pub fn secret_authority(name: &str, secret: &str) -> Value {
    json!({"name": name, "secretRef": {"name": secret}})
}

/// Creates a domain whose one authority is the Secret `own-ca`, and so many certificates under it, all Ready.
pub async fn with_leaves(name: &str, ca: &Ca) -> (TestEnv, Vec<Caller>) {
    let env = TestEnv::start(name).await;
    create_secret(&env, "own-ca", &[("tls.crt", &ca.pem), ("tls.key", &ca.key)]).await;
    let trust = json!({"authorities": [secret_authority("own", "own-ca")]});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let mark = env.mark().await;
    stream::iter(0..LEAVES)
        .for_each_concurrent(8, async |n| {
            create(&env, CERTIFICATE, &format!("c{n}"), certificate_spec("c")).await
        })
        .await;
    let callers = leaves(&env, |_| true).await;
    assert_eq!(
        env.writes(mark).await,
        [""; 0],
        "an ordinary issuance changes nothing in AWS"
    );
    (env, callers)
}

/// Leaves of all certificates, as soon as all are Ready and `wanted`.
pub async fn leaves(env: &TestEnv, wanted: impl Fn(&str) -> bool) -> Vec<Caller> {
    eventually("all leaves", async || {
        let all = api(env, CERTIFICATE)
            .list(&ListParams::default())
            .await
            .map_err(|e| e.to_string())?
            .items;
        let is_ready = |o: &DynamicObject| says(&serde_json::to_value(o).expect("JSON"), "Ready") == "True";
        let ready = all.iter().filter(|o| is_ready(o)).count();
        if all.is_empty() || ready < all.len() {
            return Err(format!("{ready} of {}", all.len()));
        }
        let secrets = env
            .secrets()
            .list(&ListParams::default())
            .await
            .map_err(|e| e.to_string())?
            .items;
        let named = |o: &DynamicObject| {
            secrets
                .iter()
                .find(|s| s.name_any() == o.name_any())
                .ok_or("no Secret")
        };
        let secrets = all.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        let fitting = secrets.iter().filter(|s| wanted(&text(s, "ca.crt"))).count();
        if fitting < all.len() {
            Err(format!("{fitting} as wanted"))
        } else {
            Ok(secrets.into_iter().map(Caller::of).collect())
        }
    })
    .await
}

pub async fn all_answered(env: &TestEnv, callers: &[Caller]) {
    let answers: Vec<_> = stream::iter(callers)
        .map(|caller| caller.calls(env))
        .buffer_unordered(8)
        .collect()
        .await;
    assert!(answers.iter().all(|status| status == "200"), "{answers:?}");
}

pub async fn pinned(env: &TestEnv, what: &str, held: impl Fn(&str) -> bool) -> String {
    eventually(&format!("the pinned truststore {what}"), async || {
        let (_, text) = truststore(env).await;
        if held(&text) { Ok(text) } else { Err(text) }
    })
    .await
}

/// Comment above the certificate of this subject.
pub fn comment<'t>(text: &'t str, subject: &str) -> &'t str {
    let end = format!("  subject: {subject}");
    text.lines()
        .find(|line| line.starts_with('#') && line.ends_with(&end))
        .unwrap_or_else(|| panic!("{subject}: {text}"))
}

pub fn living_leaves(object: &Value, subject: &str) -> Option<u64> {
    let all = object["status"]["truststore"]["authorities"].as_array();
    all.into_iter().flatten().find(|a| a["subject"] == subject)?["livingLeaves"].as_u64()
}
