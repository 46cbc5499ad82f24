//! Rows of what is in Kubernetes: Secrets, status, the finalizer and the annotation of an object. None of them takes a write to AWS.
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use mtls_operator::api::MtlsDomain;
use serde_json::{Value, json};

use super::{
    Figures,
    Notice::{AtOnce, EveryMinute, NextReconcile},
    Table,
};
use crate::{
    objects::{CERTIFICATE, Ca, api, damage, says, sound, text, until_object},
    world::{Life, eventually},
};

/// The Secret of the generated authority.
const AUTHORITY: &str = "d.partners-ca";

/// What of `d` and of the Secret of its authority is ours to keep, where the life has them.
pub async fn marks(life: &Life) -> BTreeSet<String> {
    let Some(domain) = life.domains().get_opt("d").await.expect("an answer") else { return BTreeSet::new() };
    let annotations: Vec<_> =
        domain.annotations().iter().filter(|(key, _)| key.starts_with("mtls-operator.io/")).collect();
    let marks = format!("MtlsDomain {:?} {annotations:?}", domain.finalizers());
    let conditions = domain.status.iter().flat_map(|s| &s.conditions);
    let conditions = conditions.map(|c| format!("MtlsDomain {}={} {}", c.type_, c.status, c.reason));
    let secret = life.secrets().get_opt(AUTHORITY).await.expect("an answer");
    [marks, format!("authority {:?}", secret.map(|s| s.data))].into_iter().chain(conditions).collect()
}

/// The Secret of somebody else, where the life has one.
pub async fn not_owned(life: &Life) -> Option<String> {
    let theirs = life.secrets().get_opt("theirs").await.expect("an answer");
    theirs.map(|secret| format!("Secret theirs {:?} {:?}", secret.resource_version(), secret.data))
}

async fn restore(life: &Life, backup: &Secret) {
    let mut backup = backup.clone();
    (backup.metadata.resource_version, backup.metadata.uid) = (None, None);
    let _ = life.secrets().delete(AUTHORITY, &Default::default()).await; // gone already is fine
    eventually("it is gone", async || match life.secrets().get_opt(AUTHORITY).await {
        Ok(None) => Ok(()),
        other => Err(format!("{:?}", other.map(|_| "there"))),
    })
    .await;
    life.secrets().create(&PostParams::default(), &backup).await.expect("the backup is restored");
}

async fn patch(api: &Api<MtlsDomain>, patch: Value) {
    api.patch("d", &PatchParams::default(), &Patch::Merge(patch)).await.expect("the API server takes the change");
}

fn unready() -> Value {
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "Edited", "message": "by somebody", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({"status": {"conditions": [condition]}})
}

/// Somebody does something to the Secret of `client1`: another leaf is in it then, and AWS hears nothing of it.
async fn reissued(table: &mut Table, what: &str, act: impl AsyncFnOnce(&Life)) {
    let life = &table.life;
    let (mark, before) = (life.mark().await, text(&life.secrets().get("client1").await.expect("there"), "tls.crt"));
    act(life).await;
    eventually(what, async || {
        let secret = life.secrets().get_opt("client1").await.map_err(|e| e.to_string())?.ok_or("no Secret")?;
        if text(&secret, "tls.crt") == before {
            return Err("as it was".to_owned());
        }
        sound(&secret).await
    })
    .await;
    life.certificate_ready("client1").await;
    life.reconciles(1).await;
    assert_eq!(life.writes(mark).await, [""; 0], "{what}");
    table.noted(what, AtOnce);
}

pub async fn rows() -> Figures {
    let life = Life::start("drift-cluster").await;
    life.create_domain("d", json!({})).await;
    life.create_certificate("client1", "d").await;
    life.certificate_ready("client1").await;
    crate::objects::create_secret(&life, "theirs", &[("tls.crt", "theirs")]).await;
    let backup = life.secrets().get(AUTHORITY).await.unwrap();
    let mut table = Table::of(life).await;

    let other = Ca::new("other");
    reissued(&mut table, "the certificate in a ClientCertificate's Secret edited", async |life| {
        damage(life, "client1", &[("tls.crt", "nothing")]).await;
    })
    .await;
    reissued(&mut table, "the key in a ClientCertificate's Secret replaced", async |life| {
        damage(life, "client1", &[("tls.key", &other.key)]).await;
    })
    .await;
    reissued(&mut table, "a ClientCertificate's Secret deleted", async |life| {
        life.secrets().delete("client1", &Default::default()).await.unwrap();
    })
    .await;

    let broken = |what| ("ResolvedRefs", "False", "InvalidCACertificateRef", what);
    let undo = async |life: &Life| restore(life, &backup).await;
    table
        .reported(
            "the certificate of a generated authority edited",
            AtOnce,
            &[],
            broken("authority partners"),
            async |life| damage(life, AUTHORITY, &[("tls.crt", "nothing"), ("ca.crt", "nothing")]).await,
            &undo,
        )
        .await;
    table
        .reported(
            "the certificate of a generated authority replaced",
            AtOnce,
            &[],
            broken("the private key does not belong to its certificate"),
            async |life| damage(life, AUTHORITY, &[("tls.crt", &other.pem), ("ca.crt", &other.pem)]).await,
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
            async |life| {
                let patch = Patch::Merge(json!({"data": {"tls.key": null}}));
                // Its type wants a key, and the API server sees to that: an empty one is what can be had.
                let patched = life.secrets().patch(AUTHORITY, &PatchParams::default(), &patch).await;
                if patched.is_err() {
                    damage(life, AUTHORITY, &[("tls.key", "")]).await;
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
            lost("its Secret is gone"),
            async |life| drop(life.secrets().delete(AUTHORITY, &Default::default()).await.unwrap()),
            &undo,
        )
        .await;

    table
        .put_back("the finalizer removed", EveryMinute, &[], &[], async |life| {
            patch(&life.domains(), json!({"metadata": {"finalizers": null}})).await;
        })
        .await;
    table
        .put_back("the home annotation removed", EveryMinute, &[], &[], async |life| {
            patch(&life.domains(), json!({"metadata": {"annotations": {"mtls-operator.io/home": null}}})).await;
        })
        .await;
    table
        .put_back("the status of an MtlsDomain edited", EveryMinute, &[], &[], async |life| {
            let patch = Patch::Merge(unready());
            life.domains().patch_status("d", &PatchParams::default(), &patch).await.unwrap();
        })
        .await;
    let patch = Patch::Merge(unready());
    api(&table.life, CERTIFICATE).patch_status("client1", &PatchParams::default(), &patch).await.unwrap();
    table.life.operator.restart().expect("the operator starts");
    table.life.end_lease().await;
    let restored = |object: &Value| says(object, "Ready") == "True" && says(object, "Issued") == "True";
    until_object(&table.life, CERTIFICATE, "client1", "Ready again", restored).await;
    table.noted("the status of a ClientCertificate edited", NextReconcile);
    table.life.ready("d").await;
    table.end().await
}
