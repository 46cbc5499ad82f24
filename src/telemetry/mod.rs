//! What the operator shows of itself: logs, metrics, probes.

#[cfg(test)]
mod docs;
pub mod exposition;
pub mod logging;
pub mod metrics;
pub mod objects;
pub mod policy_file;
pub mod probes;
pub mod process;
pub mod pulse;
