//! Actions of a plan: each is one write to AWS, or one object in Kubernetes.

use std::fmt;

use crate::aws::{
    action::{AcmAction, ApiGatewayAction, LambdaAction, Route53Action, S3Action},
    rates::Operation,
};

/// Write to AWS, or object in Kubernetes. The operator can repeat each action without harm.
#[derive(Clone, PartialEq)]
pub enum Action {
    /// Generates the key and certificate of a generated authority, and stores both in its Secret.
    GenerateAuthority {
        authority: String,
        /// Recorded key of the authority that is in no Secret.
        recorded: Option<String>,
    },
    Acm(AcmAction),
    ApiGateway(ApiGatewayAction),
    Lambda(LambdaAction),
    Route53(Route53Action),
    S3(S3Action),
}

impl Action {
    /// Returns the scarce call that the action makes; `None`: all of its calls are plentiful.
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Action::ApiGateway(action) => action.operation(),
            Action::GenerateAuthority { .. }
            | Action::Acm(_)
            | Action::Lambda(_)
            | Action::Route53(_)
            | Action::S3(_) => None,
        }
    }
}

/// Text of an action for the log and for `status.plan`, never with a body.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::GenerateAuthority { authority, .. } => write!(f, "generate authority {authority}"),
            Action::Acm(action) => action.fmt(f),
            Action::ApiGateway(action) => action.fmt(f),
            Action::Lambda(action) => action.fmt(f),
            Action::Route53(action) => action.fmt(f),
            Action::S3(action) => action.fmt(f),
        }
    }
}

/// Name and fields of the action, without its service: names of actions are unique.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::GenerateAuthority { authority, recorded } => f
                .debug_struct("GenerateAuthority")
                .field("authority", authority)
                .field("recorded", recorded)
                .finish(),
            Action::Acm(action) => action.fmt(f),
            Action::ApiGateway(action) => action.fmt(f),
            Action::Lambda(action) => action.fmt(f),
            Action::Route53(action) => action.fmt(f),
            Action::S3(action) => action.fmt(f),
        }
    }
}

impl From<AcmAction> for Action {
    fn from(action: AcmAction) -> Self {
        Action::Acm(action)
    }
}

impl From<ApiGatewayAction> for Action {
    fn from(action: ApiGatewayAction) -> Self {
        Action::ApiGateway(action)
    }
}

impl From<LambdaAction> for Action {
    fn from(action: LambdaAction) -> Self {
        Action::Lambda(action)
    }
}

impl From<Route53Action> for Action {
    fn from(action: Route53Action) -> Self {
        Action::Route53(action)
    }
}

impl From<S3Action> for Action {
    fn from(action: S3Action) -> Self {
        Action::S3(action)
    }
}
