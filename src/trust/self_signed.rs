//! Self-signed certificates of a domain's ClientCertificates, which are truststore entries themselves: the
//! entries that should exist, and the certificates in their Secrets. Kubernetes reads only;
//! `plan::self_signed` decides which of them are trusted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Client, ResourceExt};

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

    /// Returns the first certificate in each of its Secrets that carry its label. That may be any
    /// certificate, because users may write labels too.
    fn held(&self, secrets: &[Secret]) -> Vec<Certificate> {
        let names = self.secrets.as_ref().into_iter().flatten();
        let found = names.filter_map(|name| {
            let is_it =
                |s: &&Secret| s.name_any() == *name && s.namespace().as_ref() == Some(&self.namespace);
            let secret = secrets.iter().find(is_it)?;
            let theirs = secret.labels().get(CERTIFICATE_LABEL) == Some(&self.name);
            let ByteString(pem) = secret.data.as_ref()?.get("tls.crt").filter(|_| theirs)?;
            pem_certificates::first(pem)
        });
        let mut found: Vec<_> = found.collect();
        found.dedup(); // both Secrets are equal between the two steps of a swap
        found
    }
}

/// Reads the certificates in the Secrets of each ClientCertificate, by entry name.
pub async fn read(
    client: &Client,
    domain: &str,
    wanted: &[SelfSigned],
) -> Seen<BTreeMap<String, Vec<Certificate>>> {
    let namespaces: BTreeSet<_> = wanted
        .iter()
        .filter(|w| w.secrets.is_some())
        .map(|w| &w.namespace)
        .collect();
    let mut secrets = Vec::new();
    for namespace in namespaces {
        let found = apply::secrets(client, namespace, &format!("{TRUSTED_BY}={domain}")).await;
        secrets.extend(found.map_err(|e| unseen(&e))?);
    }
    Ok(wanted
        .iter()
        .map(|wanted| (wanted.entry.clone(), wanted.held(&secrets)))
        .collect())
}

fn unseen(error: &runtime::Error) -> Unseen {
    Unseen {
        reason: Reason::Unreachable,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use k8s_openapi::{ByteString, api::core::v1::Secret};
    use kube::api::ObjectMeta;

    use crate::{
        model::desired::SelfSigned,
        pki::{
            authority::tests::at,
            certificate::Certificate,
            keys::{KeyKind, generate},
            leaf::{self, tests::request},
        },
    };

    fn certificate(common_name: &str) -> Certificate {
        let key = generate(KeyKind::EcdsaP256).unwrap();
        leaf::self_sign(&request(common_name), &key, at("2026-11-24T12:00:00Z"))
            .unwrap()
            .certificate
    }

    fn secret(namespace: &str, name: &str, label: &str, tls_crt: &str) -> Secret {
        Secret {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                name: Some(name.into()),
                labels: Some(
                    [
                        (CERTIFICATE_LABEL.into(), label.into()),
                        (TRUSTED_BY.into(), "partners".into()),
                    ]
                    .into(),
                ),
                ..ObjectMeta::default()
            },
            data: Some([("tls.crt".to_owned(), ByteString(tls_crt.into()))].into()),
            ..Secret::default()
        }
    }

    #[test]
    fn entry_names_distinguish_authorities_from_clientcertificates() {
        for (entry, expected, in_namespace) in [
            ("clientcertificates/ns/client1/uid", true, Some("ns")),
            ("clientcertificates/client1/uid", true, None),
            (REFUSED, true, None),
            ("clientcertificates", false, None),
            ("clientcertificates/acme", false, None),
            ("clientcertificates/acme.example", false, None),
            ("partners/acme", false, None),
            ("partners", false, None),
            ("", false, None),
        ] {
            assert_eq!(is_self_signed(entry), expected, "{entry}");
            if expected {
                assert_eq!(namespace(entry), in_namespace, "{entry}");
            }
        }
    }

    #[test]
    fn a_secret_counts_only_when_name_namespace_and_label_match_the_object() {
        let [ours, next, other] = ["client1", "client1", "client2"].map(certificate);
        let (one, both) = (ours.to_pem(), format!("{}{}", ours.to_pem(), other.to_pem()));
        let wanted = SelfSigned {
            namespace: "acme".into(),
            name: "client1".into(),
            entry: "clientcertificates/acme/client1/uid".into(),
            secrets: Some(["client1".into(), next_secret("client1")]),
            request: request("client1"),
            share: None,
            grants: None,
        };
        let staged = secret("acme", "client1-next", "client1", &next.to_pem());
        let of = |secrets: &[Secret]| wanted.held(secrets);
        assert_eq!(
            of(&[secret("acme", "client1", "client1", &one), staged.clone()]),
            [ours.clone(), next]
        );
        assert_eq!(
            of(&[secret("acme", "client1", "client1", &both)]),
            std::slice::from_ref(&ours),
            "the first is the leaf"
        );
        assert_eq!(
            of(&[secret(
                "acme",
                "client1",
                "client1",
                &format!("{}{one}", other.to_pem())
            )]),
            std::slice::from_ref(&other)
        );
        for (what, secret) in [
            (
                "another object's label",
                secret("acme", "client1", "client2", &one),
            ),
            ("another name", secret("acme", "client2", "client1", &one)),
            ("another namespace", secret("zeta", "client1", "client1", &one)),
            (
                "the next Secret of the next Secret",
                secret("acme", "client1-next-next", "client1", &one),
            ),
            ("no certificate", secret("acme", "client1", "client1", "")),
            ("damaged", secret("acme", "client1", "client1", &one[..100])),
        ] {
            assert_eq!(of(&[secret]), [], "{what}");
        }
        let unclear = SelfSigned {
            secrets: None,
            ..wanted.clone()
        };
        assert_eq!(unclear.held(&[secret("acme", "client1", "client1", &one)]), []);
    }
}
