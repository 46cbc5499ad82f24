//! Tables for the single rules, and a model: random histories in which no living leaf may lose its issuer.

use std::{collections::HashMap, sync::LazyLock};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::pki::{
    certificate::Certificate,
    chain::{self, Broken, MAX_CHAIN, Prefer, Signatures},
    compile::{
        self, Compiled, TooLong,
        offer::{CompileInput, Source, State, contains},
        pass,
    },
    lint::{MAX_CERTIFICATES, Reason, Severity, SourceError},
    pem_error::ParseError,
    truststore::{Bundle, Entry},
};

/// Compiles without a limit.
fn compile(input: &CompileInput<'_>) -> Compiled {
    compile::compile(input, &|| false).expect("there is no limit")
}

pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn start() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

pub(crate) fn day(days: i64) -> Timestamp {
    start() + DAY * i32::try_from(days).unwrap()
}

/// Authority of `key`, valid from 1 day before the start for `days`, signed by `issuer` or itself.
pub(crate) fn authority(
    name: &str,
    key: &KeyPair,
    days: i64,
    issuer: Option<(&str, &KeyPair)>,
) -> Certificate {
    let params = |name: &str| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let at = |t: Timestamp| ::time::OffsetDateTime::from_unix_timestamp(t.as_second()).unwrap();
        (params.not_before, params.not_after) = (at(day(-1)), at(day(days)));
        params
    };
    let made = match issuer {
        None => params(name).self_signed(key).unwrap(),
        Some((by, by_key)) => params(name)
            .signed_by(key, &rcgen::Issuer::new(params(by), by_key))
            .unwrap(),
    };
    Certificate::from_der(made.der()).unwrap()
}

pub(crate) struct Pool {
    pub a: Certificate,
    pub a_rekeyed: Certificate,
    pub a_renewed: Certificate,
    pub b: Certificate,
    pub b_rekeyed: Certificate,
    pub c: Certificate,
    pub root: Certificate,
    pub root_rekeyed: Certificate,
    pub int1: Certificate,
    pub int1_rekeyed: Certificate,
    pub int2: Certificate,
    pub short: Certificate,
}

pub(crate) static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let key = || KeyPair::generate().unwrap();
    let (a, root, root2) = (key(), key(), key());
    Pool {
        a: authority("A", &a, 3650, None),
        a_rekeyed: authority("a", &key(), 3650, None),
        a_renewed: authority("A", &a, 90, None),
        b: authority("B", &key(), 3650, None),
        b_rekeyed: authority("B", &key(), 3650, None),
        c: authority("C", &key(), 400, None),
        root: authority("Root", &root, 3650, None),
        root_rekeyed: authority("Root", &root2, 3650, None),
        int1: authority("I1", &key(), 3650, Some(("Root", &root))),
        int1_rekeyed: authority("I1", &key(), 3650, Some(("Root", &root))),
        int2: authority("I2", &key(), 3650, Some(("Root", &root))),
        short: authority("Short", &key(), 60, None),
    }
});

/// Contents of an authority's source, by number.
fn content(number: usize) -> Vec<Certificate> {
    let p = &*POOL;
    let contents: [&[&Certificate]; 13] = [
        &[&p.a],
        &[&p.a_rekeyed],
        &[&p.a_renewed],
        &[&p.b],
        &[&p.b_rekeyed],
        &[&p.c],
        &[&p.int1, &p.root],
        &[&p.int1_rekeyed, &p.root],
        &[&p.int2, &p.root],
        &[&p.root],
        &[&p.short],
        &[&p.root_rekeyed],
        &[&p.int2], // its chain is incomplete, unless another entry brings the root
    ];
    contents[number]
        .iter()
        .map(|certificate| (*certificate).clone())
        .collect()
}

pub(crate) fn source(authority: &str, certificates: &[&Certificate]) -> Source {
    Source {
        authority: authority.to_owned(),
        state: State::Active,
        issues: false,
        longest_leaf: None,
        certificates: Ok(certificates
            .iter()
            .map(|certificate| (*certificate).clone())
            .collect()),
        completing: vec![],
        client: false,
        share: None,
    }
}

pub(crate) fn issuing(authority: &str, certificates: &[&Certificate]) -> Source {
    Source {
        issues: true,
        longest_leaf: Some(DAY * 90),
        ..source(authority, certificates)
    }
}

pub(crate) fn distrusted(source: Source) -> Source {
    Source {
        state: State::Distrusted,
        ..source
    }
}

pub(crate) fn broken(authority: &str) -> Source {
    Source {
        certificates: Err(SourceError::Unreadable(ParseError::NotPem)),
        ..source(authority, &[])
    }
}

pub(crate) fn run(sources: &[Source], previous: Option<&Bundle>, now: Timestamp) -> Compiled {
    compile(&CompileInput {
        sources,
        previous,
        overlap: None,
        now,
    })
}

pub(crate) fn names(compiled: &Compiled) -> Vec<String> {
    let name = |entry: &Entry| {
        let until = entry
            .keep_until
            .map(|until| format!("<{}", until.duration_since(start()).as_hours() / 24));
        format!(
            "{}:{}{}",
            entry.authority,
            entry.certificate.subject,
            until.unwrap_or_default()
        )
    };
    compiled.bundle.entries.iter().map(name).collect()
}

pub(crate) fn reasons(compiled: &Compiled) -> Vec<(&str, Reason)> {
    compiled
        .findings
        .iter()
        .map(|finding| (finding.authority.as_str(), finding.reason))
        .collect()
}

#[test]
fn certificates_stand_in_the_order_of_the_spec_each_once() {
    let p = &*POOL;
    let first = run(
        &[
            issuing("two", &[&p.int2, &p.root]),
            source("one", &[&p.b]),
            source("three", &[&p.int1, &p.root]),
        ],
        None,
        start(),
    );
    assert_eq!(
        names(&first),
        ["two:CN=I2", "two:CN=Root", "one:CN=B", "three:CN=I1"]
    );
    assert_eq!(first.bundle.entries[0].max_leaf, Some(DAY * 90));
    assert_eq!(first.bundle.entries[2].max_leaf, None);
    assert!(
        first.findings.is_empty() && first.refused_issuers.is_empty(),
        "{first:?}"
    );
}

