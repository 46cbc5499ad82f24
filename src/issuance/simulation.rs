//! Planner of certificates against a model of the world: years in milliseconds, from any state to a state
//! with an accepted certificate. The operator never writes a self-signed certificate into the Secret before
//! every server of AWS trusts it. The tests check the model, never the planner's own output.

pub(crate) mod pending;
pub(crate) mod world;

use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use self::{
    pending::deferred,
    world::{Crash, DAY, PROPAGATION, World, crash, signing_itself, spec},
};

use super::{
    action::Action,
    issuer::Issuer,
    observed::Problem,
    plan::{Plan, plan},
};

use crate::{
    api::conditions::{ConditionType, Reason},
    pki::authority::tests::issuer,
    status::StepStatus,
    trust::active_trust::Trust,
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[test]
fn an_authority_renews_for_ten_years() {
    let mut world = World::new(spec(|_| ()));
    world.settles();
    let (start, mut renewals) = (world.now, Vec::new());
    while world.now < start + DAY * 3500 {
        let renewal = world.plan().renewal.unwrap();
        renewals.push(renewal.duration_since(world.now));
        world.now = renewal;
        world.settles();
        assert_eq!(world.secret.as_ref().unwrap().revision, world.issued as i64);
    }
    let (least, most) = (renewals.iter().min().unwrap(), renewals.iter().max().unwrap());
    assert!(
        *least > DAY * 58 && *most <= DAY * 60 + HOUR,
        "two thirds of 90 days, a little less: {least:?} {most:?}"
    );
    // The authority expires in its tenth year. It issues a certificate for its remaining time only once.
    while world.now < world.issuer.chain().not_after() {
        let before = world.issued;
        world.settles();
        assert!(world.issued - before <= 1);
        world.now += DAY * 10;
    }
}

#[test]
fn a_self_signed_certificate_is_renewed_for_ten_years() {
    let mut world = World::new(signing_itself());
    world.settles();
    let start = world.now;
    let mut subjects = vec![world.leaf().unwrap().subject];
    while world.now < start + DAY * 3600 {
        world.now = world.plan().renewal.unwrap();
        world.settles();
        subjects.push(world.leaf().unwrap().subject);
    }
    assert_eq!(
        subjects[..3],
        [
            "CN=client1",
            "CN=client1,serialNumber=2",
            "CN=client1,serialNumber=3"
        ]
    );
    assert!(subjects.len() > 60 && subjects.len() < 65, "{}", subjects.len());
    assert!(
        world.bundle.entries.len() <= 4,
        "expired entries are removed: {:?}",
        world.bundle
    );
}

/// After a restore without Secret and status, while the domain's trust is unknown, the count begins again,
/// with a subject that an earlier certificate has.
#[test]
fn a_lost_count_does_not_reuse_a_subject() {
    let mut world = World::new(signing_itself());
    world.settles();
    let first = world.leaf().unwrap();
    (world.secret, world.revision, world.trust) = (None, 0, None);
    world.reconcile(Crash::No);
    assert_eq!(
        world.next.as_ref().unwrap().held().leaf().unwrap().subject,
        first.subject
    );
    world.settles();
    assert_eq!(world.leaf().unwrap().subject, "CN=client1,serialNumber=2");
}

#[test]
fn a_blocked_renewal_keeps_the_usable_leaf() {
    let issued = |plan: &Plan| {
        plan.step_conditions
            .iter()
            .find(|l| l.type_ == ConditionType::Issued)
            .unwrap()
            .clone()
    };
    let mut world = World::new(spec(|_| ()));
    world.settles();
    world.now = world.plan().renewal.unwrap();
    world.trust = None;
    let waits = world.plan();
    assert_eq!(
        (waits.action.is_none(), issued(&waits).status),
        (true, StepStatus::Done)
    );
    assert!(
        issued(&waits)
            .message
            .contains("the next one: the domain does not serve yet")
    );
    // After the expiry there is no usable leaf.
    world.now = world.leaf().unwrap().not_after;
    assert_eq!(issued(&world.plan()).status, StepStatus::Working);

    // A leaf for the old spec does not satisfy a changed spec.
    let mut world = World::new(spec(|_| ()));
    world.settles();
    world.d = spec(|o| o["spec"]["dnsNames"] = json!(["a.example"]));
    world.trust = None;
    assert_eq!(issued(&world.plan()).status, StepStatus::Working);
    // Without the issuer, the planner does not know the violation.
    let mut o = world.observed();
    let problem = |status| Problem {
        status,
        reason: Reason::WaitingForAuthority,
        message: "the key does not exist".into(),
    };
    for (status, expected) in [
        (StepStatus::Working, StepStatus::Done),
        (StepStatus::Blocked, StepStatus::Blocked),
    ] {
        o.issuer = Err(problem(status));
        let plan = plan(&world.d, &o, PROPAGATION, world.now);
        assert_eq!((issued(&plan).status, plan.action), (expected, None));
    }
}

#[test]
fn a_full_truststore_is_reported_and_keeps_the_usable_leaf() {
    let step_condition = |plan: &Plan, type_| {
        plan.step_conditions
            .iter()
            .find(|l| l.type_ == type_)
            .unwrap()
            .clone()
    };
    let mut world = World::new(signing_itself());
    world.domain_reconciles();
    world.reconcile(Crash::No);
    let full = |world: &mut World| {
        let trust = Trust::of(&world.bundle, world.trust.as_ref(), world.now);
        world.trust = Some(trust.without_room(&[world.d.entry.clone()].into()));
    };
    full(&mut world);
    let trusted = step_condition(&world.plan(), ConditionType::Trusted);
    assert_eq!(
        (trusted.status, trusted.reason),
        (StepStatus::Blocked, Reason::TruststoreFull)
    );
    assert!(
        trusted.message.contains("the truststore of the domain is full"),
        "{}",
        trusted.message
    );
    world.trust = Some(world.trust.take().unwrap().without_room(&Default::default()));
    world.settles();
    // The next certificate does not fit: the domain still trusts the certificate in the Secret.
    world.now = world.plan().renewal.unwrap();
    world.reconcile(Crash::No);
    full(&mut world);
    let plan = world.plan();
    assert_eq!(
        step_condition(&plan, ConditionType::Trusted).status,
        StepStatus::Done
    );
    let issued = step_condition(&plan, ConditionType::Issued);
    assert_eq!(issued.status, StepStatus::Done);
    assert!(
        issued
            .message
            .contains("the next one: the truststore of the domain is full"),
        "{}",
        issued.message
    );
    // An authority has replaced the certificate in the truststore: the status reports it too.
    world
        .bundle
        .entries
        .retain(|entry| entry.authority != world.d.entry);
    full(&mut world);
    assert_eq!(
        step_condition(&world.plan(), ConditionType::Trusted).reason,
        Reason::TruststoreFull
    );
}

#[test]
fn a_change_of_the_authority_waits_until_every_server_trusts_it() {
    let mut world = World::new(spec(|_| ()));
    world.settles();
    let first = world.leaf().unwrap();
    let other = Issuer::SecretKey(Arc::new(issuer("Others", world.now)));
    world.issuer = other.clone();
    assert!(
        world.plan().action.is_none(),
        "the domain does not trust the authority"
    );
    world.domain_reconciles();
    let plan = world.plan();
    assert_eq!(
        (plan.action, plan.requeue_at),
        (None, Some(world.now + PROPAGATION))
    );
    world.now += PROPAGATION;
    world.settles();
    let second = world.leaf().unwrap();
    assert!(second.is_issued_by(other.chain().authority()) && !first.is_issued_by(other.chain().authority()));
}

/// The key stays for partners who pin it. The operator does not certify a key that another writer put there.
#[test]
fn only_a_key_with_an_issued_certificate_stays() {
    let never = |issuance: &str| {
        spec(|o| {
            o["spec"]["issuance"] = json!(issuance);
            o["spec"]["privateKey"] = json!({"rotationPolicy": "Never"});
        })
    };
    for issuance in ["Authority", "SelfSigned"] {
        let mut world = World::new(never(issuance));
        world.settles();
        let first = world.leaf().unwrap();
        world.now = world.plan().renewal.unwrap();
        world.settles();
        let second = world.leaf().unwrap();
        assert!(
            first != second && first.spki_sha256 == second.spki_sha256,
            "{issuance}: the key stays"
        );
        if issuance == "Authority" {
            world.issuer = Issuer::SecretKey(Arc::new(issuer("Others", world.now)));
            world.settles();
            assert_eq!(
                world.leaf().unwrap().spki_sha256,
                second.spki_sha256,
                "also under another authority"
            );
        }

        // Under an authority of the attacker, or with the attacker's usages, and with the attacker's key in
        // any case.
        let mut planted = World::new(never("Authority"));
        planted.issuer = Issuer::SecretKey(Arc::new(issuer("Mallory", planted.now)));
        planted.settles();
        let theirs = planted.secret.clone().unwrap();
        let mut without = theirs.clone();
        without.data.tls_crt = None;
        for (what, secret) in [
            ("with a certificate", theirs.clone()),
            ("without a certificate", without),
        ] {
            let mut world = World::new(never(issuance));
            world.secret = Some(secret);
            world.settles();
            let leaf = world.leaf().unwrap();
            assert_ne!(
                leaf.spki_sha256,
                planted.leaf().unwrap().spki_sha256,
                "{issuance} {what}: an attacker knows the key"
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Reconcile { crash: Crash },
    DomainReconciles,
    DomainUnknown,
    TimePasses(i64),
    SecretLost,
    NextLost,
    SecretDamaged,
    SpecChanges(u8),
    RenewalAsked(u8),
    StatusLost,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => crash().prop_map(|crash| Event::Reconcile { crash }),
        4 => Just(Event::DomainReconciles),
        1 => Just(Event::DomainUnknown),
        4 => (1i64..200).prop_map(Event::TimePasses),
        1 => (1i64..9_000_000).prop_map(Event::TimePasses),
        1 => Just(Event::SecretLost),
        1 => Just(Event::NextLost),
        1 => Just(Event::SecretDamaged),
        1 => (0u8..3).prop_map(Event::SpecChanges),
        1 => (0u8..3).prop_map(Event::RenewalAsked),
        1 => Just(Event::StatusLost),
    ]
}

proptest! {
    #![proptest_config(crate::cases(150))]
    /// After any events in any order, the certificate is finally accepted; `reconcile` checks that the
    /// operator never writes a certificate into the Secret too early.
    #[test]
    fn every_state_leads_to_an_accepted_certificate(
        by_itself in any::<bool>(),
        pending in prop::option::of(0usize..4),
        events in prop::collection::vec(event(), 0..25),
    ) {
        let base = |names: u8, renew: Option<u8>| spec(|o| {
            o["spec"]["issuance"] = json!(if by_itself { "SelfSigned" } else { "Authority" });
            o["spec"]["dnsNames"] = (0..names).map(|n| json!(format!("n{n}.example"))).collect();
            if let Some(renew) = renew {
                o["metadata"]["annotations"] = json!({"mtls-operator.io/renew": renew.to_string()});
            }
        });
        let (mut names, mut renew) = (0, None);
        let mut world = World::new(base(names, renew));
        if let Some(pending) = pending {
            world.issuer = deferred(&world, pending);
        }
        for event in events {
            match event {
                Event::Reconcile { crash } => drop(world.reconcile(crash)),
                Event::DomainReconciles => world.domain_reconciles(),
                Event::DomainUnknown => world.trust = None,
                Event::TimePasses(seconds) => world.now += SignedDuration::from_secs(seconds),
                Event::SecretLost => world.secret = None,
                Event::NextLost => world.next = None,
                Event::SecretDamaged => {
                    if let Some(kept) = &mut world.secret {
                        kept.data.tls_key = None;
                    }
                }
                Event::SpecChanges(to) => names = to,
                Event::RenewalAsked(value) => renew = Some(value),
                Event::StatusLost => world.revision = 0,
            }
            world.d = base(names, renew);
        }
        world.settles();
        let (issued, plan) = (world.issued, world.plan());
        prop_assert_eq!(plan.action, Some(Action::Complete), "and no action follows");
        world.settles();
        prop_assert_eq!(world.issued, issued);
    }
}
