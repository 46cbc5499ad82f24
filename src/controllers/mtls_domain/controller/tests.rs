//! TODO

use super::*;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    ResourceExt, api::PartialObjectMeta, core::DeserializeGuard, runtime::controller::Action as Next,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    api::{ClientCertificate, MtlsDomain, MtlsDomainStatus, conditions::Reason, durations},
    aws::{
        call_guard::Gate,
        errors::{self, Kind},
        fake::{self, ACCOUNT, REGION},
        quota::Quota,
        rates::Rates,
        session::Sessions,
    },
    controllers::mtls_domain::{
        controller::{
            Ctx, Disposition, INITIAL_BACKOFF, Precheck, admit, backoff_after, certificates_for, clients_of,
            contested, current, disposition, event_of, failed, own_region, precheck, reconcile_domain,
        },
        credentials::ServiceAccount,
        simulation::world::now,
    },
    grants::{
        evaluation::{Decision, Terms},
        index::GrantIndex,
    },
    model::{
        desired,
        placement::{OperatorConfig, Placement},
    },
    observation::read_cache::{ReadCache, RefreshIntervals},
    pki::authority::tests::issuer,
    policy::file,
    probe::{
        https::{EndpointProbe, ProbeOptions},
        public_dns::PublicDns,
    },
    runtime::{
        events::Events,
        fake::store,
        finalizer,
        reconcile::{ConcurrencyLimit, Error},
        watch::Cached,
    },
    server_certificate::request_limiter::RequestLimiter,
    status::{Acceptance, Refused, Transition},
    telemetry::{heartbeat::Heartbeat, metrics::Metrics},
    trust::{active_trust::ActiveTrust, self_signed::entry_name},
};

type Log = Arc<Mutex<Vec<String>>>;

/// Test stage: a controller whose Kubernetes and AWS are functions. AWS is empty at first, and keeps no
/// state.
pub(crate) struct Stage {
    pub ctx: Arc<Ctx>,
    /// Every write, in order, and a single entry for all reads of AWS.
    log: Log,
}

