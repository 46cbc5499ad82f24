//! Writes to AWS as plain data, one file per service: for each action its fields, its text for the log and
//! `status.plan`, its call, and its quota where that is scarce.

pub mod acm;
pub mod api_gateway;
pub mod context;
pub mod lambda;
pub mod route53;
pub mod s3;

pub use self::{
    acm::AcmAction, api_gateway::ApiGatewayAction, context::ActionContext, lambda::LambdaAction,
    route53::Route53Action, s3::S3Action,
};
