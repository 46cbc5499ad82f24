//! Lint of certificates before a truststore is uploaded: problems that API Gateway would refuse, or warn
//! about once and never again. Pure.
//!
//! Rules without another source: "Configuring mutual TLS authentication", API Gateway Developer Guide.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use super::{
    certificate::{Certificate, signature::SignatureClass},
    chain::{Broken, MAX_CHAIN, Pool},
    constraints,
    keys::KeyStrength,
    pem_error::ParseError,
    truststore::identity,
};

/// Maximum number of certificates in one truststore. Reported by users of API Gateway, on no AWS page that we
/// know.
pub const MAX_CERTIFICATES: usize = 1000;
/// Maximum bytes of one truststore object. Reported by users of API Gateway, on no AWS page that we know.
pub const MAX_BYTES: usize = 1_000_000;
/// Time before its end from which a certificate gets a warning: AWS does not warn.
pub const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Finding about one authority's certificates, for its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Name of the authority in the spec; empty for a finding about the whole truststore.
    pub authority: String,
    /// Subject by RFC 4514; empty for a finding that is not about one certificate.
    pub subject: String,
    pub reason: Reason,
    /// Problem and remedy, to be read after the subject if there is one. Stays equal while its cause does.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The authority's new content is not published; the last good content stays.
    Refused,
    /// This certificate is not published; the rest is.
    Dropped,
    Warning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The Secret, ConfigMap or key that should hold the certificates is missing, or the operator may not
    /// read it.
    SourceMissing,
    /// The content is not PEM, has no certificate, or has a block that does not parse.
    Unreadable,
    PrivateKeyFound,
    NotAnAuthority,
    ChainIncomplete,
    ChainTooDeep,
    WeakKey,
    WeakSignature,
    /// Ed25519 and other algorithms that AWS does not list as supported.
    UnsupportedAlgorithm,
    /// P-521: AWS's "ECDSA-256 or stronger" covers it, but no user has reported that it works.
    UnprovenAlgorithm,
    /// Two certificates of one authority share a subject but not a key.
    DuplicateSubject,
    /// The subject belongs to another key that is trusted already and still needed.
    SubjectReused,
    /// The certificate does not fit into the truststore beside the certificates that come first.
    TooLarge,
    /// The result would have been an empty truststore.
    WouldBeEmpty,
    /// A label selector finds no object.
    NothingSelected,
    Expired,
    /// Another entry of the spec distrusts the certificate, or its issuer.
    Distrusted,
    /// The chain above the certificate has expired.
    IssuerExpired,
    /// Another certificate of the same name and key is trusted in place of this one.
    Redundant,
    /// A Distrusted authority's source cannot be read, and the truststore records nothing of it: its distrust
    /// has no effect.
    DistrustUnread,
    /// A Distrusted authority's source cannot be read, or no longer lists a key that it listed: its keys stay
    /// distrusted.
    DistrustKept,
    /// A Distrusted authority has never kept a certificate out of the truststore.
    DistrustsNothing,
    /// A Distrusted authority lists a single client's certificate, which is trusted through its issuer.
    DistrustsLeaf,
    /// A Distrusted authority lists the certificate as the issuer of another one, and another authority needs
    /// it.
    DistrustSpares,
    /// The certificate stands beside an authority's certificate and is not in its chain.
    Unrelated,
    /// A rule of this release leaves the certificate out. It is trusted already and stays until its authority
    /// is edited.
    WouldBeRefused,
    NotYetValid,
    Version1,
    ExpiresSoon,
    /// Constraints of an authority in the chain admit no client certificate below it.
    Constrained,
}

/// Reason why an authority's certificates are not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("its source is missing")]
    Missing,
    /// The Kubernetes API did not answer: the operator knows nothing, and holds nothing against the
    /// authority.
    #[error("its source could not be read")]
    Unseen,
    #[error(transparent)]
    Unreadable(#[from] ParseError),
}

impl SourceError {
    pub(crate) fn finding(&self, authority: &str) -> Finding {
        let reason = match self {
            SourceError::Missing | SourceError::Unseen => Reason::SourceMissing,
            SourceError::Unreadable(ParseError::PrivateKey) => Reason::PrivateKeyFound,
            SourceError::Unreadable(_) => Reason::Unreadable,
        };
        let authority = authority.to_owned();
        Finding {
            severity: Severity::Refused,
            authority,
            subject: String::new(),
            reason,
            message: self.to_string(),
        }
    }
}

