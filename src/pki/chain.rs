//! Chains: the certificates from one certificate through its issuers up to a self-signed root. Owns the
//! search and the cache of verified signatures; reads certificates only, knows no time.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use jiff::Timestamp;

use super::certificate::Certificate;

/// Maximum number of certificates in a chain that API Gateway takes, from the issuing authority up to and
/// including the root. Source: "Configuring mutual TLS authentication", API Gateway Developer Guide.
pub const MAX_CHAIN: usize = 4;
/// Maximum number of certificates in a chain that the search follows, to report that the chain is too long.
const DEEPEST: usize = 16;
/// Maximum number of keys that the search tries for one certificate: it bounds the cost of many certificates
/// of one name.
pub const MAX_CANDIDATES: usize = 64;

/// Cache of signature checks, each verified once: whether a key signed a certificate. It may have an end, after
/// which it verifies nothing more.
#[derive(Default)]
pub struct Signatures<'l> {
    /// Results by the certificate's fingerprint, then by the key's SHA-256.
    verdicts: RefCell<HashMap<String, HashMap<String, bool>>>,
    /// Tells when to end; `None`: never.
    limit: Option<&'l dyn Fn() -> bool>,
    ended: Cell<bool>,
}

impl<'l> Signatures<'l> {
    /// Creates a cache that ends as soon as `limit` returns true.
    pub fn until(limit: &'l dyn Fn() -> bool) -> Signatures<'l> {
        Signatures {
            limit: Some(limit),
            ..Signatures::default()
        }
    }

    /// True once the time for the checks is over: whatever was computed with them is worthless. Every loop whose
    /// length an author of certificates chooses asks.
    pub fn have_ended(&self) -> bool {
        if !self.ended.get() {
            self.ended.set(self.limit.is_some_and(|limit| limit()));
        }
        self.ended.get()
    }

    /// Returns the fingerprint of the certificate for which the most keys were tried.
    pub fn most_tried(&self) -> Option<String> {
        let verdicts = self.verdicts.borrow();
        let most = verdicts.iter().max_by_key(|(_, keys)| keys.len());
        most.map(|(fingerprint, _)| fingerprint.clone())
    }

    /// Returns [`Certificate::is_issued_by`] from the cache, or verifies and caches it.
    pub fn issued(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        if certificate.issuer_key != issuer.subject_key {
            return false;
        }
        // Same name and key: the parser of the certificate has verified this signature.
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
            None if self.have_ended() => false,
            None => {
                let verdict = certificate.is_issued_by(issuer);
                of_certificate.insert(issuer.spki_sha256.clone(), verdict);
                verdict
            }
        }
    }

    /// Returns the number of verified signatures.
    #[cfg(test)]
    pub(crate) fn verified(&self) -> usize {
        self.verdicts.borrow().values().map(HashMap::len).sum()
    }
}

/// Certificates that chains may go through.
pub struct Pool<'p> {
    by_subject: HashMap<&'p str, Vec<&'p Certificate>>,
    signatures: &'p Signatures<'p>,
    prefer: Prefer,
    /// Cache of the issuers of a certificate, by its fingerprint.
    issuers: RefCell<HashMap<String, Rc<IssuerSearch<'p>>>>,
    /// Cache of the best route from a certificate of the pool, by the maximum number of certificates and its
    /// fingerprint.
    routes: RefCell<HashMap<usize, HashMap<&'p str, Option<Route<'p>>>>>,
}

/// Certificates of a pool that may have issued a certificate.
#[derive(Default)]
pub struct IssuerSearch<'p> {
    /// Issuers whose key signed the certificate, those with an agreeing key identifier first.
    pub signed: Vec<&'p Certificate>,
    /// Certificates of the issuer's name whose keys the search did not try, because there are too many.
    pub untried: Vec<&'p Certificate>,
}

/// Preference among several chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// Prefers the chain with the fewest certificates, then the chain that expires last. Chains through
    /// certificates chosen by this preference stay as short as they were.
    Shortest,
    /// Prefers the chain that expires last, then the chain with the fewest certificates.
    LatestEnd,
}