impl Stage {
    /// `policy`: the text of a policy; `team`: the value of the namespace's label `team`, when it is known.
    fn new(domains: Vec<Cached<MtlsDomain>>, policy: Option<&str>, team: Option<&str>) -> Stage {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let log = Log::default();
        let gate = Gate::new(Quota::new(Rates::with(&["*=unlimited".parse().unwrap()])), || {
            true
        });
        let said = log.clone();
        let session = fake::session(&gate, move |call, _| {
            note(
                &said,
                if is_read(call) {
                    "read AWS".to_owned()
                } else {
                    format!("write {call}")
                },
            );
            answer(call)
        });
        let (told, objects) = (log.clone(), domains.clone());
        let client = crate::runtime::fake::client(move |method, path, body| {
            let name = path
                .trim_end_matches("/status")
                .rsplit('/')
                .next()
                .unwrap_or_default();
            let object = objects
                .iter()
                .find(|d| d.name_any() == name)
                .and_then(|d| d.0.as_ref().ok());
            note(&told, format!("{method} {}", meaning(path, &body)));
            match (method.as_str(), object) {
                ("POST", _) => (201, body),
                (_, Some(object)) => (200, serde_json::to_value(object).unwrap()),
                _ if path.ends_with("/secrets") => (
                    200,
                    json!({"metadata": {}, "items": [
                        {"metadata": {"name": "partners.acme-ca", "namespace": "shop"}},
                    ]}),
                ),
                _ => crate::runtime::fake::refusal(404, "NotFound"),
            }
        });
        let namespaces = team.map(|team| {
            let labels = json!({"name": "shop", "labels": {"team": team}});
            serde_json::from_value::<PartialObjectMeta<Namespace>>(json!({"metadata": labels})).unwrap()
        });
        let (domains, namespaces) = (store(domains), store(namespaces.into_iter().collect()));
        let certificates = store::<Cached<ClientCertificate>>(vec![]);
        let (metrics, _) = Metrics::new();
        let policy = policy.map(|text| Arc::new(file::parse(text).unwrap()));
        let grant_index = GrantIndex::new(
            store(vec![]),
            certificates.clone(),
            domains.clone(),
            namespaces.clone(),
        );
        let ctx = Ctx {
            client: client.clone(),
            cluster_id: "cluster".into(),
            truststore_bucket: None,
            watched: None,
            refresh: RefreshIntervals::within(Duration::from_secs(900)),
            cache: ReadCache::default(),
            sessions: Sessions::of(session),
            gate,
            probe: EndpointProbe::new(&ProbeOptions::default()).unwrap(),
            public_dns: PublicDns::new(Some(([127, 0, 0, 1], 1).into())).unwrap(),
            service_account: Arc::new(ServiceAccount::new(client.clone())),
            events: Events::new(client, "test"),
            metrics,
            heartbeat: Heartbeat::default(),
            domains,
            certificates,
            active_trust: Arc::new(ActiveTrust::new().0),
            request_limiter: RequestLimiter::default(),
            bypasses: Arc::default(),
            policy: watch::channel(policy).1,
            namespaces,
            grant_index: Arc::new(grant_index),
            concurrency: ConcurrencyLimit::new(1),
            states: Mutex::default(),
        };
        Stage {
            ctx: Arc::new(ctx),
            log,
        }
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// Notes an entry of the log. Consecutive reads of AWS are noted once, because their order varies.
fn note(log: &Log, what: String) {
    let mut log = log.lock().unwrap();
    if !what.ends_with(' ') && log.last() != Some(&what) {
        log.push(what);
    }
}

fn is_read(call: &str) -> bool {
    let (first, operation) = (call.split(' ').next().unwrap(), call.rsplit('.').next().unwrap());
    let reads = ["List", "Describe", "Get"]
        .iter()
        .any(|verb| operation.starts_with(verb));
    ["GET", "HEAD"].contains(&first) || call.contains(" CertificateManager.") && reads
}

fn answer(call: &str) -> (u16, String) {
    match call.rsplit('.').next().unwrap() {
        "ListCertificates" => (200, "{}".into()),
        "RequestCertificate" => (
            200,
            json!({"CertificateArn": format!("arn:aws:acm:{REGION}:{ACCOUNT}:certificate/1")}).to_string(),
        ),
        _ if call.starts_with("PUT") => (200, String::new()),
        _ => (404, "{}".into()),
    }
}

/// Returns the meaning of a write to the API server, in a few words.
fn meaning(path: &str, body: &Value) -> String {
    if path.ends_with("/status") {
        let conditions = body[1]["value"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let accepted = conditions
            .iter()
            .find(|c| c["type"] == "Accepted")
            .cloned()
            .unwrap_or_default();
        return format!("status {}", accepted["reason"].as_str().unwrap_or_default());
    }
    if path.ends_with("/events") {
        return format!("event {}", body["reason"].as_str().unwrap());
    }
    if path.contains("/secrets/") {
        return "a Secret".into();
    }
    if path.contains("/events/") {
        return String::new(); // the same Event again, counted
    }
    match body["metadata"]["finalizers"].as_array() {
        Some(all) if all.iter().any(|f| f == finalizer::FINALIZER) => {
            format!(
                "hold {}",
                body["metadata"]["annotations"][finalizer::PLACEMENT]
                    .as_str()
                    .unwrap_or_default()
            )
        }
        Some(_) => "release".into(),
        None => String::new(),
    }
}

fn domain(change: impl FnOnce(&mut Value)) -> MtlsDomain {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {
            "name": "partners", "namespace": "shop", "uid": "u", "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "2026-01-02T00:00:00Z",
        },
        "spec": {
            "domainName": "mtls.example.com", "dns": {"external": {"verify": "None"}},
            "truststore": {"bucket": "truststores", "bucketCreation": "IfMissing"},
            "trust": {"authorities": [{"name": "acme", "pem": issuer("Acme", now()).chain().authority().to_pem()}]},
        },
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

/// A deleted domain, held by the operator's finalizer.
fn deleted(change: impl FnOnce(&mut Value)) -> MtlsDomain {
    domain(|o| {
        o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
        o["metadata"]["finalizers"] = json!([finalizer::FINALIZER]);
        change(o);
    })
}

fn guard(domain: MtlsDomain) -> Cached<MtlsDomain> {
    DeserializeGuard(Ok(domain))
}

/// Runs a test on a large stack: the futures of a reconcile do not fit on the default stack of a test thread.
fn on_a_large_stack<F: Future<Output = ()> + 'static>(test: fn() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    thread
        .spawn(move || runtime.block_on(test()))
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_reconcile_is_refused_or_held_before_its_first_write_to_aws() {
    on_a_large_stack(reconciles);
}

async fn reconciles() {
    let held = "PATCH hold 123456789012/eu-west-1";
    let first_writes = [
        "read AWS",
        held,
        "write POST acm.eu-west-1.amazonaws.com/ CertificateManager.RequestCertificate",
        "write PUT truststores.s3.eu-west-1.amazonaws.com/",
        "PATCH status Accepted",
    ];
    let winner = |change: fn(&mut Value)| {
        guard(domain(|o| {
            o["metadata"]["name"] = json!("older");
            o["metadata"]["uid"] = json!("older");
            o["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            change(o);
        }))
    };
    let elsewhere = |o: &mut Value| {
        o["metadata"]["annotations"] = json!({finalizer::PLACEMENT: "123456789012/us-east-1"})
    };
    let observe = |o: &mut Value| o["spec"]["managementPolicy"] = json!("Observe");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    let abandon = |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "partners"});
    let other_account = |o: &mut Value| o["spec"]["aws"] = json!({"accountId": "999999999999"});
    let everything = "rules: [{name: a, namespaces: {}}]";
    let by_label = "rules: [{name: a, namespaces: {matchLabels: {team: a}}}]";
    let by_zone = "rules: [{name: a, namespaces: {}, domainSuffixes: [example.org]}]";
    let retained = ["POST event Retained", "PATCH release"];
    type Case<'a> = (
        &'a str,
        MtlsDomain,
        Option<Cached<MtlsDomain>>,
        Option<&'a str>,
        Option<&'a str>,
        &'a [&'a str],
    );
    let cases: Vec<Case> = vec![
        (
            "a new domain is held before the first write",
            domain(|_| {}),
            None,
            None,
            None,
            &first_writes,
        ),
        (
            "only observed: nothing is written or held",
            domain(observe),
            None,
            None,
            None,
            &["read AWS", "PATCH status Accepted"],
        ),
        (
            "suspended",
            domain(suspend),
            None,
            None,
            None,
            &["PATCH status Suspended"],
        ),
        (
            "its resources are elsewhere",
            domain(elsewhere),
            None,
            None,
            None,
            &["PATCH status HomeChanged", "POST event HomeChanged"],
        ),
        (
            "another account",
            domain(other_account),
            None,
            None,
            None,
            &["PATCH status WrongAccount", "POST event WrongAccount"],
        ),
        (
            "an older one has the name",
            domain(|_| {}),
            Some(winner(|_| {})),
            None,
            None,
            &["PATCH status DomainNameClaimed", "POST event DomainNameClaimed"],
        ),
        (
            "an older one has another name",
            domain(|_| {}),
            Some(winner(|o| o["spec"]["domainName"] = json!("b.example.com"))),
            None,
            None,
            &first_writes,
        ),
        (
            "the policy allows it",
            domain(|_| {}),
            None,
            Some(everything),
            None,
            &first_writes,
        ),
        (
            "the policy allows it by label",
            domain(|_| {}),
            None,
            Some(by_label),
            Some("a"),
            &first_writes,
        ),
        (
            "the policy does not",
            domain(|_| {}),
            None,
            Some(by_zone),
            None,
            &["PATCH status NotPermitted", "POST event NotPermitted"],
        ),
        (
            "the policy does not by label",
            domain(|_| {}),
            None,
            Some(by_label),
            Some("b"),
            &["PATCH status NotPermitted", "POST event NotPermitted"],
        ),
        (
            "the policy's answer is not known",
            domain(|_| {}),
            None,
            Some(by_label),
            None,
            &["PATCH status Unreachable"],
        ),
        (
            "deleted, and nothing was created",
            deleted(|o| o["metadata"]["finalizers"] = json!(["other/one"])),
            None,
            None,
            None,
            &[],
        ),
        (
            "deleted",
            deleted(|_| {}),
            None,
            None,
            None,
            &["read AWS", "DELETE a Secret", "PATCH release"],
        ),
        (
            "deleted, and its AWS resources and Secrets are retained",
            deleted(|o| o["spec"]["deletionPolicy"] = json!("Retain")),
            None,
            None,
            None,
            &["read AWS", "POST event Retained", "PATCH release"],
        ),
        (
            "deleted and abandoned",
            deleted(abandon),
            None,
            None,
            None,
            &["POST event Abandoned", "PATCH release"],
        ),
        (
            "abandoned by an annotation that came with a copied manifest",
            deleted(|o| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "other"})),
            None,
            None,
            None,
            &["read AWS", "DELETE a Secret", "PATCH release"],
        ),
        (
            "abandoned, not deleted",
            domain(abandon),
            None,
            None,
            None,
            &first_writes,
        ),
        (
            "deleted, was only observed",
            deleted(observe),
            None,
            None,
            None,
            &retained,
        ),
        (
            "deleted while suspended",
            deleted(suspend),
            None,
            None,
            None,
            &["PATCH status Suspended", "POST event DeletionWaits"],
        ),
        (
            "deleted, and its resources are elsewhere",
            deleted(elsewhere),
            None,
            None,
            None,
            &[
                "PATCH status HomeChanged",
                "POST event HomeChanged",
                "POST event DeletionWaits",
            ],
        ),
        (
            "deleted, and the policy does not allow it",
            deleted(|_| {}),
            None,
            Some(by_zone),
            None,
            &[
                "PATCH status NotPermitted",
                "POST event NotPermitted",
                "POST event DeletionWaits",
            ],
        ),
        (
            "deleted, and the policy's answer is not known",
            deleted(|_| {}),
            None,
            Some(by_label),
            None,
            &["PATCH status Unreachable", "POST event DeletionWaits"],
        ),
        (
            "deleted, and an older one has the name",
            deleted(|_| {}),
            Some(winner(|_| {})),
            None,
            None,
            &["read AWS", "DELETE a Secret", "PATCH release"],
        ),
    ];
    for (what, object, other, policy, team, expected) in cases {
        let stage = Stage::new(
            [Some(guard(object.clone())), other]
                .into_iter()
                .flatten()
                .collect(),
            policy,
            team,
        );
        Box::pin(reconcile_domain(&object, &stage.ctx)).await.unwrap();
        assert_eq!(stage.log(), expected, "{what}");
        // The domain publishes its trust to its ClientCertificates once AWS has been read.
        let served = expected.contains(&"PATCH status Accepted");
        let key = ("shop".to_owned(), "partners".to_owned());
        let known = object.metadata.deletion_timestamp.is_none() && stage.ctx.active_trust.is_known(&key);
        assert_eq!(known, served, "{what}");
    }
}

