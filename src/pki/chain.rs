//! Chains: the way from a certificate through its issuers up to a self-signed root. Owns the search and the
//! memory of verified signatures; reads certificates only, knows no time.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use jiff::Timestamp;

use super::certificate::Certificate;

/// Certificates from the issuing authority up to and including the root that API Gateway takes. Source:
/// "Configuring mutual TLS authentication", API Gateway Developer Guide.
pub const MAX_CHAIN: usize = 4;
/// Certificates in the longest chain that is searched for, to say that it is too long.
const DEEPEST: usize = 16;
/// Keys that are tried for one certificate: certificates of one name cost no more signatures than these.
const MAX_CANDIDATES: usize = 64;

/// Verdicts on signatures, each verified once: whether a certificate was signed with a key.
#[derive(Default)]
pub struct Signatures {
    /// By the certificate's fingerprint, then by the key's SHA-256.
    verdicts: RefCell<HashMap<String, HashMap<String, bool>>>,
}

impl Signatures {
    /// [`Certificate::is_issued_by`], remembered.
    pub fn issued(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        if certificate.issuer_key != issuer.subject_key {
            return false;
        }
        // Its own name and key: verified when the certificate was read.
        if certificate.spki_sha256 == issuer.spki_sha256 && certificate.subject_key == issuer.subject_key {
            return certificate.self_signed;
        }
        let mut verdicts = self.verdicts.borrow_mut();
        let of_certificate = match verdicts.get_mut(&certificate.fingerprint_sha256) {
            Some(there) => there,
            None => verdicts
                .entry(certificate.fingerprint_sha256.clone())
                .or_default(),
        };
        match of_certificate.get(&issuer.spki_sha256) {
            Some(verdict) => *verdict,
            None => {
                let verdict = certificate.is_issued_by(issuer);
                of_certificate.insert(issuer.spki_sha256.clone(), verdict);
                verdict
            }
        }
    }

    /// The number of signatures that were verified.
    #[cfg(test)]
    pub(crate) fn verified(&self) -> usize {
        self.verdicts.borrow().values().map(HashMap::len).sum()
    }
}

/// The certificates that chains may go through.
pub struct Pool<'p> {
    by_subject: HashMap<&'p str, Vec<&'p Certificate>>,
    signatures: &'p Signatures,
    prefer: Prefer,
    /// The issuers of each certificate that was asked for, by its fingerprint.
    issuers: RefCell<HashMap<String, Rc<SigningKeyCache<'p>>>>,
    /// The best way up from a certificate of the pool, by the number of certificates it may have and its
    /// fingerprint.
    routes: RefCell<HashMap<usize, HashMap<&'p str, Option<Route<'p>>>>>,
}

/// The certificates of a pool that may have issued a certificate.
#[derive(Default)]
pub struct SigningKeyCache<'p> {
    /// Those whose key signed it, those whose key identifier is the one that it names first.
    pub signed: Vec<&'p Certificate>,
    /// Those of its issuer's name whose keys were not tried, because there are too many of them.
    pub untried: Vec<&'p Certificate>,
}

/// The best of several chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The one with the fewest certificates, then the one that expires last: whatever certificates of one
    /// name and key are chosen by it, the chains through them stay as short as they were.
    Shortest,
    /// The one that expires last, then the one with the fewest certificates.
    LatestEnd,
}

/// A chain that was found, without the certificate that it starts from.
#[derive(Clone, Copy)]
pub struct Route<'p> {
    /// `None`: the certificate is self-signed.
    pub issuer: Option<&'p Certificate>,
    /// All certificates of the chain, the first and the root included.
    pub certificates: usize,
    /// The moment at which the first of them expires.
    pub end: Timestamp,
}

/// Why there is no chain: as much of it as there is, the certificate itself first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The issuer of the last one is not in the pool.
    Incomplete(Vec<Certificate>),
    /// It is whole, and longer than asked for.
    TooLong(Vec<Certificate>),
}

