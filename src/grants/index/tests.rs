//! Tests of `index`.

use super::*;

mod histories;

use std::collections::BTreeMap;

use jiff::Timestamp;

use kube::{ResourceExt, runtime::watcher::Event};
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, ClientGrant, Namespaces, object_id::ObjectId},
    controllers::client_certificate::fixture::{certificate, domain, grant, guard},
    grants::evaluation::Decision,
    runtime::{
        fake::store,
        watch::{Cached, fake::Fake},
    },
};

fn grant_index(grants: Vec<Cached<ClientGrant>>, certificates: Vec<Cached<ClientCertificate>>) -> GrantIndex {
    GrantIndex::new(
        &Fake::of(grants).watch,
        &Fake::of(certificates).watch,
        store(vec![domain(|_| {})]),
        &Fake::of(vec![]).watch,
    )
}

fn named(name: &'static str, change: impl FnOnce(&mut Value)) -> Cached<ClientGrant> {
    grant(|o| {
        o["metadata"]["name"] = json!(name);
        change(o);
    })
}

fn cross_namespace(name: &'static str, change: impl FnOnce(&mut Value)) -> ClientCertificate {
    certificate(|o| {
        for field in ["name", "uid"] {
            o["metadata"][field] = json!(name);
        }
        o["metadata"]["namespace"] = json!("acme");
        change(o);
    })
}

fn key() -> ObjectId {
    ObjectId::new("shop", "partners")
}

fn deleted(o: &mut Value) {
    o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
}

#[test]
fn grants_count_beside_their_domain_until_they_are_deleted() {
    let grants = vec![
        named("a", |_| {}),
        named("other-domain", |o| {
            o["spec"]["domainRef"]["name"] = json!("other")
        }),
        named("other-namespace", |o| {
            o["metadata"]["namespace"] = json!("elsewhere")
        }),
        named("deleted", deleted),
        named("unreadable", |o| o["spec"] = json!(1)),
        named("unreadable-deleted", |o| {
            deleted(o);
            o["spec"] = json!(1);
        }),
    ];
    let grant_index = grant_index(grants, vec![]);
    let mut found: Vec<_> = grant_index.of(&key()).iter().map(|g| g.name_any()).collect();
    found.sort();
    assert_eq!(found, ["a", "unreadable"]);
}

#[test]
fn a_grant_allows_a_certificate_only_while_it_exists_and_is_readable() {
    let now = Timestamp::now();
    let cert = cross_namespace("client1", |_| {});
    let of = |grants: Vec<Cached<ClientGrant>>| match grant_index(grants, vec![guard(cert.clone())])
        .decide(&cert, now)
    {
        Some(Decision::Allowed(_)) => "fits",
        Some(Decision::Denied(_)) => "misfits",
        Some(Decision::Unknown(_)) => "unknown",
        None => "nothing",
    };
    assert_eq!(of(vec![]), "misfits");
    assert_eq!(of(vec![named("a", |_| {})]), "fits");
    assert_eq!(of(vec![named("a", deleted)]), "misfits");
    assert_eq!(of(vec![named("a", |o| o["spec"] = json!(1))]), "unknown");
    let by_label = |o: &mut Value| o["spec"]["namespaces"] = json!({"matchLabels": {"a": "b"}});
    assert_eq!(of(vec![named("a", by_label)]), "unknown");
    let bad = cross_namespace("bad", |o| o["spec"]["csr"] = json!("x"));
    assert_eq!(
        grant_index(vec![named("a", |_| {})], vec![]).decide(&bad, now),
        None,
        "nothing that could be certified"
    );
}

