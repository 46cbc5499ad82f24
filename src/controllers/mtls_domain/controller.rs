//! Controller of `MtlsDomain`: reconciles a domain when the domain or one of its dependencies changes.
//! Serves, deletes or refuses the domain, and writes its status and Events.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        Controller,
        controller::Action as Next,
        reflector::{ObjectRef, Store},
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    access_request, conflicts,
    credentials::ServiceAccount,
    deletion,
    mappers::{
        certificate_predicate, change_predicate, changes, conflicting, of_certificate, of_namespace, readers,
        referring, trusting,
    },
    permission::{Permission, before_aws},
    report, serving,
};

use crate::{
    api::{
        ClientCertificate, ClientGrant, ClientGrantSpec, Issuance, ManagementPolicy, MtlsDomain,
        MtlsDomainStatus,
        conditions::Reason,
        durations,
        events::{EventReason, Notice},
        object_id::{self, DomainKey},
    },
    aws::{
        call_guard::Gate,
        errors::{self, Kind},
        session::{Access, Session, Sessions},
    },
    background::bypass_scan::Bypasses,
    dataplane::api_gateway::contention::Contention,
    grants::{
        evaluation::{Decision, Terms},
        index::{self, GrantIndex},
    },
    model::{
        authorities,
        desired::{self, Clients, Desired, SelfSigned},
        placement::{self, OperatorConfig, Placement},
    },
    observation::{
        read_cache::{ReadCache, RefreshIntervals},
        seen,
    },
    policy::{Policy, follow::InForce},
    probe::{https::EndpointProbe, public_dns::PublicDns},
    runtime::{
        events::Events,
        finalizer,
        reconcile::{ConcurrencyLimit, Error},
        status_writer,
        watch::{Cached, Watch},
    },
    server_certificate::request_limiter::RequestLimiter,
    status::{Acceptance, Refused, Transition, conditions::transitions},
    telemetry::{
        heartbeat::{self, Heartbeat},
        logging,
        metrics::{self, Metrics},
    },
    trust::{active_trust::ActiveTrust, observe::Versions, self_signed::TRUSTED_BY},
};

/// Maximum number of concurrent MtlsDomain reconciles. AWS quotas set the pace; this limit only bounds
/// memory.
pub const AT_ONCE: usize = 32;
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
    pub active_trust: Arc<ActiveTrust>,
    pub request_limiter: RequestLimiter,
    pub bypasses: Arc<Bypasses>,
    pub policy: InForce,
    /// Empty until a policy or a grant selects namespaces by label.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    pub grant_index: Arc<GrantIndex>,
    pub concurrency: ConcurrencyLimit,
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
    /// Generation that a live pass found in sync, and the start of that pass. The operator has written
    /// nothing since.
    pub(crate) in_sync_since: Option<(i64, Instant)>,
    pub(crate) corrections: Contention,
    /// True for an object that the operator has observed since its creation, and that has not been Ready yet.
    is_new: bool,
    /// The status that the operator wrote last, and the status that it replaced. The watch cache may still
    /// show the replaced status.
    written: Option<(MtlsDomainStatus, Option<MtlsDomainStatus>)>,
}

/// Watches of the kinds that a domain depends on.
pub struct Watches {
    pub domains: Watch<Cached<MtlsDomain>>,
    pub certificates: Watch<Cached<ClientCertificate>>,
    pub secrets: Watch<PartialObjectMeta<Secret>>,
    pub config_maps: Watch<PartialObjectMeta<ConfigMap>>,
    pub namespaces: Watch<PartialObjectMeta<Namespace>>,
    pub grants: Watch<Cached<ClientGrant>>,
}

