//! Whole reconciles against the model of AWS: the course, the policy's decision on what is found, the
//! finalizer, and the plan or the teardown. No cause that holds a domain up lets a write through, and each
//! domain recovers once its causes end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{ResourceExt, core::DeserializeGuard};
use proptest::prelude::*;
use serde_json::json;

use super::world::{NAME, OURS, World, empty, now, owner};

use crate::{
    api::{MtlsDomain, conditions::Reason},
    controllers::mtls_domain::{
        access_request,
        clients::clients_of,
        course::{Blind, Course, Facts, Located, course},
        permission::{Answer, answer, decide},
        plan::unlimited as plan,
        teardown::teardown,
    },
    model::{desired, observed::Preflight, step::StepPlan},
    observation::seen::Unseen,
    policy::{AccessRequest, Policy, file},
    runtime::finalizer,
};

/// Cause that holds a domain up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    Suspended,
    /// The policy refuses the domain name, before AWS answers.
    NameRefused,
    /// The policy refuses the Region that AWS reports.
    RegionRefused,
    /// The policy refuses the zone that the operator finds.
    ZoneRefused,
    /// The labels of the namespace are not known.
    PolicyUnknown,
    /// The operator's Region is another one than that of the domain's resources.
    Moved,
    /// An older domain has the name.
    Claimed,
    /// An older domain has the name, and the operator has not reconciled it since its start.
    OlderUnknown,
    /// AWS does not accept the operator's credentials.
    NoSession,
}

const CAUSES: [Cause; 9] = [
    Cause::Suspended,
    Cause::NameRefused,
    Cause::RegionRefused,
    Cause::ZoneRefused,
    Cause::PolicyUnknown,
    Cause::Moved,
    Cause::Claimed,
    Cause::OlderUnknown,
    Cause::NoSession,
];

#[derive(Clone, Copy, Debug)]
enum Event {
    Begin(Cause),
    End(Cause),
    Delete,
    Abandon,
    Nothing,
}

fn event() -> impl Strategy<Value = Event> {
    let cause = || prop::sample::select(&CAUSES[..]);
    prop_oneof![
        3 => cause().prop_map(Event::Begin),
        4 => cause().prop_map(Event::End),
        1 => Just(Event::Delete),
        1 => Just(Event::Abandon),
        3 => Just(Event::Nothing),
    ]
}

/// A domain, the model of AWS, and the causes that hold the domain up now.
struct Scenario {
    world: World,
    domain: MtlsDomain,
    causes: BTreeSet<Cause>,
    /// True once the API server has deleted the object.
    gone: bool,
    /// Number of writes to AWS.
    writes: usize,
}

fn object(name: &str, created: &str) -> MtlsDomain {
    serde_json::from_value(json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": created},
        "spec": {
            "domainName": NAME,
            "trust": {"authorities": [{"name": "partners", "generate": {"commonName": "Partners"}}]},
            "truststore": {"bucket": "truststores", "key": "partners.pem"},
            "mappings": [
                {"path": "", "api": {"id": "a1", "stage": "$default"}},
                {"path": "orders", "api": {"id": "a2", "stage": "$default"}},
            ],
        },
    }))
    .unwrap()
}

/// Returns older domains with the same domain name that are not served: they hold nothing up.
fn without_a_claim() -> Vec<MtlsDomain> {
    let older = |name: &str, change: fn(&mut MtlsDomain)| {
        let mut older = object(name, "2026-01-01T00:00:00Z");
        change(&mut older);
        older
    };
    vec![
        older("refused", |_| {}),
        older("unpermitted", |d| {
            d.spec.truststore.get_or_insert_default().kms_key_arn =
                Some("arn:aws:kms:eu-west-1:123456789012:key/1".into())
        }),
        older("wrong-account", |d| {
            d.spec.aws.get_or_insert_default().account_id = Some("999999999999".into())
        }),
        older("elsewhere", |d| {
            let location = (
                finalizer::PLACEMENT.to_owned(),
                "999999999999/eu-west-1".to_owned(),
            );
            d.metadata.annotations = Some([location].into());
        }),
        older("suspended", |d| d.spec.suspend = true),
        older("released", |d| {
            d.metadata.deletion_timestamp = d.metadata.creation_timestamp.clone();
        }),
    ]
}

impl Scenario {
    fn new() -> Self {
        Scenario {
            world: empty(),
            domain: object("partners", "2026-01-02T00:00:00Z"),
            causes: BTreeSet::new(),
            gone: false,
            writes: 0,
        }
    }

    fn has(&self, cause: Cause) -> bool {
        self.causes.contains(&cause)
    }

    fn is_deleted(&self) -> bool {
        self.domain.metadata.deletion_timestamp.is_some()
    }

