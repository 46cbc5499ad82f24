//! Counters and timers of the operator, for Prometheus. Labels come from closed sets: no names of objects, no
//! messages; each scrape reads the metrics of single objects from the caches (`objects`). docs/metrics.md
//! lists all metrics.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::process::Process;

use crate::{
    api::conditions::{ConditionType, Reason},
    status::ConditionStatus,
};

/// Prefix of all metrics without a conventional name.
pub const PREFIX: &str = "mtls_operator";

/// Reconcile loop of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Domain,
    Certificate,
    Grant,
}

impl Controller {
    pub const ALL: [Self; 3] = [Self::Domain, Self::Certificate, Self::Grant];

    /// Returns the name in the convention of controller-runtime.
    pub fn name(self) -> &'static str {
        match self {
            Self::Domain => "mtlsdomain",
            Self::Certificate => "clientcertificate",
            Self::Grant => "clientgrant",
        }
    }

    pub fn kind(self) -> &'static str {
        match self {
            Self::Domain => "MtlsDomain",
            Self::Certificate => "ClientCertificate",
            Self::Grant => "ClientGrant",
        }
    }
}

/// Stage of a reconcile of an MtlsDomain.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    Observe,
    Execute,
    Report,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Execute => "execute",
            Self::Report => "report",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    controller: &'static str,
    result: &'static str,
}

/// Categories of failed reconciles, the values of a label.
pub const ERROR_CATEGORIES: [&str; 4] = ["Unreadable", "TooLong", "Work", "KubernetesApi"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Failure {
    controller: &'static str,
    category: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Loop {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Part {
    controller: &'static str,
    stage: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Step {
    kind: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Election {
    name: &'static str,
}

/// Handles to all metrics. Cheap to clone; clones share their counters.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<Outcome, Counter>,
    errors: Family<Failure, Counter>,
    reconcile_seconds: Family<Loop, Histogram>,
    stage_seconds: Family<Part, Histogram>,
    step_seconds: Family<Step, Histogram>,
    first_ready_seconds: Family<Kind, Histogram>,
    leader: Family<Election, Gauge>,
    policy_in_force: Gauge,
    policy_file_invalid: Gauge,
    /// Computations that wait for a worker, or run.
    pub work_waiting: Gauge,
    pub work_seconds: Histogram,
}

/// Name of the election, as of the Lease.
const ELECTION: Election = Election {
    name: "mtls-operator",
};

/// Buckets from 5 ms to 80 s: from a reconcile without changes to a wait for a slow AWS call or two.
fn short() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 15))
}

/// Buckets from 1 s to about 5 hours: the time that AWS, its quotas and people take.
fn long() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 15))
}

impl Metrics {
    /// Creates the metrics, and the registry that `health::serve` shows.
    pub fn new() -> (Self, Registry) {
        let me = Self {
            reconciles: Family::default(),
            errors: Family::default(),
            reconcile_seconds: Family::new_with_constructor(short),
            stage_seconds: Family::new_with_constructor(short),
            step_seconds: Family::new_with_constructor(long),
            first_ready_seconds: Family::new_with_constructor(long),
            leader: Family::default(),
            policy_in_force: Gauge::default(),
            policy_file_invalid: Gauge::default(),
            work_waiting: Gauge::default(),
            work_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
        };
        // A rate needs the zero before the first event.
        for controller in Controller::ALL.map(Controller::name) {
            for result in [SUCCESS, ERROR] {
                me.reconciles
                    .get_or_create(&Outcome { controller, result })
                    .inc_by(0);
            }
            for category in ERROR_CATEGORIES {
                me.errors
                    .get_or_create(&Failure { controller, category })
                    .inc_by(0);
            }
        }
        me.leads(false);
        let mut registry = Registry::default();
        me.register_conventional(&mut registry);
        me.register_own(registry.sub_registry_with_prefix(PREFIX));
        (me, registry)
    }