#[test]
fn metadata_and_spec_decide_the_course_before_aws_is_called() {
    let observe = |o: &mut Value| o["spec"]["managementPolicy"] = json!("Observe");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    let abandon = |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::ABANDON: "partners"});
    let gone = |o: &mut Value| o["metadata"]["finalizers"] = json!([]);
    for (what, object, expected) in [
        ("new", domain(|_| {}), Precheck::Continue),
        ("observed", domain(observe), Precheck::Continue),
        ("abandoned", domain(abandon), Precheck::Continue),
        ("suspended", domain(suspend), Precheck::Suspended),
        ("deleted", deleted(|_| {}), Precheck::Continue),
        (
            "deleted without the operator's finalizer",
            deleted(gone),
            Precheck::Forget,
        ),
        (
            "deleted and abandoned",
            deleted(abandon),
            Precheck::AbandonResources,
        ),
        ("deleted and suspended", deleted(suspend), Precheck::Suspended),
        (
            "deleted and observed",
            deleted(observe),
            Precheck::ReleaseObserved,
        ),
        (
            "deleted, abandoned and suspended",
            deleted(|o| (abandon(o), suspend(o)).0),
            Precheck::AbandonResources,
        ),
        (
            "deleted, observed and suspended",
            deleted(|o| (observe(o), suspend(o)).0),
            Precheck::Suspended,
        ),
        (
            "deleted and observed, without the operator's finalizer",
            deleted(|o| (observe(o), gone(o)).0),
            Precheck::Forget,
        ),
    ] {
        assert_eq!(precheck(&object), expected, "{what}");
    }
}

