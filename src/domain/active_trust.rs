//! What each domain lets in right now, as the last reconcile at AWS found it: what ClientCertificates wait
//! for. Kept in memory only, so that nobody decides by a status; after a restart nothing is known until each
//! domain has been looked at once.
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use jiff::{SignedDuration, Timestamp};

use super::clients;
use crate::pki::{
    certificate::Certificate,
    truststore::{Bundle, Entry},
};

/// Namespace and name of an MtlsDomain.
pub type DomainKey = (String, String);

/// What a domain lets in.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    trusted: Arc<Vec<Trusted>>,
    /// Entries of self-signed certificates of which one does not fit into the truststore.
    without_room: Arc<BTreeSet<String>>,
}

/// One certificate of the truststore that the domain uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Trusted {
    pub entry: Entry,
    /// When it was first seen in use; after a restart, since then.
    pub since: Timestamp,
}

impl Trust {
    /// What stands in `bundle`, which is in use `now`; what was in `before` already keeps its time.
    pub fn of(bundle: &Bundle, before: Option<&Trust>, now: Timestamp) -> Self {
        let since = |c: &Certificate| before.and_then(|b| b.since(c)).unwrap_or(now);
        let entries = bundle.entries.iter();
        let trusted = entries
            .map(|e| Trusted {
                since: since(&e.certificate),
                entry: e.clone(),
            })
            .collect();
        let without_room = before
            .map(|before| before.without_room.clone())
            .unwrap_or_default();
        Trust {
            trusted: Arc::new(trusted),
            without_room,
        }
    }

    /// The same, with the entries of which a certificate does not fit.
    pub fn without_room(self, entries: &BTreeSet<String>) -> Self {
        Trust {
            without_room: Arc::new(entries.clone()),
            ..self
        }
    }

    /// Whether the truststore is full and a self-signed certificate of this entry does not fit.
    pub fn has_no_room(&self, entry: &str) -> bool {
        self.without_room.contains(entry)
    }

    /// Whether the domain lets this leaf in, as far as its issuer goes. A ClientCertificate's own certificate
    /// vouches for itself only.
    pub fn accepts(&self, leaf: &Certificate) -> bool {
        self.trusted.iter().any(
            |trusted| match clients::is_self_signed(&trusted.entry.authority) {
                true => trusted.entry.certificate == *leaf,
                false => leaf.is_issued_by(&trusted.entry.certificate),
            },
        )
    }

    /// Whether this leaf was issued under an authority of the truststore that the operator issues under, or
    /// issued under once.
    pub fn has_issued(&self, leaf: &Certificate) -> bool {
        let ours = |entry: &Entry| entry.max_leaf.is_some() && !clients::is_self_signed(&entry.authority);
        self.trusted
            .iter()
            .any(|trusted| ours(&trusted.entry) && leaf.is_issued_by(&trusted.entry.certificate))
    }

    /// Whether a new leaf of that life may be handed out under `authority`: trusted, and remembered for long
    /// enough.
    pub fn allows(&self, authority: &Certificate, life: SignedDuration) -> bool {
        // By name and key, as leaves do: the truststore has the longest-lived certificate of those.
        let is_it = |trusted: &Certificate| {
            (&trusted.subject_key, &trusted.spki_sha256) == (&authority.subject_key, &authority.spki_sha256)
        };
        let known = self
            .trusted
            .iter()
            .find(|trusted| is_it(&trusted.entry.certificate));
        known.is_some_and(|trusted| trusted.entry.max_leaf.is_some_and(|max| life <= max))
    }

    /// Whether leaves of that life may be handed out under every authority that issues.
    pub fn allows_everywhere(&self, life: SignedDuration) -> bool {
        let issuing = self
            .trusted
            .iter()
            .map(|t| &t.entry)
            .filter(|e| e.certificate.is_ca && e.keep_until.is_none());
        issuing
            .filter_map(|e| e.max_leaf)
            .min()
            .is_some_and(|least| life <= least)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.trusted.iter().map(|trusted| &trusted.entry)
    }

    /// Since when it has been in use; `None`: it is not.
    pub fn since(&self, certificate: &Certificate) -> Option<Timestamp> {
        self.trusted
            .iter()
            .find(|trusted| trusted.entry.certificate == *certificate)
            .map(|trusted| trusted.since)
    }

