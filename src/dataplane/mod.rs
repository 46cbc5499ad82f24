//! Front ends that terminate mutual TLS: API Gateway custom domains.

pub mod api_gateway;
