//! Reads what is there for one `ClientCertificate`: its Secret, the key of its issuer, the password of its keystore, and what the domain
//! lets in. Kubernetes reads only.
use std::sync::Arc;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Client, ResourceExt,
    api::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};
use zeroize::Zeroizing;

use super::{
    desired::Desired,
    issuers::{Issuers, Keyed},
    observed::{Held, Observed, Problem},
};
use crate::{
    api::{AuthorityState, MtlsDomain, SecretKeyRef, conditions::Reason},
    cluster::{self, apply},
    conditions::Standing,
    domain::{
        clients::{CERTIFICATE_LABEL, next_secret},
        desired::{self, AuthorityWish, SourceWish},
        generated,
        served::Trust,
    },
    pki::{authority::Issuer, certificate::parse_pem_bundle, inspect::SecretData, keys::KeyWish, keystore},
};

/// Annotation on a leaf's Secret: how often a leaf was issued into it.
pub const REVISION: &str = "mtls-operator.io/revision";
/// No certificate is issued more often: an annotation that says so is somebody else's, and what it says does not count.
const MOST_REVISIONS: i64 = 1_000_000_000;
/// Annotation on it: the value of the annotation `mtls-operator.io/renew` that was answered last.
pub const RENEWED: &str = "mtls-operator.io/renewed";
/// Key of the PKCS #12 keystore in it, as cert-manager names it.
pub const KEYSTORE: &str = "keystore.p12";

/// What it is seen with.
pub struct Eyes<'a> {
    pub client: &'a Client,
    /// Which Secrets there are, without what is in them.
    pub secrets: &'a Store<PartialObjectMeta<Secret>>,
    pub issuers: &'a Issuers,
}

impl Eyes<'_> {
    /// From the API server itself, but no question is asked about one that the watch knows nothing of: what is new wakes us, and to create
    /// what is there already is refused.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, cluster::Error> {
        match self.version(namespace, name) {
            Some(_) => apply::secret(self.client, namespace, name).await,
            None => Ok(None),
        }
    }

    fn version(&self, namespace: &str, name: &str) -> Option<String> {
        self.secrets.get(&ObjectRef::new(name).within(namespace))?.resource_version()
    }
}

pub async fn observe(
    d: &Desired,
    domain: Option<&MtlsDomain>,
    trust: Option<Trust>,
    last_revision: i64,
    eyes: &Eyes<'_>,
) -> Result<Observed, cluster::Error> {
    let password = match &d.keystore {
        Some(at) => Some(password(d, at, eyes).await?),
        None => None,
    };
    let secret = match eyes.secret(&d.namespace, &d.secret_name).await? {
        Some(found) => Some(held(d, found, password.as_ref().and_then(|p| p.as_ref().ok())).await),
        None => None,
    };
    let issuer = match domain {
        None if secret.is_some() => {
            Err(problem(Reason::DomainGone, format!("the MtlsDomain {} is gone; the Secret is kept", d.domain.1)))
        }
        None => Err(problem(
            Reason::RefNotFound,
            format!("there is no MtlsDomain {} in the namespace {}", d.domain.1, d.domain.0),
        )),
        Some(_) if d.self_signed => Ok(None),
        Some(domain) => issuer(d, domain, trust.as_ref(), eyes).await?.map(Some),
    };
    let next = match d.self_signed {
        true => eyes.secret(&d.namespace, &next_secret(&d.secret_name)).await?,
        false => None,
    };
    let next = match next {
        Some(found) => Some(held(d, found, None).await),
        None => None,
    };
    let trust = trust.filter(|_| domain.is_some());
    Ok(Observed { domain_gone: domain.is_none(), issuer, secret, next, last_revision, password, trust })
}

fn problem(reason: Reason, message: String) -> Problem {
    Problem { standing: Standing::Stuck, reason, message }
}

/// The type of the Secret, which can never change: one without a private key is not a `kubernetes.io/tls`.
pub fn secret_type(key: &KeyWish) -> &'static str {
    match key {
        KeyWish::Made { .. } => "kubernetes.io/tls",
        KeyWish::Requested { .. } => "Opaque",
    }
}

