//! Tests of `csr`.

use super::*;

use std::process::Command;

use jiff::SignedDuration;

use crate::pki::{
    authority::tests::{at, issuer},
    leaf::issue,
    pem,
    pem_error::{Kind, ParseError},
};

const DAY: SignedDuration = SignedDuration::from_hours(24);

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

fn openssl(args: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let out = Command::new("openssl")
        .args(["req", "-new", "-nodes", "-keyout"])
        .arg(key)
        .args(args.split('|').flat_map(|a| a.split(' ')))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn the_issued_leaf_equals_the_request() {
    let pem = openssl(&format!(
        "{EC} -utf8 -subj /CN=client1/O=Acme/OU=a/OU=b/C=DE/L=Köln/ST=NRW -addext \
 subjectAltName=DNS:a.example,URI:spiffe://acme/c,email:ops@acme.example -addext \
 basicConstraints=CA:TRUE -addext extendedKeyUsage=serverAuth"
    ));
    let csr = read(&pem, DAY).unwrap();
    let r = &csr.request;
    assert_eq!((r.common_name.as_str(), r.duration), ("client1", DAY));
    assert_eq!(
        (&r.organizations[..], &r.organizational_units[..]),
        (&["Acme".to_owned()][..], &["a".to_owned(), "b".to_owned()][..])
    );
    assert_eq!(
        (&r.dns_names[0], &r.uris[0], &r.email_addresses[0]),
        (
            &"a.example".to_owned(),
            &"spiffe://acme/c".to_owned(),
            &"ops@acme.example".to_owned()
        )
    );
    let now = at("2026-11-24T12:00:00Z");
    let leaf = issue(&csr.request, &csr.spki, &issuer("Partners", now), now)
        .unwrap()
        .certificate;
    assert_eq!(leaf.subject, "CN=client1,OU=b,OU=a,O=Acme,L=Köln,ST=NRW,C=DE");
    assert_eq!(
        (leaf.is_ca, leaf.spki_der()),
        (false, &csr.spki[..]),
        "neither an authority nor another key"
    );
    assert_eq!(
        read(
            &pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
            DAY
        ),
        Ok(csr)
    );
}

#[test]
fn kinds_of_keys() {
    let cases = [
        ("-newkey rsa:2048", Ok(())),
        ("-newkey rsa:2048 -sha512", Ok(())),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha512", Ok(())),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha512", Ok(())),
        ("-newkey rsa:1024", Err(CsrError::Key)),
        (
            "-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:3",
            Err(CsrError::Rsa(RsaFlaw::Exponent)),
        ),
        ("-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:65539", Ok(())),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-521", Err(CsrError::Key)),
        ("-newkey ed25519", Err(CsrError::Key)),
        ("-newkey rsa:2048 -sha1", Err(CsrError::Signature)),
    ];
    for (args, expected) in cases {
        assert_eq!(
            read(&openssl(&format!("{args} -subj /CN=x")), DAY).map(drop),
            expected,
            "{args}"
        );
    }
}

/// Request with the key of a prime and of the next one.
const CLOSE_PRIMES: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIICUTCCATkCAQAwDDEKMAgGA1UEAwwBeDCCASIwDQYJKoZIhvcNAQEBBQADggEP
ADCCAQoCggEBAPy4PYASxy67ANP6VhkAp2RMcXQXCAUkxul89QBi9l9bIZCHR/qO
x88YZp6jcBPujIbbPhCoIYwRIki+6noTvxmqLCiGyA7FA5q4BEY4pVSl43fmyZK1
0wBV8Nqd3MYrpJ6kx1a8qF5mana4A911icgZvuzdjMVKiLwogZi1tS4cGXbnAM/+
wjoGhCheEROOrylh4WEw4Op1Msyo3wS5i3X432hzySuQ20hqg2OaAUi3DZ0clVt1
y6Z6qEeuClT0r40QRzpOwYy/5BQH49d1BjyTw7faKNOfkjjzCmSHJRXNz+NEUCZD
WGTtj2LAYcQvjQVvYX4KIc8pdXXYecS5srMCAwEAAaAAMA0GCSqGSIb3DQEBCwUA
A4IBAQD59Fs9V+EH8hW60md5bOsVpErdIyLMb3wiK2tsBwR98bDh4xKqqTX+hmq6
D4MRmrilSm7hiYJ0JdqmPhbL5qw0Z6HyKKfY1hgvqTnK6vPcCkUZIqFCyl1wVmJC
Jgxzc3DfCZXslj/qRDTS/pq3ZtZLiotKoBa0VxBKTwfaLV9o7VEHohVhoudZo4yj
gHVVYCqkAXiNPFUGIivXF6aacnfYqBgTsWhhnPMne0cM1tZlg8XvQKSC7DCVatGl
Lv9Z5uj05JKVeypDtrbP5TMQdfO3za4baRMMaDKP5julCaxW9pCLaJhoVECPuWAx
iiqBsF3ax3QAdu9eZumvMJD/Oy1C
-----END CERTIFICATE REQUEST-----
";

