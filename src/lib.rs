//! mtls-operator: manages API Gateway custom domains behind mutual TLS from custom resources.
#![forbid(unsafe_code)]

pub mod api;
pub mod aws;
pub mod background;
pub mod cli;
pub mod controllers;
pub mod dataplane;
pub mod dns;
pub mod grants;
pub mod issuance;
pub mod model;
pub mod observation;
pub mod operator;
pub mod pki;
pub mod policy;
pub mod probe;
pub mod proxy;
pub mod runtime;
pub mod server_certificate;
pub mod status;
pub mod telemetry;
pub mod trust;
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
