//! Tests of `report`.

use std::time::Duration;

use crate::{
    api::{
        MtlsDomain, MtlsDomainStatus,
        conditions::{ConditionType, Reason},
    },
    aws::{
        action::api_gateway::ApiGatewayAction,
        errors::{self, Error, Kind},
    },
    background::bypass_scan::Bypass,
    controllers::mtls_domain::{
        plan::unlimited as plan,
        report::{
            Fate, blind, deleting, living_leaves, observing, report,
            step_conditions::{Outcome, Outcomes, deletion_condition, explain, passes, step_condition},
            unclear, waiting_deletion, waits_for, with_bypasses, with_way_out,
        },
        simulation::world::{front_again, now, settled},
    },
    model::{
        action::Action,
        observed::{Leaf, LeafIssuer, Observed},
        step::{Actions, Step, StepPlan, StepState},
    },
    observation::seen::{Unseen, refusal},
    status::StepStatus,
};

fn error(kind: Kind, operation: &'static str) -> Error {
    Error {
        kind,
        operation,
        code: None,
        message: "m".into(),
        source: None,
    }
}

fn unseen(reason: Reason) -> Unseen {
    Unseen {
        reason,
        message: "m".into(),
    }
}

fn tag() -> Actions {
    ApiGatewayAction::TagDomain { arn: "a".into() }.into()
}

#[test]
fn conditions_are_false_when_a_user_has_to_act_and_unknown_while_a_problem_may_pass() {
    let of = |step_plan: StepPlan, outcome: Option<&Outcome>| {
        let step_condition = step_condition(Step::DomainProgrammed, &step_plan, outcome);
        (step_condition.status, step_condition.reason)
    };
    for (reason, expected) in [
        (Reason::PermissionDenied, StepStatus::Blocked),
        (Reason::HostedZoneNotFound, StepStatus::Blocked),
        (Reason::Unreachable, StepStatus::Unreachable),
        (Reason::Throttled, StepStatus::Unreachable),
        (Reason::AwsRejected, StepStatus::Unreachable),
    ] {
        assert_eq!(
            of(StepState::Unknown(unseen(reason)).into(), None),
            (expected, reason)
        );
    }
    let failed = Outcome::Failed(error(Kind::Denied, "acm:RequestCertificate"));
    let text = || "m".to_owned();
    for (what, step_plan, outcome, expected) in [
        (
            "done",
            StepPlan::Done(Reason::Programmed, text()),
            None,
            (StepStatus::Done, Reason::Programmed),
        ),
        (
            "done, and the rest failed",
            StepPlan::Correcting(Reason::Programmed, text(), tag()),
            Some(&failed),
            (StepStatus::Done, Reason::Programmed),
        ),
        (
            "acted",
            StepPlan::InProgress(text(), tag()),
            None,
            (StepStatus::Working, Reason::Progressing),
        ),
        (
            "acted and failed",
            StepPlan::InProgress(text(), tag()),
            Some(&failed),
            (StepStatus::Blocked, Reason::PermissionDenied),
        ),
        (
            "waits",
            StepState::Wait(Reason::WaitingForDomain, text()).into(),
            None,
            (StepStatus::Working, Reason::WaitingForDomain),
        ),
        (
            "behind",
            StepState::WaitingFor(Step::TruststorePublished).into(),
            None,
            (StepStatus::Working, Reason::WaitingForTruststore),
        ),
        (
            "blocked",
            StepState::Blocked(Reason::ForeignOwner, text()).into(),
            None,
            (StepStatus::Blocked, Reason::ForeignOwner),
        ),
        (
            "blocked, and the rest failed",
            StepState::Blocked(Reason::ForeignOwner, text()).with(Vec::from(tag())),
            Some(&failed),
            (StepStatus::Blocked, Reason::ForeignOwner),
        ),
        (
            "as the spec wants it",
            StepState::Blocked(Reason::KeptOpen, text()).into(),
            None,
            (StepStatus::Waived, Reason::KeptOpen),
        ),
    ] {
        assert_eq!(of(step_plan, outcome), expected, "{what}");
    }
}