#[test]
fn an_authority_that_issued_stays_until_its_leaves_are_over() {
    let p = &*POOL;
    let first = run(&[issuing("a", &[&p.a]), source("b", &[&p.b])], None, start());
    let gone = run(&[source("b", &[&p.b])], Some(&first.bundle), day(10));
    assert_eq!(names(&gone), ["b:CN=B", "a:CN=A<100"]);
    let later = run(&[source("b", &[&p.b])], Some(&gone.bundle), day(99));
    assert_eq!(
        later.bundle.render(),
        gone.bundle.render(),
        "keep-until is set once"
    );
    let over = run(&[source("b", &[&p.b])], Some(&later.bundle), day(100));
    assert_eq!(names(&over), ["b:CN=B"]);
    let back = run(
        &[issuing("a", &[&p.a]), source("b", &[&p.b])],
        Some(&gone.bundle),
        day(20),
    );
    assert_eq!(names(&back), ["a:CN=A", "b:CN=B"]);
}

#[test]
fn an_overlap_shortens_the_stay_of_a_superseded_certificate() {
    let p = &*POOL;
    let first = run(&[issuing("a", &[&p.a]), source("b", &[&p.b])], None, start());
    let sources = [source("b", &[&p.b])];
    let with = |previous, overlap, now| {
        compile(&CompileInput {
            sources: &sources,
            previous: Some(previous),
            overlap,
            now,
        })
    };
    let gone = with(&first.bundle, Some(DAY * 30), day(10));
    assert_eq!(names(&gone), ["b:CN=B", "a:CN=A<40"]);
    assert_eq!(
        names(&with(&gone.bundle, Some(DAY * 60), day(20))),
        ["b:CN=B", "a:CN=A<40"],
        "never made later"
    );
    assert_eq!(
        names(&with(&gone.bundle, Some(DAY), day(20))),
        ["b:CN=B", "a:CN=A<21"]
    );
    assert_eq!(
        names(&with(&gone.bundle, Some(SignedDuration::ZERO), day(20))),
        ["b:CN=B"]
    );
    let within_a_second = day(20) + SignedDuration::from_millis(1);
    assert_eq!(
        names(&with(&gone.bundle, Some(SignedDuration::ZERO), within_a_second)),
        ["b:CN=B"],
        "at once"
    );
}

#[test]
fn max_leaf_is_raised_and_never_lowered() {
    let p = &*POOL;
    let with = |days: i32| Source {
        longest_leaf: Some(DAY * days),
        ..issuing("a", &[&p.a])
    };
    let mut bundle = run(&[with(90)], None, start()).bundle;
    for (days, expected) in [(30, 90), (120, 120), (1, 120)] {
        bundle = run(&[with(days)], Some(&bundle), start()).bundle;
        assert_eq!(bundle.entries[0].max_leaf, Some(DAY * expected));
    }
    bundle = run(&[source("a", &[&p.a])], Some(&bundle), start()).bundle;
    assert_eq!(
        (bundle.entries[0].max_leaf, bundle.entries[0].keep_until),
        (Some(DAY * 120), None)
    );
}

#[test]
fn a_shared_root_records_the_leaves_of_both() {
    let p = &*POOL;
    let shared = run(
        &[source("root", &[&p.root]), issuing("a", &[&p.int1, &p.root])],
        None,
        start(),
    );
    assert_eq!(names(&shared), ["root:CN=Root", "a:CN=I1"]);
    assert_eq!(shared.bundle.entries[0].max_leaf, Some(DAY * 90));
}

#[test]
fn nothing_is_issued_under_a_chain_that_is_not_trusted() {
    let p = &*POOL;
    let entry = Entry {
        authority: "a".to_owned(),
        certificate: p.int2.clone(),
        max_leaf: None,
        keep_until: None,
    };
    let unrelated = Bundle {
        entries: vec![entry],
        ..Bundle::default()
    };
    let next = run(&[issuing("a", &[&p.int2])], Some(&unrelated), start());
    assert_eq!(names(&next), ["a:CN=I2"]);
    assert_eq!(next.refused_issuers, ["a"]);
}

#[test]
fn trust_only_leaves_when_the_spec_says_so() {
    let p = &*POOL;
    let first = run(&[source("a", &[&p.a]), source("b", &[&p.b])], None, start());
    assert_eq!(
        names(&run(&[source("b", &[&p.b])], Some(&first.bundle), start())),
        ["b:CN=B"]
    );
    let rekeyed = run(
        &[source("a", &[&p.a]), source("b", &[&p.b_rekeyed])],
        Some(&first.bundle),
        start(),
    );
    assert!(rekeyed.bundle.find(&p.b_rekeyed).is_some() && rekeyed.bundle.find(&p.b).is_none());
    assert_eq!(reasons(&rekeyed), []);
}

#[test]
fn a_broken_authority_keeps_its_last_good_certificates() {
    let p = &*POOL;
    let first = run(&[issuing("a", &[&p.a]), source("b", &[&p.b])], None, start());
    let next = run(&[broken("a"), source("b", &[&p.c])], Some(&first.bundle), day(1));
    assert_eq!(
        names(&next),
        ["a:CN=A", "b:CN=C"],
        "in its place, with the same bytes; the others go on"
    );
    assert_eq!(reasons(&next), [("a", Reason::Unreadable)]);
    assert!(
        next.findings[0]
            .message
            .ends_with("The certificates of this authority that are trusted already stay")
    );
    let refused = run(
        &[issuing("a", &[&p.int2]), source("b", &[&p.b])],
        Some(&first.bundle),
        day(1),
    );
    assert_eq!(refused.bundle.render(), first.bundle.render());
    assert_eq!(reasons(&refused), [("a", Reason::ChainIncomplete)]);
    assert_eq!(refused.refused_issuers, ["a"]);
    let missing = Source {
        certificates: Err(SourceError::Missing),
        ..source("x", &[])
    };
    let never_good = run(&[missing, source("b", &[&p.b])], Some(&first.bundle), day(1));
    assert_eq!(reasons(&never_good), [("x", Reason::SourceMissing)]);
}

#[test]
fn an_authority_whose_root_comes_from_another_keeps_it() {
    let p = &*POOL;
    let first = run(
        &[source("int", &[&p.int2]), source("root", &[&p.root])],
        None,
        start(),
    );
    assert_eq!(names(&first), ["int:CN=I2", "root:CN=Root"]);
    let next = run(&[source("int", &[&p.int2])], Some(&first.bundle), start());
    assert_eq!(names(&next), ["int:CN=I2", "root:CN=Root"]);
    assert_eq!(reasons(&next), [("int", Reason::ChainIncomplete)]);
}

