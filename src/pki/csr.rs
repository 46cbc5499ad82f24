//! Certificate signing requests: requests by a requester who keeps the private key, within the limits of a
//! spec. Pure.

use jiff::SignedDuration;
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    x509::X509Name,
};

use super::{
    certificate::{SignatureClass, verifies},
    keys::{KeyStrength, RsaFlaw, rsa_flaw},
    leaf::{LeafRequest, validate, validate_length},
    name,
    pem::{self, Block},
    pem_error::{Kind, ParseError},
    subject::Problem,
};

/// Maximum bytes of a request, in PEM and with the text around it.
pub const MAX_REQUEST: usize = 16 * 1024;
/// Maximum number of values of one subject attribute, as in a spec.
pub const MAX_PARTS: usize = 8;
/// Maximum number of alternative names of one kind, as in a spec.
pub const MAX_NAMES: usize = 50;

/// Request with a good signature that a spec could make as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    pub request: LeafRequest,
    /// DER SubjectPublicKeyInfo of the requester's key.
    pub spki: Vec<u8>,
}

/// Reason why a request cannot be served. Never quotes the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("it has more than {MAX_REQUEST} bytes: leave out extensions, and text around the PEM block")]
    TooLong,
    #[error("it is not one PEM block of a certificate signing request (PKCS #10)")]
    Unreadable,
    #[error("it holds {0} instead of a certificate signing request (PKCS #10)")]
    Other(Kind),
    #[error(transparent)]
    Pem(#[from] ParseError),
    #[error(
        "its signature is not good: it is damaged, or signed in a way other than SHA-256 or stronger with RSA or ECDSA"
    )]
    Signature,
    #[error(
        "its key is too weak or of a kind that API Gateway does not support: use RSA from 2048 to 4096 bits, \
         P-256 or P-384"
    )]
    Key,
    #[error(transparent)]
    Rsa(#[from] RsaFlaw),
    #[error("its subject has {0}, which cannot be certified: use CN, O, OU, C, L and ST, each in text")]
    SubjectPart(String),
    #[error("its subject has {0}: one CN and at most {MAX_PARTS} of each other part are possible")]
    Count(&'static str),
    #[error("it asks for alternative names other than DNS names, URIs and mail addresses: leave them out")]
    OtherNames,
    #[error("it asks for more than {MAX_NAMES} alternative names of one kind")]
    TooManyNames,
    #[error("the request cannot be certified: {0}")]
    Problem(#[from] Problem),
}

/// Parses a request. Takes its subject and alternative names; ignores every other extension (keytool requests
/// a key identifier, other programs request usages).
pub fn read(text: &(impl AsRef<[u8]> + ?Sized), duration: SignedDuration) -> Result<Csr, CsrError> {
    if text.as_ref().len() > MAX_REQUEST {
        return Err(CsrError::TooLong);
    }
    let blocks = pem::scan(text.as_ref()).collect::<Result<Vec<_>, _>>()?;
    match blocks.iter().map(Block::kind).find(|kind| *kind != Kind::Request) {
        Some(Kind::PrivateKey) => return Err(ParseError::PrivateKey.into()),
        Some(kind) => return Err(CsrError::Other(kind)),
        None => {}
    }
    let [block] = blocks.as_slice() else {
        return Err(CsrError::Unreadable);
    };
    let (rest, csr) = X509CertificationRequest::from_der(&block.der).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let (info, spki) = (
        &csr.certification_request_info,
        &csr.certification_request_info.subject_pki,
    );
    match KeyStrength::of(spki) {
        KeyStrength::Rsa(2048..=4096) | KeyStrength::EcdsaP256 | KeyStrength::EcdsaP384 => {}
        _ => return Err(CsrError::Key),
    }
    if let Some(flaw) = rsa_flaw(spki) {
        return Err(flaw.into());
    }
    if SignatureClass::of(&csr.signature_algorithm) != SignatureClass::Sha2
        || !verifies(&csr.signature_algorithm, &csr.signature_value, info.raw, spki)
    {
        return Err(CsrError::Signature);
    }
    let mut request = subject(&info.subject)?;
    request.duration = duration;
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => request.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => request.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(mail) => request.email_addresses.push((*mail).to_owned()),
                _ => return Err(CsrError::OtherNames),
            }
        }
    }
    if [&request.dns_names, &request.uris, &request.email_addresses]
        .iter()
        .any(|names| names.len() > MAX_NAMES)
    {
        return Err(CsrError::TooManyNames);
    }
    validate(&request)?;
    validate_length(&request)?;
    Ok(Csr {
        request,
        spki: spki.raw.to_vec(),
    })
}

/// Sorts the parts of a subject by their kind; the operator chooses their order.
fn subject(name: &X509Name<'_>) -> Result<LeafRequest, CsrError> {
    let mut request = LeafRequest::default();
    let mut common_names = Vec::new();
    for part in name.iter_attributes() {
        let oid = part.attr_type().to_id_string();
        let values = match oid.as_str() {
            "2.5.4.3" => &mut common_names,
            "2.5.4.6" => &mut request.countries,
            "2.5.4.7" => &mut request.localities,
            "2.5.4.8" => &mut request.provinces,
            "2.5.4.10" => &mut request.organizations,
            "2.5.4.11" => &mut request.organizational_units,
            _ => {
                return Err(CsrError::SubjectPart(
                    name::short_name(&oid).unwrap_or(&oid).to_owned(),
                ));
            }
        };
        let value = part
            .as_str()
            .map_err(|_| CsrError::SubjectPart(format!("a value of {oid} that is no text")))?;
        values.push(value.to_owned());
    }
    let lists = [
        &request.countries,
        &request.localities,
        &request.provinces,
        &request.organizations,
        &request.organizational_units,
    ];
    if lists.iter().any(|list| list.len() > MAX_PARTS) {
        return Err(CsrError::Count("too many parts of one kind"));
    }
    let Ok([common_name]) = <[String; 1]>::try_from(common_names) else {
        return Err(CsrError::Count("no CN, or several"));
    };
    Ok(LeafRequest {
        common_name,
        ..request
    })
}

#[cfg(test)]
mod tests {
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
        assert!(
            ask("-subj /CN=a -addext subjectAltName=IP:10.0.0.1").contains("alternative names other than")
        );
        let names: Vec<_> = (0..51).map(|n| format!("DNS:n{n}.example")).collect();
        assert!(
            ask(&format!("-subj /CN=a -addext subjectAltName={}", names.join(","))).contains("more than 50")
        );

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
        let forged = x509_cert::der::pem::encode_string(
            "CERTIFICATE REQUEST",
            x509_cert::der::pem::LineEnding::LF,
            &der,
        )
        .unwrap();
        assert_eq!(read(&forged, DAY), Err(CsrError::Signature));
    }
}