/// Certificates that chains may go through.
#[derive(Clone, Copy)]
pub struct Pools<'a> {
    /// Certificates that have not expired.
    pub valid: &'a Pool<'a>,
    /// All certificates, expired ones included.
    pub all: &'a Pool<'a>,
}

/// Result of the lint of one authority's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linted {
    pub findings: Vec<Finding>,
    /// Certificates that may be published, all of those with one name and key.
    pub sound: Vec<Certificate>,
    /// Certificates that cannot be published because the chain above them has expired.
    pub stranded: Vec<Certificate>,
}

/// Checks one authority's certificates. `max_leaf`: the longest lifetime of a leaf when the authority issues.
pub fn lint(
    authority: &str,
    certificates: &[Certificate],
    pools: Pools<'_>,
    max_leaf: Option<SignedDuration>,
    now: Timestamp,
) -> Linted {
    let mut linted = Linted::default();
    let valid = |certificate: &Certificate| now < certificate.not_after;
    // Names and keys that had a whole chain before a certificate expired, in a twin's chain too.
    let once: HashSet<_> = certificates
        .iter()
        .filter(|c| pools.all.best(c, MAX_CHAIN).is_some())
        .map(identity)
        .collect();
    let problem = |c: &Certificate| refusal(c, pools, once.contains(&identity(c)));
    let problems: Vec<_> = certificates
        .iter()
        .map(|c| valid(c).then(|| problem(c)).flatten())
        .collect();
    let has_sound_twin = |certificate: &Certificate| {
        let judged = certificates.iter().zip(&problems);
        judged.into_iter().any(|(twin, problem)| {
            identity(twin) == identity(certificate) && valid(twin) && problem.is_none()
        })
    };
    for (at, (certificate, problem)) in certificates.iter().zip(&problems).enumerate() {
        let earlier = &certificates[..at];
        if earlier.contains(certificate) {
            continue;
        }
        let mut add = |severity, reason, message: String| {
            let (authority, subject) = (authority.to_owned(), certificate.subject.clone());
            linted.findings.push(Finding {
                severity,
                authority,
                subject,
                reason,
                message,
            });
        };
        if !valid(certificate) {
            let message = format!("expired at {}: replace it", certificate.not_after);
            add(Severity::Dropped, Reason::Expired, message);
            continue;
        }
        if earlier
            .iter()
            .any(|other| valid(other) && is_other_key(other, certificate))
        {
            let message = "has the subject of another certificate here, with another key: API Gateway \
                           refuses that; give one of them another subject";
            add(Severity::Refused, Reason::DuplicateSubject, message.to_owned());
            continue;
        }
        if let Some((reason, message)) = problem {
            // A certificate that another one of its name and key makes redundant is no reason to refuse the
            // authority.
            if !has_sound_twin(certificate) {
                let stranded = *reason == Reason::IssuerExpired;
                add(
                    if stranded {
                        Severity::Dropped
                    } else {
                        Severity::Refused
                    },
                    *reason,
                    message.clone(),
                );
                linted.stranded.extend(stranded.then(|| certificate.clone()));
            }
            continue;
        }
        if now < certificate.not_before {
            let message = format!(
                "is not valid before {}: API Gateway accepts no caller with it until then",
                certificate.not_before
            );
            add(Severity::Warning, Reason::NotYetValid, message);
        }
        if certificate.version < 3 {
            let message = format!(
                "is X.509 version {}: make it again as version 3",
                certificate.version
            );
            add(Severity::Warning, Reason::Version1, message);
        }
        if certificate.key == KeyStrength::EcdsaP521 {
            let message = "has a P-521 key, which API Gateway's documentation does not name: P-256 and P-384 \
                           are sure to work";
            add(Severity::Warning, Reason::UnprovenAlgorithm, message.to_owned());
        }
        if let Some(violation) = violation(certificate, pools) {
            let message =
                format!("admits no client certificate: {violation}. API Gateway may refuse its callers");
            add(Severity::Warning, Reason::Constrained, message);
        }
        let soon = max_leaf.unwrap_or_default().max(EXPIRES_SOON);
        if certificate.not_after.duration_since(now) < soon {
            let message = format!(
                "expires at {}: add its successor, AWS does not warn",
                certificate.not_after
            );
            add(Severity::Warning, Reason::ExpiresSoon, message);
        }
        linted.sound.push(certificate.clone());
    }
    linted
}