#[test]
fn a_key_of_close_primes_is_refused() {
    assert_eq!(read(CLOSE_PRIMES, DAY), Err(CsrError::Rsa(RsaFlaw::ClosePrimes)));
}

#[test]
fn the_length_is_checked_before_anything_else() {
    let good = openssl(&format!("{EC} -subj /CN=client1"));
    let padded = |length: usize| format!("{}\n{good}", "x".repeat(length - 1 - good.len()));
    assert_eq!(read(&padded(16_384), DAY), read(&good, DAY));
    assert_eq!(read(&padded(16_385), DAY), Err(CsrError::TooLong));
    assert_eq!(
        read(&"-----BEGIN PRIVATE KEY-----".repeat(1000), DAY),
        Err(CsrError::TooLong)
    );
    let names: Vec<_> = (0..34)
        .map(|n| format!("DNS:n{n}.{}", "a.".repeat(124)))
        .collect();
    let names = names.join(",").replace(".,", ".a,") + "a";
    let long = openssl(&format!("{EC} -subj /CN=a -addext subjectAltName={names}"));
    let problem = read(&long, DAY).unwrap_err().to_string();
    assert!(
        problem.starts_with("the request cannot be certified: dnsNames: the DNS names, URIs and mail"),
        "{problem}"
    );
}

#[test]
fn a_request_by_keytool_is_served() {
    let Ok(version) = Command::new("keytool").arg("-help").output() else {
        println!("skipped: keytool is not installed");
        return;
    };
    assert!(version.status.success());
    let dir = tempfile::tempdir().unwrap();
    let keytool = |args: &str| {
        let store = "-keystore store.p12 -storetype PKCS12 -storepass changeit -alias me";
        let out = Command::new("keytool")
            .current_dir(dir.path())
            .args(args.split(' '))
            .args(store.split(' '))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8(out.stdout).unwrap()
    };
    keytool("-genkeypair -keyalg RSA -keysize 2048 -dname CN=client1,O=Acme");
    let csr = read(&keytool("-certreq"), DAY).unwrap();
    assert_eq!(
        (
            csr.request.common_name.as_str(),
            csr.request.organizations[0].as_str()
        ),
        ("client1", "Acme")
    );
}

#[test]
fn a_request_beyond_the_limits_is_refused() {
    let problem = |pem: &str| read(pem, DAY).unwrap_err().to_string();
    let ask = |args: &str| problem(&openssl(&format!("{EC} {args}")));
    assert!(
        ask("-subj /CN=a=b").contains("subject.commonName"),
        "{}",
        ask("-subj /CN=a=b")
    );
    assert!(ask("-subj /O=Acme").contains("no CN"));
    assert!(ask("-subj /CN=a/CN=b").contains("no CN, or several"));
    assert!(ask("-subj /CN=a/emailAddress=a@b.example").contains("has emailAddress"));
    assert!(ask("-subj /CN=a/UID=7").contains("has UID"));
    let many = "/OU=x".repeat(9);
    assert!(ask(&format!("-subj /CN=a{many}")).contains("too many parts"));
    assert!(ask("-subj /CN=a -addext subjectAltName=IP:10.0.0.1").contains("alternative names other than"));
    let names: Vec<_> = (0..51).map(|n| format!("DNS:n{n}.example")).collect();
    assert!(ask(&format!("-subj /CN=a -addext subjectAltName={}", names.join(","))).contains("more than 50"));

    let good = openssl(&format!("{EC} -subj /CN=client1"));
    let damaged = good.replacen("MI", "NI", 1);
    for bad in ["", "hello", &damaged, &format!("{good}{good}")] {
        assert_eq!(read(bad, DAY), Err(CsrError::Unreadable), "{bad}");
    }
    assert_eq!(
        read(&good[..100], DAY),
        Err(CsrError::Pem(ParseError::NoEnd { line: 1 }))
    );
    let (ca, key) = (
        issuer("Partners", at("2026-11-24T12:00:00Z")),
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    );
    assert_eq!(
        read(&ca.chain().ca_pem(), DAY),
        Err(CsrError::Other(Kind::Certificate))
    );
    assert_eq!(
        read(&format!("{good}{key}"), DAY),
        Err(CsrError::Pem(ParseError::PrivateKey))
    );
    // The request has another name under the same signature.
    let mut der = pem::scan(good.as_bytes()).next().unwrap().unwrap().der.to_vec();
    let at = der.windows(7).position(|part| part == b"client1").unwrap();
    der[at + 6] = b'2';
    let forged =
        x509_cert::der::pem::encode_string("CERTIFICATE REQUEST", x509_cert::der::pem::LineEnding::LF, &der)
            .unwrap();
    assert_eq!(read(&forged, DAY), Err(CsrError::Signature));
}

