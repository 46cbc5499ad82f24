//! Result of a read, and the meaning of a failed call for a condition. A failed read never means that nothing
//! exists. Pure.

use crate::{
    api::conditions::Reason,
    aws::{
        denial::Denial,
        errors::{self, Error, Kind},
    },
    status::{StepStatus, text},
};

/// Returns the reason and message for a call that failed.
pub fn unseen(error: &Error) -> Unseen {
    let (_, reason, message) = refusal(error);
    let message = match error.kind {
        Kind::NotFound | Kind::Conflict | Kind::Taken | Kind::Invalid => error.to_string(),
        _ => message,
    };
    Unseen {
        reason: if reason == Reason::Progressing {
            Reason::Unreachable
        } else {
            reason
        },
        message,
    }
}

pub(crate) async fn seen<T>(call: impl Future<Output = Result<T, errors::Error>>) -> Seen<T> {
    // Boxed: a dozen of the SDK's futures side by side are larger than a thread's stack.
    Box::pin(call).await.map_err(|error| unseen(&error))
}

/// Result of a read: the value, or why the read failed. A failed read never means that nothing exists.
pub type Seen<T> = Result<T, Unseen>;

/// Cause of a failed read, ready for a condition: stable text, without request ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    pub reason: Reason,
    pub message: String,
}

/// Beginning of AWS's message in a condition's message. It is the last part, because it can be long.
const AWS_SAYS: &str = " (AWS: ";
/// Maximum bytes of AWS's message in a condition's message: the operator's part and the remedy have room.
const MOST_OF_AWS: usize = 500;

/// Returns the operator's message followed by AWS's message, when that says more than the error code.
fn with_aws(ours: &str, error: &Error) -> String {
    let said = text::cut(&error.message, MOST_OF_AWS);
    let says_nothing = error.code.as_ref() == Some(&error.message) || said.starts_with("HTTP ");
    match says_nothing {
        true => ours.to_owned(),
        false => format!("{ours}{AWS_SAYS}{said})"),
    }
}

/// Returns the message with a further remedy, which stands before AWS's message.
pub fn with_remedy(message: &str, remedy: &str) -> String {
    let (ours, aws) = message.split_at(message.find(AWS_SAYS).unwrap_or(message.len()));
    format!("{ours}{remedy}{aws}")
}

/// True when the message is about a refusal by AWS that users have to lift before anything goes on.
pub fn is_refused(reason: Reason) -> bool {
    use Reason::*;
    matches!(
        reason,
        PermissionDenied | CredentialsMissing | CredentialsRejected | QuotaExceeded | RecordProtected
    )
}

