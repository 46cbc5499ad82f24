//! Choice of the grant that allows a certificate of another namespace. Pure and total: no I/O, no clock; the
//! caller passes grants, certificates, labels and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::glob::{self, Kind};

use crate::{
    api::{
        ClientCertificate, ClientGrant, ClientGrantSpec, Issuance,
        durations::{DEFAULT_LEAF, length},
    },
    model::leaf_request::asked,
    pki::leaf::LeafRequest,
    policy::Namespace,
    status::{Refused, text::listed},
};

/// Returns the certificate's request, which the operator compares with the grants.
pub fn grant_request(cert: &ClientCertificate) -> Result<GrantRequest, Refused> {
    let duration = cert.spec.duration.as_ref().map(length);
    let (request, _) = asked(cert, duration.unwrap_or(DEFAULT_LEAF))?;
    Ok(GrantRequest {
        uid: cert.uid().unwrap_or_default(),
        created: cert.creation_timestamp().map(|t| t.0),
        namespace: cert.namespace().expect("ClientCertificate is namespaced"),
        name: cert.name_any(),
        by_csr: cert.spec.csr.is_some(),
        request,
        issuance: cert.spec.issuance,
        authority: cert.spec.authority.clone(),
        duration,
    })
}

/// Maximum number of parts that a message lists.
const MOST_TOLD: usize = 10;

/// Request of one ClientCertificate for a grant. Slots go to requests in the order of their age: the oldest
/// first.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantRequest {
    pub uid: String,
    pub created: Option<Timestamp>,
    pub namespace: String,
    pub name: String,
    /// True when `request` comes from `spec.csr`.
    pub by_csr: bool,
    pub request: LeafRequest,
    pub issuance: Issuance,
    pub authority: Option<String>,
    /// Duration in the spec; `None`: any that the grant allows.
    pub duration: Option<SignedDuration>,
}

impl GrantRequest {
    pub fn age(&self) -> (Option<Timestamp>, &str, &str) {
        (self.created, &self.namespace, &self.name)
    }
}

/// Facts by which the operator decides on one domain's certificates in other namespaces.
pub struct EvaluationContext<'a> {
    /// Grants for this domain.
    pub grants: Vec<&'a ClientGrant>,
    /// True when there are grants that the operator cannot read and that may be for this domain.
    pub unreadable: bool,
    /// Authority that issues for the domain when a certificate names none; `None`: not known.
    pub issuing: Option<&'a str>,
    /// Labels by namespace; a namespace without an entry has unknown labels.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    pub now: Timestamp,
    /// [`names_outside`] of a certificate and a grant. A function, so that the caller can cache it: a tenant
    /// chooses how long the names are.
    pub names_outside: &'a dyn Fn(&GrantRequest, &ClientGrant) -> Arc<[String]>,
}

/// Decision on one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed(Terms),
    /// Parts of the spec that do not fit, for a condition.
    Denied(String),
    /// Unknown fact on which the decision depends, for a condition.
    Unknown(String),
}

/// Terms under which a grant allows a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub grant: String,
    /// Authority that the grant names; `None`: the domain's issuing one.
    pub authority: Option<String>,
    pub max_duration: Option<SignedDuration>,
    pub not_after: Option<Timestamp>,
    /// True when the grant limits its slots and this certificate has one of its slots.
    pub is_counted: bool,
}

/// Decides on one certificate. Calls `others`, the requests of the domain with or without this one, only when
/// the decision depends on slots.
pub fn decide(
    grant_request: &Arc<GrantRequest>,
    others: impl FnOnce() -> Vec<Arc<GrantRequest>>,
    context: &EvaluationContext,
) -> Decision {
    let alone = allocate(std::slice::from_ref(grant_request), context).remove(0);
    let depends_on_slots = match &alone {
        Decision::Allowed(terms) => terms.is_counted,
        Decision::Unknown(_) => context.grants.iter().any(|g| g.spec.max_certificates.is_some()),
        Decision::Denied(_) => false,
    };
    if !depends_on_slots {
        return alone;
    }
    let mut older = others();
    older.retain(|other| other.age() < grant_request.age());
    older.push(grant_request.clone());
    allocate(&older, context).pop().unwrap_or(alone)
}

