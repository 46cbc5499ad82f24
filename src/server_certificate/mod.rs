//! Server certificate of a domain in ACM: choice, requests, validation and renewal.

pub mod observe;
pub mod owned;
pub mod plan;
pub mod request_limiter;
pub mod requests;
