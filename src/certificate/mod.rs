//! ClientCertificate: desired -> observe -> plan -> execute -> report.

pub mod conflicts;
pub mod controller;
pub mod desired;
pub mod execute;
pub mod issuers;
pub mod later;
mod mappers;
pub mod observe;
pub mod observed;
pub mod plan;
pub mod report;
mod self_signed;
#[cfg(test)]
mod simulation;
pub mod uses;
