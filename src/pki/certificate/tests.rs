//! Tests of `certificate`.

use std::process::Command;

use crate::pki::{
    certificate::{Certificate, sha256, signature::SignatureClass, timestamp},
    keys::KeyStrength,
    pem_certificates::parse_pem_bundle,
};
use jiff::Timestamp;
use proptest::prelude::*;
use x509_cert::der::{
    Decode, Encode, Tag,
    asn1::{Any, AnyRef},
};

/// Self-signed certificate by the openssl CLI, as people make them.
fn openssl(args: &[&str]) -> Certificate {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    let out = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "30",
            "-keyout",
            key.to_str().unwrap(),
        ])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    parse_pem_bundle(&out.stdout).unwrap().remove(0)
}

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[test]
fn facts_of_a_certificate_made_by_openssl() {
    let san = "subjectAltName=DNS:a.example,URI:spiffe://x/y,email:a@b.example";
    let subject = "/DC=com/DC=example/O=Acme, Inc./CN=Root \"1\"";
    let c = openssl(
        &[
            &EC[..],
            &["-subj", subject, "-set_serial", "0xfedc01", "-addext", san],
        ]
        .concat(),
    );
    assert_eq!(c.subject, "CN=Root \\\"1\\\",O=Acme\\, Inc.,DC=example,DC=com");
    assert_eq!(c.issuer, c.subject);
    assert_eq!(
        (c.serial.as_str(), c.serial_text().as_str()),
        ("fedc01", "fe:dc:01")
    );
    assert_eq!(
        (c.version, c.is_ca, c.may_sign, c.self_signed),
        (3, true, true, true)
    );
    assert_eq!(c.not_after.duration_since(c.not_before).as_hours(), 30 * 24);
    assert_eq!(
        (c.key, c.signature),
        (KeyStrength::EcdsaP256, SignatureClass::Sha2)
    );
    assert_eq!(c.subject_key_id.as_ref().map(Vec::len), Some(20));
    assert_eq!(c.dns_names, ["a.example"]);
    assert_eq!(c.uris, ["spiffe://x/y"]);
    assert_eq!(c.email_addresses, ["a@b.example"]);
    assert!(!c.other_names);
    assert_eq!(parse_pem_bundle(&c.to_pem()).unwrap(), [c]);
}

#[test]
fn key_and_signature_classes() {
    let cases: [(&[&str], KeyStrength, SignatureClass); 7] = [
        (
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha512"],
            KeyStrength::EcdsaP384,
            SignatureClass::Sha2,
        ),
        (
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha512"],
            KeyStrength::EcdsaP521,
            SignatureClass::Sha2,
        ),
        (
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521", "-sha256"],
            KeyStrength::EcdsaP521,
            SignatureClass::Sha2,
        ),
        (
            &["-newkey", "rsa:1024", "-sha256"],
            KeyStrength::Rsa(1024),
            SignatureClass::Sha2,
        ),
        (
            &["-newkey", "rsa:2048", "-sha1"],
            KeyStrength::Rsa(2048),
            SignatureClass::Sha1,
        ),
        (
            &[
                "-newkey",
                "rsa:2048",
                "-sha384",
                "-sigopt",
                "rsa_padding_mode:pss",
                "-sigopt",
                "rsa_pss_saltlen:digest",
            ],
            KeyStrength::Rsa(2048),
            SignatureClass::Sha2,
        ),
        (
            &["-newkey", "ed25519"],
            KeyStrength::Ed25519,
            SignatureClass::Other,
        ),
    ];
    for (args, key, signature) in cases {
        let c = openssl(&[args, &["-subj", "/CN=x"]].concat());
        assert_eq!((c.key, c.signature), (key, signature), "{args:?}");
        // aws-lc verifies SHA-2 signatures of RSA keys from 2048 bits on only.
        assert_eq!(c.self_signed, key != KeyStrength::Rsa(1024), "{args:?}");
    }
}

