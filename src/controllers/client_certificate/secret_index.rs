//! Index of certificates by the names of their Secrets: with thousands of each, a change of a Secret finds
//! its certificates without a scan of all pairs. The index is in memory, and the watch of certificates
//! updates it. It stores only names that differ: as a rule a certificate and its Secret have the same name.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Mutex,
};

use kube::ResourceExt;

use crate::{
    api::{ClientCertificate, Issuance, object_id::ObjectId},
    trust::self_signed::next_secret,
};

/// Names of the certificates by namespace and name of the Secret.
#[derive(Default)]
pub struct SecretIndex(Mutex<HashMap<ObjectId, Vec<String>>>);

impl SecretIndex {
    /// Adds an existing certificate. Entries from before a change of its spec stay, and cause needless
    /// reconciles only.
    pub fn add(&self, cert: &ClientCertificate) {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        for key in used_by(cert) {
            // A Secret usually has one certificate.
            let names = all.entry(key).or_insert_with(|| Vec::with_capacity(1));
            if !names.contains(&cert.name_any()) {
                names.push(cert.name_any());
            }
        }
    }

    /// Removes a deleted certificate.
    pub fn remove(&self, cert: &ClientCertificate) {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        for key in used_by(cert) {
            if let Entry::Occupied(mut names) = all.entry(key) {
                names.get_mut().retain(|name| *name != cert.name_any());
                if names.get().is_empty() {
                    names.remove();
                }
            }
        }
    }

    /// Returns the certificates that use this Secret for their leaf, or for a password, and the certificate
    /// of the same name, which need not exist.
    pub fn of(&self, namespace: &str, secret: &str) -> Vec<String> {
        let all = self.0.lock().expect("no holder of the lock panics");
        let mut names = all
            .get(&ObjectId::new(namespace, secret))
            .cloned()
            .unwrap_or_default();
        if !names.iter().any(|name| name == secret) {
            names.push(secret.to_owned());
        }
        names
    }
}

fn used_by(cert: &ClientCertificate) -> impl Iterator<Item = ObjectId> {
    let spec = &cert.spec;
    let secret = spec.secret_name.clone().unwrap_or_else(|| cert.name_any());
    let next = (spec.issuance == Issuance::SelfSigned).then(|| next_secret(&secret));
    let password = spec
        .keystores
        .as_ref()
        .and_then(|k| k.pkcs12.as_ref())
        .map(|p| p.password_secret_ref.name.clone());
    let namespace = cert.namespace().unwrap_or_default();
    let name = cert.name_any();
    let all = [Some(secret), next, password]
        .into_iter()
        .flatten()
        .filter(move |secret| *secret != name);
    all.map(move |secret| ObjectId::new(&namespace, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::api::ClientCertificate;

    fn certificate(name: &str, spec: serde_json::Value) -> ClientCertificate {
        let mut object = serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"domainRef": {"name": "d"}, "subject": {"commonName": name}},
        });
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_certificate_is_indexed_by_every_secret_that_it_uses() {
        let uses = SecretIndex::default();
        let keystore = serde_json::json!({"pkcs12": {"passwordSecretRef": {"name": "password", "key": "p"}}});
        let all = [
            certificate("a", serde_json::json!({"issuance": "SelfSigned"})),
            certificate(
                "b",
                serde_json::json!({"secretName": "of-b", "keystores": keystore}),
            ),
            certificate(
                "c",
                serde_json::json!({"secretName": "of-b", "keystores": keystore}),
            ),
        ];
        for cert in all.iter().chain(&all) {
            uses.add(cert);
        }
        let found = |secret: &str| uses.of("ns", secret).join(" ");
        assert_eq!(
            ["a", "a-next", "b", "of-b", "password"].map(found),
            ["a", "a a-next", "b", "b c of-b", "b c password"],
            "each with the certificate of the same name, even a missing one"
        );
        assert_eq!(uses.of("another", "a-next"), ["a-next"]);

        uses.remove(&all[1]);
        assert_eq!(["of-b", "password"].map(found), ["c of-b", "c password"]);
        for cert in &all {
            uses.remove(cert);
        }
        assert!(
            uses.0.lock().unwrap().is_empty(),
            "no entry is left for deleted certificates"
        );
    }
}
