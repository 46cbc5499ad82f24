//! The truststore within API Gateway's limits: the choice of certificates when there is not room for all.
//! Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{offer::Source, shares};

use crate::pki::{
    lint::{Finding, MAX_BYTES, MAX_CERTIFICATES, Reason, Severity},
    truststore::{Bundle, DistrustedKeys, Entry, distrusted_line},
};

/// Maximum number of distrusted keys that one truststore records.
pub(crate) const MAX_RECORDED: usize = 500;

/// Removes distrusted keys that do not fit: those beyond [`MAX_RECORDED`], and those that take room from
/// authorities that are trusted already. Keys in `known`, which were recorded already, stay first.
fn trim(bundle: &mut Bundle, known: &DistrustedKeys, bytes: usize, findings: &mut Vec<Finding>) {
    let is_new =
        |authority: &str, key: &str| !known.get(authority).is_some_and(|keys| keys.contains_key(key));
    let all = bundle
        .distrusted
        .iter()
        .flat_map(|(authority, keys)| keys.keys().map(move |key| (authority, key)));
    let mut all: Vec<_> = all
        .map(|(a, key)| (is_new(a, key), a.clone(), key.clone()))
        .collect();
    all.sort();
    let mut forgotten = BTreeMap::<String, usize>::new();
    let mut length = bundle.render_distrusted().len();
    while all.len() > MAX_RECORDED || length > bytes {
        let Some((_, authority, key)) = all.pop() else {
            break;
        };
        let took_effect = bundle
            .distrusted
            .get_mut(&authority)
            .and_then(|keys| keys.remove(&key));
        length -= took_effect.map_or(0, |effect| distrusted_line(&authority, &key, effect).len());
        *forgotten.entry(authority).or_default() += 1;
    }
    bundle.distrusted.retain(|_, keys| !keys.is_empty());
    for (authority, count) in forgotten {
        let message = format!(
            "the truststore has no room to remember all that this entry distrusts: {count} keys are \
             distrusted only as long as its source lists them. Remove Distrusted entries that have served, \
             or authorities"
        );
        let (severity, reason, subject) = (Severity::Warning, Reason::TooLarge, String::new());
        findings.push(Finding {
            severity,
            authority,
            subject,
            reason,
            message,
        });
    }
}

/// Removes the certificates that do not fit, and reports them: first those beyond a share (see
/// [`shares::keep_within`]), then those beyond the truststore. Order: authorities first, those that are
/// trusted already before new ones, each certificate with its chain; then the certificates of single clients,
/// those that are trusted already first, then the oldest. Skips a certificate that does not fit in favour of
/// a smaller one. Authorities that are trusted already always stay.
pub(crate) fn fill(
    bundle: &mut Bundle,
    living: &[&Entry],
    sources: &[Source],
    known: &DistrustedKeys,
    findings: &mut Vec<Finding>,
) {
    shares::keep_within(bundle, living, sources, findings);
    within(
        MAX_CERTIFICATES,
        MAX_BYTES,
        bundle,
        living,
        sources,
        known,
        findings,
    );
}

fn within(
    certificates: usize,
    bytes: usize,
    bundle: &mut Bundle,
    living: &[&Entry],
    sources: &[Source],
    known: &DistrustedKeys,
    findings: &mut Vec<Finding>,
) {
    let texts: Vec<usize> = bundle.entries.iter().map(Entry::length).collect();
    let clients: HashSet<&str> = sources
        .iter()
        .filter(|s| s.client)
        .map(|s| s.authority.as_str())
        .collect();
    let there: HashSet<_> = living.iter().map(|entry| entry.identity()).collect();
    let stays =
        |entry: &Entry| !clients.contains(entry.authority.as_str()) && there.contains(&entry.identity());
    let needed = bundle
        .entries
        .iter()
        .zip(&texts)
        .filter(|(entry, _)| stays(entry))
        .map(|(_, text)| text)
        .sum();
    trim(bundle, known, bytes.saturating_sub(needed), findings);
    let memory = bundle.render_distrusted().len();
    if bundle.entries.len() <= certificates && memory + texts.iter().sum::<usize>() <= bytes {
        return;
    }
    let entries = &bundle.entries;
    let is_client = |at: usize| clients.contains(entries[at].authority.as_str());
    let is_living = |at: usize| there.contains(&entries[at].identity());
    let all = || 0..entries.len();

    let mut room = Room {
        certificates,
        bytes: bytes.saturating_sub(memory),
        taken: BTreeSet::new(),
    };
    for at in all().filter(|at| !is_client(*at) && is_living(*at)) {
        room.take(at, texts[at]);
    }
    let chains = Chains::of(entries);
    loop {
        let before = room.taken.len();
        for at in all().filter(|at| !is_client(*at)) {
            room.offer(&chains.up(at), &texts);
        }
        // A chain that went in with a later certificate may have made the chain of an earlier one smaller.
        if room.taken.len() == before {
            break;
        }
    }
    let mut last: Vec<usize> = all().filter(|at| is_client(*at)).collect();
    last.sort_by_key(|at| {
        let certificate = &entries[*at].certificate;
        (
            !is_living(*at),
            certificate.not_before,
            &certificate.fingerprint_sha256,
        )
    });
    for at in last {
        room.offer(&[at], &texts);
    }
    for at in all().filter(|at| !room.taken.contains(at)) {
        let message = format!(
            "does not fit: a truststore holds {certificates} certificates in {bytes} bytes at the most. \
             Remove authorities or certificates that are not needed any more"
        );
        findings.push(Finding {
            severity: if is_client(at) {
                Severity::Dropped
            } else {
                Severity::Refused
            },
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

    /// Takes all certificates of the chain or none.
    fn offer(&mut self, chain: &[usize], texts: &[usize]) {
        let new: Vec<usize> = chain
            .iter()
            .copied()
            .filter(|at| !self.taken.contains(at))
            .collect();
        if new.len() <= self.certificates && new.iter().map(|at| texts[*at]).sum::<usize>() <= self.bytes {
            new.into_iter().for_each(|at| self.take(at, texts[at]));
        }
    }
}

/// Chains above each entry. In a bundle each subject stands once, so that names are enough.
struct Chains<'a> {
    entries: &'a [Entry],
    by_subject: HashMap<&'a str, usize>,
}

impl<'a> Chains<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let subjects = entries
            .iter()
            .enumerate()
            .map(|(at, entry)| (entry.certificate.subject_key.as_str(), at));
        Chains {
            entries,
            by_subject: subjects.collect(),
        }
    }

    /// Returns the chain of an entry, the entry itself first.
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

#[cfg(test)]
pub(crate) mod tests;