#[test]
fn no_authority_depends_on_a_root_that_is_not_published() {
    let p = &*POOL;
    let first = run(&[source("c", &[&p.root_rekeyed])], None, start());
    let sources = [
        issuing("a", &[&p.int2]),
        issuing("b", &[&p.int2, &p.root]),
        source("c", &[&p.root_rekeyed]),
    ];
    let next = run(&sources, Some(&first.bundle), start());
    assert_eq!(names(&next), ["c:CN=Root"]);
    assert_eq!(
        reasons(&next),
        [("b", Reason::SubjectReused), ("a", Reason::ChainIncomplete)]
    );
    assert_eq!(next.refused_issuers, ["a", "b"]);
}

#[test]
fn distrusted_is_out_at_once() {
    let p = &*POOL;
    let first = run(&[issuing("a", &[&p.a]), source("b", &[&p.b])], None, start());
    let next = run(
        &[distrusted(issuing("a", &[&p.a])), source("b", &[&p.b])],
        Some(&first.bundle),
        start(),
    );
    assert_eq!(names(&next), ["b:CN=B"]);
    assert_eq!(next.refused_issuers, ["a"]);
    let then = run(
        &[distrusted(issuing("a", &[&p.a])), source("b", &[&p.b])],
        Some(&next.bundle),
        start(),
    );
    assert_eq!(
        [first.distrusts, next.distrusts, then.distrusts],
        [false, true, false],
        "the distrust is done once the certificate is out"
    );
    let unreadable = run(
        &[distrusted(broken("a")), source("b", &[&p.b])],
        Some(&first.bundle),
        start(),
    );
    assert_eq!(names(&unreadable), ["b:CN=B"], "known by its name");
    let all = run(
        &[distrusted(broken("a")), distrusted(source("b", &[&p.b]))],
        Some(&first.bundle),
        start(),
    );
    assert_eq!(names(&all), [""; 0], "even the last one");
    let twice = run(
        &[
            distrusted(source("x", &[&p.b])),
            source("b", &[&p.b]),
            source("c", &[&p.c]),
        ],
        Some(&first.bundle),
        start(),
    );
    assert_eq!(names(&twice), ["c:CN=C", "a:CN=A<90"]);
    assert_eq!(reasons(&twice), [("b", Reason::Distrusted)]);
    // The superseded certificate that still stays leaves by the name that it stands under.
    let superseded = run(&[source("a", &[&p.c])], Some(&first.bundle), start());
    assert_eq!(names(&superseded), ["a:CN=C", "a:CN=A<90"]);
    let out = run(
        &[distrusted(source("a", &[&p.c])), source("b", &[&p.b])],
        Some(&superseded.bundle),
        start(),
    );
    assert_eq!(names(&out), ["b:CN=B"]);
}

#[test]
fn distrust_spares_a_shared_root_but_not_the_certificates_below() {
    let p = &*POOL;
    let both = [
        issuing("one", &[&p.int1, &p.root]),
        issuing("two", &[&p.int2, &p.root]),
    ];
    let first = run(&both, None, start());
    let [one, two] = both;
    let spared = run(
        &[distrusted(one.clone()), two.clone()],
        Some(&first.bundle),
        start(),
    );
    assert_eq!(names(&spared), ["two:CN=I2", "two:CN=Root"]);
    let mut broken_two = broken("two");
    broken_two.issues = true;
    let carried = run(&[distrusted(one), broken_two], Some(&first.bundle), start());
    assert_eq!(names(&carried), ["two:CN=I2", "two:CN=Root"]);
    let root = distrusted(source("root", &[&p.root]));
    let fallen = run(&[root, two, source("b", &[&p.b])], Some(&first.bundle), start());
    assert_eq!(names(&fallen), ["b:CN=B"]);
}

#[test]
fn a_subject_is_not_given_to_another_key() {
    let p = &*POOL;
    let first = run(&[issuing("a", &[&p.a])], None, start());
    let rekeyed = [issuing("a", &[&p.a_rekeyed])];
    let next = run(&rekeyed, Some(&first.bundle), day(10));
    assert_eq!(names(&next), ["a:CN=A<100"], "case does not make another subject");
    assert_eq!(next.bundle.entries[0].certificate, p.a);
    assert_eq!(reasons(&next), [("a", Reason::SubjectReused)]);
    assert_eq!(next.refused_issuers, ["a"]);
    let over = run(&rekeyed, Some(&next.bundle), day(100));
    assert_eq!(names(&over), ["a:CN=a"]);
    assert!(over.refused_issuers.is_empty() && over.findings.is_empty());
    // Of two entries in one spec, the one that is trusted already has the subject, else the first one.
    let both = [source("x", &[&p.a_rekeyed]), source("a", &[&p.a])];
    assert_eq!(names(&run(&both, Some(&first.bundle), start())), ["a:CN=A"]);
    assert_eq!(names(&run(&both, None, start())), ["x:CN=a"]);
    assert_eq!(
        reasons(&run(&both, None, start())),
        [("a", Reason::SubjectReused)]
    );
}

#[test]
fn a_renewed_certificate_replaces_its_predecessor() {
    let p = &*POOL;
    let short = run(&[issuing("a", &[&p.a_renewed])], None, start());
    let renewed = run(&[issuing("a", &[&p.a])], Some(&short.bundle), start());
    assert_eq!(renewed.bundle.entries.len(), 1);
    assert_eq!(renewed.bundle.entries[0].certificate, p.a);
    // In the other order the long certificate stays: there are leaves of its lifetime.
    let kept = run(&[issuing("a", &[&p.a_renewed])], Some(&renewed.bundle), start());
    assert_eq!(kept.bundle.entries[0].certificate, p.a);
}

#[test]
fn an_expired_certificate_leaves_and_the_last_one_stays() {
    let p = &*POOL;
    let first = run(&[source("a", &[&p.short]), source("b", &[&p.b])], None, start());
    let expired = run(
        &[source("a", &[&p.short]), source("b", &[&p.b])],
        Some(&first.bundle),
        day(60),
    );
    assert_eq!(names(&expired), ["b:CN=B"]);
    assert_eq!(reasons(&expired), [("a", Reason::Expired)]);
    let empty = run(&[], Some(&expired.bundle), day(61));
    assert_eq!(names(&empty), ["b:CN=B"]);
    assert_eq!(reasons(&empty), [("", Reason::WouldBeEmpty)]);
    assert_eq!(
        names(&run(&[], Some(&first.bundle), day(3650))),
        [""; 0],
        "nothing valid is left to keep"
    );
    // Expired content does not replace good certificates.
    let slip = run(&[source("b", &[&p.short])], Some(&expired.bundle), day(61));
    assert_eq!(names(&slip), ["b:CN=B"]);
}

