//! Certificate authorities: generation of a self-signed one, and loading of one that can issue.

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm};
use x509_cert::{
    builder,
    ext::{
        Extension, ToExtension,
        pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier},
    },
    name::Name,
    spki::SubjectPublicKeyInfoRef,
};
use x509_parser::{
    certificate::X509Certificate,
    prelude::FromDer,
    public_key::PublicKey,
    x509::{SubjectPublicKeyInfo, X509Name},
};
use zeroize::Zeroizing;

use super::{
    certificate::Certificate,
    chain::chain,
    keys::{self, Encoding, KeyError, KeyKind},
    name::normal_form,
    pem_certificates::parse_pem_bundle,
    pem_error::ParseError,
    pem_text,
    signing::{Draft, Subject, sign},
    subject::{Problem, subject_part},
};

/// Time by which a new certificate's validity begins before its creation, for callers whose clock is behind,
/// or for an operator whose clock is ahead.
pub const CLOCK_SLACK: SignedDuration = SignedDuration::from_mins(15);

/// Request for a generated authority; `spec.trust.authorities[].generate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub duration: SignedDuration,
    pub key: KeyKind,
}

/// Certificate and its private key (PKCS#8), for a `kubernetes.io/tls` Secret.
pub struct KeyedCertificate {
    pub certificate: Certificate,
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
}

/// Reason why an authority could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error("the authority's key could not be made")]
    Key(#[from] KeyError),
    #[error("the authority's certificate could not be written")]
    Write(#[from] builder::Error),
}

/// Generates a self-signed authority for leaves only: CA:TRUE with path length 0, keyCertSign and cRLSign. An
/// RSA key takes up to 1.6 s of CPU: call this from a thread of `runtime::workers`.
pub fn generate(request: &AuthorityRequest, now: Timestamp) -> Result<KeyedCertificate, GenerateError> {
    subject_part("commonName", &request.common_name, 64)?;
    for (at, organization) in request.organizations.iter().enumerate() {
        subject_part(&format!("organizations[{at}]"), organization, 64)?;
    }
    let key = keys::generate(request.key)?;
    let subject = Subject {
        common_name: &request.common_name,
        organizations: &request.organizations,
        ..Subject::default()
    }
    .to_der()
    .map_err(builder::Error::from)?;
    let spki = key.subject_public_key_info();
    let draft = Draft {
        issuer: subject.clone(),
        subject,
        not_before: earlier(now, CLOCK_SLACK),
        not_after: later(now, request.duration),
        extensions: extensions(&spki)?,
        spki,
    };
    let der = sign(draft, &key)?;
    let certificate = Certificate::from_der(&der).expect("x509-cert writes what x509-parser reads");
    let (certificate_pem, key_pem) = (certificate.to_pem(), keys::pem(&key, Encoding::Pkcs8)?);
    Ok(KeyedCertificate {
        certificate,
        certificate_pem,
        key_pem,
    })
}

/// Returns `Ok` when a certificate is an authority as requested, else the difference. Does not check its key.
pub fn is_as_asked(certificate: &Certificate, request: &AuthorityRequest) -> Result<(), &'static str> {
    let subject = Subject {
        common_name: &request.common_name,
        organizations: &request.organizations,
        ..Subject::default()
    };
    let asked = subject
        .to_der()
        .ok()
        .and_then(|der| Some(normal_form(&X509Name::from_der(&der).ok()?.1)));
    if asked.as_ref() != Some(&certificate.subject_key) {
        return Err("its subject is not the one that `generate` asks for");
    }
    if !certificate.self_signed {
        return Err("it is not self-signed");
    }
    let x509 = X509Certificate::from_der(certificate.der()).map(|(_, x509)| x509);
    let constraints = x509
        .as_ref()
        .ok()
        .and_then(|x509| x509.basic_constraints().ok().flatten());
    let is_leaf_only = constraints.is_some_and(|c| c.value.ca && c.value.path_len_constraint == Some(0));
    if !is_leaf_only || !certificate.may_sign {
        return Err("it is no authority for client certificates only (CA:TRUE with path length 0)");
    }
    Ok(())
}

fn extensions(spki: &[u8]) -> builder::Result<Vec<Extension>> {
    let none = Name::default();
    Ok(vec![
        BasicConstraints {
            ca: true,
            path_len_constraint: Some(0),
        }
        .to_extension(&none, &[])?,
        KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign).to_extension(&none, &[])?,
        key_id(spki)?.to_extension(&none, &[])?,
    ])
}

/// Subject key identifier: SHA-1 of the key (RFC 5280, section 4.2.1.2, method 1), as most authorities
/// compute it.
pub(crate) fn key_id(spki: &[u8]) -> builder::Result<SubjectKeyIdentifier> {
    Ok(SubjectKeyIdentifier::try_from(
        SubjectPublicKeyInfoRef::try_from(spki)?,
    )?)
}

