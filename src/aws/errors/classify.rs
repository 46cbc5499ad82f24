//! Kind of a failed call that AWS answered: by its error code, else by the HTTP status. The text counts only
//! where the code is ambiguous.

use super::kind::Kind;

/// Returns the kind of a failed call that AWS answered.
pub(super) fn classify(code: Option<&str>, status: Option<u16>, message: &str) -> Kind {
    let Some(code) = code else {
        return by_status(status);
    };
    // Some services send a type URI or a namespace: `com.amazonaws...#ThrottlingException:http://...`.
    let code = code.split_once('#').map_or(code, |(_, name)| name);
    let code = code.split_once(':').map_or(code, |(name, _)| name);
    if code == "InvalidChangeBatch" && is_protected(message) {
        return Kind::Protected;
    }
    if let Some((_, _, kind)) = BY_TEXT
        .iter()
        .find(|(c, text, _)| *c == code && message.contains(text))
    {
        return *kind;
    }
    let of_code = BY_CODE
        .iter()
        .find(|(c, _)| *c == code)
        .map(|(_, kind)| *kind)
        .or_else(|| by_shape(code));
    match of_code.unwrap_or_else(|| by_status(status)) {
        Kind::Denied | Kind::Invalid if is_about_credentials(message) => Kind::Credentials,
        Kind::Throttled | Kind::Invalid if is_full_quota(code, status, message) => Kind::Quota,
        Kind::Invalid if code.contains("LimitExceeded") => Kind::Throttled,
        kind => kind,
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
    ("AccountProblem", Kind::Denied),
    ("AllAccessDisabled", Kind::Denied),
    ("NotAuthorized", Kind::Denied),
    ("NotSignedUp", Kind::Denied),
    ("OptInRequired", Kind::Denied),
    ("SubscriptionRequiredException", Kind::Denied),
    ("AuthFailure", Kind::Credentials),
    ("ExpiredToken", Kind::Credentials),
    ("ExpiredTokenException", Kind::Credentials),
    ("IncompleteSignature", Kind::Credentials),
    ("IncompleteSignatureException", Kind::Credentials),
    ("InvalidAccessKeyId", Kind::Credentials),
    ("InvalidClientTokenId", Kind::Credentials),
    ("InvalidSecurity", Kind::Credentials),
    ("InvalidSignatureException", Kind::Credentials),
    ("InvalidToken", Kind::Credentials),
    ("MissingAuthenticationToken", Kind::Credentials),
    ("MissingAuthenticationTokenException", Kind::Credentials),
    ("RequestExpired", Kind::Credentials),
    ("RequestTimeTooSkewed", Kind::Credentials),
    ("SignatureDoesNotMatch", Kind::Credentials),
    ("TokenRefreshRequired", Kind::Credentials),
    ("UnrecognizedClientException", Kind::Credentials),
    ("LimitsExceeded", Kind::Quota),
    ("PolicyLengthExceededException", Kind::Quota),
    ("QuotaExceededException", Kind::Quota),
    ("ServiceQuotaExceededException", Kind::Quota),
    ("TooManyBuckets", Kind::Quota),
    ("TooManyHostedZones", Kind::Quota),
    ("BandwidthLimitExceeded", Kind::Throttled),
    ("RequestLimitExceeded", Kind::Throttled),
    ("RequestThrottled", Kind::Throttled),
    ("RequestThrottledException", Kind::Throttled),
    ("SlowDown", Kind::Throttled),
    // Another change of the zone is in progress, possibly one of our own.
    ("PriorRequestNotComplete", Kind::Transient),
    ("RequestTimeout", Kind::Transient),
    ("RequestTimeoutException", Kind::Transient),
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
    (
        "InvalidChangeBatch",
        "conflicts with other records",
        Kind::Conflict,
    ),
    ("InvalidChangeBatch", "do not match", Kind::Conflict),
    ("InvalidChangeBatch", "was not found", Kind::NotFound),
];

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

/// Returns the words of a message in lower case without the names of resources in it, which users choose.
fn prose(message: &str) -> String {
    let is_word = |word: &&str| {
        !word
            .trim_end_matches(['.', ',', ':', ';', ']'])
            .contains(['.', '/', ':', '\''])
    };
    let words = message.split_whitespace().filter(is_word);
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

/// True for the texts by which AWS rejects the credentials or the time of a request, under various codes.
fn is_about_credentials(message: &str) -> bool {
    is_about_time(message) || message.contains("security token included in the request is")
}

/// True when AWS rejects a request for its time.
pub(super) fn is_about_time(message: &str) -> bool {
    [
        "Signature expired",
        "Signature not yet current",
        "Request has expired",
    ]
    .iter()
    .any(|text| message.contains(text))
}

/// True when Route 53 rejects a change for a record protection or a change guardrail.
fn is_protected(message: &str) -> bool {
    let text = prose(message);
    ["protected", "protection", "guardrail", "_check"]
        .iter()
        .any(|word| text.contains(word))
}

/// True for a quota on the number of resources, which waiting does not empty. API Gateway reports such
/// quotas with the codes and the status that it has for throttled calls.
fn is_full_quota(code: &str, status: Option<u16>, message: &str) -> bool {
    let text = prose(message);
    let is = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let is_rate = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == "rate" || word.starts_with("throttl"))
        || is(&["per second", "too many requests", "retry after"]);
    let is_size = is(&["character", "byte", "length"]);
    let names_it = is(&[
        "maximum number",
        "maximum of ",
        "maximum allowed",
        "reached your limit",
        "reached the limit",
        "reached its limit",
        "limit of ",
        "limit for ",
        "exceeds the limit",
        "exceeded the limit",
        "exceed the limit",
        "quota",
    ]);
    // API Gateway says as much of calls.
    let names_it = names_it || (text.contains("limit exceeded") && status != Some(429));
    match code {
        _ if is_rate => false,
        "BadRequestException" | "InvalidChangeBatch" => names_it && !is_size,
        _ if code.contains("LimitExceeded") => names_it || status != Some(429),
        _ => names_it && (code.starts_with("TooMany") || code.starts_with("Throttl")),
    }
}
