//! Keys, certificates, authorities, leaves and the truststore. No Kubernetes, no AWS, no clock: the caller
//! passes the time.

pub mod authority;
pub mod certificate;
pub mod chain;
pub mod compile;
pub mod constraints;
pub mod csr;
pub mod digest;
pub mod form;
pub mod inspect;
pub mod keys;
pub mod keystore;
pub mod leaf;
pub mod lint;
pub mod name;
pub mod name_constraints;
pub mod pem;
pub mod pem_certificates;
pub mod pem_error;
pub mod pem_outside;
pub mod pem_text;
pub mod signing;
pub mod subject;
pub mod truststore;

#[cfg(test)]
pub(crate) mod malformed;
