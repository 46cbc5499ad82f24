//! Gate that every call to AWS passes, including reads and pages of lists. The gate delays a call until its
//! bucket has a token, refuses writes when this process may not write, counts and times each call, logs each
//! write, and classifies each failure.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_sts::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{
    errors::{Error, Kind},
    quota::{Bucket, Quota},
    rates::Operation,
};

/// Kind of call with its outcome; all labels are from closed sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    /// `acm`, `apigateway`, `route53`, `s3`, `sts`.
    service: &'static str,
    /// `RequestCertificate`.
    operation: &'static str,
    /// `ok`, or [`Kind::word`].
    outcome: &'static str,
    /// AWS error code; empty when there is none.
    error_code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    service: &'static str,
    operation: &'static str,
}

/// Calls made, for metrics. Cheap to clone; clones share their counters.
#[derive(Clone)]
pub struct Calls {
    ended: Family<Call, Counter>,
    seconds: Family<Timed, Histogram>,
}

impl Calls {
    pub(crate) fn new() -> Calls {
        // 10 ms to 10 s, which is longer than a call may take.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.01, 2.0, 11));
        Calls {
            ended: Family::default(),
            seconds: Family::new_with_constructor(seconds),
        }
    }

    /// Registers the counters and the histogram in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "aws_api_calls",
            "Calls to AWS, each attempt, by outcome",
            self.ended.clone(),
        );
        let help = "Duration of a call to AWS, without the wait for its quota";
        registry.register_with_unit("aws_api_call_duration", help, Unit::Seconds, self.seconds.clone());
    }

    pub(crate) fn count<O>(
        &self,
        service: &'static str,
        operation: &'static str,
        result: &Result<O, Error>,
        took: Duration,
    ) {
        let outcome = result.as_ref().map_or_else(|e| e.kind.word(), |_| "ok");
        let code = result
            .as_ref()
            .err()
            .and_then(|e| e.code.as_deref())
            .unwrap_or_default();
        // AWS error codes are words. A label must not take any other text.
        let is_word = code.len() <= 64
            && code
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".:_-".contains(c));
        let error_code = if is_word { code } else { "other" }.to_owned();
        self.ended
            .get_or_create(&Call {
                service,
                operation,
                outcome,
                error_code,
            })
            .inc();
        self.seconds
            .get_or_create(&Timed { service, operation })
            .observe(took.as_secs_f64());
    }
}

/// State that all sessions of a process share. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    pub quota: Quota,
    /// Returns true while this process stays the leader for longer than one attempt takes
    /// ([`super::ATTEMPT`]). The gate calls it right before it sends a write, after the wait for a
    /// token.
    pub may_write: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Calls made, for metrics.
    pub calls: Calls,
}

