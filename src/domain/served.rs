//! What each domain lets in right now, as the last look at AWS found it: what ClientCertificates wait for. Kept in memory only, so that
//! nobody decides by a status; after a restart nothing is known until each domain has been looked at once.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use jiff::SignedDuration;

use crate::pki::{certificate::Certificate, truststore::Bundle};

/// Namespace and name of an MtlsDomain.
pub type DomainKey = (String, String);

/// The certificates that a domain lets in, each with the longest leaf life that its memory allows for.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust(Arc<Vec<(Certificate, Option<SignedDuration>)>>);

impl Trust {
    pub fn of(bundle: &Bundle) -> Self {
        Trust(Arc::new(bundle.entries.iter().map(|e| (e.certificate.clone(), e.max_leaf)).collect()))
    }

    /// Whether the domain lets this leaf in, as far as its issuer goes.
    pub fn lets_in(&self, leaf: &Certificate) -> bool {
        self.0.iter().any(|(trusted, _)| leaf.is_issued_by(trusted))
    }

    /// Whether a new leaf of that life may be handed out under `authority`: trusted, and remembered for long enough.
    pub fn allows(&self, authority: &Certificate, life: SignedDuration) -> bool {
        // By name and key, as leaves do: the truststore has the longest-lived certificate of those.
        let is_it = |trusted: &Certificate| {
            (&trusted.subject_key, &trusted.spki_sha256) == (&authority.subject_key, &authority.spki_sha256)
        };
        let known = self.0.iter().find(|(trusted, _)| is_it(trusted));
        known.is_some_and(|(_, max)| max.is_some_and(|max| life <= max))
    }
}

pub struct Served {
    trust: Mutex<HashMap<DomainKey, Trust>>,
    changed: UnboundedSender<DomainKey>,
}

impl Served {
    /// With the stream of domains whose trust has changed.
    pub fn new() -> (Self, UnboundedReceiver<DomainKey>) {
        let (changed, changes) = unbounded();
        (Served { trust: Mutex::default(), changed }, changes)
    }

    /// `None`: not looked at yet, or there is no such domain in AWS.
    pub fn trust(&self, domain: &DomainKey) -> Option<Trust> {
        self.trust.lock().expect("nobody panics while holding it").get(domain).cloned()
    }

    pub fn set(&self, domain: &DomainKey, trust: Option<Trust>) {
        let mut all = self.trust.lock().expect("nobody panics while holding it");
        let before = match trust.clone() {
            Some(trust) => all.insert(domain.clone(), trust),
            None => all.remove(domain),
        };
        if before != trust {
            let _ = self.changed.unbounded_send(domain.clone()); // nobody listens once the operator stops
        }
    }
}