#[test]
fn too_many_go_in_as_far_as_they_fit_and_the_rest_is_named() {
    let p = &*POOL;
    let key = KeyPair::generate().unwrap();
    let many: Vec<Certificate> = (0..MAX_CERTIFICATES)
        .map(|n| authority(&format!("n{n}"), &key, 3650, None))
        .collect();
    let first = run(&[source("a", &[&p.a])], None, start());
    let sources = [
        issuing("a", &[&p.a]),
        issuing("many", &many.iter().collect::<Vec<_>>()),
    ];
    let next = run(&sources, Some(&first.bundle), start());
    assert_eq!(next.bundle.entries.len(), MAX_CERTIFICATES);
    assert_eq!(reasons(&next), [("many", Reason::TooLarge)]);
    assert_eq!(next.findings[0].subject, format!("CN=n{}", MAX_CERTIFICATES - 1));
    assert!(next.refused_issuers.is_empty(), "its first certificate is in");
    // A trusted certificate does not make way, at any position of the new one in the spec.
    let sources = [sources.as_slice(), &[issuing("b", &[&p.b])]].concat();
    let [a, many, b] = &sources[..] else {
        unreachable!()
    };
    let more = run(&[b.clone(), a.clone(), many.clone()], Some(&next.bundle), start());
    assert_eq!(
        reasons(&more),
        [("b", Reason::TooLarge), ("many", Reason::TooLarge)]
    );
    assert_eq!(more.bundle.render(), next.bundle.render());
    assert_eq!(more.refused_issuers, ["b"]);
}

pub(crate) fn beside(source: Source, completing: &[&Certificate]) -> Source {
    Source {
        completing: completing
            .iter()
            .map(|certificate| (*certificate).clone())
            .collect(),
        ..source
    }
}

#[test]
fn certificates_beside_an_authority_count_only_when_they_complete_its_chain() {
    let p = &*POOL;
    let (root, bridge) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let bridge_ = authority("Bridge", &bridge, 3650, None);
    let [top, crossed] = [None, Some(("Bridge", &bridge))].map(|by| authority("Top", &root, 3650, by));
    let [low, low_again] =
        [10, 20].map(|days| authority("Low", &KeyPair::generate().unwrap(), days, Some(("Top", &root))));
    let strangers = |own: &[&Certificate], completing: &[&Certificate]| {
        let source = beside(source("own", own), completing);
        source
            .strangers(&Signatures::default())
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        strangers(&[&low], &[&p.b, &top, &crossed, &bridge_, &p.b]),
        std::slice::from_ref(&p.b),
        "every way up"
    );
    assert_eq!(
        strangers(&[&top], &[&top, &crossed, &bridge_]),
        [],
        "that of a twin, too"
    );
    assert_eq!(
        strangers(&[&low], &[&low_again, &top]),
        std::slice::from_ref(&low_again),
        "of one name is not of one chain"
    );
    assert_eq!(strangers(&[&low, &p.b], &[&top]), []);
    assert_eq!(
        strangers(&[&low], &[&bridge_]),
        std::slice::from_ref(&bridge_),
        "the certificate between is missing"
    );

    let sources = [beside(issuing("own", &[&p.int1]), &[&p.b, &p.root])];
    let fresh = run(&sources, None, start());
    assert_eq!(names(&fresh), ["own:CN=I1", "own:CN=Root"]);
    assert_eq!(reasons(&fresh), [("own", Reason::Unrelated)]);
    assert_eq!(
        (fresh.findings[0].subject.as_str(), fresh.findings[0].severity),
        ("CN=B", Severity::Dropped)
    );
    assert!(fresh.refused_issuers.is_empty());
    // A certificate trusted through another authority is not this authority's to keep, in either order.
    let other = [&[source("b", &[&p.b])], &sources[..]].concat();
    for both in [other.clone(), vec![other[1].clone(), other[0].clone()]] {
        let both_ = run(&both, Some(&fresh.bundle), start());
        assert_eq!(
            both_.bundle.find(&p.b).map(|entry| entry.authority.as_str()),
            Some("b")
        );
        let back = run(&sources, Some(&both_.bundle), start());
        assert_eq!(back.bundle.render(), fresh.bundle.render());
    }
    // A stranger of any kind does not block the authority.
    let odd = [beside(
        issuing("own", &[&p.int1]),
        &[&p.root, &p.root_rekeyed, &p.int1_rekeyed, &p.a, &p.a_rekeyed],
    )];
    assert_eq!(names(&run(&odd, None, start())), ["own:CN=I1", "own:CN=Root"]);
    assert_eq!(
        names(&run(
            &[distrusted(sources[0].clone()), source("b", &[&p.b])],
            Some(&fresh.bundle),
            start()
        )),
        ["b:CN=B"]
    );
}

