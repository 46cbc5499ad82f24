//! Changed Secrets, status, finalizers and annotations in Kubernetes are restored without a write to AWS.
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use mtls_operator::api::MtlsDomain;
use serde_json::{Value, json};

use super::table::{
    Figures,
    Notice::{AtOnce, EveryMinute, NextReconcile},
    Table,
};
use crate::support::{
    kubernetes::{
        objects::{CERTIFICATE, api, says, until_object},
        secrets::{damage, sound, text},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

/// The Secret of the generated authority.
const AUTHORITY: &str = "d.partners-ca";

/// Parts of `d` and of the Secret of its authority that the operator keeps, where the environment has them.
pub async fn marks(env: &TestEnv) -> BTreeSet<String> {
    let Some(domain) = env.domains().get_opt("d").await.expect("an answer") else {
        return BTreeSet::new();
    };
    let annotations: Vec<_> = domain
        .annotations()
        .iter()
        .filter(|(key, _)| key.starts_with("mtls-operator.io/"))
        .collect();
    let marks = format!("MtlsDomain {:?} {annotations:?}", domain.finalizers());
    let conditions = domain.status.iter().flat_map(|s| &s.conditions);
    let conditions = conditions.map(|c| format!("MtlsDomain {}={} {}", c.type_, c.status, c.reason));
    let secret = env.secrets().get_opt(AUTHORITY).await.expect("an answer");
    [marks, format!("authority {:?}", secret.map(|s| s.data))]
        .into_iter()
        .chain(conditions)
        .collect()
}

/// Secret of another owner, where the environment has one.
pub async fn not_owned(env: &TestEnv) -> Option<String> {
    let theirs = env.secrets().get_opt("theirs").await.expect("an answer");
    theirs.map(|secret| format!("Secret theirs {:?} {:?}", secret.resource_version(), secret.data))
}

async fn restore(env: &TestEnv, backup: &Secret) {
    let mut backup = backup.clone();
    (backup.metadata.resource_version, backup.metadata.uid) = (None, None);
    let _ = env.secrets().delete(AUTHORITY, &Default::default()).await; // gone already is fine
    eventually("the Secret is gone", async || {
        match env.secrets().get_opt(AUTHORITY).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|_| "there"))),
        }
    })
    .await;
    env.secrets()
        .create(&PostParams::default(), &backup)
        .await
        .expect("the backup is restored");
}