    /// The entry that has this subject (in its normal form), which API Gateway takes only once.
    pub fn holder(&self, subject_key: &str) -> Option<&Entry> {
        self.entries()
            .find(|entry| entry.certificate.subject_key == subject_key)
    }
}

pub struct ActiveTrust {
    /// Of every domain that was looked at: what it lets in, or that it is not there.
    trust: Mutex<HashMap<DomainKey, Option<Trust>>>,
    changed: UnboundedSender<DomainKey>,
}

impl ActiveTrust {
    /// With the stream of domains whose trust has changed.
    pub fn new() -> (Self, UnboundedReceiver<DomainKey>) {
        let (changed, changes) = unbounded();
        (
            ActiveTrust {
                trust: Mutex::default(),
                changed,
            },
            changes,
        )
    }

    /// `None`: not looked at yet, or there is no such domain in AWS.
    pub fn trust(&self, domain: &DomainKey) -> Option<Trust> {
        self.trust
            .lock()
            .expect("nobody panics while holding it")
            .get(domain)
            .cloned()
            .flatten()
    }

    /// Whether it was looked at since the start.
    pub fn is_known(&self, domain: &DomainKey) -> bool {
        self.trust
            .lock()
            .expect("nobody panics while holding it")
            .contains_key(domain)
    }

    /// What the domain is seen to use `now`; `None`: there is no such domain any more. `without_room`: the
    /// entries of which a certificate does not fit; `None`: not known, and as it was.
    pub fn set(
        &self,
        domain: &DomainKey,
        bundle: Option<&Bundle>,
        without_room: Option<&BTreeSet<String>>,
        now: Timestamp,
    ) {
        let mut all = self.trust.lock().expect("nobody panics while holding it");
        let before = all.get(domain).cloned();
        let trust = bundle.map(|bundle| Trust::of(bundle, before.iter().flatten().next(), now));
        let trust = trust.map(|trust| match without_room {
            Some(entries) => trust.without_room(entries),
            None => trust,
        });
        all.insert(domain.clone(), trust.clone());
        if before != Some(trust) {
            let _ = self.changed.unbounded_send(domain.clone()); // nobody listens once the operator stops
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{
        authority::{Issuer, tests::at, tests::issuer},
        keys::{KeyKind, generate},
        leaf::{issue, self_sign, tests::request, tests::spki},
    };

    #[test]
    fn a_certificate_that_signs_itself_vouches_for_itself_only() {
        let now = at("2026-11-24T12:00:00Z");
        let (ours, theirs) = (issuer("Partners", now), issuer("Acme", now));
        let key = generate(KeyKind::EcdsaP256).unwrap();
        let own = self_sign(&request("client1"), &key, now).unwrap();
        let entry = |authority: &str, certificate: &Certificate, max_leaf| Entry {
            authority: authority.into(),
            certificate: certificate.clone(),
            max_leaf,
            keep_until: None,
        };
        let day = SignedDuration::from_hours(24);
        let entries = vec![
            entry("partners", ours.authority(), Some(day)),
            entry("acme", theirs.authority(), None),
            entry("clientcertificates/ns/client1/uid", &own.certificate, Some(day)),
        ];
        let trust = Trust::of(
            &Bundle {
                entries,
                ..Bundle::default()
            },
            None,
            now,
        );
        let under = |issuer: &Issuer| {
            issue(&request("a"), &spki(KeyKind::EcdsaP256), issuer, now)
                .unwrap()
                .certificate
        };
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "zeta-admin");
        let anchor = rcgen::Issuer::from_ca_cert_der(&own.certificate.der().to_vec().into(), &key).unwrap();
        let child = params
            .signed_by(&rcgen::KeyPair::generate().unwrap(), &anchor)
            .unwrap();
        let child = Certificate::from_der(child.der()).unwrap();
        assert!(
            child.is_issued_by(&own.certificate),
            "by name and signature it hangs on it"
        );
        for (what, leaf, accepts, has_issued) in [
            ("under an authority of ours", &under(&ours), true, true),
            ("under a partner's", &under(&theirs), true, false),
            ("itself", &own.certificate, true, false),
            ("signed with its key", &child, false, false),
            ("a stranger's", &under(&issuer("Stranger", now)), false, false),
        ] {
            assert_eq!(
                (trust.accepts(leaf), trust.has_issued(leaf)),
                (accepts, has_issued),
                "{what}"
            );
        }
    }
}
