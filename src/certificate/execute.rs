//! Issues: makes the key and the leaf, and writes them into the Secret. The only write of this kind beside the status.
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Client, Resource, ResourceExt, api::ObjectMeta};

use super::{
    desired::Desired,
    observe::{CERTIFICATE_LABEL, REVISION},
    observed::Held,
};
use crate::{
    api::ClientCertificate,
    cluster::{self, apply},
    pki::{
        authority::Issuer,
        certificate::Certificate,
        keys::{self, KeyError, KeyKind},
        leaf::{self, IssueError, LeafRequest},
    },
};

/// Why a leaf did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make or read the private key")]
    Key(#[from] KeyError),
    #[error("cannot issue")]
    Issue(#[from] IssueError),
    #[error("making the key did not end")]
    Task(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
}

/// The leaf that is in the Secret now, and how often one was issued into it.
pub struct Issued {
    pub leaf: Certificate,
    pub revision: i64,
}

pub async fn issue(
    cert: &ClientCertificate,
    d: &Desired,
    issuer: Issuer,
    secret: Option<&Held>,
    revision: i64,
    client: &Client,
    now: Timestamp,
) -> Result<Issued, Error> {
    let ca_crt = issuer.ca_pem();
    let kept = secret.filter(|_| d.keep_key).and_then(|s| s.data.tls_key.clone());
    let (request, kind) = (d.request.clone(), d.key_kind);
    // RSA keys take up to seconds.
    let (leaf, key, kept) = tokio::task::spawn_blocking(move || make(&request, kind, kept, &issuer, now)).await??;
    let tls_key = match kept {
        Some(pem) if keys::encoding_of(&String::from_utf8_lossy(&pem)) == Some(d.encoding) => pem, // never encoded again
        _ => keys::pem(&key, d.encoding)?.as_bytes().to_vec(),
    };
    let data = [("tls.crt", leaf.chain_pem.into_bytes()), ("tls.key", tls_key), ("ca.crt", ca_crt.into_bytes())];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect();
    let wanted = wanted(cert, d, revision, data);
    apply::write_secret(client, wanted, secret.map(|s| &s.found)).await?;
    tracing::info!(certificate = %cert.name_any(), namespace = %d.namespace, serial = %leaf.certificate.serial, "issued");
    Ok(Issued { leaf: leaf.certificate, revision })
}

/// The Secret with its labels, annotations and owner as the spec says.
fn wanted(cert: &ClientCertificate, d: &Desired, revision: i64, data: BTreeMap<String, ByteString>) -> Secret {
    let (mut labels, mut annotations) = (d.labels.clone(), d.annotations.clone());
    labels.insert(CERTIFICATE_LABEL.into(), d.name.clone());
    annotations.insert(REVISION.into(), revision.to_string());
    Secret {
        metadata: ObjectMeta {
            name: Some(d.secret_name.clone()),
            namespace: Some(d.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: cert.controller_owner_ref(&()).filter(|_| d.owned).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data),
        ..Secret::default()
    }
}

/// Brings labels, annotations and owner of a Secret of ours in line with the spec when they are not; key and leaf stay. True when it wrote.
pub async fn relabel(cert: &ClientCertificate, d: &Desired, held: &Held, client: &Client) -> Result<bool, Error> {
    let wanted = wanted(cert, d, held.revision, held.found.data.clone().unwrap_or_default());
    if is_labelled_as(&wanted, &held.found) {
        return Ok(false);
    }
    apply::write_secret(client, wanted, Some(&held.found)).await?;
    Ok(true)
}

/// Whether all that is wanted is there, and nothing of ours that is no longer wanted. What others added does not count.
fn is_labelled_as(wanted: &Secret, found: &Secret) -> bool {
    let owner = |s: &Secret| {
        let owners = s.owner_references().iter().filter(|o| o.kind == ClientCertificate::kind(&()));
        owners.map(|o| o.uid.clone()).collect::<Vec<_>>()
    };
    let same = |part: &str, wanted: &BTreeMap<String, String>, there: &BTreeMap<String, String>| {
        let ours = apply::written_by_us(found, part);
        wanted.iter().all(|(key, value)| there.get(key) == Some(value))
            && ours.iter().all(|key| wanted.contains_key(key) || key == apply::MANAGED_BY)
    };
    owner(wanted) == owner(found)
        && same("f:labels", wanted.labels(), found.labels())
        && same("f:annotations", wanted.annotations(), found.annotations())
}

type Made = (leaf::Leaf, rcgen::KeyPair, Option<Vec<u8>>);

fn make(
    request: &LeafRequest,
    kind: KeyKind,
    kept: Option<Vec<u8>>,
    issuer: &Issuer,
    now: Timestamp,
) -> Result<Made, Error> {
    let old = kept
        .as_ref()
        .and_then(|pem| keys::parse(std::str::from_utf8(pem).ok()?).ok())
        .filter(|key| KeyKind::of(key) == Some(kind));
    let kept = kept.filter(|_| old.is_some());
    let key = match old {
        Some(key) => key,
        None => keys::generate(kind)?,
    };
    Ok((leaf::issue(request, &key, issuer, now)?, key, kept))
}