    fn annotate(&mut self, key: &str, value: &str) {
        let all = self.domain.metadata.annotations.get_or_insert_default();
        all.insert(key.to_owned(), value.to_owned());
    }

    fn happens(&mut self, event: Event) {
        match event {
            // A domain without resources moves freely.
            Event::Begin(Cause::Moved) if !finalizer::is_held(&self.domain) => {}
            Event::Begin(cause) => drop(self.causes.insert(cause)),
            Event::End(cause) => drop(self.causes.remove(&cause)),
            Event::Delete if finalizer::is_held(&self.domain) => {
                let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
                self.domain.metadata.deletion_timestamp = Some(time);
            }
            Event::Delete => self.gone = true,
            Event::Abandon => self.annotate(finalizer::ABANDON, "partners"),
            Event::Nothing => {}
        }
        self.domain.spec.suspend = self.has(Cause::Suspended);
    }

    /// True when no reconcile may write to AWS, by the causes alone.
    fn is_held_up(&self) -> bool {
        // The deletion of a domain does not wait for an older claim: the domain's resources are its own.
        let is_claim = |cause: &Cause| matches!(cause, Cause::Claimed | Cause::OlderUnknown);
        let holds = |cause: &Cause| !is_claim(cause) || !self.is_deleted();
        let is_abandoned = self.is_deleted() && finalizer::is_abandoned(&self.domain);
        self.gone || is_abandoned || self.causes.iter().any(holds)
    }

    fn policy(&self) -> Policy {
        let bound = |cause, text| if self.has(cause) { text } else { "" };
        file::parse(&format!(
            "rules: [{{name: a, namespaces: {{matchLabels: {{}}}}{}{}{}}}]",
            bound(Cause::NameRefused, ", domainSuffixes: [example.org]"),
            bound(Cause::RegionRefused, ", regions: []"),
            bound(Cause::ZoneRefused, ", hostedZoneIds: [Z9]"),
        ))
        .unwrap()
    }

    fn course(&self, policy: &Policy) -> Course {
        let region = if self.has(Cause::Moved) {
            "us-east-1"
        } else {
            "eu-west-1"
        };
        let unseen = Unseen {
            reason: Reason::Unreachable,
            message: "no answer".into(),
        };
        let session = match self.has(Cause::NoSession) {
            true => Err(Blind::Unseen(unseen)),
            false => Ok(Located {
                account: "123456789012".into(),
                region: region.into(),
                own_region: region.into(),
            }),
        };
        let mut all = vec![self.domain.clone()];
        all.extend(without_a_claim());
        if self.has(Cause::Claimed) {
            all.push(object("older", "2026-01-01T00:00:00Z"));
        }
        if self.has(Cause::OlderUnknown) {
            all.push(object("unknown", "2026-01-01T00:00:00Z"));
        }
        let course_with = |session| {
            course(&Facts {
                domain: &self.domain,
                cluster_id: "cluster",
                truststore_bucket: None,
                aws_tags: &BTreeMap::new(),
                policy: Some(policy),
                labels: &|_| (!self.has(Cause::PolicyUnknown)).then(Default::default),
                session,
                all: &|| {
                    all.iter()
                        .map(|d| Arc::new(DeserializeGuard(Ok(d.clone()))))
                        .collect()
                },
                claim: &|other| match other.name_any().as_str() {
                    "unknown" => None,
                    "refused" => Some(false),
                    _ => Some(true),
                },
                clients: &|| clients_of(&self.domain, &[], &[], &[], None, &|_| None),
            })
        };
        match course_with(None) {
            Course::OpenSession => course_with(Some(&session)),
            course => {
                let writes = matches!(course, Course::Delete(_) | Course::Serve(_));
                assert!(!writes, "a write before AWS has reported the account");
                course
            }
        }
    }