#[test]
fn each_aws_error_has_its_status_reason_and_message() {
    for (kind, operation, status, reason, told) in [
        (
            Kind::Denied,
            errors::ASSUME_ROLE,
            StepStatus::Blocked,
            Reason::PermissionDenied,
            "trust policy",
        ),
        (
            Kind::Denied,
            "acm:ListCertificates",
            StepStatus::Blocked,
            Reason::PermissionDenied,
            "acm:ListCertificates",
        ),
        (
            Kind::Taken,
            "apigateway:CreateDomainName",
            StepStatus::Blocked,
            Reason::ForeignOwner,
            "another AWS account",
        ),
        (
            Kind::Conflict,
            "apigateway:CreateDomainName",
            StepStatus::Working,
            Reason::Progressing,
            "trying again",
        ),
        (
            Kind::Taken,
            "apigateway:CreateApiMapping",
            StepStatus::Working,
            Reason::Progressing,
            "trying again",
        ),
        (
            Kind::Conflict,
            "apigateway:UpdateDomainName",
            StepStatus::Working,
            Reason::Progressing,
            "trying again",
        ),
        (
            Kind::NotFound,
            "apigateway:UpdateDomainName",
            StepStatus::Working,
            Reason::Progressing,
            "trying again",
        ),
        (
            Kind::NotFound,
            "lambda:AddPermission",
            StepStatus::Blocked,
            Reason::RefNotFound,
            "functionArn",
        ),
        (
            Kind::Throttled,
            "acm:ListCertificates",
            StepStatus::Unreachable,
            Reason::Throttled,
            "throttled",
        ),
        (
            Kind::Transient,
            "acm:ListCertificates",
            StepStatus::Unreachable,
            Reason::Unreachable,
            "m",
        ),
        (
            Kind::Invalid,
            "acm:RequestCertificate",
            StepStatus::Blocked,
            Reason::AwsRejected,
            "m",
        ),
    ] {
        let found = refusal(&error(kind, operation));
        assert_eq!((found.0, found.1), (status, reason), "{operation} {kind:?}");
        assert!(found.2.contains(told), "{}", found.2);
    }
}

#[test]
fn each_outcome_has_its_status_reason_and_retry() {
    let queued = |ahead, seconds| Outcome::Queued {
        ahead,
        about: Duration::from_secs(seconds),
    };
    for (outcome, status, reason, told, passing) in [
        (
            queued(0, 5000),
            StepStatus::Working,
            Reason::Queued,
            ": next",
            true,
        ),
        (
            queued(1, 300),
            StepStatus::Working,
            Reason::Queued,
            "within 5 minutes",
            true,
        ),
        (
            queued(9, 301),
            StepStatus::Working,
            Reason::Queued,
            "within 30 minutes",
            true,
        ),
        (
            queued(99, 1801),
            StepStatus::Working,
            Reason::Queued,
            "in more than 30 minutes",
            true,
        ),
        (
            Outcome::Limited {
                about: Duration::from_secs(1801),
            },
            StepStatus::Working,
            Reason::Queued,
            "5 certificates for this object within a day, its own limit, because AWS counts each for a year: \
             the next request follows in more than 30 minutes",
            true,
        ),
        (
            Outcome::NotShown("n".into()),
            StepStatus::Working,
            Reason::Progressing,
            "n",
            true,
        ),
        (
            Outcome::Kubernetes("c".into()),
            StepStatus::Unreachable,
            Reason::Unreachable,
            "c",
            true,
        ),
        (
            Outcome::Failed(error(Kind::Transient, "acm:ListCertificates")),
            StepStatus::Unreachable,
            Reason::Unreachable,
            "m",
            true,
        ),
        (
            Outcome::Failed(error(Kind::Taken, "apigateway:CreateDomainName")),
            StepStatus::Blocked,
            Reason::ForeignOwner,
            "another",
            false,
        ),
        (
            Outcome::Failed(error(Kind::Conflict, "apigateway:CreateDomainName")),
            StepStatus::Working,
            Reason::Progressing,
            "m",
            true,
        ),
    ] {
        let found = explain(&outcome);
        assert_eq!(
            (found.0, found.1, passes(&outcome)),
            (status, reason, passing),
            "{outcome:?}"
        );
        assert!(found.2.contains(told), "{}", found.2);
    }
}

#[test]
fn an_object_that_is_being_deleted_is_never_done() {
    let of = |step_plan: StepPlan| {
        let step_condition = deletion_condition(&step_plan, None);
        (step_condition.status, step_condition.reason)
    };
    assert_eq!(
        of(StepPlan::done(Reason::Programmed, "m")),
        (StepStatus::Working, Reason::Deleting)
    );
    assert_eq!(
        of(StepPlan::in_progress("m", tag())),
        (StepStatus::Working, Reason::Deleting)
    );
    assert_eq!(
        of(StepState::blocked(Reason::ForeignOwner, "m").into()),
        (StepStatus::Blocked, Reason::ForeignOwner)
    );
    let denied = unseen(Reason::PermissionDenied);
    assert_eq!(
        of(StepState::Unknown(denied).into()),
        (StepStatus::Blocked, Reason::PermissionDenied)
    );
}

