//! Client certificates: validation of a request, and issuing. Pure but for the serial's random octets.

use super::authority::{CLOCK_SLACK, Issuer, earlier, key_id, later};
use super::certificate::Certificate;
use super::constraints::{self, Violation};
use super::name::normal_form;
use super::signing::{Draft, Subject, sign};
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData};
use x509_cert::{
    builder,
    der::{
        asn1::{Ia5String, OctetString},
        oid::db::rfc5280::ID_KP_CLIENT_AUTH,
    },
    ext::{
        Extension, ToExtension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
            name::GeneralName,
        },
    },
    name::Name,
};
use x509_parser::{prelude::FromDer, x509::X509Name};

/// Content of a client certificate; from `spec` of a ClientCertificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub organizational_units: Vec<String>,
    pub countries: Vec<String>,
    pub localities: Vec<String>,
    pub provinces: Vec<String>,
    /// Serial number in the subject: tells the subjects of one caller's self-signed certificates apart.
    /// Digits only; never from the spec. `None`: the subject has none.
    pub serial_number: Option<String>,
    pub dns_names: Vec<String>,
    pub uris: Vec<String>,
    pub email_addresses: Vec<String>,
    pub duration: SignedDuration,
    /// Latest end of the certificate, which bounds any duration; never from the spec.
    pub not_after: Option<Timestamp>,
}

impl LeafRequest {
    /// Returns the end of a certificate that begins at `from`, under an issuer or without one.
    pub(crate) fn end(&self, from: Timestamp, issuer: Option<&Issuer>) -> Timestamp {
        let caps = [issuer.map(Issuer::not_after), self.not_after];
        caps.into_iter()
            .flatten()
            .fold(later(from, self.duration), Timestamp::min)
    }
}

/// Field that cannot be put into a certificate, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// Path of the field in the spec: `subject.organizations[1]`.
    pub field: String,
    pub message: &'static str,
}

/// Issued client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Leaf first, then the intermediates, without the root: the Secret's `tls.crt`.
    pub chain_pem: String,
    /// Chain of the issuer: the Secret's `ca.crt`.
    pub ca_pem: String,
    pub certificate: Certificate,
}

/// Reason why a client certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error("the authority {subject} has expired, or a certificate of its chain has")]
    IssuerExpired { subject: String },
    #[error("the authority {subject} is not valid yet")]
    IssuerNotYetValid { subject: String },
    #[error("the authority's subject ({subject}) cannot be written as an issuer byte for byte")]
    IssuerName { subject: String },
    #[error(
        "API Gateway would accept no caller with it: {0}; change the request, or give the domain an \
         authority without that constraint"
    )]
    Constrained(#[from] Violation),
    #[error("the certificate could not be written")]
    Write(#[from] builder::Error),
}

/// Checks a request: lengths by RFC 5280 (appendix A, upper bounds); no `=`, `,` or control characters in the
/// subject, so that no subject misleads a back end that splits the subject string.
pub fn validate(request: &LeafRequest) -> Result<(), Problem> {
    subject_part("subject.commonName", &request.common_name, 64)?;
    let parts: [(&str, &[String], usize); 4] = [
        ("organizations", &request.organizations, 64),
        ("organizationalUnits", &request.organizational_units, 64),
        ("localities", &request.localities, 128),
        ("provinces", &request.provinces, 128),
    ];
    for (list, values, longest) in parts {
        for (at, value) in values.iter().enumerate() {
            subject_part(&format!("subject.{list}[{at}]"), value, longest)?;
        }
    }
    let lists: [List<'_>; 4] = [
        (
            "subject.countries",
            &request.countries,
            is_country,
            "must be two capital letters (ISO 3166)",
        ),
        (
            "dnsNames",
            &request.dns_names,
            is_dns_name,
            "must be a DNS name, with at most a leading *. as wildcard",
        ),
        (
            "uris",
            &request.uris,
            is_uri,
            "must be a URI with a scheme, in printable ASCII without spaces (RFC 3986)",
        ),
        (
            "emailAddresses",
            &request.email_addresses,
            is_email,
            "must be an e-mail address (local part@DNS name, ASCII)",
        ),
    ];
    for (list, values, fits, message) in lists {
        if let Some(at) = values.iter().position(|value| !fits(value)) {
            return Err(Problem {
                field: format!("{list}[{at}]"),
                message,
            });
        }
    }
    if request.duration <= SignedDuration::ZERO {
        return Err(Problem {
            field: "duration".to_owned(),
            message: "must be positive",
        });
    }
    Ok(())
}

/// Field, its values, the check of a value, and the message for an invalid value.
type List<'a> = (&'static str, &'a [String], fn(&str) -> bool, &'static str);