/// Decides on each certificate and returns the decisions in the order of the requests: slots go to the
/// oldest.
pub fn allocate(grant_requests: &[Arc<GrantRequest>], context: &EvaluationContext) -> Vec<Decision> {
    let mut order: Vec<usize> = (0..grant_requests.len()).collect();
    order.sort_by(|a, b| grant_requests[*a].age().cmp(&grant_requests[*b].age()));
    // Grants without a limit come first, so that no certificate takes a slot that it does not need.
    let mut grants = context.grants.clone();
    grants.sort_by_key(|g| (g.spec.max_certificates.is_some(), g.name_any()));
    let mut slots = vec![Slots::default(); grants.len()];
    let mut decisions = vec![None; grant_requests.len()];
    for at in order {
        decisions[at] = Some(evaluate(&grant_requests[at], &grants, &mut slots, context));
    }
    decisions.into_iter().flatten().collect()
}

/// Slots of one grant: those that certificates have taken, and those that they may have taken.
#[derive(Clone, Copy, Default)]
struct Slots {
    taken: u32,
    tentative: u32,
}

impl Slots {
    /// Returns `None` when unknown facts decide whether there is a free slot.
    fn is_free(self, max: Option<u32>) -> Option<bool> {
        let Some(max) = max else { return Some(true) };
        match self {
            Slots { taken, .. } if taken >= max => Some(false),
            Slots { taken, tentative } if taken.saturating_add(tentative) >= max => None,
            _ => Some(true),
        }
    }
}

fn evaluate(
    grant_request: &GrantRequest,
    grants: &[&ClientGrant],
    slots: &mut [Slots],
    context: &EvaluationContext,
) -> Decision {
    let namespace = Namespace {
        name: &grant_request.namespace,
        labels: context.labels.get(&grant_request.namespace),
    };
    let (mut nearest, mut full): (Option<(&ClientGrant, Vec<String>)>, _) = (None, None);
    let mut tentative = BTreeSet::new();
    for (at, grant) in grants.iter().enumerate() {
        let selected = grant.spec.namespaces.selects(namespace);
        if selected == Some(false) {
            continue;
        }
        let parts = denials(grant_request, grant, context);
        if !parts.is_empty() {
            let is_nearer = nearest.as_ref().is_none_or(|(_, best)| parts.len() < best.len());
            // A message shows the content of a grant only to the namespaces that the grant selects.
            if is_nearer && selected == Some(true) {
                nearest = Some((grant, parts));
            }
            continue;
        }
        match (selected, slots[at].is_free(grant.spec.max_certificates)) {
            (_, Some(false)) if selected == Some(true) => full = Some(grant.name_any()),
            (_, Some(false)) => {}
            (Some(true), Some(true)) => {
                let is_certain = tentative.is_empty() && !context.unreadable;
                if is_certain {
                    slots[at].taken += 1
                } else {
                    slots[at].tentative += 1
                }
                tentative.iter().for_each(|at: &usize| slots[*at].tentative += 1);
                return Decision::Allowed(terms(grant));
            }
            _ => {
                tentative.insert(at);
            }
        }
    }
    tentative.iter().for_each(|at| slots[*at].tentative += 1);
    if !tentative.is_empty() {
        let what = if namespace.labels.is_none() {
            "the labels of this namespace"
        } else {
            "the labels of some namespaces"
        };
        return Decision::Unknown(format!("{what}, by which ClientGrants select, are not known yet"));
    }
    if context.unreadable {
        return Decision::Unknown(
            "there are ClientGrants that this version of the operator cannot read".into(),
        );
    }
    Decision::Denied(match (full, nearest) {
        (Some(grant), _) => format!(
            "older ClientCertificates have all slots of the ClientGrant {grant} (its spec.maxCertificates): \
             delete one of them, or ask the domain's owner for more"
        ),
        (None, Some((grant, parts))) => {
            format!(
                "{}: outside of the ClientGrant {}, which is the nearest. Change it, or ask the domain's \
                 owner for a grant that it fits",
                listed(parts.iter().map(String::as_str), MOST_TOLD),
                grant.name_any()
            )
        }
        (None, None) => NONE.to_owned(),
    })
}

