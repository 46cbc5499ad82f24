//! Tests of `certificate`.

use std::process::Command;

use crate::pki::{
    certificate::{Certificate, sha256, signature::SignatureClass, timestamp},
    keys::KeyStrength,
    pem,
    pem_certificates::parse_pem_bundle,
    pem_error::ParseError,
};
use jiff::Timestamp;
use proptest::prelude::*;
use x509_cert::der::{
    Decode, Encode, Tag,
    asn1::{Any, AnyRef},
    pem::{LineEnding, encode_string},
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

/// DER element with a length of at most two octets.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let head = match content.len() {
        length @ 0..128 => vec![tag, length as u8],
        length @ 128..256 => vec![tag, 0x81, length as u8],
        length => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

/// Parts of a certificate that programs write in unusual ways.
struct Odd {
    version: Option<u8>,
    serial: &'static [u8],
    not_before: (u8, &'static str),
    not_after: (u8, &'static str),
}

const USUAL: Odd = Odd {
    version: Some(2),
    serial: &[7],
    not_before: (UTC, "260101000000Z"),
    not_after: (UTC, "360101000000Z"),
};
const UTC: u8 = 0x17;
const GENERALIZED: u8 = 0x18;

impl Odd {
    /// Returns an authority, without a valid signature.
    fn pem(&self) -> String {
        let algorithm = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02".to_vec();
        let name = tlv(0x30, &tlv(0x31, &tlv(0x30, b"\x06\x03\x55\x04\x03\x0c\x03Odd")));
        let key = crate::pki::keys::generate(crate::pki::keys::KeyKind::EcdsaP256).unwrap();
        let time = |(tag, text): (u8, &str)| tlv(tag, text.as_bytes());
        let authority = b"\x30\x0f\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x05\x30\x03\x01\x01\xff";
        let body = [
            self.version.map_or(vec![], |version| tlv(0xa0, &[2, 1, version])),
            tlv(2, self.serial),
            algorithm.clone(),
            name.clone(),
            tlv(0x30, &[time(self.not_before), time(self.not_after)].concat()),
            name,
            rcgen::PublicKeyData::subject_public_key_info(&key),
            tlv(0xa3, &tlv(0x30, authority)),
        ];
        let signature = tlv(3, b"\0\x30\x06\x02\x01\x01\x02\x01\x01");
        let der = tlv(0x30, &[tlv(0x30, &body.concat()), algorithm, signature].concat());
        encode_string("CERTIFICATE", LineEnding::LF, &der).unwrap()
    }
}

#[test]
fn unusual_certificates_are_read_or_refused_with_their_reason() {
    let whole: &[u8] = &[
        0x80, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    ];
    let serial = |serial| Odd { serial, ..USUAL };
    let not_before = |tag, text| Odd {
        not_before: (tag, text),
        ..USUAL
    };
    let not_after = |tag, text| Odd {
        not_after: (tag, text),
        ..USUAL
    };
    let read = |serial: &str| Ok(serial.to_owned());
    let refused = || Err(ParseError::Irregular { line: 1 });
    let cases = [
        ("usual", USUAL, read("07")),
        ("zero serial", serial(&[0]), read("00")),
        ("negative serial", serial(&[0xff, 0xfe]), read("fffe")),
        (
            "serial of 21 octets",
            serial(whole),
            read("8002030405060708090a0b0c0d0e0f101112131415"),
        ),
        ("no seconds", not_before(UTC, "2601010000Z"), read("07")),
        ("an offset", not_before(UTC, "260101000000+0100"), read("07")),
        (
            "a fraction",
            not_after(GENERALIZED, "20360101000000.5Z"),
            read("07"),
        ),
        ("local time", not_after(GENERALIZED, "20360101000000"), refused()),
        ("30 February", not_after(UTC, "360230000000Z"), refused()),
        (
            "ends before it begins",
            not_after(UTC, "250101000000Z"),
            read("07"),
        ),
        ("no end", not_after(GENERALIZED, "99991231235959Z"), read("07")),
        (
            "GeneralizedTime before 2050",
            not_after(GENERALIZED, "20360101000000Z"),
            read("07"),
        ),
        (
            "version 1 with extensions",
            Odd {
                version: None,
                ..USUAL
            },
            read("07"),
        ),
        (
            "version 9",
            Odd {
                version: Some(8),
                ..USUAL
            },
            read("07"),
        ),
    ];
    for (what, odd, expected) in cases {
        let pem = odd.pem();
        assert_eq!(
            parse_pem_bundle(&pem).map(|all| all[0].serial.clone()),
            expected,
            "{what}"
        );
        // A certificate that lost its end is damaged, whatever its fields.
        let mut der = pem::scan(pem.as_bytes()).next().unwrap().unwrap().der.to_vec();
        der.truncate(der.len() - 10);
        let cut = encode_string("CERTIFICATE", LineEnding::LF, &der).unwrap();
        assert_eq!(
            parse_pem_bundle(&cut),
            Err(ParseError::NotCertificate { line: 1 }),
            "{what}"
        );
    }
    let text = ParseError::Irregular { line: 1 }.to_string();
    assert!(text.contains("have it issued again"), "{text}");
}
