//! What each source offers to the next truststore: its certificates without those that the truststore must
//! not hold. Pure.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::pki::{
    certificate::Certificate,
    chain::{Pool, Prefer, Signatures},
    lint::{Finding, Pools, Reason, Severity, SourceError, lint},
    truststore::{Bundle, Entry, identity},
};

/// Authority of the spec.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name in the spec, with `/` and the object's name when the authority selects several objects.
    pub authority: String,
    pub state: State,
    /// True when leaves may be issued from now on with the key of the first certificate.
    pub issues: bool,
    /// Longest lifetime of any leaf that may be issued under the authority. The truststore records it before
    /// the first such leaf is issued.
    pub longest_leaf: Option<SignedDuration>,
    /// Certificates: the issuing one first, then its chain up to the root; for trust-only authorities in any
    /// order.
    pub certificates: Result<Vec<Certificate>, SourceError>,
    /// Certificates that count only when they complete the chains of `certificates`: `ca.crt` beside
    /// `tls.crt`.
    pub completing: Vec<Certificate>,
    /// True for the certificate of a single client, which goes into the truststore after all authorities.
    pub client: bool,
    /// Part of the truststore that the certificates of several clients share.
    pub share: Option<Share>,
}

/// Part of the truststore for the clients of one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub grant: String,
    /// Maximum bytes of their certificates with the comments.
    pub bytes: usize,
}

impl Source {
    /// Returns the listed certificates without the strangers; none when the source cannot be read.
    pub(crate) fn own(&self, signatures: &Signatures<'_>) -> Vec<Certificate> {
        let strangers = self.strangers(signatures);
        self.listed()
            .filter(|certificate| !strangers.contains(certificate))
            .cloned()
            .collect()
    }

    pub(crate) fn listed(&self) -> impl Iterator<Item = &Certificate> {
        let beside = self.completing.iter().filter(|_| self.certificates.is_ok());
        self.certificates.iter().flatten().chain(beside)
    }

    /// Returns the certificates of `completing` that lie on no chain from the source's certificates, each
    /// once. All chains count, those of other certificates of the same name and key too.
    pub(crate) fn strangers(&self, signatures: &Signatures<'_>) -> Vec<&Certificate> {
        if self.certificates.is_err() || self.completing.is_empty() {
            return Vec::new();
        }
        let pool = Pool::new(&self.completing, Prefer::Shortest, signatures);
        let mut twins: HashMap<_, Vec<&Certificate>> = HashMap::new();
        for certificate in &self.completing {
            twins.entry(identity(certificate)).or_default().push(certificate);
        }
        let mut chain: Vec<&Certificate> = self.certificates.iter().flatten().collect();
        let mut joined = HashSet::new();
        let mut at = 0;
        while let Some(below) = chain.get(at).copied() {
            at += 1;
            let issuers = pool.issuers(below);
            let twins = twins.get(&identity(below)).into_iter().flatten();
            chain.extend(
                issuers
                    .signed
                    .iter()
                    .chain(twins)
                    .filter(|c| joined.insert(c.fingerprint_sha256.as_str())),
            );
        }
        // The filter returns each certificate once.
        self.completing
            .iter()
            .filter(|c| joined.insert(c.fingerprint_sha256.as_str()))
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    /// Leaves the truststore at once, with all certificates issued under it. The truststore records its keys.
    Distrusted,
    /// Entries under its name leave the truststore at once. The truststore records nothing of it.
    Withdrawn,
}

/// Input that decides the content of a truststore.
#[derive(Clone, Debug)]
pub struct CompileInput<'a> {
    /// Sources in the order of the spec.
    pub sources: &'a [Source],
    /// Truststore that the domain uses now; `None`: there is none yet.
    pub previous: Option<&'a Bundle>,
    /// Maximum time that a superseded certificate stays; `None`: as long as a leaf under it can live.
    pub overlap: Option<SignedDuration>,
    pub now: Timestamp,
}