#[test]
fn a_stranger_of_an_earlier_release_stays_until_its_authority_is_edited() {
    let p = &*POOL;
    for name in ["own", "cas/own"] {
        let earlier = run(
            &[source(name, &[&p.int1, &p.b, &p.root]), source("c", &[&p.c])],
            None,
            start(),
        );
        let with =
            |tls: &[&Certificate], ca: &[&Certificate]| [beside(source(name, tls), ca), source("c", &[&p.c])];
        let as_it_was = with(&[&p.int1], &[&p.b, &p.root]);
        let now = run(&as_it_was, Some(&earlier.bundle), start());
        assert_eq!(
            now.bundle.render(),
            earlier.bundle.render(),
            "not a byte is written"
        );
        assert_eq!(reasons(&now), [(name, Reason::WouldBeRefused)]);
        assert_eq!(
            (now.findings[0].subject.as_str(), now.findings[0].severity),
            ("CN=B", Severity::Warning)
        );
        // Another authority's edit is not an edit of this one, nor is an expired or distrusted certificate.
        let others = [as_it_was[0].clone(), source("c", &[&p.c, &p.a])];
        assert!(
            run(&others, Some(&now.bundle), start())
                .bundle
                .find(&p.b)
                .is_some()
        );
        let distrust = [as_it_was[0].clone(), distrusted(source("out", &[&p.int1]))];
        assert!(
            run(&distrust, Some(&now.bundle), start())
                .bundle
                .find(&p.b)
                .is_some()
        );
        let short = run(
            &[source(name, &[&p.int1, &p.b, &p.root, &p.short])],
            None,
            start(),
        );
        let short_ = [beside(source(name, &[&p.int1]), &[&p.b, &p.root, &p.short])];
        assert!(
            run(&short_, Some(&short.bundle), day(61))
                .bundle
                .find(&p.b)
                .is_some()
        );
        // After an edit the stranger is out, and does not come back with the earlier content.
        for edited in [
            with(&[&p.int1], &[&p.b, &p.root, &p.a]),
            with(&[&p.int2], &[&p.b, &p.root]),
            with(&[&p.int1, &p.int2], &[&p.b, &p.root]),
            with(&[&p.root], &[&p.b]),
        ] {
            let next = run(&edited, Some(&now.bundle), start());
            assert!(next.bundle.find(&p.b).is_none(), "{edited:?}");
            assert!(reasons(&next).contains(&(name, Reason::Unrelated)));
            let back = run(&as_it_was, Some(&next.bundle), start());
            assert_eq!(
                names(&back),
                [
                    format!("{name}:CN=I1"),
                    format!("{name}:CN=Root"),
                    "c:CN=C".into()
                ]
            );
        }
        // A source that breaks is not an edit.
        let broken = run(&[broken(name), source("c", &[&p.c])], Some(&now.bundle), start());
        assert_eq!(broken.bundle.render(), earlier.bundle.render());
        assert_eq!(
            run(&as_it_was, Some(&broken.bundle), start()).bundle.render(),
            earlier.bundle.render()
        );
    }
}

/// An authority was replaced in place, with the old one beside the new: leaves under the old one are alive.
#[test]
fn beside_its_successor_an_authority_stays_as_long_as_any_superseded_one() {
    let p = &*POOL;
    let first = run(&[issuing("own", &[&p.a])], None, start());
    let rotated = [beside(issuing("own", &[&p.b]), &[&p.b, &p.a])];
    let next = run(&rotated, Some(&first.bundle), day(10));
    assert_eq!(names(&next), ["own:CN=B", "own:CN=A<100"]);
    assert_eq!(reasons(&next), [("own", Reason::Unrelated)]);
    assert_eq!(
        names(&run(&rotated, Some(&next.bundle), day(99))),
        ["own:CN=B", "own:CN=A<100"],
        "set once"
    );
    assert_eq!(names(&run(&rotated, Some(&next.bundle), day(100))), ["own:CN=B"]);
    // An earlier release left the certificate: it stays trusted for as long as it is listed.
    let earlier = run(&[issuing("own", &[&p.b, &p.a])], Some(&first.bundle), day(10));
    let now = run(&rotated, Some(&earlier.bundle), day(10));
    assert_eq!(now.bundle.render(), earlier.bundle.render());
    let edited = [beside(issuing("own", &[&p.c]), &[&p.b, &p.a])];
    assert_eq!(
        names(&run(&edited, Some(&now.bundle), day(20))),
        ["own:CN=C", "own:CN=A<110", "own:CN=B<110"]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        slot: usize,
        content: usize,
        beside: Option<usize>,
        issues: bool,
        leaf_days: i32,
    },
    Remove(usize),
    Distrust(usize),
    Break(usize),
    Advance(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..3, 0usize..13, prop::option::weighted(0.3, 0usize..13), any::<bool>(), 1i32..120)
            .prop_map(|(slot, content, beside, issues, leaf_days)| {
                Step::Set { slot, content, beside, issues, leaf_days }
            }),
        2 => (0usize..3).prop_map(Step::Remove),
        1 => (0usize..3).prop_map(Step::Distrust),
        2 => (0usize..3).prop_map(Step::Break),
        3 => (1i64..80).prop_map(Step::Advance),
    ]
}

/// Leaf in use: the chain that it was issued under, and its end.
#[derive(Debug)]
struct Living {
    chain: Vec<Certificate>,
    until: Timestamp,
}

/// Issues the longest leaf that each authority may issue, as its ClientCertificates would.
fn issue_leaves(sources: &[Source], published: &Compiled, now: Timestamp, leaves: &mut Vec<Living>) {
    for source in sources
        .iter()
        .filter(|source| source.issues && source.state == State::Active)
    {
        let (Ok(certificates), Some(life)) = (&source.certificates, source.longest_leaf) else {
            continue;
        };
        let Some(entry) = published.bundle.find(&certificates[0]) else {
            continue;
        };
        let listed = [&certificates[..], &source.completing].concat();
        let Ok(chain) = chain::chain(&certificates[0], &listed) else {
            continue;
        };
        let end = chain
            .iter()
            .map(|certificate| certificate.not_after)
            .min()
            .unwrap();
        if published.refused_issuers.contains(&source.authority) || entry.max_leaf < Some(life) || now >= end
        {
            continue;
        }
        leaves.push(Living {
            chain,
            until: end.min(now + life),
        });
    }
}

