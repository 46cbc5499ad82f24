//! Tests of `errors`.

use super::*;

use std::{error::Error as StdError, sync::Arc};

use aws_credential_types::provider::error::CredentialsError;

use crate::{aws::fake, telemetry::logging};

#[test]
fn a_failure_is_classified_by_its_code_and_status() {
    use Kind::*;
    for (code, status, message, kind) in [
        // by code, with any status
        ("ThrottlingException", 400, "Rate exceeded", Throttled),
        ("Throttling", 400, "Rate exceeded", Throttled),
        ("TooManyRequestsException", 429, "Too Many Requests", Throttled),
        ("SlowDown", 503, "", Throttled),
        ("PriorRequestNotComplete", 400, "", Transient),
        ("ExpiredToken", 403, "", Credentials),
        ("InvalidClientTokenId", 403, "", Credentials),
        ("RequestTimeTooSkewed", 403, "", Credentials),
        ("AccessDenied", 403, "Request has expired", Credentials),
        (
            "InvalidSignatureException",
            400,
            "Signature expired: 1 is now earlier than 2",
            Credentials,
        ),
        (
            "AccessDeniedException",
            403,
            "Signature expired: 1 is now earlier than 2",
            Credentials,
        ),
        (
            "ForbiddenException",
            403,
            "The security token included in the request is invalid.",
            Credentials,
        ),
        ("ResourceNotFoundException", 400, "", NotFound),
        ("NoSuchHostedZone", 404, "", NotFound),
        ("NoSuchVersion", 404, "", NotFound),
        ("HostedZoneNotFound", 404, "", NotFound),
        ("AccessDeniedException", 400, "", Denied),
        ("UnauthorizedException", 401, "", Denied),
        ("ResourceInUseException", 400, "", Conflict),
        ("com.amazonaws.acm#ThrottlingException", 400, "", Throttled),
        (
            "ResourceNotFoundException:http://internal.amazon.com/coral/",
            400,
            "",
            NotFound,
        ),
        ("KMS.NotFoundException", 400, "Invalid keyId", Invalid),
        // LimitExceeded is a quota of resources in ACM, and of resources or calls in API Gateway
        ("LimitExceededException", 400, "", Quota),
        ("LimitExceededException", 429, "", Throttled),
        (
            "LimitExceededException",
            429,
            "The request exceeded the rate limit. Retry after 1 s",
            Throttled,
        ),
        ("LimitExceededException", 400, "Rate exceeded", Throttled),
        ("LimitExceededException", 429, "Limit exceeded", Throttled),
        (
            "BadRequestException",
            400,
            "Limit exceeded for authorizers",
            Quota,
        ),
        (
            "LimitExceededException",
            400,
            "Error: you have reached your limit of 20 certificates in the last year.",
            Quota,
        ),
        (
            "LimitExceededException",
            429,
            "The maximum number of domain names (120) has been reached",
            Quota,
        ),
        (
            "TooManyRequestsException",
            429,
            "Maximum number of domain names in the Region has been reached",
            Quota,
        ),
        ("TooManyRequestsException", 429, "Rate quota exceeded", Throttled),
        (
            "ThrottlingException",
            400,
            "Too many requests: quota of calls per second",
            Throttled,
        ),
        (
            "BadRequestException",
            400,
            "Maximum of 200 API mappings exceeded",
            Quota,
        ),
        (
            "BadRequestException",
            400,
            "The description exceeds the limit of 1024 characters",
            Invalid,
        ),
        (
            "BadRequestException",
            400,
            "Invalid name quota.example.com.",
            Invalid,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[Number of records limit of 10000 exceeded.]",
            Quota,
        ),
        ("LimitsExceeded", 400, "", Quota),
        ("TooManyBuckets", 400, "", Quota),
        ("ServiceQuotaExceededException", 402, "", Quota),
        (
            "ValidationException",
            400,
            "The maximum number of names is wrong",
            Invalid,
        ),
        // codes that no model declares
        ("SomethingNew", 400, "", Invalid),
        ("SomethingNew", 409, "already exists", Conflict),
        ("InternalFailure", 500, "", Transient),
        ("ServiceUnavailable", 503, "", Transient),
        // ambiguous codes
        (
            "BadRequestException",
            400,
            "The domain name you provided already exists.",
            Taken,
        ),
        (
            "ConflictException",
            409,
            "Unable to complete operation due to concurrent modification. Please try again later.",
            Conflict,
        ),
        (
            "BadRequestException",
            400,
            "Unable to complete operation due to concurrent modification. Please try again later.",
            Conflict,
        ),
        (
            "ConcurrentModification",
            400,
            "Another user submitted a request",
            Conflict,
        ),
        (
            "BadRequestException",
            400,
            "Invalid stage identifier specified",
            Transient,
        ),
        (
            "BadRequestException",
            400,
            "Unable to access truststore URI s3://b/k version N/A.",
            Denied,
        ),
        (
            "BadRequestException",
            400,
            "Invalid truststore URI/versionId specified",
            Invalid,
        ),
        (
            "BadRequestException",
            400,
            "Missing ownershipVerificationCertificate.",
            Invalid,
        ),
        (
            "ConflictException",
            409,
            "There is already an update in progress",
            Conflict,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[Tried to create resource record set but it already exists]",
            Conflict,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[... but the values provided do not match the current values]",
            Conflict,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[Tried to delete ... but it was not found]",
            NotFound,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[RRSet with DNS name a. is not permitted in zone b.]",
            Invalid,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[RRSet of type CNAME with DNS name a.b. is not permitted as it conflicts with other records \
             with the same DNS name in zone b.]",
            Conflict,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[Tried to delete resource record set [name='a.b.', type='A'] but it is protected]",
            Protected,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[ALIAS_TARGET_CHECK: the alias target was not found]",
            Protected,
        ),
        (
            "InvalidChangeBatch",
            400,
            "[RRSet with DNS name protected.guardrail.b. is not permitted in zone b.]",
            Invalid,
        ),
        // text never overrules a clear code
        ("ResourceNotFoundException", 400, "already exists", NotFound),
    ] {
        assert_eq!(
            classify(Some(code), Some(status), message),
            kind,
            "{code} {status} {message}"
        );
    }
    for (status, kind) in [
        (Some(301), Invalid),
        (Some(400), Invalid),
        (Some(403), Denied),
        (Some(404), NotFound),
        (Some(412), Conflict),
        (Some(429), Throttled),
        (Some(502), Transient),
        (None, Transient),
    ] {
        assert_eq!(classify(None, status, ""), kind, "{status:?}");
    }
}

