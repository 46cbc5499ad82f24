//! Shared parts of the end-to-end tests, none of them a test: the local world, the environment of one test,
//! and helpers by the kind of resource that they make, change or read.
pub mod attack;
pub mod aws;
pub mod edge_calls;
#[path = "../../gitops/engines.rs"]
pub mod engines;
pub mod example_manifests;
#[path = "../../chart/helm.rs"]
pub mod helm;
pub mod journal;
pub mod kubernetes;
pub mod leaves;
pub mod machine_share;
pub mod partner_ca;
#[path = "../../../benches/common/rates.rs"]
pub mod rates;
pub mod scenario;
pub mod soak_world;
pub mod test_env;
pub mod world;
