//! Tests of `serving`.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    api::{
        AuthorityState, MtlsDomainStatus,
        conditions::{ConditionType, Reason},
    },
    aws::{
        action::api_gateway::ApiGatewayAction,
        errors::{self, Kind},
        gateway::domains::DomainStatus,
        quota::Class,
    },
    controllers::mtls_domain::{
        plan,
        quota_class::{class, is_queued, waiting_since},
        report::step_conditions::Outcome,
        requeue::{Requeue, cached_since, in_sync_since, pending_change, requeue},
        serving::{InUse, trust_in_use},
        simulation::world::{empty, front_again, now, settled},
    },
    model::{
        action::Action,
        authorities::{DesiredAuthority, DesiredSource},
        desired::Desired,
        observed::{CanIssue, Observed, Source},
        step::{Plan, Step, StepPlan, StepState},
    },
    observation::seen::Unseen,
    pki::truststore::{Bundle, Entry},
    status::{ConditionStatus, conditions},
};

fn planned(d: &Desired, o: &Observed) -> Plan {
    plan::unlimited(d, o, now())
}

fn unseen() -> Unseen {
    Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    }
}

fn updating(o: &mut Observed) {
    o.domain.as_mut().unwrap().as_mut().unwrap().status = DomainStatus::Updating;
    front_again(o);
}

#[test]
fn trust_is_published_only_when_it_is_certain_to_be_in_use() {
    let (d, settled) = settled();
    let bundle = settled.pinned.as_ref().unwrap().as_ref().unwrap().bundle.clone();
    type Change = fn(&mut Observed);
    let cases: [(&str, Change, Option<Option<&Bundle>>); 9] = [
        ("in use", |_| {}, Some(Some(&bundle))),
        ("UPDATING", updating, None),
        ("no domain", |o| o.domain = Ok(None), Some(None)),
        (
            "no domain, and an old version that cannot be read",
            |o| (o.domain, o.pinned) = (Ok(None), Err(unseen())),
            Some(None),
        ),
        ("the domain cannot be read", |o| o.domain = Err(unseen()), None),
        ("the version cannot be read", |o| o.pinned = Err(unseen()), None),
        ("no mutual TLS", |o| o.pinned = Ok(None), None),
        (
            "neither can be read",
            |o| (o.domain, o.pinned) = (Err(unseen()), Err(unseen())),
            None,
        ),
        (
            "the next bundle is not published yet",
            |o| o.published = Ok(None),
            Some(Some(&bundle)),
        ),
    ];
    for (what, change, expected) in cases {
        let mut o = settled.clone();
        change(&mut o);
        front_again(&mut o);
        let plan = planned(&d, &o);
        let found = match trust_in_use(&o, &plan) {
            InUse::Bundle(bundle, without_room) => {
                assert_eq!(without_room.is_some(), plan.truststore.is_some(), "{what}");
                Some(Some(bundle))
            }
            InUse::NoDomain => Some(None),
            InUse::Unknown => None,
        };
        assert_eq!(found, expected, "{what}");
    }
}

fn status(conditions: &[(ConditionType, ConditionStatus, Reason, i64)]) -> MtlsDomainStatus {
    let mut status = MtlsDomainStatus::default();
    for (type_, value, reason, generation) in conditions {
        conditions::set(
            &mut status.conditions,
            *generation,
            *type_,
            *value,
            *reason,
            "m",
            now(),
        );
    }
    status
}

