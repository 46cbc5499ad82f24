//! Shares of the truststore: the certificates of a grant's clients within the bytes of the grant. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::offer::{Share, Source};

use crate::pki::{
    certificate::Certificate,
    lint::{Finding, Reason, Severity},
    truststore::{Bundle, Entry},
};

/// Certificates of one client that stay in the truststore.
#[derive(Default)]
struct Client<'e> {
    certificates: Vec<&'e Certificate>,
    longest: usize,
    all: usize,
}

impl<'e> Client<'e> {
    /// Bytes that the client has of its share: one of its certificates does not count, so that a renewal
    /// needs no room.
    fn bytes(&self) -> usize {
        self.longest.max(self.all - self.longest)
    }

    fn with(&self, entry: &'e Entry) -> Self {
        let length = entry.length();
        Client {
            certificates: [&*self.certificates, &[&entry.certificate]].concat(),
            longest: self.longest.max(length),
            all: self.all + length,
        }
    }

    /// True for the renewal of its only certificate. A renewal may be longer by the serial number in its
    /// subject.
    fn is_renewed_by(&self, next: &Certificate) -> bool {
        matches!(self.certificates[..], [only] if has_same_content(only, next))
    }
}

fn has_same_content(one: &Certificate, other: &Certificate) -> bool {
    let names = |c: &Certificate| (c.dns_names.clone(), c.uris.clone(), c.email_addresses.clone());
    let is_of_caller = |part: &&str| !part.starts_with("serialNumber=");
    let parts = |c: &Certificate| -> Vec<String> {
        c.subject
            .split(',')
            .filter(is_of_caller)
            .map(str::to_owned)
            .collect()
    };
    one.key == other.key && names(one) == names(other) && parts(one) == parts(other)
}

/// Removes the certificates beyond the share of their grant, and reports them. Order: those that are trusted
/// already, then the oldest. Skips a certificate that does not fit in favour of a smaller one. Certificates
/// that are trusted already always stay, and count.
pub(crate) fn keep_within(
    bundle: &mut Bundle,
    living: &[&Entry],
    sources: &[Source],
    findings: &mut Vec<Finding>,
) {
    let shares: HashMap<&str, &Share> = sources
        .iter()
        .filter_map(|source| Some((source.authority.as_str(), source.share.as_ref()?)))
        .collect();
    if shares.is_empty() {
        return;
    }
    let there: HashSet<_> = living.iter().map(|entry| entry.identity()).collect();
    let is_living = |entry: &Entry| there.contains(&entry.identity());
    let mut shared: Vec<(usize, &Entry, &Share)> = bundle
        .entries
        .iter()
        .enumerate()
        .filter_map(|(at, entry)| Some((at, entry, *shares.get(entry.authority.as_str())?)))
        .collect();
    shared.sort_by_key(|(_, entry, _)| {
        let certificate = &entry.certificate;
        (
            !is_living(entry),
            certificate.not_before,
            &certificate.fingerprint_sha256,
        )
    });
    let mut used = HashMap::<&str, usize>::new();
    let mut clients = HashMap::<&str, Client<'_>>::new();
    let mut beyond = BTreeSet::new();
    for (at, entry, share) in shared {
        let used = used.entry(&share.grant).or_default();
        let client = clients.entry(&entry.authority).or_default();
        let with = client.with(entry);
        let more = with.bytes() - client.bytes();
        if is_living(entry)
            || more == 0
            || *used + more <= share.bytes
            || client.is_renewed_by(&entry.certificate)
        {
            *used += more;
            *client = with;
            continue;
        }
        beyond.insert(at);
        findings.push(Finding {
            severity: Severity::Dropped,
            authority: entry.authority.clone(),
            subject: entry.certificate.subject.clone(),
            reason: Reason::TooLarge,
            message: format!(
                "does not fit: the self-signed certificates of the ClientGrant {} may have {} bytes in the \
                 truststore (its spec.maxBytes)",
                share.grant, share.bytes
            ),
        });
    }
    let mut at = 0;
    bundle.entries.retain(|_| {
        at += 1;
        !beyond.contains(&(at - 1))
    });
}

#[cfg(test)]
mod tests;