pub(crate) fn earlier(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

pub(crate) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Certificate of an authority that issues, and its chain up to the root. The private key may be elsewhere.
#[derive(Debug, PartialEq)]
pub struct AuthorityChain(Vec<Certificate>);

/// Authority that signs with a private key in memory.
pub struct SigningAuthority {
    key: KeyPair,
    chain: AuthorityChain,
}

/// Reason why a Secret cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum SigningAuthorityError {
    #[error("tls.crt: {0}")]
    Certificate(ParseError),
    #[error("ca.crt: {0}")]
    Chain(ParseError),
    #[error("tls.key: {0}")]
    Key(#[from] KeyError),
    #[error("tls.key is not the key of the first certificate in tls.crt ({subject})")]
    KeyMismatch { subject: String },
    #[error(
        "the first certificate in tls.crt ({subject}) is not an authority: it needs CA:TRUE and, with keyUsage, keyCertSign"
    )]
    NotAnAuthority { subject: String },
    #[error("tls.key is of a kind that API Gateway does not take: use RSA from 2048 bits, P-256 or P-384")]
    UnsupportedKey,
    #[error(
        "the chain stops at {subject}: add its issuer ({issuer}) to tls.crt or ca.crt, up to the self-signed root"
    )]
    ChainIncomplete { subject: String, issuer: String },
}

impl SigningAuthority {
    /// Loads an authority from the Secret's `tls.crt` (its first certificate is the authority), `tls.key` and
    /// `ca.crt`.
    pub fn from_pem(
        tls_crt: &(impl AsRef<[u8]> + ?Sized),
        tls_key: &(impl AsRef<[u8]> + ?Sized),
        ca_crt: Option<&[u8]>,
    ) -> Result<SigningAuthority, SigningAuthorityError> {
        let mut pool = parse_pem_bundle(tls_crt).map_err(SigningAuthorityError::Certificate)?;
        let authority = pool.remove(0);
        if let Some(ca_crt) = ca_crt.filter(|text| !pem_text::is_blank(text)) {
            pool.extend(parse_pem_bundle(ca_crt).map_err(SigningAuthorityError::Chain)?);
        }
        let key = keys::parse(tls_key)?;
        let subject = || authority.subject.clone();
        if key.subject_public_key_info() != authority.spki_der() {
            return Err(SigningAuthorityError::KeyMismatch { subject: subject() });
        }
        if !authority.is_ca || !authority.may_sign {
            return Err(SigningAuthorityError::NotAnAuthority { subject: subject() });
        }
        let algorithm = KeyPair::algorithm(&key);
        let known = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_RSA_SHA256,
        ];
        if !known.contains(&algorithm) {
            return Err(SigningAuthorityError::UnsupportedKey);
        }
        let chain = chain(&authority, &pool).map_err(|chain| {
            let last = &chain[chain.len() - 1];
            SigningAuthorityError::ChainIncomplete {
                subject: last.subject.clone(),
                issuer: last.issuer.clone(),
            }
        })?;
        Ok(SigningAuthority {
            key,
            chain: AuthorityChain(chain),
        })
    }

    pub fn chain(&self) -> &AuthorityChain {
        &self.chain
    }

    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }
}

impl AuthorityChain {
    /// Returns the issuing certificate.
    pub fn authority(&self) -> &Certificate {
        &self.0[0]
    }

    /// Returns the certificates of the chain: the issuing certificate first, up to and including the root.
    pub fn certificates(&self) -> &[Certificate] {
        &self.0
    }

    /// Returns the certificates that go with a leaf: the issuing certificate up to, but not including, the
    /// root.
    pub fn intermediates(&self) -> &[Certificate] {
        &self.0[..self.0.len() - 1]
    }

    /// Returns the Secret's `ca.crt` beside a leaf: the whole chain, issuing certificate first.
    pub fn ca_pem(&self) -> String {
        self.0.iter().map(Certificate::to_pem).collect()
    }

    /// Returns the last moment at which the whole chain is valid; no leaf outlives it.
    pub fn not_after(&self) -> Timestamp {
        self.0
            .iter()
            .map(|certificate| certificate.not_after)
            .min()
            .expect("a chain has one certificate at least")
    }

    /// Returns the algorithm of the authority's signatures; `None` for a kind of key that API Gateway does
    /// not take.
    pub(crate) fn signature(&self) -> Option<&'static SignatureAlgorithm> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(self.authority().spki_der()).ok()?;
        match (KeyKind::of_der(self.authority().spki_der()), spki.parsed()) {
            (Some(kind), _) => Some(kind.signature()),
            (None, Ok(PublicKey::RSA(_))) => Some(&rcgen::PKCS_RSA_SHA256),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
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
        assert!(load(&a.certificate_pem, &b.key_pem, None).contains("not the key"));
        assert!(load("", &b.key_pem, None).starts_with("tls.crt: it holds no certificate"));
        assert!(load(&a.certificate_pem, "", None).starts_with("tls.key: there is no PEM block"));
        assert!(load(&a.certificate_pem, &a.key_pem, Some("x")).starts_with("ca.crt: it is not PEM"));
        let chained = format!("{}{}", a.certificate_pem, &*a.key_pem);
        assert!(load(&chained, &a.key_pem, None).contains("private key"));
    }
}
