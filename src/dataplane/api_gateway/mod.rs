//! API Gateway as the front end: the custom domain, its API mappings, default endpoints, identity headers and
//! authorizers. Plans are pure; only [`observe`] reads.

pub mod apis;
pub mod authorizer;
pub mod contention;
pub mod custom_domain;
pub mod default_endpoint;
pub mod deployments;
pub mod front;
pub mod identity;
pub mod mappings;
pub mod observe;
pub mod ownership;
pub mod parameters;
