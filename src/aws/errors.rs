//! What can go wrong with a call to AWS, in six kinds, decided once, here, from the error code and the HTTP status.
//!
//! Services answer with codes that their models do not declare, so codes are compared as strings. Text is looked at only where
//! the code says nothing ([`BY_TEXT`]). What is shown is stable: no request ids, session names or times.

use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use std::error::Error as StdError;
use std::sync::Arc;

/// A failed call. `Display` is fit for a condition's message: the same failure reads the same every time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct Error {
    pub kind: Kind,
    /// Service and operation, `acm:RequestCertificate`.
    pub operation: &'static str,
    /// AWS's error code; none when no readable answer came.
    pub code: Option<String>,
    /// AWS's own words without what changes from call to call, or ours when no answer came.
    pub message: String,
    /// What the SDK knows beyond this; for logs only.
    #[source]
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What a failure means for whoever made the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thing the call names is not there.
    NotFound,
    /// It is there already, in use, being changed, or not as the call supposed.
    Conflict,
    /// AWS will not do this as it was asked; another request, or something beside it, has to change.
    Invalid,
    /// Not allowed; [`Error::iam_action`] says what to allow.
    Denied,
    /// Too many calls; the quota's bucket has been emptied.
    Throttled,
    /// No answer, an answer that could not be read, or a fault of AWS's: the call may have taken effect.
    Transient,
}

impl Kind {
    /// For metrics: one word, from a closed set.
    pub fn word(self) -> &'static str {
        match self {
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Invalid => "invalid",
            Kind::Denied => "denied",
            Kind::Throttled => "throttled",
            Kind::Transient => "transient",
        }
    }
}

impl Error {
    /// A failure that we found ourselves, without a code of AWS's.
    pub(super) fn ours(kind: Kind, operation: &'static str, message: impl Into<String>) -> Error {
        Error {
            kind,
            operation,
            code: None,
            message: message.into(),
            source: None,
        }
    }

    pub(super) fn from_sdk<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
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

    /// The action that an IAM policy has to allow for this call. Where a call needs several, the one AWS's message names.
    /// Source: Service Authorization Reference; API Gateway's actions are HTTP verbs.
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

/// Codes that mean one thing wherever they come from. What is not here goes by its shape ([`by_shape`]), then by the status.
const BY_CODE: &[(&str, Kind)] = &[
    ("NotFound", Kind::NotFound), // S3's HEAD answers have no body: the SDK fills in the status' name
    ("AlreadyExistsException", Kind::Conflict),
    ("BucketAlreadyExists", Kind::Conflict),
    ("BucketAlreadyOwnedByYou", Kind::Conflict),
    ("ConditionalRequestConflict", Kind::Conflict),
    ("ConflictException", Kind::Conflict),
    ("InvalidStateException", Kind::Conflict), // ACM: not in a state that allows this
    ("OperationAborted", Kind::Conflict),
    ("PreconditionFailed", Kind::Conflict),
    ("RequestInProgressException", Kind::Conflict),
    ("ResourceInUseException", Kind::Conflict),
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
    // Somebody else's change of the zone is in work, or ours of a moment ago.
    ("PriorRequestNotComplete", Kind::Transient),
    // Credentials that are renewed by themselves, clocks that are set by themselves.
    ("ExpiredToken", Kind::Transient),
    ("ExpiredTokenException", Kind::Transient),
    ("RequestExpired", Kind::Transient),
    ("RequestTimeTooSkewed", Kind::Transient),
    ("RequestTimeout", Kind::Transient),
    ("RequestTimeoutException", Kind::Transient),
];

/// Codes that say nothing more than "no", where only the text tells: code, a part of the text, kind. Messages as AWS's users
/// report them.
const BY_TEXT: &[(&str, &str, Kind)] = &[
    // CreateDomainName of a name that is taken, in this account or in another.
    ("BadRequestException", "already exists", Kind::Conflict),
    // A mapping to a stage that is not known everywhere yet: that it exists was looked at before.
    (
        "BadRequestException",
        "Invalid stage identifier",
        Kind::Transient,
    ),
    // The caller may not read the truststore object; a version that is not there has another text and stays Invalid.
    (
        "BadRequestException",
        "Unable to access truststore",
        Kind::Denied,
    ),
    // CREATE of a record that is there; DELETE of one that is another by now, or gone; CNAME beside others.
    ("InvalidChangeBatch", "already exists", Kind::Conflict),
    ("InvalidChangeBatch", "do not match", Kind::Conflict),
    ("InvalidChangeBatch", "was not found", Kind::NotFound),
];

/// The kind of an answered call that failed.
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
    } else if code.starts_with("NoSuch")
        || code.ends_with("NotFound")
        || code.ends_with("NotFoundException")
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