/// True for one subject with two keys.
pub(crate) fn is_other_key(one: &Certificate, other: &Certificate) -> bool {
    one.subject_key == other.subject_key && one.spki_sha256 != other.spki_sha256
}

/// Returns the constraint that no client certificate under this one can meet. A self-signed client
/// certificate is no authority, and does not need the properties of one.
fn violation(certificate: &Certificate, pools: Pools<'_>) -> Option<constraints::Violation> {
    let authority = certificate.is_ca || !certificate.self_signed;
    let chain = pools
        .valid
        .chain(certificate, MAX_CHAIN)
        .ok()
        .filter(|_| authority)?;
    constraints::of_authorities(&chain)
}

/// Returns the reason why API Gateway takes no certificate with this key or signature.
pub fn weakness(certificate: &Certificate) -> Option<(Reason, String)> {
    match certificate.key {
        KeyStrength::Rsa(bits) if bits < 2048 => {
            return Some((
                Reason::WeakKey,
                format!("has an RSA key of {bits} bits: use 2048 or more"),
            ));
        }
        KeyStrength::Rsa(_) | KeyStrength::EcdsaP256 | KeyStrength::EcdsaP384 | KeyStrength::EcdsaP521 => {}
        KeyStrength::Ed25519 | KeyStrength::Other => {
            let what = if certificate.key == KeyStrength::Ed25519 {
                "an Ed25519 key"
            } else {
                "a kind of key"
            };
            let message = format!(
                "has {what} that API Gateway does not support: use RSA from 2048 bits, P-256 or P-384"
            );
            return Some((Reason::UnsupportedAlgorithm, message));
        }
    }
    match certificate.signature {
        SignatureClass::Sha2 => None,
        SignatureClass::Sha1 => {
            let message = "is signed with SHA-1: have it signed with SHA-256 or stronger";
            Some((Reason::WeakSignature, message.to_owned()))
        }
        SignatureClass::Other => {
            let message = "is signed in a way that API Gateway does not support: use SHA-256 or stronger \
                           with RSA or ECDSA";
            Some((Reason::UnsupportedAlgorithm, message.to_owned()))
        }
    }
}

/// Returns the reason to refuse a certificate. `once`: its chain was whole before a certificate of it
/// expired.
fn refusal(certificate: &Certificate, pools: Pools<'_>, once: bool) -> Option<(Reason, String)> {
    if let Some(weakness) = weakness(certificate) {
        return Some(weakness);
    }
    if !certificate.is_ca && !certificate.self_signed {
        let message = "is neither an authority (CA:TRUE) nor self-signed: give the certificate of its issuer";
        return Some((
            Reason::NotAnAuthority,
            format!("{message}, {}", certificate.issuer),
        ));
    }
    let broken = pools.valid.chain(certificate, MAX_CHAIN).err()?;
    if once {
        let message = "is left out: its chain has expired; add a valid one, or take it out";
        return Some((Reason::IssuerExpired, message.to_owned()));
    }
    if let Broken::TooLong(chain) = broken {
        let message = format!(
            "is {} certificates below its root, and API Gateway takes chains of {MAX_CHAIN} in all: leave it \
             out, or have it issued nearer to the root",
            chain.len() - 1
        );
        return Some((Reason::ChainTooDeep, message));
    }
    let (Broken::Incomplete(chain) | Broken::TooLong(chain)) = broken;
    let last = chain.last().unwrap_or(certificate);
    let message = if last == certificate {
        format!(
            "has no issuer here: add it, {}, and the chain from there up to the root",
            last.issuer
        )
    } else {
        format!(
            "has no whole chain to its root: it stops at {}; add its issuer, {}",
            last.subject, last.issuer
        )
    };
    Some((Reason::ChainIncomplete, message))
}

#[cfg(test)]
pub(crate) mod tests;
