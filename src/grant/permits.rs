//! Whether the ClientCertificates of other namespaces are granted, by what the watches know of grants, certificates, domains and namespaces.
//! Reads those only.
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Resource, ResourceExt,
    api::PartialObjectMeta,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};

use super::fit::{self, Around, Ask, Fit};
use crate::{
    api::{ClientCertificate, ClientGrant, Issuance, MtlsDomain, Namespaces},
    certificate::{self, desired::domain_key},
    domain::{self, served::DomainKey},
    policy,
};

pub type Guard = DeserializeGuard<ClientGrant>;
type Certificate = Arc<certificate::controller::Guard>;

pub struct Permits {
    grants: Store<Guard>,
    certificates: Store<certificate::controller::Guard>,
    domains: Store<domain::controller::Guard>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    /// What certificates ask for, by UID, and in which generation: to read a CSR takes as long as a thousand comparisons.
    asks: Mutex<HashMap<String, Read>>,
}

#[derive(Clone)]
struct Read {
    generation: Option<i64>,
    /// `None`: nothing that could be certified.
    ask: Option<Arc<Ask>>,
}

/// Whether it takes a grant.
pub fn is_foreign(cert: &ClientCertificate) -> bool {
    cert.namespace() != Some(domain_key(cert).0)
}

/// Whether it takes the labels of namespaces to go by it.
pub fn needs_labels(grant: &Guard) -> bool {
    grant.0.as_ref().is_ok_and(|g| g.spec.namespaces.match_labels.is_some())
}

/// What of a grant makes a difference to anybody; none: it cannot be read.
pub fn said(grant: &Guard) -> (Option<Option<i64>>, bool) {
    (grant.0.as_ref().ok().map(|g| g.metadata.generation), grant.meta().deletion_timestamp.is_some())
}

impl Permits {
    pub fn new(
        grants: Store<Guard>,
        certificates: Store<certificate::controller::Guard>,
        domains: Store<domain::controller::Guard>,
        namespaces: Store<PartialObjectMeta<Namespace>>,
    ) -> Permits {
        Permits { grants, certificates, domains, namespaces, asks: Mutex::default() }
    }

    /// Of a certificate in another namespace than its domain's; `None`: what it asks for is nothing that could be certified.
    pub fn fit(&self, cert: &ClientCertificate, now: Timestamp) -> Option<Fit> {
        let (key, ask) = (domain_key(cert), self.ask(cert)?);
        Some(self.judged(&key, now, |around| fit::fit(&ask, || self.asking(&key).1, around)))
    }

    /// Every certificate in other namespaces than this domain's that asks for something there.
    pub fn of_domain(&self, key: &DomainKey, now: Timestamp) -> Vec<(Certificate, Fit)> {
        let (certificates, asks) = self.asking(key);
        let fits = self.judged(key, now, |around| fit::allot(&asks, around));
        certificates.into_iter().zip(fits).collect()
    }

    /// Whether one that signs itself may be granted, or may have been until it was changed.
    pub fn may_be_trusted(&self, cert: &ClientCertificate) -> bool {
        let namespace = cert.namespace().unwrap_or_default();
        let labels = self.namespaces.get(&ObjectRef::new(&namespace)).map(|n| n.labels().clone());
        let here = policy::Namespace { name: &namespace, labels: labels.as_ref() };
        let lets_in =
            |g: &ClientGrant| g.spec.issuance == Issuance::SelfSigned && g.spec.namespaces.selects(here) != Some(false);
        self.of(&domain_key(cert)).iter().any(|g| g.0.as_ref().map_or(true, lets_in))
    }

    /// Whether there is a number of places that this domain's certificates have to share.
    pub fn has_places(&self, key: &DomainKey) -> bool {
        self.of(key).iter().any(|g| g.0.as_ref().is_ok_and(|g| g.spec.max_certificates.is_some()))
    }

    /// The grants beside a domain that are for it, or cannot be read.
    pub fn of(&self, key: &DomainKey) -> Vec<Arc<Guard>> {
        let is_for = |g: &Guard| match &g.0 {
            Ok(g) => g.spec.domain_ref.name == key.1 && g.metadata.deletion_timestamp.is_none(),
            Err(_) => g.meta().deletion_timestamp.is_none(),
        };
        let beside = |g: &&Arc<Guard>| g.meta().namespace.as_ref() == Some(&key.0) && is_for(g);
        self.grants.state().iter().filter(beside).cloned().collect()
    }

