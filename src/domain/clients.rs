//! The self-signed certificates of a domain's ClientCertificates, which stand in the truststore themselves: which there should be, and
//! what is in their Secrets. Kubernetes reads only; `plan::self_signed` decides what of it is trusted.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Client, ResourceExt};

use super::observed::{Seen, Unseen};
use crate::{
    api::{ClientCertificate, Issuance, conditions::Reason},
    cluster::{self, apply},
    pki::{
        certificate::{Certificate, parse_pem_bundle},
        leaf::LeafRequest,
    },
};

/// Label on a Secret that holds a leaf: the ClientCertificate it belongs to.
pub const CERTIFICATE_LABEL: &str = "mtls-operator.io/client-certificate";
/// Label on a Secret whose certificate stands in a truststore itself: the MtlsDomain that trusts it.
pub const TRUSTED_BY: &str = "mtls-operator.io/trusted-by";

/// A ClientCertificate whose certificates are trusted as long as it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfSigned {
    pub namespace: String,
    pub name: String,
    /// Whose they are in the truststore.
    pub entry: String,
    /// The Secret of what is handed out, and that of what is next; `None`: the object cannot be read, or it is not known whether it is granted,
    /// and what is trusted of it stays as it is.
    pub secrets: Option<[String; 2]>,
    /// The content of its certificate, and the longest life that the spec, the domain and the grant allow: whoever may write Secrets
    /// in that namespace could put any certificate into that one.
    pub request: LeafRequest,
}

/// First part of the names of all such entries.
const ENTRY: &str = "clientcertificates/";

/// Name under which forged anchors are distrusted. No ClientCertificate has it: no namespace is empty.
pub const FORGED: &str = "clientcertificates//";

/// Whose a self-signed certificate is in the truststore. With the UID: what comes under the same name later does not inherit. With the
/// namespace: whoever does not watch that one knows nothing of it.
pub fn entry_name(object: &impl ResourceExt) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{ENTRY}{namespace}/{}/{}", object.name_any(), object.uid().unwrap_or_default())
}

/// The namespace of the ClientCertificate that such an entry is of; entries of the first versions name none.
pub fn namespace(entry: &str) -> Option<&str> {
    let (namespace, rest) = entry.strip_prefix(ENTRY)?.split_once('/')?;
    rest.contains('/').then_some(namespace)
}

/// Whether an entry of a truststore is a ClientCertificate's. By the number of slashes: an authority's is its name, or its name and
/// that of a ConfigMap, none of which can have a slash; even the first versions wrote a ClientCertificate's with two.
pub fn is_self_signed(entry: &str) -> bool {
    entry.strip_prefix(ENTRY).is_some_and(|rest| rest.contains('/'))
}

/// Where the next self-signed certificate and its key wait until they are trusted.
pub fn next_secret(secret: &str) -> String {
    format!("{secret}-next")
}

impl SelfSigned {
    /// `None`: it is signed by an authority, or on its way out. Without a `request` nothing can be certified, and nothing new is trusted.
    pub fn of(cert: &ClientCertificate, request: Option<LeafRequest>) -> Option<SelfSigned> {
        if cert.spec.issuance != Issuance::SelfSigned || cert.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let Some(request) = request else { return Some(SelfSigned::unclear(cert)) };
        let secret = cert.spec.secret_name.clone().unwrap_or_else(|| cert.name_any());
        let secrets = Some([secret.clone(), next_secret(&secret)]);
        Some(SelfSigned { secrets, request, ..SelfSigned::unclear(cert) })
    }

    /// One of which nothing is known but that it is there.
    pub fn unclear(object: &impl ResourceExt) -> SelfSigned {
        let namespace = object.namespace().unwrap_or_default();
        let request = LeafRequest::default();
        SelfSigned { namespace, name: object.name_any(), entry: entry_name(object), secrets: None, request }
    }

    /// The first certificate in each of its Secrets, as far as they carry its label. Whatever it is: labels are anybody's to write.
    fn held(&self, secrets: &[Secret]) -> Vec<Certificate> {
        let names = self.secrets.as_ref().into_iter().flatten();
        let found = names.filter_map(|name| {
            let is_it = |s: &&Secret| s.name_any() == *name && s.namespace().as_ref() == Some(&self.namespace);
            let secret = secrets.iter().find(is_it)?;
            let theirs = secret.labels().get(CERTIFICATE_LABEL) == Some(&self.name);
            let ByteString(pem) = secret.data.as_ref()?.get("tls.crt").filter(|_| theirs)?;
            parse_pem_bundle(std::str::from_utf8(pem).ok()?).ok()?.into_iter().next()
        });
        let mut found: Vec<_> = found.collect();
        found.dedup(); // between the two steps of a swap
        found
    }
}

/// The certificates in the Secrets of each, by the name of its entry.
pub async fn read(client: &Client, domain: &str, wishes: &[SelfSigned]) -> Seen<BTreeMap<String, Vec<Certificate>>> {
    let namespaces: BTreeSet<_> = wishes.iter().filter(|w| w.secrets.is_some()).map(|w| &w.namespace).collect();
    let mut secrets = Vec::new();
    for namespace in namespaces {
        let found = apply::secrets(client, namespace, &format!("{TRUSTED_BY}={domain}")).await;
        secrets.extend(found.map_err(|e| unseen(&e))?);
    }
    Ok(wishes.iter().map(|wish| (wish.entry.clone(), wish.held(&secrets))).collect())
}

fn unseen(error: &cluster::Error) -> Unseen {
    Unseen { reason: Reason::Unreachable, message: error.to_string() }
}
