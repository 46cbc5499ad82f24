//! Certificates that must leave the truststore, and the recorded keys that keep a distrust in force when its
//! source is lost. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;

use super::{
    above::{Below, above_others, issuers_of},
    offer::{CompileInput, Source, State, contains, keep_until},
};

use crate::pki::{
    certificate::Certificate,
    chain::{Pool, Prefer, Signatures},
    lint::{Finding, Reason, Severity, SourceError},
    truststore::{Bundle, DistrustedKeys, Entry, identity},
};

/// Certificates that must leave the truststore.
#[derive(Default)]
pub(crate) struct Distrusted {
    /// Keys that Distrusted authorities list or listed, distrusted in every certificate of the key.
    keys: BTreeSet<String>,
    /// Certificates of withdrawn sources, and issuers above a Distrusted authority that no Active authority
    /// needs: by name and key.
    listed: Vec<Certificate>,
    /// Fingerprints of certificates issued under distrusted or withdrawn ones; a twin from another issuer
    /// stays.
    hanging: HashSet<String>,
    /// Distrusted keys that the next truststore records.
    pub recorded: DistrustedKeys,
    pub findings: Vec<Finding>,
}

impl Distrusted {
    pub fn find(input: &CompileInput<'_>, signatures: &Signatures<'_>) -> Distrusted {
        let &CompileInput {
            sources,
            previous,
            now,
            ..
        } = input;
        let before: &[Entry] = previous.map_or(&[], |bundle| &bundle.entries);
        let active = || sources.iter().filter(|source| source.state == State::Active);
        let mut others: Vec<Certificate> = active().flat_map(|source| source.own(signatures)).collect();
        let (mut heads, mut above) = (Vec::new(), Vec::new());
        let mut gone = Distrusted::default();
        // Certificates that each Distrusted source really distrusts, as far as its source lists them now.
        let mut judged = Vec::new();
        for source in sources.iter().filter(|source| source.state != State::Active) {
            let own = source.own(signatures);
            // Certificates that the source brought earlier leave as well, unless another source lists them
            // now.
            let there = before.iter().filter(|entry| entry.authority == source.authority);
            let earlier = there
                .map(|entry| &entry.certificate)
                .filter(|c| !contains(&others, c) && !contains(&own, c));
            let all: Vec<Certificate> = own.iter().chain(earlier).cloned().collect();
            let first = heads.len();
            let mut named = Vec::new();
            let pool = Pool::new(&all, Prefer::Shortest, signatures);
            // A listed certificate is an issuer only in relation to other listed certificates.
            let above_own = above_others(&all[..own.len()], &pool);
            let above_all = above_others(&all, &pool);
            for (at, certificate) in all.iter().enumerate() {
                let is_own = at < own.len();
                let issued = if is_own { &above_own } else { &above_all };
                if issued.contains(certificate.fingerprint_sha256.as_str()) {
                    above.push((is_own.then(|| source.authority.clone()), certificate.clone()));
                    continue;
                }
                heads.push(certificate.clone());
                if is_own {
                    named.push(certificate.clone());
                }
            }
            match source.state {
                State::Distrusted => {
                    gone.record(&source.authority, &heads[first..], previous);
                    judged.push((source, own, named));
                }
                State::Withdrawn | State::Active => gone.listed.extend(heads[first..].iter().cloned()),
            }
        }
        if !heads.is_empty() || !above.is_empty() || !gone.keys.is_empty() {
            // A certificate that stays for the leaves under it needs its issuers as one does that is listed.
            let is_carried = |entry: &&Entry| {
                let mut sources = sources
                    .iter()
                    .filter(|source| source.authority == entry.authority)
                    .peekable();
                let outlives = || keep_until(entry, input).is_some_and(|until| now < until);
                if sources.peek().is_none() {
                    outlives()
                } else {
                    sources.any(|source| source.state == State::Active)
                }
            };
            let carried = before.iter().filter(is_carried);
            others.extend(carried.map(|entry| entry.certificate.clone()));
            let listed_heads: HashSet<_> = heads.iter().map(identity).collect();
            let is_head =
                |c: &&Certificate| gone.keys.contains(&c.spki_sha256) || listed_heads.contains(&identity(c));
            let pool = Pool::new(
                above.iter().map(|(_, certificate)| certificate),
                Prefer::Shortest,
                signatures,
            );
            let needed = issuers_of(others.iter().filter(|other| !is_head(other)), &pool);
            let listed: HashSet<_> = others.iter().map(identity).collect();
            let stays = |c: &Certificate| {
                listed.contains(&identity(c)) || needed.contains(c.fingerprint_sha256.as_str())
            };
            let (spared, left): (Vec<_>, Vec<_>) = above
                .iter()
                .cloned()
                .partition(|(_, certificate)| stays(certificate));
            gone.tell_spared(&spared, now);
            others.extend(before.iter().map(|entry| entry.certificate.clone()));
            // A recorded key may come in a certificate that its authority never listed.
            heads.extend(
                others
                    .iter()
                    .filter(|other| gone.keys.contains(&other.spki_sha256))
                    .cloned(),
            );
            let heads = heads;
            let below = Below::new(&heads, &others, signatures);
            gone.note_effects(&heads, &others, &below);
            gone.listed
                .extend(left.into_iter().map(|(_, certificate)| certificate));
            gone.hang(&heads, &below);
        }
        for (source, own, named) in judged {
            gone.judge(source, &own, &named, signatures, now);
        }
        gone
    }