pub(crate) fn subject_part(field: &str, value: &str, longest: usize) -> Result<(), Problem> {
    let message = if value.is_empty() {
        "must not be empty"
    } else if value.chars().count() > longest {
        if longest == 64 {
            "must have at most 64 characters"
        } else {
            "must have at most 128 characters"
        }
    } else if value.contains(['=', ',']) {
        "must not contain = or , (they separate the parts of a subject string)"
    } else if value
        .chars()
        .any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}')
    {
        "must not contain line breaks or control characters"
    } else if value.trim() != value {
        "must not begin or end with a space"
    } else {
        return Ok(());
    };
    Err(Problem {
        field: field.to_owned(),
        message,
    })
}

fn is_country(value: &str) -> bool {
    value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn is_dns_name(value: &str) -> bool {
    let name = value.strip_prefix("*.").unwrap_or(value);
    let label = |label: &str| {
        let inner = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    value.len() <= 253 && name.split('.').all(label)
}

fn is_uri(value: &str) -> bool {
    let Some((scheme, rest)) = value.split_once(':') else {
        return false;
    };
    let scheme_char = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(scheme_char)
        && !rest.is_empty()
        && value.len() <= 2048
        && rest.bytes().all(|byte| {
            byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'{'..=b'}' | b'\\' | b'^' | b'`')
        })
}

fn is_email(value: &str) -> bool {
    let Some((local, domain)) = value.rsplit_once('@') else {
        return false;
    };
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
    (1..=64).contains(&local.len())
        && local.bytes().all(atom)
        && !domain.starts_with('*')
        && is_dns_name(domain)
}

/// Issues a client certificate for a key (DER SubjectPublicKeyInfo): EKU clientAuth only, CA:FALSE. Valid
/// from a quarter of an hour ago (not before its issuer) for `duration` from now, but never longer than its
/// issuer's chain.
pub fn issue(
    request: &LeafRequest,
    spki: &[u8],
    issuer: &Issuer,
    now: Timestamp,
) -> Result<Leaf, IssueError> {
    validate(request)?;
    let authority = issuer.authority();
    let subject = || authority.subject.clone();
    if now >= issuer.not_after() {
        return Err(IssueError::IssuerExpired { subject: subject() });
    }
    if now < authority.not_before {
        return Err(IssueError::IssuerNotYetValid { subject: subject() });
    }
    let issuer_key_id = match &authority.subject_key_id {
        Some(id) => id.clone(),
        None => key_id_of(authority.spki_der())?,
    };
    let draft = Draft {
        issuer: authority.subject_der.clone(),
        subject: subject_der(request)?,
        not_before: earlier(now, CLOCK_SLACK).max(authority.not_before),
        not_after: request.end(now, Some(issuer)),
        extensions: extensions(request, spki, issuer_key_id, usage())?,
        spki: spki.to_vec(),
    };
    let der = sign(draft, issuer.key())?;
    let certificate = Certificate::from_der(&der).expect("x509-cert writes what x509-parser reads");
    // x509-cert sorts the values of a multi-valued RDN. An authority with unsorted values would get leaves
    // that do not chain.
    if certificate.issuer_der != authority.subject_der || !certificate.is_issued_by(authority) {
        return Err(IssueError::IssuerName { subject: subject() });
    }
    if let Some(violation) = constraints::of_leaf(&certificate, issuer.chain()) {
        return Err(violation.into());
    }
    let chain_pem = std::iter::once(&certificate)
        .chain(issuer.intermediates())
        .map(Certificate::to_pem)
        .collect();
    Ok(Leaf {
        chain_pem,
        ca_pem: issuer.ca_pem(),
        certificate,
    })
}

/// Issues a client certificate as [`issue`] does, but signed with its own key: a truststore has to hold the
/// certificate itself.
pub fn self_sign(request: &LeafRequest, key: &KeyPair, now: Timestamp) -> Result<Leaf, IssueError> {
    validate(request)?;
    let (spki, subject) = (key.subject_public_key_info(), subject_der(request)?);
    let draft = Draft {
        issuer: subject.clone(),
        subject,
        not_before: earlier(now, CLOCK_SLACK),
        not_after: request.end(now, None),
        extensions: extensions(request, &spki, key_id_of(&spki)?, usage())?,
        spki,
    };
    let der = sign(draft, key)?;
    let certificate = Certificate::from_der(&der).expect("x509-cert writes what x509-parser reads");
    Ok(Leaf {
        chain_pem: certificate.to_pem(),
        ca_pem: certificate.to_pem(),
        certificate,
    })
}

pub(super) fn key_id_of(spki: &[u8]) -> Result<Vec<u8>, builder::Error> {
    Ok(key_id(spki)?.0.as_bytes().to_vec())
}

/// Encodes the subject as [`issue`] writes it.
pub(crate) fn subject_der(request: &LeafRequest) -> Result<Vec<u8>, builder::Error> {
    let subject = Subject {
        countries: &request.countries,
        provinces: &request.provinces,
        localities: &request.localities,
        organizations: &request.organizations,
        organizational_units: &request.organizational_units,
        serial_number: request.serial_number.as_deref(),
        common_name: &request.common_name,
    };
    Ok(subject.to_der()?)
}

/// Returns the normal form of the request's subject, equal to [`Certificate::subject_key`].
pub fn subject_key(request: &LeafRequest) -> Option<String> {
    let der = subject_der(request).ok()?;
    let (_, name) = X509Name::from_der(&der).ok()?;
    Some(normal_form(&name))
}

/// Usages that go with clientAuth, for RSA too (RFC 5280, section 4.2.1.12).
pub(super) fn usage() -> KeyUsage {
    KeyUsage(KeyUsages::DigitalSignature.into())
}

/// Returns the extensions of a leaf, in their order.
pub(super) fn extensions(
    request: &LeafRequest,
    spki: &[u8],
    issuer_key_id: Vec<u8>,
    usage: KeyUsage,
) -> builder::Result<Vec<Extension>> {
    let authority_key_id = AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(issuer_key_id)?),
        ..Default::default()
    };
    let none = Name::default();
    let mut extensions = vec![
        BasicConstraints {
            ca: false,
            path_len_constraint: None,
        }
        .to_extension(&none, &[])?,
        usage.to_extension(&none, &[])?,
        ExtendedKeyUsage(vec![ID_KP_CLIENT_AUTH]).to_extension(&none, &[])?,
        key_id(spki)?.to_extension(&none, &[])?,
        authority_key_id.to_extension(&none, &[])?,
    ];
    let mut names = Vec::new();
    for name in &request.dns_names {
        names.push(GeneralName::DnsName(Ia5String::new(name)?));
    }
    for uri in &request.uris {
        names.push(GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?));
    }
    for address in &request.email_addresses {
        names.push(GeneralName::Rfc822Name(Ia5String::new(address)?));
    }
    if !names.is_empty() {
        // The extension is not critical: the subject is never empty.
        extensions.push(SubjectAltName(names).to_extension(&Name::default(), &[])?);
    }
    Ok(extensions)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::authority::{self, tests::at, tests::issuer};
    use super::super::certificate::parse_pem_bundle;
    use super::super::keys::{self, KeyKind};
    use super::*;
    use std::process::Command;

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
            let verdict = openssl_verify(&issuer.ca_pem(), &leaf.chain_pem, now);
            assert!(verdict.trim_end().ends_with(": OK"), "{verdict}");
            let late = openssl_verify(
                &issuer.ca_pem(),
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
        assert_eq!(c.issuer_der, ca.authority().subject_der);
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
        let ca = Issuer::from_pem(&made.certificate_pem, &made.key_pem, None).unwrap();
        let soon = issue(&request("x"), &key, &ca, born - SignedDuration::from_mins(4))
            .unwrap()
            .certificate;
        assert_eq!(
            (soon.not_before, soon.not_after),
            (ca.authority().not_before, ca.authority().not_after)
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
            let ca = Issuer::from_pem(&made_by.certificate_pem, &made_by.key_pem, None).unwrap();
            // The other operator has another clock.
            for now in [right - off, right, right + off] {
                // A difference of twenty minutes is more than either clock is wrong.
                if made.duration_since(now) > off {
                    continue;
                }
                let leaf = issue(&request("x"), &key, &ca, now).unwrap().certificate;
                for certificate in [&leaf, ca.authority()] {
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
        let incomplete = Issuer::from_pem(&read("ca.pem"), &read("ca.key"), None)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            incomplete.contains("the chain stops at CN=Issuing"),
            "{incomplete}"
        );
        let ca = Issuer::from_pem(
            &read("ca.pem"),
            &read("ca.key"),
            Some(read("root.pem").as_bytes()),
        )
        .unwrap();
        assert_eq!(ca.chain().len(), 2);
        let now = ca.authority().not_before + SignedDuration::from_hours(1);
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
}
