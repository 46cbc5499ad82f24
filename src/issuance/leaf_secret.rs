//! Secret of a leaf: its type, its annotations, and its reading. It opens no keystore: what another writer put there
//! may take any time.

use std::collections::BTreeSet;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;

use super::{
    desired::Desired,
    observed::{Held, Password},
};

use crate::{
    pki::{digest::sha256, inspect::SecretData, keys::DesiredKey},
    runtime::apply,
    status::text::shown,
    trust::self_signed::CERTIFICATE_LABEL,
};

/// Annotation on a leaf's Secret: number of leaves issued into the Secret.
pub const REVISION: &str = "mtls-operator.io/revision";
/// Maximum number of issues. The operator ignores a higher annotation, which another writer must have set.
const MOST_REVISIONS: i64 = 1_000_000_000;
/// Annotation on a leaf's Secret: last answered value of the annotation `mtls-operator.io/renew`.
pub const RENEWED: &str = "mtls-operator.io/renewed";
/// Maximum number of field managers that a message names.
const MOST_WRITERS: usize = 3;
/// Key of the PKCS #12 keystore in a leaf's Secret, as cert-manager names it.
pub const KEYSTORE: &str = "keystore.p12";
/// Annotation on a leaf's Secret: what the keystore was made of, as [`keystore_digest`] returns it.
pub const KEYSTORE_DIGEST: &str = "mtls-operator.io/keystore-digest";

/// Returns the type of the Secret, which can never change: a Secret without private key cannot have the type
/// `kubernetes.io/tls`.
pub fn secret_type(key: &DesiredKey) -> &'static str {
    match key {
        DesiredKey::Made { .. } => "kubernetes.io/tls",
        DesiredKey::Requested { .. } => "Opaque",
    }
}

/// Returns the value of [`KEYSTORE_DIGEST`]: SHA-256 of the leaf, its key and the keystore, and uid and
/// resourceVersion of the password's Secret.
pub(crate) fn keystore_digest(data: &SecretData, keystore: &[u8], password: &Password) -> String {
    let none = Vec::new();
    let files = [
        data.tls_crt.as_ref().unwrap_or(&none).as_slice(),
        data.tls_key.as_ref().unwrap_or(&none),
        keystore,
    ];
    let digests = files.map(sha256).concat();
    format!(
        "{}/{}/{}",
        sha256(digests.as_bytes()),
        password.uid,
        password.version
    )
}

/// Returns what the operator needs of a leaf's Secret.
pub(crate) fn held(d: &Desired, found: Secret, password: Option<&Password>) -> Held {
    let bytes = |key: &str| {
        found
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|ByteString(bytes)| bytes.clone())
    };
    let data = SecretData {
        tls_crt: bytes("tls.crt"),
        tls_key: bytes("tls.key"),
        ca_crt: bytes("ca.crt"),
    };
    let annotation = |key: &str| found.annotations().get(key);
    let digest = bytes(KEYSTORE)
        .zip(password)
        .map(|(keystore, password)| keystore_digest(&data, &keystore, password));
    let keystore_fits = digest.is_some() && annotation(KEYSTORE_DIGEST) == digest.as_ref();
    let has_keystore = apply::written_by_us(&found, "/f:data").contains(KEYSTORE);
    Held {
        data,
        ours: is_ours(d, &found),
        revision: annotation(REVISION)
            .and_then(|text| revision(text))
            .unwrap_or_default(),
        renewed: annotation(RENEWED).cloned(),
        keystore_fits,
        has_keystore,
        writers: writers(d, &found),
        found,
    }
}

/// True for a Secret that carries the operator's label for this certificate and has the right type.
fn is_ours(d: &Desired, found: &Secret) -> bool {
    found.labels().get(CERTIFICATE_LABEL) == Some(&d.name)
        && found.type_.as_deref() == Some(secret_type(&d.key))
}

/// Returns the other field managers whose certificates or key are in the Secret. Each manager chooses its own
/// name.
fn writers(d: &Desired, found: &Secret) -> Vec<String> {
    let own = apply::written_by_us(found, "/f:data");
    let is_made = matches!(d.key, DesiredKey::Made { .. });
    let names = ["tls.crt", "ca.crt"]
        .into_iter()
        .chain(is_made.then_some("tls.key"));
    let is_there = |name: &&str| found.data.as_ref().is_some_and(|data| data.contains_key(*name));
    let changed: Vec<_> = names
        .filter(is_there)
        .filter(|name| !own.contains(*name))
        .collect();
    let has_one = |fields: &serde_json::Value| {
        let data = fields.pointer("/f:data");
        changed
            .iter()
            .any(|name| data.is_some_and(|data| data.get(format!("f:{name}")).is_some()))
    };
    let managers = found.managed_fields().iter().filter_map(|entry| {
        let is_writer = has_one(&entry.fields_v1.as_ref()?.0);
        Some(shown(entry.manager.as_deref().filter(|_| is_writer)?))
    });
    managers
        .collect::<BTreeSet<_>>()
        .into_iter()
        .take(MOST_WRITERS)
        .collect()
}

fn revision(text: &str) -> Option<i64> {
    text.parse()
        .ok()
        .filter(|revision| (1..=MOST_REVISIONS).contains(revision))
}

#[cfg(test)]
mod tests;