    pub fn holds(&self, certificate: &Certificate) -> bool {
        self.keys.contains(&certificate.spki_sha256)
            || contains(&self.listed, certificate)
            || self.hanging.contains(&certificate.fingerprint_sha256)
    }

    /// Records the keys of a Distrusted authority: those of `heads` now, and those recorded before.
    fn record(&mut self, authority: &str, heads: &[Certificate], previous: Option<&Bundle>) {
        let known = previous.and_then(|bundle| bundle.distrusted.get(authority));
        let mut keys: BTreeMap<String, bool> = known.cloned().unwrap_or_default();
        for head in heads {
            keys.entry(head.spki_sha256.clone()).or_default();
        }
        self.keys.extend(keys.keys().cloned());
        if !keys.is_empty() {
            self.recorded.insert(authority.to_owned(), keys);
        }
    }

    /// Records which keys keep a certificate out: one of the key, or one issued with it, that is trusted or
    /// was about to be.
    fn note_effects(&mut self, heads: &[Certificate], others: &[Certificate], below: &Below<'_>) {
        let there: HashSet<&str> = others.iter().map(|other| other.spki_sha256.as_str()).collect();
        let issued: HashSet<&str> = heads
            .iter()
            .filter(|head| !below.of(head).is_empty())
            .map(|head| head.spki_sha256.as_str())
            .collect();
        for (key, took_effect) in self.recorded.values_mut().flatten() {
            *took_effect |= there.contains(key.as_str()) || issued.contains(key.as_str());
        }
    }

    /// Collects all certificates that were issued under `heads`.
    fn hang(&mut self, heads: &[Certificate], below: &Below<'_>) {
        let mut reached: Vec<&Certificate> = heads.iter().collect();
        while let Some(head) = reached.pop() {
            for certificate in below.of(head) {
                if !self.holds(certificate) {
                    self.hanging.insert(certificate.fingerprint_sha256.clone());
                    reached.push(certificate);
                }
            }
        }
    }

