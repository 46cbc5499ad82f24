//! Order of certificates by who issued whom, for distrust. Pure.

use std::collections::{HashMap, HashSet};

use crate::pki::{
    certificate::Certificate,
    chain::{Pool, Prefer, Signatures},
};

/// Fingerprints of the certificates that only stand above others of these. In a circle, as cross-signed roots
/// make one, no certificate is above the others: all of them are meant.
pub(crate) fn above_others<'p>(certificates: &'p [Certificate], pool: &Pool<'p>) -> HashSet<&'p str> {
    let places: HashMap<&str, usize> = certificates
        .iter()
        .enumerate()
        .map(|(at, c)| (c.fingerprint_sha256.as_str(), at))
        .collect();
    let issuers: Vec<Vec<usize>> = certificates
        .iter()
        .map(|c| {
            let issuers = pool.issuers(c);
            issuers
                .signed
                .iter()
                .filter_map(|issuer| places.get(issuer.fingerprint_sha256.as_str()).copied())
                .collect()
        })
        .collect();
    let mut issued = vec![Vec::new(); certificates.len()];
    for (at, above) in issuers.iter().enumerate() {
        above.iter().for_each(|issuer| issued[*issuer].push(at));
    }
    let mut above: HashSet<usize> = (0..certificates.len())
        .filter(|at| !issued[*at].is_empty())
        .collect();
    let upwards = peeled(&issued, &issuers, (0..certificates.len()).collect());
    let left = (0..certificates.len())
        .filter(|at| !upwards.contains(at))
        .collect();
    let downwards = peeled(&issuers, &issued, left);
    above.retain(|at| upwards.contains(at) || downwards.contains(at));
    above
        .into_iter()
        .map(|at| certificates[at].fingerprint_sha256.as_str())
        .collect()
}

/// Takes away, one after the other, each of `left` that has no edge of `from` to another one left. Returns
/// those taken.
fn peeled(from: &[Vec<usize>], back: &[Vec<usize>], left: HashSet<usize>) -> HashSet<usize> {
    let mut edges: HashMap<usize, usize> = left
        .iter()
        .map(|at| (*at, from[*at].iter().filter(|to| left.contains(to)).count()))
        .collect();
    let mut free: Vec<usize> = left.iter().copied().filter(|at| edges[at] == 0).collect();
    let mut taken = HashSet::new();
    while let Some(at) = free.pop() {
        if !taken.insert(at) {
            continue;
        }
        for before in back[at].iter().filter(|before| left.contains(before)) {
            let count = edges.entry(*before).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                free.push(*before);
            }
        }
    }
    taken
}

/// Returns fingerprints of the issuers, in this pool, of these certificates.
pub(crate) fn issuers_of<'c, 'p>(
    certificates: impl IntoIterator<Item = &'c Certificate>,
    pool: &Pool<'p>,
) -> HashSet<&'p str> {
    certificates
        .into_iter()
        .flat_map(|c| pool.issuers(c).signed.clone())
        .map(|c| c.fingerprint_sha256.as_str())
        .collect()
}

/// Certificates by the issuer that signed them. An untried issuer, among very many of one name, counts as an
/// issuer: no number of keys lets a certificate escape a distrust.
pub(crate) struct Below<'a>(HashMap<&'a str, Vec<&'a Certificate>>);

impl<'a> Below<'a> {
    pub(crate) fn new(
        heads: &'a [Certificate],
        others: &'a [Certificate],
        signatures: &'a Signatures,
    ) -> Self {
        let pool = Pool::new(others.iter().chain(heads), Prefer::Shortest, signatures);
        let mut below: HashMap<&str, Vec<&Certificate>> = HashMap::new();
        let mut seen = HashSet::new();
        for other in others
            .iter()
            .filter(|c| seen.insert(c.fingerprint_sha256.as_str()))
        {
            let issuers = pool.issuers(other);
            // Its key is known: the keys that were not tried are no issuers of it.
            let untried = issuers.untried.iter().filter(|_| issuers.signed.is_empty());
            for issuer in issuers.signed.iter().chain(untried) {
                below
                    .entry(issuer.fingerprint_sha256.as_str())
                    .or_default()
                    .push(other);
            }
        }
        Below(below)
    }

    pub(crate) fn of(&self, issuer: &Certificate) -> &[&'a Certificate] {
        self.0
            .get(issuer.fingerprint_sha256.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}