async fn held(d: &Desired, found: Secret, password: Option<&Zeroizing<String>>) -> Held {
    let bytes = |key: &str| found.data.as_ref().and_then(|data| data.get(key)).map(|ByteString(bytes)| bytes.clone());
    let data = SecretData { tls_crt: bytes("tls.crt"), tls_key: bytes("tls.key"), ca_crt: bytes("ca.crt") };
    let keystore_fits = match (bytes(KEYSTORE), password) {
        (Some(keystore), Some(password)) => {
            let (data, password) = (data.clone(), password.clone());
            // Opening one takes as long as its password is hard to guess.
            tokio::task::spawn_blocking(move || fits(&keystore, &data, &password)).await.unwrap_or_default()
        }
        _ => false,
    };
    let annotation = |key: &str| found.annotations().get(key);
    Held {
        data,
        ours: found.labels().get(CERTIFICATE_LABEL) == Some(&d.name)
            && found.type_.as_deref() == Some(secret_type(&d.key)),
        revision: annotation(REVISION).and_then(|text| revision(text)).unwrap_or_default(),
        renewed: annotation(RENEWED).cloned(),
        keystore_fits,
        found,
    }
}

fn revision(text: &str) -> Option<i64> {
    text.parse().ok().filter(|revision| (1..=MOST_REVISIONS).contains(revision))
}

fn fits(keystore: &[u8], data: &SecretData, password: &str) -> bool {
    let (Some(tls_crt), Some(tls_key)) = (&data.tls_crt, &data.tls_key) else { return false };
    parse_pem_bundle(tls_crt).is_ok_and(|chain| keystore::holds(keystore, tls_key, &chain, password))
}

/// Absent and forbidden read the same.
async fn password(
    d: &Desired,
    at: &SecretKeyRef,
    eyes: &Eyes<'_>,
) -> Result<Result<Zeroizing<String>, Problem>, cluster::Error> {
    let found = eyes.secret(&d.namespace, &at.name).await?;
    let bytes = found.and_then(|secret| Some(secret.data?.remove(&at.key)?.0));
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|p| !p.is_empty()).map(Zeroizing::new).ok_or_else(
        || {
            problem(
                Reason::RefNotFound,
                format!(
                    "spec.keystores.pkcs12.passwordSecretRef: there is no Secret {} with a password in its key {}",
                    at.name, at.key
                ),
            )
        },
    ))
}

/// The authority that the spec names, or the domain's issuing one, or the only one that can issue.
async fn issuer(
    d: &Desired,
    domain: &MtlsDomain,
    trust: Option<&Trust>,
    eyes: &Eyes<'_>,
) -> Result<Result<Arc<Issuer>, Problem>, cluster::Error> {
    let wishes = match desired::authorities(domain) {
        Ok(wishes) => wishes,
        Err(refused) => {
            return Ok(Err(problem(refused.reason, format!("MtlsDomain {}: {}", d.domain.1, refused.message))));
        }
    };
    let named = d.authority.as_ref().or(domain.spec.trust.issuing_authority.as_ref());
    if let Some(name) = named {
        let Some(wish) = wishes.iter().find(|w| w.name == *name) else {
            return Ok(Err(problem(
                Reason::AuthorityNotFound,
                format!("MtlsDomain {} has no authority {name}", d.domain.1),
            )));
        };
        return own_key_of(wish, d, domain, trust, eyes).await;
    }
    let mut able = Vec::new();
    for wish in wishes.iter().filter(|w| w.issues()) {
        able.push((&wish.name, own_key_of(wish, d, domain, trust, eyes).await?));
    }
    let names: Vec<_> = able.iter().filter(|(_, issuer)| issuer.is_ok()).map(|(name, _)| name.as_str()).collect();
    if names.len() > 1 {
        return Ok(Err(problem(
            Reason::AuthorityNotFound,
            format!(
                "several authorities could issue ({}): set spec.trust.issuingAuthority of MtlsDomain {}, or spec.authority here",
                names.join(", "),
                d.domain.1
            ),
        )));
    }
    // The one that can, or else why the only one cannot.
    let only = able.iter().position(|(_, issuer)| issuer.is_ok()).or((able.len() == 1).then_some(0));
    Ok(match only {
        Some(only) => able.swap_remove(only).1,
        None => Err(problem(
            Reason::AuthorityNotFound,
            format!("MtlsDomain {} has no authority with a key to issue with", d.domain.1),
        )),
    })
}

