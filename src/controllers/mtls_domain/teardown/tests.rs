//! Tests of `teardown`.

use super::*;

use crate::{
    api::{DeletionPolicy, RestDeployment, UnlistedMappings, conditions::Reason},
    aws::{
        gateway::domains::{Domain, DomainStatus},
        tags::{ADOPTED_TAG, OWNER_TAG},
    },
    controllers::mtls_domain::simulation::world::{desired, empty},
    model::{
        action::Action,
        observed::Leftovers,
        placement::Placement,
        step::{StepPlan, StepState},
    },
    observation::seen::Unseen,
};

/// A domain in sync: its placement, the mapping paths of its spec, and its leftovers.
fn whole() -> (Placement, Vec<String>, Leftovers) {
    let (d, mut world) = (desired(), empty());
    world.converge(&d);
    (
        d.placement.clone(),
        d.mappings.keys().cloned().collect(),
        world.leftovers(),
    )
}

fn unseen() -> Unseen {
    Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    }
}

fn domain_of(r: &mut Leftovers) -> &mut Domain {
    r.domain.as_mut().unwrap().as_mut().unwrap()
}

fn shown(step_plan: &StepPlan) -> (&'static str, Vec<String>) {
    let state = match step_plan {
        StepPlan::Done(..) => "done",
        StepPlan::Correcting(..) => "corrects",
        StepPlan::InProgress(..) => "acts",
        StepPlan::Pending(StepState::Wait(..), _) => "waits",
        StepPlan::Pending(StepState::WaitingFor(_), _) => "behind",
        StepPlan::Pending(StepState::Blocked(..), _) => "blocked",
        StepPlan::Pending(StepState::Unknown(_), _) => "unknown",
    };
    let first = |action: &Action| {
        format!("{action:?}")
            .split([' ', '('])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    (state, step_plan.actions().map(first).collect())
}

#[test]
fn teardown_removes_owned_resources_in_order() {
    let unlisted =
        |fate| move |placement: &mut Placement, _: &mut Leftovers| placement.unlisted_mappings = Some(fate);
    let drop_orders: fn(&mut Vec<String>) = |listed| listed.retain(|path| path != "orders");
    let all: fn(&mut Vec<String>) = |_| {};
    let whole_domain = [
        "ChangeRecords",
        "DeleteMapping",
        "DeleteMapping",
        "DeleteMapping",
        "DeleteDomain",
    ]
    .as_slice();
    let not_domain = &whole_domain[..4];
    type Change = Box<dyn Fn(&mut Placement, &mut Leftovers)>;
    let not_owned = |_: &mut Placement, r: &mut Leftovers| {
        domain_of(r)
            .tags
            .insert(OWNER_TAG.into(), "other/ns/partners".into());
    };
    let adopted = |_: &mut Placement, r: &mut Leftovers| {
        domain_of(r).tags.insert(ADOPTED_TAG.into(), "true".into());
    };
    let elsewhere = |r: &mut Leftovers| domain_of(r).truststore = None;
    let rest = ["ChangeRecords", "DeleteTruststoreVersion", "DeleteCertificate"].as_slice();
    let released = ["ChangeRecords", "ReleaseCertificate", "ReleaseDomain"].as_slice();
    type Listed = fn(&mut Vec<String>);
    type Case<'a> = (
        &'a str,
        Change,
        Listed,
        Option<DeletionPolicy>,
        (&'a str, &'a [&'a str]),
    );
    let cases: Vec<Case> = vec![
        (
            "all of it",
            Box::new(|_, _| {}),
            all,
            None,
            ("acts", whole_domain),
        ),
        (
            "a domain that the operator created is deleted with its unlisted mappings",
            Box::new(|_, _| {}),
            drop_orders,
            None,
            ("acts", whole_domain),
        ),
        (
            "kept unlisted mappings keep the domain",
            Box::new(unlisted(UnlistedMappings::Keep)),
            drop_orders,
            None,
            ("blocked", &[]),
        ),
        (
            "nothing is unlisted",
            Box::new(unlisted(UnlistedMappings::Keep)),
            all,
            None,
            ("acts", whole_domain),
        ),
        (
            "unlisted mappings are deleted",
            Box::new(unlisted(UnlistedMappings::Delete)),
            drop_orders,
            None,
            ("acts", whole_domain),
        ),
        (
            "taken over, with deletionPolicy Delete, and an unlisted mapping",
            Box::new(adopted),
            drop_orders,
            Some(DeletionPolicy::Delete),
            ("blocked", &[]),
        ),
        (
            "taken over, with deletionPolicy Delete",
            Box::new(adopted),
            all,
            Some(DeletionPolicy::Delete),
            ("acts", whole_domain),
        ),
        (
            "while API Gateway updates the domain, only records and mappings",
            Box::new(|_, r| domain_of(r).status = DomainStatus::Updating),
            all,
            None,
            ("waits", not_domain),
        ),
        (
            "taken over: it stays",
            Box::new(adopted),
            all,
            None,
            ("acts", released),
        ),
        (
            "retained",
            Box::new(|_, _| {}),
            all,
            Some(DeletionPolicy::Retain),
            ("acts", released),
        ),
        (
            "another owner's, with this domain's truststore",
            Box::new(not_owned),
            all,
            None,
            ("acts", &released[..2]),
        ),
        (
            "another owner's, without this domain's truststore",
            Box::new(move |placement, r| (not_owned(placement, r), elsewhere(r)).1),
            all,
            None,
            ("waits", &rest[..2]),
        ),
        (
            "without an owner, with this domain's truststore",
            Box::new(|_, r| domain_of(r).tags.clear()),
            all,
            Some(DeletionPolicy::Delete),
            ("acts", &released[..2]),
        ),
        (
            "the domain is gone",
            Box::new(|_, r| gone(r)),
            all,
            None,
            ("acts", rest),
        ),
        (
            "the certificate is in use for a while",
            Box::new(|_, r| r.domain = Ok(None)),
            all,
            None,
            ("waits", &rest[..2]),
        ),
        (
            "the zone is gone, and the records with it",
            Box::new(|_, r| (gone(r), r.zone_id = None).1),
            all,
            None,
            ("acts", &rest[1..]),
        ),
        (
            "no owned resource is left",
            Box::new(|_, r| {
                gone(r);
                (r.records, r.certificates, r.versions) = (Ok(vec![]), Ok(vec![]), Ok(vec![]));
            }),
            all,
            None,
            ("done", &[]),
        ),
        (
            "a certificate that is not owned stays",
            Box::new(|_, r| {
                gone(r);
                (r.records, r.versions) = (Ok(vec![]), Ok(vec![]));
                r.certificates.as_mut().unwrap()[0].tags.clear();
            }),
            all,
            None,
            ("done", &[]),
        ),
        (
            "the records cannot be read",
            Box::new(|_, r| r.records = Err(unseen())),
            all,
            None,
            ("unknown", &[]),
        ),
        (
            "the domain cannot be read",
            Box::new(|_, r| r.domain = Err(unseen())),
            all,
            None,
            ("unknown", &[]),
        ),
        (
            "the mappings cannot be read",
            Box::new(|_, r| r.mappings = Err(unseen())),
            all,
            None,
            ("unknown", &[]),
        ),
        (
            "the certificates cannot be read",
            Box::new(|_, r| (gone(r), r.certificates = Err(unseen())).1),
            all,
            None,
            ("unknown", &rest[..1]),
        ),
        (
            "the versions cannot be read",
            Box::new(|_, r| (gone(r), r.versions = Err(unseen())).1),
            all,
            None,
            ("unknown", &rest[..1]),
        ),
        (
            "retained, and the certificates cannot be read",
            Box::new(|_, r| r.certificates = Err(unseen())),
            all,
            Some(DeletionPolicy::Retain),
            ("unknown", &[]),
        ),
    ];
    for (what, change, list, policy, (state, actions)) in cases {
        let (mut placement, mut listed, mut leftovers) = whole();
        change(&mut placement, &mut leftovers);
        list(&mut listed);
        let step_plan = teardown(&placement, policy, RestDeployment::Never, &listed, &leftovers);
        let expected = (state, actions.iter().map(|a| (*a).to_owned()).collect());
        assert_eq!(shown(&step_plan), expected, "{what}: {step_plan:?}");
    }
}

fn gone(r: &mut Leftovers) {
    r.domain = Ok(None);
    r.certificates.iter_mut().flatten().for_each(|c| c.in_use = false);
}
