//! Tests of `distrust`.

use rcgen::KeyPair;

use crate::pki::{
    certificate::Certificate,
    chain::Signatures,
    compile::{
        Compiled,
        distrust::Distrusted,
        fill::MAX_RECORDED,
        offer::{CompileInput, Source, State},
        tests::{POOL, authority, distrusted, issuing, names, reasons, run, source, start},
    },
    lint::{Reason, Severity, SourceError},
    pem_error::ParseError,
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
        message.contains("its issuer, CN=B, is trusted") && message.contains("API Gateway judges issuers"),
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