#[test]
fn distrust_goes_first_then_a_change_of_the_spec_then_a_new_domain_then_drift() {
    let ready = |value, generation| status(&[(ConditionType::Ready, value, Reason::Ready, generation)]);
    let served = ready(ConditionStatus::True, 2);
    let (d, o) = settled();
    assert_eq!(class(&d, &o, &planned(&d, &o), &served, 2), Class::Drift);
    for (what, old) in [
        ("never reconciled", status(&[])),
        ("an earlier generation was Ready", ready(ConditionStatus::True, 1)),
        ("it is not Ready", ready(ConditionStatus::False, 2)),
        (
            "another condition is True",
            status(&[(ConditionType::Accepted, ConditionStatus::True, Reason::Ready, 2)]),
        ),
    ] {
        assert_eq!(
            class(&d, &o, &planned(&d, &o), &old, 2),
            Class::SpecChange,
            "{what}"
        );
    }
    let other = crate::pki::authority::tests::issuer("Other", now());
    let distrusted = DesiredAuthority {
        name: "other".into(),
        state: AuthorityState::Distrusted,
        source: DesiredSource::Pem(other.chain().authority().to_pem()),
    };
    let mut without = d.clone();
    without.authorities.push(distrusted);
    let mut seen = o.clone();
    let entry = Entry {
        authority: "other".into(),
        certificate: other.chain().authority().clone(),
        max_leaf: None,
        keep_until: None,
    };
    for bundle in [
        &mut seen.published.as_mut().unwrap().as_mut().unwrap().bundle,
        &mut seen.pinned.as_mut().unwrap().as_mut().unwrap().bundle,
    ] {
        Arc::make_mut(bundle).entries.push(entry.clone());
    }
    let source = Source::Read {
        certificates: Ok(vec![other.chain().authority().clone()]),
        completing: Ok(vec![]),
        can_issue: CanIssue::No,
    };
    seen.authorities.insert("other".into(), source);
    let plan = planned(&without, &seen);
    assert!(plan.truststore.as_ref().unwrap().distrusts);
    assert_eq!(
        class(&without, &seen, &plan, &served, 2),
        Class::Distrust,
        "a distrusted authority"
    );
    assert_eq!(
        class(&without, &seen, &plan, &status(&[]), 2),
        Class::Distrust,
        "a distrusted authority, with an empty status"
    );
    // A self-signed ClientCertificate is deleted.
    let mut withdrawn = o.clone();
    let own = Entry {
        authority: "clientcertificates/ns/client1/uid".into(),
        ..entry
    };
    let pinned = withdrawn.pinned.as_mut().unwrap().as_mut().unwrap();
    Arc::make_mut(&mut pinned.bundle).entries.push(own);
    let nothing = Plan {
        truststore: None,
        ..planned(&d, &o)
    };
    assert_eq!(
        class(&d, &withdrawn, &nothing, &served, 2),
        Class::Distrust,
        "a deleted ClientCertificate"
    );
    let mut new = empty();
    new.converge(&d);
    new.domain = None;
    let o = new.observed();
    let plan = planned(&d, &o);
    assert!(
        plan.actions()
            .any(|(_, action)| matches!(action, Action::ApiGateway(ApiGatewayAction::CreateDomain(_))))
    );
    assert_eq!(class(&d, &o, &plan, &served, 2), Class::Creation);
}

#[test]
fn a_place_in_the_queue_is_kept_in_the_status() {
    let of = |value, reason| status(&[(ConditionType::DomainProgrammed, value, reason, 1)]);
    let queued = of(ConditionStatus::Unknown, Reason::Queued);
    for (what, old, since, queues) in [
        ("it waits in the queue", queued, true, true),
        (
            "it waits for something else",
            of(ConditionStatus::Unknown, Reason::Progressing),
            true,
            false,
        ),
        (
            "it is in the desired state",
            of(ConditionStatus::True, Reason::Programmed),
            false,
            false,
        ),
        (
            "it is blocked",
            of(ConditionStatus::False, Reason::DomainRejected),
            false,
            false,
        ),
        ("nothing is known", status(&[]), false, false),
        (
            "another step waits",
            status(&[(
                ConditionType::BypassClosed,
                ConditionStatus::Unknown,
                Reason::Queued,
                1,
            )]),
            false,
            false,
        ),
    ] {
        assert_eq!(
            (waiting_since(&old).is_some(), is_queued(&old)),
            (since, queues),
            "{what}"
        );
    }
}

fn with(step_plan: impl Into<StepPlan>) -> Plan {
    let (d, o) = settled();
    let mut plan = planned(&d, &o);
    plan.steps.insert(Step::DomainProgrammed, step_plan.into());
    plan
}

fn failed(kind: Kind, operation: &'static str) -> Outcome {
    Outcome::Failed(errors::Error {
        kind,
        operation,
        code: None,
        message: "m".into(),
        source: None,
    })
}