async fn patch(api: &Api<MtlsDomain>, patch: Value) {
    api.patch("d", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("the API server takes the change");
}

fn unready() -> Value {
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "Edited", "message": "by a user",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({"status": {"conditions": [condition]}})
}

/// Checks that the operator issues another leaf after a change of the Secret of `client1`, without a write to
/// AWS.
async fn reissued(table: &mut Table, what: &str, act: impl AsyncFnOnce(&TestEnv)) {
    let env = &table.env;
    let (mark, before) = (
        env.mark().await,
        text(&env.secrets().get("client1").await.expect("there"), "tls.crt"),
    );
    act(env).await;
    eventually(what, async || {
        let secret = env
            .secrets()
            .get_opt("client1")
            .await
            .map_err(|e| e.to_string())?
            .ok_or("no Secret")?;
        if text(&secret, "tls.crt") == before {
            return Err("as it was".to_owned());
        }
        sound(&secret).await
    })
    .await;
    env.certificate_ready("client1").await;
    env.reconciles(1).await;
    assert_eq!(env.writes(mark).await, [""; 0], "{what}");
    table.noted(what, AtOnce);
}

pub async fn rows() -> Figures {
    let env = TestEnv::start("drift-cluster").await;
    env.create_domain("d", json!({})).await;
    env.create_certificate("client1", "d").await;
    env.certificate_ready("client1").await;
    crate::support::kubernetes::secrets::create_secret(&env, "theirs", &[("tls.crt", "theirs")]).await;
    let backup = env.secrets().get(AUTHORITY).await.unwrap();
    let mut table = Table::of(env).await;

    let other = Ca::new("other");
    reissued(
        &mut table,
        "the certificate in a ClientCertificate's Secret edited",
        async |env| {
            damage(env, "client1", &[("tls.crt", "nothing")]).await;
        },
    )
    .await;
    reissued(
        &mut table,
        "the key in a ClientCertificate's Secret replaced",
        async |env| {
            damage(env, "client1", &[("tls.key", &other.key)]).await;
        },
    )
    .await;
    reissued(&mut table, "a ClientCertificate's Secret deleted", async |env| {
        env.secrets()
            .delete("client1", &Default::default())
            .await
            .unwrap();
    })
    .await;

    let broken = |what| ("ResolvedRefs", "False", "InvalidCACertificateRef", what);
    let undo = async |env: &TestEnv| restore(env, &backup).await;
    table
        .reported(
            "the certificate of a generated authority edited",
            AtOnce,
            &[],
            broken("authority partners"),
            async |env| damage(env, AUTHORITY, &[("tls.crt", "nothing"), ("ca.crt", "nothing")]).await,
            &undo,
        )
        .await;
    table
        .reported(
            "the certificate of a generated authority replaced",
            AtOnce,
            &[],
            broken("tls.key does not belong to any certificate in tls.crt"),
            async |env| damage(env, AUTHORITY, &[("tls.crt", &other.pem), ("ca.crt", &other.pem)]).await,
            &undo,
        )
        .await;
    let lost = |what| ("ResolvedRefs", "False", "AuthorityKeyLost", what);
    table
        .reported(
            "the key of a generated authority removed",
            AtOnce,
            &[],
            lost("private key"),
            async |env| {
                let patch = Patch::Merge(json!({"data": {"tls.key": null}}));
                // The Secret's type requires a key, and the API server enforces that: the test can only write
                // an empty key.
                let patched = env
                    .secrets()
                    .patch(AUTHORITY, &PatchParams::default(), &patch)
                    .await;
                if patched.is_err() {
                    damage(env, AUTHORITY, &[("tls.key", "")]).await;
                }
            },
            &undo,
        )
        .await;
    table
        .reported(
            "the Secret of a generated authority deleted",
            AtOnce,
            &[],
            lost("its Secret no longer exists"),
            async |env| {
                drop(
                    env.secrets()
                        .delete(AUTHORITY, &Default::default())
                        .await
                        .unwrap(),
                )
            },
            &undo,
        )
        .await;

    table
        .corrected("the finalizer removed", EveryMinute, &[], &[], async |env| {
            patch(&env.domains(), json!({"metadata": {"finalizers": null}})).await;
        })
        .await;
    table
        .corrected(
            "the home annotation removed",
            EveryMinute,
            &[],
            &[],
            async |env| {
                patch(
                    &env.domains(),
                    json!({"metadata": {"annotations": {"mtls-operator.io/home": null}}}),
                )
                .await;
            },
        )
        .await;
    table
        .corrected(
            "the status of an MtlsDomain edited",
            EveryMinute,
            &[],
            &[],
            async |env| {
                let patch = Patch::Merge(unready());
                env.domains()
                    .patch_status("d", &PatchParams::default(), &patch)
                    .await
                    .unwrap();
            },
        )
        .await;
    let patch = Patch::Merge(unready());
    api(&table.env, CERTIFICATE)
        .patch_status("client1", &PatchParams::default(), &patch)
        .await
        .unwrap();
    table.env.operator.restart().expect("the operator starts");
    table.env.end_lease().await;
    let restored = |object: &Value| says(object, "Ready") == "True" && says(object, "Issued") == "True";
    until_object(&table.env, CERTIFICATE, "client1", "Ready again", restored).await;
    table.noted("the status of a ClientCertificate edited", NextReconcile);
    table.env.ready("d").await;
    table.end().await
}
