//! Choice between certificates of one name and key, of which API Gateway takes one. Pure.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use jiff::Timestamp;

use super::offer::{Offer, OfferState};

use crate::pki::{
    certificate::Certificate,
    chain::{MAX_CHAIN, Pool},
    constraints,
    truststore::{Entry, identity},
};

/// Chooser among twins: certificates of one name and key. Chains go through what the spec lists.
pub(crate) struct Twins<'p> {
    pub pool: Pool<'p>,
    pub now: Timestamp,
}

/// The certificate that is trusted of each name and key, and the authority that it stands under.
pub(crate) type Chosen<'a> = HashMap<(&'a str, &'a str), (&'a str, &'a Certificate)>;

/// A certificate that an accepted source lists.
type Listed<'a> = (&'a Offer<'a>, &'a Certificate);

impl Twins<'_> {
    /// Chooses a certificate for each name and key that the spec lists.
    pub fn choose<'a>(&self, offers: &'a [Offer<'a>], living: &[&'a Entry]) -> Chosen<'a> {
        let (accepted, broken): (Vec<_>, Vec<_>) = offers
            .iter()
            .partition(|offer| offer.state == OfferState::Accepted);
        let mut listed: HashMap<_, Vec<Listed<'a>>> = HashMap::new();
        for offer in accepted {
            for certificate in &offer.certificates {
                listed
                    .entry(identity(certificate))
                    .or_default()
                    .push((offer, certificate));
            }
        }
        let there: HashMap<_, &Entry> = living.iter().map(|entry| (entry.identity(), *entry)).collect();
        // Entries of sources that cannot be used now.
        let of_broken = broken.into_iter().flat_map(|offer| {
            offer
                .last_good(living)
                .filter(|entry| entry.authority == offer.source.authority)
        });
        let kept: HashSet<_> = of_broken.map(Entry::identity).collect();
        let choose = |(key, all): (_, Vec<_>)| {
            (
                key,
                self.choice(&all, there.get(&key).copied(), kept.contains(&key)),
            )
        };
        listed.into_iter().map(choose).collect()
    }

    /// Chooses among certificates of one name and key. `there`: their entry in the current truststore;
    /// `kept`: its source cannot be used now.
    fn choice<'a>(
        &self,
        all: &[Listed<'a>],
        there: Option<&'a Entry>,
        kept: bool,
    ) -> (&'a str, &'a Certificate) {
        let of_entry =
            |offer: &Offer<'_>| there.is_some_and(|entry| entry.authority == offer.source.authority);
        let usable = all
            .iter()
            .any(|(offer, _)| offer.source.issues || of_entry(offer));
        if let Some(entry) = there.filter(|_| kept && !usable) {
            return (&entry.authority, &entry.certificate);
        }
        let (owners, others) = owners(all, of_entry);
        let best = owners.iter().copied().reduce(|one, other| {
            if self.better(one.1, other.1) == one.1 {
                one
            } else {
                other
            }
        });
        let (owner, mut certificate) = best.unwrap_or(all[0]);
        // The current certificate stays if it is better, for the leaves that were issued under it.
        let lasting = there.filter(|entry| entry.max_leaf.is_some() && !owner.source.client);
        // Not one that another source may have had signed; a self-signed one proves the key.
        let of_others = |entry: &Entry| {
            let mut others = others.iter();
            !entry.certificate.self_signed && others.any(|(_, other)| **other == entry.certificate)
        };
        if let Some(entry) = lasting.filter(|entry| !of_others(entry)) {
            certificate = self.better(certificate, &entry.certificate);
        }
        if !self.is_sound(certificate) {
            let sound = owners.iter().map(|(_, c)| *c).find(|c| self.is_sound(c));
            certificate = sound.unwrap_or(certificate);
        }
        (&owner.source.authority, certificate)
    }

    /// True when callers under this certificate are accepted now, as far as can be told.
    fn is_sound(&self, certificate: &Certificate) -> bool {
        let chain = self.pool.chain(certificate, MAX_CHAIN);
        certificate.not_before <= self.now
            && chain.is_ok_and(|chain| constraints::of_authorities(&chain).is_none())
    }

    /// Prefers a whole chain, then a chain that a client certificate may be under, then a certificate that is
    /// valid already, then the shortest chain (a self-signed certificate is a chain by itself, which nothing
    /// can break), then the chain that expires last.
    fn better<'c>(&self, one: &'c Certificate, other: &'c Certificate) -> &'c Certificate {
        if one == other {
            return one; // the usual case, without a search for chains
        }
        let rank = |certificate: &Certificate| {
            let began = certificate.not_before <= self.now;
            let route = self.pool.best(certificate, MAX_CHAIN);
            let (length, end) = route.map_or((0, certificate.not_after), |route| {
                (route.certificates, route.end)
            });
            // An authority with constraints that no client certificate meets does not help callers.
            let chain = self.pool.chain(certificate, MAX_CHAIN).unwrap_or_default();
            let usable = constraints::of_authorities(&chain).is_none();
            (route.is_some(), usable, began, Reverse(length), end)
        };
        if rank(other) > rank(one) { other } else { one }
    }
}

/// Divides the certificates of one name and key into those of its owners and the others. Anyone can have
/// another authority's name and key signed by a root of their own. A source that issues has the key, and a
/// self-signed certificate proves it; then the source of the current entry counts, then the order of the
/// spec.
fn owners<'a>(
    all: &[Listed<'a>],
    of_entry: impl Fn(&Offer<'_>) -> bool,
) -> (Vec<Listed<'a>>, Vec<Listed<'a>>) {
    let differ = all.iter().any(|(_, certificate)| *certificate != all[0].1);
    if differ && all.iter().any(|(offer, _)| offer.source.issues) {
        return all.iter().partition(|(offer, _)| offer.source.issues);
    }
    let proven = all.iter().any(|(_, certificate)| certificate.self_signed);
    let mut able = all
        .iter()
        .filter(|(_, certificate)| !proven || certificate.self_signed);
    let of_current = able.clone().find(|(offer, _)| of_entry(offer));
    let (first, _) = of_current.or_else(|| able.next()).unwrap_or(&all[0]);
    all.iter()
        .partition(|(offer, _)| offer.source.authority == first.source.authority)
}