proptest! {
    #![proptest_config(crate::cases(200))]
    #[test]
    fn no_living_leaf_loses_its_issuer(
        history in prop::collection::vec(step(), 1..25),
        overlap in prop::option::weighted(0.2, 0i32..40),
    ) {
        let overlap = overlap.map(|days| DAY * days);
        let mut slots: [Option<Source>; 3] = [None, None, None];
        let mut leaves: Vec<Living> = Vec::new();
        let mut published: Option<Compiled> = None;
        let mut now = start();
        for step in history {
            match step {
                Step::Set { slot, content: number, beside, issues, leaf_days } => {
                    let name = ["a", "b", "c"][slot];
                    let longest_leaf = Some(DAY * leaf_days);
                    let completing = beside.map(content).unwrap_or_default();
                    let certificates = Ok(content(number));
                    let source = source(name, &[]);
                    slots[slot] =
                        Some(Source { issues, longest_leaf, certificates, completing, ..source });
                }
                Step::Remove(slot) => slots[slot] = None,
                Step::Distrust(slot) => if let Some(source) = &mut slots[slot] {
                    source.state = State::Distrusted;
                },
                Step::Break(slot) => if let Some(source) = &mut slots[slot] {
                    source.certificates = Err(SourceError::Missing);
                },
                Step::Advance(days) => {
                    now += DAY * i32::try_from(days).unwrap();
                    if let Some(published) = &published {
                        let sources: Vec<Source> = slots.iter().flatten().cloned().collect();
                        issue_leaves(&sources, published, now, &mut leaves);
                    }
                }
            }
            let sources: Vec<Source> = slots.iter().flatten().cloned().collect();
            let previous = published.as_ref().map(|compiled| &compiled.bundle);
            let next = compile(&CompileInput { sources: &sources, previous, overlap, now });

            // Distrust may break living leaves.
            let out = sources.iter().filter(|source| source.state == State::Distrusted);
            let gone: Vec<Certificate> = out.flat_map(|source| {
                let mut gone = source.certificates.clone().unwrap_or_default();
                let there = previous.into_iter().flat_map(|bundle| &bundle.entries);
                let there = there.filter(|entry| entry.authority == source.authority);
                gone.extend(there.map(|entry| entry.certificate.clone()));
                gone
            }).collect();
            let recorded = |c: &Certificate| {
                next.bundle.distrusted.values().any(|keys| keys.contains_key(&c.spki_sha256))
            };
            leaves.retain(|leaf| {
                leaf.until > now && !leaf.chain.iter().any(|c| contains(&gone, c) || recorded(c))
            });
            let is_out = !next.bundle.entries.iter().any(|entry| recorded(&entry.certificate));
            prop_assert!(is_out, "{:?}", next);
            // A distrust holds until its entry is removed or trusted, for any state of its source.
            for (authority, keys) in previous.into_iter().flat_map(|bundle| &bundle.distrusted) {
                let now = next.bundle.distrusted.get(authority);
                if sources.iter().any(|s| s.state == State::Distrusted && s.authority == *authority) {
                    let kept = now.is_some_and(|now| keys.keys().all(|key| now.contains_key(key)));
                    prop_assert!(kept, "{:?}", next);
                } else {
                    prop_assert_eq!(now, None);
                }
            }
            // No stranger comes in with an authority.
            let is_new =
                |entry: &&Entry| previous.is_none_or(|p| p.find(&entry.certificate).is_none());
            for entry in next.bundle.entries.iter().filter(is_new) {
                let certificate = &entry.certificate;
                let brings = |source: &Source| contains(&source.own(&Signatures::default()), certificate);
                prop_assert!(sources.iter().any(brings), "{:?} in {:?}", entry, next);
            }
            for source in sources.iter().filter(|source| source.state == State::Distrusted) {
                let head = source.certificates.as_ref().ok().and_then(|own| own.first());
                prop_assert!(head.is_none_or(|head| next.bundle.find(head).is_none()), "{:?}", next);
            }

            if overlap.is_none() {
                for leaf in &leaves {
                    for certificate in &leaf.chain {
                        let there = next.bundle.find(certificate);
                        let lasts = there.is_some_and(|entry| entry.certificate.not_after >= leaf.until);
                        prop_assert!(lasts, "{:?} at {now} in {:#?}", leaf, next);
                    }
                }
            }
            for (at, entry) in next.bundle.entries.iter().enumerate() {
                let subject = &entry.certificate.subject_key;
                let before = &next.bundle.entries[..at];
                let twin = before.iter().any(|other| other.certificate.subject_key == *subject);
                prop_assert!(!twin && entry.certificate.not_after > now, "{:#?}", next);
            }
            let read = Bundle::parse(&next.bundle.render()).unwrap();
            prop_assert_eq!(&read, &next.bundle);
            let again = compile(&CompileInput { sources: &sources, previous: Some(&read), overlap, now });
            prop_assert_eq!(again.bundle.render(), next.bundle.render());
            prop_assert_eq!(&again.findings, &next.findings, "an unchanged world, an unchanged status");
            let soon = now + SignedDuration::from_secs(30);
            let passes = |entry: &Entry| {
                entry.certificate.not_after <= soon || entry.keep_until.is_some_and(|until| until <= soon)
            };
            if !next.bundle.entries.iter().any(passes) {
                let previous = Some(&read);
                let again = compile(&CompileInput { sources: &sources, previous, overlap, now: soon });
                prop_assert_eq!(again.bundle.render(), next.bundle.render(), "only the clock went on");
            }
            issue_leaves(&sources, &next, now, &mut leaves);
            published = Some(next);
        }
    }
}

/// Certificate by the numbers of its name and its issuer's name, and the day on which it expires.
type Link = (usize, usize, i64);

/// Number of names, with one key each.
const NAMES: usize = 6;
/// Days on which certificates of the property below expire.
const ENDS: [i64; 3] = [100, 200, 300];

static LINKS: LazyLock<HashMap<Link, Certificate>> = LazyLock::new(|| {
    let keys: Vec<KeyPair> = (0..NAMES).map(|_| KeyPair::generate().unwrap()).collect();
    let all = (0..NAMES).flat_map(|of| (0..NAMES).flat_map(move |by| ENDS.map(|end| (of, by, end))));
    let made = all.map(|(of, by, end)| {
        let issuer = (of != by).then(|| (format!("N{by}"), &keys[by]));
        let issuer = issuer.as_ref().map(|(name, key)| (name.as_str(), *key));
        (
            (of, by, end),
            authority(&format!("N{of}"), &keys[of], end, issuer),
        )
    });
    let mut links: HashMap<Link, Certificate> = made.collect();
    // The leaves, of the longest lifetime, stand beside the certificates under a number that no name has.
    for (by, key) in keys.iter().enumerate() {
        let leaf = authority(
            &format!("leaf{by}"),
            &KeyPair::generate().unwrap(),
            3650,
            Some((&format!("N{by}"), key)),
        );
        links.insert((NAMES + by, by, 3650), leaf);
    }
    links
});

/// Returns OpenSSL's result for the leaf under a name, with these certificates as trusted ones.
fn openssl_accepts(trusted: &str, under: usize, at: Timestamp, partial: bool) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["verify", "-attime", &at.as_second().to_string()]);
    if partial {
        openssl.arg("-partial_chain");
    }
    openssl.arg("-CAfile").arg(file("trusted", trusted));
    openssl.arg(file("leaf", &LINKS[&(NAMES + under, under, 3650)].to_pem()));
    openssl.output().unwrap().status.success()
}

/// True when a chain of at most `longest` valid certificates leads from a name up to a self-signed one.
fn leads_up(from: usize, links: &[Link], on: i64, longest: usize) -> bool {
    let mut own = links.iter().filter(|(of, _, end)| *of == from && on < *end);
    longest > 0 && own.any(|(of, by, _)| of == by || leads_up(*by, links, on, longest - 1))
}

