//! Tests of `execute`.

use super::*;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;
use rcgen::PublicKeyData;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    api::{ClientCertificate, SecretKeyRef},
    controllers::client_certificate::fixture::certificate,
    issuance::{
        desired::{Desired, desired},
        issuer::Issuer,
        leaf_secret::{KEYSTORE, RENEWED, REVISION},
        observed::{Held, Password},
    },
    pki::{
        certificate::Certificate,
        inspect::SecretData,
        keys::{DesiredKey, Encoding, KeyKind},
        leaf::LeafRequest,
    },
    runtime::{self, fake},
    trust::self_signed::{CERTIFICATE_LABEL, TRUSTED_BY},
};
use crate::{runtime::workers::Workers, telemetry::metrics::Metrics};

#[test]
fn a_key_that_stays_keeps_its_bytes() {
    let fresh = |kind, encoding| private_key(kind, encoding, None).unwrap();
    let (key, pem) = fresh(KeyKind::EcdsaP256, Encoding::Pkcs8);
    // The key in the format of another writer.
    let theirs = format!(
        "# by hand\r\n{}",
        String::from_utf8(pem).unwrap().replace('\n', "\r\n")
    )
    .into_bytes();
    let again = |kind, encoding| {
        let (kept, pem) = private_key(kind, encoding, Some(theirs.clone())).unwrap();
        (
            kept.subject_public_key_info() == key.subject_public_key_info(),
            pem == theirs,
        )
    };
    assert_eq!(
        again(KeyKind::EcdsaP256, Encoding::Pkcs8),
        (true, true),
        "the bytes stay"
    );
    assert_eq!(
        again(KeyKind::EcdsaP256, Encoding::Pkcs1),
        (true, false),
        "the same key, in the desired encoding"
    );
    assert_eq!(
        again(KeyKind::EcdsaP384, Encoding::Pkcs8),
        (false, false),
        "another kind of key replaces it"
    );
    assert!(private_key(KeyKind::EcdsaP256, Encoding::Pkcs8, Some(b"garbage".to_vec())).is_ok());
    // The operator would report a key in a format that not every program reads as damaged forever.
    let marked = [
        &b"\xef\xbb\xbf"[..],
        &theirs[theirs.iter().position(|byte| *byte == b'-').unwrap()..],
    ]
    .concat();
    let (kept, pem) = private_key(KeyKind::EcdsaP256, Encoding::Pkcs8, Some(marked)).unwrap();
    assert_eq!(kept.subject_public_key_info(), key.subject_public_key_info());
    assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
}

fn wanted(change: impl FnOnce(&mut serde_json::Value)) -> (ClientCertificate, Desired) {
    let cert = certificate(change);
    let d = desired(&cert, None, None).unwrap();
    (cert, d)
}

fn issuer() -> Issuer {
    let authority = crate::pki::authority::tests::issuer("a", Timestamp::now());
    Issuer::SecretKey(Arc::new(authority))
}

fn issued(
    request: &LeafRequest,
    key: &DesiredKey,
    known: Option<Vec<u8>>,
    issuer: &Issuer,
) -> (Certificate, SecretData) {
    let asked = ask(request, key, known, issuer, 1, Timestamp::now()).now_or_never();
    asked
        .unwrap()
        .unwrap()
        .expect("a key in a Secret answers at once")
}

fn data() -> SecretData {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    SecretData {
        tls_crt: bytes("c"),
        tls_key: bytes("k"),
        ca_crt: bytes("a"),
    }
}