    /// Reconciles once, as the controller does. Returns the plan's end: true when nothing is left to do.
    fn reconcile(&mut self) -> bool {
        if self.gone {
            return true;
        }
        let policy = self.policy();
        let known = (!self.has(Cause::PolicyUnknown)).then(Default::default);
        let is_allowed = |domain: &MtlsDomain, requests: &[AccessRequest]| {
            let decision = decide(Some(&policy), domain, requests, |_| known.clone());
            answer(domain, decision, None) == Answer::Allowed
        };
        let o = self.world.observed();
        let mut done = false;
        match self.course(&policy) {
            Course::Serve(d) => {
                let preflight = Preflight {
                    zones: o.zones.clone(),
                    apis: self
                        .world
                        .apis
                        .iter()
                        .map(|(id, a)| (id.clone(), Ok(Some(a.api.clone()))))
                        .collect(),
                };
                let requests = [
                    access_request::of(&self.domain, &d.placement, false),
                    access_request::found(&self.domain, &preflight),
                ]
                .concat();
                if is_allowed(&self.domain, &requests) {
                    if !finalizer::is_held(&self.domain) {
                        self.domain.metadata.finalizers = Some(vec![finalizer::FINALIZER.into()]);
                        self.annotate(finalizer::PLACEMENT, &d.placement.location());
                    }
                    let plan = plan(&d, &o, self.world.clock);
                    for (_, action) in plan.actions() {
                        self.writes += 1;
                        self.world.perform(action.clone());
                    }
                    done = plan.steps.values().all(|step| step.is_done());
                }
            }
            Course::Delete(placement) => {
                let requests = [
                    access_request::of(&self.domain, &placement, true),
                    access_request::zones(&o.zones),
                ]
                .concat();
                if is_allowed(&self.domain, &requests) {
                    let listed: Vec<_> = desired::mappings(&self.domain).into_keys().collect();
                    let spec = &self.domain.spec;
                    let (policy, deployment) = (spec.deletion_policy, spec.rest_deployment);
                    let plan = teardown(&placement, policy, deployment, &listed, &self.world.leftovers());
                    self.gone = matches!(plan, StepPlan::Done(..));
                    for action in plan.actions().cloned() {
                        self.writes += 1;
                        self.world.perform(action);
                    }
                }
            }
            Course::Forget | Course::Abandon | Course::Leave => self.gone = true,
            Course::OpenSession
            | Course::Suspend
            | Course::Retry(_)
            | Course::Unclear(_)
            | Course::AwaitOlder
            | Course::Refuse(_)
            | Course::Moved(_) => {}
        }
        self.world.time_passes();
        done
    }

    /// Returns the resources in AWS that carry the domain's ownership tag.
    fn owned(&self) -> usize {
        let w = &self.world;
        let tags = w
            .domain
            .iter()
            .map(|g| &g.tags)
            .chain(w.certificates.iter().map(|c| &c.tags));
        tags.filter(|tags| owner(tags) == OURS).count() + w.versions.iter().filter(|s| s.is_ours()).count()
    }
}

proptest! {
    #[test]
    fn nothing_is_written_while_a_domain_is_held_up_and_it_recovers_afterwards(
        events in proptest::collection::vec(event(), 0..25),
    ) {
        let mut scenario = Scenario::new();
        for event in events {
            scenario.happens(event);
            let (held_up, before) = (scenario.is_held_up(), scenario.writes);
            scenario.reconcile();
            let wrote = scenario.writes > before;
            prop_assert!(!(held_up && wrote), "a write after {event:?}: {:?}", scenario.causes);
        }
        for cause in CAUSES {
            scenario.happens(Event::End(cause));
        }
        let (abandoned, before) = (scenario.is_held_up(), scenario.writes);
        let done = (0..30).any(|_| scenario.reconcile());
        prop_assert!(done, "it does not recover: {:?}", scenario.domain.metadata);
        if !scenario.gone {
            let served = scenario.world.domain.as_ref().is_some_and(|g| owner(&g.tags) == OURS);
            prop_assert!(served && scenario.world.mappings.len() == 2, "{:?}", scenario.world.domain);
        } else if abandoned {
            prop_assert_eq!(scenario.writes, before);
        } else {
            prop_assert_eq!(scenario.owned(), 0);
        }
    }
}

/// Each cause alone, on a new domain, on a served domain and on its deletion.
#[test]
fn each_cause_holds_up_creation_and_deletion_until_it_ends() {
    for cause in CAUSES {
        for (served, deleted) in [(false, false), (true, false), (true, true)] {
            let mut scenario = Scenario::new();
            let converge = |scenario: &mut Scenario| (0..30).any(|_| scenario.reconcile());
            assert!(!served || converge(&mut scenario), "not served");
            if deleted {
                scenario.happens(Event::Delete);
            }
            scenario.happens(Event::Begin(cause));
            if served && !deleted {
                // Drift, which the operator corrects once nothing holds the domain up.
                scenario.world.mappings.clear();
            }
            let (held_up, before) = (scenario.is_held_up(), scenario.writes);
            let has_no_effect = matches!(
                (cause, served, deleted),
                (Cause::Moved, false, _) | (Cause::Claimed | Cause::OlderUnknown, _, true)
            );
            assert_eq!(held_up, !has_no_effect, "{cause:?} {served} {deleted}");
            for _ in 0..5 {
                scenario.reconcile();
            }
            assert_eq!(scenario.writes == before, held_up, "{cause:?} {served} {deleted}");
            scenario.happens(Event::End(cause));
            assert!(converge(&mut scenario), "{cause:?} {served} {deleted}");
            assert!(scenario.writes > before, "{cause:?} {served} {deleted}");
            assert_eq!(
                (scenario.gone, scenario.owned() == 0),
                (deleted, deleted),
                "{cause:?}"
            );
        }
    }
}
