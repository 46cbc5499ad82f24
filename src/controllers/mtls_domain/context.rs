//! State shared by all reconciles of `MtlsDomain`: clients, caches and stores, the in-memory state of each
//! object, its requeue delays, and the write of its status.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        controller::Action as Next,
        reflector::{ObjectRef, Store},
    },
};
use tokio::time::Instant;

use super::{claims::Claims, credentials::ServiceAccount, execute::Refusals, report};

use crate::{
    api::{
        ClientCertificate, MtlsDomain, MtlsDomainStatus,
        conditions::Reason,
        events::{EventReason, Notice},
        object_id::ObjectId,
    },
    aws::{call_guard::Gate, session::Sessions, tags::Tags},
    background::bypass_scan::Bypasses,
    dataplane::api_gateway::contention::Contention,
    grants::index::GrantIndex,
    observation::{read_cache::ReadCache, refresh_intervals::RefreshIntervals},
    policy::follow::InForce,
    probe::{https::EndpointProbe, public_dns::PublicDns},
    runtime::{
        concurrency::ConcurrencyLimit, events::Events, reconcile::Error, status_writer, watch::Cached,
        workers::Workers,
    },
    server_certificate::request_limiter::RequestLimiter,
    status::{Transition, conditions::transitions},
    telemetry::{
        heartbeat::Heartbeat,
        metrics::{self, Metrics},
    },
    trust::{active_trust::ActiveTrust, observe::Versions, self_signed::Leaves},
};

/// Initial requeue delay with backoff, for work in progress in AWS and for errors. Doubles each time.
pub(crate) const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Maximum requeue delay with backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(15);
/// Maximum requeue delay while another party has to create something first.
const MAX_SLOW_BACKOFF: Duration = Duration::from_secs(300);

/// State shared by all reconciles.
pub struct Ctx {
    pub client: Client,
    pub cluster_id: String,
    pub truststore_bucket: Option<String>,
    /// Value of `--aws-tags`.
    pub aws_tags: Tags,
    /// Watched namespaces; `None`: all.
    pub watched: Option<BTreeSet<String>>,
    pub refresh: RefreshIntervals,
    pub cache: ReadCache,
    pub sessions: Sessions,
    pub gate: Gate,
    pub probe: EndpointProbe,
    pub public_dns: PublicDns,
    pub service_account: Arc<ServiceAccount>,
    pub events: Events,
    pub metrics: Metrics,
    pub heartbeat: Heartbeat,
    pub domains: Store<Cached<MtlsDomain>>,
    pub certificates: Store<Cached<ClientCertificate>>,
    pub secrets: Store<PartialObjectMeta<Secret>>,
    pub config_maps: Store<PartialObjectMeta<ConfigMap>>,
    pub active_trust: Arc<ActiveTrust>,
    pub request_limiter: RequestLimiter,
    pub bypasses: Arc<Bypasses>,
    pub claims: Arc<Claims>,
    pub policy: InForce,
    /// Empty until a policy or a grant selects namespaces by label.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    pub grant_index: Arc<GrantIndex>,
    pub concurrency: ConcurrencyLimit,
    pub workers: Arc<Workers>,
    pub states: Mutex<HashMap<String, ReconcileState>>,
}

/// In-memory state of one object between two reconciles. It saves calls and decides nothing, so the operator
/// may lose all of it.
#[derive(Clone, Default)]
pub struct ReconcileState {
    /// Number of consecutive requeues with backoff.
    pub(crate) backoff_attempts: u32,
    /// ID of the operator's last change of the DNS records, until that change is in sync.
    pub(crate) change: Option<String>,
    pub(crate) versions: Arc<Versions>,
    pub(crate) leaves: Arc<Leaves>,
    /// Generation that a live pass found in sync, and the start of that pass. The operator has written
    /// nothing since.
    pub(crate) in_sync_since: Option<(i64, Instant)>,
    pub(crate) corrections: Contention,
    /// Generation, and its lasting refusals.
    refused: (i64, Refusals),
    /// True for an object that the operator has observed since its creation, and that has not been Ready yet.
    is_new: bool,
    /// The status that the operator wrote last, and the status that it replaced. The watch cache may still
    /// show the replaced status.
    written: Option<(MtlsDomainStatus, Option<MtlsDomainStatus>)>,
}

