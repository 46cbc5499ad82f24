//! Failures of calls to AWS, in six kinds. This module alone derives the kind, from the error code and the
//! HTTP status.
//!
//! Services answer with codes that their models do not declare, so codes are compared as strings. The text
//! counts only where the code is ambiguous (`BY_TEXT`). Displayed text is stable: no request ids, session
//! names or times.

use std::{error::Error as StdError, sync::Arc};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::{
    config::http::HttpResponse,
    error::{ConnectorError, ProvideErrorMetadata, SdkError},
};

/// Call that assumes a role. It precedes another call, which then fails with its error: see
/// `Error::from_sdk`.
pub const ASSUME_ROLE: &str = "sts:AssumeRole";

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

/// Class of a failure, by which the caller decides how to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The resource that the call names does not exist.
    NotFound,
    /// The resource exists already, is in use, is being changed, or is not in the state that the call
    /// requires.
    Conflict,
    /// The name is taken: in this account, or by another account where names are unique across accounts.
    Taken,
    /// AWS rejects the request; the request, or a resource or setting that it depends on, has to change.
    Invalid,
    /// Denied by a policy; [`Error::iam_action`] names the action to allow.
    Denied,
    /// Too many calls; the quota's bucket is empty.
    Throttled,
    /// Missing or unreadable answer, or an internal error of AWS: the call may have taken effect.
    Transient,
}

