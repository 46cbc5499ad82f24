//! Keys, certificates, authorities, leaves and the truststore. No Kubernetes, no AWS, no clock: the caller
//! passes the time.

pub mod authority;
pub mod certificate;
pub mod chain;
pub mod compile;
pub mod constraints;
pub mod csr;
pub mod form;
pub mod inspect;
pub mod keys;
pub mod keystore;
pub mod leaf;
pub mod lint;
#[cfg(test)]
mod malformed;
mod name;
pub mod pem;
mod signing;
pub mod truststore;
