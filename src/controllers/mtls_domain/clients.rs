//! ClientCertificates of an `MtlsDomain`: the certificates that it counts, and the requirements that they
//! place on its truststore.

use std::{collections::BTreeSet, sync::Arc};

use super::context::Ctx;
use jiff::Timestamp;

use crate::{
    api::{ClientCertificate, ClientGrantSpec, Issuance, MtlsDomain, durations, object_id::ObjectId},
    grants::{
        evaluation::{Decision, Terms},
        index,
    },
    issuance::desired::at_most,
    model::desired::{Clients, SelfSigned},
    pki::compile::offer::Share,
    runtime::watch::Cached,
};

/// A cross-namespace certificate, and its grant decision.
type CrossNamespace = (Arc<Cached<ClientCertificate>>, Decision);

impl Ctx {
    /// Returns the requirements that the ClientCertificates of this domain place on its truststore.
    pub(crate) fn clients(
        &self,
        domain: &MtlsDomain,
        theirs: &[Arc<Cached<ClientCertificate>>],
        cross_namespace: &[CrossNamespace],
    ) -> Clients {
        clients_of(
            domain,
            theirs,
            cross_namespace,
            &self.certificates.state(),
            self.watched.clone(),
            &|c| self.grant_index.admitting(c),
        )
    }

    /// Returns the certificates for this domain (see [`certificates_for`]), and all cross-namespace
    /// certificates for it, each with its grant decision.
    pub(crate) fn certificates_of(
        &self,
        domain: &MtlsDomain,
        now: Timestamp,
    ) -> (Vec<Arc<Cached<ClientCertificate>>>, Vec<CrossNamespace>) {
        let key = ObjectId::of(domain);
        let cross_namespace = self.grant_index.of_domain(&key, now);
        (
            certificates_for(&key, self.certificates.state(), &cross_namespace),
            cross_namespace,
        )
    }
}

/// Returns the requirements that ClientCertificates place on `domain`. `theirs` are the certificates of its
/// own namespace and the cross-namespace ones that may be granted, `cross_namespace` are all cross-namespace
/// ones, and `all` are the certificates for every domain. `admitting` returns the grants that admit a
/// cross-namespace certificate.
pub(crate) fn clients_of(
    domain: &MtlsDomain,
    theirs: &[Arc<Cached<ClientCertificate>>],
    cross_namespace: &[CrossNamespace],
    all: &[Arc<Cached<ClientCertificate>>],
    watched: Option<BTreeSet<String>>,
    admitting: &dyn Fn(&ClientCertificate) -> Option<Vec<ClientGrantSpec>>,
) -> Clients {
    let max = domain
        .spec
        .clients
        .as_ref()
        .and_then(|c| c.max_duration.as_ref())
        .map(durations::length);
    let trusted = |c: &ClientCertificate, terms: Option<&Terms>| {
        SelfSigned::of(c, at_most(c, max, terms), admitting(c))
    };
    let theirs = || theirs.iter().filter_map(|c| c.0.as_ref().ok());
    let issued = theirs().filter(|c| c.spec.issuance == Issuance::Authority);
    let lifetimes = issued
        .filter_map(|c| c.spec.duration.as_ref())
        .map(durations::length);
    let own = theirs()
        .filter(|c| !index::is_cross_namespace(c))
        .filter_map(|c| trusted(c, None));
    let granted = cross_namespace
        .iter()
        .filter_map(|(c, decision)| match (c.0.as_ref().ok()?, decision) {
            (c, Decision::Allowed(terms)) => trusted(c, Some(terms)).map(|wanted| SelfSigned {
                share: Some(Share {
                    grant: terms.grant.clone(),
                    bytes: terms.max_bytes,
                }),
                ..wanted
            }),
            (c, Decision::Unknown(_)) if c.spec.issuance == Issuance::SelfSigned => {
                Some(SelfSigned::unclear(c))
            }
            _ => None,
        });
    // An unreadable certificate may be for this domain: its entries stay trusted.
    let unreadable = all
        .iter()
        .filter(|c| c.0.is_err())
        .map(|c| SelfSigned::unclear(&**c));
    Clients {
        longest: lifetimes.max().unwrap_or(durations::DEFAULT_LEAF),
        self_signed: own.chain(granted).chain(unreadable).collect(),
        watched,
    }
}

/// Returns the certificates for a domain: those of its own namespace, and the cross-namespace ones whose
/// grant is not certainly denied.
fn certificates_for(
    domain: &ObjectId,
    all: Vec<Arc<Cached<ClientCertificate>>>,
    cross_namespace: &[CrossNamespace],
) -> Vec<Arc<Cached<ClientCertificate>>> {
    let of_it = |c: &ClientCertificate| c.domain_id() == *domain && !index::is_cross_namespace(c);
    let own = all.into_iter().filter(|c| c.0.as_ref().is_ok_and(of_it));
    let granted = cross_namespace
        .iter()
        .filter(|(_, decision)| !matches!(decision, Decision::Denied(_)))
        .map(|(c, _)| c.clone());
    own.chain(granted).collect()
}

#[cfg(test)]
mod tests;
