//! ClientCertificate: desired -> observe -> plan -> execute -> report.

pub mod claims;
pub mod controller;
pub mod desired;
pub mod execute;
pub mod issuers;
pub mod later;
pub mod observe;
pub mod observed;
pub mod plan;
pub mod report;
mod self_signed;
#[cfg(test)]
mod simulation;
pub mod uses;
mod wakes;
