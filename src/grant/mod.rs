//! ClientGrant: the certificates that other namespaces may request for a domain, and the ones in use.

pub mod controller;
pub mod evaluation;
mod glob;
pub mod grant_index;