/// Active authority on its way into the bundle.
pub(crate) struct Offer<'a> {
    pub(crate) source: &'a Source,
    /// Certificates that are not distrusted; [`Offer::lint`] removes those that expired or are not sound.
    pub(crate) certificates: Vec<Certificate>,
    /// Certificates below an expired authority: not published, and kept where they are in the truststore.
    pub(crate) stranded: Vec<Certificate>,
    pub(crate) state: OfferState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferState {
    Accepted,
    /// Broken, or refused by lint: the last good certificates stay as they are.
    LastGood,
    /// The authority's key was replaced under the same subject: the last good certificates stay as long as
    /// leaves under them can live.
    Reused,
}

impl<'a> Offer<'a> {
    pub(crate) fn new(
        source: &'a Source,
        is_distrusted: &dyn Fn(&Certificate) -> bool,
        living: &[&Entry],
        signatures: &Signatures<'_>,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) -> Offer<'a> {
        let mut offer = Offer {
            source,
            certificates: Vec::new(),
            stranded: Vec::new(),
            state: OfferState::Accepted,
        };
        if let Err(error) = &source.certificates {
            findings.push(error.finding(&source.authority));
            offer.state = OfferState::LastGood;
        }
        let (strangers, mut told) = (source.strangers(signatures), Vec::new());
        let unedited = !strangers.is_empty() && offer.is_unedited(is_distrusted, living, now);
        let stays = |certificate: &Certificate| {
            let own = living
                .iter()
                .filter(|e| e.authority == source.authority && e.keep_until.is_none());
            unedited
                && own
                    .into_iter()
                    .any(|entry| entry.identity() == identity(certificate))
        };
        for certificate in source.listed() {
            let is_stranger = strangers.contains(&certificate);
            if is_stranger && told.contains(&certificate) {
                continue;
            }
            let mut add = |severity, reason, message: &str| {
                let (authority, subject) = (source.authority.clone(), certificate.subject.clone());
                findings.push(Finding {
                    severity,
                    authority,
                    subject,
                    reason,
                    message: message.to_owned(),
                });
            };
            if is_stranger && !stays(certificate) {
                let message = "stands in ca.crt and does not complete the chain of tls.crt: this authority \
                               does not bring it into the truststore. To trust it, list it in an authority \
                               of its own";
                told.push(certificate);
                add(Severity::Dropped, Reason::Unrelated, message);
            } else if is_distrusted(certificate) {
                let message = "is left out: another entry of the spec distrusts it, or its issuer";
                add(Severity::Dropped, Reason::Distrusted, message);
            } else {
                if is_stranger {
                    told.push(certificate);
                    let message = "stands in ca.crt and does not complete the chain of tls.crt. An earlier \
                                   release trusted it, and it leaves the truststore as soon as this \
                                   authority changes: to keep it, list it in an authority of its own; to end \
                                   it, take it out of ca.crt";
                    add(Severity::Warning, Reason::WouldBeRefused, message);
                }
                offer.certificates.push(certificate.clone());
            }
        }
        offer
    }

    /// True when the source equals the current truststore: every valid certificate of the source is there,
    /// and the source lists every entry under its name.
    pub(crate) fn is_unedited(
        &self,
        is_distrusted: &dyn Fn(&Certificate) -> bool,
        living: &[&Entry],
        now: Timestamp,
    ) -> bool {
        let valid = |certificate: &&Certificate| now < certificate.not_after && !is_distrusted(certificate);
        let is_there = |c: &Certificate| living.iter().any(|entry| entry.identity() == identity(c));
        let own = |entry: &&&Entry| entry.authority == self.source.authority && entry.keep_until.is_none();
        let is_listed = |entry: &&Entry| self.source.listed().any(|c| identity(c) == entry.identity());
        self.source.listed().filter(valid).all(is_there) && living.iter().filter(own).all(is_listed)
    }

    pub(crate) fn max_leaf(&self) -> Option<SignedDuration> {
        self.source
            .longest_leaf
            .filter(|_| self.source.issues)
            .map(whole_seconds)
    }

    /// True when the spec lists this name and key, still valid, published or not.
    pub(crate) fn lists(&self, certificate: &Certificate) -> bool {
        contains(&self.certificates, certificate)
    }

    pub(crate) fn lint(
        &mut self,
        pools: Pools<'_>,
        living: &[&Entry],
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        if self.state != OfferState::Accepted {
            return;
        }
        let linted = lint(
            &self.source.authority,
            &self.certificates,
            pools,
            self.max_leaf(),
            now,
        );
        if linted
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Refused)
        {
            self.state = OfferState::LastGood;
            self.certificates
                .retain(|certificate| now < certificate.not_after);
        } else {
            (self.certificates, self.stranded) = (linted.sound, linted.stranded);
        }
        // Without a certificate left the source counts as broken, so that a mistake does not lock out the
        // current callers.
        if self.certificates.is_empty() && self.last_good(living).next().is_some() {
            self.state = OfferState::LastGood;
        }
        findings.extend(linted.findings);
    }

