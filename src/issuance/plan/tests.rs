//! Tests of `plan`.

use super::*;

use crate::{
    api::conditions::Reason,
    issuance::{
        execute,
        simulation::world::{PROPAGATION, World, spec},
    },
    pki::{constraints::Violation, leaf::IssueError},
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
        [&constrained, &expired, &execute::Error::NoKey].map(execute::Error::is_final),
        [true, false, false]
    );
    let planned = || {
        step_condition(
            StepStatus::Working,
            Reason::Issuing,
            "nothing is issued yet".into(),
        )
    };
    let told = |is_final| {
        let StepCondition { status, reason, .. } = after_failure(planned(), None, is_final, "cannot issue");
        (status, reason)
    };
    assert_eq!(told(true), (StepStatus::Blocked, Reason::InvalidCACertificateRef));
    assert_eq!(told(false), (StepStatus::Unreachable, Reason::Issuing));
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
