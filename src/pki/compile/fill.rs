//! The truststore within API Gateway's limits: what goes in when there is not room for everything. Pure.

use super::Source;
use crate::pki::lint::{Finding, MAX_BYTES, MAX_CERTIFICATES, Reason, Severity};
use crate::pki::truststore::{Bundle, Entry};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Takes out what does not fit, and names it: authorities first, those that are trusted already before new ones, each certificate with
/// its chain; then the certificates of single clients, those that are trusted already first, then the oldest. What does not fit is
/// skipped for something smaller. Authorities that are trusted already always stay.
pub(super) fn fill(bundle: &mut Bundle, living: &[&Entry], sources: &[Source], findings: &mut Vec<Finding>) {
    let texts: Vec<usize> = bundle.entries.iter().map(|entry| entry.render().len()).collect();
    let memory = bundle.render_distrusted().len();
    if bundle.entries.len() <= MAX_CERTIFICATES && memory + texts.iter().sum::<usize>() <= MAX_BYTES {
        return;
    }
    let entries = &bundle.entries;
    let clients: HashSet<&str> = sources.iter().filter(|s| s.client).map(|s| s.authority.as_str()).collect();
    let there: HashSet<_> = living.iter().map(|entry| entry.identity()).collect();
    let is_client = |at: usize| clients.contains(entries[at].authority.as_str());
    let is_living = |at: usize| there.contains(&entries[at].identity());
    let all = || 0..entries.len();

    let mut room =
        Room { certificates: MAX_CERTIFICATES, bytes: MAX_BYTES.saturating_sub(memory), taken: BTreeSet::new() };
    for at in all().filter(|at| !is_client(*at) && is_living(*at)) {
        room.take(at, texts[at]);
    }
    let chains = Chains::of(entries);
    loop {
        let before = room.taken.len();
        for at in all().filter(|at| !is_client(*at)) {
            room.offer(&chains.up(at), &texts);
        }
        // A chain that went in with a later certificate may have made an earlier one smaller.
        if room.taken.len() == before {
            break;
        }
    }
    let mut last: Vec<usize> = all().filter(|at| is_client(*at)).collect();
    last.sort_by_key(|at| {
        let certificate = &entries[*at].certificate;
        (!is_living(*at), certificate.not_before, &certificate.fingerprint_sha256)
    });
    for at in last {
        room.offer(&[at], &texts);
    }
    for at in all().filter(|at| !room.taken.contains(at)) {
        let message = format!(
            "does not fit: a truststore holds {MAX_CERTIFICATES} certificates in {MAX_BYTES} bytes at the most. Remove authorities or \
             certificates that are not needed any more"
        );
        findings.push(Finding {
            severity: if is_client(at) { Severity::Dropped } else { Severity::Refused },
            authority: entries[at].authority.clone(),
            subject: entries[at].certificate.subject.clone(),
            reason: Reason::TooLarge,
            message,
        });
    }
    let mut at = 0;
    bundle.entries.retain(|_| {
        at += 1;
        room.taken.contains(&(at - 1))
    });
}

struct Room {
    certificates: usize,
    bytes: usize,
    taken: BTreeSet<usize>,
}

impl Room {
    fn take(&mut self, at: usize, bytes: usize) {
        if self.taken.insert(at) {
            self.certificates = self.certificates.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Takes all of them or none.
    fn offer(&mut self, chain: &[usize], texts: &[usize]) {
        let new: Vec<usize> = chain.iter().copied().filter(|at| !self.taken.contains(at)).collect();
        if new.len() <= self.certificates && new.iter().map(|at| texts[*at]).sum::<usize>() <= self.bytes {
            new.into_iter().for_each(|at| self.take(at, texts[at]));
        }
    }
}

/// The way up from each entry. In a bundle each subject stands once, so that names are enough.
struct Chains<'a> {
    entries: &'a [Entry],
    by_subject: HashMap<&'a str, usize>,
}

impl<'a> Chains<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let subjects = entries.iter().enumerate().map(|(at, entry)| (entry.certificate.subject_key.as_str(), at));
        Chains { entries, by_subject: subjects.collect() }
    }

    /// The entry itself first.
    fn up(&self, at: usize) -> Vec<usize> {
        let mut chain = vec![at];
        let mut certificate = &self.entries[at].certificate;
        while !certificate.self_signed {
            match self.by_subject.get(certificate.issuer_key.as_str()) {
                Some(next) if !chain.contains(next) => chain.push(*next),
                _ => break,
            }
            certificate = &self.entries[chain[chain.len() - 1]].certificate;
        }
        chain
    }
}
