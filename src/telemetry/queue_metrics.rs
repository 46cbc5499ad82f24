//! Metrics of the queue for scarce AWS calls, read at each scrape.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder},
    metrics::MetricType,
    registry::Unit,
};

use crate::aws::quota::{QueuePosition, Quota};

pub(crate) fn gauge(metric: &mut MetricEncoder, labels: &impl EncodeLabelSet, value: i64) -> fmt::Result {
    metric.encode_family(labels)?.encode_gauge(&value)
}

pub(crate) fn queue(quota: &Quota, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let waiting = quota.waiting();
    let mut put = |name: &str, help: &str, unit: Option<&Unit>, value: &dyn Fn(&QueuePosition) -> i64| {
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        waiting.iter().try_for_each(|position| {
            let (namespace, name) = position.object.split_once('/').unwrap_or_default();
            let labels = [
                ("namespace", namespace),
                ("name", name),
                ("operation", position.operation.name()),
            ];
            gauge(&mut metric, &labels, value(position))
        })
    };
    let seconds = Some(&Unit::Seconds);
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    put(
        "aws_quota_queue_position",
        "Number of MtlsDomains ahead in the queue for an AWS operation with a quota",
        None,
        &|position| whole(position.ahead),
    )?;
    // The name of earlier releases, served for this one more.
    put(
        "aws_quota_place",
        "Deprecated name of mtls_operator_aws_quota_queue_position, served for this release only",
        None,
        &|position| whole(position.ahead),
    )?;
    put(
        "aws_quota_wait",
        "Estimated time until an MtlsDomain gets the AWS operation that it waits for",
        seconds,
        &|position| i64::try_from(position.about.as_secs()).unwrap_or(i64::MAX),
    )?;
    put(
        "aws_quota_waiting_since_timestamp",
        "Time since which an MtlsDomain waits for an AWS operation with a quota",
        seconds,
        &|position| position.since.as_second(),
    )
}
