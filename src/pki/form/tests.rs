//! Tests of `form`.

use std::process::Command;

use crate::pki::{
    authority::{
        CLOCK_SLACK, SigningAuthority, earlier,
        tests::{at, issuer},
    },
    certificate::Certificate,
    form::{Mismatch, issued_for, signed_itself, signed_itself_for},
    keys::{KeyKind, generate},
    leaf::{
        LeafRequest, extensions, issue, key_id_of, self_sign, subject_der,
        tests::{request, spki},
        usage,
    },
    pem_certificates::parse_pem_bundle,
    signing::{Draft, sign},
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use x509_cert::{
    der::oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH},
    ext::{
        ToExtension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages},
    },
    name::Name,
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn now() -> Timestamp {
    at("2026-11-24T12:00:00Z")
}

fn full() -> LeafRequest {
    let strings = |values: &[&str]| values.iter().map(|value| value.to_string()).collect();
    LeafRequest {
        organizations: strings(&["Acme", "Größe & Söhne"]),
        organizational_units: strings(&["a"]),
        countries: strings(&["DE"]),
        localities: strings(&["Berlin"]),
        provinces: strings(&["Berlin"]),
        dns_names: strings(&["b.example", "a.example"]),
        uris: strings(&["spiffe://acme/client1"]),
        email_addresses: strings(&["ops@acme.example"]),
        ..request("client1")
    }
}

fn numbered(number: &str) -> LeafRequest {
    LeafRequest {
        serial_number: Some(number.to_owned()),
        ..full()
    }
}

fn key() -> KeyPair {
    generate(KeyKind::EcdsaP256).unwrap()
}

fn signed(request: &LeafRequest, key: &KeyPair) -> Certificate {
    self_sign(request, key, now()).unwrap().certificate
}

/// Signs as `self_sign` does, after `change` has changed the draft.
fn drafted(request: &LeafRequest, key: &KeyPair, change: impl FnOnce(&mut Draft)) -> Certificate {
    let (spki, subject) = (key.subject_public_key_info(), subject_der(request).unwrap());
    let mut draft = Draft {
        issuer: subject.clone(),
        subject,
        not_before: earlier(now(), CLOCK_SLACK),
        not_after: request.end(now(), None),
        extensions: extensions(request, &spki, key_id_of(&spki).unwrap(), usage()).unwrap(),
        spki,
    };
    change(&mut draft);
    Certificate::from_der(&sign(draft, key).unwrap()).unwrap()
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut all = vec![tag];
    match length {
        0..=127 => all.push(length as u8),
        128..=255 => all.extend([0x81, length as u8]),
        _ => all.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    all.extend(content);
    all
}

/// Returns tag and content of the first value, and the bytes after it.
fn first(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (octets, length) = match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
        short => (2, usize::from(short)),
    };
    (der[0], &der[octets..octets + length], &der[octets + length..])
}

/// Returns the values in a constructed value, each with its tag.
fn parts(der: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut rest) = (Vec::new(), first(der).1);
    while !rest.is_empty() {
        let after = first(rest).2;
        all.push(rest[..rest.len() - after.len()].to_vec());
        rest = after;
    }
    all
}

/// Returns version, serial, algorithm, issuer, validity, subject, key and extensions.
fn tbs(certificate: &Certificate) -> Vec<Vec<u8>> {
    parts(&parts(certificate.der())[0])
}

/// Returns the extensions of a certificate, each in its encoding.
fn listed(tbs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    parts(first(&tbs[7]).1)
}

fn signs(tbs: &[u8], key: &KeyPair, like: &Certificate) -> Vec<u8> {
    let mut signature = vec![0];
    signature.extend(key.sign(tbs).unwrap());
    tlv(0x30, &[tbs, &parts(like.der())[1], &tlv(3, &signature)].concat())
}

/// Changes parts of the certificate, and signs it again with its own key.
fn changed(certificate: &Certificate, key: &KeyPair, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut all = tbs(certificate);
    change(&mut all);
    signs(&tlv(0x30, &all.concat()), key, certificate)
}

