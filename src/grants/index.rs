//! Index of grant decisions on the ClientCertificates of other namespaces, from the watched grants,
//! certificates, domains and namespaces. Reads only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

pub use super::state::domain_of;
use super::{
    allocation::{Allocation, Basis, Numbered, Sources},
    evaluation::Decision,
    state::{Grant, State, within},
};

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
    changes: Arc<Mutex<Changes>>,
    state: Mutex<State>,
}

/// Objects that have changed since the last read of the index. The watches note them before they tell any
/// subscriber, and never wait for a decision: no subscriber decides by a state of the index that is older
/// than the event that it heard.
#[derive(Default)]
struct Changes {
    certificates: BTreeSet<ObjectId>,
    grants: BTreeSet<ObjectId>,
    namespaces: BTreeSet<String>,
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
        grants: &Watch<Cached<ClientGrant>>,
        certificates: &Watch<Cached<ClientCertificate>>,
        domains: Store<Cached<MtlsDomain>>,
        namespaces: &Watch<PartialObjectMeta<Namespace>>,
    ) -> GrantIndex {
        let changes = Arc::new(Mutex::new(Changes::default()));
        let noting = || {
            let changes = changes.clone();
            move |note: &dyn Fn(&mut Changes)| {
                note(&mut changes.lock().expect("no holder of the lock panics"))
            }
        };
        let note = noting();
        grants.observe(move |g| {
            note(&|changes| {
                changes.grants.insert(ObjectId::of(g));
            });
        });
        let note = noting();
        certificates.observe(move |c| {
            note(&|changes| {
                changes.certificates.insert(ObjectId::of(c));
            });
        });
        let note = noting();
        namespaces.observe(move |n| {
            note(&|changes| {
                changes.namespaces.insert(n.name_any());
            });
        });
        GrantIndex {
            grants: grants.store(),
            certificates: certificates.store(),
            domains,
            namespaces: namespaces.store(),
            labels: namespaces.synced(),
            changes,
            state: Mutex::default(),
        }
    }

    /// Decides on a certificate in another namespace than its domain's. Returns `None` when its spec or CSR
    /// cannot be certified.
    pub fn decide(&self, cert: &ClientCertificate, now: Timestamp) -> Option<Decision> {
        self.allocation(&cert.domain_id(), now, |allocation, sources| {
            allocation.decide(cert, sources)
        })
    }

    /// Decides as [`decide`](Self::decide), for the certificate's own reconcile: the certificate needs no
    /// other one because of this decision.
    pub fn announce(&self, cert: &ClientCertificate, now: Timestamp) -> Option<Decision> {
        self.allocation(&cert.domain_id(), now, |allocation, sources| {
            allocation.announce(cert, sources)
        })
    }

    /// Returns every certificate in other namespaces that requests something of this domain, each with its
    /// decision.
    pub fn of_domain(&self, key: &ObjectId, now: Timestamp) -> Vec<(Certificate, Decision)> {
        let all = self.allocation(key, now, Allocation::all);
        all.into_iter()
            .filter_map(|(id, decision)| Some((self.certificates.get(&id.to_ref())?, decision)))
            .collect()
    }

    /// Returns the certificates that the grant allows.
    pub fn covered(&self, grant: &ClientGrant, now: Timestamp) -> Vec<Certificate> {
        let name = grant.name_any();
        let covered = self.allocation(&domain_of(grant), now, |a, sources| a.covered(&name, sources));
        covered
            .into_iter()
            .filter_map(|id| self.certificates.get(&id.to_ref()))
            .collect()
    }

    /// Returns the certificates for this domain whose decision differs from the one that their last reconcile
    /// read, each once.
    pub fn changed_certificates(&self, key: &ObjectId, now: Timestamp) -> Vec<ObjectId> {
        self.allocation(key, now, Allocation::changed)
    }

    /// Returns the grants for this domain that allow other certificates than at the last call.
    pub fn changed_grants(&self, key: &ObjectId, now: Timestamp) -> Vec<ObjectId> {
        let names = self.allocation(key, now, Allocation::changed_grants);
        let ids = names.into_iter().map(|name| ObjectId::new(&key.namespace, name));
        let state = self.state();
        ids.filter(|id| state.grants.contains_key(id)).collect()
    }

    /// Returns the domains that certificates of other namespaces name in this namespace.
    pub fn domains_in(&self, namespace: &str) -> Vec<ObjectId> {
        within(&self.state().allocations, namespace)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Returns the domains that certificates of this namespace need a grant for.
    pub fn asked_by(&self, namespace: &str) -> BTreeSet<ObjectId> {
        within(&self.state().certificates, namespace)
            .map(|(_, (domain, _))| domain.clone())
            .collect()
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
    pub fn of(&self, key: &ObjectId) -> Vec<Grant> {
        let state = self.state();
        state.grants_for(key).map(|(grant, _)| grant.clone()).collect()
    }

    /// True while the labels of this certificate's namespace, by which a grant selects, are still being read.
    /// Equal for every certificate of a namespace, whatever it requests. False when they cannot be read.
    pub fn are_labels_pending(&self, cert: &ClientCertificate) -> bool {
        let namespace = cert.namespace().unwrap_or_default();
        self.namespaces.get(&ObjectRef::new(&namespace)).is_none()
            && !matches!(self.labels.listed(), Listed::Failed(_))
            && self.state().grants.values().any(|(g, _)| needs_labels(g))
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

    /// Returns the state after all changes so far.
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("no holder of the lock panics");
        let changes = {
            let mut changes = self.changes.lock().expect("no holder of the lock panics");
            std::mem::take(&mut *changes)
        };
        for id in changes.certificates {
            let there = self.certificates.get(&id.to_ref());
            let wanted = there.as_ref().and_then(|c| c.0.as_ref().ok());
            state.certificate_changed(id, wanted.filter(|c| may_request(c)));
        }
        for id in changes.grants {
            let there = self.grants.get(&id.to_ref());
            state.grant_changed(id, there.filter(|g| g.meta().deletion_timestamp.is_none()));
        }
        for namespace in &changes.namespaces {
            state.labels_changed(namespace);
        }
        state
    }

    /// Passes the domain's current allocation to `read`.
    fn allocation<T>(
        &self,
        key: &ObjectId,
        now: Timestamp,
        read: impl FnOnce(&mut Allocation, &Sources) -> T,
    ) -> T {
        let mut state = self.state();
        let domain = self.domains.get(&key.to_ref());
        let version = domain.as_ref().map(|d| {
            let meta = d.meta();
            (meta.uid.as_deref(), meta.generation)
        });
        let basis = state.allocations.get(key).and_then(Allocation::basis);
        let basis = if basis.is_some_and(|basis| basis.is_of(version, now)) {
            None
        } else {
            let issuing = domain.as_ref().and_then(|d| issuing(d.0.as_ref().ok()?));
            let (readable, unreadable): (Vec<_>, Vec<_>) =
                state.grants_for(key).partition(|(grant, _)| grant.0.is_ok());
            let numbered = readable.into_iter().map(|(grant, number)| Numbered {
                grant: grant.clone(),
                number: *number,
            });
            let version = version.map(|(uid, generation)| (uid.map(str::to_owned), generation));
            Some(Basis::new(
                numbered.collect(),
                !unreadable.is_empty(),
                issuing,
                version,
                now,
            ))
        };
        // A domain that no certificate names has no entry.
        let mut empty = Allocation::default();
        let allocation = state.allocations.get_mut(key).unwrap_or(&mut empty);
        if let Some(basis) = basis {
            allocation.set_basis(basis);
        }
        let result = read(
            allocation,
            &Sources {
                certificate: &|id| self.certificates.get(&id.to_ref()),
                labels: &|namespace| {
                    let namespace = self.namespaces.get(&ObjectRef::new(namespace));
                    namespace.map(|n| n.labels().clone())
                },
                now,
            },
        );
        if allocation.is_empty() {
            state.allocations.remove(key);
        }
        result
    }
}

/// True for a certificate that takes part in the allocation of slots.
fn may_request(cert: &ClientCertificate) -> bool {
    is_cross_namespace(cert) && cert.metadata.deletion_timestamp.is_none()
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
