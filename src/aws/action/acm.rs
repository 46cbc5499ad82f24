//! Actions on certificates.

use std::fmt;

use super::context::{gone, keys};

use crate::aws::{acm::CertificateRequest, errors::Error, session::Session, tags::Tags};

/// Action on a certificate. The operator can repeat it without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum AcmAction {
    RequestCertificate(CertificateRequest),
    DeleteCertificate {
        arn: String,
    },
    /// Adds the tags that the spec and the operator's configuration demand.
    TagCertificate {
        arn: String,
        tags: Tags,
    },
    /// Removes the operator's tags from a certificate that stays.
    ReleaseCertificate {
        arn: String,
        keys: Vec<String>,
    },
}

impl fmt::Display for AcmAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcmAction::RequestCertificate(r) => write!(f, "request certificate for {}", r.names.join(", ")),
            AcmAction::DeleteCertificate { arn } => write!(f, "delete certificate {arn}"),
            AcmAction::TagCertificate { arn, tags } => {
                write!(f, "tag {arn} with {}", keys(tags))
            }
            AcmAction::ReleaseCertificate { arn, .. } => write!(f, "remove the ownership tag from {arn}"),
        }
    }
}

impl AcmAction {
    /// Makes the call. Returns the ARN of a requested certificate.
    pub async fn perform(&self, session: &Session) -> Result<Option<String>, Error> {
        let done = match self {
            AcmAction::RequestCertificate(request) => return session.acm.request(request).await.map(Some),
            AcmAction::DeleteCertificate { arn } => session.acm.delete(arn).await,
            AcmAction::TagCertificate { arn, tags } => session.acm.tag(arn, tags).await,
            AcmAction::ReleaseCertificate { arn, keys } => session.acm.untag(arn, keys).await,
        };
        gone(done).map(|()| None)
    }
}
