//! Tests of `leaf`.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use rcgen::PublicKeyData;

use crate::pki::{
    authority::{
        self, SigningAuthority,
        tests::{at, issuer},
    },
    keys::{self, KeyKind},
    leaf::{LeafRequest, issue, self_sign, subject_key, validate, validate_length},
    pem_certificates::parse_pem_bundle,
};

pub(crate) fn request(common_name: &str) -> LeafRequest {
    LeafRequest {
        common_name: common_name.to_owned(),
        organizations: vec![],
        organizational_units: vec![],
        countries: vec![],
        localities: vec![],
        provinces: vec![],
        serial_number: None,
        dns_names: vec![],
        uris: vec![],
        email_addresses: vec![],
        duration: SignedDuration::from_hours(2160),
        not_after: None,
    }
}

pub(crate) fn spki(kind: KeyKind) -> Vec<u8> {
    keys::generate(kind).unwrap().subject_public_key_info()
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| value.to_string()).collect()
}

fn full() -> LeafRequest {
    LeafRequest {
        organizations: strings(&["Acme", "Größe & Söhne"]),
        organizational_units: strings(&["a", "b"]),
        countries: strings(&["DE"]),
        localities: strings(&["Berlin"]),
        provinces: strings(&["Berlin"]),
        dns_names: strings(&["a.example", "*.b.example"]),
        uris: strings(&["spiffe://acme/client1"]),
        email_addresses: strings(&["ops+x@acme.example"]),
        ..request("client1")
    }
}

/// Returns openssl's result for a chain, checked as TLS servers check a client.
fn openssl_verify(root: &str, leaf: &str, now: Timestamp) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let out = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-purpose",
            "sslclient",
            "-attime",
            &now.as_second().to_string(),
        ])
        .arg("-CAfile")
        .arg(file("root.pem", root))
        .arg("-untrusted")
        .arg(file("chain.pem", leaf))
        .arg(file("leaf.pem", leaf))
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[test]
fn openssl_accepts_issued_leaves() {
    let now = at("2026-11-24T12:00:00Z");
    let issuer = issuer("Partners", now);
    let cases = [
        (request("client1"), KeyKind::EcdsaP256),
        (full(), KeyKind::EcdsaP384),
        (full(), KeyKind::Rsa2048),
    ];
    for (request, kind) in cases {
        let leaf = issue(&request, &spki(kind), &issuer, now).unwrap();
        let verdict = openssl_verify(&issuer.chain().ca_pem(), &leaf.chain_pem, now);
        assert!(verdict.trim_end().ends_with(": OK"), "{verdict}");
        let late = openssl_verify(
            &issuer.chain().ca_pem(),
            &leaf.chain_pem,
            leaf.certificate.not_after + SignedDuration::from_secs(1),
        );
        assert!(late.contains("expired"), "{late}");
    }
}

#[test]
fn the_leaf_has_the_content_of_the_request() {
    let now = at("2026-11-24T12:00:00.9Z");
    let ca = issuer("Partners", at("2026-11-01T00:00:00Z"));
    let key = keys::generate(KeyKind::EcdsaP256).unwrap();
    let leaf = issue(&full(), &key.subject_public_key_info(), &ca, now).unwrap();
    let c = &leaf.certificate;
    assert_eq!(
        c.subject,
        "CN=client1,OU=b,OU=a,O=Größe & Söhne,O=Acme,L=Berlin,ST=Berlin,C=DE"
    );
    assert_eq!(c.issuer_der, ca.chain().authority().subject_der);
    assert_eq!(
        (c.version, c.is_ca, c.may_sign, c.self_signed),
        (3, false, false, false)
    );
    assert_eq!(c.not_before, at("2026-11-24T11:45:00Z"));
    assert_eq!(c.not_after, at("2027-02-22T12:00:00Z"));
    assert_eq!(
        (&c.dns_names, &c.uris, &c.email_addresses),
        (&full().dns_names, &full().uris, &full().email_addresses)
    );
    assert_eq!(c.spki_der(), key.subject_public_key_info());
    assert_eq!(c.serial.len(), 32);
    assert_eq!(
        parse_pem_bundle(&leaf.chain_pem).unwrap(),
        std::slice::from_ref(c)
    );
    let text = openssl_text(&leaf.chain_pem);
    assert!(text.contains("TLS Web Client Authentication\n"), "{text}");
    assert!(
        text.contains("CA:FALSE") && text.contains("Authority Key Identifier"),
        "{text}"
    );
    assert!(!text.contains("Key Encipherment"), "{text}");
    let plain = openssl_text(
        &issue(&request("x"), &key.subject_public_key_info(), &ca, now)
            .unwrap()
            .chain_pem,
    );
    assert!(
        !plain.contains("Alternative"),
        "no SAN extension without SANs: {plain}"
    );
}

