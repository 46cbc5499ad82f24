//! References that several specs share: other objects, namespaces, roles, policies.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::api;

/// Reference to a Secret in the namespace of the object that names it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret, in the namespace of this object.
    #[x_kube(validation = api::object_name())]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Reference to a key of a Secret in the namespace of the object that names it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of this object.
    #[x_kube(validation = api::object_name())]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Secret's data with the value.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// IAM role that the operator assumes for its AWS calls.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// ARN of the role, for example `arn:aws:iam::123456789012:role/mtls-operator`. The role's trust policy
    /// must allow the operator's own role to assume it. The operator's administrator sets the external ID,
    /// where the role requires one, in the operator's policy file. A caller cannot set it here: an external
    /// ID that the caller chooses would protect no one.
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$')")
        .message("write the whole ARN of an IAM role, as in arn:aws:iam::123456789012:role/mtls-operator"))]
    #[schemars(length(min = 1, max = 2048))]
    pub role_arn: String,
}

/// Namespaces by name or by label; with both, the namespaces that match both; with neither, all namespaces.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespaces {
    /// Names of the namespaces, at most 100. `*` is not a wildcard here. Unset: any name.
    #[x_kube(validation = Rule::new("self.all(n, n.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'))")
        .message("write the names of namespaces, as in acme, without *: to admit every namespace leave names out, to admit some use matchLabels"))]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    #[serde(default, deserialize_with = "listed", skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// Labels that each namespace must have, at most 50. Requires that the operator may read Namespaces.
    /// Unset: any labels.
    #[schemars(extend("maxProperties" = 50))]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// Fate of the operator's resources after the object is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// The operator deletes the resources.
    #[default]
    Delete,
    /// The resources stay as they are, and the operator no longer owns them.
    Retain,
}

/// Deserializes a list that must not be null.
pub(crate) fn listed<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Vec::deserialize(d).map(Some)
}

/// Deserializes a value that must not be null.
pub(crate) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// True for a default value, which serialization omits.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