fn iam_actions(operation: &'static str) -> &'static [&'static str] {
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
        "apigateway:DeleteDomainName" => &[
            "apigateway:DELETE",
            "apigateway:RemoveCertificateFromDomain",
        ],
        "apigateway:UntagResource" => &["apigateway:DELETE"],
        "apigateway:TagResource" => &["apigateway:POST", "apigateway:PUT"],
        _ if operation.starts_with("apigateway:Get") => &["apigateway:GET"],
        _ if operation.starts_with("apigateway:Create") => &["apigateway:POST"],
        _ if operation.starts_with("apigateway:Update") => &["apigateway:PATCH"],
        _ if operation.starts_with("apigateway:Delete") => &["apigateway:DELETE"],
        "route53:ListHostedZones" => &["route53:ListHostedZones"],
        // Tags come with the request, and need their own right.
        "acm:RequestCertificate" => &["acm:RequestCertificate", "acm:AddTagsToCertificate"],
        "s3:HeadBucket" => &["s3:ListBucket"],
        "s3:ListObjectVersions" => &["s3:ListBucketVersions"],
        "s3:HeadObject" => &["s3:GetObject"],
        // Ours always name the version.
        "s3:GetObject" => &["s3:GetObjectVersion"],
        "s3:DeleteObject" => &["s3:DeleteObjectVersion"],
        _ => &[],
    }
}

/// AWS's message without what differs from one call to the next: request ids, times, and the session name in an assumed
/// role's ARN, which changes with every renewal of the credentials.
fn stable(message: &str) -> String {
    let mut words = Vec::new();
    let mut skip = 0;
    let plain: Vec<&str> = message.split_whitespace().collect();
    for (i, word) in plain.iter().enumerate() {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let lower = word.to_ascii_lowercase();
        let label = lower.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let next = plain.get(i + 1).map(|w| w.to_ascii_lowercase());
        if label == "requestid" || label.starts_with("requestid:") {
            skip = usize::from(label == "requestid");
        } else if label == "request" && next.is_some_and(|n| n.trim_end_matches(':') == "id") {
            skip = 2;
        } else if is_time(word) {
            words.push("(time)".to_owned());
        } else {
            words.push(without_session(word));
        }
        // The bracket that a dropped id closed.
        if skip > 0
            && let Some(last) = plain.get(i + skip)
            && last.ends_with(')')
            && let Some(before) = words.last_mut()
            && before.ends_with([';', ','])
        {
            before.pop();
            before.push(')');
        }
    }
    words.join(" ")
}

/// `20261124T120000Z` or `2026-11-24T12:00:00Z`, as signature errors have them.
fn is_time(word: &str) -> bool {
    let digits: String = word.chars().filter(char::is_ascii_digit).collect();
    let rest: String = word.chars().filter(|c| c.is_ascii_alphabetic()).collect();
    digits.len() >= 14 && rest == "TZ"
}

fn without_session(word: &str) -> String {
    match word.split_once(":assumed-role/") {
        Some((account, role_and_session)) => {
            let role = role_and_session.split('/').next().unwrap_or_default();
            format!("{account}:assumed-role/{role}")
        }
        None => word.to_owned(),
    }
}

/// Why a request got no answer, in words that do not change: the chain below it has addresses and ports.
fn undelivered(error: &(dyn StdError + 'static)) -> String {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return "connection refused".into();
        }
        if e.to_string().contains("credential") {
            return "no usable credentials".into();
        }
        next = e.source();
    }
    "no answer: the connection could not be made, or broke".into()
}

fn innermost(error: &dyn StdError) -> String {
    let mut last = error;
    while let Some(e) = last.source() {
        last = e;
    }
    last.to_string()
}
