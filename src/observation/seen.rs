//! Result of a read, and the meaning of a failed call for a condition. A failed read never means that nothing
//! exists. Pure.

use crate::{
    api::conditions::Reason,
    aws::errors::{self, Error, Kind},
    status::StepStatus,
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

/// Returns the condition that reports an AWS error.
pub fn refusal(error: &errors::Error) -> (StepStatus, Reason, String) {
    match error.kind {
        errors::Kind::Denied if error.operation == errors::ASSUME_ROLE => (
            StepStatus::Blocked,
            Reason::PermissionDenied,
            format!(
                "the operator may not assume a role: {error}. Allow {} on it in the operator's IAM policy, \
                 and the operator in the role's trust policy",
                errors::ASSUME_ROLE
            ),
        ),
        // The operator found no such domain in this account: names are unique in a Region across all
        // accounts.
        errors::Kind::Taken if error.operation == "apigateway:CreateDomainName" => (
            StepStatus::Blocked,
            Reason::ForeignOwner,
            "another AWS account has a custom domain of this name in this Region; delete that custom domain \
             first"
                .into(),
        ),
        errors::Kind::Denied => (
            StepStatus::Blocked,
            Reason::PermissionDenied,
            format!("the operator may not {}: allow it in its IAM policy", error.iam_action()),
        ),
        errors::Kind::Throttled => (
            StepStatus::Unreachable,
            Reason::Throttled,
            format!("{} is throttled; trying again", error.operation),
        ),
        errors::Kind::Transient => (StepStatus::Unreachable, Reason::Unreachable, error.to_string()),
        errors::Kind::NotFound if error.operation == "lambda:AddPermission" => (
            StepStatus::Blocked,
            Reason::RefNotFound,
            "spec.identity.authorizer.functionArn: there is no such function, or no such version or alias of \
             it: create it, or name another"
                .into(),
        ),
        // The resource changed since the operator read it; the next reconcile reads it again.
        errors::Kind::NotFound | errors::Kind::Conflict | errors::Kind::Taken => {
            (StepStatus::Working, Reason::Progressing, format!("{error}; trying again"))
        }
        errors::Kind::Invalid => (StepStatus::Blocked, Reason::AwsRejected, error.to_string()),
    }
}
