//! Tests of `fill`.

use crate::pki::{
    certificate::Certificate,
    compile::{
        Compiled,
        fill::within,
        offer::Source,
        tests::{POOL, authority, day, names, reasons, run, source, start, *},
    },
    lint::{MAX_BYTES, Reason, Severity},
    truststore::{Bundle, DistrustedKeys, Entry},
};

use std::{collections::BTreeSet, sync::LazyLock};

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// Self-signed client certificate with names of `bytes` bytes, issued `days` ago.
pub(crate) fn client(name: &str, bytes: usize, days: i64) -> Certificate {
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

pub(crate) fn of_client(authority: &str, certificate: &Certificate) -> Source {
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
        assert!(next.without_room.len() > last.without_room.len() && !next.without_room.contains("client/0"));
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
            let (root, int, root_name, int_name) = (key(), key(), format!("Root {n}"), format!("Int {n}"));
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
