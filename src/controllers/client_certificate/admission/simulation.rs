//! Simulation of one certificate with its Secrets: the facts that decide about its admission change in any
//! order.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::{
    Admission,
    tests::{NOW, Situation, cross_namespace, now, self_signed, terms},
};

use crate::{
    controllers::client_certificate::fixture::{certificate, domain, guard},
    grants::evaluation::Decision,
    issuance::{
        desired,
        simulation::world::{Crash, World},
    },
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Granted {
    Allowed,
    /// One of a limited number of slots.
    Counted,
    Denied,
    Unknown,
}

impl Granted {
    fn decision(self) -> Decision {
        match self {
            Granted::Allowed => Decision::Allowed(terms(false)),
            Granted::Counted => Decision::Allowed(terms(true)),
            Granted::Denied => Decision::Denied("m".into()),
            Granted::Unknown => Decision::Unknown("m".into()),
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Reconcile,
    Grants(Granted),
    Suspends(bool),
    CacheIsBehind(bool),
    /// An older certificate with the subject exists; in another namespace than the domain's.
    Older(Option<bool>),
    Limit(bool),
    TrustIsKnown(bool),
    RenewalAsked(u8),
    TimePasses(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let granted = prop_oneof![
        Just(Granted::Allowed),
        Just(Granted::Counted),
        Just(Granted::Denied),
        Just(Granted::Unknown)
    ];
    prop_oneof![
        6 => Just(Event::Reconcile),
        2 => granted.prop_map(Event::Grants),
        1 => any::<bool>().prop_map(Event::Suspends),
        1 => any::<bool>().prop_map(Event::CacheIsBehind),
        1 => prop::option::of(any::<bool>()).prop_map(Event::Older),
        1 => any::<bool>().prop_map(Event::Limit),
        1 => any::<bool>().prop_map(Event::TrustIsKnown),
        1 => (0u8..3).prop_map(Event::RenewalAsked),
        2 => (0i64..100).prop_map(Event::TimePasses),
    ]
}

/// One certificate, the facts around it, and its Secret.
struct Simulation {
    situation: Situation,
    granted: Granted,
    older: Option<bool>,
    is_limited: bool,
    world: World,
}

impl Simulation {
    fn new(is_cross_namespace: bool, is_self_signed: bool) -> Simulation {
        let situation = Situation::new(|o| {
            o["metadata"]["creationTimestamp"] = json!(NOW);
            o["spec"]["duration"] = json!("48h");
            if is_cross_namespace {
                cross_namespace(o);
            }
            if is_self_signed {
                self_signed(o);
            }
        });
        let world = World::new(desired::desired(&situation.cert, None, None).unwrap());
        let mut simulation = Simulation {
            situation,
            granted: Granted::Denied,
            older: None,
            is_limited: false,
            world,
        };
        simulation.situation.since_start = Duration::ZERO;
        simulation
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Reconcile => {}
            Event::Grants(granted) => self.granted = *granted,
            Event::Suspends(suspend) => self.situation.cert.spec.suspend = *suspend,
            Event::CacheIsBehind(is_behind) => self.situation.is_behind = *is_behind,
            Event::Older(older) => self.older = *older,
            Event::Limit(is_limited) => self.is_limited = *is_limited,
            Event::TrustIsKnown(is_known) => self.situation.is_trust_known = *is_known,
            Event::RenewalAsked(value) => {
                let annotations = self.situation.cert.metadata.annotations.get_or_insert_default();
                annotations.insert(desired::RENEW.into(), value.to_string());
            }
            Event::TimePasses(seconds) => {
                self.world.now += SignedDuration::from_secs(*seconds);
                self.situation.since_start += Duration::from_secs(seconds.unsigned_abs());
            }
        }
        let situation = &mut self.situation;
        situation.now = self.world.now;
        situation.decision = Some(self.granted.decision());
        situation.trust = self.world.trust.clone();
        situation.domain = domain(|o| {
            if self.is_limited {
                o["spec"]["clients"] = json!({"maxDuration": "24h"});
            }
        })
        .0
        .ok();
        let older = self.older.map(|is_cross_namespace| {
            let mut older = situation.cert.clone();
            (older.metadata.name, older.metadata.uid) = (Some("older".into()), Some("older".into()));
            older.metadata.namespace = Some(if is_cross_namespace { "zoo" } else { "shop" }.into());
            older.metadata.creation_timestamp = certificate(|_| {}).metadata.creation_timestamp;
            Arc::new(guard(older))
        });
        let me = Arc::new(guard(situation.cert.clone()));
        situation.all = older.into_iter().chain([me]).collect();
    }

    /// True when the rules permit a write of the Secret.
    fn may_write(&self) -> bool {
        let Situation { cert, now: at, .. } = &self.situation;
        let needs_grant = cert.metadata.namespace.as_deref() == Some("acme");
        let is_granted = match self.granted {
            Granted::Allowed => true,
            Granted::Counted => *at >= now() + SignedDuration::from_secs(3),
            Granted::Denied | Granted::Unknown => false,
        };
        let is_subject_taken = self.world.d.self_signed
            && match self.older {
                Some(true) => self.granted != Granted::Denied,
                Some(false) => true,
                None => false,
            };
        let is_domain_settled =
            self.situation.is_trust_known || self.situation.since_start >= Duration::from_secs(10);
        !cert.spec.suspend
            && !self.situation.is_behind
            && (!needs_grant || is_granted)
            && !is_subject_taken
            && !self.is_limited
            && is_domain_settled
    }

    fn reconcile(&mut self) {
        let d = self.situation.with(|found| match found {
            Admission::Admitted(admitted) => Some(admitted.d),
            _ => None,
        });
        if let Some(d) = d {
            self.world.d = d;
            self.world.domain_reconciles();
            self.world.reconcile(Crash::No);
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(200))]
    /// A certificate that is refused, suspended, contested or not settled never gets a write of its Secrets,
    /// and gets its certificate when the cause ends.
    #[test]
    fn only_an_admitted_certificate_gets_a_secret(
        is_cross_namespace in any::<bool>(),
        is_self_signed in any::<bool>(),
        events in prop::collection::vec(event(), 0..30),
    ) {
        let mut simulation = Simulation::new(is_cross_namespace, is_self_signed);
        for event in &events {
            simulation.happens(event);
            let before = simulation.world.written;
            simulation.reconcile();
            prop_assert!(
                simulation.may_write() || simulation.world.written == before,
                "written after {event:?}"
            );
        }
        let ends = [
            Event::Grants(Granted::Counted), Event::Suspends(false), Event::CacheIsBehind(false),
            Event::Older(None), Event::Limit(false), Event::TrustIsKnown(true), Event::TimePasses(10),
        ];
        for event in &ends {
            simulation.happens(event);
        }
        let shown = simulation.situation.shown();
        prop_assert!(["admitted", "granted g"].contains(&&shown[..]), "{shown}");
        simulation.reconcile();
        simulation.world.settles();
    }
}
