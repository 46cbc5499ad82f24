//! Execution of a certificate's plan: generates the key and the leaf, and writes both into the Secret.
//! Besides the status, the Secrets are the only objects that this controller writes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Client, Resource, ResourceExt, api::ObjectMeta};
use rcgen::PublicKeyData;
use zeroize::Zeroizing;

use super::{
    desired::Desired,
    issuer::{Answer, Issuer},
    leaf_secret::{KEYSTORE, KEYSTORE_DIGEST, RENEWED, REVISION, keystore_digest, secret_type},
    observed::{Held, Password},
    self_signed,
};

use crate::{
    api::{ClientCertificate, conditions::Reason},
    pki::{
        certificate::Certificate,
        inspect::SecretData,
        keys::{self, DesiredKey, Encoding, KeyError, KeyKind},
        keystore::{self, KeystoreError},
        leaf::{self, IssueError, Leaf, LeafRequest},
        pem,
        pem_certificates::parse_pem_bundle,
    },
    runtime::{
        self, apply,
        workers::{self, Workers},
    },
    trust::self_signed::{CERTIFICATE_LABEL, TRUSTED_BY, next_secret},
};

/// Reason why the operator could not issue a leaf.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot generate or read the private key")]
    Key(#[from] KeyError),
    #[error("cannot issue")]
    Issue(#[from] IssueError),
    #[error("cannot write the keystore")]
    Keystore(#[from] KeystoreError),
    #[error(
        "a certificate signs itself only with a key that the operator generates; the schema rejects spec.csr \
         with SelfSigned"
    )]
    NoKey,
    #[error("the generation of the key did not finish")]
    Work(#[from] workers::Error),
    #[error(transparent)]
    Kubernetes(#[from] runtime::Error),
}

impl Error {
    /// Returns the reason of the condition when a retry does not help by itself: another spec or another
    /// authority, or another answer of the API server to the same Secret.
    pub fn lasting(&self) -> Option<Reason> {
        match self {
            Error::Issue(IssueError::Constrained(_) | IssueError::IssuerName { .. }) => {
                Some(Reason::InvalidCACertificateRef)
            }
            Error::Kubernetes(error) => error.rejection().map(|_| Reason::SecretRejected),
            _ => None,
        }
    }
}

/// Context of the writes of one `ClientCertificate`'s Secrets.
pub struct ApplyContext<'a> {
    pub cert: &'a ClientCertificate,
    pub d: &'a Desired,
    /// Password of the keystore; `None` without keystore.
    pub password: Option<&'a Password>,
    pub client: &'a Client,
    /// For RSA keys and keystores.
    pub workers: &'a Workers,
}

/// Issues into the Secret. Returns the new leaf, and the resourceVersion of the Secret; `None` while the
/// issuer has not answered. `known`: private key of the request, when the operator has it already.
pub async fn issue(
    apply_context: &ApplyContext<'_>,
    issuer: &Issuer,
    secret: Option<&Held>,
    known: Option<Vec<u8>>,
    revision: i64,
    now: Timestamp,
) -> Result<Option<(Certificate, Option<String>)>, Error> {
    let ApplyContext { cert, d, client, .. } = apply_context;
    let known = apply_context.prepared_key(known).await?;
    let Some((certificate, data)) = ask(&d.request, &d.key, known, issuer, revision, now).await? else {
        return Ok(None);
    };
    let keystore = apply_context.keystore(&data).await?;
    let wanted = apply_context.wanted(revision, d.renew.clone(), data, keystore);
    let written = apply::write_secret(client, wanted, secret.map(|s| &s.found)).await?;
    tracing::info!(
        certificate = %cert.name_any(),
        namespace = %d.namespace,
        serial = %certificate.serial,
        "issued"
    );
    Ok(Some((certificate, written.resource_version())))
}

/// Stages the next self-signed certificate with its key, or the key of the next request, in a second Secret.
/// `known`: private key, when the operator has it already.
pub async fn stage(
    apply_context: &ApplyContext<'_>,
    known: Option<Vec<u8>>,
    next: Option<&Held>,
    revision: i64,
    now: Timestamp,
) -> Result<(), Error> {
    let d = apply_context.d;
    let (request, key, is_self_signed) = (self_signed::request(d, revision), d.key.clone(), d.self_signed);
    let make = move || match is_self_signed {
        true => Ok(sign_itself(&request, &key, known, now)?.1),
        false => staged_key(&key, known),
    };
    let data = apply_context.workers.run(&d.namespace, |_| make()).await??;
    let mut wanted = apply_context.wanted(revision, d.renew.clone(), data, None);
    wanted.metadata.name = Some(next_secret(&d.secret_name));
    // The staged Secret is deleted with the object under every deletion policy: no client has its certificate
    // yet.
    wanted.metadata.owner_references = apply_context
        .cert
        .controller_owner_ref(&())
        .map(|owner| vec![owner]);
    apply::write_secret(apply_context.client, wanted, next.map(|s| &s.found)).await?;
    Ok(())
}

/// Moves the staged certificate and its key into the Secret of the certificate.
pub async fn swap(apply_context: &ApplyContext<'_>, secret: Option<&Held>, next: &Held) -> Result<(), Error> {
    let keystore = apply_context.keystore(&next.data).await?;
    let wanted = apply_context.wanted(next.revision, next.renewed.clone(), next.data.clone(), keystore);
    apply::write_secret(apply_context.client, wanted, secret.map(|s| &s.found)).await?;
    tracing::info!(
        certificate = %apply_context.d.name,
        namespace = %apply_context.d.namespace,
        revision = next.revision,
        "swapped"
    );
    Ok(())
}

/// Deletes the staged Secret.
pub async fn unstage(apply_context: &ApplyContext<'_>, next: &Held) -> Result<(), Error> {
    Ok(apply::delete_secret(apply_context.client, &next.found).await?)
}

/// Outcome of [`complete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The Secret is as the spec says.
    InSync,
    Written,
    /// The Secret differs from the spec, and its correction has to wait.
    Postponed,
}

