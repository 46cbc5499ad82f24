//! Tests of `shares`.

use std::{collections::BTreeSet, sync::LazyLock};

use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use crate::pki::{
    certificate::Certificate,
    compile::{
        Compiled,
        offer::{Share, Source},
        tests::{day, issuing, run, start},
    },
    lint::{Reason, Severity},
    truststore::{Bundle, Entry},
};

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// Certificate of a client that signs itself: its revision, the length of its names and its age in days.
fn certificate(client: &str, revision: u32, names: usize, age: i64) -> Certificate {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if revision > 1 {
        let number = DnType::CustomDnType(vec![2, 5, 4, 5]);
        params.distinguished_name.push(number, revision.to_string());
    }
    params.distinguished_name.push(DnType::CommonName, client);
    params.subject_alt_names = vec![SanType::URI(
        format!("spiffe://{}", "a".repeat(names)).try_into().unwrap(),
    )];
    let at = |days| ::time::OffsetDateTime::from_unix_timestamp(day(days).as_second()).unwrap();
    (params.not_before, params.not_after) = (at(-age), at(90));
    Certificate::from_der(params.self_signed(&*KEY).unwrap().der()).unwrap()
}

/// Source of a client: of a grant with so many bytes, or of none.
fn of(client: &str, grant: Option<(&str, usize)>, certificates: &[&Certificate]) -> Source {
    Source {
        client: true,
        share: grant.map(|(grant, bytes)| Share {
            grant: grant.to_owned(),
            bytes,
        }),
        ..issuing(client, certificates)
    }
}

fn holds<const N: usize>(compiled: &Compiled, certificates: [&Certificate; N]) -> [bool; N] {
    certificates.map(|c| compiled.bundle.find(c).is_some())
}

fn left_out(compiled: &Compiled) -> Vec<&str> {
    compiled.without_room.iter().map(String::as_str).collect()
}

/// Returns the truststore with these certificates and no shares, as an earlier release has it.
fn earlier(clients: &[(&str, &Certificate)]) -> Bundle {
    let sources: Vec<_> = clients.iter().map(|(client, c)| of(client, None, &[c])).collect();
    run(&sources, None, start()).bundle
}

fn length(client: &str, certificate: &Certificate) -> usize {
    let bundle = earlier(&[(client, certificate)]);
    bundle.entries.iter().map(Entry::length).sum()
}

#[test]
fn the_clients_of_a_grant_share_its_bytes_and_the_oldest_come_first() {
    let [one, two] = [("one", 30), ("two", 20)].map(|(name, age)| certificate(name, 1, 2_000, age));
    let small = certificate("small", 1, 200, 10);
    let both = length("c/1", &one) + length("c/2", &two);
    for (bytes, expected, without_room) in [
        (both, [true, true, false], vec!["c/3"]),
        (both + length("c/3", &small) - 1, [true, true, false], vec!["c/3"]),
        (both + length("c/3", &small), [true, true, true], vec![]),
        // A smaller one has the place of one that does not fit.
        (both - 1, [true, false, true], vec!["c/2"]),
        (1_024, [false, false, true], vec!["c/1", "c/2"]),
    ] {
        let grant = Some(("acme", bytes));
        let sources = [
            of("c/3", grant, &[&small]),
            of("c/2", grant, &[&two]),
            of("c/1", grant, &[&one]),
        ];
        let compiled = run(&sources, None, start());
        assert_eq!(holds(&compiled, [&one, &two, &small]), expected, "{bytes}");
        assert_eq!(left_out(&compiled), without_room, "{bytes}");
        for told in &compiled.findings {
            assert_eq!(
                (told.reason, told.severity),
                (Reason::TooLarge, Severity::Dropped)
            );
            let words = format!("of the ClientGrant acme may have {bytes} bytes");
            assert!(told.message.contains(&words), "{}", told.message);
        }
        let again = run(&sources, Some(&compiled.bundle), start());
        assert_eq!(
            again.bundle, compiled.bundle,
            "{bytes}: a second pass changes nothing"
        );
    }
}

