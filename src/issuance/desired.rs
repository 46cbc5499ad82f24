//! Desired state of a `ClientCertificate`: converts the custom resource into checked values. Every refusal of
//! a spec comes from here.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::{
    api::{
        ClientCertificate, DeletionPolicy, Issuance, SecretKeyRef, conditions::Reason, durations::length,
        object_id::ObjectId,
    },
    grants::evaluation::Terms,
    model::leaf_request::{asked, duration},
    pki::{inspect::RenewBefore, keys::DesiredKey, leaf::LeafRequest},
    status::{Refused, refused},
    trust::self_signed,
};

/// Annotation with which users request a renewal: any new value.
pub const RENEW: &str = "mtls-operator.io/renew";

#[derive(Clone, Debug)]
pub struct Desired {
    pub namespace: String,
    pub name: String,
    pub created: Option<Timestamp>,
    pub domain: ObjectId,
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
    let domain = cert.domain_id();
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
        entry: self_signed::entry_name(cert),
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
