//! Entries of the next truststore while it is compiled. Pure.

use super::{
    offer::{Offer, Source, State},
    twins::Chosen,
};

use crate::pki::{
    certificate::Certificate,
    chain::Signatures,
    truststore::{Entry, identity},
};

/// Bundle in the making: each subject once.
#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) list: Vec<Entry>,
}

impl Entries {
    /// Adds a certificate that the spec lists. Of several of one name and key the chosen one counts.
    pub(crate) fn offer(
        &mut self,
        offer: &Offer<'_>,
        certificate: &Certificate,
        living: &[&Entry],
        chosen: &Chosen<'_>,
    ) {
        let max_leaf = offer.max_leaf();
        if let Some(entry) = self
            .list
            .iter_mut()
            .find(|entry| entry.identity() == identity(certificate))
        {
            entry.max_leaf = entry.max_leaf.max(max_leaf);
            entry.keep_until = None;
            return;
        }
        // An entry that is only carried forward gives way to a certificate that the spec lists.
        self.list
            .retain(|entry| entry.certificate.subject_key != certificate.subject_key);
        let there = living
            .iter()
            .find(|entry| entry.identity() == identity(certificate));
        let max_leaf = max_leaf.max(there.and_then(|entry| entry.max_leaf));
        let usual = (offer.source.authority.as_str(), certificate);
        let (authority, certificate) = chosen.get(&identity(certificate)).copied().unwrap_or(usual);
        self.list.push(Entry {
            authority: authority.to_owned(),
            certificate: certificate.clone(),
            max_leaf,
            keep_until: None,
        });
    }

    /// Adds an entry of the current truststore that stays.
    pub(crate) fn keep(&mut self, entry: Entry) {
        if !self
            .list
            .iter()
            .any(|other| other.certificate.subject_key == entry.certificate.subject_key)
        {
            self.list.push(entry);
        }
    }

    /// Renames entries that stay although their authority is distrusted or withdrawn: each gets the name of
    /// an authority that needs it, else it would leave with the next reconcile. Sorts the entries that no
    /// authority of the spec has placed, by name and subject.
    pub(crate) fn settle(&mut self, sources: &[Source], placed: usize, signatures: &Signatures<'_>) {
        let distrusted = |name: &str| {
            sources
                .iter()
                .any(|source| source.state != State::Active && source.authority == name)
        };
        while !signatures.have_ended()
            && let Some((at, name)) = self.list.iter().enumerate().find_map(|(at, entry)| {
                let certificate = &entry.certificate;
                let needs = |other: &&Entry| {
                    !distrusted(&other.authority) && signatures.issued(&other.certificate, certificate)
                };
                let by = self
                    .list
                    .iter()
                    .filter(|_| distrusted(&entry.authority))
                    .find(needs)?;
                Some((at, by.authority.clone()))
            })
        {
            self.list[at].authority = name;
        }
        self.list[placed..].sort_by(|one, other| one.order().cmp(&other.order()));
        self.list.retain(|entry| !distrusted(&entry.authority));
    }
}