#[test]
fn a_share_is_for_one_grant_and_not_for_the_domains_own_clients() {
    let [one, two, three] = ["one", "two", "three"].map(|name| certificate(name, 1, 2_000, 0));
    let bytes = length("c/1", &one) + 8;
    let of_grants = |second: Option<(&str, usize)>| {
        let first = Some(("acme", bytes));
        let sources = [
            of("c/1", first, &[&one]),
            of("c/2", second, &[&two]),
            of("c/3", None, &[&three]),
        ];
        run(&sources, None, start()).bundle.entries.len()
    };
    assert_eq!(of_grants(Some(("acme", bytes))), 2);
    assert_eq!(of_grants(Some(("zeta", bytes))), 3);
    assert_eq!(of_grants(None), 3);
}

#[test]
fn what_is_trusted_already_stays_and_counts() {
    let [old, young] = [("old", 40), ("young", 1)].map(|(name, age)| certificate(name, 1, 2_000, age));
    let bytes = length("c/1", &old) + 8;
    let grant = Some(("acme", bytes));
    // A living certificate comes before an older one that is new to the truststore.
    let sources = [of("c/1", grant, &[&old]), of("c/2", grant, &[&young])];
    let compiled = run(&sources, Some(&earlier(&[("c/2", &young)])), start());
    assert_eq!(holds(&compiled, [&old, &young]), [false, true]);
    // Both are living, and the grant says less than they have: another one has no room, however small.
    let before = earlier(&[("c/1", &old), ("c/2", &young)]);
    let small = certificate("small", 1, 1, 50);
    let sources = [&sources[..], &[of("c/3", grant, &[&small])]].concat();
    let compiled = run(&sources, Some(&before), start());
    assert_eq!(holds(&compiled, [&old, &young, &small]), [true, true, false]);
    assert_eq!(left_out(&compiled), ["c/3"]);
}

#[test]
fn a_renewal_needs_no_room_and_a_second_one_does() {
    let [one, two] = [("one", 30), ("two", 20)].map(|(name, age)| certificate(name, 1, 2_000, age));
    let full = length("c/1", &one) + length("c/2", &two);
    let [next, third] = [2, 1_000].map(|revision| certificate("one", revision, 2_000, 0));
    assert!(length("c/1", &next) > length("c/1", &one), "the serial number");
    let before = earlier(&[("c/1", &one), ("c/2", &two)]);
    // The grant is full, or has more than its bytes from an earlier release.
    for bytes in [full, 1_024] {
        let grant = Some(("acme", bytes));
        let renewed = |certificates: &[&Certificate], previous: &Bundle| {
            let sources = [of("c/1", grant, certificates), of("c/2", grant, &[&two])];
            run(&sources, Some(previous), start())
        };
        let compiled = renewed(&[&one, &next], &before);
        assert_eq!(holds(&compiled, [&one, &next, &two]), [true; 3], "{bytes}");
        assert_eq!(compiled.without_room, BTreeSet::new(), "{bytes}");
        let more = renewed(&[&next, &third], &compiled.bundle);
        assert_eq!(
            holds(&more, [&one, &next, &third, &two]),
            [true, true, false, true],
            "{bytes}"
        );
        assert_eq!(left_out(&more), ["c/1"], "{bytes}");
        // The superseded certificate is over: the next renewal needs no room.
        let mut later = compiled.bundle.clone();
        later.entries.retain(|entry| entry.certificate != one);
        let compiled = renewed(&[&next, &third], &later);
        assert_eq!(holds(&compiled, [&next, &third, &two]), [true; 3], "{bytes}");
    }
    // Other content is no renewal: it needs the room by which it is longer.
    let longer = certificate("one", 2, 2_100, 0);
    let shorter = certificate("one", 2, 1_900, 0);
    for (changed, is_in) in [(&longer, false), (&shorter, true)] {
        let grant = Some(("acme", full));
        let sources = [of("c/1", grant, &[&one, changed]), of("c/2", grant, &[&two])];
        let compiled = run(&sources, Some(&before), start());
        assert_eq!(holds(&compiled, [&one, changed, &two]), [true, is_in, true]);
    }
}