impl Ctx {
    pub(crate) fn update_state<T>(&self, uid: &str, change: impl FnOnce(&mut ReconcileState) -> T) -> T {
        change(
            self.states
                .lock()
                .expect("no holder of the lock panics")
                .entry(uid.to_owned())
                .or_default(),
        )
    }

    /// Drops everything held in memory about the domain, and withdraws the domain from the quota queue.
    pub(crate) fn forget(&self, domain: &MtlsDomain) {
        let key = ObjectId::of(domain);
        self.active_trust.set(&key, None, None, Timestamp::now());
        self.bypasses.forget(&key);
        self.claims.forget(&domain.uid().unwrap_or_default());
        self.states
            .lock()
            .expect("no holder of the lock panics")
            .remove(&domain.uid().unwrap_or_default());
        self.gate.quota.withdraw(&queue_key(domain));
    }

    /// Drops the finding about the claim of a domain that is gone.
    pub(crate) fn forget_claim(&self, changed: &Cached<MtlsDomain>) {
        let there = self.domains.get(&ObjectRef::from_obj(changed));
        if let Some(uid) = &changed.meta().uid
            && there.is_none_or(|there| there.meta().uid.as_ref() != Some(uid))
        {
            self.claims.forget(uid);
        }
    }

    /// Counts a backoff attempt, and returns the delay before the next reconcile.
    pub(crate) fn backoff(&self, uid: &str) -> Duration {
        self.update_state(uid, |state| {
            state.backoff_attempts += 1;
            backoff_after(state.backoff_attempts)
        })
    }

    /// Returns the delay until the next reconcile while another party has to create something first, and no
    /// event will announce it.
    pub(crate) fn slow_backoff(&self, uid: &str) -> Duration {
        self.update_state(uid, |state| {
            state.backoff_attempts += 1;
            INITIAL_BACKOFF
                .saturating_mul(1 << (state.backoff_attempts - 1).min(12))
                .min(MAX_SLOW_BACKOFF)
        })
    }

    /// Resets the backoff, and requeues after the medium refresh interval unless an event comes first.
    pub(crate) fn resync_later(&self, uid: &str) -> Next {
        self.update_state(uid, |state| state.backoff_attempts = 0);
        Next::requeue(self.refresh.of(uid).medium)
    }

    /// Resets the backoff, and requeues after the short refresh interval. A domain in sync rarely needs an
    /// AWS call.
    pub(crate) fn resync_soon(&self, uid: &str) -> Next {
        self.update_state(uid, |state| state.backoff_attempts = 0);
        Next::requeue(self.refresh.of(uid).short)
    }

    /// Requeues at the end of a pause after a lasting refusal, and at the latest after the medium refresh
    /// interval. Resets the backoff.
    pub(crate) fn after_pause(&self, uid: &str, retry_at: Option<Instant>) -> Next {
        self.update_state(uid, |state| state.backoff_attempts = 0);
        let pause = retry_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        Next::requeue(pause.clamp(INITIAL_BACKOFF, self.refresh.of(uid).medium.max(INITIAL_BACKOFF)))
    }

    /// Returns the lasting refusals of this generation.
    pub(crate) fn refusals(&self, uid: &str, generation: i64) -> Refusals {
        self.update_state(uid, |state| match state.refused.0 == generation {
            true => state.refused.1.clone(),
            false => Refusals::new(),
        })
    }

