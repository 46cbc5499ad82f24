//! Reports of the operator to its users: metrics, Events, probes, logs, causes in conditions, and the
//! doctor's findings.
mod causes;
mod doctor;
mod metrics_and_probes;
