//! Certificates that must leave the truststore, and the keys that stay remembered so that no distrust ends by accident. Pure.

use super::{Source, State, contains};
use crate::pki::certificate::Certificate;
use crate::pki::lint::{Finding, Reason, Severity, SourceError};
use crate::pki::truststore::{Bundle, DistrustedKeys, Entry, identity};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of keys that one truststore object remembers, so that their lines leave room for certificates.
pub(super) const MAX_REMEMBERED: usize = 500;

/// Certificates that must go.
#[derive(Default)]
pub(super) struct Distrusted {
    /// Keys that Distrusted authorities list or listed, distrusted in whatever certificate they come.
    keys: BTreeSet<String>,
    /// Certificates of withdrawn sources, and issuers above a Distrusted authority that no Active authority needs: by name and key.
    listed: Vec<Certificate>,
    /// Certificates issued under those; a twin from another issuer stays.
    hanging: Vec<Certificate>,
    /// The next truststore's memory.
    pub remembered: DistrustedKeys,
    pub findings: Vec<Finding>,
}

impl Distrusted {
    pub fn find(sources: &[Source], previous: Option<&Bundle>, now: Timestamp) -> Distrusted {
        let before: &[Entry] = previous.map_or(&[], |bundle| &bundle.entries);
        let active = || sources.iter().filter(|source| source.state == State::Active);
        let mut others: Vec<Certificate> = active().flat_map(Source::own).collect();
        let (mut heads, mut above) = (Vec::new(), Vec::new());
        let mut gone = Distrusted::default();
        // The certificates that each Distrusted source really distrusts, as far as its source lists them now.
        let mut judged = Vec::new();
        for source in sources.iter().filter(|source| source.state != State::Active) {
            let own = source.own();
            // What it brought earlier goes too, unless that is listed by another one by now.
            let there = before.iter().filter(|entry| entry.authority == source.authority);
            let earlier = there.map(|entry| &entry.certificate).filter(|c| !contains(&others, c) && !contains(&own, c));
            let all: Vec<Certificate> = own.iter().chain(earlier).cloned().collect();
            let first = heads.len();
            let mut named = Vec::new();
            for (at, certificate) in all.iter().enumerate() {
                // What is listed is judged by what is listed with it.
                let below = if at < own.len() { &own } else { &all };
                if below.iter().any(|other| !other.self_signed && other.is_issued_by(certificate)) {
                    above.push(certificate.clone());
                    continue;
                }
                heads.push(certificate.clone());
                if at < own.len() {
                    named.push(certificate.clone());
                }
            }
            match source.state {
                State::Distrusted => {
                    gone.remember(&source.authority, &heads[first..], previous);
                    judged.push((source, own, named));
                }
                State::Withdrawn | State::Active => gone.listed.extend(heads[first..].iter().cloned()),
            }
        }
        if !heads.is_empty() || !gone.keys.is_empty() {
            let carried = before.iter().filter(|entry| active().any(|source| source.authority == entry.authority));
            others.extend(carried.map(|entry| entry.certificate.clone()));
            above.retain(|certificate| {
                !others.iter().any(|other| {
                    let is_head = gone.keys.contains(&other.spki_sha256) || contains(&heads, other);
                    identity(other) == identity(certificate) || (!is_head && other.is_issued_by(certificate))
                })
            });
            others.extend(before.iter().map(|entry| entry.certificate.clone()));
            // A remembered key may come in a certificate that its authority never listed.
            heads.extend(others.iter().filter(|other| gone.keys.contains(&other.spki_sha256)).cloned());
            gone.note_effects(&heads, &others);
            gone.listed.extend(above);
            gone.hang(heads, &others);
        }
        for (source, own, named) in judged {
            gone.judge(source, &own, &named, now);
        }
        gone.forget_what_is_too_much(previous);
        gone
    }

    pub fn holds(&self, certificate: &Certificate) -> bool {
        self.keys.contains(&certificate.spki_sha256)
            || contains(&self.listed, certificate)
            || self.hanging.contains(certificate)
    }

    /// The keys of a Distrusted authority: those of `heads` now, and those that are remembered of it.
    fn remember(&mut self, authority: &str, heads: &[Certificate], previous: Option<&Bundle>) {
        let known = previous.and_then(|bundle| bundle.distrusted.get(authority));
        let mut keys: BTreeMap<String, bool> = known.cloned().unwrap_or_default();
        for head in heads {
            keys.entry(head.spki_sha256.clone()).or_default();
        }
        self.keys.extend(keys.keys().cloned());
        if !keys.is_empty() {
            self.remembered.insert(authority.to_owned(), keys);
        }
    }

    /// Notes which keys keep something out: a certificate of the key, or one issued with it, is or was to be trusted.
    fn note_effects(&mut self, heads: &[Certificate], others: &[Certificate]) {
        for (key, took_effect) in self.remembered.values_mut().flatten().filter(|(_, took_effect)| !**took_effect) {
            let of_key: Vec<_> = heads.iter().filter(|head| head.spki_sha256 == *key).collect();
            *took_effect = others.iter().any(|other| {
                other.spki_sha256 == *key || (!other.self_signed && of_key.iter().any(|head| other.is_issued_by(head)))
            });
        }
    }