    /// Whether a grant is for none of the namespaces that there are; false as well while they are not known.
    pub fn is_for_nobody(&self, grant: &ClientGrant) -> bool {
        let namespaces = self.namespaces.state();
        let known = namespaces.iter().map(|n| (n.name_any(), n.labels().clone()));
        selects_none(&grant.spec.namespaces, &known.collect())
    }

    pub fn forget(&self, cert: &ClientCertificate) {
        self.asks.lock().expect("nobody panics while holding it").remove(&cert.uid().unwrap_or_default());
    }

    fn judged<T>(&self, key: &DomainKey, now: Timestamp, judge: impl FnOnce(&Around) -> T) -> T {
        let all = self.of(key);
        let grants: Vec<_> = all.iter().filter_map(|g| g.0.as_ref().ok()).collect();
        let needs_labels = grants.iter().any(|g| g.spec.namespaces.match_labels.is_some());
        let namespaces = if needs_labels { self.namespaces.state() } else { Vec::new() };
        let labels: BTreeMap<_, _> = namespaces.iter().map(|n| (n.name_any(), n.labels().clone())).collect();
        let domain = self.domains.get(&ObjectRef::new(&key.1).within(&key.0));
        let issuing = domain.as_ref().and_then(|d| issuing(d.0.as_ref().ok()?));
        let unreadable = grants.len() < all.len();
        judge(&Around { grants, unreadable, issuing: issuing.as_deref(), labels, now })
    }

    fn asking(&self, key: &DomainKey) -> (Vec<Certificate>, Vec<Arc<Ask>>) {
        let ask = |c: Certificate| {
            let cert = c.0.as_ref().ok().filter(|cert| domain_key(cert) == *key && is_foreign(cert))?;
            let ask = self.ask(cert).filter(|_| cert.metadata.deletion_timestamp.is_none())?;
            Some((c.clone(), ask))
        };
        self.certificates.state().into_iter().filter_map(ask).unzip()
    }

    fn ask(&self, cert: &ClientCertificate) -> Option<Arc<Ask>> {
        let (uid, generation) = (cert.uid().unwrap_or_default(), cert.metadata.generation);
        let kept = self.asks.lock().expect("nobody panics while holding it").get(&uid).cloned();
        match kept {
            Some(read) if read.generation == generation => read.ask,
            _ => {
                let ask = certificate::desired::ask(cert).ok().map(Arc::new);
                let mut asks = self.asks.lock().expect("nobody panics while holding it");
                asks.insert(uid, Read { generation, ask: ask.clone() });
                ask
            }
        }
    }
}

/// Whether none of the namespaces is selected, by their names and labels; an empty map: they are not known.
fn selects_none(wanted: &Namespaces, known: &BTreeMap<String, BTreeMap<String, String>>) -> bool {
    let selects =
        |(name, labels): (&String, _)| wanted.selects(policy::Namespace { name, labels: Some(labels) }) == Some(true);
    wanted.names.as_ref().is_some_and(Vec::is_empty) || (!known.is_empty() && !known.iter().any(selects))
}

/// The authority that issues when a certificate names none.
fn issuing(domain: &MtlsDomain) -> Option<String> {
    if let Some(named) = &domain.spec.trust.issuing_authority {
        return Some(named.clone());
    }
    let all = domain::desired::authorities(domain).ok()?;
    let mut able = all.into_iter().filter(|a| a.issues());
    able.next().filter(|_| able.next().is_none()).map(|only| only.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_for_none_of_the_namespaces_is_found_once_they_are_known() {
        let labels = |partner: &str| BTreeMap::from([("example.com/partner".to_owned(), partner.to_owned())]);
        let known = BTreeMap::from([("acme".to_owned(), labels("yes")), ("beta".to_owned(), BTreeMap::new())]);
        let of = |names: Option<&[&str]>, partner: Option<&str>| Namespaces {
            names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            match_labels: partner.map(labels),
        };
        for (wanted, nobody) in [
            (of(None, None), false),
            (of(Some(&["acme"]), None), false),
            (of(Some(&["acmee"]), None), true),
            (of(Some(&[]), None), true),
            (of(None, Some("yes")), false),
            (of(None, Some("no")), true),
            (of(Some(&["beta"]), Some("yes")), true),
        ] {
            assert_eq!(selects_none(&wanted, &known), nobody, "{wanted:?}");
        }
        assert!(!selects_none(&of(Some(&["acmee"]), None), &BTreeMap::new()), "they are not known");
    }
}