/// Corrects labels, annotations, owner and keystore of an owned Secret that differ from the spec; key and
/// leaf stay. `is_postponed`: the correction has to wait.
pub async fn complete(
    apply_context: &ApplyContext<'_>,
    held: &Held,
    is_postponed: bool,
) -> Result<Completion, Error> {
    let there = held
        .found
        .data
        .as_ref()
        .and_then(|data| data.get(KEYSTORE))
        .map(|ByteString(bytes)| bytes.clone());
    let keystore = there.filter(|_| held.keystore_fits);
    let is_there = match &apply_context.d.keystore {
        Some(_) => keystore.is_some(),
        None => !held.has_keystore,
    };
    let mut wanted = apply_context.wanted(held.revision, held.renewed.clone(), held.data.clone(), keystore);
    if is_there && is_labelled_as(&wanted, &held.found) {
        return Ok(Completion::InSync);
    }
    if is_postponed {
        return Ok(Completion::Postponed);
    }
    if apply_context.d.keystore.is_some() && !is_there {
        let keystore = apply_context.keystore(&held.data).await?;
        wanted = apply_context.wanted(held.revision, held.renewed.clone(), held.data.clone(), keystore);
    }
    apply::write_secret(apply_context.client, wanted, Some(&held.found)).await?;
    Ok(Completion::Written)
}

