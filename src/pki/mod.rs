//! Keys, certificates, authorities, leaves and the truststore. No Kubernetes, no AWS, no clock: time is passed in.

pub mod authority;
pub mod certificate;
pub mod inspect;
pub mod keys;
pub mod leaf;
mod name;
mod signing;
