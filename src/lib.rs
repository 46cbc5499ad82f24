//! mtls-operator: API Gateway custom domains behind mutual TLS, kept as the custom resources say.
#![forbid(unsafe_code)]

pub mod api;
pub mod aws;
pub mod certificate;
pub mod cluster;
pub mod conditions;
pub mod doctor;
pub mod domain;
pub mod grant;
pub mod iam;
pub mod ops;
pub mod outside;
pub mod pki;
pub mod policy;
pub mod proxy;