#[test]
fn the_next_reconcile_follows_from_plan_outcomes_and_cache() {
    let done = || with(StepPlan::done(Reason::Programmed, "m"));
    let blocked = |reason| with(StepState::Blocked(reason, "m".into()));
    let wait = || with(StepState::Wait(Reason::WaitingForDomain, "m".into()));
    let queued = Outcome::Queued {
        ahead: 1,
        about: Duration::ZERO,
    };
    let taken = failed(Kind::Taken, "apigateway:CreateDomainName");
    let throttled = failed(Kind::Throttled, "acm:RequestCertificate");
    let missing = failed(Kind::NotFound, "lambda:AddPermission");
    let acts = || {
        with(StepPlan::in_progress(
            "m",
            ApiGatewayAction::TagDomain { arn: "a".into() },
        ))
    };
    for (what, plan, effects, outcome, cache_was_stale, expected) in [
        ("in sync", done(), 0, None, false, Requeue::ResyncSoon),
        (
            "in sync, and the cached pass was inconclusive",
            done(),
            0,
            None,
            true,
            Requeue::ResyncLater,
        ),
        (
            "something was changed",
            done(),
            1,
            None,
            false,
            Requeue::Immediately,
        ),
        (
            "something was changed, another call failed",
            wait(),
            1,
            Some(throttled.clone()),
            false,
            Requeue::Immediately,
        ),
        ("AWS is working on it", wait(), 0, None, false, Requeue::Backoff),
        (
            "AWS does not answer",
            with(StepState::Unknown(unseen())),
            0,
            None,
            false,
            Requeue::Backoff,
        ),
        (
            "a call failed",
            acts(),
            0,
            Some(throttled),
            false,
            Requeue::Backoff,
        ),
        (
            "a referenced resource does not exist",
            acts(),
            0,
            Some(missing.clone()),
            false,
            Requeue::SlowBackoff,
        ),
        (
            "it does not exist, and AWS is working on something else",
            wait(),
            0,
            Some(missing),
            false,
            Requeue::Backoff,
        ),
        (
            "it is queued, and the queue triggers its reconcile",
            acts(),
            0,
            Some(queued),
            false,
            Requeue::ResyncLater,
        ),
        (
            "another account has the name",
            acts(),
            0,
            Some(taken),
            false,
            Requeue::ResyncLater,
        ),
        (
            "another party has to lift the refusal",
            acts(),
            0,
            Some(failed(Kind::Quota, "acm:RequestCertificate")),
            false,
            Requeue::AfterPause,
        ),
        (
            "another party has to lift the refusal, and another step waits",
            wait(),
            0,
            Some(failed(Kind::Protected, "route53:ChangeResourceRecordSets")),
            false,
            Requeue::Backoff,
        ),
        (
            "another party has to act",
            blocked(Reason::ForeignOwner),
            0,
            None,
            false,
            Requeue::ResyncLater,
        ),
        (
            "the spec keeps the endpoint open",
            blocked(Reason::KeptOpen),
            0,
            None,
            false,
            Requeue::ResyncSoon,
        ),
        (
            "a step waits for another",
            with(StepState::WaitingFor(Step::TruststorePublished)),
            0,
            None,
            false,
            Requeue::ResyncLater,
        ),
    ] {
        let outcomes = outcome
            .map(|outcome| (Step::DomainProgrammed, outcome))
            .into_iter()
            .collect();
        assert_eq!(
            requeue(&plan, effects, &outcomes, cache_was_stale),
            expected,
            "{what}"
        );
    }
}

#[test]
fn cached_reads_count_for_a_generation_in_sync_and_from_before_its_live_pass() {
    let (began, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
    let in_sync = with(StepPlan::done(Reason::Programmed, "m"));
    let tag = ApiGatewayAction::TagDomain { arn: "a".into() };
    let busy = with(StepPlan::done(Reason::Programmed, "m").then(vec![tag]));
    assert_eq!(in_sync_since(&in_sync, 2, began), Some((2, began)));
    assert_eq!(in_sync_since(&busy, 2, began), None, "the plan has an action");
    assert_eq!(
        in_sync_since(
            &with(StepState::Wait(Reason::WaitingForDomain, "m".into())),
            2,
            began
        ),
        None
    );
    assert_eq!(cached_since(Some((2, later)), 2), Some(later));
    assert_eq!(cached_since(Some((1, later)), 2), None, "the spec has changed");
    assert_eq!(cached_since(None, 2), None);
}

#[test]
fn a_record_change_is_pending_until_it_is_in_sync() {
    for (in_sync, expected) in [
        (Ok(true), None),
        (Ok(false), Some("c1")),
        (Err(unseen()), Some("c1")),
    ] {
        assert_eq!(pending_change(Some("c1".into()), &in_sync).as_deref(), expected);
        assert_eq!(pending_change(None, &in_sync), None);
    }
}
