//! Tests of `custom_domain`.

use crate::{
    api::{AdoptionPolicy, conditions::Reason},
    aws::{
        gateway::domains::{Domain, DomainStatus, IpAddressType},
        tags::{ADOPTED_TAG, OWNER_TAG},
    },
    controllers::mtls_domain::{
        plan::unlimited as plan,
        simulation::world::{front_again, now, settled},
    },
    model::{
        desired::Desired,
        observed::Observed,
        step::{Step, StepPlan, StepState},
    },
};

fn planned(d: &Desired, o: &Observed) -> Vec<String> {
    let mut o = o.clone();
    front_again(&mut o);
    plan(d, &o, now())
        .actions()
        .map(|(_, action)| action.to_string())
        .collect()
}

fn domain_of(o: &mut Observed) -> &mut Domain {
    o.domain.as_mut().unwrap().as_mut().unwrap()
}

#[test]
fn a_lost_ownership_tag_is_restored_only_on_a_domain_that_the_operator_created() {
    let (d, settled) = settled();
    let mut lost = settled.clone();
    domain_of(&mut lost).tags.clear();
    assert_eq!(
        (planned(&d, &settled).len(), planned(&d, &lost)),
        (0, vec!["restore the ownership tag on arn:domain".into()])
    );
    type Take = fn(&mut Observed);
    let less: [(&str, Take); 6] = [
        ("the ownership tag of another owner", |o| {
            drop(
                domain_of(o)
                    .tags
                    .insert(OWNER_TAG.into(), "other/ns/partners".into()),
            )
        }),
        ("the certificate has another owner", |o| {
            o.certificates.as_mut().unwrap()[0].tags.clear()
        }),
        ("without mutual TLS", |o| domain_of(o).truststore = None),
        ("the truststore object has no owner", |o| {
            o.pinned.as_mut().unwrap().as_mut().unwrap().owner = None
        }),
        ("the ownership record is missing", |o| {
            o.records.as_mut().unwrap().retain(|r| r.kind != "TXT")
        }),
        ("the records are unknown", |o| o.records = Err(unseen())),
    ];
    for (what, take) in less {
        let mut o = lost.clone();
        take(&mut o);
        for certificate in o.named.values_mut().flatten().flatten() {
            certificate.tags = o.certificates.as_ref().unwrap()[0].tags.clone();
        }
        assert_eq!(planned(&d, &o), [""; 0], "{what}");
    }
}

fn unseen() -> crate::observation::seen::Unseen {
    crate::observation::seen::Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    }
}

#[test]
fn another_routing_mode_is_corrected_on_a_created_domain_and_reported_on_an_adopted_one() {
    let (d, mut o) = settled();
    domain_of(&mut o).routing_mode = "ROUTING_RULE_THEN_API_MAPPING".into();
    assert!(matches!(&planned(&d, &o)[..], [update] if update.starts_with("update domain")));
    domain_of(&mut o).tags.insert(ADOPTED_TAG.into(), "true".into());
    assert_eq!(planned(&d, &o), [""; 0]);
}

#[test]
fn another_tls_policy_is_restored_on_an_owned_domain_and_kept_on_any_other() {
    let (mut d, mut o) = settled();
    domain_of(&mut o).security_policy = "TLS_1_0".into();
    domain_of(&mut o).truststore = None; // as API version 1 returns it
    let restore = format!("restore the TLS policy of domain {}", d.placement.domain_name);
    assert_eq!(planned(&d, &o), [restore.as_str()]);
    domain_of(&mut o).tags.insert(ADOPTED_TAG.into(), "true".into());
    assert_eq!(planned(&d, &o), [restore.as_str()]);
    domain_of(&mut o).status = DomainStatus::Updating;
    assert_eq!(planned(&d, &o), [""; 0]);
    domain_of(&mut o).status = DomainStatus::Available;
    domain_of(&mut o).endpoint_type = "EDGE".into();
    assert_eq!(planned(&d, &o), [""; 0]);
    domain_of(&mut o).endpoint_type = "REGIONAL".into();
    d.adoption = AdoptionPolicy::Unowned;
    domain_of(&mut o).tags.clear();
    assert_eq!(planned(&d, &o), [""; 0]);
}

/// API Gateway works on a domain that is PENDING, or does not say that it has finished.
#[test]
fn a_domain_that_is_pending_or_without_a_status_is_waited_for() {
    for (status, says) in [
        (DomainStatus::Updating, "API Gateway is updating api.example.com"),
        (DomainStatus::Pending, "api.example.com is PENDING: waiting"),
        (
            DomainStatus::Unstated,
            "api.example.com is without a status: waiting",
        ),
    ] {
        let (d, mut o) = settled();
        domain_of(&mut o).ip_address_type = IpAddressType::Dualstack;
        domain_of(&mut o).status = status;
        let plan = plan(&d, &o, now());
        let StepPlan::Pending(StepState::Wait(reason, message), _) = &plan.steps[&Step::DomainProgrammed]
        else {
            panic!("{:?}", plan.steps)
        };
        assert_eq!(*reason, Reason::WaitingForDomain);
        assert!(message.contains(says), "{message}");
        assert_eq!(planned(&d, &o), [""; 0]);
    }
    let (d, mut o) = settled();
    domain_of(&mut o).status = DomainStatus::Other("FAILED".into());
    domain_of(&mut o).status_message = Some("it failed".into());
    let plan = plan(&d, &o, now());
    let StepPlan::Pending(StepState::Blocked(reason, message), _) = &plan.steps[&Step::DomainProgrammed]
    else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(*reason, Reason::DomainRejected);
    assert!(message.contains("FAILED: it failed"), "{message}");
}
