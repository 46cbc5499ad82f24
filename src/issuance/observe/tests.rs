//! Tests of `observe`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, api::PartialObjectMeta};
use serde_json::json;

use crate::{
    api::{SecretKeyRef, conditions::Reason},
    controllers::client_certificate::fixture::{certificate, domain, secret},
    issuance::{
        desired::{Desired, desired},
        issuer::Issuer,
        observe::{KEYSTORE_PASSWORD, ObserveContext, no_domain, observe, only_one, password_in, problem},
        observed::{Observed, Past},
        signing_key_cache::SigningKeyCache,
    },
    pki::{
        authority::{
            self,
            tests::{at, request},
        },
        pem_certificates::parse_pem_bundle,
        truststore::{Bundle, Entry},
    },
    runtime::fake::{self, store},
    status::StepStatus,
    trust::{active_trust::Trust, generated_authority},
};

const NOW: &str = "2026-11-24T12:00:00Z";

fn wanted() -> Desired {
    desired(&certificate(|_| {}), None, None).unwrap()
}

#[test]
fn a_secret_without_a_password_or_without_the_label_reads_as_none() {
    let at = SecretKeyRef {
        name: "p".into(),
        key: "password".into(),
    };
    let with = |label: &'static str, data: &[(&str, &str)]| {
        Some(secret("p", data, |s| {
            s.metadata.labels = Some([(KEYSTORE_PASSWORD.to_owned(), label.to_owned())].into());
            (s.metadata.uid, s.metadata.resource_version) = (Some("u".into()), Some("1".into()));
        }))
    };
    let found = password_in(with("true", &[("password", "s3cret")]), &at);
    assert_eq!(
        found.map(|p| p.text.to_string()).map_err(|p| p.message),
        Ok("s3cret".into())
    );
    let told = |found: Option<Secret>| password_in(found, &at).map(|_| ()).unwrap_err();
    for found in [
        with("true", &[]),
        with("true", &[("password", "")]),
        with("true", &[("other", "s3cret")]),
        with("false", &[("password", "s3cret")]),
        with("", &[("password", "s3cret")]),
    ] {
        assert_eq!(told(found), told(None), "all of them tell the same");
    }
    for (password, why) in [
        ("pass\u{1f511}word", "PKCS #12 cannot hold"),
        ("\u{10000}", "PKCS #12 cannot hold"),
    ] {
        let refused = told(with("true", &[("password", password)]));
        assert_eq!(
            (refused.status, refused.reason),
            (StepStatus::Blocked, Reason::InvalidSpec)
        );
        assert!(
            refused
                .message
                .starts_with("spec.keystores.pkcs12.passwordSecretRef: the password has")
                && refused.message.contains(why)
                && !refused.message.contains(password),
            "{}",
            refused.message
        );
        // Without the label, it reads as none too.
        assert_eq!(told(with("false", &[("password", password)])), told(None));
    }
    let latin = with("true", &[("password", "x")]).map(|mut secret| {
        let data = secret.data.as_mut().unwrap();
        data.insert(
            "password".into(),
            k8s_openapi::ByteString(b"Gr\xfc\xdfe".to_vec()),
        );
        secret
    });
    assert!(told(latin).message.contains("the password is not in UTF-8"));
    assert!(password_in(with("true", &[("password", "żółw-Grüße\u{fffd}")]), &at).is_ok());
}

#[test]
fn without_its_domain_a_certificate_says_whether_anything_is_issued() {
    assert_eq!(no_domain(&wanted(), true).reason, Reason::DomainGone);
    assert_eq!(no_domain(&wanted(), false).reason, Reason::RefNotFound);
}

#[test]
fn of_several_authorities_one_has_to_be_named() {
    let can = |name: &str| {
        (
            name.to_owned(),
            Ok(Issuer::SecretKey(Arc::new(authority::tests::issuer(
                name,
                at(NOW),
            )))),
        )
    };
    let cannot = |name: &str, reason| (name.to_owned(), Err(problem(reason, "m".into())));
    let lost = Reason::InvalidCACertificateRef;
    let of = |able| {
        only_one(able, "partners")
            .map(|i| i.chain().authority().subject.clone())
            .map_err(|p| (p.reason, p.message))
    };
    assert_eq!(of(vec![can("a")]).unwrap(), "CN=a");
    assert_eq!(of(vec![cannot("a", lost), can("b")]).unwrap(), "CN=b");
    assert_eq!(
        of(vec![cannot("a", lost)]).unwrap_err(),
        (lost, "m".into()),
        "why the only one cannot"
    );
    assert_eq!(
        of(vec![cannot("a", lost), cannot("b", lost)]).unwrap_err().0,
        Reason::AuthorityNotFound
    );
    assert_eq!(
        of(vec![cannot("a", Reason::AuthorityNotFound), cannot("b", lost)]).unwrap_err(),
        (lost, "m".into()),
        "why the only one with a key cannot"
    );
    assert_eq!(of(vec![]).unwrap_err().0, Reason::AuthorityNotFound);
    let (reason, message) = of(vec![can("a"), cannot("x", lost), can("b")]).unwrap_err();
    assert!(
        reason == Reason::AuthorityNotFound && message.contains("(a, b)"),
        "{message}"
    );
}

