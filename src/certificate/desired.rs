//! Desired state of a `ClientCertificate`: converts the custom resource into checked values. Every refusal of
//! a spec comes from here.
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::{
    api::{
        ClientCertificate, DeletionPolicy, Issuance, KeyEncoding, PrivateKey, RotationPolicy, SecretKeyRef,
        Subject, conditions::Reason,
    },
    domain::{
        active_trust::DomainKey,
        clients,
        desired::{DEFAULT_LEAF, Refused, key_kind, length},
    },
    grant::evaluation::{GrantRequest, Terms},
    pki::{
        csr,
        inspect::RenewBefore,
        keys::{DesiredKey, Encoding},
        leaf::{self, LeafRequest},
    },
};

/// Annotation with which users request a renewal: any new value.
pub const RENEW: &str = "mtls-operator.io/renew";

#[derive(Clone, Debug)]
pub struct Desired {
    pub namespace: String,
    pub name: String,
    pub created: Option<Timestamp>,
    pub domain: DomainKey,
    /// True when the certificate signs itself and is in the truststore itself.
    pub self_signed: bool,
    /// Name of the self-signed certificate's truststore entry.
    pub entry: String,
    /// Name of the issuing authority. `None`: the domain's issuing authority.
    pub authority: Option<String>,
    pub request: LeafRequest,
    pub key: DesiredKey,
    pub renew_before: RenewBefore,
    /// Value of [`RENEW`].
    pub renew: Option<String>,
    pub secret_name: String,
    /// Secret with the password of `keystore.p12`. `None`: no keystore.
    pub keystore: Option<SecretKeyRef>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// True when the Secret is deleted with the object.
    pub owned: bool,
}

/// Returns the MtlsDomain of a ClientCertificate.
pub fn domain_key(cert: &ClientCertificate) -> DomainKey {
    let namespace = cert.namespace().expect("ClientCertificate is namespaced");
    (
        cert.spec.domain_ref.namespace.clone().unwrap_or(namespace),
        cert.spec.domain_ref.name.clone(),
    )
}

/// Returns the validity period of the leaf; `max` is the domain's `clients.maxDuration`.
pub fn duration(cert: &ClientCertificate, max: Option<SignedDuration>) -> SignedDuration {
    match (cert.spec.duration.as_ref().map(length), max) {
        (Some(wanted), _) => wanted,
        (None, Some(max)) => DEFAULT_LEAF.min(max),
        (None, None) => DEFAULT_LEAF,
    }
}

/// Returns the certificate's request, which the operator compares with the grants.
pub fn grant_request(cert: &ClientCertificate) -> Result<GrantRequest, Refused> {
    let duration = cert.spec.duration.as_ref().map(length);
    let (request, _) = asked(cert, duration.unwrap_or(DEFAULT_LEAF))?;
    Ok(GrantRequest {
        uid: cert.uid().unwrap_or_default(),
        created: cert.creation_timestamp().map(|t| t.0),
        namespace: cert.namespace().expect("ClientCertificate is namespaced"),
        name: cert.name_any(),
        by_csr: cert.spec.csr.is_some(),
        request,
        issuance: cert.spec.issuance,
        authority: cert.spec.authority.clone(),
        duration,
    })
}

/// Returns the contents of the certificate with its maximum validity; `None` for a request that no authority
/// could certify. `max` and `terms` as in [`desired`].
pub fn at_most(
    cert: &ClientCertificate,
    max: Option<SignedDuration>,
    terms: Option<&Terms>,
) -> Option<LeafRequest> {
    let max = [max, terms.and_then(|terms| terms.max_duration)]
        .into_iter()
        .flatten()
        .min();
    let longest = duration(cert, max);
    let (request, _) = asked(cert, max.map_or(longest, |max| longest.min(max))).ok()?;
    Some(LeafRequest {
        not_after: terms.and_then(|terms| terms.not_after),
        ..request
    })
}

