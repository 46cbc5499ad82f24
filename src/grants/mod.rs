//! Grants: the certificates that other namespaces may request for a domain.

pub mod evaluation;
pub mod glob;
pub mod index;
