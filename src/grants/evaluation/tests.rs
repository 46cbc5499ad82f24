//! Tests of `evaluation`.

use super::*;
use proptest::prelude::*;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    api::{ClientGrant, Issuance},
    grants::slots::allocate,
    pki::leaf::tests::request,
};

fn grant(name: &str, change: Value) -> ClientGrant {
    let mut spec = json!({
        "domainRef": {"name": "d"},
        "namespaces": {"names": ["a", "b"]},
        "commonNames": ["acme-*"],
    });
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1",
        "kind": "ClientGrant",
        "metadata": {"name": name},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn grant_request(name: &str) -> GrantRequest {
    GrantRequest {
        created: Some(Timestamp::UNIX_EPOCH),
        namespace: "a".into(),
        name: name.into(),
        by_csr: false,
        request: request("acme-1"),
        issuance: Issuance::Authority,
        authority: None,
        duration: None,
    }
}

/// Facts for [`allocate`].
#[derive(Clone)]
struct Situation<'a> {
    grants: &'a [ClientGrant],
    unreadable: bool,
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

fn context(grants: &[ClientGrant]) -> Situation<'_> {
    Situation {
        grants,
        unreadable: false,
        labels: BTreeMap::new(),
    }
}

fn decide(requests: &[GrantRequest], situation: &Situation) -> Vec<Decision> {
    let context = EvaluationContext {
        grants: situation.grants.iter().collect(),
        issuing: Some("main"),
        now: Timestamp::UNIX_EPOCH,
    };
    allocate(requests, &situation.labels, situation.unreadable, context)
}

fn shown(decision: Decision) -> String {
    match decision {
        Decision::Allowed(terms) => format!("fits {}", terms.grant),
        Decision::Denied(message) => message.split(": ").next().unwrap().to_owned(),
        Decision::Unknown(_) => "unknown".into(),
    }
}

fn alone(grant_request: &GrantRequest, situation: &Situation) -> String {
    shown(decide(std::slice::from_ref(grant_request), situation).remove(0))
}

#[test]
fn a_grant_without_max_bytes_has_64_kib() {
    for (change, expected) in [(json!({}), 65_536), (json!({"maxBytes": 1024}), 1024)] {
        let grants = [grant("g", change)];
        let [Decision::Allowed(terms)] = &decide(&[grant_request("c")], &context(&grants))[..] else {
            panic!("not allowed");
        };
        assert_eq!(terms.max_bytes, expected);
    }
}

