//! Compiler of the next truststore from the spec's authorities and the current truststore. Pure and total:
//! for any input it returns a truststore that holds the issuer of every living leaf, unless the spec
//! distrusts an authority or sets an overlap.

pub mod distrust;
pub mod fill;
pub mod twins;

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    certificate::Certificate,
    chain::{Broken, MAX_CHAIN, Pool, Prefer, Signatures},
    compile::{
        distrust::Distrusted,
        twins::{Chosen, Twins},
    },
    lint::{Finding, Pools, Reason, Severity, SourceError, is_other_key, lint},
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
}

impl Source {
    /// Returns the listed certificates without the strangers; none when the source cannot be read.
    fn own(&self, signatures: &Signatures) -> Vec<Certificate> {
        let strangers = self.strangers(signatures);
        self.listed()
            .filter(|certificate| !strangers.contains(certificate))
            .cloned()
            .collect()
    }

    fn listed(&self) -> impl Iterator<Item = &Certificate> {
        let beside = self.completing.iter().filter(|_| self.certificates.is_ok());
        self.certificates.iter().flatten().chain(beside)
    }

    /// Returns the certificates of `completing` that lie on no chain from the source's certificates, each
    /// once. All chains count, those of other certificates of the same name and key too.
    fn strangers(&self, signatures: &Signatures) -> Vec<&Certificate> {
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub bundle: Bundle,
    pub findings: Vec<Finding>,
    /// Authorities that must not issue although they could: their issuing certificate is not in the bundle,
    /// or is about to leave it.
    pub refused_issuers: Vec<String>,
    /// True when the current truststore holds a distrusted certificate.
    pub distrusts: bool,
    /// Names of the clients' sources with a certificate that does not fit into the truststore.
    pub without_room: BTreeSet<String>,
}

/// Returns the next truststore. Compiling again with the result as `previous` gives the same bytes, until a
/// certificate begins, expires or its `keep_until` passes.
pub fn compile(input: &CompileInput<'_>) -> Compiled {
    let signatures = Signatures::default();
    let mut compiled = pass(input, &signatures);
    // A certificate that leaves may be the only reason for which another one stays. The other one then leaves
    // in the next pass, and not at the next reconcile.
    for _ in 0..MAX_PASSES {
        let next = pass(
            &CompileInput {
                previous: Some(&compiled.bundle),
                ..input.clone()
            },
            &signatures,
        );
        let settled = next.bundle == compiled.bundle;
        compiled = Compiled {
            distrusts: compiled.distrusts,
            ..next
        };
        if settled {
            break;
        }
    }
    compiled
}

/// Maximum number of passes. Each pass removes at least one certificate that only another one kept; no known
/// input needs more passes than a chain is long.
const MAX_PASSES: usize = 8;

pub(crate) fn pass(input: &CompileInput<'_>, signatures: &Signatures) -> Compiled {
    let now = input.now;
    let before: &[Entry] = input.previous.map_or(&[], |bundle| &bundle.entries);
    let distrusted = Distrusted::find(input, signatures);
    let is_distrusted = |certificate: &Certificate| distrusted.holds(certificate);
    // Entries of the current truststore that may stay.
    let living: Vec<&Entry> = before
        .iter()
        .filter(|entry| now < entry.certificate.not_after && !is_distrusted(&entry.certificate))
        .collect();

    let mut findings = distrusted.findings.clone();
    let mut offers: Vec<Offer<'_>> = input
        .sources
        .iter()
        .filter(|source| source.state == State::Active)
        .map(|source| Offer::new(source, &is_distrusted, &living, signatures, now, &mut findings))
        .collect();
    lint_offers(&mut offers, &living, signatures, now, &mut findings);
    refuse_reused_subjects(&mut offers, &living, input, signatures, &mut findings);
    refuse_broken_chains(&mut offers, signatures, &mut findings);

    let listed = accepted(&offers);
    let twins = Twins {
        pool: Pool::new(&listed, Prefer::Shortest, signatures),
        now,
    };
    let chosen = twins.choose(&offers, &living);
    let mut entries = Entries::default();
    for offer in &offers {
        if offer.state == OfferState::Accepted {
            for certificate in &offer.certificates {
                entries.offer(offer, certificate, &living, &chosen);
            }
            // Stays trusted while there is no better certificate: API Gateway knows whether the expired
            // authority matters.
            for entry in living
                .iter()
                .filter(|entry| offer.stranded.contains(&entry.certificate))
            {
                entries.keep((*entry).clone());
            }
        } else {
            let carried = with_issuers(offer.last_good(&living), &living, signatures);
            // An entry that another authority lists is placed with that authority.
            for entry in carried
                .into_iter()
                .filter(|entry| !contains(&listed, &entry.certificate))
            {
                let max_leaf = offer.max_leaf().filter(|_| offer.lists(&entry.certificate));
                entries.keep(Entry {
                    max_leaf: entry.max_leaf.max(max_leaf),
                    ..entry.clone()
                });
            }
        }
    }
    let placed = entries.list.len();
    for entry in &living {
        if let Some(keep_until) = keep_until(entry, input).filter(|until| now < *until) {
            entries.keep(Entry {
                keep_until: Some(keep_until),
                ..(*entry).clone()
            });
        }
    }
    // Each certificate keeps its chain, as far as the current truststore has it.
    let kept = living.iter().copied().filter(|entry| {
        entries
            .list
            .iter()
            .any(|kept| kept.certificate == entry.certificate)
    });
    for entry in with_issuers(kept.collect::<Vec<_>>().into_iter(), &living, signatures) {
        entries.keep(entry.clone());
    }
    if entries.list.is_empty() && !living.is_empty() {
        entries.list = living.iter().copied().cloned().collect();
        findings.push(whole(
            Reason::WouldBeEmpty,
            "nothing would be left: the last certificates stay".to_owned(),
        ));
    }
    entries.settle(input.sources, placed, signatures);
    let mut bundle = Bundle {
        entries: entries.list,
        distrusted: distrusted.recorded.clone(),
    };
    let known = input
        .previous
        .map(|bundle| bundle.distrusted.clone())
        .unwrap_or_default();
    fill::fill(&mut bundle, &living, input.sources, &known, &mut findings);
    findings.extend(offers.iter().flat_map(|offer| offer.redundant(&bundle, now)));
    let published = bundle.entries.iter().map(|entry| &entry.certificate);
    let published = Pool::new(published, Prefer::Shortest, signatures);
    let may_issue = |source: &Source| {
        let head = source.certificates.as_ref().ok().and_then(|own| own.first());
        head.filter(|head| now < head.not_after)
            .and_then(|head| bundle.find(head))
            .is_some_and(|entry| {
                entry.keep_until.is_none() && published.best(&entry.certificate, MAX_CHAIN).is_some()
            })
    };
    let refused = input
        .sources
        .iter()
        .filter(|source| source.issues && !may_issue(source));
    let refused_issuers = refused.map(|source| source.authority.clone()).collect();
    for finding in findings
        .iter_mut()
        .filter(|finding| finding.severity == Severity::Refused)
    {
        if living.iter().any(|entry| entry.authority == finding.authority) {
            finding
                .message
                .push_str(". The certificates of this authority that are trusted already stay");
        }
    }
    let distrusts = before.iter().any(|entry| is_distrusted(&entry.certificate));
    let is_client = |name: &String| {
        input
            .sources
            .iter()
            .any(|source| source.client && source.authority == *name)
    };
    let too_large = findings
        .iter()
        .filter(|finding| finding.reason == Reason::TooLarge);
    let without_room = too_large
        .map(|finding| finding.authority.clone())
        .filter(is_client)
        .collect();
    Compiled {
        bundle,
        findings,
        refused_issuers,
        distrusts,
        without_room,
    }
}

/// Active authority on its way into the bundle.
pub(crate) struct Offer<'a> {
    source: &'a Source,
    /// Certificates that are not distrusted; [`Offer::lint`] removes those that expired or are not sound.
    certificates: Vec<Certificate>,
    /// Certificates below an expired authority: not published, and kept where they are in the truststore.
    stranded: Vec<Certificate>,
    state: OfferState,
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
    fn new(
        source: &'a Source,
        is_distrusted: &dyn Fn(&Certificate) -> bool,
        living: &[&Entry],
        signatures: &Signatures,
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
    fn is_unedited(
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

    fn max_leaf(&self) -> Option<SignedDuration> {
        self.source
            .longest_leaf
            .filter(|_| self.source.issues)
            .map(whole_seconds)
    }

    /// True when the spec lists this name and key, still valid, published or not.
    fn lists(&self, certificate: &Certificate) -> bool {
        contains(&self.certificates, certificate)
    }

    fn lint(&mut self, pools: Pools<'_>, living: &[&Entry], now: Timestamp, findings: &mut Vec<Finding>) {
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
    fn redundant(&self, bundle: &Bundle, now: Timestamp) -> Vec<Finding> {
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
    fn last_good<'e>(&self, living: &[&'e Entry]) -> impl Iterator<Item = &'e Entry> {
        living.iter().copied().filter(|entry| {
            let superseded = self.state == OfferState::Reused
                && entry.max_leaf.is_some()
                && !self.lists(&entry.certificate);
            let own = entry.authority == self.source.authority || self.lists(&entry.certificate);
            own && entry.keep_until.is_none() && !superseded
        })
    }
}

fn lint_offers(
    offers: &mut [Offer<'_>],
    living: &[&Entry],
    signatures: &Signatures,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    // An authority that gives one subject two keys is refused, and no other authority's chain leads through
    // it: its certificates, which may be many, are not tried as issuers.
    let is_plain = |offer: &&Offer<'_>| {
        let mut keys: HashMap<&str, &str> = HashMap::new();
        offer
            .certificates
            .iter()
            .filter(|c| now < c.not_after)
            .all(|c| *keys.entry(&c.subject_key).or_insert(&c.spki_sha256) == c.spki_sha256)
    };
    let accepting = offers
        .iter()
        .filter(|offer| offer.state == OfferState::Accepted)
        .filter(is_plain);
    let everything: Vec<Certificate> = accepting.flat_map(|offer| offer.certificates.clone()).collect();
    let all = Pool::new(&everything, Prefer::Shortest, signatures);
    let valid = everything
        .iter()
        .filter(|certificate| now < certificate.not_after);
    let valid = Pool::new(valid, Prefer::Shortest, signatures);
    for offer in offers {
        offer.lint(
            Pools {
                valid: &valid,
                all: &all,
            },
            living,
            now,
            findings,
        );
    }
}

/// Refuses an authority whose subject is taken: API Gateway refuses two certificates with one subject. An
/// entry that stays in the truststore has the subject first, then the first authority of the spec.
fn refuse_reused_subjects(
    offers: &mut [Offer<'_>],
    living: &[&Entry],
    input: &CompileInput<'_>,
    signatures: &Signatures,
    findings: &mut Vec<Finding>,
) {
    let stays = |entry: &Entry| {
        let lists = |o: &Offer<'_>| {
            contains(&o.certificates, &entry.certificate) || o.stranded.contains(&entry.certificate)
        };
        let listed = offers.iter().any(|o| o.state == OfferState::Accepted && lists(o));
        let carried = offers
            .iter()
            .any(|o| o.state == OfferState::LastGood && o.last_good(living).any(|kept| kept == entry));
        listed || carried || keep_until(entry, input).is_some_and(|until| input.now < until)
    };
    let staying = living.iter().copied().filter(|entry| stays(entry));
    let mut taken: Vec<Certificate> = with_issuers(staying, living, signatures)
        .into_iter()
        .map(|entry| entry.certificate.clone())
        .collect();
    for offer in offers
        .iter_mut()
        .filter(|offer| offer.state == OfferState::Accepted)
    {
        for certificate in &offer.certificates {
            if taken.iter().any(|other| is_other_key(other, certificate)) && !contains(&taken, certificate) {
                offer.state = OfferState::Reused;
                let message = "is the subject of another certificate that is trusted already, with another \
                               key, and API Gateway refuses two: the old one stays, the new one is not \
                               published. Give the new authority another subject";
                findings.push(Finding {
                    severity: Severity::Refused,
                    authority: offer.source.authority.clone(),
                    subject: certificate.subject.clone(),
                    reason: Reason::SubjectReused,
                    message: message.to_owned(),
                });
            }
        }
        if offer.state == OfferState::Accepted {
            taken.extend(offer.certificates.iter().cloned());
        }
    }
}

/// Refuses authorities whose chain is broken because another authority, which brings their root, is not
/// published. Ignores certificates of which a twin has a whole chain: the twin is published.
fn refuse_broken_chains(offers: &mut [Offer<'_>], signatures: &Signatures, findings: &mut Vec<Finding>) {
    loop {
        let listed = accepted(offers);
        let pool = Pool::new(&listed, Prefer::Shortest, signatures);
        let is_whole = |offer: &Offer<'_>, certificate: &Certificate| {
            let mut twins = offer
                .certificates
                .iter()
                .filter(|twin| identity(twin) == identity(certificate));
            twins.any(|twin| pool.best(twin, MAX_CHAIN).is_some())
        };
        let stop = |certificate: &Certificate| match pool.chain(certificate, MAX_CHAIN) {
            Err(Broken::Incomplete(mut chain) | Broken::TooLong(mut chain)) => chain.pop(),
            Ok(_) => None,
        };
        let mut broken = offers
            .iter_mut()
            .filter(|offer| offer.state == OfferState::Accepted)
            .filter_map(|offer| {
                let certificate = offer.certificates.iter().find(|c| !is_whole(offer, c))?.clone();
                let stop = stop(&certificate)?;
                Some((offer, certificate, stop))
            });
        let Some((offer, certificate, stop)) = broken.next() else {
            return;
        };
        offer.state = OfferState::LastGood;
        findings.push(Finding {
            severity: Severity::Refused,
            authority: offer.source.authority.clone(),
            subject: certificate.subject,
            reason: Reason::ChainIncomplete,
            message: format!(
                "has no whole chain to its root: the issuer of {}, {}, is not published; see the finding \
                 on that issuer",
                stop.subject, stop.issuer
            ),
        });
    }
}

/// Returns the certificates that chains may go through: all certificates of accepted offers. Entries that are
/// only carried forward do not count, so that no new certificate depends on them.
fn accepted(offers: &[Offer<'_>]) -> Vec<Certificate> {
    let accepting = offers.iter().filter(|offer| offer.state == OfferState::Accepted);
    accepting.flat_map(|offer| offer.certificates.clone()).collect()
}

/// Returns these entries, and after them their issuers among `living`.
fn with_issuers<'e>(
    entries: impl Iterator<Item = &'e Entry>,
    living: &[&'e Entry],
    signatures: &Signatures,
) -> Vec<&'e Entry> {
    let pool = Pool::new(
        living.iter().map(|entry| &entry.certificate),
        Prefer::Shortest,
        signatures,
    );
    let mut all: Vec<&Entry> = entries.collect();
    let mut at = 0;
    while at < all.len() {
        let certificate = &all[at].certificate;
        at += 1;
        if certificate.self_signed
            || all
                .iter()
                .any(|entry| signatures.issued(certificate, &entry.certificate))
        {
            continue;
        }
        let issuer = pool.issuer(certificate, MAX_CHAIN);
        all.extend(
            living
                .iter()
                .find(|entry| Some(&entry.certificate) == issuer)
                .copied(),
        );
    }
    all
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

/// Bundle in the making: each subject once.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
}

impl Entries {
    /// Adds a certificate that the spec lists. Of several of one name and key the chosen one counts.
    fn offer(
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
    fn keep(&mut self, entry: Entry) {
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
    fn settle(&mut self, sources: &[Source], placed: usize, signatures: &Signatures) {
        let distrusted = |name: &str| {
            sources
                .iter()
                .any(|source| source.state != State::Active && source.authority == name)
        };
        while let Some((at, name)) = self.list.iter().enumerate().find_map(|(at, entry)| {
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
        }) {
            self.list[at].authority = name;
        }
        self.list[placed..].sort_by(|one, other| one.order().cmp(&other.order()));
        self.list.retain(|entry| !distrusted(&entry.authority));
    }
}

pub(crate) fn contains(certificates: &[Certificate], certificate: &Certificate) -> bool {
    certificates
        .iter()
        .any(|other| identity(other) == identity(certificate))
}

pub(crate) fn whole_seconds(duration: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs() + i64::from(duration.subsec_nanos() > 0))
}

pub(crate) fn whole(reason: Reason, message: String) -> Finding {
    Finding {
        severity: Severity::Refused,
        authority: String::new(),
        subject: String::new(),
        reason,
        message,
    }
}

#[cfg(test)]
pub(crate) mod tests;
