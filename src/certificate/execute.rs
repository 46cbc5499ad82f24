//! Issues: makes the key and the leaf, and writes them into the Secret. The only write of this kind beside the status.
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
    let revision = secret.map_or(0, |s| s.revision) + 1;
    let data = [("tls.crt", leaf.chain_pem.into_bytes()), ("tls.key", tls_key), ("ca.crt", ca_crt.into_bytes())];
    let (mut labels, mut annotations) = (d.labels.clone(), d.annotations.clone());
    labels.insert(CERTIFICATE_LABEL.into(), d.name.clone());
    annotations.insert(REVISION.into(), revision.to_string());
    let wanted = Secret {
        metadata: ObjectMeta {
            name: Some(d.secret_name.clone()),
            namespace: Some(d.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: cert.controller_owner_ref(&()).filter(|_| d.owned).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect()),
        ..Secret::default()
    };
    apply::write_secret(client, wanted, secret.map(|s| &s.found)).await?;
    tracing::info!(certificate = %cert.name_any(), namespace = %d.namespace, serial = %leaf.certificate.serial, "issued");
    Ok(Issued { leaf: leaf.certificate, revision })
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