impl ApplyContext<'_> {
    /// Returns the keystore with this key and chain; `None` without a desired keystore.
    async fn keystore(&self, data: &SecretData) -> Result<Option<Vec<u8>>, Error> {
        let Some(password) = self.password.cloned() else {
            return Ok(None);
        };
        let data = data.clone();
        // The key derivation is slow on purpose: it makes passwords hard to guess.
        let written = self.workers.run(&self.d.namespace, move |_| {
            let chain = parse_pem_bundle(&data.tls_crt.unwrap_or_default()).unwrap_or_default();
            keystore::write(
                &Zeroizing::new(data.tls_key.unwrap_or_default()),
                &chain,
                &password.text,
            )
        });
        Ok(Some(written.await??))
    }

    /// Returns the private key of the request, when it is known or takes seconds to generate. An EC key takes
    /// a fraction of a millisecond: less than the way to another thread.
    async fn prepared_key(&self, known: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Error> {
        match &self.d.key {
            DesiredKey::Made { kind, encoding, .. } if kind.is_rsa() => {
                let (kind, encoding) = (*kind, *encoding);
                let made = self
                    .workers
                    .run(&self.d.namespace, move |_| private_key(kind, encoding, known));
                Ok(Some(made.await??.1))
            }
            _ => Ok(known),
        }
    }

    /// Returns the Secret with labels, annotations and owner as the spec says.
    fn wanted(
        &self,
        revision: i64,
        renewed: Option<String>,
        data: SecretData,
        keystore: Option<Vec<u8>>,
    ) -> Secret {
        let d = self.d;
        let (mut labels, mut annotations) = (d.labels.clone(), d.annotations.clone());
        labels.insert(CERTIFICATE_LABEL.into(), d.name.clone());
        if d.self_signed {
            labels.insert(TRUSTED_BY.into(), d.domain.name.clone());
        }
        annotations.insert(REVISION.into(), revision.to_string());
        annotations.extend(renewed.map(|value| (RENEWED.to_owned(), value)));
        let digest = keystore.as_ref().zip(self.password);
        annotations.extend(digest.map(|(keystore, password)| {
            let digest = keystore_digest(&data, keystore, password);
            (KEYSTORE_DIGEST.to_owned(), digest)
        }));
        let tls_key = data.tls_key.filter(|_| matches!(d.key, DesiredKey::Made { .. }));
        let files = [
            ("tls.crt", data.tls_crt),
            ("tls.key", tls_key),
            ("ca.crt", data.ca_crt),
            (KEYSTORE, keystore),
        ];
        let files = files
            .into_iter()
            .filter_map(|(name, bytes)| Some((name.to_owned(), ByteString(bytes?))));
        Secret {
            metadata: ObjectMeta {
                name: Some(d.secret_name.clone()),
                namespace: Some(d.namespace.clone()),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: self
                    .cert
                    .controller_owner_ref(&())
                    .filter(|_| d.owned)
                    .map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some(secret_type(&d.key).into()),
            data: Some(files.collect()),
            ..Secret::default()
        }
    }
}

/// True when the Secret has all desired metadata, and no metadata of the operator that is no longer desired.
/// Metadata of other writers does not count.
fn is_labelled_as(wanted: &Secret, found: &Secret) -> bool {
    let owner = |s: &Secret| {
        let owners = s
            .owner_references()
            .iter()
            .filter(|o| o.kind == ClientCertificate::kind(&()));
        owners.map(|o| o.uid.clone()).collect::<Vec<_>>()
    };
    let same = |part: &str, wanted: &BTreeMap<String, String>, there: &BTreeMap<String, String>| {
        let ours = apply::written_by_us(found, part);
        wanted.iter().all(|(key, value)| there.get(key) == Some(value))
            && ours
                .iter()
                .all(|key| wanted.contains_key(key) || key == apply::MANAGED_BY)
    };
    owner(wanted) == owner(found)
        && same("/f:metadata/f:labels", wanted.labels(), found.labels())
        && same(
            "/f:metadata/f:annotations",
            wanted.annotations(),
            found.annotations(),
        )
}

/// Asks the issuer for a leaf. Returns the leaf and the data of its Secret; `None` while the issuer has not
/// answered. `known`: private key of the request, when the operator has it already.
pub(crate) async fn ask(
    request: &LeafRequest,
    key: &DesiredKey,
    known: Option<Vec<u8>>,
    issuer: &Issuer,
    revision: i64,
    now: Timestamp,
) -> Result<Option<(Certificate, SecretData)>, Error> {
    let (spki, tls_key) = match key {
        DesiredKey::Requested { spki } => (spki.clone(), None),
        DesiredKey::Made { kind, encoding, .. } => {
            let (key, pem) = private_key(*kind, *encoding, known)?;
            (key.subject_public_key_info(), Some(pem))
        }
    };
    match issuer.ask(request, &spki, revision, now).await? {
        Answer::Issued(leaf) => Ok(Some(with_leaf(*leaf, tls_key))),
        Answer::Pending => Ok(None),
    }
}

/// Returns a certificate that signs itself, and the data of its Secret.
pub(crate) fn sign_itself(
    request: &LeafRequest,
    key: &DesiredKey,
    known: Option<Vec<u8>>,
    now: Timestamp,
) -> Result<(Certificate, SecretData), Error> {
    let DesiredKey::Made { kind, encoding, .. } = key else {
        return Err(Error::NoKey);
    };
    let (key, pem) = private_key(*kind, *encoding, known)?;
    Ok(with_leaf(leaf::self_sign(request, &key, now)?, Some(pem)))
}

/// Returns the data of a staged Secret with the private key of the next request, and no certificate.
pub(crate) fn staged_key(key: &DesiredKey, known: Option<Vec<u8>>) -> Result<SecretData, Error> {
    let DesiredKey::Made { kind, encoding, .. } = key else {
        return Err(Error::NoKey);
    };
    Ok(SecretData {
        // A Secret of type kubernetes.io/tls needs the entry.
        tls_crt: Some(vec![]),
        tls_key: Some(private_key(*kind, *encoding, known)?.1),
        ca_crt: None,
    })
}

fn with_leaf(leaf: Leaf, tls_key: Option<Vec<u8>>) -> (Certificate, SecretData) {
    let data = SecretData {
        tls_crt: Some(leaf.chain_pem.into_bytes()),
        tls_key,
        ca_crt: Some(leaf.ca_pem.into_bytes()),
    };
    (leaf.certificate, data)
}

/// Returns the known key when it is of the right kind, otherwise a new key. The bytes of a known key change
/// only with a change of the encoding.
fn private_key(
    kind: KeyKind,
    encoding: Encoding,
    known: Option<Vec<u8>>,
) -> Result<(rcgen::KeyPair, Vec<u8>), Error> {
    let known = known.map(Zeroizing::new);
    let kept = known
        .as_ref()
        .and_then(|pem| keys::parse(pem).ok())
        .filter(|key| KeyKind::of(key) == Some(kind));
    match (kept, known) {
        (Some(key), Some(pem)) if keys::encoding_of(&pem) == Some(encoding) && pem::is_plain(&pem) => {
            Ok((key, pem.to_vec()))
        }
        (kept, _) => {
            let key = kept.map_or_else(|| keys::generate(kind), Ok)?;
            let pem = keys::pem(&key, encoding)?.as_bytes().to_vec();
            Ok((key, pem))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
