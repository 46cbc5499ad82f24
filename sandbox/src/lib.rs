//! The local world: real Kubernetes, an AWS emulator, an edge and a DNS server, for `cargo demo`,
//! `cargo sandbox` and tests/.

pub mod api_proxy;
pub mod aws;
pub mod cache;
pub mod control;
pub mod control_plane;
pub mod dns;
pub mod echo;
pub mod edge;
mod envtest;
mod etcd;
mod kubeconfig;
pub mod kubernetes;
pub mod operator;
pub mod prepare;
pub mod process;
pub mod requirements;
pub mod tools;
pub mod world;