/// Chain that was found, without its first certificate.
#[derive(Clone, Copy)]
pub struct Route<'p> {
    /// Issuer of the first certificate; `None`: it is self-signed.
    pub issuer: Option<&'p Certificate>,
    /// Number of certificates in the chain, the first and the root included.
    pub certificates: usize,
    /// Earliest expiry in the chain.
    pub end: Timestamp,
}

/// Reason why there is no chain, with the part that exists, the certificate itself first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The issuer of the last certificate is not in the pool.
    Incomplete(Vec<Certificate>),
    /// The chain is whole, and longer than requested.
    TooLong(Vec<Certificate>),
}

impl<'p> Pool<'p> {
    pub fn new(
        certificates: impl IntoIterator<Item = &'p Certificate>,
        prefer: Prefer,
        signatures: &'p Signatures<'p>,
    ) -> Pool<'p> {
        let mut by_subject: HashMap<&str, Vec<&Certificate>> = HashMap::new();
        let mut there = HashSet::new();
        for certificate in certificates {
            if there.insert(certificate.fingerprint_sha256.as_str()) {
                by_subject
                    .entry(&certificate.subject_key)
                    .or_default()
                    .push(certificate);
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

    /// Returns the issuers of this certificate in the pool; a self-signed one has none. Searches once.
    pub fn issuers(&self, certificate: &Certificate) -> Rc<IssuerSearch<'p>> {
        if let Some(known) = self.issuers.borrow().get(&certificate.fingerprint_sha256) {
            return known.clone();
        }
        let found = Rc::new(self.search(certificate));
        self.issuers
            .borrow_mut()
            .insert(certificate.fingerprint_sha256.clone(), found.clone());
        found
    }

    fn search(&self, certificate: &Certificate) -> IssuerSearch<'p> {
        if certificate.self_signed {
            return IssuerSearch::default();
        }
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
        // Certificates of one key are one candidate for the signature: many of them do not displace another
        // key.
        let (mut keys, mut issuers) = (HashSet::new(), IssuerSearch::default());
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

    /// Returns the issuer on the best chain of at most `longest` certificates, or any issuer when there is no
    /// such chain.
    pub fn issuer(&self, certificate: &Certificate, longest: usize) -> Option<&'p Certificate> {
        let best = self.best(certificate, longest).and_then(|route| route.issuer);
        best.or_else(|| self.issuers(certificate).signed.first().copied())
    }

    /// Returns the chain from this certificate up to its self-signed root, itself first, with at most
    /// `longest` certificates.
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

    /// Returns the part of a chain that exists, up to [`DEEPEST`] certificates of it.
    fn start(&self, certificate: &Certificate) -> Vec<Certificate> {
        let mut chain = vec![certificate.clone()];
        while chain.len() < DEEPEST {
            let issuers = self.issuers(&chain[chain.len() - 1]);
            let Some(next) = issuers.signed.iter().find(|next| !chain.contains(next)) else {
                break;
            };
            chain.push((*next).clone());
        }
        chain
    }

    /// Returns the best chain of at most `longest` certificates. The bound also ends circles of cross-signed
    /// authorities.
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

    /// Returns [`Pool::best`] of a certificate of the pool; searches once.
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

/// Compares the key identifier that the certificate names with the issuer's. OpenSSL ignores an issuer with
/// another key identifier, so such an issuer ranks last here.
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

/// Returns [`Pool::chain`] of one certificate among `pool`: among chains that API Gateway takes, the one that
/// expires last, else a longer chain. `Err`: the part of the chain that exists.
pub fn chain(certificate: &Certificate, pool: &[Certificate]) -> Result<Vec<Certificate>, Vec<Certificate>> {
    let signatures = Signatures::default();
    match Pool::new(pool, Prefer::LatestEnd, &signatures).chain(certificate, MAX_CHAIN) {
        Ok(chain) | Err(Broken::TooLong(chain)) => Ok(chain),
        Err(Broken::Incomplete(chain)) => Err(chain),
    }
}