impl<'p> Pool<'p> {
    pub fn new(
        certificates: impl IntoIterator<Item = &'p Certificate>,
        prefer: Prefer,
        signatures: &'p Signatures,
    ) -> Pool<'p> {
        let mut by_subject: HashMap<&str, Vec<&Certificate>> = HashMap::new();
        for certificate in certificates {
            let there = by_subject.entry(&certificate.subject_key).or_default();
            if !there.contains(&certificate) {
                there.push(certificate);
            }
        }
        Pool {
            by_subject,
            signatures,
            prefer,
            issuers: RefCell::default(),
            routes: RefCell::default(),
        }
    }

    /// The issuers of this certificate in the pool, without itself; searched for once.
    pub fn issuers(&self, certificate: &Certificate) -> Rc<SigningKeyCache<'p>> {
        if let Some(known) = self.issuers.borrow().get(&certificate.fingerprint_sha256) {
            return known.clone();
        }
        let found = Rc::new(self.search(certificate));
        self.issuers
            .borrow_mut()
            .insert(certificate.fingerprint_sha256.clone(), found.clone());
        found
    }

    fn search(&self, certificate: &Certificate) -> SigningKeyCache<'p> {
        let named = self
            .by_subject
            .get(certificate.issuer_key.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ranks: Vec<_> = named
            .iter()
            .map(|candidate| key_ids(certificate, candidate))
            .collect();
        let by_rank = [KeyIds::Agree, KeyIds::Unknown, KeyIds::Differ]
            .into_iter()
            .flat_map(|rank| {
                named
                    .iter()
                    .zip(&ranks)
                    .filter(move |(_, found)| **found == rank)
                    .map(|(candidate, _)| *candidate)
            });
        // Certificates of one key are one candidate for the signature: many of them hide nobody else's.
        let (mut keys, mut issuers) = (HashSet::new(), SigningKeyCache::default());
        for candidate in by_rank.filter(|candidate| *candidate != certificate) {
            let key = candidate.spki_sha256.as_str();
            if keys.len() >= MAX_CANDIDATES && !keys.contains(key) {
                issuers.untried.push(candidate);
                continue;
            }
            keys.insert(key);
            if self.signatures.issued(certificate, candidate) {
                issuers.signed.push(candidate);
            }
        }
        issuers
    }

    /// The issuer through which the best chain of at most `longest` certificates goes, or any where there is
    /// none.
    pub fn issuer(&self, certificate: &Certificate, longest: usize) -> Option<&'p Certificate> {
        let best = self.best(certificate, longest).and_then(|route| route.issuer);
        best.or_else(|| self.issuers(certificate).signed.first().copied())
    }

    /// The chain from this certificate up to its self-signed root, itself first, at most `longest`
    /// certificates.
    pub fn chain(&self, certificate: &Certificate, longest: usize) -> Result<Vec<Certificate>, Broken> {
        let whole = |longest| {
            let (mut chain, mut route, mut left) = (
                vec![certificate.clone()],
                self.best(certificate, longest)?,
                longest,
            );
            while let Some(issuer) = route.issuer {
                chain.push(issuer.clone());
                left -= 1;
                route = self.route(issuer, left)?;
            }
            Some(chain)
        };
        whole(longest).ok_or_else(|| match whole(DEEPEST.max(longest)) {
            Some(chain) => Broken::TooLong(chain),
            None => Broken::Incomplete(self.start(certificate)),
        })
    }

    /// As much of a chain as there is.
    fn start(&self, certificate: &Certificate) -> Vec<Certificate> {
        let mut chain = vec![certificate.clone()];
        loop {
            let issuers = self.issuers(&chain[chain.len() - 1]);
            let Some(next) = issuers.signed.iter().find(|next| !chain.contains(next)) else {
                return chain;
            };
            chain.push((*next).clone());
        }
    }

    /// The best chain of at most `longest` certificates. The bound ends circles of cross-signed authorities
    /// too.
    pub fn best(&self, certificate: &Certificate, longest: usize) -> Option<Route<'p>> {
        if longest > 0 && certificate.self_signed {
            return Some(Route {
                issuer: None,
                certificates: 1,
                end: certificate.not_after,
            });
        }
        if longest < 2 {
            return None;
        }
        let issuers = self.issuers(certificate);
        let routes = issuers.signed.iter().copied().filter_map(|issuer| {
            let above = self.route(issuer, longest - 1)?;
            let end = above.end.min(certificate.not_after);
            let route = Route {
                issuer: Some(issuer),
                certificates: above.certificates + 1,
                end,
            };
            Some((key_ids(certificate, issuer) != KeyIds::Differ, route))
        });
        let least = Timestamp::MIN;
        let best = routes.max_by_key(|(agree, route)| match self.prefer {
            Prefer::Shortest => (*agree, least, Reverse(route.certificates), route.end),
            Prefer::LatestEnd => (*agree, route.end, Reverse(route.certificates), least),
        });
        best.map(|(_, route)| route)
    }

    /// [`Pool::best`] of a certificate of the pool, searched for once.
    fn route(&self, certificate: &'p Certificate, longest: usize) -> Option<Route<'p>> {
        let fingerprint = certificate.fingerprint_sha256.as_str();
        let known = self
            .routes
            .borrow()
            .get(&longest)
            .and_then(|routes| routes.get(fingerprint).copied());
        known.unwrap_or_else(|| {
            let route = self.best(certificate, longest);
            self.routes
                .borrow_mut()
                .entry(longest)
                .or_default()
                .insert(fingerprint, route);
            route
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KeyIds {
    Differ,
    Unknown,
    Agree,
}

/// OpenSSL takes an issuer whose key identifier is another than the certificate names for none; so it comes
/// last here.
fn key_ids(certificate: &Certificate, issuer: &Certificate) -> KeyIds {
    match (&certificate.authority_key_id, &issuer.subject_key_id) {
        (Some(named), Some(there)) if is_hex_of(named, there) => KeyIds::Agree,
        (Some(_), Some(_)) => KeyIds::Differ,
        _ => KeyIds::Unknown,
    }
}

fn is_hex_of(text: &str, bytes: &[u8]) -> bool {
    text.len() == 2 * bytes.len()
        && text.as_bytes().chunks(2).zip(bytes).all(|(digits, byte)| {
            let digit = |at: usize| char::from(digits[at]).to_digit(16);
            digit(0)
                .zip(digit(1))
                .is_some_and(|(high, low)| high * 16 + low == u32::from(*byte))
        })
}

/// [`Pool::chain`] of one certificate among `pool`: the one that expires last of those that API Gateway
/// takes, else a longer one. `Err`: as much of it as there is.
pub fn chain(certificate: &Certificate, pool: &[Certificate]) -> Result<Vec<Certificate>, Vec<Certificate>> {
    let signatures = Signatures::default();
    match Pool::new(pool, Prefer::LatestEnd, &signatures).chain(certificate, MAX_CHAIN) {
        Ok(chain) | Err(Broken::TooLong(chain)) => Ok(chain),
        Err(Broken::Incomplete(chain)) => Err(chain),
    }
}
