//! Controller of `ClientCertificate` objects. It runs the stages of a reconcile one after the other. It
//! requeues a certificate when its Secret, its issuer or its domain's trust changes, and at the time of the
//! next due step.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, unbounded},
    stream,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        Controller,
        controller::{Action as Next, Config},
        reflector::{ObjectRef, Store},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    conflicts,
    due_queue::DueQueue,
    mappers::{
        change_predicate, conflicting, is_there, of_domain, of_grant, of_namespace, sharing_slots,
        touched_by, when_due,
    },
    report::{self, Leaf},
    secret_index::SecretIndex,
};

use crate::{
    api::{
        ClientCertificate, ClientCertificateStatus, ClientGrant, MtlsDomain,
        conditions::{ConditionType, Reason},
        durations::length,
        events::Notice,
        object_id::{self, DomainKey},
    },
    grants::{
        evaluation::{Decision, Terms},
        index::{self, GrantIndex, is_cross_namespace},
    },
    issuance::{
        action::Action,
        desired::{self, Desired},
        execute::{self, ApplyContext},
        observe::{self, ObserveContext},
        observed::Observed,
        plan::{self, Plan, conditions_after_issue},
        self_signed,
        signing_key_cache::SigningKeyCache,
    },
    pki::{certificate::Certificate, inspect},
    runtime::{
        events::Events,
        reconcile::{ConcurrencyLimit, Error},
        status_writer,
        watch::{Cached, Watch},
    },
    status::{Acceptance, Refused, StepCondition, StepStatus},
    telemetry::{
        heartbeat::{self, Heartbeat},
        logging,
        metrics::{self, Metrics},
    },
    trust::active_trust::{ActiveTrust, Trust},
};

/// Maximum number of concurrent ClientCertificate reconciles.
pub const AT_ONCE: usize = 32;
/// Maximum number of reconciles that kube starts. Reconciles beyond [`AT_ONCE`] wait for a permit, in order.
/// Further certificates wait in kube's scheduler, which keeps no order and needs half a kilobyte less for
/// each: so many certificates wait only after a bulk change.
const WAITING: u16 = 512;
/// Delay of the next reconcile while the watch cache is behind.
pub(crate) const SOON: Duration = Duration::from_millis(50);
/// Delay after a first failure. Each further failure doubles the delay, up to [`LAST_RETRY`].
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Minimum delay of a timed requeue.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Delay between two reconciles of a renewal that is due and has to wait.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);
/// Maximum time that a reconcile waits for the watch cache to show the status that the previous reconcile
/// wrote.
pub(crate) const LATE_WATCH: Duration = Duration::from_secs(5);
/// Age from which the cache contains all certificates with the same creationTimestamp.
const SETTLED: SignedDuration = SignedDuration::from_secs(3);
/// Time after a start in which the domains have their first reconcile. Until then the operator does not know
/// their trust, and does not write that into the status of each of their certificates.
pub(crate) const FIRST_RECONCILES: Duration = Duration::from_secs(10);

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
    wrote_secret: Option<String>,
}

pub struct Watches {
    pub certificates: Watch<Cached<ClientCertificate>>,
    pub domains: Watch<Cached<MtlsDomain>>,
    pub secrets: Watch<PartialObjectMeta<Secret>>,
    pub grants: Watch<Cached<ClientGrant>>,
    pub namespaces: Watch<PartialObjectMeta<Namespace>>,
    /// Domains whose trust has changed.
    pub active_trust: UnboundedReceiver<DomainKey>,
}

