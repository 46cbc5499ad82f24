//! Cache of issuing authorities with their keys. The operator reads and parses each version of their Secrets
//! once, not once for each of thousands of certificates. The cache is in memory only, and an entry is valid
//! only for its version of the Secret.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use crate::{api::object_id::ObjectId, pki::authority::SigningAuthority};

/// Cached authorities by namespace and name of the Secret.
#[derive(Default)]
pub struct SigningKeyCache(Mutex<HashMap<ObjectId, Read>>);

/// Cached contents of a Secret.
struct Read {
    /// resourceVersion of the Secret.
    version: String,
    keyed: Keyed,
}

/// Issuing authority, and the labels of its Secret.
#[derive(Clone)]
pub struct Keyed {
    pub authority: Arc<SigningAuthority>,
    pub labels: BTreeMap<String, String>,
}

impl SigningKeyCache {
    /// Returns the entry for `version` of the Secret; `None` without an entry, or when the entry is for
    /// another version.
    pub fn get(&self, secret: &ObjectId, version: Option<&str>) -> Option<Keyed> {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        match all.get(secret) {
            Some(read) if Some(read.version.as_str()) == version => Some(read.keyed.clone()),
            _ => {
                all.remove(secret);
                None
            }
        }
    }

    pub fn put(&self, secret: &ObjectId, version: Option<String>, keyed: Keyed) {
        let Some(version) = version else { return };
        let mut all = self.0.lock().expect("no holder of the lock panics");
        all.insert(secret.clone(), Read { version, keyed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{collections::BTreeMap, sync::Arc};

    use crate::pki::authority::tests::{at, issuer};

    #[test]
    fn a_key_is_cached_until_its_secret_changes() {
        let (signing_keys, ca) = (SigningKeyCache::default(), ObjectId::new("ns", "ca"));
        let one = Arc::new(issuer("Partners", at("2026-11-24T12:00:00Z")));
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let keyed = || Keyed {
            authority: one.clone(),
            labels: labels.clone(),
        };
        signing_keys.put(&ca, Some("1".into()), keyed());
        let kept = signing_keys.get(&ca, Some("1")).unwrap();
        assert!(Arc::ptr_eq(&kept.authority, &one) && kept.labels == labels);
        drop(kept);
        assert!(
            signing_keys
                .get(&ObjectId::new("ns", "other"), Some("1"))
                .is_none()
        );
        for another in [Some("2"), None] {
            signing_keys.put(&ca, Some("1".into()), keyed());
            assert!(signing_keys.get(&ca, another).is_none());
            assert!(
                signing_keys.get(&ca, Some("1")).is_none(),
                "not in memory any more"
            );
        }
        assert_eq!(Arc::strong_count(&one), 1);
    }
}
