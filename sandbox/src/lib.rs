//! The local world: real Kubernetes, a double of AWS, an edge and a DNS server, for `cargo demo`, `cargo sandbox` and tests/.

pub mod cache;
//pub mod kubernetes;
//pub mod operator;
pub mod process;
pub mod requirements;