/// Runs the controller until `stop`, and finishes running reconciles first.
pub async fn run(ctx: Arc<Ctx>, watches: Watches, stop: CancellationToken) {
    let (by_domain, by_conflict, by_secret, by_trust) = (ctx.clone(), ctx.clone(), ctx.clone(), ctx.clone());
    let (by_grant, by_namespace) = (ctx.clone(), ctx.clone());
    let deletions = watches
        .certificates
        .subscribe()
        .take_until(stop.clone().cancelled_owned());
    let deletions = deletions.for_each(|c| tell_of_deletion(c, &ctx));
    let trusts = watches
        .active_trust
        .flat_map(move |key| stream::iter(of_domain(&by_trust, &key)));
    let (used, heartbeat) = (ctx.clone(), ctx.heartbeat.clone());
    heartbeat.record(metrics::Controller::Certificate);
    // The mapper of shared slots gets its certificates from this stream too: a subscriber of its own would
    // keep the state of each of thousands of certificates a second time.
    let (share_slots, sharing) = unbounded();
    let certificates = watches
        .certificates
        .subscribe_when(change_predicate)
        .inspect(move |c| {
            index_secrets(c, &used);
            let _ = share_slots.unbounded_send(c.clone());
        });
    let controller = Controller::for_shared_stream(certificates, ctx.certificates.clone())
        .with_config(Config::default().concurrency(WAITING))
        .watches_shared_stream(
            watches.domains.subscribe_when(|d| {
                d.0.as_ref()
                    .ok()
                    .map(|d| (d.metadata.generation, d.metadata.deletion_timestamp.is_some()))
            }),
            move |d| of_domain(&by_domain, &(d.namespace().unwrap_or_default(), d.name_any())),
        )
        // The deletion of a certificate may free a subject.
        .watches_shared_stream(watches.certificates.subscribe(), move |c| {
            conflicting(&c, &by_conflict)
        })
        .reconcile_on(sharing_slots(sharing, ctx.clone()))
        .watches_shared_stream(watches.grants.subscribe_when(index::change_predicate), move |g| {
            of_grant(&g, &by_grant)
        })
        .watches_shared_stream(
            watches.namespaces.subscribe_when(|n| n.labels().clone()),
            move |n| of_namespace(&n.name_any(), &by_namespace),
        )
        .watches_shared_stream(watches.secrets.subscribe(), move |secret| {
            touched_by(&by_secret, &secret)
        })
        .reconcile_on(trusts)
        .reconcile_on(when_due(ctx.clone()))
        .reconcile_on(heartbeat::ticks())
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, failed, ctx.clone())
        .for_each(async |_| heartbeat.record(metrics::Controller::Certificate));
    tokio::join!(controller, deletions, async {
        stop.cancelled().await;
        ctx.concurrency.close();
    });
    heartbeat.end(metrics::Controller::Certificate);
}

/// Updates the index before the reconcile, so that the controller misses no later change of a Secret.
fn index_secrets(c: &Cached<ClientCertificate>, ctx: &Ctx) {
    let Ok(cert) = &c.0 else { return };
    if is_there(c, ctx) {
        ctx.secret_index.add(cert)
    } else {
        ctx.secret_index.remove(cert)
    }
}

/// Publishes an Event about the copies of a deleted certificate that the domain still accepts. The object has
/// no finalizer and no longer exists, so that only this Event reports them.
pub(crate) async fn tell_of_deletion(c: Arc<Cached<ClientCertificate>>, ctx: &Ctx) {
    let Ok(cert) = &c.0 else { return };
    if is_there(&c, ctx) {
        return;
    }
    ctx.states
        .lock()
        .expect("no holder of the lock panics")
        .remove(&cert.uid().unwrap_or_default());
    ctx.due_queue.remove(&cert.uid().unwrap_or_default());
    ctx.grant_index.forget(cert);
    if let Some(note) = report::after_deletion(cert, Timestamp::now()) {
        ctx.events
            .publish(&cert.object_ref(&()), Notice::StillAccepted, "Delete", &note)
            .await;
    }
}

pub(crate) fn failed(object: Arc<Cached<ClientCertificate>>, error: &Error, ctx: Arc<Ctx>) -> Next {
    tracing::warn!(
        object = %ObjectRef::from_obj(&*object),
        error = %logging::chain(error),
        "reconcile failed"
    );
    if error.is_final() {
        Next::await_change()
    } else {
        Next::requeue(ctx.retry(&object.uid().unwrap_or_default()))
    }
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

    fn is_worth_keeping(&self, now: Instant) -> bool {
        let wrote_lately = self
            .wrote_over
            .as_ref()
            .is_some_and(|(_, at)| now.duration_since(*at) <= LATE_WATCH);
        wrote_lately || self.is_new || self.failures > 0
    }
}

