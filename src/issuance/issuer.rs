//! The issuer of an authority's leaves. Its answer may be pending: an issuer outside the process takes a
//! request and is asked again.

use std::sync::Arc;

use jiff::Timestamp;

use crate::pki::{
    authority::{AuthorityChain, SigningAuthority},
    leaf::{self, IssueError, Leaf, LeafRequest},
};

/// Signer of an authority's leaves.
#[derive(Clone)]
pub enum Issuer {
    /// Private key in the authority's Secret: signs in memory, and answers at once.
    SecretKey(Arc<SigningAuthority>),
    /// Issuer of the tests, which takes a request and answers later.
    #[cfg(test)]
    Deferred(Arc<tests::Deferred>),
}

/// Answer of an issuer to a request.
pub enum Answer {
    Issued(Box<Leaf>),
    /// The issuer has the request, and issues later.
    // Only the tests have such an issuer. The variants to come answer so: cert-manager, AWS Private CA.
    #[cfg_attr(not(test), allow(dead_code))]
    Pending,
}

impl Issuer {
    /// Returns the authority that the issuer signs for, with its chain.
    pub fn chain(&self) -> &AuthorityChain {
        match self {
            Issuer::SecretKey(authority) => authority.chain(),
            #[cfg(test)]
            Issuer::Deferred(deferred) => deferred.authority.chain(),
        }
    }

    /// True when the issuer may answer [`Answer::Pending`]. The private key of a request must then be staged
    /// before the request: after a crash, another key would be another request.
    pub fn may_be_pending(&self) -> bool {
        match self {
            Issuer::SecretKey(_) => false,
            #[cfg(test)]
            Issuer::Deferred(_) => true,
        }
    }

    /// Asks for a leaf for a key (DER SubjectPublicKeyInfo). `revision`: number of the leaf in its Secret. A
    /// second request with the same content, key and revision continues the first one.
    pub async fn ask(
        &self,
        request: &LeafRequest,
        spki: &[u8],
        #[cfg_attr(not(test), allow(unused_variables))] revision: i64,
        now: Timestamp,
    ) -> Result<Answer, IssueError> {
        match self {
            Issuer::SecretKey(authority) => {
                let leaf = leaf::issue(request, spki, authority, now)?;
                Ok(Answer::Issued(Box::new(leaf)))
            }
            #[cfg(test)]
            Issuer::Deferred(deferred) => deferred.ask(request, spki, revision, now),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use std::sync::Mutex;

    /// Issuer that answers each request after some further requests for it.
    pub struct Deferred {
        pub authority: SigningAuthority,
        /// Number of pending answers to each request.
        pub pending: usize,
        pub taken: Mutex<Vec<Taken>>,
    }

    /// Request that the issuer has.
    pub struct Taken {
        pub request: LeafRequest,
        pub spki: Vec<u8>,
        revision: i64,
        asked: usize,
        pub leaf: Option<Leaf>,
    }

    impl Deferred {
        pub fn new(authority: SigningAuthority, pending: usize) -> Deferred {
            Deferred {
                authority,
                pending,
                taken: Mutex::default(),
            }
        }

        pub fn ask(
            &self,
            request: &LeafRequest,
            spki: &[u8],
            revision: i64,
            now: Timestamp,
        ) -> Result<Answer, IssueError> {
            let mut all = self.taken.lock().unwrap();
            let is_it = |taken: &Taken| {
                (&taken.request, &taken.spki[..], taken.revision) == (request, spki, revision)
            };
            let at = all.iter().position(is_it).unwrap_or_else(|| {
                all.push(Taken {
                    request: request.clone(),
                    spki: spki.to_vec(),
                    revision,
                    asked: 0,
                    leaf: None,
                });
                all.len() - 1
            });
            let taken = &mut all[at];
            taken.asked += 1;
            if taken.asked <= self.pending {
                return Ok(Answer::Pending);
            }
            if taken.leaf.is_none() {
                taken.leaf = Some(leaf::issue(request, spki, &self.authority, now)?);
            }
            let leaf = taken.leaf.clone().map(Box::new);
            Ok(leaf.map_or(Answer::Pending, Answer::Issued))
        }
    }
}
