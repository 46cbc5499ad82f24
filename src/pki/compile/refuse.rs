//! Offers that the truststore must not take as they are: those that lint refuses, those whose subject is
//! taken, and those without a whole chain. Pure.

use std::collections::HashMap;

use jiff::Timestamp;

use super::offer::{CompileInput, Offer, OfferState, contains, keep_until};

use crate::pki::{
    certificate::Certificate,
    chain::{Broken, MAX_CHAIN, Pool, Prefer, Signatures},
    lint::{Finding, Pools, Reason, Severity, is_other_key},
    truststore::{Entry, identity},
};

pub(crate) fn lint_offers(
    offers: &mut [Offer<'_>],
    living: &[&Entry],
    signatures: &Signatures<'_>,
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
        if signatures.have_ended() {
            return;
        }
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
pub(crate) fn refuse_reused_subjects(
    offers: &mut [Offer<'_>],
    living: &[&Entry],
    input: &CompileInput<'_>,
    signatures: &Signatures<'_>,
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
            if signatures.have_ended() {
                return;
            }
            if taken.iter().any(|other| is_other_key(other, certificate)) && !contains(&taken, certificate) {
                offer.state = OfferState::Reused;
                let message = "is the subject of another certificate that is trusted already, with another \
                               key, and API Gateway refuses two: the old one stays, the new one is not \
                               published. Give the new authority another subject, or renew the old one with \
                               its key (AD CS: certutil -renewCert ReuseKeys)";
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
pub(crate) fn refuse_broken_chains(
    offers: &mut [Offer<'_>],
    signatures: &Signatures<'_>,
    findings: &mut Vec<Finding>,
) {
    while !signatures.have_ended() {
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
pub(crate) fn accepted(offers: &[Offer<'_>]) -> Vec<Certificate> {
    let accepting = offers.iter().filter(|offer| offer.state == OfferState::Accepted);
    accepting.flat_map(|offer| offer.certificates.clone()).collect()
}

/// Returns these entries, and after them their issuers among `living`.
pub(crate) fn with_issuers<'e>(
    entries: impl Iterator<Item = &'e Entry>,
    living: &[&'e Entry],
    signatures: &Signatures<'_>,
) -> Vec<&'e Entry> {
    let pool = Pool::new(
        living.iter().map(|entry| &entry.certificate),
        Prefer::Shortest,
        signatures,
    );
    let mut all: Vec<&Entry> = entries.collect();
    let mut at = 0;
    while at < all.len() && !signatures.have_ended() {
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
