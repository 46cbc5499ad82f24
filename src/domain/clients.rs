//! The self-signed certificates of a domain's ClientCertificates, which stand in the truststore themselves: which there should be, and
//! what is in their Secrets. Kubernetes reads only.
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::{Client, ResourceExt};

use super::observed::{Seen, Unseen};
use crate::{
    api::{ClientCertificate, Issuance, conditions::Reason},
    cluster::{self, apply},
    pki::certificate::{Certificate, parse_pem_bundle},
};

/// Label on a Secret that holds a leaf: the ClientCertificate it belongs to.
pub const CERTIFICATE_LABEL: &str = "mtls-operator.io/client-certificate";
/// Label on a Secret whose certificate stands in a truststore itself: the MtlsDomain that trusts it.
pub const TRUSTED_BY: &str = "mtls-operator.io/trusted-by";

/// A ClientCertificate whose certificates are trusted as long as it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfSigned {
    pub name: String,
    /// Whose they are in the truststore.
    pub entry: String,
    /// The Secret of what is handed out, and that of what is next; `None`: the object cannot be read, and neither can they be told.
    pub secrets: Option<[String; 2]>,
}

/// What the names of all such entries begin with; no authority's can.
const ENTRY: &str = "clientcertificates/";

/// Whose a self-signed certificate is in the truststore. With the UID: what comes under the same name later does not inherit.
pub fn entry_name(object: &impl ResourceExt) -> String {
    format!("{ENTRY}{}/{}", object.name_any(), object.uid().unwrap_or_default())
}

pub fn is_self_signed(entry: &str) -> bool {
    entry.starts_with(ENTRY)
}

/// Where the next self-signed certificate and its key wait until they are trusted.
pub fn next_secret(secret: &str) -> String {
    format!("{secret}-next")
}

impl SelfSigned {
    /// `None`: it is signed by an authority, or on its way out.
    pub fn of(cert: &ClientCertificate) -> Option<SelfSigned> {
        if cert.spec.issuance != Issuance::SelfSigned || cert.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let secret = cert.spec.secret_name.clone().unwrap_or_else(|| cert.name_any());
        let secrets = Some([secret.clone(), next_secret(&secret)]);
        Some(SelfSigned { name: cert.name_any(), entry: entry_name(cert), secrets })
    }
}

/// The certificates of each, by the name of its entry. What is no self-signed client certificate in such a Secret was put there by
/// somebody else, and is nobody's to trust.
pub async fn read(
    client: &Client,
    namespace: &str,
    domain: &str,
    wishes: &[SelfSigned],
) -> Seen<BTreeMap<String, Vec<Certificate>>> {
    if wishes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let secrets = apply::secrets(client, namespace, &format!("{TRUSTED_BY}={domain}")).await.map_err(|e| unseen(&e))?;
    let certificates = wishes.iter().map(|wish| {
        let names = wish.secrets.as_ref().into_iter().flatten();
        let found = names.filter_map(|name| {
            let secret = secrets.iter().find(|s| s.name_any() == *name)?;
            let ByteString(pem) = secret.data.as_ref()?.get("tls.crt")?;
            let leaf = parse_pem_bundle(std::str::from_utf8(pem).ok()?).ok()?.into_iter().next()?;
            let theirs = secret.labels().get(CERTIFICATE_LABEL) == Some(&wish.name);
            (theirs && leaf.self_signed && !leaf.is_ca).then_some(leaf)
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