#[test]
fn a_message_has_nothing_that_changes_from_call_to_call() {
    for (said, shown) in [
        ("Rate exceeded", "Rate exceeded"),
        (
            "Access Denied (Service: Amazon S3; Status Code: 403; Request ID: 7XJ; S3 Extended Request \
         ID: a/b=)",
            "Access Denied",
        ),
        (
            "Not found. RequestId: 0a1b-2c, try again",
            "Not found. , try again",
        ),
        ("Failed, request id: 0a1b-2c", "Failed,"),
        (
            "User: arn:aws:sts::111111111111:assumed-role/op/web-identity-token-1764 is not authorized \
         to perform: acm:ListCertificates",
            "User: arn:aws:sts::111111111111:assumed-role/op is not authorized to perform: \
         acm:ListCertificates",
        ),
        (
            "Signature expired: 20261124T120000Z is now earlier than 20261124T121000Z",
            "Signature expired: (time) is now earlier than (time)",
        ),
        // identifiers of resources stay
        (
            "Certificate arn:aws:acm:eu-west-1:1:certificate/0a1b2c3d-0000-4000-8000-000000000000 is in \
         use.",
            "Certificate arn:aws:acm:eu-west-1:1:certificate/0a1b2c3d-0000-4000-8000-000000000000 is in \
         use.",
        ),
    ] {
        assert_eq!(stable(said), shown);
    }
    for [one, other] in [
        [
            "User: arn:aws:sts::1:assumed-role/op/1732900000000 may not (arn:aws:sts::1:assumed-role/op/a)",
            "User: arn:aws:sts::1:assumed-role/op/1732900099999 may not (arn:aws:sts::1:assumed-role/op/b)",
        ],
        [
            "You are not authorized. Encoded authorization failure message: abcd_-123",
            "You are not authorized. Encoded authorization failure message: efgh_-456",
        ],
        [
            "Access Denied. Request ID: 1A, HostId: a/b+c=",
            "Access Denied. Request ID: 2B, HostId: d/e+f=",
        ],
        [
            "Token expired: current date/time 1545055440 must be before the expiration date/time1545055266",
            "Token expired: current date/time 1545055450 must be before the expiration date/time1545055276",
        ],
        [
            "Signature expired: 2026-11-29T22:55:01+00:00 is earlier than (20261129T235501Z - 15 min.)",
            "Signature expired: 2026-11-29T22:55:02+00:00 is earlier than (20261129T235502Z - 15 min.)",
        ],
    ] {
        assert_eq!(stable(one), stable(other));
    }
}

#[tokio::test]
async fn an_unreadable_answer_is_called_that() {
    for body in ["<html>Bad", "{\"a\":", "no"] {
        let session = fake::session(&fake::gate(), move |_, _| (200, body.to_owned()));
        let errors = [
            session.s3.bucket("b").await.map(drop),
            session.acm.certificate("arn").await.map(drop),
            session.gateway.domain("a.b").await.map(drop),
            session.route53.zones().await.map(drop),
        ];
        for result in errors {
            let error = result.unwrap_err();
            assert_eq!(error.kind, Kind::Transient, "{error}");
            assert_eq!(error.message, "the answer could not be read", "{body}: {error}");
        }
    }
}

