//! Tests of `truststore`.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::pki::{
    authority::tests::at,
    certificate::Certificate,
    pem_error::ParseError,
    truststore::{Bundle, Entry},
};

/// Certificate straight from rcgen: the operator's own authorities refuse strange names, other
/// authorities have them.
fn certificate(common_name: &str) -> Certificate {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, common_name);
    let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    Certificate::from_der(made.der()).unwrap()
}

fn entry(authority: &str, certificate: Certificate) -> Entry {
    Entry {
        authority: authority.to_owned(),
        certificate,
        max_leaf: None,
        keep_until: None,
    }
}

#[test]
fn the_text_is_as_documented() {
    let certificate = certificate("Größe");
    let pem = certificate.to_pem();
    let full = Entry {
        max_leaf: Some(SignedDuration::from_hours(2160)),
        keep_until: Some(at("2027-02-22T12:00:00Z")),
        ..entry("partners", certificate)
    };
    let line = "# authority: partners  max-leaf: 2160h  keep-until: 2027-02-22T12:00:00Z  subject: \
            CN=Gr\\C3\\B6\\C3\\9Fe\n";
    let bundle = Bundle {
        entries: vec![full],
        ..Bundle::default()
    };
    assert_eq!(bundle.render(), format!("{line}{pem}"));
    // Distrusted keys come first: the comment directly above a certificate is about that certificate.
    let (one, other) = ("1".repeat(64), "f".repeat(64));
    let keys = [(other.clone(), false), (one.clone(), true)].into();
    let bundle = Bundle {
        distrusted: [
            ("b/x".to_owned(), [(one.clone(), true)].into()),
            ("b".into(), keys),
        ]
        .into(),
        ..bundle
    };
    let lines = format!(
        "# authority: b  distrusted: {one}\n# authority: b  distrusted: {other}  effect: none\n# \
     authority: b/x  distrusted: {one}\n"
    );
    assert_eq!(bundle.render(), format!("{lines}{line}{pem}"));
    assert_eq!(Bundle::parse(&bundle.render()), Ok(bundle.clone()));
    let nothing_left = Bundle {
        entries: vec![],
        ..bundle
    };
    assert_eq!(Bundle::parse(&nothing_left.render()), Ok(nothing_left));
}

#[test]
fn only_lines_of_the_operator_are_read_as_distrust() {
    let (key, pem) = ("a".repeat(64), certificate("a").to_pem());
    let lines = [
        format!("# distrusted: {key}"),
        format!("# authority: x  distrusted: {}", &key[1..]),
        format!("# authority: x  distrusted: {}", key.to_uppercase()),
        format!("# authority: x  subject: CN=y  distrusted: {key}"),
        format!("authority: x  distrusted: {key}"),
    ];
    let text = format!(
        "{}\n{pem}# authority: x  distrusted: {key}\n{pem}",
        lines.join("\n")
    );
    let read = Bundle::parse(&text).unwrap();
    assert!(read.distrusted.is_empty() && read.entries.len() == 1, "{read:?}");
}

#[test]
fn a_third_party_bundle_is_read() {
    let (a, b) = (certificate("a"), certificate("b"));
    let text = format!(
        "Bag Attributes\n# subject: x  max-leaf: 9h\n{}\n{}\n{}",
        a.to_pem(),
        b.to_pem(),
        a.to_pem()
    );
    assert_eq!(
        Bundle::parse(&text).unwrap().entries,
        [entry("", a), entry("", b)]
    );
    assert_eq!(Bundle::parse(" \n").unwrap(), Bundle::default());
    assert_eq!(Bundle::parse("hello"), Err(ParseError::NotPem));
}

