//! Observation of one `ClientCertificate`: its Secret, the key of its issuer, the password of its keystore,
//! and the domain's trust. Reads Kubernetes only.

use std::sync::Arc;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Client, ResourceExt, api::PartialObjectMeta, runtime::reflector::Store};
use zeroize::Zeroizing;

use super::{
    desired::Desired,
    issuer::Issuer,
    leaf_secret::held,
    observed::{Observed, Password, Past, Problem},
    signing_key_cache::{Keyed, SigningKeyCache},
};

use crate::{
    api::{AuthorityState, MtlsDomain, SecretKeyRef, conditions::Reason, object_id::ObjectId},
    model::authorities::{self, DesiredAuthority, DesiredSource},
    pki::authority::SigningAuthority,
    runtime::{self, apply},
    status::StepStatus,
    trust::{active_trust::Trust, generated_authority, self_signed::next_secret},
};

/// Label, with the value `true`, on a Secret whose values ClientCertificates may use as passwords of
/// keystores.
pub const KEYSTORE_PASSWORD: &str = "mtls-operator.io/keystore-password";

/// Context of the observation.
pub struct ObserveContext<'a> {
    pub client: &'a Client,
    /// Metadata of all Secrets, without their data.
    pub secrets: &'a Store<PartialObjectMeta<Secret>>,
    pub signing_keys: &'a SigningKeyCache,
}

impl ObserveContext<'_> {
    /// Returns a Secret from the API server itself. Sends no request for a Secret that the watch does not
    /// know: a new Secret causes a reconcile, and the API server rejects the creation of an existing Secret.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, runtime::Error> {
        match self.version(namespace, name) {
            Some(_) => apply::secret(self.client, namespace, name).await,
            None => Ok(None),
        }
    }

    fn version(&self, namespace: &str, name: &str) -> Option<String> {
        self.secrets
            .get(&ObjectId::new(namespace, name).to_ref())?
            .resource_version()
    }
}

pub async fn observe(
    d: &Desired,
    domain: Option<&MtlsDomain>,
    trust: Option<Trust>,
    past: Past,
    observe_context: &ObserveContext<'_>,
) -> Result<Observed, runtime::Error> {
    let password = match &d.keystore {
        Some(at) => Some(password(d, at, observe_context).await?),
        None => None,
    };
    let usable = password.as_ref().and_then(|p| p.as_ref().ok());
    let secret = observe_context.secret(&d.namespace, &d.secret_name).await?;
    let secret = secret.map(|found| held(d, found, usable));
    let issuer = match domain {
        None => Err(no_domain(d, secret.is_some())),
        Some(_) if d.self_signed => Ok(None),
        Some(domain) => issuer(d, domain, trust.as_ref(), observe_context)
            .await?
            .map(Some),
    };
    let is_staged = match &issuer {
        Ok(Some(issuer)) => issuer.may_be_pending(),
        _ => d.self_signed,
    };
    let next = match is_staged {
        true => {
            observe_context
                .secret(&d.namespace, &next_secret(&d.secret_name))
                .await?
        }
        false => None,
    };
    let next = next.map(|found| held(d, found, None));
    let trust = trust.filter(|_| domain.is_some());
    Ok(Observed {
        domain_gone: domain.is_none(),
        issuer,
        secret,
        next,
        past,
        password,
        trust,
    })
}

/// Problem of a certificate without its domain. `is_issued`: a Secret of its name exists.
fn no_domain(d: &Desired, is_issued: bool) -> Problem {
    let ObjectId { namespace, name } = &d.domain;
    match is_issued {
        true => problem(
            Reason::DomainGone,
            format!("the MtlsDomain {name} no longer exists; the Secret stays"),
        ),
        false => problem(
            Reason::RefNotFound,
            format!("there is no MtlsDomain {name} in the namespace {namespace}"),
        ),
    }
}

fn problem(reason: Reason, message: String) -> Problem {
    Problem {
        status: StepStatus::Blocked,
        reason,
        message,
    }
}

/// Reads the password.
async fn password(
    d: &Desired,
    at: &SecretKeyRef,
    observe_context: &ObserveContext<'_>,
) -> Result<Result<Password, Problem>, runtime::Error> {
    Ok(password_in(
        observe_context.secret(&d.namespace, &at.name).await?,
        at,
    ))
}