#[test]
fn a_deletion_that_aws_refuses_names_the_annotation_before_awss_message() {
    let domain: MtlsDomain = serde_json::from_value(serde_json::json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": "partners", "namespace": "ns", "deletionTimestamp": "2026-11-30T12:00:00Z"},
        "spec": {"domainName": "api.example.com"},
    }))
    .unwrap();
    const WAY_OUT: &str = "annotate this object with mtls-operator.io/abandon: partners (AWS: m)";
    for (kind, names_it) in [
        (Kind::Denied, true),
        (Kind::Credentials, true),
        (Kind::Quota, true),
        (Kind::Protected, true),
        (Kind::Throttled, false),
        (Kind::Conflict, false),
        (Kind::Transient, false),
    ] {
        let error = Error {
            code: Some("Code".into()),
            ..error(kind, "acm:DeleteCertificate")
        };
        let failed = Outcome::Failed(error.clone());
        let found = deletion_condition(&StepPlan::in_progress("m", tag()), Some(&failed));
        let told = with_way_out(&domain, found.reason, &found.message);
        assert_eq!(told.ends_with(WAY_OUT), names_it, "{told}");
        // The operator could not open a session, or could not read what the policy decides by.
        let new = blind(
            &MtlsDomainStatus::default(),
            1,
            &crate::observation::seen::unseen(&error),
            now(),
        );
        let waiting = waiting_deletion(&domain, &new, now()).unwrap();
        let told = waits_for(&waiting).unwrap();
        assert_eq!(told.ends_with(WAY_OUT), names_it, "{told}");
    }
}

fn condition_of(status: &MtlsDomainStatus, type_: ConditionType) -> (String, String) {
    let found = status.conditions.iter().find(|c| c.type_ == type_.as_str());
    found
        .map(|c| (c.status.clone(), c.reason.clone()))
        .unwrap_or_default()
}

#[test]
fn an_observed_domain_reports_its_plan_and_is_not_ready() {
    let (d, mut o) = settled();
    o.domain.as_mut().unwrap().as_mut().unwrap().ip_address_type =
        crate::aws::gateway::domains::IpAddressType::Dualstack;
    let plan = plan(&d, &o, now());
    let told: Vec<_> = plan
        .actions()
        .map(|(_, action): (_, &Action)| action.to_string())
        .collect();
    assert_eq!(told.len(), 1);
    let old = MtlsDomainStatus::default();
    let new = observing(&old, 1, &d.placement, &plan, &o, now());
    assert_eq!(new.plan, told);
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(
        condition_of(&new, ConditionType::DomainProgrammed),
        is("False", "Observing")
    );
    assert_eq!(
        condition_of(&new, ConditionType::TruststorePublished),
        is("True", "Published")
    );
    assert_eq!(condition_of(&new, ConditionType::Ready), is("False", "Observing"));
    let served = report(&new, 1, &d.placement, &plan, &o, &Outcomes::new(), now());
    assert!(served.plan.is_empty(), "the operator now executes the plan");
}

#[test]
fn facts_that_could_not_be_read_stay_in_the_status() {
    let (d, o) = settled();
    let plan_of = |o: &Observed| plan(&d, o, now());
    let seen = report(
        &MtlsDomainStatus::default(),
        1,
        &d.placement,
        &plan_of(&o),
        &o,
        &Outcomes::new(),
        now(),
    );
    assert!(seen.truststore.is_some() && seen.certificate.is_some() && seen.target_domain_name.is_some());
    assert_eq!(seen.mappings.len(), 3);
    type Change = fn(&mut Observed);
    let changes: [(&str, Change); 4] = [
        ("the domain", |o| {
            o.domain = Err(Unseen {
                reason: Reason::Unreachable,
                message: "m".into(),
            })
        }),
        ("the certificates", |o| {
            o.certificates = Err(Unseen {
                reason: Reason::Unreachable,
                message: "m".into(),
            })
        }),
        ("the mappings", |o| {
            o.mappings = Err(Unseen {
                reason: Reason::Unreachable,
                message: "m".into(),
            })
        }),
        ("the truststore", |o| {
            o.pinned = Err(Unseen {
                reason: Reason::Unreachable,
                message: "m".into(),
            })
        }),
    ];
    for (what, change) in changes {
        let mut o = o.clone();
        change(&mut o);
        front_again(&mut o);
        let new = report(&seen, 1, &d.placement, &plan_of(&o), &o, &Outcomes::new(), now());
        let facts = |s: &MtlsDomainStatus| {
            (
                s.truststore.clone(),
                s.certificate.clone(),
                s.target_domain_name.clone(),
                s.mappings.clone(),
            )
        };
        assert_eq!(facts(&new), facts(&seen), "{what}");
    }
    let mut gone = o.clone();
    (gone.domain, gone.pinned, gone.mappings) = (Ok(None), Ok(None), Ok(vec![]));
    let new = report(
        &seen,
        1,
        &d.placement,
        &plan_of(&gone),
        &gone,
        &Outcomes::new(),
        now(),
    );
    assert!(new.truststore.is_none() && new.target_domain_name.is_none() && new.mappings.is_empty());
    let mut not_owned = o.clone();
    not_owned.domain.as_mut().unwrap().as_mut().unwrap().tags.clear();
    front_again(&mut not_owned);
    let new = report(
        &seen,
        1,
        &d.placement,
        &plan_of(&not_owned),
        &not_owned,
        &Outcomes::new(),
        now(),
    );
    assert!(new.truststore.is_none() && new.target_domain_name.is_none() && new.mappings.is_empty());
}