/// Shapes that a user's editor leaves when the user downloads the object and uploads it again.
#[test]
fn a_comment_stays_with_its_certificate_in_every_shape() {
    let full = |name: &str| Entry {
        max_leaf: Some(SignedDuration::from_hours(2160)),
        keep_until: Some(at("2027-02-22T12:00:00Z")),
        ..entry(name, certificate(name))
    };
    let bundle = Bundle {
        entries: vec![full("a"), full("b"), entry("", certificate("c"))],
        ..Bundle::default()
    };
    let text = bundle.render();
    let shapes = [
        text.replace('\n', "\r\n"),
        format!("\u{feff}{text}"),
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
        text.replace("-----BEGIN", "  -----BEGIN"),
        text.replace("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\n\n"),
        text.replace(
            "-----END CERTIFICATE-----\n# subject: CN=c\n",
            "-----END CERTIFICATE-----",
        ),
    ];
    for shape in shapes {
        assert_ne!(shape, text);
        assert_eq!(Bundle::parse(&shape).as_ref(), Ok(&bundle), "{shape}");
    }
    // A comment never belongs to another block. A comment right after a boundary does not count.
    let moved = text.replace(
        "-----END CERTIFICATE-----\n# authority: b",
        "-----END CERTIFICATE-----# authority: b",
    );
    assert_eq!(Bundle::parse(&moved).unwrap().entries[1].authority, "");
}

#[test]
fn an_authority_named_like_a_pem_block_stays_a_name() {
    let names = [
        "----BEGIN CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----",
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0nT",
        "LS0tLS1CRUdJTi",
        "-----END",
    ];
    let entries: Vec<_> = names.map(|name| entry(name, certificate(name))).into();
    let text = Bundle {
        entries: entries.clone(),
        ..Bundle::default()
    }
    .render();
    assert_eq!(Bundle::parse(&text).unwrap().entries, entries, "{text}");
}

#[test]
fn openssl_reads_every_certificate_despite_strange_names() {
    let strange = certificate("-----BEGIN CERTIFICATE-----");
    let entries = vec![
        entry("-----BEGIN CERTIFICATE-----", strange),
        entry("b", certificate("b")),
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        Bundle {
            entries: entries.clone(),
            ..Bundle::default()
        }
        .render(),
    )
    .unwrap();
    let out = std::process::Command::new("openssl")
        .args(["storeutl", "-noout", "-certs"])
        .arg(file.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("Total found: 2"), "{text}");
    assert_eq!(
        Bundle::parse(
            &Bundle {
                entries: entries.clone(),
                ..Bundle::default()
            }
            .render()
        )
        .unwrap()
        .entries,
        entries
    );
}

proptest! {
    #![proptest_config(crate::cases(100))]
    #[test]
    fn a_rendered_bundle_parses_to_the_same_bundle(
        list in prop::collection::vec(
            (
                any::<String>(),
                "\\PC{1,64}",
                prop::option::of(0i64..1_000_000_000),
                prop::option::of(0i64..9_000_000_000),
            ),
            0..4,
        ),
        distrusted in prop::collection::btree_map(
            prop_oneof![
                "[a-z0-9/-]{1,20}",
                any::<String>().prop_filter("a name", |name| !name.is_empty()),
            ],
            prop::collection::btree_map("[0-9a-f]{64}", any::<bool>(), 1..3),
            0..3,
        ),
    ) {
        let mut entries: Vec<Entry> = Vec::new();
        for (authority, name, max_leaf, keep_until) in list {
            entries.push(Entry {
                max_leaf: max_leaf.map(SignedDuration::from_secs),
                keep_until: keep_until.map(|second| Timestamp::from_second(second).unwrap()),
                ..entry(&authority, certificate(&name))
            });
        }
        let bundle = Bundle { entries, distrusted };
        let text = bundle.render();
        prop_assert!(text.is_ascii());
        let entries: usize = bundle.entries.iter().map(Entry::length).sum();
        prop_assert_eq!(bundle.render_distrusted().len() + entries, text.len());
        prop_assert_eq!(Bundle::parse(&text).unwrap(), bundle);
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), field in "# \
                                 (authority|max-leaf|keep-until|authority: a  distrusted): [^\n]*") {
        let _ = Bundle::parse(&text);
        let block = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
        let _ = Bundle::parse(&format!("{field}\n{block}"));
    }
}