/// Certificate of the same key in another encoding. Its signature does not verify.
fn with_key(of: &Certificate, spki: &[u8]) -> Certificate {
    let sequence = |value: Vec<u8>| Any::new(Tag::Sequence, value).unwrap();
    let outer = AnyRef::from_der(of.der()).unwrap();
    let length = AnyRef::from_der_partial(outer.value()).unwrap().1.len();
    let (tbs, rest) = outer.value().split_at(outer.value().len() - length);
    let body = AnyRef::from_der(tbs).unwrap().value();
    let at = body
        .windows(of.spki_der().len())
        .position(|window| window == of.spki_der())
        .unwrap();
    let body = [&body[..at], spki, &body[at + of.spki_der().len()..]].concat();
    let whole = sequence([sequence(body).to_der().unwrap(), rest.to_vec()].concat());
    Certificate::from_der(&whole.to_der().unwrap()).unwrap()
}

#[test]
fn a_key_has_one_hash_in_all_encodings() {
    let rsa = openssl(&["-newkey", "rsa:2048", "-subj", "/CN=x"]);
    let spki = rsa.spki_der().to_vec();
    assert_eq!(rsa.spki_sha256, sha256(&spki), "as openssl writes it");
    // 30 82 01 22, 30 0d, OID, 05 00: without the NULL, each two bytes shorter.
    assert_eq!(&spki[..6], [0x30, 0x82, 0x01, 0x22, 0x30, 0x0d]);
    let mut without_null = spki.clone();
    without_null.drain(17..19);
    (without_null[3], without_null[5]) = (0x20, 0x0b);
    let other = with_key(&rsa, &without_null);
    assert_ne!(other.spki_der(), rsa.spki_der());
    assert_eq!((&other.spki_sha256, other.key), (&rsa.spki_sha256, rsa.key));
    // A byte after the key: no verifier has to read it, and it must not be taken for the key without it.
    let mut longer = spki.clone();
    longer.push(0);
    (longer[3], longer[22]) = (0x23, 0x10);
    let odd = with_key(&rsa, &longer);
    assert_ne!(odd.spki_sha256, rsa.spki_sha256);
    assert_eq!(odd.key, KeyStrength::Other);
    let ec = openssl(&[
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-subj",
        "/CN=x",
    ]);
    assert_eq!(
        (ec.key, ec.spki_sha256.clone()),
        (KeyStrength::EcdsaP256, sha256(ec.spki_der()))
    );
    // The length in the long form.
    let long = [&[0x30, 0x81, 0x59], &ec.spki_der()[2..]].concat();
    assert_eq!(with_key(&ec, &long).spki_sha256, ec.spki_sha256);
    let mut compressed = ec.spki_der()[..27 + 32].to_vec();
    compressed[26] = 2 + (ec.spki_der()[90] & 1);
    (compressed[1], compressed[24]) = (57, 34);
    assert_eq!(
        with_key(&ec, &compressed).key,
        KeyStrength::Other,
        "lint refuses it"
    );
}

#[test]
fn an_infinite_certificate_is_read() {
    let c = openssl(&[&EC[..], &["-subj", "/CN=x", "-days", "2900000"]].concat());
    assert!(c.not_after > "9950-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(timestamp(253_402_300_799), Timestamp::MAX);
}

#[test]
fn names_are_compared_by_value() {
    let a = openssl(&[&EC[..], &["-subj", "/O=Acme  Inc/CN=root"]].concat());
    let b = openssl(&[&EC[..], &["-subj", "/O=ACME Inc/CN=Root"]].concat());
    let c = openssl(&[&EC[..], &["-subj", "/O=Acme Inc/CN=root2"]].concat());
    assert_eq!(a.subject_key, b.subject_key);
    assert_ne!(a.subject_key, c.subject_key);
    assert!(!a.is_issued_by(&b), "the name fits, the key does not");
    assert!(a.is_issued_by(&a));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        let _ = Certificate::from_der(&bytes);
    }

    #[test]
    fn a_damaged_certificate_never_panics(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
        let mut der = SAMPLE.with(|sample| sample.der().to_vec());
        let length = der.len();
        der[at % length] = byte;
        let _ = Certificate::from_der(&der);
        let _ = Certificate::from_der(&der[..cut % length]);
    }
}

thread_local! {
    static SAMPLE: Certificate = openssl(
        &[&EC[..], &["-subj", "/CN=x", "-addext", "subjectAltName=DNS:a"]].concat(),
    );
}
