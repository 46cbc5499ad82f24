//! Secrets: their content, damage to them, and openssl's answers about them.
use std::{
    path::Path,
    process::{Output, Stdio},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    api::{Patch, PatchParams},
    core::Resource,
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::support::test_env::TestEnv;

pub fn text(secret: &Secret, key: &str) -> String {
    let ByteString(bytes) = secret
        .data
        .as_ref()
        .and_then(|d| d.get(key))
        .unwrap_or_else(|| panic!("no {key}"))
        .clone();
    String::from_utf8(bytes).expect("PEM is text")
}

/// Changes labels of a Secret.
pub async fn label(env: &TestEnv, name: &str, labels: Value) {
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    env.secrets()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("the API server takes the labels");
}

/// Replaces values in a Secret.
pub async fn damage(env: &TestEnv, name: &str, values: &[(&str, &str)]) {
    let values: serde_json::Map<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), json!(*v))).collect();
    let patch = Patch::Merge(json!({"stringData": values}));
    env.secrets()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("the API server takes the change");
}

pub async fn create_secret(env: &TestEnv, name: &str, values: &[(&str, &str)]) {
    create_labelled_secret(env, name, values, json!({})).await;
}

/// Creates a Secret with the password of keystores in its key `password`.
pub async fn create_password(env: &TestEnv, name: &str, password: &str) {
    let labels = json!({"mtls-operator.io/keystore-password": "true"});
    create_labelled_secret(env, name, &[("password", password)], labels).await;
}

async fn create_labelled_secret(env: &TestEnv, name: &str, values: &[(&str, &str)], labels: Value) {
    let values: serde_json::Map<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), json!(*v))).collect();
    let secret = json!({"metadata": {"name": name, "labels": labels}, "stringData": values});
    let secret: Secret = serde_json::from_value(secret).expect("a Secret");
    env.secrets()
        .create(&Default::default(), &secret)
        .await
        .expect("the API server takes the Secret");
}

pub fn version(object: &impl Resource) -> Option<String> {
    object.meta().resource_version.clone()
}

/// Runs `openssl` with these arguments, this input, in this folder. Returns its standard output.
pub async fn openssl(dir: &Path, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new("openssl");
    command
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl is there");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .await
        .expect("openssl reads its input");
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().await.expect("openssl ends");
    let (out, err) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr),
    );
    if status.success() {
        Ok(out)
    } else {
        Err(format!("openssl {}: {out}{err}", args.join(" ")))
    }
}

/// Checks the promises to a program that mounts the Secret: the leaf first, verified by ca.crt, with the key
/// that fits. Returns the leaf's subject.
pub async fn sound(secret: &Secret) -> Result<String, String> {
    let dir = tempfile::tempdir().expect("a folder");
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::write(dir.path().join(file), text(secret, file)).expect("a file");
    }
    let verify = [
        "verify",
        "-purpose",
        "sslclient",
        "-CAfile",
        "ca.crt",
        "-untrusted",
        "tls.crt",
        "tls.crt",
    ];
    openssl(dir.path(), &verify, "").await?;
    let of_crt = openssl(dir.path(), &["x509", "-in", "tls.crt", "-noout", "-pubkey"], "").await?;
    let of_key = openssl(dir.path(), &["pkey", "-in", "tls.key", "-pubout"], "").await?;
    if of_crt != of_key {
        return Err("tls.key does not belong to tls.crt".into());
    }
    openssl(
        dir.path(),
        &[
            "x509", "-in", "tls.crt", "-noout", "-subject", "-nameopt", "RFC2253",
        ],
        "",
    )
    .await
}