/// Returns the password in a Secret with the label. A Secret that is absent, has no label or has no password
/// gives the same problem: an author of certificates must not learn from it what other Secrets there
/// are.
fn password_in(found: Option<Secret>, at: &SecretKeyRef) -> Result<Password, Problem> {
    let labelled = found.filter(|secret| {
        let label = secret.labels().get(KEYSTORE_PASSWORD);
        label.is_some_and(|value| value == "true")
    });
    let unusable = |what: &str| {
        Err(problem(
            Reason::InvalidSpec,
            format!("spec.keystores.pkcs12.passwordSecretRef: the password {what}: choose another one"),
        ))
    };
    let password = labelled.and_then(|mut secret| {
        let bytes = secret.data.as_mut()?.remove(&at.key)?.0;
        let (uid, version) = (secret.uid()?, secret.resource_version()?);
        Some((bytes, uid, version)).filter(|(bytes, ..)| !bytes.is_empty())
    });
    if let Some((bytes, uid, version)) = password {
        let Ok(text) = String::from_utf8(bytes).map(Zeroizing::new) else {
            return unusable("is not in UTF-8");
        };
        // The key of the keystore's MAC comes from a BMPString (RFC 7292, appendix B.1).
        if text.chars().any(|c| u32::from(c) >= 0xffff) {
            return unusable("has a character, such as an emoji, that PKCS #12 cannot hold");
        }
        return Ok(Password { text, uid, version });
    }
    Err(problem(
        Reason::RefNotFound,
        format!(
            "spec.keystores.pkcs12.passwordSecretRef: there is no Secret {} with the label \
             {KEYSTORE_PASSWORD}: \"true\" and a password in its key {}",
            at.name, at.key
        ),
    ))
}

/// Returns the authority that the spec names, or the domain's issuing authority, or the only authority that
/// can issue.
async fn issuer(
    d: &Desired,
    domain: &MtlsDomain,
    trust: Option<&Trust>,
    observe_context: &ObserveContext<'_>,
) -> Result<Result<Issuer, Problem>, runtime::Error> {
    let wanted = match authorities::authorities(domain) {
        Ok(wanted) => wanted,
        Err(refused) => {
            return Ok(Err(problem(
                refused.reason,
                format!("MtlsDomain {}: {}", d.domain.name, refused.message),
            )));
        }
    };
    let named = d
        .authority
        .as_ref()
        .or(domain.spec.trust.issuing_authority.as_ref());
    if let Some(name) = named {
        let Some(wanted) = wanted.iter().find(|w| w.name == *name) else {
            return Ok(Err(problem(
                Reason::AuthorityNotFound,
                format!("MtlsDomain {} has no authority {name}", d.domain.name),
            )));
        };
        return own_key_of(wanted, d, domain, trust, observe_context).await;
    }
    let mut able = Vec::new();
    for wanted in wanted.iter().filter(|w| w.may_issue()) {
        able.push((
            wanted.name.clone(),
            own_key_of(wanted, d, domain, trust, observe_context).await?,
        ));
    }
    Ok(only_one(able, &d.domain.name))
}

/// Returns the only authority that can issue. Without any, the problem is that authority's own; with several,
/// the problem names them. `domain`: name of the MtlsDomain.
fn only_one(mut able: Vec<(String, Result<Issuer, Problem>)>, domain: &str) -> Result<Issuer, Problem> {
    let names: Vec<_> = able
        .iter()
        .filter(|(_, issuer)| issuer.is_ok())
        .map(|(name, _)| name.as_str())
        .collect();
    if names.len() > 1 {
        return Err(problem(
            Reason::AuthorityNotFound,
            format!(
                "several authorities could issue ({}): set spec.trust.issuingAuthority of MtlsDomain \
                 {domain}, or spec.authority here",
                names.join(", ")
            ),
        ));
    }
    // The only usable issuer, or else the problem of the only authority, or of the only one with a key.
    let is_of_key = |problem: &Problem| problem.reason == Reason::InvalidCACertificateRef;
    let of_keys = || {
        let with = able.iter().enumerate();
        with.filter(|(_, (_, issuer))| issuer.as_ref().is_err_and(is_of_key))
            .map(|(at, _)| at)
    };
    let only = able
        .iter()
        .position(|(_, issuer)| issuer.is_ok())
        .or((able.len() == 1).then_some(0))
        .or_else(|| of_keys().next().filter(|_| of_keys().count() == 1));
    match only {
        Some(only) => able.swap_remove(only).1,
        None => Err(problem(
            Reason::AuthorityNotFound,
            format!("MtlsDomain {domain} has no authority with a key to issue with"),
        )),
    }
}

