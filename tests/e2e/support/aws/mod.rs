//! Resources in AWS: of an environment, of users before it, and of other accounts.
pub mod account;
pub mod back_ends;
pub mod buckets;
pub mod existing_resources;
pub mod hosted_zones;
pub mod mapped_apis;
pub mod registrar;
pub mod server_certificates;
pub mod truststores;