    pub(crate) fn remember_refusals(&self, uid: &str, generation: i64, refused: Refusals) {
        self.update_state(uid, |state| state.refused = (generation, refused));
    }

    /// Returns the labels of a namespace; `None`: not known.
    pub(crate) fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.namespaces
            .get(&ObjectRef::new(namespace))
            .map(|found| found.labels().clone())
    }

    /// Returns the status to compute the next status from: the one that the operator wrote last, unless
    /// another writer has changed it since.
    pub(crate) fn last_status(&self, domain: &MtlsDomain) -> MtlsDomainStatus {
        let written = self.update_state(&domain.uid().unwrap_or_default(), |state| state.written.clone());
        current(written, domain.status.as_ref())
    }

    /// Writes the status if it has changed, and publishes an Event for each condition transition that gets
    /// one.
    pub(crate) async fn write(
        &self,
        domain: &MtlsDomain,
        old: &MtlsDomainStatus,
        new: &MtlsDomainStatus,
    ) -> Result<(), Error> {
        let waiting = report::waiting_deletion(domain, new, Timestamp::now());
        let (new, waits) = (waiting.as_ref().unwrap_or(new), waiting.is_some());
        if status_writer::write(&self.client, domain, old, new).await? {
            self.update_state(&domain.uid().unwrap_or_default(), |state| {
                state.written = Some((new.clone(), domain.status.clone()));
                let (old, new) = (&old.conditions, &new.conditions);
                self.metrics
                    .transitioned(metrics::Controller::Domain, domain, old, new, &mut state.is_new);
            });
        }
        for t in transitions(&old.conditions, &new.conditions) {
            if let Some(reason) = event_of(&t) {
                self.events
                    .publish(&domain.object_ref(&()), reason, "Reconcile", &t.message)
                    .await;
            }
        }
        if waits {
            self.tell_of_waiting(domain, old, new).await;
        }
        Ok(())
    }

    /// Publishes an Event when the deletion waits for something else than before.
    pub(crate) async fn tell_of_waiting(
        &self,
        domain: &MtlsDomain,
        old: &MtlsDomainStatus,
        new: &MtlsDomainStatus,
    ) {
        if let Some(why) = report::waits_for(new).filter(|why| report::waits_for(old) != Some(why)) {
            self.events
                .publish(&domain.object_ref(&()), Notice::DeletionWaits, "Delete", why)
                .await;
        }
    }
}

/// Returns the key of a domain in the quota queue, `namespace/name` (see `Ticket::object`).
pub(crate) fn queue_key(domain: &MtlsDomain) -> String {
    ObjectId::of(domain).to_string()
}

/// Returns the delay before the next reconcile after that many consecutive backoff attempts.
fn backoff_after(backoff_attempts: u32) -> Duration {
    INITIAL_BACKOFF
        .saturating_mul(1 << backoff_attempts.saturating_sub(1).min(10))
        .min(MAX_BACKOFF)
}

/// Returns the status that is current: the one `written` last while the watch cache still shows the status
/// that it replaced, otherwise the one `shown`.
pub(crate) fn current(
    written: Option<(MtlsDomainStatus, Option<MtlsDomainStatus>)>,
    shown: Option<&MtlsDomainStatus>,
) -> MtlsDomainStatus {
    match written {
        Some((written, before)) if before.as_ref() == shown => written,
        _ => shown.cloned().unwrap_or_default(),
    }
}

/// Returns the reason of the Event about a condition transition; `None` when the transition gets no Event.
fn event_of(turned: &Transition) -> Option<EventReason> {
    let is_told = match (turned.type_.as_str(), turned.status.as_str()) {
        ("Stalled", _) => false, // Accepted says why
        ("Ready", "True") | ("BypassDetected", _) => true,
        (_, status) => status == "False",
    };
    Reason::parse(&turned.reason)
        .filter(|_| is_told)
        .and_then(EventReason::of_condition)
}

#[cfg(test)]
pub(crate) mod tests;
