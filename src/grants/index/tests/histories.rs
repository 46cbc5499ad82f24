//! The index against [`slots::allocate`], over any history of events.

use super::*;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use kube::runtime::watcher::Event;
use proptest::prelude::*;

use crate::grants::{
    evaluation::{self, EvaluationContext, GrantRequest},
    slots,
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Happening {
    /// A certificate of a namespace is there, with an age and a name that it requests.
    Certificate {
        name: usize,
        namespace: usize,
        age: i64,
        common_name: usize,
        is_new: bool,
    },
    CertificateGoes(usize, bool),
    Grant {
        name: usize,
        common_name: usize,
        namespaces: usize,
        max: Option<u32>,
        ends: Option<i64>,
        authority: bool,
    },
    GrantGoes(usize, bool),
    GrantIsUnreadable(usize),
    /// A status write: the object changes, its generation does not.
    GrantStatus(usize),
    Labels(usize, Option<bool>),
    NamespaceGoes(usize),
    Domain(bool),
    Time(i64),
    /// The API server lists everything again, without the objects that this leaves out.
    Relist,
    Read(usize),
    /// The certificate has a reconcile.
    Reconcile(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let certificate = (0..4usize, 0..3usize, 0..3i64, 0..3usize, any::<bool>()).prop_map(
        |(name, namespace, age, common_name, is_new)| Certificate {
            name,
            namespace,
            age,
            common_name,
            is_new,
        },
    );
    let max = proptest::option::of(1..3u32);
    let grant = (
        0..4usize,
        0..3usize,
        0..4usize,
        max,
        proptest::option::of(0..4i64),
        any::<bool>(),
    )
        .prop_map(|(name, common_name, namespaces, max, ends, authority)| Grant {
            name,
            common_name,
            namespaces,
            max,
            ends,
            authority,
        });
    prop_oneof![
        8 => certificate,
        3 => (0..4usize, any::<bool>()).prop_map(|(name, deletes)| CertificateGoes(name, deletes)),
        6 => grant,
        2 => (0..4usize, any::<bool>()).prop_map(|(name, deletes)| GrantGoes(name, deletes)),
        1 => (0..4usize).prop_map(GrantIsUnreadable),
        1 => (0..4usize).prop_map(GrantStatus),
        2 => (0..3usize, proptest::option::of(any::<bool>())).prop_map(|(ns, label)| Labels(ns, label)),
        1 => (0..3usize).prop_map(NamespaceGoes),
        1 => any::<bool>().prop_map(Domain),
        2 => (0..5i64).prop_map(Time),
        1 => Just(Relist),
        4 => (0..4usize).prop_map(Read),
        2 => (0..4usize).prop_map(Reconcile),
    ]
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

/// Cluster with one domain, its grants, and certificates of three namespaces, whose names are unique.
struct World {
    certificates: Fake<Cached<ClientCertificate>>,
    grants: Fake<Cached<ClientGrant>>,
    domains: Fake<Cached<MtlsDomain>>,
    namespaces: Fake<PartialObjectMeta<Namespace>>,
    index: GrantIndex,
    /// Decision that each certificate's last reconcile read.
    reconciled: BTreeMap<String, Decision>,
    versions: i64,
    now: Timestamp,
}

impl World {
    fn new() -> World {
        let (certificates, grants) = (Fake::of(vec![]), Fake::of(vec![]));
        let (domains, namespaces) = (Fake::of(vec![domain(|_| {})]), Fake::of(vec![]));
        World {
            index: GrantIndex::new(
                &grants.watch,
                &certificates.watch,
                domains.watch.store(),
                &namespaces.watch,
            ),
            certificates,
            grants,
            domains,
            namespaces,
            reconciled: BTreeMap::new(),
            versions: 0,
            now: at(0),
        }
    }

    fn certificate(&self, name: usize) -> Option<Cached<ClientCertificate>> {
        let all = self.certificates.watch.store().state();
        all.iter()
            .find(|c| c.name_any() == NAMES[name])
            .map(|c| (**c).clone())
    }

    fn grant(&self, name: usize) -> Option<Cached<ClientGrant>> {
        let all = self.grants.watch.store().state();
        all.iter()
            .find(|g| g.name_any() == NAMES[name])
            .map(|g| (**g).clone())
    }

    fn happens(&mut self, happening: &Happening) {
        self.versions += 1;
        let version = self.versions;
        match *happening {
            Happening::Certificate {
                name,
                namespace,
                age,
                common_name,
                is_new,
            } => {
                let old = self.certificate(name);
                let meta = old.as_ref().map(|c| c.meta().clone());
                let new = cross_namespace(NAMES[name], |o| {
                    o["metadata"]["namespace"] = json!(NAMES[namespace]);
                    o["metadata"]["creationTimestamp"] = json!(at(age).to_string());
                    o["metadata"]["uid"] = json!(format!("{name}@{version}"));
                    o["metadata"]["generation"] = json!(version);
                    if let Some(meta) = meta.filter(|_| !is_new) {
                        o["metadata"]["namespace"] = json!(meta.namespace);
                        o["metadata"]["creationTimestamp"] = json!(meta.creation_timestamp);
                        o["metadata"]["uid"] = json!(meta.uid);
                    }
                    o["spec"]["subject"]["commonName"] = json!(["acme-1", "acme-2", "x"][common_name]);
                });
                if let Some(old) = old.filter(|_| is_new) {
                    self.certificates.happens(Event::Delete(old));
                }
                self.certificates.happens(Event::Apply(guard(new)));
            }
            Happening::CertificateGoes(name, deletes) => {
                let Some(mut cert) = self.certificate(name) else {
                    return;
                };
                if deletes {
                    self.certificates.happens(Event::Delete(cert));
                } else {
                    let cert_ = cert.0.as_mut().unwrap();
                    cert_.metadata.deletion_timestamp = cert_.metadata.creation_timestamp.clone();
                    self.certificates.happens(Event::Apply(cert));
                }
            }
            Happening::Grant {
                name,
                common_name,
                namespaces,
                max,
                ends,
                authority,
            } => {
                let new = named(NAMES[name], |o| {
                    o["metadata"]["uid"] = json!(NAMES[name]);
                    o["metadata"]["generation"] = json!(version);
                    let spec = &mut o["spec"];
                    let common_name = ["acme-1", "acme-*", "*"][common_name];
                    spec["commonNames"] = json!([common_name]);
                    spec["namespaces"] = [
                        json!({}),
                        json!({"names": ["a"]}),
                        json!({"names": ["a", "b"]}),
                        json!({"matchLabels": {"x": "y"}}),
                    ][namespaces]
                        .clone();
                    spec["maxCertificates"] = json!(max);
                    spec["notAfter"] = json!(ends.map(|end| at(end).to_string()));
                    spec["authority"] = json!(authority.then_some("acme"));
                });
                self.grants.happens(Event::Apply(new));
            }
            Happening::GrantGoes(name, deletes) => {
                let Some(mut grant) = self.grant(name) else { return };
                if deletes {
                    self.grants.happens(Event::Delete(grant));
                } else {
                    grant.meta_mut().deletion_timestamp =
                        certificate(|_| {}).metadata.creation_timestamp.clone();
                    self.grants.happens(Event::Apply(grant));
                }
            }
            Happening::GrantIsUnreadable(name) => {
                let unreadable = named(NAMES[name], |o| o["spec"] = json!(1));
                self.grants.happens(Event::Apply(unreadable));
            }
            Happening::GrantStatus(name) => {
                let Some(mut grant) = self.grant(name) else { return };
                grant.meta_mut().resource_version = Some(version.to_string());
                self.grants.happens(Event::Apply(grant));
            }
            Happening::Labels(name, label) => {
                let labels = label.map(|has| if has { json!({"x": "y"}) } else { json!({"x": "z"}) });
                let namespace = json!({"metadata": {"name": NAMES[name], "labels": labels}});
                let namespace = serde_json::from_value(namespace).unwrap();
                self.namespaces.happens(Event::Apply(namespace));
            }
            Happening::NamespaceGoes(name) => {
                let namespace = json!({"metadata": {"name": NAMES[name]}});
                let namespace = serde_json::from_value(namespace).unwrap();
                self.namespaces.happens(Event::Delete(namespace));
            }
            Happening::Domain(is_named) => self.domains.happens(Event::Apply(domain(|o| {
                o["metadata"]["generation"] = json!(version);
                if is_named {
                    o["spec"]["trust"]["issuingAuthority"] = json!("other");
                }
            }))),
            Happening::Time(second) => self.now = at(second),
            Happening::Relist => {
                let all = self.certificates.watch.store().state();
                let kept = all.iter().skip(1).map(|c| Event::InitApply((**c).clone()));
                let events = std::iter::once(Event::Init).chain(kept).chain([Event::InitDone]);
                events
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|event| self.certificates.happens(event));
            }
            Happening::Reconcile(name) => {
                if let Some(cert) = self.certificate(name).and_then(|c| c.0.ok()) {
                    let decision = self.index.announce(&cert, self.now);
                    let is_there = cert.metadata.deletion_timestamp.is_none();
                    if let Some(decision) = decision.filter(|_| is_there) {
                        self.reconciled.insert(cert.name_any(), decision);
                    }
                }
            }
            Happening::Read(name) => {
                if let Some(cert) = self.certificate(name).and_then(|c| c.0.ok()) {
                    let _ = self.index.decide(&cert, self.now);
                }
            }
        }
    }

    /// Decides from nothing.
    fn expected(&self) -> BTreeMap<String, Decision> {
        let certificates = self.certificates.watch.store().state();
        let cross = certificates.iter().filter_map(|c| c.0.as_ref().ok());
        let cross: Vec<_> = cross
            .filter(|c| c.metadata.deletion_timestamp.is_none())
            .collect();
        let requests: Vec<GrantRequest> = cross
            .iter()
            .map(|c| evaluation::grant_request(c).unwrap())
            .collect();
        let grants = self.grants.watch.store().state();
        let in_force = grants.iter().filter(|g| g.meta().deletion_timestamp.is_none());
        let in_force: Vec<_> = in_force.collect();
        let namespaces = self.namespaces.watch.store().state();
        let labels = namespaces.iter().map(|n| (n.name_any(), n.labels().clone()));
        let domain = self.domains.watch.store().state().remove(0);
        let issuing = issuing(domain.0.as_ref().unwrap());
        let readable: Vec<_> = in_force.iter().filter_map(|g| g.0.as_ref().ok()).collect();
        let unreadable = readable.len() < in_force.len();
        let context = EvaluationContext {
            grants: readable,
            issuing: issuing.as_deref(),
            now: self.now,
        };
        let decisions = slots::allocate(&requests, &labels.collect(), unreadable, context);
        requests.into_iter().map(|r| r.name).zip(decisions).collect()
    }

    /// Decides on each certificate by itself.
    fn each(&self) -> BTreeMap<String, Decision> {
        let all = self.certificates.watch.store().state();
        let there = all.iter().filter_map(|c| c.0.as_ref().ok());
        let there = there.filter(|c| c.metadata.deletion_timestamp.is_none());
        there
            .map(|c| (c.name_any(), self.index.decide(c, self.now).unwrap()))
            .collect()
    }

    fn together(&self) -> BTreeMap<String, Decision> {
        let all = self.index.of_domain(&key(), self.now);
        all.into_iter()
            .map(|(c, decision)| (c.name_any(), decision))
            .collect()
    }
}

proptest! {
    #![proptest_config(crate::cases(256))]
    /// Whatever happened before, and whenever the index was read meanwhile, it decides as if it compared
    /// everything again; and it names those certificates and grants for which something changed.
    #[test]
    fn the_index_decides_as_if_from_nothing(
        happenings in proptest::collection::vec(happening(), 1..40), reads in any::<u64>(),
    ) {
        let mut world = World::new();
        let mut granted = BTreeMap::new();
        for (n, happening) in happenings.iter().enumerate() {
            world.happens(happening);
            if reads >> (n % 64) & 1 == 0 {
                continue;
            }
            let expected = world.expected();
            prop_assert_eq!(&world.each(), &expected, "each, after {:?}", happening);
            prop_assert_eq!(&world.together(), &expected, "together, after {:?}", happening);

            let changed = world.index.changed_certificates(&key(), world.now);
            let changed: Vec<_> = changed.into_iter().map(|id| id.name).collect();
            for (name, decision) in &expected {
                let differs = world.reconciled.get(name) != Some(decision);
                prop_assert!(!differs || changed.contains(name), "{} after {:?}", name, happening);
            }
            world.reconciled = expected.clone();
            prop_assert!(world.index.changed_certificates(&key(), world.now).is_empty(), "told twice");

            let mut by_grant = BTreeMap::<String, Vec<String>>::new();
            for (name, decision) in expected {
                if let Decision::Allowed(terms) = decision {
                    by_grant.entry(terms.grant).or_default().push(name);
                }
            }
            let changed = world.index.changed_grants(&key(), world.now);
            for grant in world.grants.watch.store().state().iter().filter_map(|g| g.0.as_ref().ok()) {
                let name = grant.name_any();
                let (then, now) = (granted.get(&name), by_grant.get(&name));
                let is_told = changed.contains(&ObjectId::of(grant));
                let is_there = grant.metadata.deletion_timestamp.is_none();
                prop_assert!(then == now || is_told || !is_there, "{} after {:?}", name, happening);
                if is_there {
                    let mut covered: Vec<_> =
                        world.index.covered(grant, world.now).iter().map(|c| c.name_any()).collect();
                    covered.sort();
                    prop_assert_eq!(covered, now.cloned().unwrap_or_default(), "of {}", name);
                }
            }
            granted = by_grant;
        }
    }
}

/// Only what a change concerns is told, each time once; a certificate's own reconcile tells it too.
#[test]
fn a_change_tells_the_certificates_that_it_concerns() {
    let mut world = World::new();
    let certificate = |name: usize| Happening::Certificate {
        name,
        namespace: name,
        age: name as i64,
        common_name: name,
        is_new: true,
    };
    let grant = |name: usize, common_name: usize, namespaces: usize| Happening::Grant {
        name,
        common_name,
        namespaces,
        max: None,
        ends: None,
        authority: false,
    };
    let [acme_1, acme_n, any, in_a, in_a_and_b, by_label] = [0, 1, 2, 1, 2, 3];
    for (happening, told) in [
        (certificate(0), vec!["a"]),
        (certificate(1), vec!["b"]),
        (certificate(2), vec!["c"]),
        (grant(0, acme_1, in_a), vec!["a"]),
        (Happening::GrantStatus(0), vec![]),
        (grant(1, acme_n, in_a_and_b), vec!["b"]),
        (grant(2, any, by_label), vec!["c"]),
        (Happening::Labels(2, Some(false)), vec!["c"]),
        (Happening::Labels(2, Some(false)), vec![]),
        (Happening::Labels(2, Some(true)), vec!["c"]),
        (Happening::GrantGoes(1, true), vec!["b"]),
    ] {
        world.happens(&happening);
        let changed = world.index.changed_certificates(&key(), world.now);
        let changed: Vec<_> = changed.iter().map(|id| id.name.as_str()).collect();
        assert_eq!(changed, told, "{happening:?}");
    }
    world.happens(&grant(1, acme_n, in_a_and_b));
    world.happens(&Happening::Reconcile(1));
    let changed = world.index.changed_certificates(&key(), world.now);
    assert!(changed.is_empty(), "b's reconcile read it: {changed:?}");
}