    /// Registers metrics under the common names of controller-runtime and client-go, so that their dashboards
    /// work.
    fn register_conventional(&self, registry: &mut Registry) {
        registry.register(
            "controller_runtime_reconcile",
            "Reconciles by their result",
            self.reconciles.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            "Failed reconciles, by category. AWS errors become conditions and do not count here",
            self.errors.clone(),
        );
        registry.register_with_unit(
            "controller_runtime_reconcile_time",
            "Duration of a reconcile",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        registry.register(
            "leader_election_master_status",
            "1 while this process leads, else 0",
            self.leader.clone(),
        );
        registry.register_collector(Box::new(Process));
    }

    fn register_own(&self, registry: &mut Registry) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the operator", build);
        registry.register_with_unit(
            "reconcile_stage_duration",
            "Duration of a stage of a reconcile",
            Unit::Seconds,
            self.stage_seconds.clone(),
        );
        registry.register_with_unit(
            "step_duration",
            "Time that a condition was Unknown (in progress or waiting) before it became True",
            Unit::Seconds,
            self.step_seconds.clone(),
        );
        registry.register_with_unit(
            "first_time_to_readiness",
            "Time from the creation of an object until it is Ready for the first time. Only objects that \
             this process has seen since their creation",
            Unit::Seconds,
            self.first_ready_seconds.clone(),
        );
        registry.register(
            "policy_in_force",
            "1 while a policy limits what namespaces may do in AWS, 0 while no policy does",
            self.policy_in_force.clone(),
        );
        registry.register(
            "policy_file_invalid",
            "1 while the policy file is invalid and the last valid policy stays in force, else 0",
            self.policy_file_invalid.clone(),
        );
        registry.register(
            "work_waiting",
            "Number of long computations (truststores, RSA keys, keystores) that wait for one of two threads, \
             or run",
            self.work_waiting.clone(),
        );
        registry.register_with_unit(
            "work_duration",
            "Duration of a long computation (truststores, RSA keys, keystores) without its wait. Each has 5 s",
            Unit::Seconds,
            self.work_seconds.clone(),
        );
    }

    /// Records the end of a reconcile. `error`: one of [`ERROR_CATEGORIES`]; `None`: it succeeded.
    pub fn reconciled(&self, controller: Controller, error: Option<&'static str>, took: Duration) {
        let (controller, result) = (controller.name(), if error.is_none() { SUCCESS } else { ERROR });
        self.reconciles
            .get_or_create(&Outcome { controller, result })
            .inc();
        if let Some(category) = error {
            self.errors.get_or_create(&Failure { controller, category }).inc();
        }
        self.reconcile_seconds
            .get_or_create(&Loop { controller })
            .observe(took.as_secs_f64());
    }

    /// Records the end of a stage.
    pub fn stage(&self, controller: Controller, stage: Stage, took: Duration) {
        let part = Part {
            controller: controller.name(),
            stage: stage.name(),
        };
        self.stage_seconds
            .get_or_create(&part)
            .observe(took.as_secs_f64());
    }

    /// Records changed conditions of an object. `is_new` is true while the object has not been Ready and this
    /// process has seen it since its creation; the caller keeps it until the next call.
    pub fn transitioned(
        &self,
        controller: Controller,
        object: &impl ResourceExt,
        old: &[Condition],
        new: &[Condition],
        is_new: &mut bool,
    ) {
        let kind = controller.kind();
        for (now, type_) in new
            .iter()
            .filter_map(|c| Some((c, ConditionType::parse(&c.type_)?)))
        {
            let before = old.iter().find(|c| c.type_ == now.type_);
            let worked_on = before.filter(|c| {
                c.status == ConditionStatus::Unknown.as_str() && c.reason != Reason::Suspended.as_str()
            });
            if let Some(before) = worked_on.filter(|_| now.status == ConditionStatus::True.as_str()) {
                let step = Step {
                    kind,
                    r#type: type_.as_str(),
                };
                let took = now
                    .last_transition_time
                    .0
                    .duration_since(before.last_transition_time.0);
                self.step_seconds
                    .get_or_create(&step)
                    .observe(took.as_secs_f64().max(0.0));
            }
        }
        *is_new |= old.is_empty();
        let ready = new.iter().find(|c| c.type_ == ConditionType::Ready.as_str());
        if *is_new && ready.is_some_and(|c| c.status == ConditionStatus::True.as_str()) {
            *is_new = false;
            let created = object.creation_timestamp().map_or_else(Timestamp::now, |t| t.0);
            let took = Timestamp::now().duration_since(created);
            self.first_ready_seconds
                .get_or_create(&Kind { kind })
                .observe(took.as_secs_f64().max(0.0));
        }
    }

    pub fn policy(&self, in_force: bool, valid: bool) {
        self.policy_in_force.set(in_force.into());
        self.policy_file_invalid.set((!valid).into());
    }

    pub fn leads(&self, leads: bool) {
        self.leader.get_or_create(&ELECTION).set(leads.into());
    }
}

/// `result` of a reconcile without an error.
const SUCCESS: &str = "success";
const ERROR: &str = "error";

#[cfg(test)]
mod tests;
