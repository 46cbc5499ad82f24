//! Controllers of the three kinds: triggers, reconciles, status and Events.

pub mod client_certificate;
pub mod client_grant;
pub mod mtls_domain;
pub mod watches;
