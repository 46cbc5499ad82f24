//! Tests of `authority`.

use super::*;

use jiff::{SignedDuration, Timestamp};

use crate::pki::{keys::KeyKind, pem_certificates::parse_pem_bundle};

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn request(common_name: &str) -> AuthorityRequest {
    AuthorityRequest {
        common_name: common_name.to_owned(),
        organizations: vec![],
        duration: SignedDuration::from_hours(87600),
        key: KeyKind::EcdsaP256,
    }
}

pub(crate) fn issuer(common_name: &str, now: Timestamp) -> SigningAuthority {
    let made = generate(&request(common_name), now).unwrap();
    SigningAuthority::from_pem(&made.certificate_pem, &made.key_pem, None).unwrap()
}

#[test]
fn a_generated_authority_can_issue() {
    let now = at("2026-11-24T12:00:00.5Z");
    let organizations = vec!["Acme".to_owned(), "Acme Labs".to_owned()];
    let made = generate(
        &AuthorityRequest {
            organizations,
            ..request("Partners")
        },
        now,
    )
    .unwrap();
    let issuer = SigningAuthority::from_pem(&made.certificate_pem, &made.key_pem, Some(b"")).unwrap();
    let ca = issuer.chain().authority();
    assert_eq!(ca.subject, "CN=Partners,O=Acme Labs,O=Acme");
    assert_eq!(
        (ca.version, ca.is_ca, ca.may_sign, ca.self_signed),
        (3, true, true, true)
    );
    assert_eq!(ca.not_before, at("2026-11-24T11:45:00Z"));
    assert_eq!(ca.not_after, at("2036-11-21T12:00:00Z"));
    assert_eq!(ca.serial.len(), 32);
    assert!(ca.subject_key_id.is_some());
    assert_eq!(issuer.chain().certificates(), std::slice::from_ref(ca));
    assert!(issuer.chain().intermediates().is_empty());
    assert_eq!(issuer.chain().ca_pem(), made.certificate_pem);
    let again = generate(&request("Partners"), now).unwrap();
    assert_ne!(
        parse_pem_bundle(&again.certificate_pem).unwrap()[0].serial,
        ca.serial
    );
}

#[test]
fn a_subject_that_could_mislead_a_reader_is_refused() {
    let error = |request| {
        generate(&request, at("2026-11-24T12:00:00Z"))
            .err()
            .unwrap()
            .to_string()
    };
    assert!(error(request("a=b")).starts_with("commonName: "));
    let organizations = vec!["ok".to_owned(), "a,b".to_owned()];
    assert!(
        error(AuthorityRequest {
            organizations,
            ..request("a")
        })
        .starts_with("organizations[1]: ")
    );
}

#[test]
fn a_secret_that_cannot_issue_is_refused_with_a_reason() {
    let now = at("2026-11-24T12:00:00Z");
    let a = generate(&request("a"), now).unwrap();
    let b = generate(&request("b"), now).unwrap();
    let load = |crt: &str, key: &str, ca: Option<&str>| match SigningAuthority::from_pem(
        crt,
        key,
        ca.map(str::as_bytes),
    ) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        load(&a.certificate_pem, &a.key_pem, Some(&b.certificate_pem)),
        "ok"
    );
    assert!(load(&a.certificate_pem, &b.key_pem, None).contains("does not belong to any"));
    assert_eq!(
        load(&b.certificate_pem, &a.key_pem, Some(&a.certificate_pem)),
        "the certificate of tls.key, CN=a, is in ca.crt: put it into tls.crt"
    );
    assert!(load("", &b.key_pem, None).starts_with("tls.crt: it holds no certificate"));
    assert!(load(&a.certificate_pem, "", None).starts_with("tls.key: there is no PEM block"));
    assert!(load(&a.certificate_pem, &a.key_pem, Some("x")).starts_with("ca.crt: it is not PEM"));
    let beside = format!("{}{}", b.certificate_pem, a.certificate_pem);
    assert_eq!(
        load(&beside, &a.key_pem, None),
        "ok",
        "wherever its certificate stands"
    );
    let chained = format!("{}{}", a.certificate_pem, &*a.key_pem);
    assert!(load(&chained, &a.key_pem, None).contains("private key"));
}