fn openssl_text(pem: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let out = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(file.path())
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn times_stay_within_the_issuer() {
    let born = at("2026-11-24T12:00:00Z");
    let key = spki(KeyKind::EcdsaP256);
    let young = authority::AuthorityRequest {
        duration: SignedDuration::from_hours(24),
        ..authority::tests::request("short")
    };
    let made = authority::generate(&young, born).unwrap();
    let ca = SigningAuthority::from_pem(&made.certificate_pem, &made.key_pem, None).unwrap();
    let soon = issue(&request("x"), &key, &ca, born - SignedDuration::from_mins(4))
        .unwrap()
        .certificate;
    assert_eq!(
        (soon.not_before, soon.not_after),
        (
            ca.chain().authority().not_before,
            ca.chain().authority().not_after
        )
    );
    let error = |now| issue(&request("x"), &key, &ca, now).unwrap_err().to_string();
    assert!(error(born + SignedDuration::from_hours(24)).contains("has expired"));
    assert!(error(born - SignedDuration::from_mins(16)).contains("not valid yet"));
}

/// The issuing operator and the checking server may each have a clock that is ten minutes wrong, either
/// way.
#[test]
fn a_clock_ten_minutes_wrong_keeps_no_caller_out() {
    let (right, off) = (at("2026-11-24T12:00:00Z"), SignedDuration::from_mins(10));
    let key = spki(KeyKind::EcdsaP256);
    for made in [right - off, right, right + off] {
        let made_by = authority::generate(&authority::tests::request("ca"), made).unwrap();
        let ca = SigningAuthority::from_pem(&made_by.certificate_pem, &made_by.key_pem, None).unwrap();
        // The other operator has another clock.
        for now in [right - off, right, right + off] {
            // A difference of twenty minutes is more than either clock is wrong.
            if made.duration_since(now) > off {
                continue;
            }
            let leaf = issue(&request("x"), &key, &ca, now).unwrap().certificate;
            for certificate in [&leaf, ca.chain().authority()] {
                assert!(certificate.not_before <= right, "{made} {now}: not valid yet");
            }
        }
    }
}

/// The test's root and intermediate come from openssl, with repeated attributes and a multi-valued RDN.
#[test]
fn a_third_party_intermediate_issues() {
    let dir = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let line = line.replace("@/", &format!("{}/", dir.path().display()));
        let out = Command::new("openssl").args(line.split(' ')).output().unwrap();
        assert!(
            out.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    std::fs::write(
        dir.path().join("ext"),
        "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=hash\n",
    )
    .unwrap();
    run(
        "req -x509 -nodes -days 3650 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -keyout @/root.key -out \
     @/root.pem -subj /DC=com/DC=example/CN=Root -addext keyUsage=critical,keyCertSign",
    );
    run(
        "req -nodes -newkey rsa:2048 -keyout @/ca.key -out @/ca.csr -multivalue-rdn -subj \
     /DC=com/DC=example/O=B+OU=A/CN=Issuing",
    );
    run(
        "x509 -req -in @/ca.csr -CA @/root.pem -CAkey @/root.key -CAcreateserial -days 3650 -extfile \
     @/ext -out @/ca.pem",
    );
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let incomplete = SigningAuthority::from_pem(&read("ca.pem"), &read("ca.key"), None)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        incomplete.contains("the chain stops at CN=Issuing"),
        "{incomplete}"
    );
    let ca = SigningAuthority::from_pem(
        &read("ca.pem"),
        &read("ca.key"),
        Some(read("root.pem").as_bytes()),
    )
    .unwrap();
    assert_eq!(ca.chain().certificates().len(), 2);
    let now = ca.chain().authority().not_before + SignedDuration::from_hours(1);
    let leaf = issue(&full(), &spki(KeyKind::EcdsaP256), &ca, now).unwrap();
    assert_eq!(parse_pem_bundle(&leaf.chain_pem).unwrap().len(), 2);
    let verdict = openssl_verify(&read("root.pem"), &leaf.chain_pem, now);
    assert!(verdict.trim_end().ends_with(": OK"), "{verdict}");
}

#[test]
fn a_self_signed_leaf_is_its_own_trust_anchor() {
    let now = at("2026-11-24T12:00:00Z");
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let key = keys::generate(kind).unwrap();
        let next = LeafRequest {
            serial_number: Some("2".to_owned()),
            ..full()
        };
        let [first, second] = [full(), next].map(|request| self_sign(&request, &key, now).unwrap());
        assert_eq!(
            first.certificate.subject,
            "CN=client1,OU=b,OU=a,O=Größe & Söhne,O=Acme,L=Berlin,ST=Berlin,C=DE"
        );
        assert!(
            second
                .certificate
                .subject
                .starts_with("CN=client1,serialNumber=2,OU=b"),
            "{second:?}"
        );
        assert_eq!(subject_key(&full()), Some(first.certificate.subject_key.clone()));
        assert_ne!(
            first.certificate.subject_key, second.certificate.subject_key,
            "two subjects to API Gateway"
        );
        for leaf in [first, second] {
            let c = &leaf.certificate;
            assert_eq!(
                (c.is_ca, c.self_signed, c.not_after),
                (false, true, at("2027-02-22T12:00:00Z"))
            );
            let verdict = openssl_verify(&leaf.ca_pem, &leaf.chain_pem, now);
            assert!(verdict.trim_end().ends_with(": OK"), "{verdict}");
        }
    }
}