proptest! {
    #![proptest_config(crate::cases(40))]
    /// OpenSSL accepts every leaf from the truststore that it accepts from the source, within API Gateway's
    /// limits. This holds now and after any one certificate of the source has expired, for the first compile
    /// and for a later one.
    #[test]
    fn openssl_accepts_from_the_truststore_all_that_it_accepts_from_the_source(
        links in prop::collection::vec((0..NAMES, 0..NAMES, prop::sample::select(&ENDS[..])), 1..9),
        later in prop::sample::select(&ENDS[..]),
    ) {
        let sound = links.iter().all(|(of, ..)| leads_up(*of, &links, 0, MAX_CHAIN));
        prop_assume!(sound);
        let certificates: Vec<&Certificate> = links.iter().map(|link| &LINKS[link]).collect();
        let source = [source("a", &certificates)];
        let text: String = certificates.iter().map(|c| c.to_pem()).collect();
        let first = run(&source, None, day(0));
        let now = day(later) + SignedDuration::from_secs(1);
        let (fresh, again) = (run(&source, None, now), run(&source, Some(&first.bundle), now));
        for under in 0..NAMES {
            for (at, on, compiled) in [(day(0), 0, &first), (now, later, &fresh), (now, later, &again)] {
                if leads_up(under, &links, on, MAX_CHAIN) {
                    prop_assert!(openssl_accepts(&text, under, at, true), "the source itself: {links:?} \
                                     N{under}");
                    prop_assert!(openssl_accepts(&compiled.bundle.render(), under, at, false), "{links:?} \
                                                N{under} at {at}: {compiled:#?}");
                }
            }
        }
    }
}

#[test]
fn a_redundant_certificate_is_left_out_with_a_warning() {
    let [issuing, cross, new, old] =
        [(0, 1, 300), (1, 2, 300), (1, 1, 200), (2, 2, 100)].map(|link| &LINKS[&link]);
    let file = source("le", &[issuing, cross, new, old]);
    let all = run(std::slice::from_ref(&file), None, start());
    assert_eq!(names(&all), ["le:CN=N0", "le:CN=N1", "le:CN=N2"]);
    assert_eq!(all.bundle.entries[1].certificate, *new, "self-signed first");
    assert_eq!(reasons(&all), [("le", Reason::Redundant)]);
    let later = run(std::slice::from_ref(&file), Some(&all.bundle), day(100));
    assert_eq!(names(&later), ["le:CN=N0", "le:CN=N1"]);
    assert_eq!(
        reasons(&later),
        [("le", Reason::Expired), ("le", Reason::Redundant)]
    );
    let absent = run(&[source("le", &[issuing, cross, new])], None, start());
    assert_eq!(
        (names(&absent).len(), reasons(&absent)),
        (2, vec![("le", Reason::Redundant)])
    );
    // A truststore that was published with the cross-signed certificate gets the whole chain before the old
    // root ends.
    let published = run(&[source("le", &[issuing, cross, old])], None, start());
    assert_eq!(published.bundle.entries[1].certificate, *cross);
    assert_eq!(
        run(&[file], Some(&published.bundle), start()).bundle.render(),
        all.bundle.render()
    );
}

#[test]
fn below_an_expired_root_nothing_is_published_and_the_living_stay() {
    let [a, a_root, b, b_root] =
        [(0, 1, 300), (1, 1, 100), (2, 3, 300), (3, 3, 300)].map(|link| &LINKS[&link]);
    let both = [source("both", &[a, a_root, b, b_root])];
    let fresh = run(&both, None, day(100));
    assert_eq!(names(&fresh), ["both:CN=N2", "both:CN=N3"]);
    assert_eq!(
        reasons(&fresh),
        [("both", Reason::IssuerExpired), ("both", Reason::Expired)]
    );
    let first = run(&both, None, start());
    let again = run(&both, Some(&first.bundle), day(100));
    assert_eq!(names(&again), ["both:CN=N2", "both:CN=N3", "both:CN=N0"]);
}

/// Certificates of one name, none of which signed another. Without the cache of signatures and the lookup of
/// issuers by name, four hundred of them took a minute.
#[test]
fn many_certificates_of_one_name_cost_few_signatures() {
    let key = KeyPair::generate().unwrap();
    let signer = KeyPair::generate().unwrap();
    let many: Vec<Certificate> = (0..400)
        .map(|n| authority("X", &key, 1000 + n, Some(("X", &signer))))
        .collect();
    let signatures = Signatures::default();
    let source = [source("x", &many.iter().collect::<Vec<_>>())];
    let compiled = pass(
        &CompileInput {
            sources: &source,
            previous: None,
            overlap: None,
            now: start(),
        },
        &signatures,
    );
    assert!(
        compiled.bundle.entries.is_empty()
            && compiled
                .findings
                .iter()
                .all(|f| f.reason == Reason::ChainIncomplete)
    );
    assert_eq!(
        signatures.verified(),
        0,
        "each says of itself whether its own key signed it"
    );
}

/// Anyone can have the name and key of another authority's certificate signed by a root of their own.
#[test]
fn a_cross_certificate_of_another_source_neither_displaces_a_certificate_nor_stays_after_it() {
    let key = || KeyPair::generate().unwrap();
    let (root, own, other) = (key(), key(), key());
    let r = authority("R", &root, 3650, None);
    let i = authority("I", &own, 1000, Some(("R", &root)));
    let mallory = authority("M", &other, 9000, None);
    let cross = authority("I", &own, 9000, Some(("M", &other)));
    let b = issuing("b", &[&i, &r]);
    let m = source("m", &[&cross, &mallory]);
    let first = run(std::slice::from_ref(&b), None, start());
    for sources in [[b.clone(), m.clone()], [m.clone(), b.clone()]] {
        let both = run(&sources, Some(&first.bundle), start());
        let entry = both.bundle.find(&i).unwrap();
        assert_eq!(
            (&entry.certificate, entry.authority.as_str()),
            (&i, "b"),
            "{:?}",
            names(&both)
        );
        let told: Vec<_> = both
            .findings
            .iter()
            .map(|f| (f.authority.as_str(), f.reason))
            .collect();
        assert_eq!(told, [("m", Reason::Redundant)]);
        assert!(
            both.findings[0].message.contains("authority b lists one"),
            "{:?}",
            both.findings
        );
        let again = run(&sources, Some(&both.bundle), start());
        assert_eq!(again.bundle.render(), both.bundle.render());
        let alone = run(std::slice::from_ref(&b), Some(&both.bundle), start());
        assert_eq!(names(&alone), names(&first), "nothing of it stays");
    }
    // Published with the cross-certificate by an earlier release: its root leaves with its entry.
    let mut published = run(&[b.clone(), m], Some(&first.bundle), start()).bundle;
    for entry in published
        .entries
        .iter_mut()
        .filter(|entry| entry.certificate == i)
    {
        entry.certificate = cross.clone();
    }
    let alone = run(&[b], Some(&published), start());
    assert_eq!(names(&alone), names(&first));
    assert_eq!(alone.bundle.find(&i).unwrap().certificate, i);
}