#[test]
fn resources_in_another_account_or_region_are_neither_changed_nor_deleted() {
    let operator_config = OperatorConfig {
        cluster_id: "c",
        account: ACCOUNT,
        region: REGION,
        truststore_bucket: None,
    };
    let at = |place: &'static str| {
        move |o: &mut Value| o["metadata"]["annotations"] = json!({finalizer::PLACEMENT: place})
    };
    for (what, object, expected) in [
        ("nothing is created yet", domain(|_| {}), "Serve"),
        ("here", domain(at("123456789012/eu-west-1")), "Serve"),
        (
            "another account",
            domain(at("999999999999/eu-west-1")),
            "HomeChanged",
        ),
        (
            "another Region",
            domain(at("123456789012/us-east-1")),
            "HomeChanged",
        ),
        ("deleted", deleted(|_| {}), "Delete"),
        ("deleted here", deleted(at("123456789012/eu-west-1")), "Delete"),
        (
            "deleted, and in another Region",
            deleted(at("123456789012/us-east-1")),
            "HomeChanged",
        ),
    ] {
        let found = match disposition(&object, &Placement::of(&object, &operator_config)) {
            Disposition::Refuse(Acceptance::Refused {
                reason,
                stalled: true,
                ..
            }) => reason.as_str(),
            Disposition::Refuse(other) => panic!("{what}: {other:?}"),
            Disposition::Delete => "Delete",
            Disposition::Serve => "Serve",
        };
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn an_older_claim_is_checked_before_the_spec_unless_the_policy_denies_it() {
    let with = |name: &'static str, namespace: &'static str, created: &'static str| {
        domain(|o| {
            for field in ["name", "uid"] {
                o["metadata"][field] = json!(name);
            }
            o["metadata"]["namespace"] = json!(namespace);
            o["metadata"]["creationTimestamp"] = json!(created);
        })
    };
    let me = with("me", "shop", "2026-01-02T00:00:00Z");
    let winner = with("older", "shop", "2026-01-01T00:00:00Z");
    let cross_namespace = with("older", "acme", "2026-01-01T00:00:00Z");
    let younger = with("younger", "acme", "2026-01-03T00:00:00Z");
    let told = |all: &[&MtlsDomain], refused: &str| {
        let found = contested(&me, all.iter().copied(), |d| d.name_any() == refused, REGION);
        found.map(|found| match found {
            Acceptance::Refused {
                reason: Reason::DomainNameClaimed,
                message,
                stalled: false,
            } => message,
            other => panic!("{other:?}"),
        })
    };
    let message = |who: &str| Some(format!("spec.domainName: {who} has mtls.example.com already"));
    assert_eq!(told(&[&me, &younger], ""), None);
    assert_eq!(
        told(&[&me, &winner, &younger], ""),
        message("the older MtlsDomain older")
    );
    assert_eq!(
        told(&[&me, &cross_namespace], ""),
        message("an older MtlsDomain"),
        "the name of an object in another namespace is not disclosed"
    );
    assert_eq!(
        told(&[&me, &winner], "older"),
        None,
        "an object that the policy denies has no claim"
    );
    assert_eq!(told(&[&me, &winner], "me"), message("the older MtlsDomain older"));

    let operator_config = OperatorConfig {
        cluster_id: "c",
        account: ACCOUNT,
        region: REGION,
        truststore_bucket: None,
    };
    let clients = || clients_of(&me, &[], &[], &[], None, &|_| None);
    let wanted = || desired::desired(&me, &operator_config, clients());
    assert!(admit(None, wanted).is_ok());
    let claimed = Acceptance::Suspended;
    assert_eq!(admit(Some(claimed.clone()), wanted).unwrap_err(), claimed);
    let wrong = || {
        Err(Refused {
            reason: Reason::WrongAccount,
            message: "m".into(),
        })
    };
    let refused = Acceptance::Refused {
        reason: Reason::WrongAccount,
        message: "m".into(),
        stalled: true,
    };
    assert_eq!(admit(None, wrong).unwrap_err(), refused);
}

