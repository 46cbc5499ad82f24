//! Tests of `admission`: tables of single facts, and a simulation in which facts change in any order.

use super::*;

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, MtlsDomain, conditions::Reason},
    controllers::client_certificate::controller::tests::{certificate, domain, guard},
    grants::evaluation::{Decision, Terms},
    issuance::simulation::{Crash, World},
    pki::truststore::{Bundle, Entry},
    runtime::watch::Cached,
    status::{Acceptance, StepCondition, StepStatus},
    trust::active_trust::Trust,
};

const NOW: &str = "2026-11-24T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// Facts of one decision, in owned form. As they are at first, the certificate is admitted.
struct Around {
    cert: ClientCertificate,
    is_behind: bool,
    decision: Option<Decision>,
    domain: Option<MtlsDomain>,
    is_trust_known: bool,
    trust: Option<Trust>,
    all: Vec<Arc<Cached<ClientCertificate>>>,
    since_start: Duration,
    now: Timestamp,
}

impl Around {
    fn new(change: impl FnOnce(&mut Value)) -> Around {
        Around {
            cert: certificate(change),
            is_behind: false,
            decision: None,
            domain: domain(|_| {}).0.ok(),
            is_trust_known: true,
            trust: None,
            all: vec![],
            since_start: Duration::from_secs(3600),
            now: now(),
        }
    }

