//! Secret of a leaf: its type, its annotations, and its reading. It opens no keystore: what another writer put there
//! may take any time.

use super::{
    desired::Desired,
    observed::{Held, Password},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;

use crate::{
    pki::{digest::sha256, inspect::SecretData, keys::DesiredKey},
    runtime::apply,
    trust::self_signed::CERTIFICATE_LABEL,
};

/// Annotation on a leaf's Secret: number of leaves issued into the Secret.
pub const REVISION: &str = "mtls-operator.io/revision";
/// Maximum number of issues. The operator ignores a higher annotation, which another writer must have set.
const MOST_REVISIONS: i64 = 1_000_000_000;
/// Annotation on a leaf's Secret: last answered value of the annotation `mtls-operator.io/renew`.
pub const RENEWED: &str = "mtls-operator.io/renewed";
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
        found,
    }
}

/// True for a Secret that carries the operator's label for this certificate and has the right type.
fn is_ours(d: &Desired, found: &Secret) -> bool {
    found.labels().get(CERTIFICATE_LABEL) == Some(&d.name)
        && found.type_.as_deref() == Some(secret_type(&d.key))
}

fn revision(text: &str) -> Option<i64> {
    text.parse()
        .ok()
        .filter(|revision| (1..=MOST_REVISIONS).contains(revision))
}

#[cfg(test)]
mod tests;
