//! MtlsDomain: desired -> observe -> plan -> execute -> report.

pub mod access_request;
pub mod active_trust;
pub mod bypass;
pub mod cache;
pub mod clients;
pub mod conflicts;
pub mod contention;
pub mod controller;
pub mod credentials;
mod deletion;
pub mod desired;
pub mod execute;
pub mod generated;
mod mappers;
pub mod observe;
pub mod observed;
mod permission;
pub mod plan;
pub mod records;
pub mod report;
pub mod request_limiter;
mod serving;
#[cfg(test)]
mod simulation;
pub mod sources;
pub mod teardown;