/// AWS quotes the request, with the session token, when it computes another signature.
#[tokio::test]
async fn a_quoted_request_is_in_no_message_and_no_log() {
    const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLE";
    let quoted = [
        format!(
            "The request signature we calculated does not match the signature you provided. Check your AWS \
             Secret Access Key and signing method.\n\nThe Canonical String for this request should be\n\
             'POST\n/\n\nhost:acm\nx-amz-security-token:{TOKEN}\n'"
        ),
        format!("'{TOKEN}' not a valid key=value pair in Authorization header: 'AWS4-HMAC-SHA256 {TOKEN}'."),
        format!("Missing 'Signature'. Authorization=AWS4-HMAC-SHA256 Credential={TOKEN}"),
    ];
    for message in quoted {
        let body = serde_json::json!({"__type": "SignatureDoesNotMatch", "message": message}).to_string();
        let session = fake::session(&fake::gate(), move |_, _| (403, body.clone()));
        let error = session.acm.certificate("arn").await.unwrap_err();
        assert_eq!(error.kind, Kind::Credentials, "{error}");
        assert!(error.to_string().len() > 30, "{error}");
        let told = format!("{error} {} {error:?}", logging::chain(&error));
        assert!(!told.contains(TOKEN), "{told}");
    }
}

#[test]
fn credentials_are_missing_when_their_source_has_none() {
    let said = |code: Option<&str>, source: Option<CredentialsError>| {
        let source = source.map(|e| Arc::new(e) as Arc<dyn StdError + Send + Sync>);
        let code = code.map(str::to_owned);
        Error {
            code,
            source,
            ..Error::ours(Kind::Transient, "sts:GetCallerIdentity", "no")
        }
        .without_credentials()
    };
    let refused = "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity (request id: 0a1b)";
    assert_eq!(
        said(
            None,
            Some(CredentialsError::not_loaded(
                "no providers in chain provided credentials"
            ))
        )
        .as_deref(),
        Some("no providers in chain provided credentials")
    );
    assert_eq!(
        said(None, Some(CredentialsError::provider_error(refused))).as_deref(),
        Some(
            "an error occurred while loading credentials: AccessDenied: Not authorized to perform \
         sts:AssumeRoleWithWebIdentity"
        )
    );
    let unanswered = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "10.0.0.1:443");
    for (code, source) in [
        (None, None),
        (Some("AccessDenied"), None),
        (Some("InvalidClientTokenId"), None),
        (Some("ThrottlingException"), None),
        (None, Some(CredentialsError::provider_error(unanswered))),
        (
            None,
            Some(CredentialsError::provider_timed_out(
                std::time::Duration::from_secs(5),
            )),
        ),
    ] {
        assert_eq!(said(code, source), None, "{code:?}");
    }
}

#[test]
fn a_denial_names_the_iam_action() {
    for (operation, message, action) in [
        ("apigateway:GetApiMappings", "no", "apigateway:GET"),
        ("apigateway:CreateApiMapping", "no", "apigateway:POST"),
        ("apigateway:UpdateDomainName", "no", "apigateway:PATCH"),
        ("apigateway:DeleteDomainName", "no", "apigateway:DELETE"),
        (
            "apigateway:UpdateDomainName",
            "not authorized to perform: apigateway:AddCertificateToDomain",
            "apigateway:AddCertificateToDomain",
        ),
        (
            "apigateway:CreateDomainName",
            "Unable to access truststore URI s3://b/k",
            "s3:GetObjectVersion",
        ),
        (
            "s3:PutObject",
            "is not authorized to perform: kms:GenerateDataKey on resource",
            "kms:GenerateDataKey",
        ),
        ("s3:GetObject", "Access Denied", "s3:GetObjectVersion"),
        (
            "s3:PutPublicAccessBlock",
            "Access Denied",
            "s3:PutBucketPublicAccessBlock",
        ),
        (
            "s3:GetBucketEncryption",
            "Access Denied",
            "s3:GetEncryptionConfiguration",
        ),
        ("acm:RequestCertificate", "no", "acm:RequestCertificate"),
        ("acm:ListCertificates", "no", "acm:ListCertificates"),
        (
            "route53:ChangeResourceRecordSets",
            "no",
            "route53:ChangeResourceRecordSets",
        ),
        ("s3:HeadBucket", "no", "s3:ListBucket"),
        ("s3:GetObject", "no", "s3:GetObjectVersion"),
        ("s3:PutObject", "no", "s3:PutObject"),
    ] {
        assert_eq!(
            Error::ours(Kind::Denied, operation, message).iam_action(),
            action,
            "{operation}"
        );
    }
}