/// Labels that cannot be read must not tell a tenant which names a grant for other namespaces allows.
#[test]
fn without_labels_every_answer_is_the_one_without_the_grant() {
    let by_label = |o: &mut Value| {
        o["spec"]["namespaces"] = json!({"matchLabels": {"tier": "vip"}});
        o["spec"]["commonNames"] = json!(["secret-*"]);
    };
    let own = |o: &mut Value| o["spec"]["commonNames"] = json!(["acme-*"]);
    let counted = |o: &mut Value| {
        by_label(o);
        o["spec"]["maxCertificates"] = json!(1);
    };
    let text = |decision| match decision {
        Decision::Denied(text) | Decision::Unknown(text) => text,
        Decision::Allowed(terms) => panic!("{terms:?}"),
    };
    for (what, grants, without) in [
        ("by label", vec![named("vip", by_label)], vec![]),
        ("by label, counted", vec![named("vip", counted)], vec![]),
        ("unreadable", vec![named("vip", |o| o["spec"] = json!(1))], vec![]),
        (
            "beside an own grant",
            vec![named("vip", by_label), named("acme", own)],
            vec![named("acme", own)],
        ),
    ] {
        for common_name in ["secret-1", "other-1"] {
            let cert = cross_namespace("c", |o| o["spec"]["subject"]["commonName"] = json!(common_name));
            let of = |grants: &[Cached<ClientGrant>]| {
                let decision = grant_index(grants.to_vec(), vec![]).decide(&cert, Timestamp::now());
                text(decision.expect("a request"))
            };
            assert_eq!(of(&grants), of(&without), "{what} {common_name}");
        }
    }
}

#[test]
fn labels_are_pending_until_they_are_listed_or_cannot_be() {
    let cert = cross_namespace("client1", |_| {});
    let by_label = || {
        named("a", |o| {
            o["spec"]["namespaces"] = json!({"matchLabels": {"a": "b"}})
        })
    };
    let mut namespaces = Fake::<PartialObjectMeta<Namespace>>::unlisted();
    let index = |grants, namespaces: &Fake<_>| {
        let none = &Fake::of(vec![]).watch;
        GrantIndex::new(&Fake::of(grants).watch, none, store(vec![]), &namespaces.watch)
    };
    let (with, without) = (
        index(vec![by_label()], &namespaces),
        index(vec![named("a", |_| {})], &namespaces),
    );
    let by_label = by_label().0.unwrap();
    let by_name = named("a", |_| {}).0.unwrap();
    assert!(with.are_labels_pending(&cert) && !without.are_labels_pending(&cert));
    assert_eq!(with.labels(&by_label), Listed::NotYet);
    assert_eq!(with.labels(&by_name), Listed::Yes);
    namespaces.is_forbidden();
    assert!(!with.are_labels_pending(&cert));
    let Listed::Failed(problem) = with.labels(&by_label) else {
        panic!()
    };
    assert!(
        problem.contains("not permitted to list and watch Namespace"),
        "{problem}"
    );
    let acme = serde_json::from_value(json!({"metadata": {"name": "acme"}})).unwrap();
    for event in [Event::Init, Event::InitDone] {
        namespaces.happens(event);
    }
    assert!(with.are_labels_pending(&cert), "a new namespace");
    assert_eq!(with.labels(&by_label), Listed::Yes);
    namespaces.happens(Event::Apply(acme));
    assert!(!with.are_labels_pending(&cert));
}

#[test]
fn requests_come_from_other_namespaces_and_not_from_deleted_certificates() {
    let certificates = vec![
        guard(cross_namespace("client1", |_| {})),
        guard(cross_namespace("client2", deleted)),
        guard(cross_namespace("client3", |o| {
            o["spec"]["domainRef"]["name"] = json!("other")
        })),
        guard(certificate(|o| o["metadata"]["name"] = json!("client4"))),
    ];
    let found = grant_index(vec![named("a", |_| {})], certificates).of_domain(&key(), Timestamp::now());
    assert_eq!(
        found.iter().map(|(c, _)| c.name_any()).collect::<Vec<_>>(),
        ["client1"]
    );
    assert!(matches!(found[0].1, Decision::Allowed(_)));
}