/// Returns the observed state with these Secrets, for a domain with these authorities.
async fn read(
    d: &Desired,
    authorities: serde_json::Value,
    secrets: Vec<Secret>,
    trust: Option<Trust>,
) -> Observed {
    let domain = domain(|o| o["spec"]["trust"]["authorities"] = authorities)
        .0
        .unwrap();
    let there = secrets.clone();
    let client = fake::client(move |_, path, _| {
        let found = there
            .iter()
            .find(|s| path.ends_with(&format!("/secrets/{}", s.name_any())));
        found.map_or(fake::refusal(404, "NotFound"), |s| {
            (200, serde_json::to_value(s).unwrap())
        })
    });
    let metadata = |s: &Secret| {
        let value = json!({"metadata": serde_json::to_value(&s.metadata).unwrap()});
        serde_json::from_value::<PartialObjectMeta<Secret>>(value).unwrap()
    };
    let store = store(secrets.iter().map(metadata).collect());
    let observe_context = ObserveContext {
        client: &client,
        secrets: &store,
        signing_keys: &SigningKeyCache::default(),
    };
    observe(d, Some(&domain), trust, Past::default(), &observe_context)
        .await
        .unwrap()
}

#[tokio::test]
async fn only_an_active_authority_with_its_own_key_issues() {
    let made = authority::generate(&request("acme"), at(NOW)).unwrap();
    let other = authority::generate(&request("other"), at(NOW)).unwrap();
    let (crt, key) = (made.certificate_pem.as_str(), made.key_pem.as_str());
    let by_hand = |data: &[(&str, &str)]| secret("ca", data, |_| {});
    let whole = || by_hand(&[("tls.crt", crt), ("tls.key", key)]);
    let secret_ref = json!([{"name": "acme", "secretRef": {"name": "ca"}}]);
    let generated = json!([{"name": "acme", "generate": {"commonName": "acme"}}]);
    let labelled = |labels: bool| {
        secret("partners.acme-ca", &[("tls.crt", crt), ("tls.key", key)], |s| {
            s.metadata.labels = labels.then(|| generated_authority::labels("partners", "acme"));
        })
    };
    let certificate = parse_pem_bundle(crt).unwrap().remove(0);
    let trust = |authority: &str| {
        let (authority, certificate) = (authority.to_owned(), certificate.clone());
        let entry = Entry {
            authority,
            certificate,
            max_leaf: None,
            keep_until: None,
        };
        Some(Trust::of(
            &Bundle {
                entries: vec![entry],
                ..Bundle::default()
            },
            None,
            at(NOW),
        ))
    };
    let named = Desired {
        authority: Some("missing".into()),
        ..wanted()
    };
    for (what, d, authorities, secrets, trust, expected) in [
        (
            "its key is there",
            wanted(),
            secret_ref.clone(),
            vec![whole()],
            None,
            Ok(()),
        ),
        (
            "another is named",
            named,
            secret_ref.clone(),
            vec![whole()],
            None,
            Err(Reason::AuthorityNotFound),
        ),
        (
            "no Secret",
            wanted(),
            secret_ref.clone(),
            vec![],
            None,
            Err(Reason::WaitingForAuthority),
        ),
        (
            "no key",
            wanted(),
            secret_ref.clone(),
            vec![by_hand(&[("tls.crt", crt)])],
            None,
            Err(Reason::AuthorityNotFound),
        ),
        (
            "another's key",
            wanted(),
            secret_ref,
            vec![by_hand(&[("tls.crt", crt), ("tls.key", other.key_pem.as_str())])],
            None,
            Err(Reason::InvalidCACertificateRef),
        ),
        (
            "distrusted",
            Desired {
                authority: Some("acme".into()),
                ..wanted()
            },
            json!([{"name": "acme", "state": "Distrusted", "secretRef": {"name": "ca"}}]),
            vec![whole()],
            None,
            Err(Reason::AuthorityNotFound),
        ),
        (
            "trusted only",
            Desired {
                authority: Some("acme".into()),
                ..wanted()
            },
            json!([{"name": "acme", "pem": crt}]),
            vec![whole()],
            None,
            Err(Reason::AuthorityNotFound),
        ),
        (
            "generated and in the truststore",
            wanted(),
            generated.clone(),
            vec![labelled(true)],
            trust("acme"),
            Ok(()),
        ),
        (
            "generated, and nowhere on record",
            wanted(),
            generated.clone(),
            vec![labelled(true)],
            None,
            Err(Reason::WaitingForAuthority),
        ),
        (
            "generated, and trusted for another",
            wanted(),
            generated.clone(),
            vec![labelled(true)],
            trust("b"),
            Err(Reason::WaitingForAuthority),
        ),
        (
            "generated, without our labels",
            wanted(),
            generated,
            vec![labelled(false)],
            trust("acme"),
            Err(Reason::WaitingForAuthority),
        ),
    ] {
        let found = read(&d, authorities, secrets, trust).await.issuer;
        let told = found
            .as_ref()
            .err()
            .map(|problem| problem.message.clone())
            .unwrap_or_default();
        assert_eq!(
            told.ends_with("is Distrusted"),
            what == "distrusted",
            "{what}: {told}"
        );
        let found = found
            .map(|issuer| assert!(issuer.is_some(), "{what}"))
            .map_err(|problem| problem.reason);
        assert_eq!(found, expected, "{what}");
    }
    let d = Desired {
        self_signed: true,
        ..wanted()
    };
    let observed = read(&d, json!([]), vec![secret("client1-next", &[], |_| {})], None).await;
    assert!(matches!(observed.issuer, Ok(None)) && observed.next.is_some());
    let observed = read(
        &wanted(),
        json!([]),
        vec![secret("client1-next", &[], |_| {})],
        None,
    )
    .await;
    assert!(observed.next.is_none(), "only a self-signed one has one");
    assert_eq!(observed.issuer.err().unwrap().status, StepStatus::Blocked);
}