#[test]
fn an_operator_without_a_region_serves_domains_that_specify_one() {
    let error = |kind| errors::Error {
        kind,
        operation: "sts:GetCallerIdentity",
        code: None,
        message: "m".into(),
        source: None,
    };
    assert_eq!(own_region(Ok(REGION.into())).unwrap(), REGION);
    assert_eq!(own_region(Err(error(Kind::Invalid))).unwrap(), "");
    for kind in [Kind::Denied, Kind::Transient, Kind::Throttled] {
        assert_eq!(own_region(Err(error(kind))).unwrap_err().kind, kind);
    }
}

#[test]
fn the_last_written_status_is_current_until_the_cache_shows_another() {
    let status = |generation| MtlsDomainStatus {
        observed_generation: Some(generation),
        ..MtlsDomainStatus::default()
    };
    let (before, written, other) = (status(1), status(2), status(3));
    for (state, shown, expected) in [
        (None, None, MtlsDomainStatus::default()),
        (None, Some(&before), before.clone()),
        (Some((written.clone(), None)), None, written.clone()),
        (
            Some((written.clone(), Some(before.clone()))),
            Some(&before),
            written.clone(),
        ),
        (
            Some((written.clone(), Some(before.clone()))),
            Some(&written),
            written.clone(),
        ),
        (
            Some((written.clone(), Some(before.clone()))),
            Some(&other),
            other.clone(),
        ),
        (Some((written.clone(), None)), Some(&other), other.clone()),
    ] {
        assert_eq!(current(state, shown), expected);
    }
}