    fn with<T>(&self, look: impl FnOnce(Admission<'_>) -> T) -> T {
        look(admission(&Facts {
            cert: &self.cert,
            is_behind: self.is_behind,
            grants: &|_| self.decision.clone(),
            domain: self.domain.as_ref(),
            is_trust_known: self.is_trust_known,
            trust: self.trust.as_ref(),
            all: &|| self.all.clone(),
            since_start: self.since_start,
            now: self.now,
        }))
    }

    /// Returns the decision in a short form.
    fn shown(&self) -> String {
        self.with(|found| match found {
            Admission::Ignored => "ignored".into(),
            Admission::Later(delay) => format!("later {}", delay.as_millis()),
            Admission::Refused(Acceptance::Suspended) => "suspended".into(),
            Admission::Refused(Acceptance::Refused { reason, stalled, .. }) => {
                format!("refused {reason:?}{}", if stalled { " stalled" } else { "" })
            }
            Admission::Unclear(Acceptance::Unclear(StepCondition {
                status: StepStatus::Unreachable,
                ..
            })) => "unclear".into(),
            Admission::Admitted(admitted) => match admitted.acceptance {
                Acceptance::Accepted => "admitted".into(),
                Acceptance::Granted(grant) => format!("granted {grant}"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
    }
}

fn cross_namespace(o: &mut Value) {
    o["metadata"]["namespace"] = json!("acme");
}

fn self_signed(o: &mut Value) {
    o["spec"]["issuance"] = json!("SelfSigned");
}

fn terms(is_counted: bool) -> Terms {
    Terms {
        grant: "g".into(),
        authority: None,
        max_duration: None,
        not_after: None,
        is_counted,
    }
}

#[test]
fn deletion_precedes_a_stale_cache_and_a_stale_cache_precedes_suspension() {
    let deleted = |o: &mut Value| o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    for (mut around, is_behind, expected) in [
        (Around::new(|_| {}), false, "admitted"),
        (Around::new(|_| {}), true, "later 50"),
        (Around::new(suspend), false, "suspended"),
        (Around::new(suspend), true, "later 50"),
        (Around::new(deleted), false, "ignored"),
        (Around::new(deleted), true, "ignored"),
    ] {
        around.is_behind = is_behind;
        assert_eq!(around.shown(), expected);
    }
}

#[test]
fn a_certificate_of_another_namespace_needs_a_grant() {
    for (decision, expected, may_know) in [
        (Some(Decision::Allowed(terms(false))), "granted g", true),
        (
            Some(Decision::Denied("m".into())),
            "refused RefNotPermitted",
            false,
        ),
        (Some(Decision::Unknown("m".into())), "unclear", false),
        (None, "admitted", false),
    ] {
        let mut around = Around::new(cross_namespace);
        around.decision = decision.clone();
        assert_eq!(around.shown(), expected, "{decision:?}");
        let knows =
            |found: Admission| matches!(found, Admission::Admitted(admitted) if admitted.domain.is_some());
        assert_eq!(around.with(knows), may_know, "{decision:?}");

        let mut own = Around::new(|_| {});
        own.decision = decision;
        assert_eq!(
            own.shown(),
            "admitted",
            "the domain's own namespace needs no grant"
        );
        assert!(own.with(knows));
    }
}

#[test]
fn the_slots_of_a_grant_are_settled_after_three_seconds() {
    for (age, is_counted, expected) in [
        (0, true, "later 3000"),
        (2, true, "later 1000"),
        (3, true, "granted g"),
        (100, true, "granted g"),
        (0, false, "granted g"),
    ] {
        let created = now() - SignedDuration::from_secs(age);
        let mut around = Around::new(|o| {
            cross_namespace(o);
            o["metadata"]["creationTimestamp"] = json!(created.to_string());
        });
        around.decision = Some(Decision::Allowed(terms(is_counted)));
        assert_eq!(around.shown(), expected, "{age} {is_counted}");
    }
}

#[test]
fn a_refused_spec_is_stalled_unless_the_domain_may_raise_its_limit() {
    let invalid = Around::new(|o| o["spec"]["dnsNames"] = json!(["not a name"]));
    assert_eq!(invalid.shown(), "refused InvalidSpec stalled");
    let limited = || {
        let mut around = Around::new(|o| o["spec"]["duration"] = json!("48h"));
        around.domain = domain(|o| o["spec"]["clients"] = json!({"maxDuration": "24h"}))
            .0
            .ok();
        around
    };
    assert_eq!(limited().shown(), "refused DurationNotAllowed");
    // A certificate that may not know the domain does not learn its limit.
    let mut unknown = limited();
    cross(&mut unknown.cert);
    assert_eq!(unknown.shown(), "admitted");
}

fn cross(cert: &mut ClientCertificate) {
    cert.metadata.namespace = Some("acme".into());
}

#[test]
fn after_a_start_a_certificate_waits_a_while_for_its_domain() {
    let second = Duration::from_secs(1);
    for (is_there, is_known, since_start, expected) in [
        (true, false, second, "later 10000"),
        (true, true, second, "admitted"),
        (false, false, second, "admitted"),
        (true, false, FIRST_RECONCILES, "admitted"),
    ] {
        let mut around = Around::new(|_| {});
        around.domain = around.domain.filter(|_| is_there);
        (around.is_trust_known, around.since_start) = (is_known, since_start);
        assert_eq!(around.shown(), expected);
    }
}

#[test]
fn an_ungranted_certificate_has_a_claim_on_no_subject() {
    let named = |name: &'static str, namespace: &'static str, created: &'static str| {
        certificate(|o| {
            self_signed(o);
            for field in ["name", "uid"] {
                o["metadata"][field] = json!(name);
            }
            o["metadata"]["namespace"] = json!(namespace);
            o["metadata"]["creationTimestamp"] = json!(created);
        })
    };
    let me = named("me", "shop", "2026-01-02T00:00:00Z");
    let own = named("own", "shop", "2026-01-01T00:00:00Z");
    let other = named("other", "acme", "2026-01-01T00:00:00Z");
    let trust = |authority: &str, common_name: &str| {
        let issuer = crate::pki::authority::tests::issuer(common_name, now());
        let entry = Entry {
            authority: authority.into(),
            certificate: issuer.chain().authority().clone(),
            max_leaf: None,
            keep_until: None,
        };
        let bundle = Bundle {
            entries: vec![entry],
            ..Bundle::default()
        };
        Trust::of(&bundle, None, now())
    };
    let granted = Some(Decision::Allowed(terms(false)));
    let denied = Some(Decision::Denied("m".into()));
    let unknown = Some(Decision::Unknown("m".into()));
    let of_acme = Some(trust("acme", "client1"));
    let own_entry = Some(trust("clientcertificates/shop/me/me", "client1"));
    let other_subject = Some(trust("acme", "me"));
    let in_other = "ClientCertificate of another namespace has";
    for (what, all, trust, decision, expected) in [
        ("no other certificate", vec![&me], None, None, ""),
        (
            "an older certificate",
            vec![&me, &own],
            None,
            None,
            "ClientCertificate own has",
        ),
        ("with a grant", vec![&me, &other], None, granted.clone(), in_other),
        ("with unknown grants", vec![&me, &other], None, unknown, in_other),
        ("without a grant", vec![&me, &other], None, denied, ""),
        ("with an invalid request", vec![&me, &other], None, None, ""),
        ("an authority", vec![&me], other_subject, None, ""),
        (
            "an authority with the subject",
            vec![&me],
            of_acme.clone(),
            None,
            "authority acme has",
        ),
        ("its own entry", vec![&me], own_entry, None, ""),
    ] {
        let mut around = Around::new(|_| {});
        around.cert = me.clone();
        around.all = all.into_iter().map(|c| Arc::new(guard(c.clone()))).collect();
        (around.trust, around.decision) = (trust, decision);
        around.with(|found| match found {
            Admission::Admitted(_) => assert_eq!(expected, "", "{what}"),
            Admission::Refused(Acceptance::Refused {
                reason: Reason::SubjectInUse,
                message,
                stalled: false,
            }) => assert!(
                !expected.is_empty() && message.contains(&format!("the {expected}")),
                "{what}: {message}"
            ),
            other => panic!("{what}: {other:?}"),
        });
    }
    let mut theirs = Around::new(self_signed);
    cross(&mut theirs.cert);
    (theirs.trust, theirs.decision) = (of_acme, granted);
    theirs.with(|found| match found {
        Admission::Refused(Acceptance::Refused { message, .. }) => {
            assert!(message.contains("the domain has"), "{message}");
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn the_next_reconcile_is_at_the_renewal_or_the_end_of_the_grant() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let at = |seconds| now + SignedDuration::from_secs(seconds);
    let ends = |seconds: i64| {
        Some(Terms {
            not_after: Some(at(seconds)),
            ..terms(false)
        })
    };
    for (next, terms, expected) in [
        (None, None, None),
        (Some(100), None, Some(100)),
        (Some(0), None, Some(60)),
        (Some(-100), None, Some(60)),
        (Some(100), ends(50), Some(50)),
        (Some(100), ends(500), Some(100)),
        (None, ends(500), Some(500)),
    ] {
        assert_eq!(
            next_reconcile(next.map(at), &terms, now),
            expected.map(at),
            "{next:?} {terms:?}"
        );
    }
}

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
    around: Around,
    granted: Granted,
    older: Option<bool>,
    is_limited: bool,
    world: World,
}

impl Simulation {
    fn new(is_cross_namespace: bool, is_self_signed: bool) -> Simulation {
        let around = Around::new(|o| {
            o["metadata"]["creationTimestamp"] = json!(NOW);
            o["spec"]["duration"] = json!("48h");
            if is_cross_namespace {
                cross_namespace(o);
            }
            if is_self_signed {
                self_signed(o);
            }
        });
        let world = World::new(desired::desired(&around.cert, None, None).unwrap());
        let mut simulation = Simulation {
            around,
            granted: Granted::Denied,
            older: None,
            is_limited: false,
            world,
        };
        simulation.around.since_start = Duration::ZERO;
        simulation
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Reconcile => {}
            Event::Grants(granted) => self.granted = *granted,
            Event::Suspends(suspend) => self.around.cert.spec.suspend = *suspend,
            Event::CacheIsBehind(is_behind) => self.around.is_behind = *is_behind,
            Event::Older(older) => self.older = *older,
            Event::Limit(is_limited) => self.is_limited = *is_limited,
            Event::TrustIsKnown(is_known) => self.around.is_trust_known = *is_known,
            Event::RenewalAsked(value) => {
                let annotations = self.around.cert.metadata.annotations.get_or_insert_default();
                annotations.insert(desired::RENEW.into(), value.to_string());
            }
            Event::TimePasses(seconds) => {
                self.world.now += SignedDuration::from_secs(*seconds);
                self.around.since_start += Duration::from_secs(seconds.unsigned_abs());
            }
        }
        let around = &mut self.around;
        around.now = self.world.now;
        around.decision = Some(self.granted.decision());
        around.trust = self.world.trust.clone();
        around.domain = domain(|o| {
            if self.is_limited {
                o["spec"]["clients"] = json!({"maxDuration": "24h"});
            }
        })
        .0
        .ok();
        let older = self.older.map(|is_cross_namespace| {
            let mut older = around.cert.clone();
            (older.metadata.name, older.metadata.uid) = (Some("older".into()), Some("older".into()));
            older.metadata.namespace = Some(if is_cross_namespace { "zoo" } else { "shop" }.into());
            older.metadata.creation_timestamp = certificate(|_| {}).metadata.creation_timestamp;
            Arc::new(guard(older))
        });
        let me = Arc::new(DeserializeGuard(Ok(around.cert.clone())));
        around.all = older.into_iter().chain([me]).collect();
    }

    /// True when the rules permit a write of the Secret.
    fn may_write(&self) -> bool {
        let Around { cert, now, .. } = &self.around;
        let needs_grant = cert.metadata.namespace.as_deref() == Some("acme");
        let is_granted = match self.granted {
            Granted::Allowed => true,
            Granted::Counted => *now >= self::now() + SignedDuration::from_secs(3),
            Granted::Denied | Granted::Unknown => false,
        };
        let is_subject_taken = self.world.d.self_signed
            && match self.older {
                Some(true) => self.granted != Granted::Denied,
                Some(false) => true,
                None => false,
            };
        let is_domain_settled =
            self.around.is_trust_known || self.around.since_start >= Duration::from_secs(10);
        !cert.spec.suspend
            && !self.around.is_behind
            && (!needs_grant || is_granted)
            && !is_subject_taken
            && !self.is_limited
            && is_domain_settled
    }

    fn reconcile(&mut self) {
        let d = self.around.with(|found| match found {
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
        let shown = simulation.around.shown();
        prop_assert!(["admitted", "granted g"].contains(&&shown[..]), "{shown}");
        simulation.reconcile();
        simulation.world.settles();
    }
}
