//! Index of grant decisions on the ClientCertificates of other namespaces, from the watched grants,
//! certificates, domains and namespaces. Reads only.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use super::evaluation::{self, Decision, EvaluationContext, GrantRequest};

use crate::{
    api::{
        ClientCertificate, ClientGrant, ClientGrantSpec, Issuance, MtlsDomain, Namespaces,
        object_id::ObjectId,
    },
    model::authorities,
    policy,
    runtime::watch::{Cached, Listed, Synced, Watch},
};

type Certificate = Arc<Cached<ClientCertificate>>;

pub struct GrantIndex {
    grants: Store<Cached<ClientGrant>>,
    certificates: Store<Cached<ClientCertificate>>,
    domains: Store<Cached<MtlsDomain>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    /// State of the watch of namespaces, which the operator may not be permitted to read.
    labels: Synced,
    /// Requests of certificates by UID, each with its generation: parsing a CSR takes as long as a thousand
    /// comparisons.
    grant_requests: Mutex<HashMap<String, Read>>,
}

#[derive(Clone)]
struct Read {
    generation: Option<i64>,
    /// Request of the certificate; `None` when its spec or CSR cannot be certified.
    grant_request: Option<Arc<GrantRequest>>,
    /// Names of the request that a grant does not admit, by the grant's UID, each with the grant's
    /// generation.
    outside: HashMap<String, (Option<i64>, Arc<[String]>)>,
}

/// True when the certificate needs a grant.
pub fn is_cross_namespace(cert: &ClientCertificate) -> bool {
    cert.namespace() != Some(cert.domain_id().namespace)
}

/// True when the grant selects namespaces by their labels.
pub fn needs_labels(grant: &Cached<ClientGrant>) -> bool {
    grant
        .0
        .as_ref()
        .is_ok_and(|g| g.spec.namespaces.match_labels.is_some())
}

/// Returns the facts of a grant whose change matters to other objects; the first is `None` when the operator
/// cannot read the grant.
pub fn change_predicate(grant: &Cached<ClientGrant>) -> (Option<Option<i64>>, bool) {
    (
        grant.0.as_ref().ok().map(|g| g.metadata.generation),
        grant.meta().deletion_timestamp.is_some(),
    )
}

impl GrantIndex {
    pub fn new(
        grants: Store<Cached<ClientGrant>>,
        certificates: Store<Cached<ClientCertificate>>,
        domains: Store<Cached<MtlsDomain>>,
        namespaces: &Watch<PartialObjectMeta<Namespace>>,
    ) -> GrantIndex {
        GrantIndex {
            grants,
            certificates,
            domains,
            namespaces: namespaces.store(),
            labels: namespaces.synced(),
            grant_requests: Mutex::default(),
        }
    }

    /// Decides on a certificate in another namespace than its domain's. Returns `None` when its spec or CSR
    /// cannot be certified.
    pub fn decide(&self, cert: &ClientCertificate, now: Timestamp) -> Option<Decision> {
        let (key, grant_request) = (cert.domain_id(), self.grant_request(cert)?);
        Some(self.evaluate(&key, now, |context| {
            evaluation::decide(&grant_request, || self.requesting(&key).1, context)
        }))
    }

    /// Returns every certificate in other namespaces that requests something of this domain, each with its
    /// decision.
    pub fn of_domain(&self, key: &ObjectId, now: Timestamp) -> Vec<(Certificate, Decision)> {
        let (certificates, grant_requests) = self.requesting(key);
        let decisions = self.evaluate(key, now, |context| evaluation::allocate(&grant_requests, context));
        certificates.into_iter().zip(decisions).collect()
    }

    /// True when a grant may allow this self-signed certificate, or may have allowed it before a change.
    pub fn may_be_trusted(&self, cert: &ClientCertificate) -> bool {
        let accepts = self.accepts(cert);
        self.of(&cert.domain_id())
            .iter()
            .any(|g| g.0.as_ref().map_or(true, &accepts))
    }