#[test]
fn failures_and_recovery_get_events() {
    for (type_, status, reason, expected) in [
        ("Ready", "True", Reason::Ready, true),
        ("Ready", "False", Reason::PermissionDenied, true),
        ("Ready", "Unknown", Reason::PermissionDenied, false),
        ("BypassDetected", "True", Reason::OtherDomain, true),
        ("Stalled", "True", Reason::InvalidSpec, false),
        ("Accepted", "False", Reason::InvalidSpec, true),
        ("ResolvedRefs", "True", Reason::RefNotFound, false),
        ("DNSProgrammed", "False", Reason::Queued, false),
    ] {
        let (type_, status, reason) = (type_.to_owned(), status.to_owned(), reason.as_str().to_owned());
        let turned = Transition {
            type_,
            status,
            reason,
            message: "m".into(),
        };
        assert_eq!(event_of(&turned).is_some(), expected, "{turned:?}");
    }
}

#[test]
fn polls_of_aws_back_off_exponentially() {
    let waits = [1, 2, 3, 8, 9, 1000].map(|backoff_attempts| backoff_after(backoff_attempts).as_millis());
    assert_eq!(waits, [100, 200, 400, 12_800, 15_000, 15_000]);
}

fn certificate(
    name: &str,
    namespace: &str,
    change: impl FnOnce(&mut Value),
) -> Arc<Cached<ClientCertificate>> {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "spec": {
            "domainRef": {"name": "partners", "namespace": "shop"}, "issuance": "SelfSigned",
            "subject": {"commonName": name},
        },
    });
    change(&mut object);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn terms(max: Option<i64>) -> Terms {
    let max_duration = max.map(jiff::SignedDuration::from_hours);
    Terms {
        grant: "g".into(),
        authority: None,
        max_duration,
        not_after: None,
        is_counted: false,
    }
}

