//! ClientCertificate: desired -> observe -> plan -> execute -> report. The stages are in [`crate::issuance`].

pub mod admission;
pub mod apply;
pub mod conflicts;
pub mod context;
pub mod controller;
pub mod due_queue;
pub mod mappers;
pub mod report;
pub mod secret_index;

#[cfg(test)]
pub(crate) mod fixture;