    /// Returns the grants by which this self-signed certificate may be in its domain's truststore. `None`
    /// when the operator cannot read one of the grants, or when any name is allowed because the domain is in
    /// the certificate's namespace.
    pub fn admitting(&self, cert: &ClientCertificate) -> Option<Vec<ClientGrantSpec>> {
        if !is_cross_namespace(cert) {
            return None;
        }
        let accepts = self.accepts(cert);
        let all = self.of(&cert.domain_id());
        let readable = all
            .iter()
            .map(|g| g.0.as_ref().ok())
            .collect::<Option<Vec<_>>>()?;
        Some(
            readable
                .into_iter()
                .filter(|g| accepts(g))
                .map(|g| g.spec.clone())
                .collect(),
        )
    }

    /// Returns a check of grants: true for one by which this self-signed certificate may be trusted.
    fn accepts(&self, cert: &ClientCertificate) -> impl Fn(&ClientGrant) -> bool + use<> {
        let namespace = cert.namespace().unwrap_or_default();
        let labels = self
            .namespaces
            .get(&ObjectRef::new(&namespace))
            .map(|n| n.labels().clone());
        move |grant| {
            let here = policy::Namespace {
                name: &namespace,
                labels: labels.as_ref(),
            };
            grant.spec.issuance == Issuance::SelfSigned && grant.spec.namespaces.selects(here) != Some(false)
        }
    }

    /// True when the certificates of this domain share a limited number of slots.
    pub fn has_slots(&self, key: &ObjectId) -> bool {
        self.of(key)
            .iter()
            .any(|g| g.0.as_ref().is_ok_and(|g| g.spec.max_certificates.is_some()))
    }

    /// Returns the grants in the domain's namespace that are for this domain, or that the operator cannot
    /// read.
    pub fn of(&self, key: &ObjectId) -> Vec<Arc<Cached<ClientGrant>>> {
        let is_for = |g: &Cached<ClientGrant>| match &g.0 {
            Ok(g) => g.spec.domain_ref.name == key.name && g.metadata.deletion_timestamp.is_none(),
            Err(_) => g.meta().deletion_timestamp.is_none(),
        };
        let beside =
            |g: &&Arc<Cached<ClientGrant>>| g.meta().namespace.as_ref() == Some(&key.namespace) && is_for(g);
        self.grants.state().iter().filter(beside).cloned().collect()
    }

    /// True while the labels of this certificate's namespace, by which a grant selects, are still being read.
    /// Equal for every certificate of a namespace, whatever it requests. False when they cannot be read.
    pub fn are_labels_pending(&self, cert: &ClientCertificate) -> bool {
        let namespace = cert.namespace().unwrap_or_default();
        self.namespaces.get(&ObjectRef::new(&namespace)).is_none()
            && !matches!(self.labels.listed(), Listed::Failed(_))
            && self.grants.state().iter().any(|g| needs_labels(g))
    }

    /// Returns whether the operator has the labels by which the grant selects namespaces.
    pub fn labels(&self, grant: &ClientGrant) -> Listed {
        match &grant.spec.namespaces.match_labels {
            Some(_) => self.labels.listed(),
            None => Listed::Yes,
        }
    }

    /// True when a grant selects none of the existing namespaces; false as well while the namespaces are not
    /// known.
    pub fn is_for_nobody(&self, grant: &ClientGrant) -> bool {
        let namespaces = self.namespaces.state();
        let known = namespaces.iter().map(|n| (n.name_any(), n.labels().clone()));
        selects_none(&grant.spec.namespaces, &known.collect())
    }

    pub fn forget(&self, cert: &ClientCertificate) {
        self.grant_requests
            .lock()
            .expect("no holder of the lock panics")
            .remove(&cert.uid().unwrap_or_default());
    }