/// Runs until `stop`, then finishes the reconciles in progress.
pub async fn run(ctx: Arc<Ctx>, watches: &Watches, stop: CancellationToken) {
    let state = ctx.domains.state();
    let queued = state
        .iter()
        .filter_map(|d| d.0.as_ref().ok())
        .filter(|d| d.status.as_ref().is_some_and(serving::is_queued));
    ctx.gate.quota.restore_waiters(queued.map(queue_key));
    let granted = ctx.gate.quota.granted().filter_map(|object| async move {
        let (namespace, name) = object.split_once('/')?;
        Some(ObjectRef::<Cached<MtlsDomain>>::new(name).within(namespace))
    });
    let heartbeat = ctx.heartbeat.clone();
    heartbeat.record(metrics::Controller::Domain);
    let bypasses = ctx.bypasses.clone().changes();
    let bypasses =
        bypasses.map(|(namespace, name)| ObjectRef::<Cached<MtlsDomain>>::new(&name).within(&namespace));
    let (all, for_secrets, for_maps) = (ctx.domains.clone(), ctx.domains.clone(), ctx.domains.clone());
    let (for_certificates, for_namespaces, for_cross_namespace) = (ctx.clone(), ctx.clone(), ctx.clone());
    let ending = ctx.clone();
    let controller = Controller::for_shared_stream(
        watches.domains.subscribe_when(change_predicate),
        ctx.domains.clone(),
    )
    // The creation or deletion of a domain may change the winner of a conflict about its domain name.
    .watches_shared_stream(
        watches
            .domains
            .subscribe_when(|d| d.0.is_ok().then(|| d.meta().deletion_timestamp.is_some())),
        move |changed| conflicting(&changed, &all),
    )
    .watches_shared_stream(
        watches.certificates.subscribe_when(certificate_predicate),
        move |c| of_certificate(&c, &for_certificates),
    )
    .watches_shared_stream(watches.secrets.subscribe(), move |s| {
        let trusted_by = s.labels().get(TRUSTED_BY).cloned();
        let mut touched = referring(&for_secrets, s.namespace(), |d| {
            trusted_by.as_ref() == Some(&d.name_any())
                || authorities::authorities(d)
                    .is_ok_and(|all| all.iter().any(|a| a.source.secret() == Some(&s.name_any())))
        });
        touched.extend(
            trusted_by
                .iter()
                .flat_map(|d| trusting(&s.namespace().unwrap_or_default(), d, &for_cross_namespace)),
        );
        touched
    })
    .watches_shared_stream(watches.grants.subscribe_when(index::change_predicate), |g| {
        let grant = g.0.as_ref().ok()?;
        let name = &grant.spec.domain_ref.name;
        Some(ObjectRef::new(name).within(&grant.namespace().unwrap_or_default()))
    })
    .watches_shared_stream(
        watches.namespaces.subscribe_when(|n| n.labels().clone()),
        move |n| of_namespace(&n.name_any(), &for_namespaces),
    )
    .reconcile_on(readers(&watches.config_maps, for_maps))
    .reconcile_on(granted)
    .reconcile_on(bypasses)
    .reconcile_on(heartbeat::ticks())
    .reconcile_all_on(changes(ctx.policy.clone()))
    .graceful_shutdown_on(stop.clone().cancelled_owned())
    .run(reconcile, failed, ctx)
    .for_each(async |_| heartbeat.record(metrics::Controller::Domain));
    tokio::join!(controller, async {
        stop.cancelled().await;
        ending.concurrency.close();
    });
    heartbeat.end(metrics::Controller::Domain);
}

/// Logs the error. Requeues with backoff, unless only a change of the object can fix the error.
pub(crate) fn failed(object: Arc<Cached<MtlsDomain>>, error: &Error, ctx: Arc<Ctx>) -> Next {
    tracing::warn!(
        object = %ObjectRef::from_obj(&*object),
        error = %logging::chain(error),
        "reconcile failed"
    );
    if error.is_final() {
        Next::await_change()
    } else {
        Next::requeue(ctx.backoff(&object.uid().unwrap_or_default()))
    }
}