fn with_extensions(
    certificate: &Certificate,
    key: &KeyPair,
    change: impl FnOnce(&mut Vec<Vec<u8>>),
) -> Vec<u8> {
    changed(certificate, key, |tbs| {
        let mut all = listed(tbs);
        change(&mut all);
        tbs[7] = tlv(0xa3, &tlv(0x30, &all.concat()));
    })
}

fn openssl(key: &KeyPair, subject: &str, extensions: Option<&str>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let run = |args: &str| {
        let out = Command::new("openssl").args(args.split(' ')).output().unwrap();
        assert!(
            out.status.success(),
            "{args}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    let key = file("key", &key.serialize_pem());
    let csr = run(&format!("req -new -utf8 -key {key} -subj {subject}"));
    let csr = file("csr", &csr);
    let extensions = extensions
        .map(|text| format!(" -extfile {}", file("ext", text)))
        .unwrap_or_default();
    let pem = run(&format!(
        "x509 -req -in {csr} -signkey {key} -days 30{extensions}"
    ));
    parse_pem_bundle(&pem).unwrap().remove(0).der().to_vec()
}

#[test]
fn certificates_of_this_and_of_earlier_releases_are_ours() {
    let ca = issuer("Partners", now());
    for kind in [
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP384,
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
        KeyKind::Rsa4096,
    ] {
        let key = generate(kind).unwrap();
        assert_eq!(KeyKind::of(&key), Some(kind));
        for asked in [
            request("client1"),
            full(),
            numbered("2"),
            numbered("9223372036854775807"),
        ] {
            let leaf = signed(&asked, &key);
            let said = signed_itself(&leaf).unwrap();
            assert_eq!(
                (&said.common_name, &said.serial_number),
                (&asked.common_name, &asked.serial_number)
            );
            assert_eq!(
                signed_itself_for(&leaf, &asked, now()),
                Ok(()),
                "{kind}: {leaf:?}"
            );
            let another_order = LeafRequest {
                serial_number: None,
                dns_names: asked.dns_names.iter().rev().cloned().collect(),
                ..asked.clone()
            };
            assert_eq!(signed_itself_for(&leaf, &another_order, now()), Ok(()));
        }
        let issued = issue(&full(), &key.subject_public_key_info(), &ca, now())
            .unwrap()
            .certificate;
        assert_eq!(issued_for(&issued, &full(), ca.chain(), now()), Ok(()), "{kind}");

        // Earlier releases: five minutes of clock slack, and key encipherment for RSA keys.
        let five = drafted(&full(), &key, |d| {
            d.not_before = earlier(now(), SignedDuration::from_mins(5))
        });
        assert_eq!(signed_itself_for(&five, &full(), now()), Ok(()), "{kind}");
        let spki = key.subject_public_key_info();
        let both = KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment);
        let enciphers = drafted(&full(), &key, |d| {
            d.extensions = extensions(&full(), &spki, key_id_of(&spki).unwrap(), both).unwrap();
        });
        let is_rsa = matches!(kind, KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096);
        let expected = if is_rsa { Ok(()) } else { Err(Mismatch::Form) };
        assert_eq!(signed_itself_for(&enciphers, &full(), now()), expected, "{kind}");
    }
}

/// Another program wrote these certificates in the forms of all releases. They stay ours for good: a
/// certificate that is not ours leaves truststores at once.
#[test]
fn the_stored_certificates_of_each_form_are_ours() {
    let kept = [
        (include_str!("ecdsa-p256.pem"), full()),
        (include_str!("ecdsa-p384-revision-2.pem"), numbered("2")),
        (include_str!("rsa-2048-key-encipherment.pem"), full()),
    ];
    for (pem, asked) in kept {
        let certificate = parse_pem_bundle(pem).unwrap().remove(0);
        let number = signed_itself(&certificate).map(|said| said.serial_number);
        assert_eq!(
            number,
            Ok(asked.serial_number.clone()),
            "{certificate:?} {:?}",
            certificate.key
        );
        assert_eq!(signed_itself_for(&certificate, &asked, now()), Ok(()));
    }
}

#[test]
fn a_certificate_in_any_other_form_is_not_ours() {
    let (key, other) = (key(), generate(KeyKind::EcdsaP256).unwrap());
    let good = signed(&full(), &key);
    let none = Name::default();
    let ca = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    }
    .to_extension(&none, &[])
    .unwrap();
    let usages = |usages| KeyUsage(usages).to_extension(&none, &[]).unwrap();
    let eku = |all: &[_]| ExtendedKeyUsage(all.to_vec()).to_extension(&none, &[]).unwrap();
    let of_draft = |change: &dyn Fn(&mut Draft)| drafted(&full(), &key, change).der().to_vec();
    // Unknown extension 1.2.3, with and without the critical flag.
    let unknown = tlv(0x30, &[&tlv(6, &[42, 3])[..], &tlv(4, &[5, 0])].concat());
    let critical = tlv(
        0x30,
        &[&tlv(6, &[42, 3])[..], &[1, 1, 0xff], &tlv(4, &[5, 0])].concat(),
    );
    let sanless = signed(&request("client1"), &key);
    let name = |tag: u8| {
        let attribute = tlv(
            0x30,
            &[&tlv(6, &[0x55, 4, 3])[..], &tlv(tag, b"client1")].concat(),
        );
        tlv(0x30, &tlv(0x31, &attribute))
    };
    let serial = |octets: &[u8]| changed(&good, &key, |tbs| tbs[1] = tlv(2, octets));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("version 1, by openssl", openssl(&key, "/CN=client1", None)),
        (
            "keyCertSign without basicConstraints, by openssl",
            openssl(
                &key,
                "/CN=client1",
                Some("keyUsage=critical,keyCertSign,digitalSignature"),
            ),
        ),
        (
            "an authority, by openssl",
            openssl(&key, "/CN=client1", Some("basicConstraints=critical,CA:TRUE")),
        ),
        (
            "all of ours, by openssl",
            openssl(
                &key,
                "/CN=client1",
                Some(
                    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                 extendedKeyUsage=clientAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always",
                ),
            ),
        ),
        (
            "version 1 with extensions",
            changed(&good, &key, |tbs| drop(tbs.remove(0))),
        ),
        (
            "version 1 without",
            changed(&good, &key, |tbs| *tbs = tbs[1..7].to_vec()),
        ),
        (
            "version 1, spelled out",
            changed(&good, &key, |tbs| tbs[0] = vec![0xa0, 3, 2, 1, 0]),
        ),
        (
            "version 2",
            changed(&good, &key, |tbs| tbs[0] = vec![0xa0, 3, 2, 1, 1]),
        ),
        (
            "version 4",
            changed(&good, &key, |tbs| tbs[0] = vec![0xa0, 3, 2, 1, 3]),
        ),
        (
            "version 3 in two octets",
            changed(&good, &key, |tbs| tbs[0] = vec![0xa0, 4, 2, 2, 0, 2]),
        ),
        (
            "version 3 without extensions",
            changed(&good, &key, |tbs| tbs.truncate(7)),
        ),
        ("CA:TRUE", of_draft(&|d| d.extensions[0] = ca.clone())),
        ("no basicConstraints", of_draft(&|d| drop(d.extensions.remove(0)))),
        (
            "keyCertSign too",
            of_draft(&|d| {
                d.extensions[1] = usages(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign);
            }),
        ),
        (
            "keyCertSign, no basicConstraints",
            of_draft(&|d| {
                d.extensions[1] = usages(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign);
                d.extensions.remove(0);
            }),
        ),
        ("no keyUsage", of_draft(&|d| drop(d.extensions.remove(1)))),
        (
            "keyUsage that is not critical",
            of_draft(&|d| d.extensions[1].critical = false),
        ),
        ("no EKU", of_draft(&|d| drop(d.extensions.remove(2)))),
        (
            "serverAuth too",
            of_draft(&|d| d.extensions[2] = eku(&[ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH])),
        ),
        ("a critical EKU", of_draft(&|d| d.extensions[2].critical = true)),
        ("another order", of_draft(&|d| d.extensions.swap(0, 1))),
        (
            "a second basicConstraints",
            of_draft(&|d| d.extensions.push(ca.clone())),
        ),
        (
            "a second basicConstraints first",
            of_draft(&|d| d.extensions.insert(0, ca.clone())),
        ),
        (
            "the same extension twice",
            with_extensions(&good, &key, |all| all.push(all[0].clone())),
        ),
        (
            "an unknown extension",
            with_extensions(&good, &key, |all| all.push(unknown.clone())),
        ),
        (
            "a critical one",
            with_extensions(&good, &key, |all| all.push(critical.clone())),
        ),
        (
            "an octet more in an extension",
            with_extensions(&good, &key, |all| {
                let last = all.len() - 1;
                all[last] = tlv(0x30, &[first(&all[last]).1, &[5, 0]].concat());
            }),
        ),
        (
            "FALSE spelled out",
            with_extensions(&good, &key, |all| {
                let mut eku = parts(&all[2]);
                eku.insert(1, vec![1, 1, 0]);
                all[2] = tlv(0x30, &eku.concat());
            }),
        ),
        (
            "TRUE as 1",
            with_extensions(&good, &key, |all| {
                let mut usage = parts(&all[1]);
                usage[1] = vec![1, 1, 1];
                all[1] = tlv(0x30, &usage.concat());
            }),
        ),
        (
            "cA FALSE spelled out",
            with_extensions(&good, &key, |all| {
                let mut constraints = parts(&all[0]);
                let last = constraints.len() - 1;
                constraints[last] = tlv(4, &tlv(0x30, &[1, 1, 0]));
                all[0] = tlv(0x30, &constraints.concat());
            }),
        ),
        (
            "an IP address among its names",
            with_extensions(&good, &key, |all| {
                let last = all.len() - 1;
                let mut names = parts(&all[last]);
                let at = names.len() - 1;
                let there = first(first(&names[at]).1).1.to_vec();
                names[at] = tlv(4, &tlv(0x30, &[&there[..], &tlv(0x87, &[127, 0, 0, 1])].concat()));
                all[last] = tlv(0x30, &names.concat());
            }),
        ),
        (
            "a unique id",
            changed(&good, &key, |tbs| tbs.insert(7, vec![0x81, 2, 0, 1])),
        ),
        (
            "an octet after the last part",
            changed(&good, &key, |tbs| tbs.push(vec![5, 0])),
        ),
        ("a serial of 8 octets", serial(&[0x40; 8])),
        ("of 17", serial(&[0x40; 17])),
        ("of 20", serial(&[0x40; 20])),
        ("a negative one", serial(&[0xc0; 16])),
        ("zero", serial(&[0])),
        (
            "with a needless zero before it",
            serial(&[&[0][..], &[0x40; 16]].concat()),
        ),
        ("16 octets that the operator never gives", serial(&[0x3f; 16])),
        (
            "a subject in PrintableString",
            changed(&sanless, &key, |tbs| (tbs[3], tbs[5]) = (name(0x13), name(0x13))),
        ),
        (
            "in T61String",
            changed(&sanless, &key, |tbs| (tbs[3], tbs[5]) = (name(0x14), name(0x14))),
        ),
        (
            "an issuer in another string type",
            changed(&sanless, &key, |tbs| tbs[3] = name(0x13)),
        ),
        (
            "another issuer",
            of_draft(&|d| d.issuer = subject_der(&request("Partners")).unwrap()),
        ),
        (
            "an empty subject",
            changed(&sanless, &key, |tbs| {
                (tbs[3], tbs[5]) = (vec![0x30, 0], vec![0x30, 0])
            }),
        ),
        (
            "two common names",
            changed(&sanless, &key, |tbs| {
                let two = tlv(0x30, &[first(&name(12)).1, first(&name(12)).1].concat());
                (tbs[3], tbs[5]) = (two.clone(), two);
            }),
        ),
        (
            "two in one RDN",
            changed(&sanless, &key, |tbs| {
                let attribute = first(first(&name(12)).1).1.to_vec();
                let two = tlv(0x30, &tlv(0x31, &[&attribute[..], &attribute].concat()));
                (tbs[3], tbs[5]) = (two.clone(), two);
            }),
        ),
        (
            "a time in GeneralizedTime",
            changed(&good, &key, |tbs| {
                tbs[4] = tlv(
                    0x30,
                    &[tlv(0x18, b"20261124114500Z"), parts(&tbs[4])[1].clone()].concat(),
                );
            }),
        ),
        (
            "a time without seconds",
            changed(&good, &key, |tbs| {
                tbs[4] = tlv(
                    0x30,
                    &[tlv(0x17, b"2611241145Z"), parts(&tbs[4])[1].clone()].concat(),
                );
            }),
        ),
        (
            "the key id of another key",
            of_draft(&|d| {
                let spki = other.subject_public_key_info();
                d.extensions = extensions(&full(), &spki, key_id_of(&spki).unwrap(), usage()).unwrap();
            }),
        ),
        (
            "signed by another key of the same name",
            changed(&good, &other, |_| ()),
        ),
        ("an octet after the end", [good.der(), &[0]].concat()),
        ("an unused bit in the signature", {
            let mut all = parts(good.der());
            let mut bits = first(&all[2]).1.to_vec();
            bits[0] = 1;
            all[2] = tlv(3, &bits);
            tlv(0x30, &all.concat())
        }),
        ("another algorithm outside than inside", {
            let mut all = parts(good.der());
            all[1] = tlv(0x30, &tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]));
            tlv(0x30, &all.concat())
        }),
        ("a length in more octets than it takes", {
            let mut all = tbs(&good);
            let content = first(&all[5]).1.to_vec();
            all[5] = [&[0x30, 0x82, 0, content.len() as u8][..], &content].concat();
            assert!(content.len() < 256);
            signs(&tlv(0x30, &all.concat()), &key, &good)
        }),
    ];
    for (what, der) in cases {
        if let Some(certificate) = Certificate::from_der(&der) {
            assert!(signed_itself(&certificate).is_err(), "{what}");
            assert!(signed_itself_for(&certificate, &full(), now()).is_err(), "{what}");
        }
    }
    // The test's own tools break nothing.
    let same = Certificate::from_der(&with_extensions(&good, &key, |_| ())).unwrap();
    assert_eq!(signed_itself_for(&same, &full(), now()), Ok(()));
    let serial = Certificate::from_der(&serial(&[0x40; 16])).unwrap();
    assert_eq!(signed_itself_for(&serial, &full(), now()), Ok(()));
}

