//! Observability of the operator: logs, metrics, probes.

pub mod cache_metrics;
pub mod exposition;
pub mod health;
pub mod heartbeat;
pub mod logging;
pub mod metrics;
pub mod metrics_auth;
pub mod object_metrics;
pub mod process;
pub mod queue_metrics;

#[cfg(test)]
pub(crate) mod docs;
