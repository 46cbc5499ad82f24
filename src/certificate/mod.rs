//! ClientCertificate: desired -> observe -> plan -> execute -> report.

pub mod conflicts;
pub mod controller;
pub mod desired;
pub mod due_queue;
pub mod execute;
mod mappers;
pub mod observe;
pub mod observed;
pub mod plan;
pub mod report;
pub mod secret_index;
mod self_signed;
pub mod signing_key_cache;
#[cfg(test)]
mod simulation;
