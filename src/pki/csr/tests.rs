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