/// `openssl` generates kinds of keys that the operator never generates.
#[test]
fn other_kinds_of_keys_are_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        "-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:3",
        "-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:65539",
        "-newkey rsa:1024",
        "-newkey rsa:2056",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-521",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
        "-newkey ed25519",
    ];
    for case in cases {
        let key = dir.path().join("key").display().to_string();
        let line = format!("req -x509 -nodes -days 30 -subj /CN=client1 -keyout {key} {case}");
        let out = Command::new("openssl").args(line.split(' ')).output().unwrap();
        assert!(
            out.status.success(),
            "{case}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let Ok(mut made) = parse_pem_bundle(std::str::from_utf8(&out.stdout).unwrap()) else {
            continue;
        };
        let spki = made.remove(0).spki_der().to_vec();
        assert_eq!(KeyKind::of_der(&spki), None, "{case}");
    }
    // The certificate has the operator's form otherwise.
    let key = key();
    let good = signed(&request("client1"), &key);
    let certificate = Certificate::from_der(&changed(&good, &key, |tbs| {
        let mut spki = parts(&tbs[6]);
        spki[0] = tlv(
            0x30,
            &[&parts(&spki[0])[0][..], &[6, 5, 0x2b, 0x81, 4, 0, 0x0a]].concat(),
        ); // secp256k1
        tbs[6] = tlv(0x30, &spki.concat());
    }));
    assert!(certificate.is_none_or(|c| signed_itself(&c) == Err(Mismatch::Key)));
}