#[test]
fn one_certificate_against_one_grant() {
    let hours = |h| Some(SignedDuration::from_hours(h));
    let with = |change: fn(&mut GrantRequest)| {
        let mut grant_request = grant_request("c");
        change(&mut grant_request);
        grant_request
    };
    for (change, grant_request, expected) in [
        (json!({}), grant_request("c"), "fits g"),
        (
            json!({}),
            with(|a| a.request.common_name = "other".into()),
            "spec.subject.commonName",
        ),
        (
            json!({}),
            with(|a| {
                a.by_csr = true;
                a.request.common_name = "other".into();
            }),
            "spec.csr (subject.commonName)",
        ),
        // No grant admits a name that looks like another one.
        (
            json!({}),
            with(|a| a.request.common_name = "acme-\u{202e}1".into()),
            "spec.subject.commonName (contains U+202E",
        ),
        (
            json!({"organizations": ["*"]}),
            with(|a| {
                a.by_csr = true;
                a.request.organizations = vec!["Acme".into(), "\u{ff21}cme".into()];
            }),
            "spec.csr (subject.organizations[1] (is not in the Unicode form NFKC",
        ),
        (
            json!({"commonNames": ["café-*"]}),
            with(|a| a.request.common_name = "café-1".into()),
            "fits g",
        ),
        // A part of the identity that the grant does not name is not allowed.
        (
            json!({}),
            with(|a| a.request.organizations = vec!["Acme".into()]),
            "spec.subject.organizations[0]",
        ),
        (
            json!({}),
            with(|a| a.request.organizational_units = vec!["x".into()]),
            "spec.subject.organizationalUnits[0]",
        ),
        (
            json!({}),
            with(|a| a.request.countries = vec!["DE".into()]),
            "spec.subject.countries[0]",
        ),
        (
            json!({}),
            with(|a| a.request.localities = vec!["x".into()]),
            "spec.subject.localities[0]",
        ),
        (
            json!({}),
            with(|a| a.request.provinces = vec!["x".into()]),
            "spec.subject.provinces[0]",
        ),
        (
            json!({}),
            with(|a| a.request.dns_names = vec!["x".into()]),
            "spec.dnsNames[0]",
        ),
        (
            json!({}),
            with(|a| a.request.uris = vec!["a:x".into()]),
            "spec.uris[0]",
        ),
        (
            json!({}),
            with(|a| a.request.email_addresses = vec!["a@x".into()]),
            "spec.emailAddresses[0]",
        ),
        (
            json!({"organizations": ["Acme"]}),
            with(|a| a.request.organizations = vec!["Acme".into(), "Other".into()]),
            "spec.subject.organizations[1]",
        ),
        (
            json!({"uris": ["spiffe://acme/*"]}),
            with(|a| a.request.uris = vec!["spiffe://acme/x".into()]),
            "fits g",
        ),
        (
            json!({}),
            with(|a| a.issuance = Issuance::SelfSigned),
            "spec.issuance",
        ),
        (
            json!({"issuance": "SelfSigned"}),
            with(|a| a.issuance = Issuance::SelfSigned),
            "fits g",
        ),
        (
            json!({"issuance": "SelfSigned"}),
            grant_request("c"),
            "spec.issuance",
        ),
        // The authority is the grant's, or the domain's issuing one.
        (json!({}), with(|a| a.authority = Some("main".into())), "fits g"),
        (
            json!({}),
            with(|a| a.authority = Some("other".into())),
            "spec.authority",
        ),
        (
            json!({"authority": "other"}),
            with(|a| a.authority = Some("other".into())),
            "fits g",
        ),
        (
            json!({"authority": "other"}),
            with(|a| a.authority = Some("main".into())),
            "spec.authority",
        ),
        (json!({"authority": "other"}), grant_request("c"), "fits g"),
        (
            json!({"maxDuration": "2h"}),
            GrantRequest {
                duration: hours(2),
                ..grant_request("c")
            },
            "fits g",
        ),
        (
            json!({"maxDuration": "2h"}),
            GrantRequest {
                duration: hours(3),
                ..grant_request("c")
            },
            "spec.duration",
        ),
        (json!({"maxDuration": "2h"}), grant_request("c"), "fits g"),
        (
            json!({"notAfter": "1970-01-01T00:00:01Z"}),
            grant_request("c"),
            "fits g",
        ),
        (
            json!({"notAfter": "1970-01-01T00:00:00Z"}),
            grant_request("c"),
            "the time, since it is over (its spec.notAfter)",
        ),
        // A message says nothing of the content of a grant that does not select the namespace.
        (
            json!({"namespaces": {"names": ["b"]}}),
            grant_request("c"),
            "spec.domainRef",
        ),
        (json!({"namespaces": {}}), grant_request("c"), "fits g"),
        (
            json!({"namespaces": {"matchLabels": {"x": "y"}}}),
            grant_request("c"),
            "unknown",
        ),
        (
            json!({"namespaces": {"matchLabels": {"x": "y"}}}),
            with(|a| a.request.common_name = "other".into()),
            "spec.domainRef",
        ),
    ] {
        let grants = [grant("g", change.clone())];
        assert_eq!(
            alone(&grant_request, &context(&grants)),
            expected,
            "{change} {grant_request:?}"
        );
    }
    let none = context(&[]);
    let message = |situation: &Situation, grant_request: &GrantRequest| {
        format!("{:?}", decide(std::slice::from_ref(grant_request), situation))
    };
    let others = [grant("g", json!({"namespaces": {"names": ["b"]}}))];
    assert_eq!(
        message(&none, &grant_request("c")),
        message(&context(&others), &grant_request("c")),
        "no domain, or none for us"
    );
}

#[test]
fn patterns_that_match_nothing_are_told() {
    let futile = |change| futile_patterns(&grant("g", change).spec);
    assert_eq!(futile(json!({"organizations": ["Acme *", "Zürich"]})), [""; 0]);
    assert_eq!(
        futile(json!({"commonNames": ["a", "\u{ff21}*"], "uris": ["spiffe://a\u{200b}/*"]})),
        [
            "spec.commonNames[1] is not in the Unicode form NFKC: no grant admits other forms",
            "spec.uris[0] contains U+200B: no grant admits control, format, private and unassigned \
             characters",
        ]
    );
}