/// DER element with a length of at most two octets.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..128 => vec![tag, length as u8],
        128..256 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

/// Request that holds this subject (the DER of its RDNs) and these attributes (DER).
fn handmade(subject: &[u8], attributes: &[u8]) -> String {
    let key = crate::pki::keys::generate(crate::pki::keys::KeyKind::EcdsaP256).unwrap();
    let info = tlv(
        0x30,
        &[
            vec![2, 1, 0],
            tlv(0x30, subject),
            rcgen::PublicKeyData::subject_public_key_info(&key),
            tlv(0xa0, attributes),
        ]
        .concat(),
    );
    let algorithm = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let signature = rcgen::SigningKey::sign(&key, &info).unwrap();
    let signature = tlv(3, &[&[0], &signature[..]].concat());
    let der = tlv(0x30, &[info, algorithm.to_vec(), signature].concat());
    x509_cert::der::pem::encode_string(
        "NEW CERTIFICATE REQUEST",
        x509_cert::der::pem::LineEnding::CRLF,
        &der,
    )
    .unwrap()
}

/// Attribute of a name: its type by the last octet below 2.5.4, and its value.
fn part(kind: u8, tag: u8, value: &[u8]) -> Vec<u8> {
    tlv(
        0x31,
        &tlv(0x30, &[vec![6, 3, 0x55, 4, kind], tlv(tag, value)].concat()),
    )
}

const STANDARD: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
const MICROSOFT: &[u8] = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e";

/// Attribute with a list of extensions, of these alternative names each (tag and value).
fn asks(kind: &[u8], lists: &[&[(u8, &[u8])]]) -> Vec<u8> {
    let extension = |names: &[(u8, &[u8])]| {
        let names: Vec<u8> = names.iter().flat_map(|(tag, name)| tlv(*tag, name)).collect();
        let value = tlv(4, &tlv(0x30, &names));
        tlv(0x30, &[&b"\x06\x03\x55\x1d\x11"[..], &value].concat())
    };
    let extensions: Vec<u8> = lists.iter().flat_map(|names| extension(names)).collect();
    let set = tlv(0x31, &tlv(0x30, &extensions));
    tlv(0x30, &[kind, &set].concat())
}

