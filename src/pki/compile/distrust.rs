//! Certificates that must leave the truststore, and the recorded keys that keep a distrust in force when its
//! source is lost. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use crate::pki::{
    certificate::Certificate,
    chain::{Pool, Prefer, Signatures},
    compile::{CompileInput, Source, State, contains, keep_until},
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
    pub fn find(input: &CompileInput<'_>, signatures: &Signatures) -> Distrusted {
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
        signatures: &Signatures,
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

/// Fingerprints of the certificates that only stand above others of these. In a circle, as cross-signed roots
/// make one, no certificate is above the others: all of them are meant.
fn above_others<'p>(certificates: &'p [Certificate], pool: &Pool<'p>) -> HashSet<&'p str> {
    let places: HashMap<&str, usize> = certificates
        .iter()
        .enumerate()
        .map(|(at, c)| (c.fingerprint_sha256.as_str(), at))
        .collect();
    let issuers: Vec<Vec<usize>> = certificates
        .iter()
        .map(|c| {
            let issuers = pool.issuers(c);
            issuers
                .signed
                .iter()
                .filter_map(|issuer| places.get(issuer.fingerprint_sha256.as_str()).copied())
                .collect()
        })
        .collect();
    let mut issued = vec![Vec::new(); certificates.len()];
    for (at, above) in issuers.iter().enumerate() {
        above.iter().for_each(|issuer| issued[*issuer].push(at));
    }
    let mut above: HashSet<usize> = (0..certificates.len())
        .filter(|at| !issued[*at].is_empty())
        .collect();
    let upwards = peeled(&issued, &issuers, (0..certificates.len()).collect());
    let left = (0..certificates.len())
        .filter(|at| !upwards.contains(at))
        .collect();
    let downwards = peeled(&issuers, &issued, left);
    above.retain(|at| upwards.contains(at) || downwards.contains(at));
    above
        .into_iter()
        .map(|at| certificates[at].fingerprint_sha256.as_str())
        .collect()
}

/// Takes away, one after the other, each of `left` that has no edge of `from` to another one left. Returns
/// those taken.
fn peeled(from: &[Vec<usize>], back: &[Vec<usize>], left: HashSet<usize>) -> HashSet<usize> {
    let mut edges: HashMap<usize, usize> = left
        .iter()
        .map(|at| (*at, from[*at].iter().filter(|to| left.contains(to)).count()))
        .collect();
    let mut free: Vec<usize> = left.iter().copied().filter(|at| edges[at] == 0).collect();
    let mut taken = HashSet::new();
    while let Some(at) = free.pop() {
        if !taken.insert(at) {
            continue;
        }
        for before in back[at].iter().filter(|before| left.contains(before)) {
            let count = edges.entry(*before).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                free.push(*before);
            }
        }
    }
    taken
}

/// Returns fingerprints of the issuers, in this pool, of these certificates.
fn issuers_of<'c, 'p>(
    certificates: impl IntoIterator<Item = &'c Certificate>,
    pool: &Pool<'p>,
) -> HashSet<&'p str> {
    certificates
        .into_iter()
        .flat_map(|c| pool.issuers(c).signed.clone())
        .map(|c| c.fingerprint_sha256.as_str())
        .collect()
}

/// Certificates by the issuer that signed them. An untried issuer, among very many of one name, counts as an
/// issuer: no number of keys lets a certificate escape a distrust.
struct Below<'a>(HashMap<&'a str, Vec<&'a Certificate>>);

impl<'a> Below<'a> {
    fn new(heads: &'a [Certificate], others: &'a [Certificate], signatures: &'a Signatures) -> Self {
        let pool = Pool::new(others.iter().chain(heads), Prefer::Shortest, signatures);
        let mut below: HashMap<&str, Vec<&Certificate>> = HashMap::new();
        let mut seen = HashSet::new();
        for other in others
            .iter()
            .filter(|c| seen.insert(c.fingerprint_sha256.as_str()))
        {
            let issuers = pool.issuers(other);
            // Its key is known: the keys that were not tried are no issuers of it.
            let untried = issuers.untried.iter().filter(|_| issuers.signed.is_empty());
            for issuer in issuers.signed.iter().chain(untried) {
                below
                    .entry(issuer.fingerprint_sha256.as_str())
                    .or_default()
                    .push(other);
            }
        }
        Below(below)
    }