/// Message when no grant selects the namespace. Equal whether the domain exists or not.
const NONE: &str = "spec.domainRef: there is no such MtlsDomain, or no ClientGrant beside it allows \
                    this namespace certificates for it; ask the domain's owner for one";

fn terms(grant: &ClientGrant) -> Terms {
    Terms {
        grant: grant.name_any(),
        authority: grant.spec.authority.clone(),
        max_duration: grant.spec.max_duration.as_ref().map(length),
        not_after: grant.spec.not_after.as_ref().map(|t| t.0),
        is_counted: grant.spec.max_certificates.is_some(),
    }
}

/// True when the grant admits every name of this certificate.
pub fn admits_names(request: &LeafRequest, grant: &ClientGrantSpec) -> bool {
    names_outside(request, grant).is_empty()
}

/// Returns the fields of the certificate with a name that the grant does not admit.
pub fn names_outside(r: &LeafRequest, grant: &ClientGrantSpec) -> Vec<String> {
    let common_name = std::slice::from_ref(&r.common_name);
    let names: [(&str, Kind, &[String], &[String]); 9] = [
        ("subject.commonName", Kind::Text, common_name, &grant.common_names),
        (
            "subject.organizations",
            Kind::Text,
            &r.organizations,
            &grant.organizations,
        ),
        (
            "subject.organizationalUnits",
            Kind::Text,
            &r.organizational_units,
            &grant.organizational_units,
        ),
        ("subject.countries", Kind::Text, &r.countries, &grant.countries),
        ("subject.localities", Kind::Text, &r.localities, &grant.localities),
        ("subject.provinces", Kind::Text, &r.provinces, &grant.provinces),
        ("dnsNames", Kind::Dns, &r.dns_names, &grant.dns_names),
        ("uris", Kind::Uri, &r.uris, &grant.uris),
        (
            "emailAddresses",
            Kind::Mail,
            &r.email_addresses,
            &grant.email_addresses,
        ),
    ];
    let mut outside = Vec::new();
    for (field, kind, asked, granted) in names {
        let denials = asked
            .iter()
            .enumerate()
            .filter(|(_, name)| !granted.iter().any(|p| glob::matches(kind, p, name)));
        outside.extend(denials.map(|(at, _)| match field {
            "subject.commonName" => field.to_owned(),
            list => format!("{list}[{at}]"),
        }));
    }
    outside
}

