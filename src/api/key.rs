//! Private keys as specs ask for them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The private key of a client certificate, in the words of cert-manager's Certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = super::key_size())]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// ECDSA or RSA. Unset: ECDSA. Ed25519 is missing because API Gateway is not known to accept it.
    #[schemars(with = "KeyAlgorithm")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<KeyAlgorithm>,
    /// Bits: 256 (P-256) or 384 (P-384) for ECDSA; 2048, 3072 or 4096 for RSA. Unset: 256 for ECDSA, 2048 for
    /// RSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
    /// How `tls.key` is written. PKCS8: `BEGIN PRIVATE KEY`, understood by everything current. PKCS1, for
    /// older software: `BEGIN RSA PRIVATE KEY` or `BEGIN EC PRIVATE KEY`. Unset: PKCS8.
    #[schemars(with = "KeyEncoding")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<KeyEncoding>,
    /// Whether a renewal makes a new key. Always: it does. Never: the key stays as long as it is what the
    /// spec asks for, and the certificate beside it in the Secret is one that the operator issued; for
    /// partners who pin it. Unset: Always.
    #[schemars(with = "RotationPolicy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_policy: Option<RotationPolicy>,
}

/// The private key of an authority that the operator makes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = super::key_size())]
#[serde(rename_all = "camelCase")]
pub struct AuthorityKey {
    /// ECDSA or RSA. Unset: ECDSA. Ed25519 is missing because API Gateway is not known to accept it.
    #[schemars(with = "KeyAlgorithm")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<KeyAlgorithm>,
    /// Bits: 256 (P-256) or 384 (P-384) for ECDSA; 2048, 3072 or 4096 for RSA. Unset: 256 for ECDSA, 2048 for
    /// RSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
}

/// Kind of a private key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// Elliptic curves P-256 and P-384.
    #[default]
    ECDSA,
    /// For partners whose software knows nothing else.
    RSA,
}

/// How a private key is written into the Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyEncoding {
    /// `BEGIN PRIVATE KEY`, understood by everything current.
    #[default]
    PKCS8,
    /// `BEGIN RSA PRIVATE KEY` or `BEGIN EC PRIVATE KEY` (SEC 1), for older software.
    PKCS1,
}

/// Whether a renewal makes a new private key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationPolicy {
    /// Every certificate has its own key.
    #[default]
    Always,
    /// The key stays as long as it fits what the spec asks for. For partners who pin the key.
    Never,
}