#[test]
fn a_self_signed_certificate_may_be_trusted_by_a_grant_for_self_signed_ones() {
    let cert = cross_namespace("client1", |o| o["spec"]["issuance"] = json!("SelfSigned"));
    let self_signed = |o: &mut Value| o["spec"]["issuance"] = json!("SelfSigned");
    for (what, grant, expected) in [
        ("self-signed", named("a", self_signed), true),
        ("by an authority", named("a", |_| {}), false),
        ("unreadable", named("a", |o| o["spec"] = json!(1)), true),
        ("deleted", named("a", |o| (self_signed(o), deleted(o)).1), false),
        (
            "of another namespace",
            named("a", |o| {
                self_signed(o);
                o["spec"]["namespaces"] = json!({"names": ["zeta"]});
            }),
            false,
        ),
        (
            "by labels that are not known",
            named("a", |o| {
                self_signed(o);
                o["spec"]["namespaces"] = json!({"matchLabels": {"a": "b"}});
            }),
            true,
        ),
    ] {
        assert_eq!(
            grant_index(vec![grant], vec![]).may_be_trusted(&cert),
            expected,
            "{what}"
        );
    }
    assert!(!grant_index(vec![], vec![]).may_be_trusted(&cert));
}

#[test]
fn certificates_share_slots_where_a_grant_limits_them() {
    let slots = |o: &mut Value| o["spec"]["maxCertificates"] = json!(2);
    assert!(grant_index(vec![named("a", |_| {}), named("b", slots)], vec![]).has_slots(&key()));
    assert!(!grant_index(vec![named("a", |_| {})], vec![]).has_slots(&key()));
    assert!(!grant_index(vec![named("a", |o| (slots(o), deleted(o)).1)], vec![]).has_slots(&key()));
    assert!(needs_labels(&named("a", |o| o["spec"]["namespaces"] =
        json!({"matchLabels": {"a": "b"}}))));
    assert!(!needs_labels(&named("a", |_| {})));
    assert_ne!(
        change_predicate(&named("a", |_| {})),
        change_predicate(&named("a", deleted))
    );
    assert_ne!(
        change_predicate(&named("a", |_| {})),
        change_predicate(&named("a", |o| o["metadata"]["generation"] = json!(2)))
    );
    assert_eq!(
        change_predicate(&named("a", |_| {})),
        change_predicate(&named("a", |o| o["status"] = json!({"certificates": 1})))
    );
}

#[test]
fn the_authority_that_issues_is_the_named_one_or_the_only_one() {
    let of = |trust: Value| issuing(domain(|o| o["spec"]["trust"] = trust).0.as_ref().unwrap());
    let one = |name: &str| json!({"name": name, "secretRef": {"name": name}});
    let pem = json!({"name": "p", "pem": "x"});
    assert_eq!(
        of(json!({"authorities": [one("a"), pem.clone()]})).as_deref(),
        Some("a")
    );
    assert_eq!(of(json!({"authorities": [one("a"), one("b")]})), None);
    assert_eq!(
        of(json!({"authorities": [one("a"), one("b")], "issuingAuthority": "b"})).as_deref(),
        Some("b")
    );
    assert_eq!(of(json!({"authorities": [pem]})), None);
}

#[test]
fn a_grant_for_none_of_the_namespaces_is_found_once_they_are_known() {
    let labels = |partner: &str| BTreeMap::from([("example.com/partner".to_owned(), partner.to_owned())]);
    let known = BTreeMap::from([
        ("acme".to_owned(), labels("yes")),
        ("beta".to_owned(), BTreeMap::new()),
    ]);
    let of = |names: Option<&[&str]>, partner: Option<&str>| Namespaces {
        names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        match_labels: partner.map(labels),
    };
    for (wanted, expected) in [
        (of(None, None), false),
        (of(Some(&["acme"]), None), false),
        (of(Some(&["acmee"]), None), true),
        (of(Some(&[]), None), true),
        (of(None, Some("yes")), false),
        (of(None, Some("no")), true),
        (of(Some(&["beta"]), Some("yes")), true),
    ] {
        assert_eq!(selects_none(&wanted, &known), expected, "{wanted:?}");
    }
    assert!(
        !selects_none(&of(Some(&["acmee"]), None), &BTreeMap::new()),
        "they are not known"
    );
}
