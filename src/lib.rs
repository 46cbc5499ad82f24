//! mtls-operator: manages API Gateway custom domains behind mutual TLS from custom resources.
#![forbid(unsafe_code)]

pub mod api;
pub mod aws;
pub(crate) mod background;
pub mod cli;
pub(crate) mod controllers;
pub mod dataplane;
pub(crate) mod dns;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub(crate) mod grants;
pub(crate) mod issuance;
pub(crate) mod model;
pub(crate) mod observation;
pub mod operator;
pub mod pki;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod runtime;
pub(crate) mod server_certificate;
pub(crate) mod status;
pub mod telemetry;
pub(crate) mod trust;
/// Number of cases of a property test: `usual`, unless the variable `PROPTEST_CASES` sets a longer run.
#[cfg(test)]
pub(crate) fn cases(usual: u32) -> proptest::prelude::ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    // Cases that a test rejects do not fail a long run.
    let max_global_rejects = u32::MAX;
    proptest::prelude::ProptestConfig {
        cases: asked.unwrap_or(usual),
        max_global_rejects,
        ..Default::default()
    }
}
