//! Trust of a domain: the sources of its authorities, the truststore object and its bucket, and the
//! certificates in use.

pub mod active_trust;
pub mod bucket;
pub mod generated_authority;
pub mod observe;
pub(crate) mod reads;
pub mod self_signed;
pub mod self_signed_sources;
pub mod sources;
pub mod truststore;
pub mod truststore_sources;
