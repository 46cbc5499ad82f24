//! Self-signed certificates of a domain's ClientCertificates, which are truststore entries themselves: the
//! entries that should exist, and the certificates in their Secrets. Kubernetes reads only;
//! `plan::self_signed` decides which of them are trusted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use futures::{StreamExt, stream};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Client, ResourceExt,
    api::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use super::reads::{AT_ONCE, one_of_few};

use crate::{
    api::{ClientCertificate, ClientGrantSpec, Issuance, conditions::Reason, object_id::ObjectId},
    model::desired::SelfSigned,
    observation::seen::{Seen, Unseen},
    pki::{certificate::Certificate, leaf::LeafRequest, pem_certificates},
    runtime::{self, apply},
};

/// Label on a Secret that holds a leaf: the ClientCertificate that the leaf belongs to.
pub const CERTIFICATE_LABEL: &str = "mtls-operator.io/client-certificate";
/// Label on a Secret whose certificate is a truststore entry itself: the MtlsDomain that trusts it.
pub const TRUSTED_BY: &str = "mtls-operator.io/trusted-by";

/// Prefix of the entry names of all ClientCertificates.
const ENTRY: &str = "clientcertificates/";

/// Entry name for the retirement of forged anchors, and of anchors that no grant admits any more. No
/// ClientCertificate has it, because no namespace name is empty.
pub const REFUSED: &str = "clientcertificates//";

/// Returns the truststore entry name of a self-signed certificate. It contains the UID, so that a later
/// object of the same name does not inherit trust. It contains the namespace, so that an operator recognizes
/// the entries of namespaces that it does not watch.
pub fn entry_name(object: &impl ResourceExt) -> String {
    let (id, uid) = (ObjectId::of(object), object.uid().unwrap_or_default());
    format!("{ENTRY}{id}/{uid}")
}

/// Returns the namespace of the entry's ClientCertificate; entries of the first versions contain none.
pub fn namespace(entry: &str) -> Option<&str> {
    let (namespace, rest) = entry.strip_prefix(ENTRY)?.split_once('/')?;
    rest.contains('/').then_some(namespace)
}

/// True when a truststore entry is a ClientCertificate's. The number of slashes tells: an authority's entry
/// is its name, or its name and the name of a ConfigMap, neither of which can contain a slash. The entries of
/// ClientCertificates had two slashes even in the first versions.
pub fn is_self_signed(entry: &str) -> bool {
    entry.strip_prefix(ENTRY).is_some_and(|rest| rest.contains('/'))
}

/// Returns the name of the Secret that holds the next self-signed certificate and its key until they are
/// trusted.
pub fn next_secret(secret: &str) -> String {
    format!("{secret}-next")
}

impl SelfSigned {
    /// Returns `None` when the certificate is signed by an authority, or is being deleted. Without a
    /// `request` no certificate matches, and nothing new is trusted.
    pub fn of(
        cert: &ClientCertificate,
        request: Option<LeafRequest>,
        grants: Option<Vec<ClientGrantSpec>>,
    ) -> Option<SelfSigned> {
        if cert.spec.issuance != Issuance::SelfSigned || cert.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let Some(request) = request else {
            return Some(SelfSigned::unclear(cert));
        };
        let secret = cert.spec.secret_name.clone().unwrap_or_else(|| cert.name_any());
        let secrets = Some([secret.clone(), next_secret(&secret)]);
        Some(SelfSigned {
            secrets,
            request,
            grants,
            ..SelfSigned::unclear(cert)
        })
    }

    /// Returns an entry of which only its existence is known.
    pub fn unclear(object: &impl ResourceExt) -> SelfSigned {
        let namespace = object.namespace().unwrap_or_default();
        let request = LeafRequest::default();
        let (name, entry) = (object.name_any(), entry_name(object));
        SelfSigned {
            namespace,
            name,
            entry,
            secrets: None,
            request,
            share: None,
            grants: None,
        }
    }

    /// Returns the first certificate in each of its Secrets that carry its label, of the Secrets that were
    /// read. That may be any certificate, because users may write labels too.
    fn held(&self, read: &BTreeMap<ObjectId, Leaf>) -> Vec<Certificate> {
        let leaves = self.secret_ids().filter_map(|id| read.get(&id));
        let theirs = leaves.filter(|leaf| leaf.holder.as_ref() == Some(&self.name));
        let mut found: Vec<_> = theirs.filter_map(|leaf| leaf.certificate.clone()).collect();
        found.dedup(); // both Secrets are equal between the two steps of a swap
        found
    }