/// Returns the key of a domain in the quota queue, `namespace/name` (see `Ticket::object`).
fn queue_key(domain: &MtlsDomain) -> String {
    format!("{}/{}", domain.namespace().unwrap_or_default(), domain.name_any())
}

async fn reconcile(object: Arc<Cached<MtlsDomain>>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let Some(_permit) = ctx.concurrency.acquire().await else {
        return Ok(Next::await_change());
    };
    // The object may have changed while it waited for the permit. A deleted object needs no reconcile.
    let Some(object) = ctx.domains.get(&ObjectRef::from_obj(&*object)) else {
        return Ok(Next::await_change());
    };
    let started = Instant::now();
    let result =
        crate::runtime::reconcile::with_deadline(&object, |domain| reconcile_domain(domain, &ctx)).await;
    if let (Ok(_), Ok(domain)) = (&result, &object.0) {
        ctx.gate.quota.reconciled(&queue_key(domain), started);
    }
    ctx.metrics.reconciled(
        metrics::Controller::Domain,
        result.as_ref().err().map(Error::category),
        started.elapsed(),
    );
    result
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
        let key = (
            domain.namespace().expect("MtlsDomain is namespaced"),
            domain.name_any(),
        );
        self.active_trust.set(&key, None, None, Timestamp::now());
        self.bypasses.forget(&key);
        self.states
            .lock()
            .expect("no holder of the lock panics")
            .remove(&domain.uid().unwrap_or_default());
        self.gate.quota.withdraw(&queue_key(domain));
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

    /// Returns the labels of a namespace; `None`: not known.
    pub(crate) fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.namespaces
            .get(&ObjectRef::new(namespace))
            .map(|found| found.labels().clone())
    }

    /// Returns the status to compute the next status from: the one that the operator wrote last, unless
    /// another writer has changed it since.
    fn last_status(&self, domain: &MtlsDomain) -> MtlsDomainStatus {
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
            deletion::tell_of_waiting(domain, old, new, self).await;
        }
        Ok(())
    }

    /// Returns the requirements that the ClientCertificates of this domain place on its truststore.
    fn clients(
        &self,
        domain: &MtlsDomain,
        theirs: &[Arc<Cached<ClientCertificate>>],
        cross_namespace: &[CrossNamespace],
    ) -> Clients {
        clients_of(
            domain,
            theirs,
            cross_namespace,
            &self.certificates.state(),
            self.watched.clone(),
            &|c| self.grant_index.admitting(c),
        )
    }

    /// Returns the certificates for this domain (see [`certificates_for`]), and all cross-namespace
    /// certificates for it, each with its grant decision.
    fn certificates_of(
        &self,
        domain: &MtlsDomain,
        now: Timestamp,
    ) -> (Vec<Arc<Cached<ClientCertificate>>>, Vec<CrossNamespace>) {
        let key = (domain.namespace().unwrap_or_default(), domain.name_any());
        let cross_namespace = self.grant_index.of_domain(&key, now);
        (
            certificates_for(&key, self.certificates.state(), &cross_namespace),
            cross_namespace,
        )
    }
}

