//! Metrics of the operator, for Prometheus. Every label comes from a closed set: no object names, no messages.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Handles to all metrics. Cheap to clone; clones count into the same.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<Reconcile, Counter>,
    reconcile_seconds: Family<Kind, Histogram>,
    leader: Gauge,
    policy_in_force: Gauge,
    policy_file_invalid: Gauge,
}

/// `outcome` of a reconcile that did all it could.
pub const OK: &str = "ok";

impl Metrics {
    /// The metrics, and the registry that `probes::serve` shows.
    pub fn new() -> (Self, Registry) {
        let me = Self {
            reconciles: Family::default(),
            // 5 ms to 80 s: from "nothing to do" to waiting for a slow AWS call or two.
            reconcile_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 15))),
            leader: Gauge::default(),
            policy_in_force: Gauge::default(),
            policy_file_invalid: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("mtls_operator");
        registry.register(
            "reconciles",
            "Reconciles by outcome: ok, or the category of the error",
            me.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time a reconcile took",
            Unit::Seconds,
            me.reconcile_seconds.clone(),
        );
        registry.register("leader", "1 while this process leads", me.leader.clone());
        registry.register(
            "policy_in_force",
            "1 while a policy bounds what namespaces may do in AWS, 0 while they may do everything",
            me.policy_in_force.clone(),
        );
        registry.register(
            "policy_file_invalid",
            "1 while the policy's file is none and the last good one is in force",
            me.policy_file_invalid.clone(),
        );
        (me, registry)
    }

    /// `outcome` is [`OK`] or the category of the error.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Reconcile { kind, outcome }).inc();
        self.reconcile_seconds.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }

    pub fn policy(&self, in_force: bool, valid: bool) {
        self.policy_in_force.set(in_force.into());
        self.policy_file_invalid.set((!valid).into());
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn everything_counted_is_shown() {
        let (metrics, registry) = Metrics::new();
        metrics.reconciled("MtlsDomain", OK, Duration::from_millis(30));
        metrics.reconciled("MtlsDomain", "Throttled", Duration::from_secs(2));
        metrics.leads(true);
        metrics.policy(true, false);

        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"mtls_operator_reconciles_total{kind="MtlsDomain",outcome="ok"} 1"#,
            r#"mtls_operator_reconciles_total{kind="MtlsDomain",outcome="Throttled"} 1"#,
            r#"mtls_operator_reconcile_duration_seconds_count{kind="MtlsDomain"} 2"#,
            "mtls_operator_leader 1",
            "mtls_operator_policy_in_force 1",
            "mtls_operator_policy_file_invalid 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
