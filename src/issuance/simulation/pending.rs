//! Requests that the issuer answers later, with crashes between.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::json;

use super::world::{Crash, PROPAGATION, World, signing_itself, spec};

use crate::{
    issuance::{
        action::Action,
        desired::Desired,
        issuer::{Issuer, tests::Deferred},
        known_key::known_key,
        observed::Held,
        plan,
    },
    pki::{
        authority::tests::issuer,
        keys::{DesiredKey, KeyKind},
    },
    status::StepStatus,
};

pub fn deferred(world: &World, pending: usize) -> Issuer {
    Issuer::Deferred(Arc::new(Deferred::new(issuer("Partners", world.now), pending)))
}

/// The issuer answers pending, and the process dies anywhere: each request keeps its key and gets one leaf.
#[test]
fn a_pending_request_keeps_its_key_and_gets_one_leaf() {
    for (by_csr, pending) in [(false, 0), (false, 1), (false, 5), (true, 3)] {
        let mut world = World::new(spec(|_| ()));
        if by_csr {
            world.d.key = DesiredKey::Requested {
                spki: crate::pki::leaf::tests::spki(KeyKind::EcdsaP256),
            };
        }
        world.issuer = deferred(&world, pending);
        let Issuer::Deferred(deferred) = world.issuer.clone() else {
            unreachable!()
        };
        world.domain_reconciles();
        world.now += PROPAGATION;
        for renewal in 1..4 {
            let crashes = [Crash::BeforeWrite, Crash::AfterWrite, Crash::No]
                .into_iter()
                .cycle();
            for crash in crashes.take(3 * (pending + 3)) {
                let before = world.issued;
                let plan = world.reconcile(crash);
                if let (Some(Action::Issue(_)), true) = (&plan.action, world.issued == before) {
                    let issued = plan.step_conditions[0].clone();
                    let shown = plan::while_pending(issued, plan.leaf.as_ref());
                    assert!(shown.message.contains("the issuer has the request"), "{shown:?}");
                    // The leaf in the Secret stays usable.
                    let expected = [StepStatus::Working, StepStatus::Done][usize::from(renewal > 1)];
                    assert_eq!(shown.status, expected);
                }
            }
            assert_eq!(
                world.plan().action,
                Some(Action::Complete),
                "by_csr {by_csr}, pending {pending}"
            );
            world.serves();
            assert!(world.next.is_none());
            let taken = deferred.taken.lock().unwrap();
            assert_eq!(
                (world.issued, taken.len()),
                (renewal, renewal),
                "one leaf for one request"
            );
            let last = taken.last().unwrap();
            assert_eq!(
                last.leaf.as_ref().map(|leaf| &leaf.certificate),
                world.leaf().as_ref()
            );
            let keys: BTreeSet<_> = taken.iter().map(|taken| taken.spki.clone()).collect();
            assert_eq!(
                keys.len(),
                if by_csr { 1 } else { renewal },
                "each renewal has a key of its own"
            );
            drop(taken);
            world.now = world.plan().renewal.unwrap();
        }
    }
}

/// A staged Secret is no source of keys for another certificate than the next one.
#[test]
fn only_the_key_of_the_next_certificate_is_known() {
    let mut world = World::new(spec(|_| ()));
    world.issuer = deferred(&world, 5);
    world.domain_reconciles();
    world.now += PROPAGATION;
    world.reconcile(Crash::No);
    let known = |world: &World, d: &Desired, change: fn(&mut Held)| {
        let mut o = world.observed();
        change(o.next.as_mut().unwrap());
        known_key(d, &o).is_some()
    };
    assert!(known(&world, &world.d, |_| ()));
    for (what, change) in [
        ("of another owner", (|next| next.ours = false) as fn(&mut Held)),
        ("of an earlier certificate", |next| next.revision = 0),
        ("of a later certificate", |next| next.revision = 2),
        ("damaged", |next| next.data.tls_key = Some(b"x".to_vec())),
        ("missing", |next| next.data.tls_key = None),
    ] {
        assert!(!known(&world, &world.d, change), "{what}");
    }
    let other = spec(|o| o["spec"]["privateKey"] = json!({"algorithm": "ECDSA", "size": 384}));
    assert!(!known(&world, &other, |_| ()), "of another kind");
    assert!(
        !known(&world, &signing_itself(), |_| ()),
        "of a self-signed certificate"
    );
}