    fn of(&self, issuer: &Certificate) -> &[&'a Certificate] {
        self.0
            .get(issuer.fingerprint_sha256.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Distrusted;
    use crate::pki::compile::CompileInput;

    use rcgen::KeyPair;

    use crate::pki::{
        certificate::Certificate,
        chain::Signatures,
        compile::{
            Compiled, Source, State,
            fill::MAX_RECORDED,
            tests::{POOL, authority, distrusted, issuing, names, reasons, run, source, start},
        },
        lint::{Reason, Severity, SourceError},
        pem::ParseError,
        truststore::Bundle,
    };

    fn failed(authority: &str, error: SourceError) -> Source {
        Source {
            certificates: Err(error),
            ..distrusted(source(authority, &[]))
        }
    }

    fn unreadable() -> SourceError {
        SourceError::Unreadable(ParseError::NotPem)
    }

    /// Returns the recorded keys, by authority and subject, and whether each took effect.
    fn recorded(compiled: &Compiled, known: &[&Certificate]) -> Vec<String> {
        let name = |key: &String| {
            known
                .iter()
                .find(|c| c.spki_sha256 == *key)
                .expect("known")
                .subject
                .clone()
        };
        let all = compiled
            .bundle
            .distrusted
            .iter()
            .flat_map(|(authority, keys)| keys.iter().map(move |k| (authority, k)));
        let mut all: Vec<_> = all
            .map(|(authority, (key, effect))| format!("{authority}:{} {effect}", name(key)))
            .collect();
        all.sort();
        all
    }

    /// Checks that a second compile changes nothing, not even the findings.
    fn settled(sources: &[Source], compiled: &Compiled) {
        let again = run(
            sources,
            Some(&Bundle::parse(&compiled.bundle.render()).unwrap()),
            start(),
        );
        assert_eq!(
            (again.bundle.render(), &again.findings),
            (compiled.bundle.render(), &compiled.findings)
        );
    }

    #[test]
    fn a_distrust_that_was_never_read_is_refused_and_one_that_was_read_holds() {
        let p = &*POOL;
        let trusted = [source("all", &[&p.a, &p.b])];
        let first = run(&trusted, None, start());
        let with = |out: Source| [&trusted[..], &[out]].concat();
        for (error, reason) in [
            (unreadable(), Some(Severity::Refused)),
            (SourceError::Missing, Some(Severity::Refused)),
            (SourceError::Unseen, None),
        ] {
            let next = run(&with(failed("out", error.clone())), Some(&first.bundle), start());
            assert_eq!(
                next.bundle.render(),
                first.bundle.render(),
                "the keys to remove are not known"
            );
            let told: Vec<_> = next.findings.iter().map(|f| (f.severity, f.reason)).collect();
            assert_eq!(
                told,
                reason
                    .map(|severity| (severity, Reason::DistrustUnread))
                    .into_iter()
                    .collect::<Vec<_>>()
            );
            settled(&with(failed("out", error)), &next);
        }
        let read = with(distrusted(source("out", &[&p.a])));
        let out = run(&read, Some(&first.bundle), start());
        assert_eq!((names(&out), out.distrusts), (vec!["all:CN=B".to_owned()], true));
        assert_eq!(reasons(&out), [("all", Reason::Distrusted)]);
        assert_eq!(recorded(&out, &[&p.a]), ["out:CN=A true"]);
        settled(&read, &out);
        // A source that is unreadable, deleted, unseen, cut off or replaced: a warning, and the truststore
        // stays equal byte for byte.
        let later = [
            (failed("out", unreadable()), Some(Reason::DistrustKept)),
            (failed("out", SourceError::Missing), Some(Reason::DistrustKept)),
            (failed("out", SourceError::Unseen), None),
            (distrusted(source("out", &[])), Some(Reason::DistrustKept)),
        ];
        for (later, told) in later {
            let later = with(later);
            let next = run(&later, Some(&out.bundle), start());
            assert_eq!(
                (next.bundle.render(), next.distrusts),
                (out.bundle.render(), false),
                "{later:?}"
            );
            let of_out: Vec<_> = next.findings.iter().filter(|f| f.authority == "out").collect();
            assert_eq!(
                of_out.iter().map(|f| f.reason).collect::<Vec<_>>(),
                told.into_iter().collect::<Vec<_>>()
            );
            assert!(
                of_out
                    .iter()
                    .all(|f| f.severity == Severity::Warning && f.message.contains("(keys: 1)"))
            );
            settled(&later, &next);
        }
        let edited = with(distrusted(source("out", &[&p.c])));
        let edited_ = run(&edited, Some(&out.bundle), start());
        assert_eq!(names(&edited_), ["all:CN=B"]);
        assert_eq!(
            recorded(&edited_, &[&p.a, &p.c]),
            ["out:CN=A true", "out:CN=C false"]
        );
        assert_eq!(
            reasons(&edited_),
            [("out", Reason::DistrustKept), ("all", Reason::Distrusted)]
        );
        settled(&edited, &edited_);
        // The distrust ends when the entry is removed, or is trusted.
        let removed = run(&trusted, Some(&out.bundle), start());
        assert_eq!(removed.bundle.render(), first.bundle.render());
        let active = run(&with(source("out", &[&p.c])), Some(&edited_.bundle), start());
        assert_eq!(names(&active), ["all:CN=A", "all:CN=B", "out:CN=C"]);
        assert!(active.bundle.distrusted.is_empty());
    }

    #[test]
    fn every_certificate_of_a_distrusted_key_is_out_and_all_issued_under_it() {
        let p = &*POOL;
        let (key, root) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let compromised = authority("Compromised", &key, 3650, None);
        let bridge = authority("Bridge", &root, 3650, None);
        let again: [Certificate; 3] = [
            authority("Compromised", &key, 90, None),
            authority("Another Name", &key, 3650, None),
            authority("Compromised", &key, 3650, Some(("Bridge", &root))),
        ];
        let below = authority(
            "Below",
            &KeyPair::generate().unwrap(),
            3650,
            Some(("Another Name", &key)),
        );
        let first = run(
            &[source("b", &[&p.b]), source("x", &[&compromised])],
            None,
            start(),
        );
        let out = run(
            &[source("b", &[&p.b]), distrusted(source("x", &[&compromised]))],
            Some(&first.bundle),
            start(),
        );
        assert_eq!(names(&out), ["b:CN=B"]);
        for certificate in &again {
            let sources = [
                source("new", &[certificate, &bridge]),
                failed("x", SourceError::Missing),
            ];
            let next = run(&sources, Some(&out.bundle), start());
            assert_eq!(names(&next), ["new:CN=Bridge"], "{certificate:?}");
            settled(&sources, &next);
        }
        let sources = [
            source("new", &[&below, &again[1], &p.c]),
            failed("x", SourceError::Missing),
        ];
        let next = run(&sources, Some(&out.bundle), start());
        assert_eq!(
            names(&next),
            ["new:CN=C"],
            "the certificate issued under another name of the key"
        );
        settled(&sources, &next);
    }

    #[test]
    fn issuers_above_a_distrusted_certificate_are_not_recorded() {
        let p = &*POOL;
        let out = [
            distrusted(source("one", &[&p.int1, &p.root])),
            source("b", &[&p.b]),
        ];
        let first = run(
            &[source("one", &[&p.int1, &p.root]), source("b", &[&p.b])],
            None,
            start(),
        );
        let next = run(&out, Some(&first.bundle), start());
        assert_eq!(
            (names(&next), recorded(&next, &[&p.int1])),
            (vec!["b:CN=B".into()], vec!["one:CN=I1 true".into()])
        );
        let two = [
            failed("one", SourceError::Missing),
            source("two", &[&p.int1, &p.int2, &p.root]),
        ];
        let next = run(&two, Some(&next.bundle), start());
        assert_eq!(
            names(&next),
            ["two:CN=I2", "two:CN=Root"],
            "the root is another's too"
        );
    }

    #[test]
    fn an_issuer_that_stays_trusted_above_a_distrusted_certificate_is_reported() {
        let p = &*POOL;
        let trusted = source("all", &[&p.int1, &p.int2, &p.root, &p.b]);
        let first = run(std::slice::from_ref(&trusted), None, start());
        let with = |out: &[&Certificate]| [trusted.clone(), distrusted(source("out", out))];
        let told = |compiled: &Compiled| -> Vec<(String, Reason)> {
            let of_out = compiled.findings.iter().filter(|f| f.authority == "out");
            of_out.map(|f| (f.subject.clone(), f.reason)).collect()
        };
        let sources = with(&[&p.int1, &p.root]);
        let next = run(&sources, Some(&first.bundle), start());
        assert_eq!(names(&next), ["all:CN=I2", "all:CN=Root", "all:CN=B"]);
        assert_eq!(told(&next), [("CN=Root".to_owned(), Reason::DistrustSpares)]);
        settled(&sources, &next);
        let alone = run(&with(&[&p.root]), Some(&first.bundle), start());
        assert_eq!(
            (names(&alone), told(&alone)),
            (vec!["all:CN=B".to_owned()], vec![])
        );
        // No other entry lists or needs the issuer: it leaves with the rest, without a finding.
        let trusted = source("all", &[&p.b]);
        let unneeded = run(
            &[trusted, distrusted(source("out", &[&p.int1, &p.root]))],
            Some(&first.bundle),
            start(),
        );
        assert_eq!(names(&unneeded), ["all:CN=B"]);
        assert!(told(&unneeded).is_empty(), "{:?}", told(&unneeded));
    }

    /// Roots that signed each other: none of them is above the other, all are meant.
    #[test]
    fn a_circle_of_cross_signed_roots_is_distrusted_as_a_whole() {
        let (one, two) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let roots = [
            authority("One", &one, 3650, None),
            authority("Two", &two, 3650, None),
        ];
        let crossed = [
            authority("One", &one, 3650, Some(("Two", &two))),
            authority("Two", &two, 3650, Some(("One", &one))),
        ];
        let below = authority("Below", &KeyPair::generate().unwrap(), 3650, Some(("One", &one)));
        let p = &*POOL;
        let all: Vec<&Certificate> = roots.iter().chain(&crossed).collect();
        let listed: Vec<&Certificate> = all.iter().copied().chain([&below]).collect();
        let trusted = [source("b", &[&p.b]), source("all", &listed)];
        let first = run(&trusted, None, start());
        for out in [&all[..], &all[2..]] {
            let sources = [&trusted[..], &[distrusted(source("out", out))]].concat();
            let next = run(&sources, Some(&first.bundle), start());
            assert_eq!(
                (names(&next), next.distrusts),
                (vec!["b:CN=B".to_owned()], true),
                "{out:?}"
            );
            assert_eq!(
                next.bundle.distrusted["out"].len(),
                2,
                "both keys stay distrusted"
            );
            settled(&sources, &next);
        }
        // A root above a circle is only above.
        let top = KeyPair::generate().unwrap();
        let above = [
            authority("Top", &top, 3650, None),
            authority("One", &one, 3650, Some(("Top", &top))),
            authority("Low", &two, 3650, Some(("One", &one))),
        ];
        let trusted = source("all", &[&above[0], &p.b]);
        let out = distrusted(source("out", &above.iter().collect::<Vec<_>>()));
        let next = run(&[trusted, out], None, start());
        assert_eq!(names(&next), ["all:CN=Top", "all:CN=B"]);
    }

    /// A key that was not tried is no issuer of a certificate whose issuer is known.
    #[test]
    fn a_distrust_of_many_keys_of_a_name_takes_no_certificate_of_another_key_along() {
        let p = &*POOL;
        let root = KeyPair::generate().unwrap();
        let (r, i) = (
            authority("Same", &root, 3650, None),
            authority("I", &KeyPair::generate().unwrap(), 3650, Some(("Same", &root))),
        );
        let many: Vec<Certificate> = (0..70)
            .map(|_| {
                let mut other = authority("Same", &KeyPair::generate().unwrap(), 3650, None);
                other.subject_key_id = None;
                other
            })
            .collect();
        let sources = [
            source("b", &[&p.b, &i, &r]),
            distrusted(source("out", &many.iter().collect::<Vec<_>>())),
        ];
        assert_eq!(
            names(&run(&sources, None, start())),
            ["b:CN=B", "b:CN=I", "b:CN=Same"]
        );
    }

    /// Hundreds of keys under one name: the work grows with the certificates, and untried certificates are
    /// distrusted.
    #[test]
    fn many_keys_of_one_name_cost_little_and_let_nothing_through() {
        let p = &*POOL;
        let keys: Vec<KeyPair> = (0..150).map(|_| KeyPair::generate().unwrap()).collect();
        let heads: Vec<Certificate> = keys
            .iter()
            .map(|key| authority("Same", key, 3650, None))
            .collect();
        // Key identifiers would identify the issuer at once, so these certificates have none.
        let children: Vec<Certificate> = keys
            .iter()
            .enumerate()
            .map(|(n, key)| unidentified(authority(&format!("child {n}"), key, 3650, Some(("Same", key)))))
            .collect();
        let (heads, children): (Vec<_>, Vec<_>) = (heads.iter().collect(), children.iter().collect());
        let sources = [
            source("b", &[&p.b]),
            source("all", &children),
            distrusted(source("out", &heads)),
        ];
        let signatures = Signatures::default();
        let input = CompileInput {
            sources: &sources,
            previous: None,
            overlap: None,
            now: start(),
        };
        let found = Distrusted::find(&input, &signatures);
        let slipped: Vec<_> = children.iter().filter(|child| !found.holds(child)).collect();
        assert!(slipped.is_empty() && !found.holds(&p.b), "{slipped:?}");
        assert!(signatures.verified() <= 64 * 150, "{}", signatures.verified());
        let beside = Source {
            completing: heads.into_iter().cloned().collect(),
            ..source("all", &children)
        };
        let signatures = Signatures::default();
        beside.strangers(&signatures);
        assert!(signatures.verified() <= 64 * 150, "{}", signatures.verified());
    }

    fn unidentified(mut certificate: Certificate) -> Certificate {
        certificate.authority_key_id = None;
        certificate.spki_sha256 = format!("of {}", certificate.subject);
        certificate
    }

    #[test]
    fn entries_under_the_name_of_an_unreadable_distrust_are_recorded() {
        let p = &*POOL;
        let first = run(&[issuing("gone", &[&p.a]), source("b", &[&p.b])], None, start());
        let sources = [failed("gone", SourceError::Missing), source("b", &[&p.b])];
        let next = run(&sources, Some(&first.bundle), start());
        assert_eq!(
            (names(&next), reasons(&next)),
            (vec!["b:CN=B".to_owned()], vec![("gone", Reason::DistrustKept)])
        );
        settled(&sources, &next);
        let copy = [failed("gone", SourceError::Missing), source("b", &[&p.b, &p.a])];
        assert_eq!(names(&run(&copy, Some(&next.bundle), start())), ["b:CN=B"]);
    }

    #[test]
    fn a_distrust_without_effect_is_reported_and_one_that_had_effect_is_not() {
        let p = &*POOL;
        let key = KeyPair::generate().unwrap();
        let leaf = {
            let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
            params.is_ca = rcgen::IsCa::ExplicitNoCa;
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, "thief");
            let mut by = rcgen::CertificateParams::new(vec![]).unwrap();
            by.distinguished_name = rcgen::DistinguishedName::new();
            by.distinguished_name.push(rcgen::DnType::CommonName, "B");
            let made = params.signed_by(&key, &rcgen::Issuer::new(by, &key)).unwrap();
            Certificate::from_der(made.der()).unwrap()
        };
        let trusted = source("all", &[&p.b, &p.int1, &p.root]);
        let first = run(std::slice::from_ref(&trusted), None, start());
        let with = |out: &[&Certificate]| [trusted.clone(), distrusted(source("out", out))];
        type Case<'a> = (&'a [&'a Certificate], &'a [Reason]);
        let cases: [Case<'_>; 6] = [
            (&[&p.b], &[]),
            (&[&p.root], &[]),
            (&[&p.a], &[Reason::DistrustsNothing]),
            (&[&p.a, &p.b], &[]),
            (&[&leaf], &[Reason::DistrustsLeaf]),
            (&[&leaf, &p.a], &[Reason::DistrustsLeaf, Reason::DistrustsNothing]),
        ];
        for (listed, expected) in cases {
            let sources = with(listed);
            let next = run(&sources, Some(&first.bundle), start());
            let told = |compiled: &Compiled| -> Vec<Reason> {
                compiled
                    .findings
                    .iter()
                    .filter(|f| f.authority == "out")
                    .map(|f| f.reason)
                    .collect()
            };
            assert_eq!(told(&next), expected, "{listed:?}");
            settled(&sources, &next);
            // The removed certificate leaves no trace once no other source has it.
            let alone = [source("all", &[&p.c]), sources[1].clone()];
            let later = run(&alone, Some(&next.bundle), start());
            assert_eq!(told(&later), expected, "{listed:?}");
            settled(&alone, &later);
        }
        let told = run(&with(&[&leaf]), Some(&first.bundle), start());
        let message = &told.findings[0].message;
        assert!(
            message.contains("its issuer, CN=B, is trusted")
                && message.contains("API Gateway judges issuers"),
            "{message}"
        );
        // The distrust has no effect until another entry lists the certificate.
        let nothing = run(&with(&[&p.a]), Some(&first.bundle), start());
        let tried = [source("all", &[&p.b, &p.a]), failed("out", SourceError::Missing)];
        let next = run(&tried, Some(&nothing.bundle), start());
        assert_eq!(
            (names(&next), recorded(&next, &[&p.a])),
            (vec!["all:CN=B".into()], vec!["out:CN=A true".into()])
        );
    }

    #[test]
    fn a_withdrawn_certificate_is_out_and_its_key_may_come_again() {
        let p = &*POOL;
        let client = |authority: &str, certificates: &[&Certificate]| Source {
            client: true,
            ..issuing(authority, certificates)
        };
        let first = run(
            &[source("b", &[&p.b]), client("client/1", &[&p.a])],
            None,
            start(),
        );
        let withdrawn = Source {
            state: State::Withdrawn,
            ..client("client/1", &[])
        };
        let sources = [source("b", &[&p.b]), withdrawn];
        let gone = run(&sources, Some(&first.bundle), start());
        assert_eq!((names(&gone), gone.distrusts), (vec!["b:CN=B".to_owned()], true));
        assert!(
            gone.bundle.distrusted.is_empty() && gone.findings.is_empty(),
            "{gone:?}"
        );
        // The source is restored under another UID with a renewed certificate of its key.
        let renewed = [
            source("b", &[&p.b]),
            sources[1].clone(),
            client("client/2", &[&p.a_renewed]),
        ];
        assert_eq!(
            names(&run(&renewed, Some(&gone.bundle), start())),
            ["b:CN=B", "client/2:CN=A"]
        );
    }

    #[test]
    fn the_truststore_records_only_as_many_keys_as_fit() {
        let p = &*POOL;
        let many: Vec<Certificate> = (0..=MAX_RECORDED)
            .map(|n| authority(&format!("n{n}"), &KeyPair::generate().unwrap(), 3650, None))
            .collect();
        let listed: Vec<_> = many.iter().collect();
        let sources = [
            source("b", &[&p.b]),
            distrusted(source("zz", &[&p.c])),
            distrusted(source("out", &listed)),
        ];
        let first = run(&sources[..2], None, start());
        let next = run(&sources, Some(&first.bundle), start());
        assert_eq!(
            next.bundle
                .distrusted
                .values()
                .map(|keys| keys.len())
                .sum::<usize>(),
            MAX_RECORDED
        );
        assert_eq!(
            next.bundle.distrusted["zz"].len(),
            1,
            "keys recorded already stay"
        );
        let told: Vec<_> = next
            .findings
            .iter()
            .filter(|f| f.reason == Reason::TooLarge)
            .collect();
        assert!(
            told.len() == 1 && told[0].authority == "out" && told[0].message.contains(" 2 keys "),
            "{told:?}"
        );
        settled(&sources, &next);
        let forgotten = many
            .iter()
            .find(|c| !next.bundle.distrusted["out"].contains_key(&c.spki_sha256))
            .unwrap();
        let with = [&sources[..], &[source("x", &[forgotten])]].concat();
        assert_eq!(
            names(&run(&with, Some(&next.bundle), start())),
            ["b:CN=B"],
            "the certificate is out as long as it is listed"
        );
    }
}
