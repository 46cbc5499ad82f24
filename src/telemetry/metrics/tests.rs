//! Tests of `metrics`.

use super::*;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use prometheus_client::{encoding::text::encode, registry::Registry};

use crate::{
    api::conditions::{ConditionType, Reason},
    status::{ConditionStatus, conditions::set},
};

fn shown(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

fn assert_shown(registry: &Registry, lines: &[&str]) {
    let text = shown(registry);
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} is not in\n{text}");
    }
}

#[test]
fn everything_counted_is_shown() {
    let (metrics, registry) = Metrics::new();
    assert_shown(
        &registry,
        &[
            r#"controller_runtime_reconcile_errors_total{controller="clientgrant",category="KubernetesApi"} 0"#,
            r#"leader_election_master_status{name="mtls-operator"} 0"#,
        ],
    );
    metrics.reconciled(Controller::Domain, None, Duration::from_millis(30));
    metrics.reconciled(Controller::Domain, Some("TooLong"), Duration::from_secs(2));
    metrics.stage(Controller::Domain, Stage::Execute, Duration::from_secs(1));
    metrics.leads(true);
    metrics.policy(true, false);
    assert_shown(
        &registry,
        &[
            r#"controller_runtime_reconcile_total{controller="mtlsdomain",result="success"} 1"#,
            r#"controller_runtime_reconcile_total{controller="mtlsdomain",result="error"} 1"#,
            r#"controller_runtime_reconcile_errors_total{controller="mtlsdomain",category="TooLong"} 1"#,
            r#"controller_runtime_reconcile_time_seconds_count{controller="mtlsdomain"} 2"#,
            r#"mtls_operator_reconcile_stage_duration_seconds_sum{controller="mtlsdomain",stage="execute"} 1.0"#,
            r#"leader_election_master_status{name="mtls-operator"} 1"#,
            "mtls_operator_policy_in_force 1",
            "mtls_operator_policy_file_invalid 1",
        ],
    );
}

/// Life of one object: created, queued for a minute, Ready, not Ready, Ready again.
#[test]
fn the_time_to_ready_is_observed_once() {
    let (metrics, registry) = Metrics::new();
    let (mut pod, mut is_new) = (Pod::default(), false);
    let start = Timestamp::now() - jiff::SignedDuration::from_secs(100);
    pod.metadata.creation_timestamp = Some(crate::status::conditions::in_seconds(start));
    let mut conditions = vec![];
    let mut transition = |type_, condition_status, reason, after| {
        let old = conditions.clone();
        let now = start + jiff::SignedDuration::from_secs(after);
        set(&mut conditions, 1, type_, condition_status, reason, "", now);
        metrics.transitioned(Controller::Domain, &pod, &old, &conditions, &mut is_new);
    };
    transition(
        ConditionType::Ready,
        ConditionStatus::Unknown,
        Reason::Progressing,
        0,
    );
    transition(
        ConditionType::DomainProgrammed,
        ConditionStatus::Unknown,
        Reason::Queued,
        10,
    );
    transition(
        ConditionType::DomainProgrammed,
        ConditionStatus::True,
        Reason::Programmed,
        70,
    );
    transition(ConditionType::Ready, ConditionStatus::True, Reason::Ready, 70);
    transition(
        ConditionType::Ready,
        ConditionStatus::False,
        Reason::RefNotFound,
        1000,
    );
    transition(ConditionType::Ready, ConditionStatus::True, Reason::Ready, 2000);
    assert_shown(
        &registry,
        &[
            r#"mtls_operator_step_duration_seconds_sum{kind="MtlsDomain",type="DomainProgrammed"} 60.0"#,
            r#"mtls_operator_step_duration_seconds_count{kind="MtlsDomain",type="Ready"} 1"#,
            r#"mtls_operator_first_time_to_readiness_seconds_count{kind="MtlsDomain"} 1"#,
        ],
    );

    // An object that another process saw first: its time to Ready is unknown.
    let (metrics, registry) = Metrics::new();
    let old = conditions[..1].to_vec();
    let mut new = old.clone();
    set(
        &mut new,
        1,
        ConditionType::Ready,
        ConditionStatus::True,
        Reason::Ready,
        "",
        Timestamp::now(),
    );
    metrics.transitioned(Controller::Domain, &pod, &old, &new, &mut false);
    assert!(
        !shown(&registry).contains("first_time_to_readiness"),
        "{}",
        shown(&registry)
    );
}
