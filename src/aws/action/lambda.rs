//! Actions on the policies of authorizer functions.

use std::fmt;

use super::context::gone;

use crate::aws::{arn::Arn, errors::Error, session::Session};

/// Action on the policy of a function. The operator can repeat it without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum LambdaAction {
    /// Permits API Gateway to call a function for one authorizer.
    PermitFunction {
        function: Arn,
        statement: String,
        source: String,
    },
    ForbidFunction {
        function: Arn,
        statement: String,
    },
}

impl fmt::Display for LambdaAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LambdaAction::PermitFunction { function, source, .. } => {
                write!(f, "permit {source} to call {function}")
            }
            LambdaAction::ForbidFunction { function, statement } => {
                write!(f, "remove {statement} from the policy of {function}")
            }
        }
    }
}

impl LambdaAction {
    /// Makes the call.
    pub async fn perform(&self, session: &Session) -> Result<(), Error> {
        match self {
            LambdaAction::PermitFunction {
                function,
                statement,
                source,
            } => {
                session
                    .lambda(function)
                    .permit(function.as_str(), statement, source)
                    .await
            }
            LambdaAction::ForbidFunction { function, statement } => gone(
                session
                    .lambda(function)
                    .forbid(function.as_str(), statement)
                    .await,
            ),
        }
    }
}