impl Kind {
    /// Returns the value of the metric label: one word, from a closed set.
    pub fn word(self) -> &'static str {
        match self {
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Taken => "taken",
            Kind::Invalid => "invalid",
            Kind::Denied => "denied",
            Kind::Throttled => "throttled",
            Kind::Transient => "transient",
        }
    }
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
        let code = error.code().map(str::to_owned);
        let said = error.message().map(stable);
        let (kind, message) = match &error {
            SdkError::ServiceError(_) => (
                classify(code.as_deref(), status, said.as_deref().unwrap_or_default()),
                said.filter(|text| !text.is_empty())
                    .or_else(|| code.clone())
                    .unwrap_or_else(|| format!("HTTP {}", status.unwrap_or_default())),
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
            _ => (Kind::Transient, "the answer could not be read".into()),
        };
        Error {
            kind,
            operation,
            code,
            message,
            source: Some(Arc::new(error)),
        }
    }

    /// Returns why AWS accepts no credentials of this process, in stable words; `None` when the call failed
    /// for another reason. A denial by a policy shows that the credentials are valid.
    pub fn without_credentials(&self) -> Option<String> {
        if self.code.as_deref().is_some_and(|code| UNUSABLE.contains(&code)) {
            return Some(format!("{self}"));
        }
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

/// Codes with the same meaning in every service. For other codes the shape decides ([`by_shape`]), then the
/// status.
const BY_CODE: &[(&str, Kind)] = &[
    ("NotFound", Kind::NotFound), // S3's HEAD answers have no body: the SDK fills in the status' name
    ("AlreadyExistsException", Kind::Conflict),
    ("BucketAlreadyExists", Kind::Conflict),
    ("BucketAlreadyOwnedByYou", Kind::Conflict),
    ("ConcurrentModification", Kind::Conflict),
    ("ConditionalRequestConflict", Kind::Conflict),
    ("ConflictException", Kind::Conflict),
    ("InvalidStateException", Kind::Conflict), // ACM: not in a state that allows this
    ("OperationAborted", Kind::Conflict),
    ("PreconditionFailed", Kind::Conflict),
    ("RequestInProgressException", Kind::Conflict),
    ("ResourceInUseException", Kind::Conflict),
    // S3, when the KMS key for an object does not exist or must not be used: the request has to name another
    // key.
    ("KMS.DisabledException", Kind::Invalid),
    ("KMS.KMSInvalidStateException", Kind::Invalid),
    ("KMS.NotFoundException", Kind::Invalid),
    ("AllAccessDisabled", Kind::Denied),
    ("AuthFailure", Kind::Denied),
    ("InvalidAccessKeyId", Kind::Denied),
    ("InvalidClientTokenId", Kind::Denied),
    ("NotAuthorized", Kind::Denied),
    ("OptInRequired", Kind::Denied),
    ("SignatureDoesNotMatch", Kind::Denied),
    ("UnrecognizedClientException", Kind::Denied),
    ("BandwidthLimitExceeded", Kind::Throttled),
    ("RequestLimitExceeded", Kind::Throttled),
    ("RequestThrottled", Kind::Throttled),
    ("RequestThrottledException", Kind::Throttled),
    ("SlowDown", Kind::Throttled),
    // Another change of the zone is in progress, possibly one of our own.
    ("PriorRequestNotComplete", Kind::Transient),
    // Credentials renew and clocks synchronise without the operator.
    ("ExpiredToken", Kind::Transient),
    ("ExpiredTokenException", Kind::Transient),
    ("RequestExpired", Kind::Transient),
    ("RequestTimeTooSkewed", Kind::Transient),
    ("RequestTimeout", Kind::Transient),
    ("RequestTimeoutException", Kind::Transient),
];

/// Codes by which AWS rejects the credentials themselves.
const UNUSABLE: &[&str] = &[
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Ambiguous codes, where only the text tells: code, a part of the text, kind. Messages as AWS's users report
/// them.
const BY_TEXT: &[(&str, &str, Kind)] = &[
    // CreateDomainName of a name that is taken, in this account or in another. ConflictException means that
    // the change collided with another one.
    ("BadRequestException", "already exists", Kind::Taken),
    ("BadRequestException", "concurrent modification", Kind::Conflict),
    // Mapping to a stage that has not propagated yet: the operator checked before that the stage exists.
    ("BadRequestException", "Invalid stage identifier", Kind::Transient),
    // The caller may not read the truststore object. A missing version has another text and stays Invalid.
    ("BadRequestException", "Unable to access truststore", Kind::Denied),
    // CREATE of an existing record; DELETE of a record that has changed or is gone; CNAME beside other
    // records.
    ("InvalidChangeBatch", "already exists", Kind::Conflict),
    ("InvalidChangeBatch", "do not match", Kind::Conflict),
    ("InvalidChangeBatch", "was not found", Kind::NotFound),
];

/// Returns the kind of a failed call that AWS answered.
fn classify(code: Option<&str>, status: Option<u16>, message: &str) -> Kind {
    let Some(code) = code else {
        return by_status(status);
    };
    // Some services send a type URI or a namespace: `com.amazonaws...#ThrottlingException:http://...`.
    let code = code.split_once('#').map_or(code, |(_, name)| name);
    let code = code.split_once(':').map_or(code, |(name, _)| name);
    if let Some((_, _, kind)) = BY_TEXT
        .iter()
        .find(|(c, text, _)| *c == code && message.contains(text))
    {
        return *kind;
    }
    if let Some((_, kind)) = BY_CODE.iter().find(|(c, _)| *c == code) {
        return *kind;
    }
    by_shape(code).unwrap_or_else(|| by_status(status))
}

fn by_shape(code: &str) -> Option<Kind> {
    if code.starts_with("Throttl") || code.starts_with("TooManyRequests") {
        Some(Kind::Throttled)
    } else if code.starts_with("NoSuch") || code.ends_with("NotFound") || code.ends_with("NotFoundException")
    {
        Some(Kind::NotFound)
    } else if code.starts_with("AccessDenied") || code.starts_with("Unauthorized") {
        Some(Kind::Denied)
    } else {
        None
    }
}

fn by_status(status: Option<u16>) -> Kind {
    match status {
        Some(404) => Kind::NotFound,
        Some(401 | 403) => Kind::Denied,
        Some(409 | 412) => Kind::Conflict,
        Some(429) => Kind::Throttled,
        Some(408) => Kind::Transient,
        Some(300..=499) => Kind::Invalid,
        _ => Kind::Transient,
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
        "s3:PutObject" => &["s3:PutObject", "kms:GenerateDataKey"],
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

/// Returns AWS's message without the parts that differ between calls: request ids, times, and the session
/// name in an assumed role's ARN, which changes with every renewal of the credentials.
fn stable(message: &str) -> String {
    let mut text = message.to_owned();
    while let Some((start, end)) = request_id(&text) {
        text.replace_range(start..end, "");
    }
    let word = |word: &str| match word.split_once(":assumed-role/") {
        _ if is_time(word) => "(time)".to_owned(),
        Some((account, role)) => {
            let role = role.split('/').next().unwrap_or_default();
            format!("{account}:assumed-role/{role}")
        }
        None => word.to_owned(),
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Returns the range of a request id: the whole bracket around it, or `RequestId: <id>`.
fn request_id(text: &str) -> Option<(usize, usize)> {
    let lower = text.to_ascii_lowercase(); // same length
    let (at, label) = ["request id", "requestid", "request-id"]
        .iter()
        .find_map(|label| Some((lower.find(label)?, label)))?;
    if let Some(open) = text[..at]
        .rfind('(')
        .filter(|open| !text[*open..at].contains(')'))
        && let Some(close) = text[at..].find(')')
    {
        return Some((open, at + close + 1));
    }
    let value = at + label.len();
    let value = value + text[value..].find(|c| !matches!(c, ':' | '=' | ' '))?;
    let end = text[value..].find(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ')'));
    Some((at, end.map_or(text.len(), |end| value + end)))
}

/// True for `20261124T120000Z` or `2026-11-24T12:00:00Z`, as signature errors contain them.
fn is_time(word: &str) -> bool {
    let digits: String = word.chars().filter(char::is_ascii_digit).collect();
    let rest: String = word.chars().filter(|c| c.is_ascii_alphabetic()).collect();
    digits.len() >= 14 && rest == "TZ"
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