/// Returns the condition that reports an AWS error.
pub fn refusal(error: &errors::Error) -> (StepStatus, Reason, String) {
    let blocked = |reason, ours: &str| (StepStatus::Blocked, reason, with_aws(ours, error));
    let action = error.iam_action();
    match error.kind {
        Kind::Denied => {
            let denial = error.denial();
            let ours = match denial {
                Denial::Missing | Denial::Identity | Denial::RoleTrust | Denial::Resource
                    if error.operation == errors::ASSUME_ROLE =>
                {
                    format!(
                        "the operator may not assume a role: allow {} on it in the operator's IAM policy, \
                         and the operator in the role's trust policy",
                        errors::ASSUME_ROLE
                    )
                }
                _ => denial.remedy(action, &error.message),
            };
            blocked(Reason::PermissionDenied, &ours)
        }
        Kind::Credentials if error.is_about_time() => blocked(
            Reason::CredentialsRejected,
            "the operator's clock differs from AWS's by minutes, so AWS rejects its requests: correct the \
             clock of its node",
        ),
        Kind::Credentials if error.code.is_some() => blocked(
            Reason::CredentialsRejected,
            "AWS rejects the operator's credentials: check that its role or access key exists and has not \
             expired, that the account has enabled the Region, and restart the operator's Pods",
        ),
        Kind::Credentials => (
            StepStatus::Blocked,
            Reason::CredentialsMissing,
            format!(
                "the operator has no usable AWS credentials: check the IAM role of its ServiceAccount and \
                 the role's trust policy ({})",
                error.without_credentials().unwrap_or_else(|| error.message.clone())
            ),
        ),
        Kind::Quota => blocked(
            Reason::QuotaExceeded,
            &format!(
                "a quota of the AWS account is exhausted, so AWS rejects {}: delete what is unused, or \
                 request a higher quota in Service Quotas or from AWS Support",
                error.operation
            ),
        ),
        Kind::Protected => blocked(
            Reason::RecordProtected,
            "a record protection or a change guardrail of Route 53 rejects the change of the DNS records: \
             remove the protection, or set spec.dns.external and change the records by hand",
        ),
        // The operator found no such domain in this account: names are unique in a Region across all
        // accounts.
        Kind::Taken if error.operation == "apigateway:CreateDomainName" => (
            StepStatus::Blocked,
            Reason::ForeignOwner,
            "another AWS account has a custom domain of this name in this Region; delete that custom domain \
             first"
                .into(),
        ),
        Kind::Throttled => (
            StepStatus::Unreachable,
            Reason::Throttled,
            with_aws(&format!("{} is throttled; trying again", error.operation), error),
        ),
        Kind::Transient => (StepStatus::Unreachable, Reason::Unreachable, error.to_string()),
        Kind::NotFound if error.operation == "lambda:AddPermission" => (
            StepStatus::Blocked,
            Reason::RefNotFound,
            "spec.identity.authorizer.functionArn: there is no such function, or no such version or alias of \
             it: create it, or name another"
                .into(),
        ),
        // The resource changed since the operator read it; the next reconcile reads it again.
        Kind::NotFound | Kind::Conflict | Kind::Taken => {
            (StepStatus::Working, Reason::Progressing, format!("{error}; trying again"))
        }
        Kind::Invalid => (StepStatus::Blocked, Reason::AwsRejected, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind, operation: &'static str, code: Option<&str>, message: &str) -> Error {
        Error {
            code: code.map(str::to_owned),
            ..Error::ours(kind, operation, message)
        }
    }

    #[test]
    fn a_refusal_has_its_reason_the_remedy_and_awss_message_last() {
        let who = "User: arn:aws:sts::1:assumed-role/op is not authorized to perform:";
        for (kind, operation, code, message, reason, ours) in [
            (
                Kind::Denied,
                "s3:PutObject",
                Some("AccessDenied"),
                format!("{who} s3:PutObject"),
                Reason::PermissionDenied,
                "the operator may not s3:PutObject: allow it in its IAM policy (AWS: User:",
            ),
            (
                Kind::Denied,
                "acm:RequestCertificate",
                Some("AccessDeniedException"),
                format!("{who} acm:RequestCertificate with an explicit deny in a service control policy"),
                Reason::PermissionDenied,
                "a service control policy of the organization denies acm:RequestCertificate",
            ),
            (
                Kind::Denied,
                errors::ASSUME_ROLE,
                Some("AccessDenied"),
                format!("as arn:aws:iam::1:role/r: {who} sts:AssumeRole"),
                Reason::PermissionDenied,
                "the operator may not assume a role: allow sts:AssumeRole on it",
            ),
            (
                Kind::Denied,
                errors::ASSUME_ROLE,
                Some("AccessDenied"),
                format!("{who} sts:AssumeRole with an explicit deny in a service control policy"),
                Reason::PermissionDenied,
                "a service control policy of the organization denies sts:AssumeRole",
            ),
            (
                Kind::Credentials,
                "acm:ListCertificates",
                Some("SignatureDoesNotMatch"),
                "Signature expired: (time) is now earlier than (time)".into(),
                Reason::CredentialsRejected,
                "the operator's clock differs from AWS's",
            ),
            (
                Kind::Credentials,
                "s3:PutObject",
                Some("RequestTimeTooSkewed"),
                "The difference between the request time and the current time is too large.".into(),
                Reason::CredentialsRejected,
                "the operator's clock differs from AWS's",
            ),
            (
                Kind::Credentials,
                "acm:ListCertificates",
                Some("ExpiredTokenException"),
                "The security token included in the request is expired".into(),
                Reason::CredentialsRejected,
                "AWS rejects the operator's credentials",
            ),
            (
                Kind::Credentials,
                "acm:ListCertificates",
                None,
                "no usable credentials".into(),
                Reason::CredentialsMissing,
                "the operator has no usable AWS credentials",
            ),
            (
                Kind::Quota,
                "acm:RequestCertificate",
                Some("LimitExceededException"),
                "you have reached your limit of 20 certificates".into(),
                Reason::QuotaExceeded,
                "a quota of the AWS account is exhausted",
            ),
            (
                Kind::Protected,
                "route53:ChangeResourceRecordSets",
                Some("InvalidChangeBatch"),
                "the record is protected".into(),
                Reason::RecordProtected,
                "a record protection or a change guardrail",
            ),
            (
                Kind::Throttled,
                "acm:ListCertificates",
                Some("ThrottlingException"),
                "Rate exceeded".into(),
                Reason::Throttled,
                "acm:ListCertificates is throttled; trying again (AWS: Rate exceeded)",
            ),
        ] {
            let (_, found, told) = refusal(&error(kind, operation, code, &message));
            assert!(found == reason && told.starts_with(ours), "{found}: {told}");
            assert!(told.ends_with(&format!("{message})")), "{told}");
            let missing = message.ends_with("s3:PutObject");
            assert_eq!(told.contains("allow it in its IAM policy"), missing, "{told}");
            assert_eq!(unseen(&error(kind, operation, code, &message)).message, told);
        }
    }

    #[test]
    fn a_message_that_is_only_the_code_is_left_out() {
        for (code, message) in [(Some("Forbidden"), "Forbidden"), (None, "HTTP 403")] {
            let (_, _, told) = refusal(&error(Kind::Denied, "s3:HeadBucket", code, message));
            assert_eq!(
                told,
                "the operator may not s3:ListBucket: allow it in its IAM policy"
            );
        }
    }

    #[test]
    fn a_further_remedy_stands_before_awss_message() {
        let long = "x".repeat(5_000);
        let (_, _, told) = refusal(&error(Kind::Quota, "acm:RequestCertificate", None, &long));
        let told = with_remedy(&told, ". Do this");
        let (ours, aws) = told.split_once(" (AWS: ").expect("AWS's message");
        assert!(ours.ends_with(". Do this") && aws.len() < 510, "{told}");
        assert_eq!(with_remedy("ours", "; or that"), "ours; or that");
    }
}