/// Returns the delay before the next reconcile after that many consecutive backoff attempts.
pub(crate) fn backoff_after(backoff_attempts: u32) -> Duration {
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
pub(crate) fn event_of(turned: &Transition) -> Option<EventReason> {
    let is_told = match (turned.type_.as_str(), turned.status.as_str()) {
        ("Stalled", _) => false, // Accepted says why
        ("Ready", "True") | ("BypassDetected", _) => true,
        (_, status) => status == "False",
    };
    Reason::parse(&turned.reason)
        .filter(|_| is_told)
        .and_then(EventReason::of_condition)
}

/// Returns the requirements that ClientCertificates place on `domain`. `theirs` are the certificates of its
/// own namespace and the cross-namespace ones that may be granted, `cross_namespace` are all cross-namespace
/// ones, and `all` are the certificates for every domain. `admitting` returns the grants that admit a
/// cross-namespace certificate.
pub(crate) fn clients_of(
    domain: &MtlsDomain,
    theirs: &[Arc<Cached<ClientCertificate>>],
    cross_namespace: &[CrossNamespace],
    all: &[Arc<Cached<ClientCertificate>>],
    watched: Option<BTreeSet<String>>,
    admitting: &dyn Fn(&ClientCertificate) -> Option<Vec<ClientGrantSpec>>,
) -> Clients {
    let max = domain
        .spec
        .clients
        .as_ref()
        .and_then(|c| c.max_duration.as_ref())
        .map(durations::length);
    let trusted = |c: &ClientCertificate, terms: Option<&Terms>| {
        SelfSigned::of(c, crate::issuance::desired::at_most(c, max, terms), admitting(c))
    };
    let theirs = || theirs.iter().filter_map(|c| c.0.as_ref().ok());
    let issued = theirs().filter(|c| c.spec.issuance == Issuance::Authority);
    let lifetimes = issued
        .filter_map(|c| c.spec.duration.as_ref())
        .map(durations::length);
    let own = theirs()
        .filter(|c| !index::is_cross_namespace(c))
        .filter_map(|c| trusted(c, None));
    let granted = cross_namespace
        .iter()
        .filter_map(|(c, decision)| match (c.0.as_ref().ok()?, decision) {
            (c, Decision::Allowed(terms)) => trusted(c, Some(terms)),
            (c, Decision::Unknown(_)) if c.spec.issuance == Issuance::SelfSigned => {
                Some(SelfSigned::unclear(c))
            }
            _ => None,
        });
    // An unreadable certificate may be for this domain: its entries stay trusted.
    let unreadable = all
        .iter()
        .filter(|c| c.0.is_err())
        .map(|c| SelfSigned::unclear(&**c));
    Clients {
        longest: lifetimes.max().unwrap_or(durations::DEFAULT_LEAF),
        self_signed: own.chain(granted).chain(unreadable).collect(),
        watched,
    }
}

/// Returns the certificates for a domain: those of its own namespace, and the cross-namespace ones whose
/// grant is not certainly denied.
pub(crate) fn certificates_for(
    domain: &DomainKey,
    all: Vec<Arc<Cached<ClientCertificate>>>,
    cross_namespace: &[CrossNamespace],
) -> Vec<Arc<Cached<ClientCertificate>>> {
    let of_it = |c: &ClientCertificate| object_id::domain_key(c) == *domain && !index::is_cross_namespace(c);
    let own = all.into_iter().filter(|c| c.0.as_ref().is_ok_and(of_it));
    let granted = cross_namespace
        .iter()
        .filter(|(_, decision)| !matches!(decision, Decision::Denied(_)))
        .map(|(c, _)| c.clone());
    own.chain(granted).collect()
}

/// A cross-namespace certificate, and its grant decision.
type CrossNamespace = (Arc<Cached<ClientCertificate>>, Decision);

/// Reconciles a domain: decides its course, checks the operator's policy, and then deletes or serves the
/// domain.
pub(crate) async fn reconcile_domain(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    let (uid, old, now) = (
        domain.uid().unwrap_or_default(),
        ctx.last_status(domain),
        Timestamp::now(),
    );
    let generation = domain.metadata.generation.unwrap_or_default();
    let key = (domain.namespace().unwrap_or_default(), domain.name_any());
    match precheck(domain) {
        Precheck::Forget => {
            ctx.forget(domain);
            return Ok(Next::await_change());
        }
        Precheck::AbandonResources => {
            let note = format!(
                "the operator deleted nothing in AWS, as the annotation {} requests; these resources may \
                 remain: {}",
                finalizer::ABANDON,
                deletion::left(domain)
            );
            ctx.events
                .publish(&domain.object_ref(&()), Notice::Abandoned, "Delete", &note)
                .await;
            return deletion::release(domain, ctx).await;
        }
        Precheck::Suspended => {
            ctx.bypasses.forget(&key);
            let new = report::with_conditions(&old, generation, &Acceptance::Suspended, &[], now);
            ctx.write(domain, &old, &new).await?;
            return Ok(Next::await_change());
        }
        Precheck::ReleaseObserved => return deletion::leave(domain, ctx).await,
        Precheck::Continue => {}
    }
    let deleting = domain.metadata.deletion_timestamp.is_some();
    let permission = Permission::of(domain, &old, ctx, now);
    let named = access_request::of(domain, &before_aws(domain, &ctx.cluster_id), deleting);
    if let Some(next) = permission.ends(&named, None).await? {
        return Ok(next);
    }
    let (session, own_region) = match sessions(domain, permission.policy(), ctx).await {
        Ok(found) => found,
        Err(error) => {
            let new = match ctx.service_account.remedy(&error).await {
                Some(remedy) => report::without_credentials(&old, generation, &remedy, now),
                None => report::blind(&old, generation, &seen::unseen(&error), now),
            };
            ctx.write(domain, &old, &new).await?;
            return Ok(Next::requeue(ctx.backoff(&uid)));
        }
    };
    let operator_config = OperatorConfig {
        cluster_id: &ctx.cluster_id,
        account: &session.account,
        region: &session.region,
        truststore_bucket: ctx.truststore_bucket.as_deref(),
    };
    let placement = Placement::of(domain, &operator_config);
    if let Some(next) = permission
        .ends(&access_request::of(domain, &placement, deleting), None)
        .await?
    {
        return Ok(next);
    }
    match disposition(domain, &placement) {
        Disposition::Refuse(moved) => {
            let new = report::with_conditions(&old, generation, &moved, &[], now);
            ctx.write(domain, &old, &new).await?;
            return Ok(ctx.resync_later(&uid));
        }
        Disposition::Delete => {
            return deletion::delete(domain, &placement, &permission, &session, &old, ctx, now).await;
        }
        Disposition::Serve => {}
    }
    let (theirs, cross_namespace) = ctx.certificates_of(domain, now);
    let wanted = || {
        desired::desired(
            domain,
            &operator_config,
            ctx.clients(domain, &theirs, &cross_namespace),
        )
    };
    let refused = match admit(claim(domain, &permission, ctx, &own_region), wanted) {
        Ok(desired) => return serving::serve(&desired, &theirs, &permission, &session).await,
        Err(refused) => refused,
    };
    ctx.bypasses.forget(&key);
    let new = report::with_conditions(&old, generation, &refused, &[], now);
    ctx.write(domain, &old, &new).await?;
    Ok(ctx.resync_later(&uid))
}

/// Decision of a reconcile before the first AWS call, from metadata and spec only.
#[derive(Debug, PartialEq)]
pub(crate) enum Precheck {
    /// The object is deleted and has nothing in AWS: only its in-memory state is dropped.
    Forget,
    /// The object is deleted and has the annotation `mtls-operator.io/abandon`: the operator removes the
    /// finalizer without an AWS call.
    AbandonResources,
    /// The operator changes nothing.
    Suspended,
    /// The object is deleted and was only observed: the operator changes nothing in AWS.
    ReleaseObserved,
    /// The operator calls AWS, as far as its policy allows.
    Continue,
}

pub(crate) fn precheck(domain: &MtlsDomain) -> Precheck {
    let deleting = domain.metadata.deletion_timestamp.is_some();
    if deleting && !finalizer::is_held(domain) {
        Precheck::Forget
    } else if deleting && finalizer::is_abandoned(domain) {
        Precheck::AbandonResources
    } else if domain.spec.suspend {
        Precheck::Suspended
    } else if deleting && domain.spec.management_policy == ManagementPolicy::Observe {
        Precheck::ReleaseObserved
    } else {
        Precheck::Continue
    }
}

/// Decision of a reconcile once the policy allows the domain's account and Region.
#[derive(Debug, PartialEq)]
pub(crate) enum Disposition {
    /// The object's resources are in another account or Region: the operator changes nothing in either.
    Refuse(Acceptance),
    Delete,
    Serve,
}

pub(crate) fn disposition(domain: &MtlsDomain, placement: &Placement) -> Disposition {
    match moved(domain, placement) {
        Some(moved) => Disposition::Refuse(moved),
        None if domain.metadata.deletion_timestamp.is_some() => Disposition::Delete,
        None => Disposition::Serve,
    }
}

/// Returns the desired state, or a refusal: another object has the domain name (`claimed`), or the spec is
/// invalid.
pub(crate) fn admit(
    claimed: Option<Acceptance>,
    wanted: impl FnOnce() -> Result<Desired, Refused>,
) -> Result<Desired, Acceptance> {
    match claimed {
        Some(claimed) => Err(claimed),
        None => wanted().map_err(|Refused { reason, message }| Acceptance::Refused {
            reason,
            message,
            stalled: true,
        }),
    }
}

/// Returns a refusal when the resources of this object are in another account or Region than its placement.
fn moved(domain: &MtlsDomain, placement: &Placement) -> Option<Acceptance> {
    let before = finalizer::placement(domain).filter(|before| *before != placement.location())?;
    Some(Acceptance::Refused {
        reason: Reason::HomeChanged,
        message: format!(
            "the resources of this object are in {before}, but its account and Region are now {}; the \
             operator changes nothing in either. Set account and Region back to {before}, or \
             delete this object there first",
            placement.location()
        ),
        stalled: true,
    })
}

/// Returns the AWS session of this domain, and the Region of domains that specify none. That Region is empty
/// when the operator has no Region of its own: the operator does not serve those domains then.
pub(crate) async fn sessions(
    domain: &MtlsDomain,
    policy: Option<&Policy>,
    ctx: &Ctx,
) -> Result<(Session, String), errors::Error> {
    let session = ctx.sessions.get(&placement::access(domain, policy)).await?;
    if domain.spec.aws.as_ref().is_none_or(|aws| aws.region.is_none()) {
        let region = session.region.clone();
        return Ok((session, region));
    }
    let own = ctx.sessions.get(&Access::default()).await.map(|own| own.region);
    Ok((session, own_region(own)?))
}

/// Returns the Region of domains that specify none; empty when the operator has no Region of its own.
pub(crate) fn own_region(own: Result<String, errors::Error>) -> Result<String, errors::Error> {
    match own {
        Err(error) if error.kind == Kind::Invalid => Ok(String::new()),
        own => own,
    }
}

fn claim(domain: &MtlsDomain, permission: &Permission, ctx: &Ctx, own_region: &str) -> Option<Acceptance> {
    let state = ctx.domains.state();
    let all = state.iter().filter_map(|d| d.0.as_ref().ok());
    contested(domain, all, |other| permission.is_refused(other), own_region)
}

/// Returns a refusal of `domain` when an older domain of `all` has its domain name. A domain that the policy
/// certainly denies has no claim on the name.
pub(crate) fn contested<'a>(
    domain: &MtlsDomain,
    all: impl Iterator<Item = &'a MtlsDomain>,
    is_refused: impl Fn(&MtlsDomain) -> bool,
    own_region: &str,
) -> Option<Acceptance> {
    let all = all.filter(|d| d.spec.domain_name == domain.spec.domain_name && !is_refused(d));
    let winner = conflicts::winner(domain, all, own_region)?;
    // A namespace must not learn which other namespace has the domain name.
    let who = if winner.namespace() == domain.namespace() {
        format!("the older MtlsDomain {}", winner.name_any())
    } else {
        "an older MtlsDomain".into()
    };
    Some(Acceptance::Refused {
        reason: Reason::DomainNameClaimed,
        message: format!("spec.domainName: {who} has {} already", domain.spec.domain_name),
        stalled: false,
    })
}

#[cfg(test)]
pub(crate) mod tests;