/// Returns the parts of the certificate's spec that the grant does not admit.
fn denials(grant_request: &GrantRequest, grant: &ClientGrant, context: &EvaluationContext) -> Vec<String> {
    let name = |field: &String| {
        if grant_request.by_csr {
            format!("spec.csr ({field})")
        } else {
            format!("spec.{field}")
        }
    };
    let mut parts: Vec<String> = (context.names_outside)(grant_request, grant)
        .iter()
        .map(name)
        .collect();
    let grant = &grant.spec;
    if grant_request.issuance != grant.issuance {
        parts.push("spec.issuance".into());
    }
    let wanted = grant.authority.as_deref().or(context.issuing);
    if grant_request
        .authority
        .as_deref()
        .is_some_and(|named| Some(named) != wanted)
    {
        parts.push("spec.authority".into());
    }
    let longest = grant.max_duration.as_ref().map(length);
    if grant_request
        .duration
        .zip(longest)
        .is_some_and(|(asked, longest)| asked > longest)
    {
        parts.push("spec.duration".into());
    }
    if grant.not_after.as_ref().is_some_and(|end| end.0 <= context.now) {
        parts.push("the time, since it is over (its spec.notAfter)".into());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use std::{collections::BTreeMap, sync::Arc};

    use jiff::{SignedDuration, Timestamp};
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use crate::{
        api::{ClientGrant, Issuance},
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
            uid: name.into(),
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

    fn context(grants: &[ClientGrant]) -> EvaluationContext<'_> {
        EvaluationContext {
            grants: grants.iter().collect(),
            unreadable: false,
            issuing: Some("main"),
            labels: BTreeMap::new(),
            now: Timestamp::UNIX_EPOCH,
            names_outside: &|grant_request, grant| names_outside(&grant_request.request, &grant.spec).into(),
        }
    }

    fn shown(decision: Decision) -> String {
        match decision {
            Decision::Allowed(terms) => format!("fits {}", terms.grant),
            Decision::Denied(message) => message.split(": ").next().unwrap().to_owned(),
            Decision::Unknown(_) => "unknown".into(),
        }
    }

    fn alone(grant_request: &GrantRequest, context: &EvaluationContext) -> String {
        shown(decide(&Arc::new(grant_request.clone()), Vec::new, context))
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
        let message = |context: &EvaluationContext, grant_request: &GrantRequest| {
            format!(
                "{:?}",
                decide(&Arc::new(grant_request.clone()), Vec::new, context)
            )
        };
        let others = [grant("g", json!({"namespaces": {"names": ["b"]}}))];
        assert_eq!(
            message(&none, &grant_request("c")),
            message(&context(&others), &grant_request("c")),
            "no domain, or none for us"
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
        let Decision::Denied(message) = decide(&Arc::new(far.clone()), Vec::new, &context(&grants)) else {
            panic!()
        };
        assert!(
            message.contains("ClientGrant two") && !message.contains("organizations[0]"),
            "{message}"
        );
        // A grant that the operator cannot read may be the one that allows the certificate.
        let blind = EvaluationContext {
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
        let grant_requests = [at("d", 1), at("a", 2), at("c", 1), at("b", 0)].map(Arc::new);
        let all: Vec<_> = allocate(&grant_requests, &context(&grants))
            .into_iter()
            .map(|f| matches!(f, Decision::Allowed(_)))
            .collect();
        assert_eq!(all, [false, false, true, true]);
        for (grant_request, expected) in grant_requests.iter().zip(all) {
            let one = decide(grant_request, || grant_requests.to_vec(), &context(&grants));
            assert_eq!(
                matches!(one, Decision::Allowed(_)),
                expected,
                "{grant_request:?} by itself"
            );
        }
    }

    fn grant_requests() -> impl Strategy<Value = Vec<Arc<GrantRequest>>> {
        let one =
            (0..3i64, 0..3usize, 0..3usize).prop_map(|(created, namespace, common_name)| GrantRequest {
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
            grant_requests.into_iter().map(Arc::new).collect()
        })
    }

    fn grants() -> impl Strategy<Value = Vec<ClientGrant>> {
        let one =
            (0..3usize, 0..3usize, proptest::option::of(1..3u32)).prop_map(|(names, namespaces, max)| {
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
        /// Grants allow no more certificates than they have slots for. Each decision alone equals the
        /// decision among all. A decision made while labels are unknown stays once they are known.
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
            let whole = EvaluationContext { labels: labels([true; 3]), ..context(&grants) };
            let partly = EvaluationContext { labels: labels(known), ..context(&grants) };
            let (end, before) = (allocate(&grant_requests, &whole), allocate(&grant_requests, &partly));
            for grant in &grants {
                let by_it = |f: &&Decision| matches!(f, Decision::Allowed(t) if t.grant == grant.name_any());
                let covered = end.iter().filter(by_it).count();
                prop_assert!(grant.spec.max_certificates.is_none_or(|max| covered <= max as usize));
            }
            for (n, grant_request) in grant_requests.iter().enumerate() {
                prop_assert!(!matches!(end[n], Decision::Unknown(_)));
                prop_assert_eq!(&decide(grant_request, || grant_requests.clone(), &whole), &end[n]);
                prop_assert_eq!(&decide(grant_request, || grant_requests.clone(), &partly), &before[n]);
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
}
