//! Private keys of specs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api;

/// Private key of a client certificate, in the terms of cert-manager's Certificate.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = api::key_size())]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// Algorithm: ECDSA or RSA. Unset: ECDSA. API Gateway is not known to accept Ed25519.
    #[schemars(with = "KeyAlgorithm")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<KeyAlgorithm>,
    /// Size in bits: 256 (P-256) or 384 (P-384) for ECDSA; 2048, 3072 or 4096 for RSA. Unset: 256 for ECDSA,
    /// 2048 for RSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
    /// Encoding of `tls.key`. PKCS8: `BEGIN PRIVATE KEY`, for current software. PKCS1, for older software:
    /// `BEGIN RSA PRIVATE KEY` or `BEGIN EC PRIVATE KEY`. Unset: PKCS8.
    #[schemars(with = "KeyEncoding")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<KeyEncoding>,
    /// Rotation of the key at a renewal. Always: each renewal generates a new key. Never, for partners who
    /// pin the key: the key stays as long as it fits the spec and the Secret's certificate for it is a
    /// certificate that the operator issued. Unset: Always.
    #[schemars(with = "RotationPolicy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_policy: Option<RotationPolicy>,
}

/// Private key of an authority that the operator generates.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = api::key_size())]
#[serde(rename_all = "camelCase")]
pub struct AuthorityKey {
    /// Algorithm: ECDSA or RSA. Unset: ECDSA. API Gateway is not known to accept Ed25519.
    #[schemars(with = "KeyAlgorithm")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<KeyAlgorithm>,
    /// Size in bits: 256 (P-256) or 384 (P-384) for ECDSA; 2048, 3072 or 4096 for RSA. Unset: 256 for ECDSA,
    /// 2048 for RSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
}

/// Algorithm of a private key.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// Elliptic curves P-256 and P-384.
    #[default]
    ECDSA,
    /// RSA, for partners whose software does not support elliptic curves.
    RSA,
}

/// Encoding of a private key in the Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyEncoding {
    /// `BEGIN PRIVATE KEY`, for current software.
    #[default]
    PKCS8,
    /// `BEGIN RSA PRIVATE KEY` or `BEGIN EC PRIVATE KEY` (SEC 1), for older software.
    PKCS1,
}

/// Rotation of the private key at a renewal.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationPolicy {
    /// Each certificate has its own key.
    #[default]
    Always,
    /// The key stays as long as it fits the spec. For partners who pin the key.
    Never,
}
