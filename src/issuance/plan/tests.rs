//! Tests of `plan`.

use super::*;

use crate::{
    api::conditions::Reason,
    issuance::execute,
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