/// As [`key_of`], and none that somebody else put in the place of a generated authority's. Why, the domain's condition says: the cache may
/// only be late, so that this is a reason to wait.
async fn own_key_of(
    wish: &AuthorityWish,
    d: &Desired,
    domain: &MtlsDomain,
    trust: Option<&Trust>,
    eyes: &Eyes<'_>,
) -> Result<Result<Arc<Issuer>, Problem>, cluster::Error> {
    let Keyed { issuer, labels } = match key_of(wish, d, eyes).await? {
        Ok(keyed) => keyed,
        Err(problem) => return Ok(Err(problem)),
    };
    let SourceWish::Generated { request, .. } = &wish.source else { return Ok(Ok(issuer)) };
    let record = domain.annotations().get(&generated::annotation(&wish.name));
    let trusted = trust.into_iter().flat_map(Trust::entries);
    let owned = generated::is_labelled(&labels, &d.domain.1, &wish.name)
        .and_then(|()| generated::is_ours(issuer.chain(), &wish.name, request, record, trusted));
    Ok(owned.map(|()| issuer).map_err(|_| Problem {
        standing: Standing::Working,
        reason: Reason::WaitingForAuthority,
        message: format!(
            "the authority {} has no key that the operator made yet; ResolvedRefs of MtlsDomain {} says why, if it stays so",
            wish.name, d.domain.1
        ),
    }))
}

async fn key_of(wish: &AuthorityWish, d: &Desired, eyes: &Eyes<'_>) -> Result<Result<Keyed, Problem>, cluster::Error> {
    let (name, domain) = (&wish.name, &d.domain.1);
    if wish.state == AuthorityState::Distrusted {
        return Ok(Err(problem(
            Reason::AuthorityNotFound,
            format!("the authority {name} of MtlsDomain {domain} is Distrusted"),
        )));
    }
    let Some(secret) = wish.source.secret().filter(|_| wish.issues()) else {
        return Ok(Err(problem(
            Reason::AuthorityNotFound,
            format!("the authority {name} of MtlsDomain {domain} has no key to issue with"),
        )));
    };
    let at = (d.domain.0.as_str(), secret.as_str());
    if let Some(keyed) = eyes.issuers.get(at, eyes.version(at.0, at.1).as_deref()) {
        return Ok(Ok(keyed));
    }
    let Some(found) = apply::secret(eyes.client, at.0, at.1).await? else {
        let message = format!("the key of the authority {name} is not there yet");
        return Ok(Err(Problem { standing: Standing::Working, reason: Reason::WaitingForAuthority, message }));
    };
    let data = |key: &str| found.data.as_ref().and_then(|data| data.get(key)).map(|ByteString(bytes)| bytes.as_slice());
    let (Some(crt), Some(key)) = (data("tls.crt"), data("tls.key")) else {
        return Ok(Err(problem(
            Reason::AuthorityNotFound,
            format!("the authority {name} of MtlsDomain {domain} has no key to issue with"),
        )));
    };
    match Issuer::from_pem(crt, key, data("ca.crt")).map(Arc::new) {
        Ok(issuer) => {
            let keyed = Keyed { issuer, labels: found.labels().clone() };
            eyes.issuers.put(at, found.resource_version(), keyed.clone());
            Ok(Ok(keyed))
        }
        Err(error) => Ok(Err(problem(
            Reason::InvalidCACertificateRef,
            format!("the authority {name} of MtlsDomain {domain} cannot issue: {error}"),
        ))),
    }
}
