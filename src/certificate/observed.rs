//! What is there: the world around one `ClientCertificate`, in plain data. No I/O here; `observe` fills it,
//! `plan` judges it.
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use crate::{
    api::conditions::Reason,
    conditions::StepStatus,
    domain::active_trust::Trust,
    pki::{
        authority::Issuer,
        certificate::{Certificate, parse_pem_bundle},
        inspect::SecretData,
    },
};

pub struct Observed {
    pub domain_gone: bool,
    /// Who issues, with its key, or why nobody does; `None`: the certificate signs itself.
    pub issuer: Result<Option<Arc<Issuer>>, Problem>,
    /// The Secret of the certificate's name.
    pub secret: Option<Held>,
    /// The Secret of the next self-signed certificate.
    pub next: Option<Held>,
    /// How often a leaf was issued, as the status has it: all that is left when the Secret is lost, and
    /// nothing to decide by.
    pub last_revision: i64,
    /// The password for the keystore, when there is to be one.
    pub password: Option<Result<Zeroizing<String>, Problem>>,
    /// What the domain lets in now; `None` while that is not known.
    pub trust: Option<Trust>,
}

impl Observed {
    /// How often a leaf was issued. The Secret knows best; when it is lost the status does, and after a
    /// restore without either the count begins again.
    pub fn revision(&self) -> i64 {
        self.secret
            .as_ref()
            .filter(|s| s.ours)
            .map_or(self.last_revision, |s| s.revision)
    }
}

/// The Secret that holds a leaf and its key.
pub struct Held {
    pub data: SecretData,
    /// It carries the ownership tag for this very certificate, and is of the type that it needs.
    pub ours: bool,
    /// How often a leaf was issued into it.
    pub revision: i64,
    /// The last request for a renewal that has been answered.
    pub renewed: Option<String>,
    /// `keystore.p12` holds just this key and chain under the password that is wanted.
    pub keystore_fits: bool,
    pub found: Secret,
}

impl Held {
    /// The leaf in it, if that can be read.
    pub fn leaf(&self) -> Option<Certificate> {
        parse_pem_bundle(self.data.tls_crt.as_ref()?)
            .ok()?
            .into_iter()
            .next()
    }
}

/// Why something is not there, ready for a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StepStatus,
    pub reason: Reason,
    pub message: String,
}
