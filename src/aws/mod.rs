//! AWS, one file per service: thin typed calls over the wire, results in the operator's types, and the
//! planned writes ([`action`]). No SDK type leaves this module, and the module decides nothing: the planner
//! does. Every call passes [`call_guard::Gate`] and every failure passes [`errors`].

pub mod acm;
pub mod action;
pub mod arn;
pub mod call_guard;
pub mod denial;
pub mod errors;
pub mod gateway;
pub mod lambda;
pub mod partitions;
pub mod quota;
pub mod rates;
pub mod route53;
pub mod s3;
pub mod session;
pub mod tags;

use std::time::Duration;

/// Time limit of a call. The SDK makes one attempt: a caller that repeats a call reconciles again first.
pub const ATTEMPT: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(crate) mod fake;
