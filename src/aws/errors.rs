//! Failures of calls to AWS, each of one kind. This module alone derives the kind, from the error code and
//! the HTTP status (`classify`).
//!
//! Services answer with codes that their models do not declare, so codes are compared as strings. Displayed
//! text is stable (`stable`): no request ids, session names or times, and nothing of the signed request.

mod classify;
mod kind;
mod stable;

use std::{error::Error as StdError, sync::Arc};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::{
    config::http::HttpResponse,
    error::{ConnectorError, ProvideErrorMetadata, SdkError},
};

pub use self::kind::Kind;

use self::{
    classify::classify,
    stable::{quotes_request, stable},
};
use super::denial::Denial;

/// Call that assumes a role. It precedes another call, which then fails with its error: see
/// `Error::from_sdk`.
pub const ASSUME_ROLE: &str = "sts:AssumeRole";

/// Message about an answer with a body that is not of the service's form.
const UNREADABLE: &str = "the answer could not be read";

/// Failed call. `Display` is fit for a condition's message: the same failure reads the same every time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct Error {
    pub kind: Kind,
    /// Service and operation, `acm:RequestCertificate`.
    pub operation: &'static str,
    /// AWS error code; none when no readable answer came.
    pub code: Option<String>,
    /// AWS's message without the parts that change from call to call, or the operator's message when no
    /// answer came.
    pub message: String,
    /// Full error of the SDK; for logs only.
    #[source]
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Builds a failure that the operator found itself, without an AWS error code.
    pub(crate) fn ours(kind: Kind, operation: &'static str, message: impl Into<String>) -> Error {
        Error {
            kind,
            operation,
            code: None,
            message: message.into(),
            source: None,
        }
    }

    /// Converts the SDK's error. When the call was not made because its role could not be assumed, returns
    /// the error of assuming the role.
    pub(crate) fn from_sdk<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        if let Some(before) = chain(&error).find_map(|e| e.downcast_ref::<Error>()) {
            return before.clone();
        }
        let status = error.raw_response().map(|r| r.status().as_u16());
        let is_secret = error.message().is_some_and(quotes_request);
        let code = error.code().map(str::to_owned);
        let said = error.message().map(stable);
        let (kind, message) = match &error {
            SdkError::ServiceError(_) => (
                classify(code.as_deref(), status, said.as_deref().unwrap_or_default()),
                said.filter(|text| !text.is_empty())
                    .or_else(|| code.clone())
                    .unwrap_or_else(|| match status {
                        // A successful call whose body the SDK cannot read.
                        None | Some(200..=299) => UNREADABLE.into(),
                        Some(status) => format!("HTTP {status}"),
                    }),
            ),
            SdkError::ConstructionFailure(_) => (
                Kind::Invalid,
                format!("the request cannot be made: {}", innermost(&error)),
            ),
            SdkError::TimeoutError(_) => (Kind::Transient, "no answer in time".into()),
            SdkError::DispatchFailure(failure) => {
                let message = match failure.as_connector_error() {
                    Some(e) if e.is_timeout() => "no answer in time".into(),
                    Some(e) => undelivered(e),
                    None => "no answer".into(),
                };
                (Kind::Transient, message)
            }
            _ => (Kind::Transient, UNREADABLE.into()),
        };
        let mut error = Error {
            kind,
            operation,
            code,
            message,
            // The SDK's error contains the whole message.
            source: (!is_secret).then(|| Arc::new(error) as _),
        };
        if kind == Kind::Transient && error.without_credentials().is_some() {
            error.kind = Kind::Credentials;
        }
        error
    }

    /// True when AWS rejects the time of the request: the operator's clock is wrong.
    pub fn is_about_time(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        matches!(code, "RequestExpired" | "RequestTimeTooSkewed") || classify::is_about_time(&self.message)
    }

    /// True when another party has to lift the refusal, outside the operator's IAM policy: the same call soon
    /// cannot help.
    pub fn is_lasting(&self) -> bool {
        match self.kind {
            Kind::Quota | Kind::Protected => true,
            Kind::Denied => self.denial().is_lasting(),
            _ => false,
        }
    }

    /// Returns what denies the call, for a call of kind [`Kind::Denied`].
    pub fn denial(&self) -> Denial {
        Denial::of(self.code.as_deref(), self.iam_action(), &self.message)
    }

    /// Returns why this process has no credentials, in stable words; `None` when the call failed for another
    /// reason.
    pub fn without_credentials(&self) -> Option<String> {
        let source = self.source.as_deref()?;
        let at = chain(source).find_map(|e| e.downcast_ref::<CredentialsError>())?;
        let is_final = match at {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => true,
            CredentialsError::ProviderTimedOut(_) => false,
            // The credential source refused, or did not answer.
            _ => !chain(at).any(|e| e.is::<ConnectorError>() || e.is::<std::io::Error>()),
        };
        let mut said: Vec<String> = chain(at).map(|e| stable(&e.to_string())).collect();
        said.dedup();
        // The SDK prefixes the result of each credential source with the same text.
        is_final.then(|| {
            said.join(": ")
                .replace("the credential provider was not enabled: ", "")
        })
    }

    /// Returns the action that an IAM policy has to allow for this call. Where a call needs several, returns
    /// the action in AWS's message. Source: Service Authorization Reference; API Gateway's actions are HTTP
    /// verbs.
    pub fn iam_action(&self) -> &'static str {
        let actions = iam_actions(self.operation);
        let named = |action: &&&str| self.message.contains(**action);
        if self.message.starts_with("Unable to access truststore") {
            return "s3:GetObjectVersion"; // API Gateway reads it with the caller's rights
        }
        actions
            .iter()
            .find(named)
            .or(actions.first())
            .unwrap_or(&self.operation)
    }
}