    /// Everything that was issued under `heads`.
    fn hang(&mut self, mut heads: Vec<Certificate>, others: &[Certificate]) {
        while let Some(head) = heads.pop() {
            for certificate in others {
                if !certificate.self_signed && !self.holds(certificate) && certificate.is_issued_by(&head) {
                    self.hanging.push(certificate.clone());
                    heads.push(certificate.clone());
                }
            }
        }
    }

    /// `own`: the certificates that its source lists; `named`: those among them that are not above another.
    fn judge(&mut self, source: &Source, own: &[Certificate], named: &[Certificate], now: Timestamp) {
        let keys = self.remembered.get(&source.authority);
        let mut add = |severity, subject: &str, reason, message| {
            let (authority, subject) = (source.authority.clone(), subject.to_owned());
            self.findings.push(Finding { severity, authority, subject, reason, message });
        };
        let error = match &source.certificates {
            Err(SourceError::Unseen) => return,
            Err(error) => Some(error),
            Ok(_) => None,
        };
        match (error, keys) {
            (Some(error), None) => {
                let message = format!(
                    "the distrust has no effect yet: {error}. What this entry should keep out is still accepted. Put the \
                     certificates to distrust there as PEM, or write them into pem of a Distrusted entry"
                );
                add(Severity::Refused, "", Reason::DistrustUnread, message);
            }
            (Some(error), Some(keys)) => {
                let message = format!(
                    "{error}. What this entry distrusted before stays distrusted until the entry is removed (keys: {})",
                    keys.len()
                );
                add(Severity::Warning, "", Reason::DistrustKept, message);
            }
            (None, keys) => {
                let is_listed = |key: &&String| own.iter().any(|certificate| certificate.spki_sha256 == **key);
                let lost = keys.into_iter().flatten().filter(|(key, _)| !is_listed(key)).count();
                if lost > 0 {
                    let message = format!(
                        "its source does not list everything that it distrusted before (keys: {lost}): that stays distrusted, in \
                         whatever certificate it comes, until the entry is removed"
                    );
                    add(Severity::Warning, "", Reason::DistrustKept, message);
                }
            }
        }
        let valid = named.iter().filter(|certificate| now < certificate.not_after);
        let (authorities, leaves): (Vec<_>, Vec<_>) = valid.partition(|c| c.is_ca || c.self_signed);
        for leaf in leaves {
            let message = format!(
                "is the certificate of a single client. API Gateway judges issuers only: this certificate is accepted until {} as \
                 long as its issuer, {}, is trusted. Distrust the issuer, or wait for the end of the certificate. A self-signed \
                 ClientCertificate leaves the truststore when it is deleted",
                leaf.not_after, leaf.issuer
            );
            add(Severity::Warning, &leaf.subject, Reason::DistrustsLeaf, message);
        }
        if !authorities.is_empty() && !keys.into_iter().flatten().any(|(_, took_effect)| *took_effect) {
            let message = "takes nothing away: no certificate that it lists, and none issued under one, was in this truststore or \
                           is listed by another entry. API Gateway accepts every certificate whose issuer is in the truststore: \
                           list that issuer here";
            add(Severity::Warning, "", Reason::DistrustsNothing, message.to_owned());
        }
        for stranger in source.strangers() {
            let message = "stands in ca.crt and does not complete the chain of tls.crt: this entry does not distrust it. List it \
                           in a Distrusted entry of its own";
            add(Severity::Warning, &stranger.subject, Reason::Unrelated, message.to_owned());
        }
    }

    /// Keys that were remembered already go first.
    fn forget_what_is_too_much(&mut self, previous: Option<&Bundle>) {
        let count = self.remembered.values().map(BTreeMap::len).sum::<usize>();
        if count <= MAX_REMEMBERED {
            return;
        }
        let is_new = |authority: &String, key: &String| {
            !previous.and_then(|b| b.distrusted.get(authority)).is_some_and(|known| known.contains_key(key))
        };
        let all = self.remembered.iter().flat_map(|(authority, keys)| keys.keys().map(move |key| (authority, key)));
        let mut all: Vec<_> =
            all.map(|(authority, key)| (is_new(authority, key), authority.clone(), key.clone())).collect();
        all.sort();
        let mut forgotten = BTreeMap::<String, usize>::new();
        for (_, authority, key) in all.split_off(MAX_REMEMBERED) {
            if let Some(keys) = self.remembered.get_mut(&authority) {
                keys.remove(&key);
            }
            *forgotten.entry(authority).or_default() += 1;
        }
        self.remembered.retain(|_, keys| !keys.is_empty());
        for (authority, count) in forgotten {
            let message = format!(
                "a truststore remembers {MAX_REMEMBERED} distrusted keys at most: of this entry {count} are distrusted only as long \
                 as its source lists them. Remove Distrusted entries that have served"
            );
            let subject = String::new();
            let (severity, reason) = (Severity::Warning, Reason::TooLarge);
            self.findings.push(Finding { severity, authority, subject, reason, message });
        }
    }
}