#[test]
fn bypasses_are_reported_while_they_exist() {
    let old = MtlsDomainStatus::default();
    let way = [Bypass {
        domain: "plain.example.com".into(),
        api_id: "a1".into(),
    }];
    let found = with_bypasses(old.clone(), 1, Some(&way), now());
    assert_eq!(condition_of(&found, ConditionType::BypassDetected).0, "True");
    assert_eq!(
        with_bypasses(found.clone(), 1, None, now()),
        found,
        "not known: the condition stays"
    );
    assert_eq!(
        with_bypasses(found, 1, Some(&[]), now()).conditions,
        old.conditions
    );
}

#[test]
fn living_leaves_are_those_of_the_authority_that_have_not_expired() {
    let (_, mut o) = settled();
    let authority = crate::controllers::mtls_domain::simulation::world::authority_certificate();
    let hour = jiff::SignedDuration::from_hours(1);
    let key_id: String = authority
        .subject_key_id
        .iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let leaf = |holder: &str, issuer: LeafIssuer, end| Leaf {
        holder: holder.into(),
        issuer,
        not_after: end,
    };
    let name = || LeafIssuer::Name(authority.subject.clone());
    o.leaves = vec![
        leaf("a", name(), now() + hour),
        leaf("a", LeafIssuer::KeyId(key_id.clone()), now() + hour),
        leaf("b", LeafIssuer::KeyId(key_id), now() + hour),
        leaf("c", name(), now()),
        leaf("d", LeafIssuer::Name("CN=Other".into()), now() + hour),
        leaf("e", LeafIssuer::KeyId(String::new()), now() + hour),
    ];
    assert_eq!(living_leaves(&authority, &o, now()), 2);
    let mut nameless = authority.clone();
    nameless.subject_key_id = None;
    assert_eq!(
        living_leaves(&nameless, &o, now()),
        1,
        "an empty key id matches no authority"
    );
}

#[test]
fn every_step_reports_that_nothing_can_be_read() {
    let new = blind(
        &MtlsDomainStatus::default(),
        1,
        &unseen(Reason::PermissionDenied),
        now(),
    );
    for step in Step::of_every_domain() {
        assert_eq!(
            condition_of(&new, step.condition()),
            ("False".into(), "PermissionDenied".into())
        );
    }
    let new = unclear(
        &MtlsDomainStatus::default(),
        1,
        &unseen(Reason::Unreachable),
        now(),
    );
    assert_eq!(
        condition_of(&new, ConditionType::Accepted),
        ("Unknown".into(), "Unreachable".into())
    );
    assert_eq!(
        condition_of(&new, ConditionType::ResolvedRefs),
        (String::new(), String::new())
    );
}

/// A deletion whose reads fail: no condition stays True of a resource that may be gone.
#[test]
fn an_unreadable_domain_makes_the_conditions_of_its_deletion_unknown() {
    let (d, o) = settled();
    let plan = plan(&d, &o, now());
    let done = report(
        &MtlsDomainStatus::default(),
        1,
        &d.placement,
        &plan,
        &o,
        &Outcomes::new(),
        now(),
    );
    let status_of = |status: &MtlsDomainStatus, type_: ConditionType| {
        let mut all = status.conditions.iter();
        let c = all.find(|c| c.type_ == type_.as_str()).expect("present");
        (c.status.clone(), c.reason.clone())
    };
    let text = |status: &str, reason: Reason| (status.to_owned(), reason.as_str().to_owned());
    let unseen = Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    };
    let gone = deleting(done.clone(), 2, "deleting", &Fate::Deleted, now());
    for (before, fate, expected) in [
        (
            &done,
            Fate::Unknown(&unseen),
            text("Unknown", Reason::Unreachable),
        ),
        (&done, Fate::Stay, text("True", Reason::Issued)),
        (&done, Fate::Deleted, text("False", Reason::Deleting)),
        (&gone, Fate::Unknown(&unseen), text("False", Reason::Deleting)),
    ] {
        let new = deleting(before.clone(), 2, "no answer", &fate, now());
        assert_eq!(status_of(&new, ConditionType::CertificateIssued), expected);
        assert_eq!(
            status_of(&new, ConditionType::Ready),
            text("False", Reason::Deleting)
        );
    }
}
