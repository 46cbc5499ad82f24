//! MtlsDomain: desired -> observe -> plan -> execute -> report.

pub mod access_request;
pub mod claims;
pub mod clients;
pub mod conflicts;
pub mod context;
pub mod controller;
pub mod course;
pub mod credentials;
pub mod deletion;
pub mod execute;
pub mod mappers;
pub mod observe;
pub mod permission;
pub mod plan;
pub mod quota_class;
pub mod references;
pub mod report;
pub mod requeue;
pub mod serving;
pub mod teardown;

#[cfg(test)]
pub(crate) mod simulation;