/// A twin of an intermediate proves nothing: it waits, also while the source of the entry cannot be read, and
/// whatever was listed before it.
#[test]
fn a_twin_of_another_source_does_not_take_an_entry_over_in_steps() {
    let key = || KeyPair::generate().unwrap();
    let (root, own, other) = (key(), key(), key());
    let r = authority("R", &root, 3650, None);
    let i = authority("I", &own, 1000, Some(("R", &root)));
    let mallory = authority("M", &other, 9000, None);
    let cross = authority("I", &own, 9000, Some(("M", &other)));
    let crossed_root = authority("R", &root, 9000, Some(("M", &other)));
    let v = source("v", &[&i, &r]);
    let m = source("m", &[&cross, &mallory]);
    let first = run(std::slice::from_ref(&v), None, start());
    let is_of_v = |compiled: &Compiled| {
        let entry = compiled.bundle.find(&i).unwrap();
        assert_eq!(
            (&entry.certificate, entry.authority.as_str()),
            (&i, "v"),
            "{:?}",
            names(compiled)
        );
        assert!(compiled.bundle.find(&r).is_some());
    };
    // While the source of the entry is broken, and after.
    let unread = Source {
        certificates: Err(SourceError::Missing),
        ..v.clone()
    };
    for sources in [[m.clone(), unread.clone()], [unread, m.clone()]] {
        let broken = run(&sources, Some(&first.bundle), start());
        is_of_v(&broken);
        let again = run(&sources, Some(&broken.bundle), start());
        assert_eq!(again.bundle.render(), broken.bundle.render());
        is_of_v(&run(&[m.clone(), v.clone()], Some(&broken.bundle), start()));
    }
    // First a copy, then the twin.
    let copy = run(&[source("m", &[&i, &r]), v.clone()], Some(&first.bundle), start());
    is_of_v(&copy);
    is_of_v(&run(&[m, v.clone()], Some(&copy.bundle), start()));
    // A self-signed certificate owns its name and key, also when it comes later.
    let planted = source("m", &[&crossed_root, &mallory]);
    let before = run(std::slice::from_ref(&planted), None, start());
    for previous in [None, Some(&before.bundle)] {
        let both = run(&[planted.clone(), v.clone()], previous, start());
        assert_eq!(both.bundle.find(&r).unwrap().certificate, r, "{:?}", names(&both));
        is_of_v(&both);
    }
    // A broken chain is not made whole by another source's twin.
    let alone = source("v", &[&i]);
    let refused = run(
        &[alone, source("m", &[&cross, &mallory])],
        Some(&first.bundle),
        start(),
    );
    is_of_v(&refused);
    assert!(reasons(&refused).contains(&("v", Reason::ChainIncomplete)));
}

#[test]
fn an_expired_root_of_the_same_name_refuses_nothing() {
    let key = || KeyPair::generate().unwrap();
    let (old, new) = (key(), key());
    let (expired, root) = (authority("R", &old, 10, None), authority("R", &new, 3650, None));
    let int = authority("I", &key(), 3650, Some(("R", &new)));
    for order in [
        [&expired, &int, &root],
        [&int, &root, &expired],
        [&root, &expired, &int],
    ] {
        let compiled = run(&[source("a", &order)], None, day(20));
        assert_eq!(reasons(&compiled), [("a", Reason::Expired)], "{order:?}");
        assert_eq!(compiled.bundle.entries.len(), 2, "{order:?}");
    }
}

#[test]
fn a_circle_of_many_twins_ends_soon() {
    let (x, y) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let one = |n: i64| authority("X", &x, 100 + n, Some(("Y", &y)));
    let other = |n: i64| authority("Y", &y, 100 + n, Some(("X", &x)));
    let circle: Vec<Certificate> = (0..40).flat_map(|n| [one(n), other(n)]).collect();
    let signatures = Signatures::default();
    let pool = chain::Pool::new(&circle, Prefer::Shortest, &signatures);
    let Err(Broken::Incomplete(part)) = pool.chain(&circle[0], MAX_CHAIN) else {
        panic!("there is no root")
    };
    assert!(part.len() <= 16, "{}", part.len());
    let compiled = run(&[source("x", &circle.iter().collect::<Vec<_>>())], None, start());
    assert!(compiled.bundle.entries.is_empty());
}

#[test]
fn a_compilation_that_takes_too_long_gives_no_truststore_and_names_the_costly_source() {
    let leaf_key = KeyPair::generate().unwrap();
    let keys: Vec<_> = (0..20).map(|_| KeyPair::generate().unwrap()).collect();
    let named = |key: &KeyPair| authority("one name", key, 90, None);
    let below = authority("below", &leaf_key, 90, Some(("one name", &keys[0])));
    let costly: Vec<_> = keys.iter().rev().map(named).collect();
    let sources = [
        source("plain", &[&POOL.a]),
        beside(source("costly", &[&below]), &costly.iter().collect::<Vec<_>>()),
    ];
    let input = CompileInput {
        sources: &sources,
        previous: None,
        overlap: None,
        now: start(),
    };
    let asked = std::cell::Cell::new(0);
    let within = |limit: usize| {
        asked.set(0);
        let over = || {
            asked.set(asked.get() + 1);
            asked.get() > limit
        };
        compile::compile(&input, &over)
    };
    let whole = within(usize::MAX).unwrap();
    let questions = asked.get();
    assert!(questions > 10, "{questions}");
    for limit in 0..questions {
        assert!(
            within(limit).is_err(),
            "half of it must not be used: {limit} of {questions}"
        );
    }
    assert_eq!(within(questions), Ok(whole));
    let Err(TooLong { authority }) = within(questions - 1) else {
        panic!()
    };
    assert_eq!(authority, "costly");
}