#[test]
fn alternative_names_are_read_from_both_attributes_or_refused() {
    /// Version of Windows, which certreq adds: an attribute of another kind.
    const OS_VERSION: &[u8] =
        b"\x30\x1a\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x0d\x02\x03\x31\x0c\x16\x0a10.0.17763";
    const A: (u8, &[u8]) = (0x82, b"a.example");
    const B: (u8, &[u8]) = (0x82, b"b.example");
    let cn = part(3, 0x13, b"client");
    let garbage = |kind: &[u8]| tlv(0x30, &[kind, &tlv(0x31, &[4, 1, 0])].concat());
    type Names = Result<&'static [&'static str], NamesError>;
    let cases: Vec<(&str, Vec<u8>, Names)> = vec![
        (
            "standard",
            asks(STANDARD, &[&[A, B]]),
            Ok(&["a.example", "b.example"]),
        ),
        ("Microsoft's", asks(MICROSOFT, &[&[A]]), Ok(&["a.example"])),
        (
            "after another",
            [OS_VERSION, &asks(MICROSOFT, &[&[A]])].concat(),
            Ok(&["a.example"]),
        ),
        (
            "both alike",
            [asks(STANDARD, &[&[A]]), asks(MICROSOFT, &[&[A]])].concat(),
            Ok(&["a.example"]),
        ),
        (
            "both differ",
            [asks(STANDARD, &[&[A]]), asks(MICROSOFT, &[&[B]])].concat(),
            Err(NamesError::TwoLists),
        ),
        (
            "twice, and differ",
            [asks(STANDARD, &[&[A]]), asks(STANDARD, &[&[B]])].concat(),
            Err(NamesError::TwoLists),
        ),
        (
            "one without names",
            [asks(STANDARD, &[]), asks(MICROSOFT, &[&[A]])].concat(),
            Ok(&["a.example"]),
        ),
        (
            "two extensions",
            asks(STANDARD, &[&[A], &[B]]),
            Ok(&["a.example", "b.example"]),
        ),
        ("none", vec![], Ok(&[])),
        (
            "in Latin-1",
            asks(STANDARD, &[&[(0x82, b"m\xfcller.example")]]),
            Err(NamesError::Unreadable),
        ),
        (
            "in Latin-1, Microsoft's",
            asks(MICROSOFT, &[&[A, (0x82, b"m\xfcller.example")]]),
            Err(NamesError::Unreadable),
        ),
        (
            "an address",
            asks(MICROSOFT, &[&[(0x87, &[10, 0, 0, 1])]]),
            Err(NamesError::Other),
        ),
        (
            "no extensions",
            garbage(MICROSOFT),
            Err(NamesError::Extensions("1.3.6.1.4.1.311.2.1.14".into())),
        ),
    ];
    for (what, attributes, expected) in cases {
        let found = read(&handmade(&cn, &attributes), DAY).map(|csr| csr.request.dns_names);
        assert_eq!(
            found,
            expected
                .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
                .map_err(CsrError::Names),
            "{what}"
        );
    }
    let broken = read(&handmade(&cn, &garbage(STANDARD)), DAY);
    assert!(broken.is_err(), "{broken:?}");
}

#[test]
fn every_string_type_of_a_subject_is_read() {
    let bmp: Vec<u8> = "Müller".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let universal: Vec<u8> = "Müller"
        .chars()
        .flat_map(|c| u32::from(c).to_be_bytes())
        .collect();
    let strings = [
        (0x0c, "Müller".as_bytes()),
        (0x1e, &bmp),
        (0x1c, &universal),
        (0x14, b"M\xfcller"),
        (0x13, b"M\xfcller"),
    ];
    for (tag, value) in strings {
        // CN, L, ST, O and OU.
        let subject = [3, 7, 8, 10, 11].map(|kind| part(kind, tag, value)).concat();
        let request = read(&handmade(&subject, &[]), DAY).unwrap().request;
        let parts = [
            &vec![request.common_name],
            &request.localities,
            &request.provinces,
            &request.organizations,
            &request.organizational_units,
        ];
        for found in parts {
            assert_eq!(found, &["Müller"], "{tag:#x}");
        }
    }
    let country = [part(6, 0x1e, b"\0D\0E"), part(3, 0x13, b"x")].concat();
    assert_eq!(
        read(&handmade(&country, &[]), DAY).unwrap().request.countries,
        ["DE"]
    );
    let problem = |subject: &[u8]| read(&handmade(subject, &[]), DAY).unwrap_err().to_string();
    let of = |value: Vec<u8>| problem(&[value, part(3, 0x13, b"x")].concat());
    assert_eq!(
        of(part(10, 0x1e, b"\xd8\x3d\xdd\x11")),
        "its subject has O in BMPString that is no text: have it written as UTF8String"
    );
    assert_eq!(
        of(part(11, 0x04, b"x")),
        "its subject has OU in type 4 that is no text: have it written as UTF8String"
    );
    // The rules for text hold whatever the type.
    assert!(of(part(10, 0x1e, b"\0A\0=\0B")).contains("subject.organizations[0]: must not contain"));
}