/// Returns the key as [`key_of`] does, but no key that another writer put into the Secret of a generated
/// authority. A condition of the domain reports such a key. The cache may only be behind, so that the
/// certificate waits.
async fn own_key_of(
    wanted: &DesiredAuthority,
    d: &Desired,
    domain: &MtlsDomain,
    trust: Option<&Trust>,
    observe_context: &ObserveContext<'_>,
) -> Result<Result<Issuer, Problem>, runtime::Error> {
    let Keyed { authority, labels } = match key_of(wanted, d, observe_context).await? {
        Ok(keyed) => keyed,
        Err(problem) => return Ok(Err(problem)),
    };
    let DesiredSource::Generated { request, .. } = &wanted.source else {
        return Ok(Ok(Issuer::SecretKey(authority)));
    };
    let record = domain
        .annotations()
        .get(&generated_authority::annotation(&wanted.name));
    let trusted = trust.into_iter().flat_map(Trust::entries);
    let owned = generated_authority::is_labelled(&labels, &d.domain.name, &wanted.name).and_then(|()| {
        generated_authority::is_ours(
            authority.chain().certificates(),
            &wanted.name,
            request,
            record,
            trusted,
        )
    });
    Ok(owned.map(|()| Issuer::SecretKey(authority)).map_err(|_| Problem {
        status: StepStatus::Working,
        reason: Reason::WaitingForAuthority,
        message: format!(
            "the authority {} has no key that the operator generated yet; if this persists, see ResolvedRefs \
             of MtlsDomain {}",
            wanted.name, d.domain.name
        ),
    }))
}

async fn key_of(
    wanted: &DesiredAuthority,
    d: &Desired,
    observe_context: &ObserveContext<'_>,
) -> Result<Result<Keyed, Problem>, runtime::Error> {
    let (name, domain) = (&wanted.name, &d.domain.name);
    if wanted.state == AuthorityState::Distrusted {
        return Ok(Err(problem(
            Reason::AuthorityNotFound,
            format!("the authority {name} of MtlsDomain {domain} is Distrusted"),
        )));
    }
    let Some(secret) = wanted.source.secret().filter(|_| wanted.may_issue()) else {
        return Ok(Err(problem(
            Reason::AuthorityNotFound,
            format!("the authority {name} of MtlsDomain {domain} has no key to issue with"),
        )));
    };
    let at = ObjectId::new(&d.domain.namespace, secret);
    if let Some(keyed) = observe_context
        .signing_keys
        .get(&at, observe_context.version(&at.namespace, &at.name).as_deref())
    {
        return Ok(Ok(keyed));
    }
    let Some(found) = apply::secret(observe_context.client, &at.namespace, &at.name).await? else {
        let message = format!("the key of the authority {name} does not exist yet");
        return Ok(Err(Problem {
            status: StepStatus::Working,
            reason: Reason::WaitingForAuthority,
            message,
        }));
    };
    let data = |key: &str| {
        found
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|ByteString(bytes)| bytes.as_slice())
    };
    let (Some(crt), Some(key)) = (data("tls.crt"), data("tls.key")) else {
        return Ok(Err(problem(
            Reason::AuthorityNotFound,
            format!("the authority {name} of MtlsDomain {domain} has no key to issue with"),
        )));
    };
    match SigningAuthority::from_pem(crt, key, data("ca.crt")).map(Arc::new) {
        Ok(authority) => {
            let keyed = Keyed {
                authority,
                labels: found.labels().clone(),
            };
            observe_context
                .signing_keys
                .put(&at, found.resource_version(), keyed.clone());
            Ok(Ok(keyed))
        }
        Err(error) => Ok(Err(problem(
            Reason::InvalidCACertificateRef,
            format!("the authority {name} of MtlsDomain {domain} cannot issue: {error}"),
        ))),
    }
}

#[cfg(test)]
pub(crate) mod tests;
