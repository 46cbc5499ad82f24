//! Finding of the doctor: a cause with its remedy. Pure.

use serde::Serialize;

/// Problem that keeps callers out, or lets them bypass mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Code of the finding, as docs/troubleshooting.md lists it.
    pub what: &'static str,
    pub cause: String,
    pub remedy: String,
}

pub(crate) fn finding(
    what: &'static str,
    cause: impl Into<String>,
    remedy: impl Into<String>,
) -> Vec<Finding> {
    vec![Finding {
        what,
        cause: cause.into(),
        remedy: remedy.into(),
    }]
}
