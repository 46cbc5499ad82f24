//! What is wanted of a `ClientCertificate`: the custom resource in, checked values out. Every "your spec cannot be served" is born here.
use std::collections::BTreeMap;

use jiff::SignedDuration;
use kube::ResourceExt;

use crate::{
    api::{ClientCertificate, DeletionPolicy, Issuance, KeyEncoding, RotationPolicy, conditions::Reason},
    domain::{
        desired::{DEFAULT_LEAF, Refused, key_kind, length},
        served::DomainKey,
    },
    pki::{
        inspect::RenewBefore,
        keys::{Encoding, KeyKind},
        leaf::{self, LeafRequest},
    },
};

#[derive(Clone, Debug)]
pub struct Desired {
    pub namespace: String,
    pub name: String,
    pub domain: DomainKey,
    /// Unset: follows the domain.
    pub authority: Option<String>,
    pub request: LeafRequest,
    pub key_kind: KeyKind,
    pub encoding: Encoding,
    /// A key that still fits is used again.
    pub keep_key: bool,
    pub renew_before: RenewBefore,
    pub secret_name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The Secret goes with the object.
    pub owned: bool,
}

/// The MtlsDomain that a ClientCertificate is for.
pub fn domain_key(cert: &ClientCertificate) -> DomainKey {
    let namespace = cert.namespace().expect("ClientCertificate is namespaced");
    (cert.spec.domain_ref.namespace.clone().unwrap_or(namespace), cert.spec.domain_ref.name.clone())
}

/// How long the leaf shall live; `max` is the domain's `clients.maxDuration`.
pub fn duration(cert: &ClientCertificate, max: Option<SignedDuration>) -> SignedDuration {
    match (cert.spec.duration.as_ref().map(length), max) {
        (Some(wanted), _) => wanted,
        (None, Some(max)) => DEFAULT_LEAF.min(max),
        (None, None) => DEFAULT_LEAF,
    }
}

/// `max` is the domain's `clients.maxDuration`, when the domain is there and has one.
pub fn desired(cert: &ClientCertificate, max: Option<SignedDuration>) -> Result<Desired, Refused> {
    let spec = &cert.spec;
    let (namespace, name) = (cert.namespace().expect("ClientCertificate is namespaced"), cert.name_any());
    let unsupported = [
        ("issuance: SelfSigned", spec.issuance == Issuance::SelfSigned),
        ("csr", spec.csr.is_some()),
        ("keystores", spec.keystores.is_some()),
    ];
    let used: Vec<_> =
        unsupported.into_iter().filter(|(_, used)| *used).map(|(field, _)| format!("spec.{field}")).collect();
    if !used.is_empty() {
        return Err(refused(Reason::NotSupportedYet, format!("not supported yet: {}", used.join(", "))));
    }
    let domain = domain_key(cert);
    if domain.0 != namespace {
        return Err(refused(
            Reason::RefNotPermitted,
            "spec.domainRef.namespace: certificates for a domain of another namespace need a grant, which is not supported yet; create the \
             ClientCertificate in the domain's namespace"
                .into(),
        ));
    }
    let duration = duration(cert, max);
    if let Some(max) = max.filter(|max| duration > *max) {
        return Err(refused(
            Reason::DurationNotAllowed,
            format!("spec.duration is longer than the domain's spec.clients.maxDuration of {}h", max.as_hours()),
        ));
    }
    let key = spec.private_key.clone().unwrap_or_default();
    let subject = spec.subject.clone().unwrap_or_default();
    let request = LeafRequest {
        common_name: subject.common_name,
        organizations: subject.organizations,
        organizational_units: subject.organizational_units,
        countries: subject.countries,
        localities: subject.localities,
        provinces: subject.provinces,
        dns_names: spec.dns_names.clone(),
        uris: spec.uris.clone(),
        email_addresses: spec.email_addresses.clone(),
        duration,
    };
    leaf::validate(&request).map_err(|p| refused(Reason::InvalidSpec, format!("spec.{}: {}", p.field, p.message)))?;
    let template = spec.secret_template.clone().unwrap_or_default();
    Ok(Desired {
        domain,
        authority: spec.authority.clone(),
        request,
        key_kind: key_kind(key.algorithm, key.size).ok_or_else(|| {
            refused(
                Reason::InvalidSpec,
                "spec.privateKey.size: write 256 or 384 for ECDSA; 2048, 3072 or 4096 for RSA".into(),
            )
        })?,
        encoding: match key.encoding {
            KeyEncoding::PKCS8 => Encoding::Pkcs8,
            KeyEncoding::PKCS1 => Encoding::Pkcs1,
        },
        keep_key: key.rotation_policy == RotationPolicy::Never,
        renew_before: match (&spec.renew_before, spec.renew_before_percentage) {
            (Some(before), _) => RenewBefore::Duration(length(before)),
            (None, Some(percentage)) => RenewBefore::Percentage(u8::try_from(percentage).unwrap_or_default()),
            (None, None) => RenewBefore::Unset,
        },
        secret_name: spec.secret_name.clone().unwrap_or_else(|| name.clone()),
        labels: template.labels,
        annotations: template.annotations,
        owned: spec.deletion_policy == DeletionPolicy::Delete,
        namespace,
        name,
    })
}

fn refused(reason: Reason, message: String) -> Refused {
    Refused { reason, message }
}