impl Ctx {
    fn update_state<T>(&self, uid: &str, change: impl FnOnce(&mut ReconcileState) -> T) -> T {
        change(
            self.states
                .lock()
                .expect("no holder of the lock panics")
                .entry(uid.to_owned())
                .or_default(),
        )
    }

    fn retry(&self, uid: &str) -> Duration {
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
    fn is_behind(&self, cert: &ClientCertificate) -> bool {
        let mut state = self.states.lock().expect("no holder of the lock panics");
        let known = cert.uid().and_then(|uid| state.get_mut(&uid));
        known.is_some_and(|m| m.is_behind(cert.metadata.resource_version.as_ref(), Instant::now()))
    }

    /// Drops the entries of old writes, which the watch cache has shown long since.
    pub(crate) fn forget_old_writes(&self) {
        let mut state = self.states.lock().expect("no holder of the lock panics");
        state.retain(|_, m| m.is_worth_keeping(Instant::now()));
        state.shrink_to_fit();
    }

    /// Resets the failures of a certificate. Adds no entry: the map has no entries for the thousands of
    /// certificates without a failure.
    fn succeeded(&self, uid: &str) {
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
    fn requeue_at(&self, uid: &str, at: Option<Timestamp>, now: Timestamp) -> Next {
        let near = at.filter(|at| !self.due_queue.put(uid, *at, now));
        let wait = |at: Timestamp| {
            Duration::try_from(at.duration_since(now))
                .unwrap_or_default()
                .max(SHORTEST_WAIT)
        };
        near.map_or_else(Next::await_change, |at| Next::requeue(wait(at)))
    }

    async fn write(
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
pub(crate) fn retry_after(failures: u32) -> Duration {
    FIRST_RETRY
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LAST_RETRY)
}

/// True when the Secret `is_there`, in the version that this process `wrote` last.
pub(crate) fn is_own_write(is_there: bool, wrote: Option<&String>, version: Option<&String>) -> bool {
    is_there && wrote.is_some() && wrote == version
}

async fn reconcile(object: Arc<Cached<ClientCertificate>>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let Some(_permit) = ctx.concurrency.acquire().await else {
        return Ok(Next::await_change());
    };
    // The object may have changed, or been deleted, while this reconcile waited for its permit.
    let Some(object) = ctx.certificates.get(&ObjectRef::from_obj(&*object)) else {
        return Ok(Next::await_change());
    };
    let started = Instant::now();
    let result =
        crate::runtime::reconcile::with_deadline(&object, |cert| reconcile_certificate(cert, &ctx)).await;
    ctx.metrics
        .reconciled(metrics::Controller::Certificate, &result, started.elapsed());
    result
}

pub(crate) async fn reconcile_certificate(cert: &ClientCertificate, ctx: &Ctx) -> Result<Next, Error> {
    let start = start(cert, || ctx.is_behind(cert));
    match start {
        Start::Nothing => return Ok(Next::await_change()),
        Start::AwaitCache => return Ok(Next::requeue(SOON)),
        Start::Suspend | Start::Go => {}
    }
    let now = Timestamp::now();
    let generation = cert.metadata.generation.unwrap_or_default();
    let old = cert.status.clone().unwrap_or_default();
    let say = async |acceptance: &Acceptance, step_conditions: &[StepCondition], leaf: Option<Leaf<'_>>| {
        ctx.write(
            cert,
            &old,
            &report::report(&old, generation, acceptance, step_conditions, leaf, now),
        )
        .await
    };
    if start == Start::Suspend {
        say(&Acceptance::Suspended, &[], None).await?;
        return Ok(Next::await_change());
    }
    let terms = match admission(cert, || ctx.grant_index.decide(cert, now)) {
        Admission::Refused(refused) => {
            say(&refused, &[], None).await?;
            return Ok(Next::await_change());
        }
        Admission::Unclear(unclear) => {
            say(&unclear, &[], None).await?;
            return Ok(Next::requeue(ctx.retry(&cert.uid().unwrap_or_default())));
        }
        Admission::Allowed(terms) => terms,
    };
    if let Some(wait) = unsettled(cert, terms.as_ref(), now) {
        return Ok(Next::requeue(wait));
    }
    let accepted = match &terms {
        Some(terms) => Acceptance::Granted(terms.grant.clone()),
        None => Acceptance::Accepted,
    };
    let key = object_id::domain_key(cert);
    let domain = ctx
        .domains
        .get(&ObjectRef::new(&key.1).within(&key.0))
        .and_then(|d| d.0.clone().ok());
    let domain = domain.filter(|_| may_know_domain(cert, terms.as_ref()));
    let max = domain
        .as_ref()
        .and_then(|d| d.spec.clients.as_ref())
        .and_then(|c| c.max_duration.as_ref())
        .map(length);
    let d = match desired::desired(cert, max, terms.as_ref()) {
        Ok(desired) => desired,
        Err(refused) => {
            say(&not_served(refused), &[], None).await?;
            return Ok(Next::await_change());
        }
    };
    if awaits_domain(
        domain.is_some(),
        ctx.active_trust.is_known(&d.domain),
        ctx.started.elapsed(),
    ) {
        return Ok(Next::requeue(FIRST_RECONCILES)); // or after the domain's first reconcile
    }
    let trust = ctx.active_trust.trust(&d.domain);
    if let Some(Refused { reason, message }) = subject_in_use(cert, &d, trust.as_ref(), ctx) {
        say(
            &Acceptance::Refused {
                reason,
                message,
                stalled: false,
            },
            &[],
            None,
        )
        .await?;
        return Ok(Next::await_change());
    }
    let last_revision = old.revision.unwrap_or_default();
    let observe_context = ObserveContext {
        client: &ctx.client,
        secrets: &ctx.secrets,
        signing_keys: &ctx.signing_keys,
    };
    let observed = observe::observe(&d, domain.as_ref(), trust, last_revision, &observe_context).await?;
    let plan = plan::plan(&d, &observed, ctx.propagation, now);
    let apply_context = ApplyContext {
        cert,
        d: &d,
        password: observed.password.as_ref().and_then(|p| p.as_ref().ok()),
        client: &ctx.client,
    };
    let uid = cert.uid().unwrap_or_default();
    let done = match apply(&apply_context, &plan, &observed, now).await {
        // Another writer wrote the Secret first: reconcile again with the written Secret.
        Err(execute::Error::Kubernetes(error)) if error.is_conflict() => {
            return Ok(Next::requeue(ctx.retry(&uid)));
        }
        done => done,
    };
    if let (Ok(_), Some(Action::Stage { revision: 2.. }), true) = (&done, &plan.action, d.self_signed) {
        let note = "the subject of the next certificate has another serialNumber (2.5.4.5), since API \
                    Gateway takes a subject only once: back ends should match the CN";
        ctx.events
            .publish(&cert.object_ref(&()), Notice::SubjectChanges, "Renew", note)
            .await;
    }
    match done {
        // The next reconcile reports that the staged certificate waits for the truststore, or sends the
        // request with the staged key.
        Ok(Outcome::Done) if matches!(plan.action, Some(Action::Stage { .. })) => {
            Ok(Next::requeue(Duration::ZERO))
        }
        Ok(Outcome::Issued {
            leaf,
            revision,
            version,
        }) => {
            ctx.update_state(&uid, |m| m.wrote_secret = version);
            let renewal = inspect::renewal_time(&leaf, d.renew_before);
            let step_conditions = conditions_after_issue(&d, observed.trust.as_ref(), &leaf);
            let secret = d.secret_name.as_str();
            say(
                &accepted,
                &step_conditions,
                Some(Leaf {
                    certificate: &leaf,
                    renewal,
                    revision,
                    secret,
                }),
            )
            .await?;
            if let Some(note) = report::after_renewal(&old, &leaf) {
                ctx.events
                    .publish(&cert.object_ref(&()), Notice::Renewed, "Renew", &note)
                    .await;
            }
            ctx.succeeded(&uid);
            Ok(ctx.requeue_at(&uid, next_reconcile(Some(renewal), &terms, now), now))
        }
        Ok(outcome @ (Outcome::Done | Outcome::Pending)) => {
            let (step_conditions, next) = match outcome {
                Outcome::Pending => (
                    pending(plan.step_conditions, plan.leaf.as_ref()),
                    Some(now + plan::ASK_AGAIN),
                ),
                _ => (plan.step_conditions, plan.requeue_at.or(plan.renewal)),
            };
            let revision = observed.revision();
            let leaf = plan.leaf.as_ref().zip(plan.renewal);
            let secret = d.secret_name.as_str();
            let leaf = leaf.map(|(certificate, renewal)| Leaf {
                certificate,
                renewal,
                revision,
                secret,
            });
            say(&accepted, &step_conditions, leaf).await?;
            ctx.succeeded(&uid);
            Ok(ctx.requeue_at(&uid, next_reconcile(next, &terms, now), now))
        }
        Err(error) => {
            let message = describe(&error, &d);
            tracing::warn!(certificate = %cert.name_any(), error = %logging::chain(&error), "not issued");
            let failed = |step_condition: StepCondition| match step_condition.type_ {
                ConditionType::Issued => {
                    plan::after_failure(step_condition, plan.leaf.as_ref(), error.is_final(), &message)
                }
                _ => step_condition,
            };
            let step_conditions: Vec<_> = plan.step_conditions.into_iter().map(failed).collect();
            say(&accepted, &step_conditions, None).await?;
            // Publishes an Event for each new failure message. A failed renewal does not change Ready, so no
            // other Event reports it.
            if !issued_says(&old, &message) {
                ctx.events
                    .publish(&cert.object_ref(&()), Notice::NotIssued, "Issue", &message)
                    .await;
            }
            Ok(Next::requeue(ctx.retry(&uid)))
        }
    }
}

/// Decision of a reconcile before it checks the grants.
#[derive(Debug, PartialEq)]
pub(crate) enum Start {
    /// The certificate is being deleted: its owner reference decides about the Secret.
    Nothing,
    /// The watch cache does not show the last written status yet.
    AwaitCache,
    Suspend,
    Go,
}

pub(crate) fn start(cert: &ClientCertificate, is_behind: impl FnOnce() -> bool) -> Start {
    if cert.metadata.deletion_timestamp.is_some() {
        Start::Nothing
    } else if is_behind() {
        Start::AwaitCache
    } else if cert.spec.suspend {
        Start::Suspend
    } else {
        Start::Go
    }
}

/// Permission to issue a certificate.
#[derive(Debug, PartialEq)]
pub(crate) enum Admission {
    /// Allowed with the terms of a grant; `None` when the certificate needs no grant, or requests nothing
    /// that an authority could certify.
    Allowed(Option<Terms>),
    Refused(Acceptance),
    Unclear(Acceptance),
}

/// Returns the admission of a certificate. `decision`: result of the grants for a certificate in another
/// namespace than its domain's.
pub(crate) fn admission(cert: &ClientCertificate, decision: impl FnOnce() -> Option<Decision>) -> Admission {
    match is_cross_namespace(cert).then(decision).flatten() {
        Some(Decision::Denied(message)) => {
            let message = format!(
                "{message}. Until then the operator issues and renews nothing; an existing Secret stays"
            );
            Admission::Refused(Acceptance::Refused {
                reason: Reason::RefNotPermitted,
                message,
                stalled: false,
            })
        }
        Some(Decision::Unknown(message)) => {
            let (type_, status, reason) = (
                ConditionType::Accepted,
                StepStatus::Unreachable,
                Reason::Unreachable,
            );
            Admission::Unclear(Acceptance::Unclear(StepCondition {
                type_,
                status,
                reason,
                message,
            }))
        }
        Some(Decision::Allowed(terms)) => Admission::Allowed(Some(terms)),
        None => Admission::Allowed(None),
    }
}

/// Returns the delay until the operator can allocate the slots of a grant (`spec.maxCertificates`). Slots go
/// to the oldest certificates, but creationTimestamp counts whole seconds: a second certificate with the same
/// timestamp may still arrive. `None`: no delay.
pub(crate) fn unsettled(cert: &ClientCertificate, terms: Option<&Terms>, now: Timestamp) -> Option<Duration> {
    terms.filter(|terms| terms.is_counted)?;
    let settled = cert.creation_timestamp().map_or(now, |t| t.0 + SETTLED);
    let wait = || {
        Duration::try_from(settled.duration_since(now))
            .unwrap_or(SOON)
            .max(SOON)
    };
    (now < settled).then(wait)
}

/// True when the status of a certificate may contain information about its domain. A certificate in another
/// namespace needs a grant for that. A certificate that requests nothing an authority could certify has no
/// grant.
pub(crate) fn may_know_domain(cert: &ClientCertificate, terms: Option<&Terms>) -> bool {
    terms.is_some() || !is_cross_namespace(cert)
}

/// Acceptance of a refused spec. Only a refused duration may become valid without a change of the spec: when
/// the domain's limit changes.
pub(crate) fn not_served(Refused { reason, message }: Refused) -> Acceptance {
    Acceptance::Refused {
        reason,
        message,
        stalled: reason != Reason::DurationNotAllowed,
    }
}

/// True while a certificate waits for its domain's first reconcile after a start: until then the operator
/// does not know the domain's trust.
pub(crate) fn awaits_domain(is_there: bool, is_known: bool, since_start: Duration) -> bool {
    is_there && !is_known && since_start < FIRST_RECONCILES
}

/// Returns the refusal of a self-signed certificate when another certificate or an authority has the same
/// subject in the truststore, now or after the next change.
fn subject_in_use(
    cert: &ClientCertificate,
    d: &Desired,
    trust: Option<&Trust>,
    ctx: &Ctx,
) -> Option<Refused> {
    if !d.self_signed {
        return None; // before the scan of thousands of certificates
    }
    let (state, now) = (ctx.certificates.state(), Timestamp::now());
    let all = state.iter().filter_map(|c| c.0.as_ref().ok());
    contested(cert, d, trust, all, |c| ctx.grant_index.decide(c, now))
}

/// True for a certificate with a claim on its subject. A certificate in another namespace has a claim only
/// with a grant, or while the grants are unknown.
pub(crate) fn has_claim(cert: &ClientCertificate, decision: impl FnOnce() -> Option<Decision>) -> bool {
    !is_cross_namespace(cert) || matches!(decision(), Some(Decision::Allowed(_) | Decision::Unknown(_)))
}

/// Returns the refusal of a self-signed certificate when an older certificate of `all` with a claim on its
/// subject, or an authority, has the subject. `decision`: result of the grants for a certificate.
pub(crate) fn contested<'a>(
    cert: &ClientCertificate,
    d: &Desired,
    trust: Option<&Trust>,
    all: impl Iterator<Item = &'a ClientCertificate>,
    decision: impl Fn(&ClientCertificate) -> Option<Decision>,
) -> Option<Refused> {
    let all = all.filter(|c| conflicts::wants_the_same(cert, c) && has_claim(c, || decision(c)));
    // The message does not name a certificate of another namespace.
    let winner = conflicts::winner(cert, all).map(|c| match c.namespace() == cert.namespace() {
        true => format!("ClientCertificate {}", c.name_any()),
        false => "ClientCertificate of another namespace".into(),
    });
    let authority = self_signed::holder(d, trust).map(|name| match is_cross_namespace(cert) {
        true => "domain".into(),
        false => format!("authority {name}"),
    });
    let message = format!(
        "spec.subject: the {} has this subject in the truststore, and API Gateway takes a subject only once; \
         choose another",
        winner.or(authority)?
    );
    Some(Refused {
        reason: Reason::SubjectInUse,
        message,
    })
}

/// Outcome of the plan's action.
enum Outcome {
    /// The Secret has a new leaf.
    Issued {
        leaf: Certificate,
        revision: i64,
        /// Version of the written Secret; `None` when another reconcile of the Secret follows.
        version: Option<String>,
    },
    /// The issuer has not answered the request.
    Pending,
    Done,
}

/// Applies the plan's action.
async fn apply(
    apply_context: &ApplyContext<'_>,
    plan: &Plan,
    o: &Observed,
    now: Timestamp,
) -> Result<Outcome, execute::Error> {
    let (secret, next) = (o.secret.as_ref(), o.next.as_ref());
    match (&plan.action, &o.issuer) {
        (Some(Action::Issue(violation)), Ok(Some(issuer))) => {
            let revision = o.revision() + 1;
            tracing::debug!(certificate = %apply_context.d.name, reason = ?violation.reason, "issuing");
            let known = plan::known_key(apply_context.d, o);
            let issued = execute::issue(apply_context, issuer, secret, known, revision, now).await?;
            let Some((leaf, version)) = issued else {
                return Ok(Outcome::Pending);
            };
            if let Some(next) = next {
                execute::unstage(apply_context, next).await?;
            }
            Ok(Outcome::Issued {
                leaf,
                revision,
                version,
            })
        }
        (Some(Action::Stage { revision }), _) => {
            let known = plan::known_key(apply_context.d, o);
            execute::stage(apply_context, known, next, *revision, now).await?;
            Ok(Outcome::Done)
        }
        (Some(Action::Swap), _) => match next.and_then(|next| Some((next, next.leaf()?))) {
            Some((next, leaf)) => {
                execute::swap(apply_context, secret, next).await?;
                execute::unstage(apply_context, next).await?;
                Ok(Outcome::Issued {
                    leaf,
                    revision: next.revision,
                    version: None,
                })
            }
            None => Ok(Outcome::Done), // the plan swaps in only an existing Secret
        },
        (Some(Action::Unstage), _) => {
            if let Some(next) = next {
                execute::unstage(apply_context, next).await?;
            }
            Ok(Outcome::Done)
        }
        (Some(Action::Complete), _) => {
            if let Some(secret) = secret {
                execute::complete(apply_context, secret).await?;
            }
            Ok(Outcome::Done)
        }
        _ => Ok(Outcome::Done),
    }
}

/// Returns the step conditions while the issuer has not answered.
fn pending(step_conditions: Vec<StepCondition>, leaf: Option<&Certificate>) -> Vec<StepCondition> {
    let shown = |step_condition: StepCondition| match step_condition.type_ {
        ConditionType::Issued => plan::while_pending(step_condition, leaf),
        _ => step_condition,
    };
    step_conditions.into_iter().map(shown).collect()
}

fn issued_says(status: &ClientCertificateStatus, message: &str) -> bool {
    let issued = status
        .conditions
        .iter()
        .find(|c| c.type_ == ConditionType::Issued.as_str());
    issued.is_some_and(|c| c.message.contains(message))
}

fn describe(error: &execute::Error, d: &Desired) -> String {
    use std::error::Error as _;
    let cause = error.source().map(|s| format!(": {s}")).unwrap_or_default();
    format!("cannot issue into the Secret {}: {error}{cause}", d.secret_name)
}

/// Returns the time of the next reconcile: the next step, or the end of the grant, which the status must
/// report, when that is earlier.
pub(crate) fn next_reconcile(
    next: Option<Timestamp>,
    terms: &Option<Terms>,
    now: Timestamp,
) -> Option<Timestamp> {
    // An overdue step waits for another event, which causes a reconcile of its own.
    let next = next.map(|next| if next <= now { now + OVERDUE } else { next });
    let end = terms.as_ref().and_then(|terms| terms.not_after);
    [next, end].into_iter().flatten().min()
}

#[cfg(test)]
pub(crate) mod tests;
