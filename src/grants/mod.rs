//! Grants: the certificates that other namespaces may request for a domain.

mod allocation;
pub mod evaluation;
pub mod glob;
pub mod index;
mod names;
mod slots;
mod state;
