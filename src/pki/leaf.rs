//! Client certificates: validation of a request, and issuing. Pure but for the serial's random octets.

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

use super::{
    authority::{AuthorityChain, CLOCK_SLACK, SigningAuthority, earlier, key_id, later},
    certificate::Certificate,
    constraints::{self, Violation},
    name::normal_form,
    signing::{Draft, Subject, sign},
    subject::{Problem, subject_part},
};

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
    pub(crate) fn end(&self, from: Timestamp, issuer: Option<&AuthorityChain>) -> Timestamp {
        let caps = [issuer.map(AuthorityChain::not_after), self.not_after];
        caps.into_iter()
            .flatten()
            .fold(later(from, self.duration), Timestamp::min)
    }
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
            "must be a DNS name in ASCII, internationalized in Punycode (xn--mller-kva.example), with at \
             most a leading *. as wildcard",
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

/// Maximum bytes of a certificate's alternative names together.
pub const MAX_NAMES_BYTES: usize = 8192;

/// Checks the length of the alternative names together. Apart from [`validate`], because certificates of
/// earlier releases may have longer ones.
pub fn validate_length(request: &LeafRequest) -> Result<(), Problem> {
    let lists = [
        ("dnsNames", &request.dns_names),
        ("uris", &request.uris),
        ("emailAddresses", &request.email_addresses),
    ];
    let lengths = lists.map(|(field, names)| (names.iter().map(String::len).sum::<usize>(), field));
    let (_, longest) = lengths.into_iter().max().expect("there are three lists");
    if lengths.iter().map(|(length, _)| length).sum::<usize>() <= MAX_NAMES_BYTES {
        return Ok(());
    }
    Err(Problem {
        field: longest.to_owned(),
        message: "the DNS names, URIs and mail addresses have more than 8192 bytes together: leave some out",
    })
}

/// Field, its values, the check of a value, and the message for an invalid value.
type List<'a> = (&'static str, &'a [String], fn(&str) -> bool, &'static str);

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
    issuer: &SigningAuthority,
    now: Timestamp,
) -> Result<Leaf, IssueError> {
    validate(request)?;
    let chain = issuer.chain();
    let authority = chain.authority();
    let subject = || authority.subject.clone();
    if now >= chain.not_after() {
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
        not_after: request.end(now, Some(chain)),
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
    if let Some(violation) = constraints::of_leaf(&certificate, chain.certificates()) {
        return Err(violation.into());
    }
    let chain_pem = std::iter::once(&certificate)
        .chain(chain.intermediates())
        .map(Certificate::to_pem)
        .collect();
    Ok(Leaf {
        chain_pem,
        ca_pem: chain.ca_pem(),
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

pub(crate) fn key_id_of(spki: &[u8]) -> Result<Vec<u8>, builder::Error> {
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
pub(crate) fn usage() -> KeyUsage {
    KeyUsage(KeyUsages::DigitalSignature.into())
}

/// Returns the extensions of a leaf, in their order.
pub(crate) fn extensions(
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
pub(crate) mod tests;