#[test]
fn only_granted_cross_namespace_certificates_count() {
    let me = domain(|_| {});
    let key = ("shop".to_owned(), "partners".to_owned());
    let own = certificate("own", "shop", |_| {});
    let other = certificate("other", "shop", |o| {
        o["spec"]["domainRef"] = json!({"name": "another"})
    });
    let leaf = certificate("leaf", "shop", |o| {
        o["spec"]["issuance"] = json!("Authority");
        o["spec"]["duration"] = json!("5000h");
    });
    let damaged = certificate("damaged", "acme", |o| o["spec"] = json!(1));
    let names = ["fits", "misfits", "unknown", "leaf2"];
    let [fits, misfits, unknown, leaf2] = names.map(|name| {
        certificate(name, "acme", |o| {
            if name == "leaf2" {
                o["spec"]["issuance"] = json!("Authority");
                o["spec"]["duration"] = json!("9000h");
            }
        })
    });
    let cross_namespace = [
        (fits.clone(), Decision::Allowed(terms(Some(1)))),
        (misfits.clone(), Decision::Denied("m".into())),
        (unknown.clone(), Decision::Unknown("m".into())),
        (leaf2.clone(), Decision::Denied("m".into())),
    ];
    let all = [&own, &other, &leaf, &damaged, &fits, &misfits, &unknown, &leaf2].map(Clone::clone);
    let theirs = certificates_for(&key, all.to_vec(), &cross_namespace);
    let named = |all: &[Arc<Cached<ClientCertificate>>]| all.iter().map(|c| c.name_any()).collect::<Vec<_>>();
    assert_eq!(named(&theirs), ["own", "leaf", "fits", "unknown"]);

    let clients = clients_of(&me, &theirs, &cross_namespace, &all, None, &|_| None);
    assert_eq!(
        clients.longest.as_hours(),
        5000,
        "the longest leaf that an authority issues and that may be granted"
    );
    let entries: Vec<_> = clients
        .self_signed
        .iter()
        .map(|wanted| (wanted.entry.clone(), wanted.secrets.is_some()))
        .collect();
    let entry = |c: &Arc<Cached<ClientCertificate>>, known| (entry_name(&**c), known);
    assert_eq!(
        entries,
        [
            entry(&own, true),
            entry(&fits, true),
            entry(&unknown, false),
            entry(&damaged, false)
        ]
    );
    assert_eq!(
        clients.self_signed[1].request.duration.as_hours(),
        1,
        "no longer than the grant allows"
    );
    assert_eq!(
        clients_of(&me, &[], &[], &[], None, &|_| None).longest,
        durations::DEFAULT_LEAF
    );
}

#[tokio::test]
async fn a_failed_reconcile_is_retried_unless_only_a_change_of_the_object_can_help() {
    let object = Arc::new(guard(domain(|_| {})));
    let stage = Stage::new(vec![(*object).clone()], None, None);
    assert_eq!(
        failed(object.clone(), &Error::TooLong, stage.ctx.clone()),
        Next::requeue(INITIAL_BACKOFF)
    );
    let bad: Cached<MtlsDomain> =
        serde_json::from_value(json!({"metadata": {"name": "partners", "namespace": "shop"}, "spec": 1}))
            .unwrap();
    let error = Error::Unreadable(Box::new(bad.0.unwrap_err()));
    assert_eq!(failed(object, &error, stage.ctx.clone()), Next::await_change());
}

#[test]
fn the_current_object_is_reconciled_and_only_with_a_permit() {
    on_a_large_stack(as_it_is_now);
}

async fn as_it_is_now() {
    let suspended = guard(domain(|o| o["spec"]["suspend"] = json!(true)));
    let stage = Stage::new(vec![suspended], None, None);
    let (then, gone) = (
        Arc::new(guard(domain(|_| {}))),
        Arc::new(guard(domain(|o| o["metadata"]["name"] = json!("gone")))),
    );
    reconcile(then.clone(), stage.ctx.clone()).await.unwrap();
    assert_eq!(
        stage.log(),
        ["PATCH status Suspended"],
        "the current object, not the queued one"
    );
    assert_eq!(
        reconcile(gone, stage.ctx.clone()).await.unwrap(),
        Next::await_change()
    );
    stage.ctx.concurrency.close();
    assert_eq!(
        reconcile(then, stage.ctx.clone()).await.unwrap(),
        Next::await_change()
    );
    assert_eq!(stage.log(), [""; 0]);
}
