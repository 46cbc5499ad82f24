//! Observability of the operator: logs, metrics, probes.

#[cfg(test)]
mod docs;
pub mod exposition;
pub mod health;
pub mod heartbeat;
pub mod logging;
pub mod metrics;
pub mod objects;
pub mod policy_file;
pub mod process;
