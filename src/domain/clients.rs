//! The self-signed certificates of a domain's ClientCertificates, which stand in the truststore themselves: which there should be, and
//! what is in their Secrets. Kubernetes reads only.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Client, ResourceExt};

use super::observed::{Seen, Unseen};
use crate::{
    api::{ClientCertificate, Issuance, conditions::Reason},
    cluster::{self, apply},
    pki::{
        certificate::{Certificate, parse_pem_bundle},
        leaf::{self, LeafRequest},
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
    /// What the certificate of an object in another namespace says at the most, as far as it is granted: whoever may write Secrets there could
    /// put any certificate into that one.
    pub granted: Option<LeafRequest>,
}

/// What the names of all such entries begin with; no authority's can.
const ENTRY: &str = "clientcertificates/";

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

pub fn is_self_signed(entry: &str) -> bool {
    entry.starts_with(ENTRY)
}

/// Where the next self-signed certificate and its key wait until they are trusted.
pub fn next_secret(secret: &str) -> String {
    format!("{secret}-next")
}

impl SelfSigned {
    /// `None`: it is signed by an authority, or on its way out. `granted`: of one in another namespace than the domain.
    pub fn of(cert: &ClientCertificate, granted: Option<LeafRequest>) -> Option<SelfSigned> {
        if cert.spec.issuance != Issuance::SelfSigned || cert.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let secret = cert.spec.secret_name.clone().unwrap_or_else(|| cert.name_any());
        let secrets = Some([secret.clone(), next_secret(&secret)]);
        Some(SelfSigned { secrets, granted, ..SelfSigned::unclear(cert) })
    }

    /// One of which nothing is known but that it is there.
    pub fn unclear(object: &impl ResourceExt) -> SelfSigned {
        let namespace = object.namespace().unwrap_or_default();
        SelfSigned { namespace, name: object.name_any(), entry: entry_name(object), secrets: None, granted: None }
    }

    fn may_say(&self, leaf: &Certificate) -> bool {
        self.granted.as_ref().is_none_or(|granted| leaf::says(leaf, granted))
    }
}

/// The certificates of each, by the name of its entry. What is no self-signed client certificate in such a Secret was put there by
/// somebody else, and is nobody's to trust.
pub async fn read(client: &Client, domain: &str, wishes: &[SelfSigned]) -> Seen<BTreeMap<String, Vec<Certificate>>> {
    let namespaces: BTreeSet<_> = wishes.iter().filter(|w| w.secrets.is_some()).map(|w| &w.namespace).collect();
    let mut secrets = Vec::new();
    for namespace in namespaces {
        let found = apply::secrets(client, namespace, &format!("{TRUSTED_BY}={domain}")).await;
        secrets.extend(found.map_err(|e| unseen(&e))?);
    }
    let certificates = wishes.iter().map(|wish| {
        let names = wish.secrets.as_ref().into_iter().flatten();
        let found = names.filter_map(|name| {
            let is_it = |s: &&Secret| s.name_any() == *name && s.namespace().as_ref() == Some(&wish.namespace);
            let secret = secrets.iter().find(is_it)?;
            let ByteString(pem) = secret.data.as_ref()?.get("tls.crt")?;
            let leaf = parse_pem_bundle(pem).ok()?.into_iter().next()?;
            let theirs = secret.labels().get(CERTIFICATE_LABEL) == Some(&wish.name);
            (theirs && leaf.self_signed && !leaf.is_ca && wish.may_say(&leaf)).then_some(leaf)
        });
        let mut found: Vec<_> = found.collect();
        found.dedup(); // between the two steps of a swap
        (wish.entry.clone(), found)
    });
    Ok(certificates.collect())
}

fn unseen(error: &cluster::Error) -> Unseen {
    Unseen { reason: Reason::Unreachable, message: error.to_string() }
}
