//! Tests of `leaf_secret`.

use super::{MOST_REVISIONS, RENEWED, REVISION, held};

use k8s_openapi::api::core::v1::Secret;

use crate::{
    controllers::client_certificate::fixture::{certificate, secret},
    issuance::desired::{Desired, desired},
    pki::keys::{DesiredKey, KeyKind},
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

#[tokio::test]
async fn a_secret_is_ours_by_its_label_for_this_certificate_and_its_type() {
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
        assert_eq!(held(&d, found, None).await.ours, expected, "{what}");
    }
}

#[tokio::test]
async fn what_a_secret_says_of_its_leaf() {
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
    let found = held(&wanted(), annotated(&[(REVISION, "3"), (RENEWED, "now")]), None).await;
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
            held(&wanted(), annotated(&[(REVISION, text)]), None)
                .await
                .revision,
            0,
            "{text}"
        );
    }
    assert_eq!(
        held(&wanted(), annotated(&[(REVISION, "1000000000")]), None)
            .await
            .revision,
        MOST_REVISIONS
    );
}