#[test]
fn problems_name_their_field() {
    let with = |change: &dyn Fn(&mut LeafRequest)| {
        let mut request = full();
        change(&mut request);
        validate(&request).map_err(|problem| problem.field)
    };
    assert_eq!(with(&|_| ()), Ok(()));
    for bad in [
        "",
        "a=b",
        "a,b",
        "a\nb",
        "a\u{0}",
        " a",
        "a ",
        "a\u{2028}b",
        &"x".repeat(65),
    ] {
        assert_eq!(
            with(&|r| r.common_name = bad.to_owned()),
            Err("subject.commonName".to_owned()),
            "{bad:?}"
        );
        assert_eq!(
            with(&|r| r.organizations[1] = bad.to_owned()),
            Err("subject.organizations[1]".to_owned())
        );
    }
    assert_eq!(with(&|r| r.common_name = "ü".repeat(64)), Ok(()));
    for bad in ["", "de", "D", "DEU", "Ü"] {
        assert_eq!(
            with(&|r| r.countries[0] = bad.to_owned()),
            Err("subject.countries[0]".to_owned()),
            "{bad:?}"
        );
    }
    for bad in [
        "",
        "a..b",
        "-a.b",
        "a_b.c",
        "a.*.b",
        "*",
        "ü.de",
        "a b",
        &"x".repeat(64),
        &"a.".repeat(127),
    ] {
        assert_eq!(
            with(&|r| r.dns_names[0] = bad.to_owned()),
            Err("dnsNames[0]".to_owned()),
            "{bad:?}"
        );
    }
    for bad in [
        "", "spiffe", "://x", "1a://x", "a:", "a://x y", "a://ü", "a://<x>",
    ] {
        assert_eq!(
            with(&|r| r.uris[0] = bad.to_owned()),
            Err("uris[0]".to_owned()),
            "{bad:?}"
        );
    }
    for bad in ["", "a", "@b", "a@", "a@*.b", "a b@c", "a@b@c", "ü@b"] {
        assert_eq!(
            with(&|r| r.email_addresses[0] = bad.to_owned()),
            Err("emailAddresses[0]".to_owned()),
            "{bad:?}"
        );
    }
    assert_eq!(
        with(&|r| r.duration = SignedDuration::ZERO),
        Err("duration".to_owned())
    );
}

#[test]
fn the_alternative_names_have_a_length_together() {
    let of = |dns: usize, uri: usize, email: usize| {
        let request = LeafRequest {
            dns_names: vec!["d".repeat(dns)],
            uris: vec!["u".repeat(uri)],
            email_addresses: vec!["e".repeat(email / 2), "e".repeat(email - email / 2)],
            ..full()
        };
        validate_length(&request).map_err(|problem| problem.field)
    };
    for (dns, uri, email, expected) in [
        (0, 0, 0, Ok(())),
        (8192, 0, 0, Ok(())),
        (8193, 0, 0, Err("dnsNames")),
        (4000, 4192, 0, Ok(())),
        (4000, 4193, 0, Err("uris")),
        (2000, 2000, 4193, Err("emailAddresses")),
    ] {
        assert_eq!(
            of(dns, uri, email),
            expected.map_err(str::to_owned),
            "{dns} {uri} {email}"
        );
    }
}