    /// Returns a finding for each certificate in whose place another one of its name and key, from the same
    /// source, is trusted.
    pub(crate) fn redundant(&self, bundle: &Bundle, now: Timestamp) -> Vec<Finding> {
        let valid = self
            .source
            .listed()
            .filter(|certificate| now < certificate.not_after && self.state == OfferState::Accepted);
        let mut findings: Vec<Finding> = Vec::new();
        for certificate in valid {
            let Some(entry) = bundle
                .find(certificate)
                .filter(|entry| entry.certificate != *certificate)
            else {
                continue;
            };
            let twin = &entry.certificate;
            let by = if twin.self_signed { "itself" } else { &twin.issuer };
            let (issuer, owner) = (&certificate.issuer, &entry.authority);
            let message = if self.certificates.contains(twin) {
                format!(
                    "of issuer {issuer} is left out: the one of the same name and key that is signed by {by} \
                     is trusted in its place, and API Gateway accepts the callers of both"
                )
            } else if *owner != self.source.authority {
                format!(
                    "of issuer {issuer} is left out: authority {owner} lists one of the same name and key, \
                     signed by {by}, which is trusted in its place as long as that authority lists it"
                )
            } else {
                continue;
            };
            let finding = Finding {
                severity: Severity::Dropped,
                authority: self.source.authority.clone(),
                subject: certificate.subject.clone(),
                reason: Reason::Redundant,
                message,
            };
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings
    }

    /// Returns this authority's entries in the current truststore that no other certificate has replaced yet.
    pub(crate) fn last_good<'e>(&self, living: &[&'e Entry]) -> impl Iterator<Item = &'e Entry> {
        living.iter().copied().filter(|entry| {
            let superseded = self.state == OfferState::Reused
                && entry.max_leaf.is_some()
                && !self.lists(&entry.certificate);
            let own = entry.authority == self.source.authority || self.lists(&entry.certificate);
            own && entry.keep_until.is_none() && !superseded
        })
    }
}

/// Returns the time at which an entry leaves when no authority issues under it any more: the end of the
/// longest leaf under it, issued at the last moment. Set once; only `overlap` makes it earlier. `None`: no
/// leaf of the operator depends on the entry.
pub(crate) fn keep_until(entry: &Entry, input: &CompileInput<'_>) -> Option<Timestamp> {
    let max_leaf = entry.max_leaf?;
    let until = entry.keep_until.unwrap_or_else(|| end_of(input.now, max_leaf));
    // With an overlap of zero the entry leaves with this compile: rounded up to a second it would come and go
    // with every upload until the domain uses one of the uploaded truststores.
    let end = |overlap: SignedDuration| {
        if overlap.is_zero() {
            input.now
        } else {
            end_of(input.now, overlap)
        }
    };
    Some(input.overlap.map_or(until, |overlap| until.min(end(overlap))))
}

/// Returns `now + life`, rounded up by at most 1% of the life and one hour: a repeated compile gives the same
/// bytes.
fn end_of(now: Timestamp, life: SignedDuration) -> Timestamp {
    let step = (life.as_secs() / 100).clamp(1, 3600);
    let Ok(end) = now.checked_add(life) else {
        return Timestamp::MAX;
    };
    let whole = end.as_second() + i64::from(end.subsec_nanosecond() > 0);
    Timestamp::from_second(whole + (step - whole.rem_euclid(step)) % step).unwrap_or(Timestamp::MAX)
}

pub(crate) fn contains(certificates: &[Certificate], certificate: &Certificate) -> bool {
    certificates
        .iter()
        .any(|other| identity(other) == identity(certificate))
}

pub(crate) fn whole_seconds(duration: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs() + i64::from(duration.subsec_nanos() > 0))
}
