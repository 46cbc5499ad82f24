//! Tests of `admission`: tables of single facts.

use super::{Admission, FIRST_RECONCILES, Facts, admission, next_reconcile};

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, MtlsDomain, conditions::Reason},
    controllers::client_certificate::fixture::{certificate, domain, guard},
    grants::evaluation::{Decision, Terms},
    pki::truststore::{Bundle, Entry},
    runtime::watch::Cached,
    status::Acceptance,
    trust::active_trust::Trust,
};

pub(crate) const NOW: &str = "2026-11-24T12:00:00Z";

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// Facts of one decision, in owned form. As they are at first, the certificate is admitted.
pub(crate) struct Situation {
    pub cert: ClientCertificate,
    pub is_behind: bool,
    pub decision: Option<Decision>,
    pub are_labels_pending: bool,
    pub domain: Option<MtlsDomain>,
    pub is_trust_known: bool,
    pub trust: Option<Trust>,
    pub all: Vec<Arc<Cached<ClientCertificate>>>,
    pub since_start: Duration,
    pub now: Timestamp,
}

impl Situation {
    pub fn new(change: impl FnOnce(&mut Value)) -> Situation {
        Situation {
            cert: certificate(change),
            is_behind: false,
            decision: None,
            are_labels_pending: false,
            domain: domain(|_| {}).0.ok(),
            is_trust_known: true,
            trust: None,
            all: vec![],
            since_start: Duration::from_secs(3600),
            now: now(),
        }
    }

    pub fn with<T>(&self, check: impl FnOnce(Admission<'_>) -> T) -> T {
        check(admission(&Facts {
            cert: &self.cert,
            is_behind: self.is_behind,
            decision: &|| self.decision.clone(),
            grants: &|_| self.decision.clone(),
            are_labels_pending: &|| self.are_labels_pending,
            domain: self.domain.as_ref(),
            is_trust_known: self.is_trust_known,
            trust: self.trust.as_ref(),
            all: &|| self.all.clone(),
            since_start: self.since_start,
            now: self.now,
        }))
    }

    /// Returns the decision in a short form.
    pub fn shown(&self) -> String {
        self.with(|found| match found {
            Admission::Ignored => "ignored".into(),
            Admission::Wait(delay) => format!("wait {}", delay.as_millis()),
            Admission::Refused(Acceptance::Suspended) => "suspended".into(),
            Admission::Refused(Acceptance::Refused { reason, stalled, .. }) => {
                format!("refused {reason:?}{}", if stalled { " stalled" } else { "" })
            }
            Admission::Admitted(admitted) => match admitted.acceptance {
                Acceptance::Accepted => "admitted".into(),
                Acceptance::Granted(grant) => format!("granted {grant}"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
    }
}

pub(crate) fn cross_namespace(o: &mut Value) {
    o["metadata"]["namespace"] = json!("acme");
}

pub(crate) fn self_signed(o: &mut Value) {
    o["spec"]["issuance"] = json!("SelfSigned");
}

pub(crate) fn terms(is_counted: bool) -> Terms {
    Terms {
        grant: "g".into(),
        authority: None,
        max_duration: None,
        not_after: None,
        max_bytes: 65_536,
        is_counted,
    }
}

#[test]
fn deletion_precedes_a_stale_cache_and_a_stale_cache_precedes_suspension() {
    let deleted = |o: &mut Value| o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    for (mut situation, is_behind, expected) in [
        (Situation::new(|_| {}), false, "admitted"),
        (Situation::new(|_| {}), true, "wait 50"),
        (Situation::new(suspend), false, "suspended"),
        (Situation::new(suspend), true, "wait 50"),
        (Situation::new(deleted), false, "ignored"),
        (Situation::new(deleted), true, "ignored"),
    ] {
        situation.is_behind = is_behind;
        assert_eq!(situation.shown(), expected);
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
        (
            Some(Decision::Unknown("m".into())),
            "refused RefNotPermitted",
            false,
        ),
        (None, "admitted", false),
    ] {
        let mut situation = Situation::new(cross_namespace);
        situation.decision = decision.clone();
        assert_eq!(situation.shown(), expected, "{decision:?}");
        let knows =
            |found: Admission| matches!(found, Admission::Admitted(admitted) if admitted.domain.is_some());
        assert_eq!(situation.with(knows), may_know, "{decision:?}");

        let mut own = Situation::new(|_| {});
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
fn unknown_reads_as_denied_and_neither_is_said_before_the_labels_are_read() {
    let read = |decision: Decision, are_labels_pending| {
        let mut situation = Situation::new(cross_namespace);
        (situation.decision, situation.are_labels_pending) = (Some(decision), are_labels_pending);
        situation.with(|found| format!("{found:?}"))
    };
    let (denied, unknown) = (Decision::Denied("m".into()), Decision::Unknown("m".into()));
    for are_labels_pending in [false, true] {
        assert_eq!(
            read(denied.clone(), are_labels_pending),
            read(unknown.clone(), are_labels_pending)
        );
    }
    assert_eq!(read(unknown, true), "Wait(1s)");
    assert!(read(Decision::Allowed(terms(false)), true).starts_with("Admitted"));
}

#[test]
fn the_slots_of_a_grant_are_settled_after_three_seconds() {
    for (age, is_counted, expected) in [
        (0, true, "wait 3000"),
        (2, true, "wait 1000"),
        (3, true, "granted g"),
        (100, true, "granted g"),
        (0, false, "granted g"),
    ] {
        let created = now() - SignedDuration::from_secs(age);
        let mut situation = Situation::new(|o| {
            cross_namespace(o);
            o["metadata"]["creationTimestamp"] = json!(created.to_string());
        });
        situation.decision = Some(Decision::Allowed(terms(is_counted)));
        assert_eq!(situation.shown(), expected, "{age} {is_counted}");
    }
}

#[test]
fn a_refused_spec_is_stalled_unless_the_domain_may_raise_its_limit() {
    let invalid = Situation::new(|o| o["spec"]["dnsNames"] = json!(["not a name"]));
    assert_eq!(invalid.shown(), "refused InvalidSpec stalled");
    let limited = || {
        let mut situation = Situation::new(|o| o["spec"]["duration"] = json!("48h"));
        situation.domain = domain(|o| o["spec"]["clients"] = json!({"maxDuration": "24h"}))
            .0
            .ok();
        situation
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
        (true, false, second, "wait 10000"),
        (true, true, second, "admitted"),
        (false, false, second, "admitted"),
        (true, false, FIRST_RECONCILES, "admitted"),
    ] {
        let mut situation = Situation::new(|_| {});
        situation.domain = situation.domain.filter(|_| is_there);
        (situation.is_trust_known, situation.since_start) = (is_known, since_start);
        assert_eq!(situation.shown(), expected);
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
        let mut situation = Situation::new(|_| {});
        situation.cert = me.clone();
        situation.all = all.into_iter().map(|c| Arc::new(guard(c.clone()))).collect();
        (situation.trust, situation.decision) = (trust, decision);
        situation.with(|found| match found {
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
    let mut theirs = Situation::new(self_signed);
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