    fn evaluate<T>(
        &self,
        key: &ObjectId,
        now: Timestamp,
        evaluation: impl FnOnce(&EvaluationContext) -> T,
    ) -> T {
        let all = self.of(key);
        let grants: Vec<_> = all.iter().filter_map(|g| g.0.as_ref().ok()).collect();
        let needs_labels = grants.iter().any(|g| g.spec.namespaces.match_labels.is_some());
        let namespaces = if needs_labels {
            self.namespaces.state()
        } else {
            Vec::new()
        };
        let labels: BTreeMap<_, _> = namespaces
            .iter()
            .map(|n| (n.name_any(), n.labels().clone()))
            .collect();
        let domain = self.domains.get(&key.to_ref());
        let issuing = domain.as_ref().and_then(|d| issuing(d.0.as_ref().ok()?));
        let unreadable = grants.len() < all.len();
        let names_outside =
            |grant_request: &GrantRequest, grant: &ClientGrant| self.outside(grant_request, grant);
        let issuing = issuing.as_deref();
        evaluation(&EvaluationContext {
            grants,
            unreadable,
            issuing,
            labels,
            now,
            names_outside: &names_outside,
        })
    }

    /// Caches [`evaluation::names_outside`] for each generation of the certificate and of the grant.
    fn outside(&self, grant_request: &GrantRequest, grant: &ClientGrant) -> Arc<[String]> {
        let (uid, generation) = (grant.uid().unwrap_or_default(), grant.metadata.generation);
        let mut grant_requests = self.grant_requests.lock().expect("no holder of the lock panics");
        let is_of = |read: &&mut Read| {
            read.grant_request
                .as_ref()
                .is_some_and(|known| std::ptr::eq(&**known, grant_request))
        };
        let known = grant_requests.get_mut(&grant_request.uid).filter(is_of);
        let evaluated = known
            .as_ref()
            .and_then(|read| read.outside.get(&uid))
            .filter(|(at, _)| *at == generation);
        if let Some((_, outside)) = evaluated {
            return outside.clone();
        }
        let outside: Arc<[String]> = evaluation::names_outside(&grant_request.request, &grant.spec).into();
        if let Some(read) = known {
            read.outside.insert(uid, (generation, outside.clone()));
        }
        outside
    }

    fn requesting(&self, key: &ObjectId) -> (Vec<Certificate>, Vec<Arc<GrantRequest>>) {
        let grant_request = |c: Certificate| {
            let cert =
                c.0.as_ref()
                    .ok()
                    .filter(|cert| cert.domain_id() == *key && is_cross_namespace(cert))?;
            let grant_request = self
                .grant_request(cert)
                .filter(|_| cert.metadata.deletion_timestamp.is_none())?;
            Some((c.clone(), grant_request))
        };
        self.certificates
            .state()
            .into_iter()
            .filter_map(grant_request)
            .unzip()
    }

    fn grant_request(&self, cert: &ClientCertificate) -> Option<Arc<GrantRequest>> {
        let (uid, generation) = (cert.uid().unwrap_or_default(), cert.metadata.generation);
        let kept = self
            .grant_requests
            .lock()
            .expect("no holder of the lock panics")
            .get(&uid)
            .cloned();
        match kept {
            Some(read) if read.generation == generation => read.grant_request,
            _ => {
                let grant_request = evaluation::grant_request(cert).ok().map(Arc::new);
                let mut grant_requests = self.grant_requests.lock().expect("no holder of the lock panics");
                grant_requests.insert(
                    uid,
                    Read {
                        generation,
                        grant_request: grant_request.clone(),
                        outside: HashMap::new(),
                    },
                );
                grant_request
            }
        }
    }
}

/// True when the grant selects none of the namespaces, by their names and labels. An empty map means that the
/// namespaces are not known: then true only for an empty list of names.
fn selects_none(wanted: &Namespaces, known: &BTreeMap<String, BTreeMap<String, String>>) -> bool {
    let selects = |(name, labels): (&String, _)| {
        wanted.selects(policy::Namespace {
            name,
            labels: Some(labels),
        }) == Some(true)
    };
    wanted.names.as_ref().is_some_and(Vec::is_empty) || (!known.is_empty() && !known.iter().any(selects))
}

/// Returns the authority that issues when a certificate names none.
fn issuing(domain: &MtlsDomain) -> Option<String> {
    if let Some(named) = &domain.spec.trust.issuing_authority {
        return Some(named.clone());
    }
    let all = authorities::authorities(domain).ok()?;
    let mut able = all.into_iter().filter(|a| a.may_issue());
    able.next()
        .filter(|_| able.next().is_none())
        .map(|only| only.name)
}

#[cfg(test)]
mod tests;