#[tokio::test]
async fn a_written_secret_has_the_metadata_and_files_of_the_spec() {
    let client = fake::client(|_, _, _| fake::refusal(500, "InternalError"));
    let of = |change: fn(&mut serde_json::Value), renewed: Option<&str>| {
        let (cert, d) = wanted(change);
        let apply_context = ApplyContext {
            cert: &cert,
            d: &d,
            password: None,
            client: &client,
            workers: &Workers::start(&Metrics::new().0).unwrap(),
        };
        apply_context.wanted(3, renewed.map(str::to_owned), data(), None)
    };
    let plain = of(|_| {}, None);
    assert_eq!(
        plain.labels(),
        &[(CERTIFICATE_LABEL.to_owned(), "client1".to_owned())].into()
    );
    assert_eq!(
        plain.annotations(),
        &[(REVISION.to_owned(), "3".to_owned())].into()
    );
    assert_eq!(plain.owner_references().len(), 1);
    assert_eq!(plain.type_.as_deref(), Some("kubernetes.io/tls"));
    assert_eq!(
        plain.data.unwrap().keys().collect::<Vec<_>>(),
        ["ca.crt", "tls.crt", "tls.key"]
    );
    let retained = of(|o| o["spec"]["deletionPolicy"] = json!("Retain"), Some("now"));
    assert!(
        retained.owner_references().is_empty(),
        "the Secret stays after the deletion of its object"
    );
    assert_eq!(retained.annotations()[RENEWED], "now");
    let self_signed = of(|o| o["spec"]["issuance"] = json!("SelfSigned"), None);
    assert_eq!(self_signed.labels()[TRUSTED_BY], "partners");
    let template = of(
        |o| {
            o["spec"]["secretTemplate"] = json!({
                "labels": {"team": "a"}, "annotations": {"example.com/for": "acme"}
            })
        },
        None,
    );
    assert_eq!(
        (
            template.labels()["team"].as_str(),
            template.labels()[CERTIFICATE_LABEL].as_str()
        ),
        ("a", "client1")
    );
    assert_eq!(
        [REVISION, "example.com/for"].map(|key| template.annotations()[key].as_str()),
        ["3", "acme"]
    );
    let (cert, mut d) = wanted(|_| {});
    d.key = DesiredKey::Requested {
        spki: crate::pki::leaf::tests::spki(KeyKind::EcdsaP256),
    };
    let apply_context = ApplyContext {
        cert: &cert,
        d: &d,
        password: None,
        client: &client,
        workers: &Workers::start(&Metrics::new().0).unwrap(),
    };
    let by_csr = apply_context.wanted(1, None, data(), None);
    assert!(
        !by_csr.data.unwrap().contains_key("tls.key"),
        "the requester has the key"
    );
    assert_eq!(by_csr.type_.as_deref(), Some("Opaque"));
}

/// Returns the Secret with the managedFields of the operator's own write.
fn kept(secret: &Secret) -> Secret {
    let fields = |map: &BTreeMap<String, String>| {
        map.keys()
            .map(|key| (format!("f:{key}"), json!({})))
            .collect::<serde_json::Map<_, _>>()
    };
    let data: serde_json::Map<_, _> = secret
        .data
        .iter()
        .flat_map(BTreeMap::keys)
        .map(|key| (format!("f:{key}"), json!({})))
        .collect();
    let fields = json!({
        "f:metadata": {
            "f:labels": fields(secret.labels()), "f:annotations": fields(secret.annotations())
        },
        "f:data": data,
    });
    let mut kept = secret.clone();
    kept.metadata.managed_fields = Some(vec![
        serde_json::from_value(
            json!({"manager": runtime::MANAGER, "operation": "Apply", "fieldsV1": fields}),
        )
        .unwrap(),
    ]);
    kept
}

