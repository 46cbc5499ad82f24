//! Compiler of the next truststore from the spec's authorities and the current truststore. Pure and total:
//! for any input it returns a truststore that holds the issuer of every living leaf, unless the spec
//! distrusts an authority or sets an overlap.

pub mod above;
pub mod distrust;
pub mod entries;
pub mod fill;
pub mod offer;
pub mod twins;

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::{
    certificate::Certificate,
    chain::{Broken, MAX_CHAIN, Pool, Prefer, Signatures},
    compile::{
        distrust::Distrusted,
        entries::Entries,
        offer::{CompileInput, Offer, OfferState, Source, State, contains, keep_until},
        twins::Twins,
    },
    lint::{Finding, Pools, Reason, Severity, is_other_key},
    truststore::{Bundle, Entry, identity},
};

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
