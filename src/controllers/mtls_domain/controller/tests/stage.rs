//! Stage of the controller's tests: a controller whose Kubernetes and AWS are functions.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt, api::PartialObjectMeta};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    api::{ClientCertificate, MtlsDomain},
    aws::{
        call_guard::Gate,
        fake::{self, ACCOUNT, REGION},
        quota::Quota,
        rates::Rates,
        session::Sessions,
    },
    controllers::mtls_domain::{context::Ctx, credentials::ServiceAccount, simulation::world::now},
    grants::index::GrantIndex,
    observation::{read_cache::ReadCache, refresh_intervals::RefreshIntervals},
    pki::authority::tests::issuer,
    policy::file,
    probe::{
        https::{EndpointProbe, ProbeOptions},
        public_dns::PublicDns,
    },
    runtime::{
        concurrency::ConcurrencyLimit,
        events::Events,
        fake::store,
        finalizer,
        watch::{Cached, fake::Fake},
        workers::Workers,
    },
    server_certificate::request_limiter::RequestLimiter,
    telemetry::{heartbeat::Heartbeat, metrics::Metrics},
    trust::active_trust::ActiveTrust,
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
    pub(crate) fn new(domains: Vec<Cached<MtlsDomain>>, policy: Option<&str>, team: Option<&str>) -> Stage {
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
        let (domains, namespaces) = (store(domains), Fake::of(namespaces.into_iter().collect()).watch);
        let certificates = Fake::<Cached<ClientCertificate>>::of(vec![]).watch;
        let (metrics, _) = Metrics::new();
        let policy = policy.map(|text| Arc::new(file::parse(text).unwrap()));
        let grant_index = GrantIndex::new(
            &Fake::of(vec![]).watch,
            &certificates,
            domains.clone(),
            &namespaces,
        );
        let ctx = Ctx {
            client: client.clone(),
            cluster_id: "cluster".into(),
            truststore_bucket: None,
            aws_tags: std::collections::BTreeMap::new(),
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
            certificates: certificates.store(),
            secrets: store(vec![]),
            config_maps: store(vec![]),
            active_trust: Arc::new(ActiveTrust::new().0),
            request_limiter: RequestLimiter::default(),
            bypasses: Arc::default(),
            claims: Arc::default(),
            policy: watch::channel(policy).1,
            namespaces: namespaces.store(),
            grant_index: Arc::new(grant_index),
            concurrency: ConcurrencyLimit::new(1),
            workers: Arc::new(Workers::start(&Metrics::new().0).unwrap()),
            states: Mutex::default(),
        };
        Stage {
            ctx: Arc::new(ctx),
            log,
        }
    }

    pub(crate) fn log(&self) -> Vec<String> {
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

pub(crate) fn domain(change: impl FnOnce(&mut Value)) -> MtlsDomain {
    let pem = issuer("Acme", now()).chain().authority().to_pem();
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {
            "name": "partners", "namespace": "shop", "uid": "u", "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "2026-01-02T00:00:00Z",
        },
        "spec": {
            "domainName": "mtls.example.com", "dns": {"external": {"verify": "None"}},
            "truststore": {"bucket": "truststores", "bucketCreation": "IfMissing"},
            "trust": {"authorities": [{"name": "acme", "pem": pem}]},
        },
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

/// A deleted domain, held by the operator's finalizer.
pub(crate) fn deleted(change: impl FnOnce(&mut Value)) -> MtlsDomain {
    domain(|o| {
        o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
        o["metadata"]["finalizers"] = json!([finalizer::FINALIZER]);
        change(o);
    })
}
