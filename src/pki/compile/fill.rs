//! The truststore within API Gateway's limits: the choice of certificates when there is not room for all.
//! Pure.

use super::Source;
use crate::pki::lint::{Finding, MAX_BYTES, MAX_CERTIFICATES, Reason, Severity};
use crate::pki::truststore::{Bundle, DistrustedKeys, Entry, distrusted_line};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Maximum number of distrusted keys that one truststore records.
pub(super) const MAX_RECORDED: usize = 500;

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

/// Removes the certificates that do not fit, and reports them. Order: authorities first, those that are
/// trusted already before new ones, each certificate with its chain; then the certificates of single clients,
/// those that are trusted already first, then the oldest. Skips a certificate that does not fit in favour of
/// a smaller one. Authorities that are trusted already always stay.
pub(super) fn fill(
    bundle: &mut Bundle,
    living: &[&Entry],
    sources: &[Source],
    known: &DistrustedKeys,
    findings: &mut Vec<Finding>,
) {
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
mod tests {
    use super::super::tests::*;
    use super::super::{Compiled, Source};
    use super::*;
    use crate::pki::certificate::Certificate;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use std::sync::LazyLock;

    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

    /// Self-signed client certificate with names of `bytes` bytes, issued `days` ago.
    fn client(name: &str, bytes: usize, days: i64) -> Certificate {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(
            format!("spiffe://{}", "a".repeat(bytes)).try_into().unwrap(),
        )];
        let at = |days| ::time::OffsetDateTime::from_unix_timestamp(day(days).as_second()).unwrap();
        (params.not_before, params.not_after) = (at(-days), at(90));
        Certificate::from_der(params.self_signed(&*KEY).unwrap().der()).unwrap()
    }

    fn of_client(authority: &str, certificate: &Certificate) -> Source {
        Source {
            client: true,
            ..issuing(authority, &[certificate])
        }
    }

    fn bytes(compiled: &Compiled) -> usize {
        compiled.bundle.render().len()
    }

    /// The tenant's certificates fill the megabyte; then the domain's owner adds an authority.
    #[test]
    fn an_authority_has_room_before_any_client_and_the_clients_are_reported() {
        let p = &*POOL;
        let fat: Vec<Certificate> = (0..10)
            .map(|n| client(&format!("fat{n}"), 100_000, 20 - n))
            .collect();
        let clients: Vec<Source> = fat
            .iter()
            .enumerate()
            .map(|(n, c)| of_client(&format!("client/{n}"), c))
            .collect();
        let small = of_client("client/small", &client("small", 10, 0));
        let with = |authorities: &[Source], more: &[Source]| [authorities, &clients, more].concat();
        let sources = with(&[source("a", &[&p.a])], &[]);
        let full = run(&sources, None, start());
        let trusted = |compiled: &Compiled| {
            compiled
                .bundle
                .entries
                .iter()
                .filter(|e| e.authority.starts_with("client/"))
                .count()
        };
        assert!(
            trusted(&full) < 10 && bytes(&full) <= MAX_BYTES,
            "{} of {}",
            trusted(&full),
            bytes(&full)
        );
        let left: BTreeSet<String> = (trusted(&full)..10).map(|n| format!("client/{n}")).collect();
        assert_eq!(full.without_room, left, "the youngest");
        assert_eq!(
            run(&sources, Some(&full.bundle), start()).bundle.render(),
            full.bundle.render()
        );
        // The small certificate fits where the large ones do not.
        let sources = with(&[source("a", &[&p.a])], std::slice::from_ref(&small));
        let more = run(&sources, Some(&full.bundle), start());
        assert_eq!((trusted(&more), &more.without_room), (trusted(&full) + 1, &left));
        // Authorities that need the room of three clients, one after the other.
        let big: Vec<Certificate> = (0..3).map(|n| client(&format!("Big {n}"), 100_000, 0)).collect();
        let mut last = more;
        for n in 1..=3 {
            let listed: Vec<_> = big[..n].iter().collect();
            let sources = with(
                &[source("a", &[&p.a]), source("big", &listed)],
                std::slice::from_ref(&small),
            );
            let next = run(&sources, Some(&last.bundle), start());
            assert!(big[..n].iter().all(|c| next.bundle.find(c).is_some()), "{n}");
            assert!(bytes(&next) <= MAX_BYTES && next.bundle.find(&p.a).is_some());
            assert!(
                next.without_room.len() > last.without_room.len() && !next.without_room.contains("client/0")
            );
            assert!(
                !next.findings.iter().any(|f| f.severity == Severity::Refused),
                "the authorities have room"
            );
            assert_eq!(
                run(&sources, Some(&next.bundle), start()).bundle.render(),
                next.bundle.render()
            );
            last = next;
        }
    }

    #[test]
    fn an_authority_that_does_not_fit_is_refused_by_name_and_a_smaller_one_goes_in() {
        let p = &*POOL;
        let huge = client("Huge", 700_000, 0);
        let sources = [
            source("a", &[&p.a]),
            source("huge", &[&huge]),
            source("big", &[&client("Big", 300_000, 0)]),
            source("b", &[&p.b]),
        ];
        let next = run(&sources, None, start());
        assert_eq!(names(&next), ["a:CN=A", "huge:CN=Huge", "b:CN=B"]);
        assert_eq!(reasons(&next), [("big", Reason::TooLarge)]);
        assert_eq!(
            (next.findings[0].severity, next.findings[0].subject.as_str()),
            (Severity::Refused, "CN=Big")
        );
        let [a, huge, big, b] = sources;
        let again = run(&[big, a, b, huge], Some(&next.bundle), start());
        assert_eq!(
            names(&again),
            ["a:CN=A", "b:CN=B", "huge:CN=Huge"],
            "a trusted certificate does not make way"
        );
    }

    /// Entries, some with a chain, some of them trusted already.
    fn entries() -> &'static [(Entry, bool)] {
        static ALL: LazyLock<Vec<(Entry, bool)>> = LazyLock::new(|| {
            let entry = |authority: &str, certificate| Entry {
                authority: authority.into(),
                certificate,
                max_leaf: None,
                keep_until: None,
            };
            let key = || KeyPair::generate().unwrap();
            let mut all = vec![];
            for n in 0..3 {
                let (root, int, root_name, int_name) =
                    (key(), key(), format!("Root {n}"), format!("Int {n}"));
                all.push((
                    entry(&format!("r{n}"), authority(&root_name, &root, 3650, None)),
                    false,
                ));
                all.push((
                    entry(
                        &format!("i{n}"),
                        authority(&int_name, &int, 3650, Some((&root_name, &root))),
                    ),
                    false,
                ));
                all.push((
                    entry(
                        &format!("j{n}"),
                        authority(&format!("Low {n}"), &key(), 3650, Some((&int_name, &int))),
                    ),
                    false,
                ));
            }
            all.extend((0..6).map(|n| {
                (
                    entry(
                        &format!("client/{n}"),
                        client(&format!("c{n}"), n * 200, n as i64 % 3),
                    ),
                    true,
                )
            }));
            all
        });
        &ALL
    }

    proptest! {
        #[test]
        fn authorities_come_first_with_their_chains_and_a_second_pass_changes_nothing(
            order in Just(entries().to_vec()).prop_shuffle(),
            trusted in prop::collection::vec(any::<bool>(), 15),
            most in 0usize..16,
            bytes in 0usize..14_000,
            recorded in 0usize..12,
        ) {
            let of_entry = |(entry, is_client): &(Entry, bool)| {
                Source { client: *is_client, ..source(&entry.authority, &[]) }
            };
            let sources: Vec<Source> = order.iter().map(of_entry).collect();
            let entries = order.iter().map(|(entry, _)| entry.clone()).collect();
            let keys = (0..recorded).map(|n| (format!("{n:064x}"), true)).collect();
            let distrusted: DistrustedKeys =
                if recorded == 0 { [].into() } else { [("out".to_owned(), keys)].into() };
            let whole = Bundle { entries, distrusted };
            let known: DistrustedKeys =
                [("out".to_owned(), [(format!("{:064x}", recorded / 2), true)].into())].into();
            let living = whole.entries.iter().zip(&trusted).filter(|(_, trusted)| **trusted);
            let living: Vec<&Entry> = living.map(|(entry, _)| entry).collect();
            let is_client = |entry: &Entry| entry.authority.starts_with("client/");
            let (mut filled, mut findings) = (whole.clone(), vec![]);
            within(most, bytes, &mut filled, &living, &sources, &known, &mut findings);

            let is_in = |entry: &&Entry| filled.entries.contains(entry);
            let stays = |entry: &&&Entry| !is_client(entry);
            prop_assert!(living.iter().filter(stays).all(&is_in), "an authority made way");
            let (size, count) = (filled.render().len(), filled.entries.len());
            let needed: Vec<&Entry> = living.iter().copied().filter(|e| !is_client(e)).collect();
            let needed_bytes: usize = needed.iter().map(|e| e.render().len()).sum();
            prop_assert!(size <= bytes.max(needed_bytes) && count <= most.max(needed.len()));
            for entry in filled.entries.iter().filter(|entry| !living.contains(entry) && !is_client(entry)) {
                let issuer_key = &entry.certificate.issuer_key;
                let issuer = whole.entries.iter().find(|e| e.certificate.subject_key == *issuer_key);
                prop_assert!(issuer.as_ref().is_none_or(is_in), "without its issuer: {entry:?}");
            }
            let out: Vec<&Entry> = whole.entries.iter().filter(|entry| !is_in(entry)).collect();
            let forgotten = recorded - filled.distrusted.get("out").map_or(0, |keys| keys.len());
            let (of_memory, of_entries): (Vec<_>, Vec<_>) =
                findings.iter().partition(|f| f.authority == "out");
            prop_assert_eq!(of_memory.len(), usize::from(forgotten > 0));
            if forgotten > 0 && forgotten < recorded {
                let known = format!("{:064x}", recorded / 2);
                let stays = filled.distrusted["out"].contains_key(&known);
                prop_assert!(stays, "a key recorded already stays first");
            }
            let told = of_entries.iter().map(|f| (f.authority.as_str(), f.severity == Severity::Refused));
            let told: Vec<_> = told.collect();
            let expected = out.iter().map(|e| (e.authority.as_str(), !is_client(e)));
            prop_assert_eq!(told, expected.collect::<Vec<_>>());
            // Each certificate left out lacks room for itself and its chain, even in place of the clients.
            let clients = filled.entries.iter().filter(|e| is_client(e));
            let clients: usize = clients.map(|e| e.render().len()).sum();
            let clients_count = filled.entries.iter().filter(|e| is_client(e)).count();
            for entry in out.iter().filter(|e| !is_client(e) && e.certificate.self_signed) {
                let (size, count) = (size - clients + entry.render().len(), count - clients_count + 1);
                prop_assert!(size > bytes || count > most, "{entry:?} has room");
            }
            for entry in out.iter().filter(|e| is_client(e)) {
                prop_assert!(size + entry.render().len() > bytes || count + 1 > most, "{entry:?} has room");
            }
            // In the next compile the result is the current truststore.
            let now: Vec<&Entry> = filled.entries.iter().collect();
            let (mut again, mut repeated) = (whole.clone(), vec![]);
            within(most, bytes, &mut again, &now, &sources, &filled.distrusted, &mut repeated);
            prop_assert_eq!(&again, &filled);
            prop_assert_eq!(repeated, findings);
        }
    }
}
