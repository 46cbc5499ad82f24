//! AWS, one file per service: thin typed calls over the wire, results in our own words. No SDK type leaves
//! this module, and nothing in it decides anything: that is the planner's. Every call passes [`gate::Gate`]
//! and every failure [`errors`].

pub mod acm;
pub mod errors;
#[cfg(test)]
pub(crate) mod fake;
pub mod gate;
pub mod gateway;
pub mod lambda;
pub mod quota;
pub mod rates;
pub mod route53;
pub mod s3;
pub mod session;