/// Returns the actions that an IAM policy has to allow for a call; empty when the only action has the call's
/// own name.
pub fn iam_actions(operation: &'static str) -> &'static [&'static str] {
    match operation {
        "apigateway:CreateDomainName" => &[
            "apigateway:POST",
            "apigateway:PUT",
            "apigateway:AddCertificateToDomain",
            "iam:CreateServiceLinkedRole",
        ],
        "apigateway:UpdateDomainName" => &[
            "apigateway:PATCH",
            "apigateway:AddCertificateToDomain",
            "apigateway:RemoveCertificateFromDomain",
        ],
        "apigateway:DeleteDomainName" => &["apigateway:DELETE", "apigateway:RemoveCertificateFromDomain"],
        "apigateway:UntagResource" => &["apigateway:DELETE"],
        "apigateway:TagResource" => &["apigateway:POST", "apigateway:PUT"],
        _ if operation.starts_with("apigateway:Get") => &["apigateway:GET"],
        _ if operation.starts_with("apigateway:Create") => &["apigateway:POST"],
        _ if operation.starts_with("apigateway:Update") => &["apigateway:PATCH"],
        _ if operation.starts_with("apigateway:Delete") => &["apigateway:DELETE"],
        // Tags in the request need a permission of their own.
        "acm:RequestCertificate" => &["acm:RequestCertificate", "acm:AddTagsToCertificate"],
        "s3:HeadBucket" => &["s3:ListBucket"],
        "s3:ListObjectVersions" => &["s3:ListBucketVersions"],
        "s3:HeadObject" => &["s3:GetObject"],
        // The operator's calls name the version of every versioned object.
        "s3:GetObject" => &["s3:GetObjectVersion", "s3:GetObject", "kms:Decrypt"],
        "s3:PutObject" => &["s3:PutObject", "kms:GenerateDataKey", "s3:PutObjectTagging"],
        // Tags in the request need a permission of their own.
        "s3:CreateBucket" => &["s3:CreateBucket", "s3:TagResource"],
        "s3:PutPublicAccessBlock" => &["s3:PutBucketPublicAccessBlock"],
        "s3:PutBucketEncryption" => &["s3:PutEncryptionConfiguration"],
        "s3:GetPublicAccessBlock" => &["s3:GetBucketPublicAccessBlock"],
        "s3:GetBucketEncryption" => &["s3:GetEncryptionConfiguration"],
        "s3:DeleteObject" => &["s3:DeleteObjectVersion"],
        _ => &[],
    }
}

/// Returns why a request got no answer, in stable words: the causes in the error chain contain addresses and
/// ports.
fn undelivered(error: &(dyn StdError + 'static)) -> String {
    for e in chain(error) {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return "connection refused".into();
        }
        if e.to_string().contains("credential") {
            return "no usable credentials".into();
        }
    }
    "no answer: the connection could not be made, or broke".into()
}

/// Iterates over the error and its causes, down to the first cause.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| e.source())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests;