#[test]
fn a_certificate_of_ours_has_the_content_of_the_request_and_no_more() {
    let leaf = signed(&full(), &key());
    let with = |change: &dyn Fn(&mut LeafRequest)| {
        let mut asked = full();
        change(&mut asked);
        signed_itself_for(&leaf, &asked, now())
    };
    assert_eq!(with(&|_| ()), Ok(()));
    let more = |list: &mut Vec<String>, value: &str| list.push(value.to_owned());
    type Change = Box<dyn Fn(&mut LeafRequest)>;
    let changes: Vec<(&str, Change)> = vec![
        ("another name", Box::new(|r| r.common_name = "client2".into())),
        ("in capitals", Box::new(|r| r.common_name = "CLIENT1".into())),
        (
            "another organization",
            Box::new(|r| r.organizations[0] = "Zeta".into()),
        ),
        ("in another order", Box::new(|r| r.organizations.reverse())),
        ("a unit less", Box::new(|r| r.organizational_units.clear())),
        (
            "a unit more",
            Box::new(move |r| more(&mut r.organizational_units, "b")),
        ),
        ("a country less", Box::new(|r| r.countries.clear())),
        ("a locality less", Box::new(|r| r.localities.clear())),
        ("a province less", Box::new(|r| r.provinces.clear())),
        ("a DNS name less", Box::new(|r| drop(r.dns_names.pop()))),
        ("one more", Box::new(move |r| more(&mut r.dns_names, "c.example"))),
        (
            "the same one twice",
            Box::new(move |r| more(&mut r.dns_names, "a.example")),
        ),
        ("a URI less", Box::new(|r| r.uris.clear())),
        ("an address less", Box::new(|r| r.email_addresses.clear())),
    ];
    for (what, change) in changes {
        assert_eq!(with(&*change), Err(Mismatch::Request), "{what}");
    }
}