/// Returns the desired state. `max` is the domain's `clients.maxDuration`, when the domain exists and has a
/// maximum; `terms` are the terms of the grant for a certificate in another namespace.
pub fn desired(
    cert: &ClientCertificate,
    max: Option<SignedDuration>,
    terms: Option<&Terms>,
) -> Result<Desired, Refused> {
    let spec = &cert.spec;
    let (namespace, name) = (
        cert.namespace().expect("ClientCertificate is namespaced"),
        cert.name_any(),
    );
    let domain = domain_key(cert);
    let granted = terms.and_then(|terms| terms.max_duration);
    let max = [max, granted].into_iter().flatten().min();
    let duration = duration(cert, max);
    if let Some(max) = max.filter(|max| duration > *max) {
        return Err(refused(
            Reason::DurationNotAllowed,
            format!(
                "spec.duration is longer than the domain's spec.clients.maxDuration of {}h",
                max.as_hours()
            ),
        ));
    }
    let (mut request, key) = asked(cert, duration)?;
    request.not_after = terms.and_then(|terms| terms.not_after);
    let template = spec.secret_template.clone().unwrap_or_default();
    Ok(Desired {
        domain,
        self_signed: spec.issuance == Issuance::SelfSigned,
        entry: clients::entry_name(cert),
        authority: spec.authority.clone().or_else(|| terms?.authority.clone()),
        request,
        key,
        renew_before: match (&spec.renew_before, spec.renew_before_percentage) {
            (Some(before), _) => RenewBefore::Duration(length(before)),
            (None, Some(percentage)) => RenewBefore::Percentage(u8::try_from(percentage).unwrap_or_default()),
            (None, None) => RenewBefore::Unset,
        },
        renew: cert.annotations().get(RENEW).cloned(),
        keystore: spec
            .keystores
            .as_ref()
            .and_then(|k| k.pkcs12.as_ref())
            .map(|p| p.password_secret_ref.clone()),
        secret_name: spec.secret_name.clone().unwrap_or_else(|| name.clone()),
        labels: template.labels,
        annotations: template.annotations,
        owned: spec.deletion_policy == DeletionPolicy::Delete,
        created: cert.creation_timestamp().map(|t| t.0),
        namespace,
        name,
    })
}

fn asked(cert: &ClientCertificate, duration: SignedDuration) -> Result<(LeafRequest, DesiredKey), Refused> {
    match &cert.spec.csr {
        Some(csr) => requested(csr, duration),
        None => described(cert, duration),
    }
}

/// Returns the request of `spec.csr`, for the key that its requester keeps.
fn requested(csr: &str, duration: SignedDuration) -> Result<(LeafRequest, DesiredKey), Refused> {
    let csr = csr::read(csr, duration)
        .map_err(|error| refused(Reason::InvalidSpec, format!("spec.csr: {error}")))?;
    Ok((csr.request, DesiredKey::Requested { spki: csr.spki }))
}

/// Returns the request of the other fields.
fn described(
    cert: &ClientCertificate,
    duration: SignedDuration,
) -> Result<(LeafRequest, DesiredKey), Refused> {
    let spec = &cert.spec;
    let Subject {
        common_name,
        organizations,
        organizational_units,
        countries,
        localities,
        provinces,
    } = spec.subject.clone().unwrap_or_default();
    let request = LeafRequest {
        common_name,
        organizations,
        organizational_units,
        countries,
        localities,
        provinces,
        serial_number: None,
        dns_names: spec.dns_names.clone(),
        uris: spec.uris.clone(),
        email_addresses: spec.email_addresses.clone(),
        duration,
        not_after: None,
    };
    leaf::validate(&request)
        .map_err(|p| refused(Reason::InvalidSpec, format!("spec.{}: {}", p.field, p.message)))?;
    let PrivateKey {
        algorithm,
        size,
        encoding,
        rotation_policy,
    } = spec.private_key.clone().unwrap_or_default();
    let kind = key_kind(algorithm.unwrap_or_default(), size).ok_or_else(|| {
        refused(
            Reason::InvalidSpec,
            "spec.privateKey.size: write 256 or 384 for ECDSA; 2048, 3072 or 4096 for RSA".into(),
        )
    })?;
    let encoding = match encoding.unwrap_or_default() {
        KeyEncoding::PKCS8 => Encoding::Pkcs8,
        KeyEncoding::PKCS1 => Encoding::Pkcs1,
    };
    Ok((
        request,
        DesiredKey::Made {
            kind,
            encoding,
            keep: rotation_policy == Some(RotationPolicy::Never),
        },
    ))
}

fn refused(reason: Reason, message: String) -> Refused {
    Refused { reason, message }
}
