//! The authorities that issue, with their keys: read and parsed once for each version of their Secrets, not
//! once for each of thousands of certificates. In memory only, and no longer than their Secrets are as they
//! were.
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use crate::pki::authority::Issuer;

/// By namespace and name of the Secret.
#[derive(Default)]
pub struct SigningKeyCache(Mutex<HashMap<(String, String), Read>>);

/// What is in a Secret.
struct Read {
    /// The resourceVersion of the Secret.
    version: String,
    keyed: Keyed,
}

/// An authority that issues, and the labels of its Secret.
#[derive(Clone)]
pub struct Keyed {
    pub issuer: Arc<Issuer>,
    pub labels: BTreeMap<String, String>,
}

impl SigningKeyCache {
    /// As it was read from that `version` of the Secret; `None`: from none, or from another one.
    pub fn get(&self, secret: (&str, &str), version: Option<&str>) -> Option<Keyed> {
        let mut all = self.0.lock().expect("nobody panics while holding it");
        let key = (secret.0.to_owned(), secret.1.to_owned());
        match all.get(&key) {
            Some(read) if Some(read.version.as_str()) == version => Some(read.keyed.clone()),
            _ => {
                all.remove(&key);
                None
            }
        }
    }

    pub fn put(&self, secret: (&str, &str), version: Option<String>, keyed: Keyed) {
        let Some(version) = version else { return };
        let mut all = self.0.lock().expect("nobody panics while holding it");
        all.insert(
            (secret.0.to_owned(), secret.1.to_owned()),
            Read { version, keyed },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::authority::tests::{at, issuer};

    #[test]
    fn a_key_is_kept_as_long_as_its_secret_is_as_it_was() {
        let signing_keys = SigningKeyCache::default();
        let one = Arc::new(issuer("Partners", at("2026-11-24T12:00:00Z")));
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let keyed = || Keyed {
            issuer: one.clone(),
            labels: labels.clone(),
        };
        signing_keys.put(("ns", "ca"), Some("1".into()), keyed());
        let kept = signing_keys.get(("ns", "ca"), Some("1")).unwrap();
        assert!(Arc::ptr_eq(&kept.issuer, &one) && kept.labels == labels);
        drop(kept);
        assert!(signing_keys.get(("ns", "other"), Some("1")).is_none());
        for another in [Some("2"), None] {
            signing_keys.put(("ns", "ca"), Some("1".into()), keyed());
            assert!(signing_keys.get(("ns", "ca"), another).is_none());
            assert!(
                signing_keys.get(("ns", "ca"), Some("1")).is_none(),
                "not in memory any more"
            );
        }
        assert_eq!(Arc::strong_count(&one), 1);
    }
}
