//! Tests of `errors`.

use super::*;

use std::{error::Error as StdError, sync::Arc};

use aws_credential_types::provider::error::CredentialsError;

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
        ("ExpiredToken", 403, "", Transient),
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
        // LimitExceeded is a quota of things in ACM and of calls in API Gateway: the status tells
        ("LimitExceededException", 400, "", Invalid),
        ("LimitExceededException", 429, "", Throttled),
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
        ("ConcurrentModification", 400, "Another user submitted a request", Conflict),
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
}

#[test]
fn credentials_are_missing_when_there_are_none_or_aws_does_not_accept_them() {
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
    assert_eq!(
        said(Some("InvalidClientTokenId"), None).as_deref(),
        Some("sts:GetCallerIdentity: no")
    );
    let unanswered = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "10.0.0.1:443");
    for (code, source) in [
        (None, None),
        (Some("AccessDenied"), None),
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
