//! Tests of `plan`.

use super::*;

use crate::{
    api::conditions::Reason,
    issuance::{
        execute,
        simulation::world::{PROPAGATION, World, spec},
    },
    pki::{
        authority::{self, tests::at},
        constraints::Violation,
        leaf::IssueError,
    },
    status::{StepCondition, StepStatus},
};

#[test]
fn a_failure_that_only_another_authority_ends_makes_issued_false() {
    let violation = Violation {
        authority: "CN=Root".into(),
        constraint: "has a path length of 0".into(),
    };
    let constrained = execute::Error::from(IssueError::from(violation));
    let expired = execute::Error::from(IssueError::IssuerExpired {
        subject: "CN=Root".into(),
    });
    assert_eq!(
        [&constrained, &expired, &execute::Error::NoKey].map(execute::Error::lasting),
        [Some(Reason::InvalidCACertificateRef), None, None]
    );
    let planned = || {
        step_condition(
            StepStatus::Working,
            Reason::Issuing,
            "nothing is issued yet".into(),
        )
    };
    let told = |lasting| {
        let StepCondition { status, reason, .. } = after_failure(planned(), None, lasting, "cannot issue");
        (status, reason)
    };
    for reason in [Reason::InvalidCACertificateRef, Reason::SecretRejected] {
        assert_eq!(told(Some(reason)), (StepStatus::Blocked, reason));
    }
    assert_eq!(told(None), (StepStatus::Unreachable, Reason::Issuing));
}

/// A renewal that fails for a while leaves Issued True; one that the API server rejects needs a user.
#[test]
fn a_rejected_secret_makes_issued_false_beside_a_usable_leaf() {
    let made = authority::generate(&authority::tests::request("a"), at("2026-11-24T12:00:00Z")).unwrap();
    let leaf = made.certificate;
    let told = |lasting| {
        let planned = step_condition(StepStatus::Done, Reason::Issued, String::new());
        after_failure(planned, Some(&leaf), lasting, "no room")
    };
    let held = format!("the Secret holds CN=a with serial number {}", leaf.serial_text());
    let StepCondition {
        status,
        reason,
        message,
        ..
    } = told(Some(Reason::SecretRejected));
    assert_eq!((status, reason), (StepStatus::Blocked, Reason::SecretRejected));
    assert_eq!(message, format!("no room. Until then {held}"));
    let later = told(None);
    assert_eq!(
        (later.status, later.message),
        (StepStatus::Done, format!("{held}; the next one: no room"))
    );
}

#[test]
fn a_missing_domain_is_reported_only_after_half_a_minute() {
    let mut world = World::new(spec(|_| ()));
    let created = world.now;
    world.d.created = Some(created);
    let plan_at = |world: &World, seconds: i64| {
        let message = "there is no MtlsDomain partners in the namespace payments".to_owned();
        let problem = Problem {
            status: StepStatus::Blocked,
            reason: Reason::RefNotFound,
            message,
        };
        let o = Observed {
            domain_gone: true,
            issuer: Err(problem),
            ..world.observed()
        };
        plan(
            &world.d,
            &o,
            PROPAGATION,
            created + SignedDuration::from_secs(seconds),
        )
    };
    let issued = |plan: &Plan| {
        let step_condition = plan
            .step_conditions
            .iter()
            .find(|l| l.type_ == ConditionType::Issued)
            .unwrap();
        (step_condition.status, step_condition.reason)
    };
    for seconds in [0, 29] {
        let early = plan_at(&world, seconds);
        assert_eq!(
            issued(&early),
            (StepStatus::Working, Reason::WaitingForDomainTrust)
        );
        assert_eq!(
            early.requeue_at,
            Some(created + conditions::FRESH),
            "no other event may follow"
        );
        assert!(early.action.is_none());
    }
    let late = plan_at(&world, 30);
    assert_eq!(
        (issued(&late), late.requeue_at),
        ((StepStatus::Blocked, Reason::RefNotFound), None)
    );
    world.d.created = None;
    assert_eq!(
        issued(&plan_at(&world, 0)),
        (StepStatus::Blocked, Reason::RefNotFound)
    );
}
