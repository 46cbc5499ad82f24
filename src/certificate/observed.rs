//! What is there: the world around one `ClientCertificate`, in plain data. No I/O here; `observe` fills it, `plan` judges it.
use crate::{
    api::conditions::Reason,
    conditions::Standing,
    domain::served::Trust,
    pki::{authority::Issuer, inspect::SecretData},
};

pub struct Observed {
    pub domain_gone: bool,
    /// Who issues, with its key, or why nobody does.
    pub issuer: Result<Issuer, Problem>,
    /// The Secret of the certificate's name.
    pub secret: Option<Held>,
    /// What the domain lets in now; `None` while that is not known.
    pub trust: Option<Trust>,
}

/// The Secret that holds a leaf and its key.
pub struct Held {
    pub data: SecretData,
    /// It carries our mark for this very certificate.
    pub ours: bool,
    /// How often a leaf was issued into it.
    pub revision: i64,
    pub found: k8s_openapi::api::core::v1::Secret,
}

/// Why something is not there, ready for a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub standing: Standing,
    pub reason: Reason,
    pub message: String,
}
