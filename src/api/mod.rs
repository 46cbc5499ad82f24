//! The custom resources as users write them: types, schema, CEL rules. Only serde, schemars and kube's derive here, no
//! client and no AWS. Every doc comment on a field ends up in the CRD and is what `kubectl explain` prints: the manual.

mod certificate;
pub mod conditions;
mod domain;
mod domain_status;
mod identity;
mod key;
mod refs;
mod trust;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

pub use certificate::*;
pub use domain::*;
pub use domain_status::*;
pub use identity::*;
pub use key::*;
pub use refs::*;
pub use trust::*;

/// Both kinds' API group.
pub const GROUP: &str = "mtls-operator.io";

/// A length of time in Go's notation (`2160h`, `1h30m`); the schema admits whole hours, minutes and seconds only, so that
/// what is read here is never negative and cannot overflow.
pub use kube::core::Duration;

/// Pattern of every duration in a spec. Whole numbers, largest unit first, at most 114 years: `kube`'s parser panics on
/// numbers that do not fit, so nothing of the kind may reach it.
const DURATION: &str = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,9}s)?$";

/// Both CustomResourceDefinitions, as they are installed.
///
/// Use this and never `CustomResourceExt::crd()` alone: see [`finish`] for what that one lacks.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![finish(MtlsDomain::crd()), finish(ClientCertificate::crd())]
}

/// What the derive cannot say.
///
/// - A new object's status is `{observedGeneration: -1}`, so that nothing (kstatus, Argo CD) takes an object that nobody
///   has looked at for ready.
/// - No field is nullable: unset is the only way to say nothing, and CEL's `has()` then means what it says.
fn finish(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
    drop_nullable(&mut crd);
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] =
            json!({"observedGeneration": -1});
    }
    serde_json::from_value(crd).expect("still a CRD")
}

fn drop_nullable(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            map.values_mut().for_each(drop_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nullable),
        _ => {}
    }
}
