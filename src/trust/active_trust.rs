//! Active trust: the certificates that each domain accepts now, as its last reconcile found them in AWS.
//! ClientCertificates wait for it. It is kept in memory only, so that no decision depends on a status. After
//! a restart it is unknown until the first reconcile of each domain.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use jiff::{SignedDuration, Timestamp};

use super::self_signed;

use crate::{
    api::object_id::ObjectId,
    pki::{
        certificate::Certificate,
        truststore::{Bundle, Entry},
    },
};

/// Certificates that a domain accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    trusted: Arc<Vec<Trusted>>,
    /// Entries of self-signed certificates with a certificate that does not fit into the truststore.
    without_room: Arc<BTreeSet<String>>,
}

/// A certificate of the truststore that the domain uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Trusted {
    pub entry: Entry,
    /// Time when the operator first saw it in use; after a restart, the time of the first reconcile.
    pub since: Timestamp,
}

impl Trust {
    /// Returns the trust of `bundle`, which is in use `now`. Certificates that were in `before` keep their
    /// time.
    pub fn of(bundle: &Bundle, before: Option<&Trust>, now: Timestamp) -> Self {
        let before_since: HashMap<_, _> = before
            .iter()
            .flat_map(|b| b.trusted.iter())
            .map(|t| (t.entry.certificate.der(), t.since))
            .collect();
        let since = |c: &Certificate| before_since.get(c.der()).copied().unwrap_or(now);
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

    /// Sets the entries with a certificate that does not fit.
    pub fn without_room(self, entries: &BTreeSet<String>) -> Self {
        Trust {
            without_room: Arc::new(entries.clone()),
            ..self
        }
    }

    /// True when the truststore is full and a self-signed certificate of this entry does not fit.
    pub fn has_no_room(&self, entry: &str) -> bool {
        self.without_room.contains(entry)
    }

    /// True when the domain accepts this leaf, judged by its issuer. A ClientCertificate's own certificate
    /// vouches for itself only.
    pub fn accepts(&self, leaf: &Certificate) -> bool {
        self.trusted.iter().any(
            |trusted| match self_signed::is_self_signed(&trusted.entry.authority) {
                true => trusted.entry.certificate == *leaf,
                false => leaf.is_issued_by(&trusted.entry.certificate),
            },
        )
    }

    /// True when this leaf was issued under an authority of the truststore that the operator issues or issued
    /// under.
    pub fn has_issued(&self, leaf: &Certificate) -> bool {
        let ours = |entry: &Entry| entry.max_leaf.is_some() && !self_signed::is_self_signed(&entry.authority);
        self.trusted
            .iter()
            .any(|trusted| ours(&trusted.entry) && leaf.is_issued_by(&trusted.entry.certificate))
    }

    /// True when a new leaf of this lifetime may be issued under `authority`: the authority is trusted, and
    /// its entry allows leaves of this lifetime.
    pub fn allows(&self, authority: &Certificate, lifetime: SignedDuration) -> bool {
        // Compared by name and key, as leaves do: the truststore has the longest-lived certificate with both.
        let is_it = |trusted: &Certificate| {
            (&trusted.subject_key, &trusted.spki_sha256) == (&authority.subject_key, &authority.spki_sha256)
        };
        let known = self
            .trusted
            .iter()
            .find(|trusted| is_it(&trusted.entry.certificate));
        known.is_some_and(|trusted| trusted.entry.max_leaf.is_some_and(|max| lifetime <= max))
    }

    /// True when leaves of this lifetime may be issued under every issuing authority.
    pub fn allows_everywhere(&self, lifetime: SignedDuration) -> bool {
        let issuing = self
            .trusted
            .iter()
            .map(|t| &t.entry)
            .filter(|e| e.certificate.is_ca && e.keep_until.is_none());
        issuing
            .filter_map(|e| e.max_leaf)
            .min()
            .is_some_and(|least| lifetime <= least)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.trusted.iter().map(|trusted| &trusted.entry)
    }

    /// Returns since when the certificate has been in use; `None`: it is not in use.
    pub fn since(&self, certificate: &Certificate) -> Option<Timestamp> {
        self.trusted
            .iter()
            .find(|trusted| trusted.entry.certificate == *certificate)
            .map(|trusted| trusted.since)
    }

    /// Returns the entry with this subject (in its normal form), which API Gateway accepts only once.
    pub fn holder(&self, subject_key: &str) -> Option<&Entry> {
        self.entries()
            .find(|entry| entry.certificate.subject_key == subject_key)
    }
}

pub struct ActiveTrust {
    /// Trust of every domain that was reconciled; `None` when AWS has no such domain.
    trust: Mutex<HashMap<ObjectId, Option<Trust>>>,
    changed: UnboundedSender<ObjectId>,
}

impl ActiveTrust {
    /// Returns the store, and the stream of domains whose trust changes.
    pub fn new() -> (Self, UnboundedReceiver<ObjectId>) {
        let (changed, changes) = unbounded();
        (
            ActiveTrust {
                trust: Mutex::default(),
                changed,
            },
            changes,
        )
    }

