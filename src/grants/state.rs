//! State behind the grant index: certificates, grants and allocations by identity. Each change drops the
//! decisions that it concerns, and no others.

use std::{collections::BTreeMap, sync::Arc};

use kube::{Resource, ResourceExt};

use super::allocation::{Age, Allocation, age};

use crate::{
    api::{ClientCertificate, ClientGrant, object_id::ObjectId},
    runtime::watch::Cached,
};

pub type Grant = Arc<Cached<ClientGrant>>;

#[derive(Default)]
pub struct State {
    /// Domain and age of each certificate that needs a grant.
    pub certificates: BTreeMap<ObjectId, (ObjectId, Age)>,
    /// Grants that are not being deleted, each with a number that changes with its generation.
    pub grants: BTreeMap<ObjectId, (Grant, u32)>,
    last_number: u32,
    /// By domain.
    pub allocations: BTreeMap<ObjectId, Allocation>,
}

impl State {
    /// `there`: the certificate, when it exists and requests something of a domain in another namespace.
    pub fn certificate_changed(&mut self, id: ObjectId, there: Option<&ClientCertificate>) {
        let place = there.map(|cert| (cert.domain_id(), age(cert)));
        let before = match &place {
            Some(place) => self.certificates.insert(id, place.clone()),
            None => self.certificates.remove(&id),
        };
        if let Some((domain, age)) = before.filter(|before| Some(before) != place.as_ref())
            && let Some(allocation) = self.allocations.get_mut(&domain)
        {
            allocation.remove(&age);
            if allocation.is_empty() {
                self.allocations.remove(&domain);
            }
        }
        if let Some(((domain, _), cert)) = place.zip(there) {
            self.allocations.entry(domain).or_default().put(cert);
        }
    }

    /// `there`: the grant, when it exists and is not being deleted.
    pub fn grant_changed(&mut self, id: ObjectId, there: Option<Grant>) {
        let version = |g: &Grant| {
            (
                g.meta().uid.clone(),
                g.0.as_ref().ok().map(|g| g.metadata.generation),
            )
        };
        let before = self.grants.remove(&id);
        let is_same = before.as_ref().map(|(g, _)| version(g)) == there.as_ref().map(version);
        let concerned: Vec<_> = [before.as_ref().map(|(g, _)| g), there.as_ref()]
            .into_iter()
            .flatten()
            .map(|g| g.0.as_ref().ok().map(domain_of))
            .collect();
        if let Some(grant) = there {
            let number = match before {
                Some((_, number)) if is_same => number,
                _ => self.last_number + 1,
            };
            self.last_number = self.last_number.max(number);
            self.grants.insert(id.clone(), (grant, number));
        }
        if is_same {
            return;
        }
        for domain in concerned {
            match domain {
                Some(domain) => {
                    self.allocations.get_mut(&domain).map(Allocation::grants_changed);
                }
                // An unreadable grant may be for any of them.
                None => within_mut(&mut self.allocations, &id.namespace)
                    .for_each(|(_, allocation)| allocation.grants_changed()),
            }
        }
    }

    pub fn labels_changed(&mut self, namespace: &str) {
        for (_, (domain, age)) in within(&self.certificates, namespace) {
            if let Some(allocation) = self.allocations.get_mut(domain) {
                allocation.labels_changed(age);
            }
        }
    }

    /// Returns the grants in the domain's namespace that are for this domain, or that the operator cannot
    /// read.
    pub fn grants_for<'a>(&'a self, key: &'a ObjectId) -> impl Iterator<Item = &'a (Grant, u32)> {
        within(&self.grants, &key.namespace)
            .map(|(_, grant)| grant)
            .filter(|(grant, _)| {
                grant
                    .0
                    .as_ref()
                    .map_or(true, |g| g.spec.domain_ref.name == key.name)
            })
    }
}

/// Returns the entries of one namespace.
pub fn within<'a, T>(
    all: &'a BTreeMap<ObjectId, T>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectId, &'a T)> {
    all.range(ObjectId::new(namespace, "")..)
        .take_while(move |(id, _)| id.namespace == namespace)
}

fn within_mut<'a, T>(
    all: &'a mut BTreeMap<ObjectId, T>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectId, &'a mut T)> {
    all.range_mut(ObjectId::new(namespace, "")..)
        .take_while(move |(id, _)| id.namespace == namespace)
}

pub fn domain_of(grant: &ClientGrant) -> ObjectId {
    ObjectId::new(grant.namespace().unwrap_or_default(), &grant.spec.domain_ref.name)
}