#[test]
fn several_grants() {
    let one = grant("one", json!({"commonNames": ["acme-1"], "maxCertificates": 1}));
    let two = grant("two", json!({"organizations": ["Acme"]}));
    let grants = [one.clone(), two.clone()];
    assert_eq!(
        alone(&grant_request("c"), &context(&grants)),
        "fits two",
        "the one that takes no place"
    );
    assert_eq!(
        alone(&grant_request("c"), &context(std::slice::from_ref(&one))),
        "fits one"
    );
    let mut far = grant_request("c");
    far.request.organizations = vec!["Acme".into(), "Other".into()];
    far.request.common_name = "other".into();
    far.request.uris = vec!["a:b".into()];
    let Decision::Denied(message) = decide(std::slice::from_ref(&far), &context(&grants)).remove(0) else {
        panic!()
    };
    assert!(
        message.contains("ClientGrant two") && !message.contains("organizations[0]"),
        "{message}"
    );
    // A grant that the operator cannot read may be the one that allows the certificate.
    let blind = Situation {
        unreadable: true,
        ..context(&grants)
    };
    assert_eq!(alone(&far, &blind), "unknown");
    assert_eq!(alone(&grant_request("c"), &blind), "fits two");
}

#[test]
fn the_oldest_have_the_slots() {
    let grants = [grant("g", json!({"maxCertificates": 2}))];
    let at = |name: &str, second| GrantRequest {
        created: Some(Timestamp::from_second(second).unwrap()),
        ..grant_request(name)
    };
    let grant_requests = [at("d", 1), at("a", 2), at("c", 1), at("b", 0)];
    let all: Vec<_> = decide(&grant_requests, &context(&grants))
        .into_iter()
        .map(|f| matches!(f, Decision::Allowed(_)))
        .collect();
    assert_eq!(all, [false, false, true, true]);
}

fn grant_requests() -> impl Strategy<Value = Vec<GrantRequest>> {
    let one = (0..3i64, 0..3usize, 0..3usize).prop_map(|(created, namespace, common_name)| GrantRequest {
        created: Timestamp::from_second(created).ok(),
        namespace: ["a", "b", "c"][namespace].into(),
        request: request(["acme-1", "acme-2", "x"][common_name]),
        ..grant_request("c")
    });
    proptest::collection::vec(one, 1..8).prop_map(|mut grant_requests| {
        grant_requests
            .iter_mut()
            .enumerate()
            .for_each(|(n, grant_request)| grant_request.name = format!("c{n}"));
        grant_requests
    })
}

fn grants() -> impl Strategy<Value = Vec<ClientGrant>> {
    let one = (0..3usize, 0..3usize, proptest::option::of(1..3u32)).prop_map(|(names, namespaces, max)| {
        let common_name = ["acme-1", "acme-*", "*"][names];
        let mut change = json!({"commonNames": [common_name]});
        change["namespaces"] = [
            json!({}),
            json!({"names": ["a"]}),
            json!({"matchLabels": {"x": "y"}}),
        ][namespaces]
            .clone();
        if let Some(max) = max {
            change["maxCertificates"] = max.into();
        }
        change
    });
    proptest::collection::vec(one, 0..4).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(n, change)| grant(&format!("g{n}"), change))
            .collect()
    })
}

proptest! {
    /// Grants allow no more certificates than they have slots for. A decision made while labels are unknown
    /// stays once they are known.
    #[test]
    fn certificates_and_grants(
        grant_requests in grant_requests(), grants in grants(),
        known in any::<[bool; 3]>(), has in any::<[bool; 3]>(),
    ) {
        let labels = |known: [bool; 3]| {
            let all = ["a", "b", "c"].into_iter().zip(known).zip(has).filter(|((_, known), _)| *known);
            let labels = |has: bool| has.then(|| ("x".to_owned(), "y".to_owned())).into_iter().collect();
            all.map(|((name, _), has)| (name.to_owned(), labels(has))).collect::<BTreeMap<_, _>>()
        };
        let whole = Situation { labels: labels([true; 3]), ..context(&grants) };
        let partly = Situation { labels: labels(known), ..context(&grants) };
        let (end, before) = (decide(&grant_requests, &whole), decide(&grant_requests, &partly));
        for grant in &grants {
            let by_it = |f: &&Decision| matches!(f, Decision::Allowed(t) if t.grant == grant.name_any());
            let covered = end.iter().filter(by_it).count();
            prop_assert!(grant.spec.max_certificates.is_none_or(|max| covered <= max as usize));
        }
        for n in 0..grant_requests.len() {
            prop_assert!(!matches!(end[n], Decision::Unknown(_)));
            match &before[n] {
                Decision::Allowed(_) => {
                    prop_assert!(matches!(end[n], Decision::Allowed(_)), "{:?}", end[n])
                }
                Decision::Denied(_) => {
                    prop_assert!(matches!(end[n], Decision::Denied(_)), "{:?}", end[n])
                }
                Decision::Unknown(_) => {}
            }
        }
    }
}