impl Gate {
    pub fn new(quota: Quota, may_write: impl Fn() -> bool + Send + Sync + 'static) -> Gate {
        Gate {
            quota,
            may_write: Arc::new(may_write),
            calls: Calls::new(),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// View of the gate for one account and Region.
#[derive(Debug, Clone)]
pub(crate) struct CallContext {
    pub gate: Gate,
    pub account: String,
    pub region: String,
}

impl CallContext {
    /// Makes one call. `operation` is `service:Operation`; `send` is not polled before the call may go.
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
        let own = Operation::of_call(name);
        // Before the common quota, which other calls use while this call waits.
        let _plentiful = match own.filter(|own| !own.is_scarce()) {
            Some(own) => Some(self.gate.quota.acquire(&bucket(own)).await),
            None => None,
        };
        // Held until the answer arrives, or until no caller waits for the answer.
        let _common = match common {
            Some(common) => Some(self.gate.quota.acquire(&bucket(common)).await),
            None => None,
        };
        if is_write(name) && !(self.gate.may_write)() {
            return Err(Error::ours(
                Kind::Transient,
                operation,
                "not sent: this replica does not lead",
            ));
        }
        let _scarce = own
            .filter(|own| own.is_scarce())
            .map(|own| self.gate.quota.depart(&bucket(own)));
        let started = Instant::now();
        let result = send.await.map_err(|e| Error::from_sdk(operation, e));
        let kind = result.as_ref().err().map(|e| e.kind);
        // When the role for the call could not be assumed, the call was not made, and STS's own call has been
        // counted.
        if result.as_ref().is_err_and(|e| e.operation != operation) {
            return result;
        }
        if kind == Some(Kind::Throttled) {
            for operation in own.into_iter().chain(common) {
                self.gate.quota.drain(&bucket(operation));
            }
        }
        let took = started.elapsed();
        self.gate.calls.count(service, name, &result, took);
        if is_write(name) {
            // The only log line of a write. The enclosing spans name the object and the action.
            tracing::info!(
                operation,
                account = self.account,
                region = self.region,
                outcome = kind.map_or("ok", Kind::word),
                milliseconds = took.as_millis(),
                "wrote to AWS"
            );
        }
        result
    }
}

/// True when the call changes something, by its name, with or without the service.
pub fn is_write(operation: &str) -> bool {
    let operation = operation.split_once(':').map_or(operation, |(_, name)| name);
    !["Get", "List", "Describe", "Head", "Assume"]
        .iter()
        .any(|read| operation.starts_with(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use aws_sdk_sts::{
        config::http::HttpResponse, error::SdkError, operation::get_caller_identity::GetCallerIdentityError,
    };
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use crate::{
        aws::{
            errors::{Error, Kind},
            quota::Quota,
            rates::Rates,
        },
        telemetry::logging::{Format, tests::logged},
    };

    type Answer = Result<(), SdkError<GetCallerIdentityError, HttpResponse>>;

    fn lines(may_write: bool, operation: &'static str, answer: Answer) -> Vec<serde_json::Value> {
        let quota = Quota::new(Rates::with(&["*=unlimited".parse().unwrap()]));
        let gate = Gate::new(quota, move || may_write);
        let context = CallContext {
            gate,
            account: "111111111111".into(),
            region: "eu-west-1".into(),
        };
        let text = logged("info", Format::Json, || {
            let span = tracing::info_span!("act", action = "put the truststore");
            let _ = span.in_scope(|| futures::executor::block_on(context.call(operation, async { answer })));
        });
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn each_write_is_one_line_of_the_log() {
        let written = lines(true, "s3:PutObject", Ok(()));
        assert_eq!(written.len(), 1, "{written:?}");
        let line = &written[0];
        for (field, value) in [
            ("level", "INFO"),
            ("message", "wrote to AWS"),
            ("operation", "s3:PutObject"),
            ("outcome", "ok"),
        ] {
            assert_eq!(line[field], value, "{line}");
        }
        assert_eq!(line["span"]["action"], "put the truststore");
        let failed = lines(true, "s3:PutObject", Err(SdkError::timeout_error("late")));
        assert_eq!(
            (failed.len(), &failed[0]["outcome"]),
            (1, &"transient".into()),
            "it may have taken effect"
        );
        assert_eq!(lines(true, "s3:GetObject", Ok(())), [""; 0], "a read");
        assert_eq!(lines(false, "s3:PutObject", Ok(())), [""; 0], "not sent");
    }

    #[test]
    fn a_label_takes_words_only() {
        let (calls, mut registry, mut text) = (Calls::new(), Registry::default(), String::new());
        let long = "A".repeat(65);
        for code in [
            "AccessDenied",
            "KMS.NotFoundException",
            "<html>no, with {braces}",
            &long,
        ] {
            let error = Error {
                code: Some(code.into()),
                ..Error::ours(Kind::Invalid, "acm:ListCertificates", "")
            };
            calls.count::<()>("acm", "ListCertificates", &Err(error), Duration::ZERO);
        }
        calls.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        for (code, count) in [("AccessDenied", 1), ("KMS.NotFoundException", 1), ("other", 2)] {
            assert!(
                text.contains(&format!("error_code=\"{code}\"}} {count}\n")),
                "{code}: {text}"
            );
        }
    }

    #[test]
    fn writes_are_recognised_by_their_name() {
        for (operation, expected) in [
            ("apigateway:GetDomainName", false),
            ("acm:ListCertificates", false),
            ("acm:DescribeCertificate", false),
            ("s3:HeadObject", false),
            ("sts:AssumeRole", false),
            ("GetApis", false),
            ("s3:PutObject", true),
            ("acm:RequestCertificate", true),
            ("apigateway:CreateDomainName", true),
            ("route53:ChangeResourceRecordSets", true),
            ("lambda:AddPermission", true),
            ("apigateway:UntagResource", true),
            ("DeleteApi", true),
        ] {
            assert_eq!(is_write(operation), expected, "{operation}");
        }
    }

    #[test]
    fn a_replica_that_does_not_lead_reads_and_does_not_write() {
        let made = |may_write: bool, operation: &'static str| {
            let quota = Quota::new(Rates::with(&["*=unlimited".parse().unwrap()]));
            let context = CallContext {
                gate: Gate::new(quota, move || may_write),
                account: String::new(),
                region: String::new(),
            };
            let mut sent = false;
            let send = async {
                sent = true;
                Ok::<_, SdkError<GetCallerIdentityError, HttpResponse>>(())
            };
            let result = futures::executor::block_on(context.call(operation, send));
            (sent, result.map_err(|e| e.kind))
        };
        for (may_write, operation, expected) in [
            (true, "s3:PutObject", (true, Ok(()))),
            (true, "s3:GetObject", (true, Ok(()))),
            (false, "s3:GetObject", (true, Ok(()))),
            (false, "s3:PutObject", (false, Err(Kind::Transient))),
        ] {
            assert_eq!(made(may_write, operation), expected, "{may_write} {operation}");
        }
    }
}
