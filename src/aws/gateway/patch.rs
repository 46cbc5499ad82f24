//! Patch operations of the v1 API.

use aws_sdk_apigateway::types as sdk;

pub(crate) fn replace(path: &str, value: &str) -> sdk::PatchOperation {
    operation(sdk::Op::Replace, path, Some(value))
}

pub(crate) fn operation(op: sdk::Op, path: &str, value: Option<&str>) -> sdk::PatchOperation {
    sdk::PatchOperation::builder()
        .op(op)
        .path(path)
        .set_value(value.map(str::to_owned))
        .build()
}
