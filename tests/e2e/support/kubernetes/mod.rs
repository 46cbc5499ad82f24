//! Objects in Kubernetes, their states over time, and users with rights of their own.
pub mod domains;
pub mod objects;
pub mod planted_secrets;
pub mod policy_files;
pub mod recorder;
pub mod secrets;
pub mod teams;
pub mod tenants;
pub mod trust_sources;
