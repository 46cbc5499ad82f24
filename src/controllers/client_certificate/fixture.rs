//! Test support: a controller with a fake Kubernetes API server, and the objects around it.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, api::PartialObjectMeta, core::DeserializeGuard};
use serde_json::{Value, json};

use super::{context::Ctx, due_queue::DueQueue, secret_index::SecretIndex};

use crate::{
    api::{ClientCertificate, ClientGrant, MtlsDomain},
    grants::index::GrantIndex,
    issuance::signing_key_cache::SigningKeyCache,
    runtime::{
        concurrency::ConcurrencyLimit,
        events::Events,
        fake::{self, store},
        watch::{Cached, fake::Fake},
        workers::Workers,
    },
    telemetry::{heartbeat::Heartbeat, metrics::Metrics},
    trust::active_trust::ActiveTrust,
};

/// Controller with a fake Kubernetes API server. The server has these Secrets and stores no writes.
pub(crate) struct Stage {
    pub ctx: Arc<Ctx>,
    log: Arc<Mutex<Vec<String>>>,
}

/// State of the cluster.
#[derive(Default)]
pub(crate) struct There {
    pub certificates: Vec<Cached<ClientCertificate>>,
    pub domains: Vec<Cached<MtlsDomain>>,
    pub secrets: Vec<Secret>,
    pub grants: Vec<Cached<ClientGrant>>,
    /// Response to every write of a Secret; `None` for success.
    pub refuses: Option<(u16, &'static str)>,
}

impl Stage {
    pub fn new(there: There) -> Stage {
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (said, secrets, refuses) = (log.clone(), there.secrets.clone(), there.refuses);
        let objects = there.certificates.clone();
        let client = fake::client(move |method, path, body| {
            let name = path
                .trim_end_matches("/status")
                .rsplit('/')
                .next()
                .unwrap_or_default();
            let (write, is_secret) = (method != "GET", path.contains("/secrets"));
            if write {
                said.lock()
                    .unwrap()
                    .push(format!("{method} {}", meaning(path, &body)));
            }
            let secret = secrets.iter().find(|s| s.name_any() == name);
            let object = objects
                .iter()
                .find(|c| c.name_any() == name)
                .and_then(|c| c.0.as_ref().ok());
            match (secret, object) {
                _ if write && is_secret && refuses.is_some() => {
                    refuses.map(|(c, r)| fake::refusal(c, r)).unwrap()
                }
                _ if method == "POST" => (201, body),
                (Some(secret), _) if is_secret => (200, serde_json::to_value(secret).unwrap()),
                (_, Some(object)) if !is_secret => (200, serde_json::to_value(object).unwrap()),
                _ => fake::refusal(404, "NotFound"),
            }
        });
        let metadata = |s: &Secret| {
            let value = json!({"metadata": serde_json::to_value(&s.metadata).unwrap()});
            serde_json::from_value::<PartialObjectMeta<Secret>>(value).unwrap()
        };
        let secrets = store(there.secrets.iter().map(metadata).collect());
        let (certificates, domains, grants) = (
            Fake::of(there.certificates).watch,
            store(there.domains),
            Fake::of(there.grants).watch,
        );
        let grant_index = GrantIndex::new(&grants, &certificates, domains.clone(), &Fake::of(vec![]).watch);
        let (metrics, _) = Metrics::new();
        let ctx = Ctx {
            client: client.clone(),
            events: Events::new(client, "test"),
            metrics,
            heartbeat: Heartbeat::default(),
            certificates: certificates.store(),
            domains,
            active_trust: Arc::new(ActiveTrust::new().0),
            secrets,
            signing_keys: SigningKeyCache::default(),
            secret_index: SecretIndex::default(),
            due_queue: DueQueue::default(),
            grant_index: Arc::new(grant_index),
            concurrency: ConcurrencyLimit::new(1),
            workers: Arc::new(Workers::start(&Metrics::new().0).unwrap()),
            started: Instant::now(),
            propagation: SignedDuration::from_secs(90),
            states: Mutex::default(),
        };
        Stage {
            ctx: Arc::new(ctx),
            log,
        }
    }

    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// Returns a short form of a write to the API server.
fn meaning(path: &str, body: &Value) -> String {
    let name = path.rsplit('/').next().unwrap();
    if name == "status" {
        let conditions = body[1]["value"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let reason = |type_: &str| {
            let found = conditions.iter().find(|c| c["type"] == type_);
            found.and_then(|c| c["reason"].as_str()).unwrap_or("-").to_owned()
        };
        return format!("status {} {}", reason("Accepted"), reason("Issued"));
    }
    match name {
        "events" => format!("event {}", body["reason"].as_str().unwrap()),
        "secrets" => format!("secret {}", body["metadata"]["name"].as_str().unwrap()),
        name => name.to_owned(),
    }
}

pub(crate) fn certificate(change: impl FnOnce(&mut Value)) -> ClientCertificate {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
        "metadata": {
            "name": "client1", "namespace": "shop", "uid": "client1", "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "2026-01-02T00:00:00Z",
        },
        "spec": {
            "domainRef": {"name": "partners", "namespace": "shop"},
            "subject": {"commonName": "client1"},
        },
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

pub(crate) fn guard(cert: ClientCertificate) -> Cached<ClientCertificate> {
    DeserializeGuard(Ok(cert))
}

pub(crate) fn domain(change: impl FnOnce(&mut Value)) -> Cached<MtlsDomain> {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": "partners", "namespace": "shop", "uid": "d", "generation": 1},
        "spec": {
            "domainName": "mtls.example.com",
            "trust": {"authorities": [{"name": "acme", "secretRef": {"name": "acme-ca"}}]},
        },
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

pub(crate) fn grant(change: impl FnOnce(&mut Value)) -> Cached<ClientGrant> {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientGrant",
        "metadata": {"name": "g", "namespace": "shop", "generation": 1},
        "spec": {
            "domainRef": {"name": "partners"},
            "namespaces": {"names": ["acme"]},
            "commonNames": ["client*"],
        },
    });
    change(&mut object);
    serde_json::from_value::<DeserializeGuard<ClientGrant>>(object).unwrap()
}

pub(crate) fn secret(name: &str, data: &[(&str, &str)], change: impl FnOnce(&mut Secret)) -> Secret {
    let data = data
        .iter()
        .map(|(key, text)| ((*key).to_owned(), k8s_openapi::ByteString((*text).into())));
    let mut secret = Secret {
        data: Some(data.collect()),
        type_: Some("kubernetes.io/tls".into()),
        ..Secret::default()
    };
    secret.metadata.name = Some(name.into());
    secret.metadata.namespace = Some("shop".into());
    secret.metadata.resource_version = Some("7".into());
    change(&mut secret);
    secret
}
