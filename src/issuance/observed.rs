//! Observed state of one `ClientCertificate`, in plain data. No I/O here; `observe` fills it, and `plan`
//! evaluates it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use super::{issuer::Issuer, pace::record::Pace};

use crate::{
    api::conditions::Reason,
    pki::{certificate::Certificate, inspect::SecretData, pem_certificates::parse_pem_bundle},
    status::StepStatus,
    trust::active_trust::Trust,
};

pub struct Observed {
    pub domain_gone: bool,
    /// Issuer, or the reason why no issuer can issue; `Ok(None)` when the certificate signs itself.
    pub issuer: Result<Option<Issuer>, Problem>,
    /// Secret of the certificate.
    pub secret: Option<Held>,
    /// Staged Secret: the next self-signed certificate, or the key of a request that the issuer may have.
    pub next: Option<Held>,
    pub past: Past,
    /// Password of the keystore; `None` without keystore.
    pub password: Option<Result<Password, Problem>>,
    /// Trust of the domain; `None` while it is unknown.
    pub trust: Option<Trust>,
}

/// Earlier leaves of the certificate. They only delay the next leaf.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Number of issued leaves according to the status. It is the only count when the Secret is lost.
    pub last_revision: i64,
    /// Ends of the leaves in the status that the next leaf supersedes, or that are superseded already.
    pub superseded: Vec<Timestamp>,
    pub pace: Pace,
}

impl Observed {
    /// Returns the number of issued leaves. The Secret's count comes first. When the Secret is lost, the
    /// status has the count. After a restore without either, the count begins again.
    pub fn revision(&self) -> i64 {
        self.secret
            .as_ref()
            .filter(|s| s.ours)
            .map_or(self.past.last_revision, |s| s.revision)
    }
}

/// Password of a keystore, with the Secret that has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    pub text: Zeroizing<String>,
    /// `metadata.uid` of the Secret.
    pub uid: String,
    /// `metadata.resourceVersion` of the Secret.
    pub version: String,
}

/// Secret with a leaf and its key.
pub struct Held {
    pub data: SecretData,
    /// True when the Secret carries the label of this certificate and has the right type.
    pub ours: bool,
    /// Number of leaves issued into the Secret.
    pub revision: i64,
    /// Last renewal request that the operator has answered.
    pub renewed: Option<String>,
    /// True when the operator made `keystore.p12` of exactly this key, chain and password.
    pub keystore_fits: bool,
    /// True when the operator has written `keystore.p12`.
    pub has_keystore: bool,
    /// Other field managers that wrote `tls.crt`, `tls.key` or `ca.crt` over the operator's.
    pub writers: Vec<String>,
    pub found: Secret,
}

impl Held {
    /// Returns the leaf of the Secret; `None` when it is not readable.
    pub fn leaf(&self) -> Option<Certificate> {
        parse_pem_bundle(self.data.tls_crt.as_ref()?)
            .ok()?
            .into_iter()
            .next()
    }
}

/// Reason why an object is missing or unusable, in the form of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StepStatus,
    pub reason: Reason,
    pub message: String,
}
