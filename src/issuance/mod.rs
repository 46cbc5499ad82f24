//! Issuance of one client certificate: desired -> observe -> plan -> execute. Writes the Secret of the
//! certificate and nothing else.

pub mod action;
pub mod desired;
pub mod execute;
pub mod issuer;
pub mod known_key;
pub mod leaf_secret;
pub mod observe;
pub mod observed;
pub mod pace;
pub mod plan;
pub mod self_signed;
pub mod signing_key_cache;
pub mod trusted;

#[cfg(test)]
pub(crate) mod simulation;
