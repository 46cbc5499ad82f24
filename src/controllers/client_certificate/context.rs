//! Context of the controller: the clients, the caches, and the state of each certificate between two
//! reconciles.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        controller::Action as Next,
        reflector::{ObjectRef, Store},
    },
};

use super::{due_queue::DueQueue, secret_index::SecretIndex};

use crate::{
    api::{ClientCertificate, ClientCertificateStatus, MtlsDomain},
    grants::index::GrantIndex,
    issuance::{pace::record::Pace, signing_key_cache::SigningKeyCache},
    runtime::{
        concurrency::ConcurrencyLimit, events::Events, reconcile::Error, status_writer, watch::Cached,
        workers::Workers,
    },
    telemetry::{
        heartbeat::Heartbeat,
        metrics::{self, Metrics},
    },
    trust::active_trust::ActiveTrust,
};

/// Delay after a first failure. Each further failure doubles the delay, up to [`LAST_RETRY`].
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Minimum delay of a timed requeue.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Maximum time that a reconcile waits for the watch cache to show the status that the previous reconcile
/// wrote.
const LATE_WATCH: Duration = Duration::from_secs(5);

pub struct Ctx {
    pub client: Client,
    pub events: Events,
    pub metrics: Metrics,
    pub heartbeat: Heartbeat,
    pub certificates: Store<Cached<ClientCertificate>>,
    pub domains: Store<Cached<MtlsDomain>>,
    pub active_trust: Arc<ActiveTrust>,
    pub secrets: Store<PartialObjectMeta<Secret>>,
    pub signing_keys: SigningKeyCache,
    pub secret_index: SecretIndex,
    pub due_queue: DueQueue,
    pub grant_index: Arc<GrantIndex>,
    pub concurrency: ConcurrencyLimit,
    pub workers: Arc<Workers>,
    /// Time at which this process became the leader.
    pub started: Instant,
    /// Time that a truststore version must have been in use before every server of AWS has it.
    pub propagation: SignedDuration,
    pub states: Mutex<HashMap<String, ReconcileState>>,
}

/// State of one object between two reconciles, by UID. It saves writes and decides nothing: the operator may
/// lose all of it.
#[derive(Default)]
pub struct ReconcileState {
    /// Number of consecutive failures.
    failures: u32,
    /// True when this process has seen the object from its creation on, and the object has not been Ready
    /// yet.
    is_new: bool,
    /// resourceVersion that the object had before the last status write of this process, and the time of that
    /// write. While the watch cache shows this resourceVersion, the cache is stale.
    wrote_over: Option<(Option<String>, Instant)>,
    /// Version of the Secret that this process wrote last. The arrival of this version in the cache is no
    /// change.
    pub(crate) wrote_secret: Option<String>,
    /// Record of the certificates that may delay the next one; most objects have none.
    pace: Option<Box<Pace>>,
}

impl ReconcileState {
    #[cfg(test)]
    pub(crate) fn set_wrote(&mut self, version: &str) {
        self.wrote_secret = Some(version.to_owned());
    }

    /// True when `version` is the version of the object over which this process wrote the status a moment
    /// ago.
    fn is_behind(&mut self, version: Option<&String>, now: Instant) -> bool {
        self.wrote_over
            .take_if(|(over, at)| over.as_ref() != version || now.duration_since(*at) > LATE_WATCH);
        self.wrote_over.is_some()
    }

    fn is_worth_keeping(&self, now: Instant, time: Timestamp) -> bool {
        let wrote_lately = self
            .wrote_over
            .as_ref()
            .is_some_and(|(_, at)| now.duration_since(*at) <= LATE_WATCH);
        let is_paced = self.pace.as_ref().is_some_and(|pace| pace.is_worth_keeping(time));
        wrote_lately || self.is_new || self.failures > 0 || is_paced
    }
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

    pub(crate) fn retry(&self, uid: &str) -> Duration {
        self.update_state(uid, |m| {
            m.failures += 1;
            retry_after(m.failures)
        })
    }

