//! Small things that several specs refer to: other objects, namespaces, roles, policies.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A Secret in the namespace of the object that names it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name. It is read from the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret in the namespace of the object that names it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name. It is read from the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key of the Secret's data that holds the value.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// An IAM role that the operator assumes for its AWS calls.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// ARN of the role, for example `arn:aws:iam::123456789012:role/mtls-operator`. Its trust policy must
    /// allow the operator's own role to assume it. The external id, where the role asks for one, is set by
    /// whoever runs the operator (in its policy file), not here: an external id chosen by the caller would
    /// protect nobody.
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$')")
        .message("write the whole ARN of an IAM role, as in arn:aws:iam::123456789012:role/mtls-operator"))]
    #[schemars(length(min = 1, max = 2048))]
    pub role_arn: String,
}

/// Namespaces by name or by label; every one without either. With both: those that have such a name and such
/// labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespaces {
    /// Their names, each exactly: `*` stands for nothing here. Unset: whatever their names.
    #[x_kube(validation = Rule::new("self.all(n, n.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'))")
        .message("write the names of namespaces, as in acme, without *: to admit every namespace leave names out, to admit some use matchLabels"))]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    #[serde(default, deserialize_with = "listed", skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// Labels that they all have. Needs an operator that may read Namespaces.
    #[schemars(extend("maxProperties" = 50))]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// What becomes of what the operator made once the object is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// It goes too.
    #[default]
    Delete,
    /// It stays as it is and is the operator's no longer.
    Retain,
}

/// A list that is there; one with nothing behind its name is no list.
pub(crate) fn listed<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Vec::deserialize(d).map(Some)
}

pub(crate) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// True for the values that need not be written out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
