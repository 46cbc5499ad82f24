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
    keys::{self, Encoding, KeyError, KeyKind, KeyStrength},
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
    #[error("tls.key does not belong to any certificate in tls.crt (the first is {subject})")]
    KeyMismatch { subject: String },
    #[error("the certificate of tls.key, {subject}, is in ca.crt: put it into tls.crt")]
    InChain { subject: String },
    #[error(
        "the certificate of tls.key, {subject}, is not an authority: it needs CA:TRUE and, with keyUsage, keyCertSign"
    )]
    NotAnAuthority { subject: String },
    #[error("tls.key is of a kind that API Gateway does not take: use RSA from 2048 bits, P-256 or P-384")]
    UnsupportedKey,
    #[error(
        "the chain stops at {subject}: add its issuer ({issuer}) to tls.crt or ca.crt, up to the self-signed root"
    )]
    ChainIncomplete { subject: String, issuer: String },
}

impl SigningAuthorityError {
    /// True when the private key is the reason, so that the certificates alone do not show it.
    pub fn is_of_key(&self) -> bool {
        use SigningAuthorityError::{InChain, Key, KeyMismatch};
        matches!(self, Key(_) | KeyMismatch { .. } | InChain { .. })
    }
}

impl SigningAuthority {
    /// Loads an authority from the Secret's `tls.crt` (the authority is the certificate of the key, wherever
    /// it stands), `tls.key` and `ca.crt`.
    pub fn from_pem(
        tls_crt: &(impl AsRef<[u8]> + ?Sized),
        tls_key: &(impl AsRef<[u8]> + ?Sized),
        ca_crt: Option<&[u8]>,
    ) -> Result<SigningAuthority, SigningAuthorityError> {
        let mut pool = parse_pem_bundle(tls_crt).map_err(SigningAuthorityError::Certificate)?;
        let beside = match ca_crt.filter(|text| !pem_text::is_blank(text)) {
            Some(ca_crt) => parse_pem_bundle(ca_crt).map_err(SigningAuthorityError::Chain)?,
            None => Vec::new(),
        };
        let key = keys::parse(tls_key)?;
        let subject = |certificate: &Certificate| certificate.subject.clone();
        let Some(at) = of_key(&pool, &key) else {
            return Err(match of_key(&beside, &key) {
                Some(at) => SigningAuthorityError::InChain {
                    subject: subject(&beside[at]),
                },
                None => SigningAuthorityError::KeyMismatch {
                    subject: subject(&pool[0]),
                },
            });
        };
        let authority = pool.remove(at);
        pool.extend(beside);
        if !may_issue(&authority) {
            return Err(SigningAuthorityError::NotAnAuthority {
                subject: subject(&authority),
            });
        }
        let known = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_RSA_SHA256,
        ];
        if !known.contains(&KeyPair::algorithm(&key)) || authority.key == KeyStrength::Other {
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

/// Returns the place of the key's certificate, of the first authority if it has several. The certificate may
/// have the key in another form, such as with all parameters of its curve.
fn of_key(certificates: &[Certificate], key: &KeyPair) -> Option<usize> {
    let own = key.subject_public_key_info();
    let authority = certificates.iter().position(|c| c.has_key(&own) && may_issue(c));
    authority.or_else(|| certificates.iter().position(|c| c.has_key(&own)))
}

fn may_issue(certificate: &Certificate) -> bool {
    certificate.is_ca && certificate.may_sign
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
pub(crate) mod tests;
