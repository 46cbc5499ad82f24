//! ClientGrant: which certificates other namespaces may have for a domain, and what is in use of that.

pub mod controller;
pub mod evaluation;
mod glob;
pub mod grant_index;