    /// Warns of certificates that a Distrusted entry lists above another one of its own and that stay
    /// trusted, because another authority needs them.
    fn tell_spared(&mut self, spared: &[(Option<String>, Certificate)], now: Timestamp) {
        for (authority, certificate) in spared {
            let Some(authority) = authority.clone().filter(|_| now < certificate.not_after) else {
                continue;
            };
            let message = "stays trusted: it stands in this entry as the issuer of another certificate, and \
                           another authority needs it. To distrust it and all that it issued, list it in a \
                           Distrusted entry of its own";
            self.findings.push(Finding {
                severity: Severity::Warning,
                authority,
                subject: certificate.subject.clone(),
                reason: Reason::DistrustSpares,
                message: message.to_owned(),
            });
        }
    }

    /// Reports findings on a Distrusted source. `own`: the certificates that the source lists; `named`: those
    /// among them that are not issuers of other listed certificates.
    fn judge(
        &mut self,
        source: &Source,
        own: &[Certificate],
        named: &[Certificate],
        signatures: &Signatures<'_>,
        now: Timestamp,
    ) {
        let keys = self.recorded.get(&source.authority);
        let mut add = |severity, subject: &str, reason, message| {
            let (authority, subject) = (source.authority.clone(), subject.to_owned());
            self.findings.push(Finding {
                severity,
                authority,
                subject,
                reason,
                message,
            });
        };
        let error = match &source.certificates {
            Err(SourceError::Unseen) => return,
            Err(error) => Some(error),
            Ok(_) => None,
        };
        match (error, keys) {
            (Some(error), None) => {
                let message = format!(
                    "the distrust has no effect yet: {error}. API Gateway still accepts the certificates \
                     that this entry should keep out. Put the certificates to distrust there as PEM, or \
                     write them into pem of a Distrusted entry"
                );
                add(Severity::Refused, "", Reason::DistrustUnread, message);
            }
            (Some(error), Some(keys)) => {
                let message = format!(
                    "{error}. The keys that this entry distrusted before stay distrusted until the entry is \
                     removed (keys: {})",
                    keys.len()
                );
                add(Severity::Warning, "", Reason::DistrustKept, message);
            }
            (None, keys) => {
                let is_listed =
                    |key: &&String| own.iter().any(|certificate| certificate.spki_sha256 == **key);
                let lost = keys
                    .into_iter()
                    .flatten()
                    .filter(|(key, _)| !is_listed(key))
                    .count();
                if lost > 0 {
                    let message = format!(
                        "its source does not list all keys that it distrusted before (keys: {lost}): the \
                         missing keys stay distrusted, in every certificate, until the entry is removed"
                    );
                    add(Severity::Warning, "", Reason::DistrustKept, message);
                }
            }
        }
        let valid = named.iter().filter(|certificate| now < certificate.not_after);
        let (authorities, leaves): (Vec<_>, Vec<_>) = valid.partition(|c| c.is_ca || c.self_signed);
        for leaf in leaves {
            let message = format!(
                "is the certificate of a single client. API Gateway judges issuers only: this certificate is \
                 accepted until {} as long as its issuer, {}, is trusted. Distrust the issuer, or wait for \
                 the end of the certificate. A self-signed ClientCertificate leaves the truststore when it \
                 is deleted",
                leaf.not_after, leaf.issuer
            );
            add(Severity::Warning, &leaf.subject, Reason::DistrustsLeaf, message);
        }
        if !authorities.is_empty() && !keys.into_iter().flatten().any(|(_, took_effect)| *took_effect) {
            let message = "takes nothing away: no certificate that it lists, and none issued under one, was \
                           in this truststore or is listed by another entry. API Gateway accepts every \
                           certificate whose issuer is in the truststore: list that issuer here";
            add(
                Severity::Warning,
                "",
                Reason::DistrustsNothing,
                message.to_owned(),
            );
        }
        for stranger in source.strangers(signatures) {
            let message = "stands in ca.crt and does not complete the chain of tls.crt: this entry does not \
                           distrust it. List it in a Distrusted entry of its own";
            add(
                Severity::Warning,
                &stranger.subject,
                Reason::Unrelated,
                message.to_owned(),
            );
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