    /// True when the cached version of the Secret is the version that the last reconcile of that certificate
    /// wrote.
    pub(crate) fn wrote(
        &self,
        cert: &ObjectRef<Cached<ClientCertificate>>,
        secret: &PartialObjectMeta<Secret>,
    ) -> bool {
        let is_there = self.secrets.get(&ObjectRef::from_obj(secret)).is_some();
        let uid = self.certificates.get(cert).and_then(|cert| cert.uid());
        let state = self.states.lock().expect("no holder of the lock panics");
        let wrote = uid.and_then(|uid| state.get(&uid)?.wrote_secret.as_ref());
        is_own_write(is_there, wrote, secret.metadata.resource_version.as_ref())
    }

    /// True while the watch cache does not show the status that this process wrote last. A reconcile from the
    /// older status would write the status a second time.
    pub(crate) fn is_behind(&self, cert: &ClientCertificate) -> bool {
        let mut state = self.states.lock().expect("no holder of the lock panics");
        let known = cert.uid().and_then(|uid| state.get_mut(&uid));
        known.is_some_and(|m| m.is_behind(cert.metadata.resource_version.as_ref(), Instant::now()))
    }

    /// Drops the entries of old writes, which the watch cache has shown long since.
    pub(crate) fn forget_old_writes(&self) {
        let mut state = self.states.lock().expect("no holder of the lock panics");
        state.retain(|_, m| m.is_worth_keeping(Instant::now(), Timestamp::now()));
        state.shrink_to_fit();
    }

    /// Returns the record of the certificate's pace. `version`: current version of its Secret.
    pub(crate) fn pace(&self, uid: &str, version: Option<&String>, now: Timestamp) -> Pace {
        let mut state = self.states.lock().expect("no holder of the lock panics");
        let Some(known) = state.get_mut(uid) else {
            return Pace::default();
        };
        let (wrote, pace) = (&known.wrote_secret, &mut known.pace);
        pace.as_mut().map_or_else(Pace::default, |pace| {
            pace.saw(version, wrote.as_ref(), now);
            (**pace).clone()
        })
    }

    pub(crate) fn change_pace(&self, uid: &str, change: impl FnOnce(&mut Pace)) {
        self.update_state(uid, |m| change(m.pace.get_or_insert_default()));
    }

    /// Resets the failures of a certificate. Adds no entry: the map has no entries for the thousands of
    /// certificates without a failure.
    pub(crate) fn succeeded(&self, uid: &str) {
        if let Some(known) = self
            .states
            .lock()
            .expect("no holder of the lock panics")
            .get_mut(uid)
        {
            known.failures = 0;
        }
    }

    /// Schedules the next reconcile at the time `at`: in the due queue if that is far away, otherwise as a
    /// requeue. `None`: only an event causes the next reconcile.
    pub(crate) fn requeue_at(&self, uid: &str, at: Option<Timestamp>, now: Timestamp) -> Next {
        let near = at.filter(|at| !self.due_queue.put(uid, *at, now));
        let wait = |at: Timestamp| {
            Duration::try_from(at.duration_since(now))
                .unwrap_or_default()
                .max(SHORTEST_WAIT)
        };
        near.map_or_else(Next::await_change, |at| Next::requeue(wait(at)))
    }

    pub(crate) async fn write(
        &self,
        cert: &ClientCertificate,
        old: &ClientCertificateStatus,
        new: &ClientCertificateStatus,
    ) -> Result<(), Error> {
        if status_writer::write(&self.client, cert, old, new).await? {
            let over = cert.metadata.resource_version.clone();
            self.update_state(&cert.uid().unwrap_or_default(), |m| {
                m.wrote_over = Some((over, Instant::now()));
                let (old, new) = (&old.conditions, &new.conditions);
                self.metrics
                    .transitioned(metrics::Controller::Certificate, cert, old, new, &mut m.is_new);
            });
        }
        self.events
            .publish_ready(&cert.object_ref(&()), &old.conditions, &new.conditions)
            .await;
        Ok(())
    }
}

/// Delay before the next reconcile of a certificate after `failures` consecutive failures.
fn retry_after(failures: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LAST_RETRY)
}

/// True when the Secret `is_there`, in the version that this process `wrote` last.
fn is_own_write(is_there: bool, wrote: Option<&String>, version: Option<&String>) -> bool {
    is_there && wrote.is_some() && wrote == version
}

#[cfg(test)]
mod tests;
