//! Desired state of a `ClientCertificate`: converts the custom resource into checked values. Every refusal of
//! a spec comes from here.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::{
    api::{
        ClientCertificate, DeletionPolicy, GROUP, Issuance, SecretKeyRef, SecretTemplate, conditions::Reason,
        durations::length, object_id::ObjectId,
    },
    grants::evaluation::Terms,
    model::leaf_request::{duration, issuable},
    pki::{inspect::RenewBefore, keys::DesiredKey, leaf::LeafRequest},
    status::{Refused, refused},
    trust::self_signed,
};

/// Annotation with which users request a renewal: any new value.
pub const RENEW: &str = "mtls-operator.io/renew";

/// Maximum bytes of `secretTemplate`: keys and values of the labels and annotations.
pub const MAX_TEMPLATE_BYTES: usize = 16_384;

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
    let (request, _) = issuable(cert, max.map_or(longest, |max| longest.min(max))).ok()?;
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
    let (mut request, key) = issuable(cert, duration)?;
    request.not_after = terms.and_then(|terms| terms.not_after);
    let template = spec.secret_template.clone().unwrap_or_default();
    refuse_long(&template)?;
    refuse_our_keys("labels", &template.labels)?;
    refuse_our_keys("annotations", &template.annotations)?;
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

/// Refuses metadata beyond [`MAX_TEMPLATE_BYTES`]. For objects that an earlier release's schema accepted.
fn refuse_long(template: &SecretTemplate) -> Result<(), Refused> {
    let all = template.labels.iter().chain(&template.annotations);
    if all.map(|(key, value)| key.len() + value.len()).sum::<usize>() <= MAX_TEMPLATE_BYTES {
        return Ok(());
    }
    Err(refused(
        Reason::InvalidSpec,
        format!(
            "spec.secretTemplate: labels and annotations have more than {MAX_TEMPLATE_BYTES} bytes together, \
             keys and values: leave some out"
        ),
    ))
}

/// Refuses metadata that only the operator sets. For objects that an earlier release's schema accepted.
fn refuse_our_keys(field: &str, of_spec: &BTreeMap<String, String>) -> Result<(), Refused> {
    let is_ours = |key: &&String| key.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/'));
    let Some(key) = of_spec.keys().find(is_ours) else {
        return Ok(());
    };
    Err(refused(
        Reason::InvalidSpec,
        format!(
            "spec.secretTemplate.{field}: leave out {key}: the operator sets the keys that begin with \
             {GROUP}/ itself"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    fn certificate(spec: Value) -> ClientCertificate {
        let mut object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": "client1", "namespace": "acme"},
            "spec": {"domainRef": {"name": "partners"}, "subject": {"commonName": "client1"}},
        });
        let fields = spec.as_object().cloned().unwrap_or_default();
        object["spec"].as_object_mut().unwrap().extend(fields);
        serde_json::from_value(object).unwrap()
    }

    fn refusal(spec: Value) -> Option<(Reason, String)> {
        desired(&certificate(spec), None, None)
            .err()
            .map(|refused| (refused.reason, refused.message))
    }

    /// Objects of an earlier release, whose schema accepted more.
    #[test]
    fn a_stored_object_beyond_the_schemas_limits_is_refused() {
        let uri = |length: usize| format!("a:{}", "b".repeat(length - 2));
        let uris = |last: usize| json!({"uris": [uri(2048), uri(2048), uri(2048), uri(last)]});
        assert_eq!(refusal(uris(2048)), None);
        let too_long = "spec.uris: the DNS names, URIs and mail addresses have more than 8192 bytes \
                        together: leave some out";
        let mut fat = uris(2048);
        fat["dnsNames"] = json!(["a"]);
        assert_eq!(
            refusal(fat.clone()),
            Some((Reason::InvalidSpec, too_long.to_owned()))
        );
        assert_eq!(
            at_most(&certificate(fat.clone()), None, None),
            None,
            "nothing new is trusted"
        );
        assert!(
            crate::grants::evaluation::grant_request(&certificate(fat)).is_ok(),
            "a certificate of an earlier release stays allowed, and in use"
        );
        let sized = |value: usize| {
            let annotations = json!({"example.com/a": "b".repeat(value)});
            json!({"labels": {"team": "a"}, "annotations": annotations})
        };
        for (template, expected) in [
            (sized(16_384 - 5 - 13), None),
            (
                sized(16_384 - 5 - 12),
                Some("spec.secretTemplate: labels and annotations have more than 16384 bytes together"),
            ),
            (
                json!({"labels": {"mtls-operator.io": "a", "my.mtls-operator.io/a": "b"}}),
                None,
            ),
            (
                json!({"labels": {"team": "a", "mtls-operator.io/trusted-by": "other"}}),
                Some("spec.secretTemplate.labels: leave out mtls-operator.io/trusted-by: the operator sets"),
            ),
            (
                json!({"annotations": {"mtls-operator.io/revision": "9"}}),
                Some(
                    "spec.secretTemplate.annotations: leave out mtls-operator.io/revision: the operator sets",
                ),
            ),
        ] {
            let told = refusal(json!({"secretTemplate": template}));
            let is_it = match (&told, expected) {
                (Some((Reason::InvalidSpec, message)), Some(part)) => message.starts_with(part),
                (told, expected) => told.is_none() && expected.is_none(),
            };
            assert!(is_it, "{told:?}");
        }
    }
}
