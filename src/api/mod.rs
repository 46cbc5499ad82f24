//! Custom resource types: fields, schema and CEL rules. The module uses serde, schemars and kube's derive
//! only: no Kubernetes client and no AWS. Every doc comment on a field becomes the field's description in the
//! CRD, and `kubectl explain` prints it.

pub mod certificate;
pub mod conditions;
pub mod domain;
pub mod domain_status;
pub mod durations;
pub mod events;
pub mod grant;
pub mod identity;
pub mod key;
pub mod object_id;
pub mod refs;
pub mod trust;

pub use certificate::*;
pub use domain::*;
pub use domain_status::*;
pub use grant::*;
pub use identity::*;
pub use key::*;
/// Length of time in Go's notation (`2160h`, `1h30m`). The schema admits whole hours, minutes and seconds
/// only: a parsed value is never negative and never overflows.
pub use kube::core::Duration;
pub use refs::*;
pub use trust::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt as _, core::Rule};
use serde_json::{Value, json};

/// API group of all kinds.
pub const GROUP: &str = "mtls-operator.io";

/// Returns the rule for a duration: whole hours, minutes and seconds, largest unit first, at least `minimum`.
/// The rule bounds the number of digits because kube's parser panics, and CEL's parser fails, on a number
/// that does not fit.
fn duration_of_at_least(minimum: &str, example: &str) -> Rule {
    Rule::new(format!(
        "self.matches('^([0-9]{{1,6}}h)?([0-9]{{1,6}}m)?([0-9]{{1,9}}s)?$') && self != '' && duration(self) \
         >= duration('{minimum}')"
    ))
    .message(&*format!(
        "write whole hours, minutes and seconds, at least {minimum}, as in {example}"
    ))
}

/// Returns the rule for a spec that keeps an optional field (`path`, from the spec's members inwards) as it
/// was at creation, also when the field was unset. The rule uses `has()` because the API server estimates the
/// cost of a `?` selection as unbounded and rejects the rule.
fn set_at_creation(path: &[&str], instead: &str) -> Rule {
    let has = |spec: &str| {
        let member = |depth| format!("has({spec}.{})", path[..=depth].join("."));
        (0..path.len()).map(member).collect::<Vec<_>>().join(" && ")
    };
    let (now, before, field) = (has("self"), has("oldSelf"), path.join("."));
    Rule::new(format!(
        "({now}) ? ({before}) && self.{field} == oldSelf.{field} : !({before})"
    ))
    .message(&*format!(
        "{field} cannot be set, changed or removed later: {instead}"
    ))
    .field_path(format!(".{field}"))
}

/// Name of an object as the API server allows it: a DNS subdomain (RFC 1123).
const OBJECT_NAME: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";

/// Returns the rule for the name of another object. Everything else would be a path or a query in the URL of
/// the operator's request.
fn object_name() -> Rule {
    Rule::new(format!("self.matches('{OBJECT_NAME}')")).message(
        "write the name of an object: lower-case letters, digits, dots and dashes, as in client1-mtls",
    )
}

/// True for a text that [`object_name`] accepts and that is no longer than the API server allows. For objects
/// that an earlier release's schema accepted.
pub fn is_object_name(name: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Returns the rule for labels or annotations that a spec sets: none of the operator's own.
fn not_our_keys() -> Rule {
    Rule::new(format!("!self.exists(k, k.startsWith('{GROUP}/'))"))
        .message("leave out keys that begin with mtls-operator.io/: the operator sets those itself")
}

/// Returns the rule for a list of host names, with or without a leading wildcard label.
fn host_names() -> Rule {
    const NAME: &str = "^([*][.])?([a-z0-9_]([a-z0-9_-]*[a-z0-9])?[.])*[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
    Rule::new(format!("self.all(n, n.matches('{NAME}'))")).message(
        "write host names in lower case, without scheme, port or trailing dot, as in api.example.com, and \
         internationalized names in Punycode, as in xn--mller-kva.example",
    )
}

/// Returns the rule for the ARN of an ACM certificate.
pub(crate) fn certificate_arn() -> Rule {
    Rule::new("self.matches('^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/.+$')").message(
        "write the whole ARN of an ACM certificate, as in \
         arn:aws:acm:eu-west-1:123456789012:certificate/1234abcd-...",
    )
}

/// Returns the rule for the ID of an API.
pub(crate) fn api_id() -> Rule {
    Rule::new("self.matches('^[a-z0-9]+$')")
        .message("write the API's id only, the first part of its execute-api host name, as in a1b2c3d4e5")
}

/// Returns the rule for the size of a key with its algorithm.
fn key_size() -> Rule {
    Rule::new(
        "!has(self.size) || (has(self.algorithm) && self.algorithm == 'RSA' ? self.size in [2048, 3072, \
         4096] : self.size in [256, 384])",
    )
    .message("write size 256 or 384 for ECDSA; 2048, 3072 or 4096 for RSA")
    .field_path(".size")
}

/// Returns the CustomResourceDefinitions as the operator's users install them.
///
/// Callers use this function and never `CustomResourceExt::crd()` alone, which lacks the changes of
/// `finish`.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        finish(MtlsDomain::crd()),
        finish(ClientCertificate::crd()),
        finish(ClientGrant::crd()),
    ]
}

/// Returns the name and the YAML of each file of `crds/`.
pub fn crds() -> Vec<(String, String)> {
    let file = |crd: CustomResourceDefinition| {
        let yaml = serde_saphyr::to_string(&crd).expect("a CRD is plain data");
        let head =
            "# Generated from src/api by `cargo run --bin mtls-operator -- crds crds/`: do not edit.\n";
        (format!("{}.yaml", crd.spec.names.plural), format!("{head}{yaml}"))
    };
    definitions().into_iter().map(file).collect()
}

/// Completes a CRD with settings that the derive macro cannot express.
///
/// - The default status of a new object is `{observedGeneration: -1}`. Tools (kstatus, Argo CD) therefore do
///   not report an object as ready before the operator's first reconcile.
/// - No field is nullable. The API server drops a null (`region:` without a value, as templates write it), so
///   that an unset field has one form, for CEL's `has()` and for the Rust types.
/// - The schema does not forbid unknown fields, because the API server rejects such a schema. It drops
///   unknown fields itself.
/// - Descriptions have no line breaks within a paragraph: the line breaks of a doc comment belong to the
///   source.
fn finish(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
    tidy(&mut crd);
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] =
            json!({"observedGeneration": -1});
    }
    serde_json::from_value(crd).expect("still a CRD")
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            if map.get("additionalProperties") == Some(&Value::Bool(false)) {
                map.remove("additionalProperties");
            }
            if let Some(Value::String(description)) = map.get_mut("description") {
                let paragraphs: Vec<_> = description.split("\n\n").map(|p| p.replace('\n', " ")).collect();
                *description = paragraphs.join("\n");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
