//! Compiler of the next truststore from the spec's authorities and the current truststore. Pure and total:
//! for any input it returns a truststore that holds the issuer of every living leaf, unless the spec
//! distrusts an authority or sets an overlap.

pub mod above;
pub mod distrust;
pub mod entries;
pub mod fill;
pub mod offer;
pub mod refuse;
pub mod shares;
pub mod twins;

use std::collections::BTreeSet;

use super::{
    certificate::Certificate,
    chain::{MAX_CHAIN, Pool, Prefer, Signatures},
    compile::{
        distrust::Distrusted,
        entries::Entries,
        offer::{CompileInput, Offer, OfferState, Source, State, contains, keep_until},
        refuse::{accepted, lint_offers, refuse_broken_chains, refuse_reused_subjects, with_issuers},
        twins::Twins,
    },
    lint::{Finding, Reason, Severity},
    truststore::{Bundle, Entry},
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

/// Compilation that took too long. Its result is not used, so that no half of it becomes trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Name of the source whose certificates cost the most; empty when none stands out.
    pub authority: String,
}

/// Returns the next truststore. Compiling again with the result as `previous` gives the same bytes, until a
/// certificate begins, expires or its `keep_until` passes.
///
/// # Errors
/// Returns [`TooLong`] once `limit` has returned true.
pub fn compile(input: &CompileInput<'_>, limit: &dyn Fn() -> bool) -> Result<Compiled, TooLong> {
    let signatures = Signatures::until(limit);
    let compiled = settled(input, &signatures);
    if !signatures.have_ended() {
        return Ok(compiled);
    }
    let tried = signatures.most_tried();
    let costly = input.sources.iter().find(|source| {
        source
            .listed()
            .any(|c| Some(&c.fingerprint_sha256) == tried.as_ref())
    });
    Err(TooLong {
        authority: costly.map(|source| source.authority.clone()).unwrap_or_default(),
    })
}

fn settled(input: &CompileInput<'_>, signatures: &Signatures<'_>) -> Compiled {
    let mut compiled = pass(input, signatures);
    // A certificate that leaves may be the only reason for which another one stays. The other one then leaves
    // in the next pass, and not at the next reconcile.
    for _ in 0..MAX_PASSES {
        if signatures.have_ended() {
            break;
        }
        let next = pass(
            &CompileInput {
                previous: Some(&compiled.bundle),
                ..input.clone()
            },
            signatures,
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

pub(crate) fn pass(input: &CompileInput<'_>, signatures: &Signatures<'_>) -> Compiled {
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
        .take_while(|_| !signatures.have_ended())
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
                if signatures.have_ended() {
                    break;
                }
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