    fn secret_ids(&self) -> impl Iterator<Item = ObjectId> {
        let names = self.secrets.iter().flatten();
        names.map(|name| ObjectId {
            namespace: self.namespace.clone(),
            name: name.clone(),
        })
    }
}

/// Certificate in one version of a Secret.
#[derive(Clone, Debug, PartialEq)]
struct Leaf {
    uid: Option<String>,
    version: Option<String>,
    /// Value of [`CERTIFICATE_LABEL`].
    holder: Option<String>,
    /// First certificate in the Secret.
    certificate: Option<Certificate>,
}

impl Leaf {
    /// Returns the leaf in a Secret; `None` when the Secret is not trusted by this domain.
    fn of(secret: &Secret, domain: &str) -> Option<Leaf> {
        let label = |name: &str| secret.labels().get(name);
        if label(TRUSTED_BY).map(String::as_str) != Some(domain) {
            return None;
        }
        let pem = secret.data.as_ref().and_then(|data| data.get("tls.crt"));
        Some(Leaf {
            uid: secret.uid(),
            version: secret.resource_version(),
            holder: label(CERTIFICATE_LABEL).cloned(),
            certificate: pem.and_then(|ByteString(pem)| pem_certificates::first(pem)),
        })
    }

    /// True when the Secret has not changed since it was read, according to the watch.
    fn is_current(&self, seen: &PartialObjectMeta<Secret>) -> bool {
        self.version.is_some()
            && (&self.uid, &self.version) == (&seen.metadata.uid, &seen.metadata.resource_version)
    }
}

/// Leaves that were read before for one domain. They save reads and decide nothing.
#[derive(Debug, Default)]
pub struct Leaves(Mutex<BTreeMap<ObjectId, Leaf>>);

impl Leaves {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Leaf>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// Reads the certificates in the Secrets of each ClientCertificate, by entry name. Of the Secrets with such a
/// name it reads those that have the label [`TRUSTED_BY`] according to the watch, each by its name: a list
/// would have the content of every Secret to which a user gives that label.
pub async fn read(
    client: &Client,
    watched: &Store<PartialObjectMeta<Secret>>,
    known: &Leaves,
    domain: &str,
    wanted: &[SelfSigned],
) -> Seen<BTreeMap<String, Vec<Certificate>>> {
    let ids: BTreeSet<_> = wanted.iter().flat_map(SelfSigned::secret_ids).collect();
    let before = std::mem::take(&mut *known.lock());
    let (mut leaves, mut unread) = (BTreeMap::new(), Vec::new());
    for id in ids {
        let trusted = watched
            .get(&ObjectRef::new(&id.name).within(&id.namespace))
            .filter(|secret| secret.labels().get(TRUSTED_BY).map(String::as_str) == Some(domain));
        match (trusted, before.get(&id)) {
            (Some(secret), Some(leaf)) if leaf.is_current(&secret) => {
                leaves.insert(id, leaf.clone());
            }
            (Some(_), _) => unread.push(id),
            (None, _) => {}
        }
    }
    let reads = unread.into_iter().map(|id| {
        one_of_few(async move {
            let secret = apply::secret(client, &id.namespace, &id.name).await?;
            Ok((id, secret.and_then(|secret| Leaf::of(&secret, domain))))
        })
    });
    let read: Vec<Result<_, runtime::Error>> = stream::iter(reads).buffered(AT_ONCE).collect().await;
    let mut failed = None;
    for read in read {
        match read {
            Ok((id, leaf)) => leaves.extend(leaf.map(|leaf| (id, leaf))),
            Err(error) => failed = Some(error),
        }
    }
    let held = |wanted: &SelfSigned| (wanted.entry.clone(), wanted.held(&leaves));
    let found = wanted.iter().map(held).collect();
    *known.lock() = leaves;
    match failed {
        Some(error) => Err(unseen(&error)),
        None => Ok(found),
    }
}

fn unseen(error: &runtime::Error) -> Unseen {
    Unseen {
        reason: Reason::Unreachable,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