    /// Returns the trust of a domain; `None`: it was not reconciled yet, or AWS has no such domain.
    pub fn trust(&self, domain: &ObjectId) -> Option<Trust> {
        self.trust
            .lock()
            .expect("no holder of the lock panics")
            .get(domain)
            .cloned()
            .flatten()
    }

    /// True when the domain was reconciled since the start.
    pub fn is_known(&self, domain: &ObjectId) -> bool {
        self.trust
            .lock()
            .expect("no holder of the lock panics")
            .contains_key(domain)
    }

    /// Publishes the trust of a domain, as seen in use `now`. `bundle`: `None` when there is no such domain
    /// any more. `without_room`: the entries with a certificate that does not fit; `None` when not known,
    /// which keeps the previous ones.
    pub fn set(
        &self,
        domain: &ObjectId,
        bundle: Option<&Bundle>,
        without_room: Option<&BTreeSet<String>>,
        now: Timestamp,
    ) {
        let mut all = self.trust.lock().expect("no holder of the lock panics");
        let before = all.get(domain).cloned();
        let trust = bundle.map(|bundle| Trust::of(bundle, before.iter().flatten().next(), now));
        let trust = trust.map(|trust| match without_room {
            Some(entries) => trust.without_room(entries),
            None => trust,
        });
        all.insert(domain.clone(), trust.clone());
        if before != Some(trust) {
            // The receiver is gone once the operator stops.
            let _ = self.changed.unbounded_send(domain.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::SignedDuration;

    use crate::pki::{
        authority::{
            SigningAuthority,
            tests::{at, issuer},
        },
        certificate::Certificate,
        keys::{KeyKind, generate},
        leaf::{
            issue, self_sign,
            tests::{request, spki},
        },
        truststore::{Bundle, Entry},
    };

    #[test]
    fn a_self_signed_certificate_vouches_for_itself_only() {
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
            entry("partners", ours.chain().authority(), Some(day)),
            entry("acme", theirs.chain().authority(), None),
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
        let under = |issuer: &SigningAuthority| {
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
            "its name and signature chain to the certificate"
        );
        for (what, leaf, accepts, has_issued) in [
            ("under an authority of the operator", &under(&ours), true, true),
            ("under a partner's", &under(&theirs), true, false),
            ("itself", &own.certificate, true, false),
            ("signed with its key", &child, false, false),
            (
                "under an authority that is not trusted",
                &under(&issuer("Stranger", now)),
                false,
                false,
            ),
        ] {
            assert_eq!(
                (trust.accepts(leaf), trust.has_issued(leaf)),
                (accepts, has_issued),
                "{what}"
            );
        }
    }
}