#[test]
fn the_number_of_a_revision_is_the_only_number() {
    for (number, expected) in [
        ("1", Err(Mismatch::Form)),
        ("02", Err(Mismatch::Form)),
        ("+2", Err(Mismatch::Form)),
        ("admin", Err(Mismatch::Form)),
        ("9223372036854775808", Err(Mismatch::Form)),
        ("2", Ok(())),
    ] {
        let leaf = signed(&numbered(number), &key());
        assert_eq!(signed_itself_for(&leaf, &full(), now()), expected, "{number}");
    }
    // Leaves of an authority have no serial number in the subject.
    let ca = issuer("Partners", now());
    let leaf = issue(&numbered("2"), &spki(KeyKind::EcdsaP256), &ca, now())
        .unwrap()
        .certificate;
    assert_eq!(
        issued_for(&leaf, &full(), ca.chain(), now()),
        Err(Mismatch::Request)
    );
}

#[test]
fn a_certificate_of_ours_is_valid_no_longer_than_allowed() {
    let (key, day) = (key(), HOUR * 24);
    let living = |from: Timestamp, life: SignedDuration| {
        drafted(&full(), &key, |d| {
            (d.not_before, d.not_after) = (from, from + life)
        })
    };
    let start = earlier(now(), CLOCK_SLACK);
    let asked = |duration, not_after| LeafRequest {
        duration,
        not_after,
        ..full()
    };
    let second = SignedDuration::from_secs(1);
    let cases = [
        (living(start, CLOCK_SLACK + day), asked(day, None), Ok(())),
        (
            living(start, CLOCK_SLACK + day + second),
            asked(day, None),
            Err(Mismatch::Life),
        ),
        (living(start, HOUR), asked(day, None), Ok(())),
        (
            living(start, CLOCK_SLACK + day),
            asked(day * 2, Some(now() + day)),
            Ok(()),
        ),
        (
            living(start, CLOCK_SLACK + day + second),
            asked(day * 2, Some(now() + day)),
            Err(Mismatch::Life),
        ),
        // A duration with fractions of a second ends with a whole second.
        (
            living(start, CLOCK_SLACK + second * 2),
            asked(SignedDuration::from_millis(1500), None),
            Ok(()),
        ),
        (
            living(start - day * 400, CLOCK_SLACK + day),
            asked(day, None),
            Ok(()),
        ),
        (
            living(now() + CLOCK_SLACK, CLOCK_SLACK + day),
            asked(day, None),
            Ok(()),
        ),
        (
            living(now() + CLOCK_SLACK + second, CLOCK_SLACK + day),
            asked(day, None),
            Err(Mismatch::Future),
        ),
        (
            living(now() + day * 3650, CLOCK_SLACK + day),
            asked(day, None),
            Err(Mismatch::Future),
        ),
        // Times from 2050 on are written in GeneralizedTime.
        (living(start, day * 36500), asked(day * 36500, None), Ok(())),
    ];
    for (at, (leaf, asked, expected)) in cases.into_iter().enumerate() {
        assert_eq!(signed_itself_for(&leaf, &asked, now()), expected, "case {at}");
    }
}

