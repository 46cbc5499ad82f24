//! Which certificates have to do with which Secret, by the Secrets' names: of thousands of each, a change of
//! one finds the other without a scan of every pair. In memory, and kept up by whoever hears of the
//! certificates. Only what names do not say by themselves is kept: as a rule a certificate and its Secret
//! have the same.
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Mutex,
};

use kube::ResourceExt;

use crate::{
    api::{ClientCertificate, Issuance},
    domain::clients::next_secret,
};

/// By namespace and name of the Secret: the names of the certificates.
#[derive(Default)]
pub struct SecretIndex(Mutex<HashMap<(String, String), Vec<String>>>);

impl SecretIndex {
    /// A certificate that is there. What it used before a change of its spec stays, and wakes it for nothing.
    pub fn add(&self, cert: &ClientCertificate) {
        let mut all = self.0.lock().expect("nobody panics while holding it");
        for key in used_by(cert) {
            let names = all.entry(key).or_insert_with(|| Vec::with_capacity(1)); // as a rule there is no other
            if !names.contains(&cert.name_any()) {
                names.push(cert.name_any());
            }
        }
    }

    /// A certificate that is gone.
    pub fn remove(&self, cert: &ClientCertificate) {
        let mut all = self.0.lock().expect("nobody panics while holding it");
        for key in used_by(cert) {
            if let Entry::Occupied(mut names) = all.entry(key) {
                names.get_mut().retain(|name| *name != cert.name_any());
                if names.get().is_empty() {
                    names.remove();
                }
            }
        }
    }

    /// The certificates that hold what they have in this Secret, or take a password from it; and that of the
    /// same name, which need not be there.
    pub fn of(&self, namespace: &str, secret: &str) -> Vec<String> {
        let all = self.0.lock().expect("nobody panics while holding it");
        let mut names = all
            .get(&(namespace.to_owned(), secret.to_owned()))
            .cloned()
            .unwrap_or_default();
        if !names.iter().any(|name| name == secret) {
            names.push(secret.to_owned());
        }
        names
    }
}

fn used_by(cert: &ClientCertificate) -> impl Iterator<Item = (String, String)> {
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
    all.map(move |secret| (namespace.clone(), secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str, spec: serde_json::Value) -> ClientCertificate {
        let mut object = serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": name, "namespace": "ns"}, "spec": {"domainRef": {"name": "d"}, "subject": {"commonName": name}},
        });
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn by_every_secret_that_a_certificate_has_to_do_with() {
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
            "each with the certificate of that name, be it there or not"
        );
        assert_eq!(uses.of("another", "a-next"), ["a-next"]);

        uses.remove(&all[1]);
        assert_eq!(["of-b", "password"].map(found), ["c of-b", "c password"]);
        for cert in &all {
            uses.remove(cert);
        }
        assert!(
            uses.0.lock().unwrap().is_empty(),
            "nothing is kept of what is gone"
        );
    }
}
