//! Tests of `leaf_secret`.

use super::{KEYSTORE, KEYSTORE_DIGEST, MOST_REVISIONS, RENEWED, REVISION, held, keystore_digest};

use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use crate::{
    controllers::client_certificate::fixture::{certificate, secret},
    issuance::{
        desired::{Desired, desired},
        observed::Password,
    },
    pki::{
        inspect::SecretData,
        keys::{DesiredKey, KeyKind},
    },
    trust::self_signed::CERTIFICATE_LABEL,
};

fn wanted() -> Desired {
    desired(&certificate(|_| {}), None, None).unwrap()
}

fn by_csr() -> Desired {
    let key = DesiredKey::Requested {
        spki: crate::pki::leaf::tests::spki(KeyKind::EcdsaP256),
    };
    Desired { key, ..wanted() }
}

#[test]
fn a_secret_is_ours_by_its_label_for_this_certificate_and_its_type() {
    let labelled = |name: &'static str| {
        move |s: &mut Secret| {
            s.metadata.labels = Some([(CERTIFICATE_LABEL.to_owned(), name.to_owned())].into())
        }
    };
    let opaque = |s: &mut Secret| {
        labelled("client1")(s);
        s.type_ = Some("Opaque".into());
    };
    let other_label =
        |s: &mut Secret| s.metadata.labels = Some([("a".to_owned(), "client1".to_owned())].into());
    let of = |change: &dyn Fn(&mut Secret)| secret("client1", &[("tls.crt", "x")], change);
    for (what, d, found, expected) in [
        ("ours", wanted(), of(&labelled("client1")), true),
        ("another certificate's", wanted(), of(&labelled("client2")), false),
        ("without a label", wanted(), of(&|_| {}), false),
        ("with another label", wanted(), of(&other_label), false),
        ("of another type", wanted(), of(&opaque), false),
        ("without a key, for one by CSR", by_csr(), of(&opaque), true),
        (
            "with a key, for one by CSR",
            by_csr(),
            of(&labelled("client1")),
            false,
        ),
    ] {
        assert_eq!(held(&d, found, None).ours, expected, "{what}");
    }
}

#[test]
fn what_a_secret_says_of_its_leaf() {
    let annotated = |all: &[(&str, &str)]| {
        let all: std::collections::BTreeMap<_, _> = all
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        secret(
            "client1",
            &[("tls.crt", "c"), ("tls.key", "k"), ("ca.crt", "a")],
            |s| s.metadata.annotations = Some(all),
        )
    };
    let found = held(&wanted(), annotated(&[(REVISION, "3"), (RENEWED, "now")]), None);
    assert_eq!(
        (found.revision, found.renewed.as_deref(), found.keystore_fits),
        (3, Some("now"), false)
    );
    let data = |bytes: &Option<Vec<u8>>| bytes.clone().map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(
        [&found.data.tls_crt, &found.data.tls_key, &found.data.ca_crt].map(data),
        ["c", "k", "a"].map(|t| Some(t.to_owned()))
    );
    for text in ["0", "-1", "1000000001", "9223372036854775807", "x", ""] {
        assert_eq!(
            held(&wanted(), annotated(&[(REVISION, text)]), None).revision,
            0,
            "{text}"
        );
    }
    assert_eq!(
        held(&wanted(), annotated(&[(REVISION, "1000000000")]), None).revision,
        MOST_REVISIONS
    );
}

#[test]
fn a_keystore_fits_while_nothing_of_which_it_was_made_has_changed() {
    let password = |uid: &str, version: &str| Password {
        text: Zeroizing::new("s3cret".to_owned()),
        uid: uid.into(),
        version: version.into(),
    };
    let files = [("tls.crt", "c"), ("tls.key", "k"), (KEYSTORE, "p")];
    let data = SecretData {
        tls_crt: Some(b"c".to_vec()),
        tls_key: Some(b"k".to_vec()),
        ca_crt: None,
    };
    let digest = keystore_digest(&data, b"p", &password("u", "1"));
    let found = |name: &str, bytes: &'static str, digest: &str| {
        let files = files.map(|(file, usual)| (file, if file == name { bytes } else { usual }));
        secret("client1", &files, |s| {
            s.metadata.annotations = Some([(KEYSTORE_DIGEST.to_owned(), digest.to_owned())].into())
        })
    };
    let same = |found, password: Option<&Password>| held(&wanted(), found, password).keystore_fits;
    let usual = || found("", "", &digest);
    assert!(same(usual(), Some(&password("u", "1"))));
    for (what, found, password) in [
        (
            "another keystore",
            found(KEYSTORE, "other", &digest),
            Some(password("u", "1")),
        ),
        (
            "another leaf",
            found("tls.crt", "other", &digest),
            Some(password("u", "1")),
        ),
        (
            "another key",
            found("tls.key", "other", &digest),
            Some(password("u", "1")),
        ),
        (
            "of an earlier release",
            found("", "", ""),
            Some(password("u", "1")),
        ),
        (
            "another Secret with the password",
            usual(),
            Some(password("v", "1")),
        ),
        ("another password", usual(), Some(password("u", "2"))),
        ("no password", usual(), None),
    ] {
        assert!(!same(found, password.as_ref()), "{what}");
    }
}