/// Another holder of the issuer's key makes certificates that the operator would not.
#[test]
fn a_leaf_by_another_holder_of_the_issuers_key_is_not_ours() {
    let (ca, other) = (issuer("Partners", now()), issuer("Partners", now()));
    let key = spki(KeyKind::EcdsaP256);
    let by = |change: &dyn Fn(&mut Draft), signer: &SigningAuthority| {
        let authority = ca.chain().authority();
        let key_id = authority.subject_key_id.clone().unwrap();
        let mut draft = Draft {
            issuer: authority.subject_der.clone(),
            subject: subject_der(&full()).unwrap(),
            not_before: authority.not_before,
            not_after: now() + HOUR,
            extensions: extensions(&full(), &key, key_id, usage()).unwrap(),
            spki: key.clone(),
        };
        change(&mut draft);
        let certificate = Certificate::from_der(&sign(draft, signer.key()).unwrap()).unwrap();
        issued_for(&certificate, &full(), ca.chain(), now())
    };
    assert_eq!(by(&|_| (), &ca), Ok(()));
    assert_eq!(by(&|_| (), &other), Err(Mismatch::Signature));
    let none = Name::default();
    let authority = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    }
    .to_extension(&none, &[])
    .unwrap();
    let server = ExtendedKeyUsage(vec![ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH])
        .to_extension(&none, &[])
        .unwrap();
    let changes: [&dyn Fn(&mut Draft); 5] = [
        &|d| d.extensions[0] = authority.clone(),
        &|d| drop(d.extensions.remove(0)),
        &|d| d.extensions[2] = server.clone(),
        &|d| drop(d.extensions.pop()),
        &|d| drop(d.extensions.remove(4)),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(by(change, &ca).is_err(), "change {at}");
    }
    let longer = |d: &mut Draft| d.not_after = now() + HOUR * 24 * 3650;
    assert_eq!(by(&longer, &ca), Err(Mismatch::Life));
}

proptest! {
    #![proptest_config(crate::cases(400))]
    /// Any octet is changed before the signature: a certificate that still counts as ours differs in its
    /// serial and its times only.
    #[test]
    fn no_other_octet_is_free(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let key = key();
        let good = signed(&full(), &key);
        let mut whole = tlv(0x30, &tbs(&good).concat());
        let at = at.index(whole.len());
        whole[at] = octet;
        let Some(certificate) = Certificate::from_der(&signs(&whole, &key, &good)) else { return Ok(()) };
        if signed_itself_for(&certificate, &full(), now()).is_ok() {
            for (part, (ours, theirs)) in tbs(&good).iter().zip(tbs(&certificate)).enumerate() {
                prop_assert!(part == 1 || part == 4 || *ours == theirs, "part {}", part);
            }
        }
    }
}
