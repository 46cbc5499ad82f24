//! The one way out: every call to AWS, reads and pages of lists included, waits its turn here, is refused when this process
//! may not write, is counted, and has its failure classified.

use super::errors::{Error, Kind};
use super::quota::{Bucket, Operation, Quota};
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::fmt;
use std::sync::Arc;

/// One kind of call and how it ended; all labels are from closed sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// `acm`, `apigateway`, `route53`, `s3`, `sts`.
    pub service: &'static str,
    /// `RequestCertificate`.
    pub operation: &'static str,
    /// `ok`, or [`Kind::word`].
    pub outcome: &'static str,
}

/// What all sessions of a process share. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    pub quota: Quota,
    /// Asked right before a write is sent, after it waited its turn: whether this process still leads for longer than one
    /// attempt takes ([`super::session::ATTEMPT`]).
    pub may_write: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Calls made, for metrics.
    pub calls: Family<Call, Counter>,
}

impl Gate {
    pub fn new(quota: Quota, may_write: impl Fn() -> bool + Send + Sync + 'static) -> Gate {
        Gate { quota, may_write: Arc::new(may_write), calls: Family::default() }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// The gate as one account and Region passes it.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub gate: Gate,
    pub account: String,
    pub region: String,
}

impl Way {
    /// Make one call. `operation` is `service:Operation`; `send` is not polled before the call may go.
    pub async fn call<O, E>(
        &self,
        operation: &'static str,
        send: impl Future<Output = Result<O, SdkError<E, HttpResponse>>>,
    ) -> Result<O, Error>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (service, name) = operation.split_once(':').unwrap_or(("", operation));
        let common = match service {
            "acm" => Some(Operation::Acm),
            "apigateway" => Some(Operation::ApiGateway),
            "route53" => Some(Operation::Route53),
            _ => None,
        };
        let bucket = |operation| Bucket::new(&self.account, &self.region, operation);
        if let Some(common) = common {
            self.gate.quota.acquire(&bucket(common)).await;
        }
        if is_write(name) && !(self.gate.may_write)() {
            return Err(Error::ours(Kind::Transient, operation, "not sent: this replica does not lead"));
        }
        let result = send.await.map_err(|e| Error::from_sdk(operation, e));
        let kind = result.as_ref().err().map(|e| e.kind);
        // The role for the call may not have been to be had: then it was not made, and STS's own call has been counted.
        if result.as_ref().is_err_and(|e| e.operation != operation) {
            return result;
        }
        if let Some(own) = Operation::of_call(name) {
            self.gate.quota.answered(&bucket(own));
        }
        if kind == Some(Kind::Throttled) {
            for operation in Operation::of_call(name).into_iter().chain(common) {
                self.gate.quota.drain(&bucket(operation));
            }
        }
        self.gate.calls.get_or_create(&Call { service, operation: name, outcome: kind.map_or("ok", Kind::word) }).inc();
        result
    }
}

/// Whether a call changes something, by its name, with or without the service.
pub fn is_write(operation: &str) -> bool {
    let operation = operation.split_once(':').map_or(operation, |(_, name)| name);
    !["Get", "List", "Describe", "Head", "Assume"].iter().any(|read| operation.starts_with(read))
}