#[tokio::test]
async fn an_owned_secret_is_corrected_only_when_it_differs() {
    type Change = fn(&mut Secret);
    let cases: [(&str, Change, bool); 9] = [
        ("as it should be", |_| {}, false),
        (
            "with a label of another writer",
            |s| drop(s.labels_mut().insert("theirs".into(), "x".into())),
            false,
        ),
        (
            "a label of the spec is missing",
            |s| drop(s.labels_mut().remove("team")),
            true,
        ),
        (
            "a label of the spec is another",
            |s| drop(s.labels_mut().insert("team".into(), "b".into())),
            true,
        ),
        (
            "an annotation is missing",
            |s| drop(s.annotations_mut().remove(REVISION)),
            true,
        ),
        ("without its owner", |s| s.metadata.owner_references = None, true),
        (
            "a label that the spec no longer has",
            |s| {
                s.labels_mut().insert("old".into(), "x".into());
                *s = kept(s);
            },
            true,
        ),
        (
            "a keystore of another writer",
            |s| {
                drop(
                    s.data
                        .get_or_insert_default()
                        .insert(KEYSTORE.into(), ByteString(vec![1])),
                )
            },
            false,
        ),
        (
            "a keystore that the spec no longer has",
            |s| {
                s.data
                    .get_or_insert_default()
                    .insert(KEYSTORE.into(), ByteString(vec![1]));
                *s = kept(s);
            },
            true,
        ),
    ];
    for (what, change, expected) in cases {
        let writes = Arc::new(Mutex::new(0));
        let count = writes.clone();
        let client = fake::client(move |method, _, body| {
            *count.lock().unwrap() += usize::from(method == "PATCH");
            (200, body)
        });
        let (cert, d) = wanted(|o| o["spec"]["secretTemplate"] = json!({"labels": {"team": "a"}}));
        let apply_context = ApplyContext {
            cert: &cert,
            d: &d,
            password: None,
            client: &client,
            workers: &Workers::start(&Metrics::new().0).unwrap(),
        };
        let mut found = kept(&apply_context.wanted(3, None, data(), None));
        change(&mut found);
        let held = Held {
            data: data(),
            ours: true,
            revision: 3,
            renewed: None,
            keystore_fits: false,
            has_keystore: apply::written_by_us(&found, "/f:data").contains(KEYSTORE),
            writers: vec![],
            found,
        };
        for (is_postponed, there) in [(true, Completion::Postponed), (false, Completion::Written)] {
            let there = if expected { there } else { Completion::InSync };
            assert_eq!(
                complete(&apply_context, &held, is_postponed).await.unwrap(),
                there,
                "{what}"
            );
            let is_written = *writes.lock().unwrap() > 0;
            assert_eq!(is_written, expected && !is_postponed, "{what}");
        }
    }
}

#[tokio::test]
async fn a_keystore_is_written_when_it_is_missing_or_does_not_fit() {
    for (there, fits, expected) in [(true, true, false), (true, false, true), (false, false, true)] {
        let writes = Arc::new(Mutex::new(0));
        let count = writes.clone();
        let client = fake::client(move |method, _, body| {
            *count.lock().unwrap() += usize::from(method == "PATCH");
            (200, body)
        });
        let (cert, mut d) = wanted(|_| {});
        d.keystore = Some(SecretKeyRef {
            name: "p".into(),
            key: "password".into(),
        });
        let issuer = issuer();
        let (_, data) = issued(&d.request, &d.key, None, &issuer);
        let password = Password {
            text: Zeroizing::new("s3cret".to_owned()),
            uid: "u".into(),
            version: "1".into(),
        };
        let apply_context = ApplyContext {
            cert: &cert,
            d: &d,
            password: Some(&password),
            client: &client,
            workers: &Workers::start(&Metrics::new().0).unwrap(),
        };
        let keystore = there.then(|| vec![1]);
        let found = kept(&apply_context.wanted(3, None, data.clone(), keystore));
        let held = Held {
            data,
            ours: true,
            revision: 3,
            renewed: None,
            keystore_fits: fits,
            has_keystore: there,
            writers: vec![],
            found,
        };
        complete(&apply_context, &held, false).await.unwrap();
        assert_eq!(*writes.lock().unwrap() > 0, expected, "{there} {fits}");
    }
}

#[test]
fn a_self_signed_certificate_needs_a_generated_key() {
    let (_, made) = wanted(|_| {});
    let key = DesiredKey::Requested {
        spki: crate::pki::leaf::tests::spki(KeyKind::EcdsaP256),
    };
    assert!(matches!(
        sign_itself(&made.request, &key, None, Timestamp::now()),
        Err(Error::NoKey)
    ));
    let (_, data) = issued(&made.request, &key, None, &issuer());
    assert!(data.tls_key.is_none());
    let (_, data) = issued(&made.request, &made.key, None, &issuer());
    assert!(data.tls_key.is_some());
}

#[test]
fn a_known_key_gets_the_certificate() {
    let (_, known) = private_key(KeyKind::EcdsaP256, Encoding::Pkcs8, None).unwrap();
    let (_, d) = wanted(|_| {});
    let (_, data) = issued(&d.request, &d.key, Some(known.clone()), &issuer());
    assert_eq!(data.tls_key, Some(known.clone()));
    let (_, data) = sign_itself(&d.request, &d.key, Some(known.clone()), Timestamp::now()).unwrap();
    assert_eq!(data.tls_key, Some(known.clone()));
    let staged = staged_key(&d.key, Some(known.clone())).unwrap();
    assert_eq!((staged.tls_crt, staged.tls_key), (Some(vec![]), Some(known)));
}
