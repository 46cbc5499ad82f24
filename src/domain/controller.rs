//! Looks at an `MtlsDomain` when something it depends on changes, and decides what for: to serve it, to
//! delete it, or only to say why not. Writes its status and Events.
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
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::Action as Next,
        reflector::{ObjectRef, Store},
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    access_request,
    active_trust::{ActiveTrust, DomainKey},
    bypass::Bypasses,
    cache::{ReadCache, RefreshIntervals},
    clients::{SelfSigned, TRUSTED_BY},
    conflicts,
    contention::Contention,
    credentials::ServiceAccount,
    deletion,
    desired::{self, Clients, Desired, OperatorConfig, Placement, Refused},
    mappers::{
        certificate_predicate, change_predicate, changes, conflicting, of_certificate, of_namespace, readers,
        referring, trusting,
    },
    observe::{self, Versions},
    permission::{Permission, before_aws},
    report,
    request_limiter::RequestLimiter,
    serving,
};
use crate::{
    api::{
        ClientCertificate, ClientGrantSpec, Issuance, ManagementPolicy, MtlsDomain, MtlsDomainStatus,
        conditions::Reason,
        events::{EventReason, Notice},
    },
    aws::{
        errors::{self, Kind},
        gate::Gate,
        session::{Access, Session, Sessions},
    },
    certificate,
    conditions::{Acceptance, Transition, transitions},
    grant::{
        evaluation::{Decision, Terms},
        grant_index::{self, GrantIndex},
    },
    k8s::{
        events::Events,
        finalizer,
        reconcile::{self, ConcurrencyLimit, Error},
        status,
        watch::Watch,
    },
    policy::Policy,
    probe::{https::EndpointProbe, public_dns::PublicDns},
    telemetry::{
        heartbeat::{self, Heartbeat},
        logging,
        metrics::{self, Metrics},
        policy_file::InForce,
    },
};

/// Domains that are looked at at the same time. AWS's quota sets the pace; this only keeps memory in bounds.
pub const AT_ONCE: usize = 32;
/// While AWS is working on something: requeue first after this, then twice as long each time.
const FIRST_POLL: Duration = Duration::from_millis(100);
/// ... but never longer than this.
const LAST_POLL: Duration = Duration::from_secs(15);
/// ... and than this while somebody else has to make something first.
const LAST_SELDOM_POLL: Duration = Duration::from_secs(300);

pub type Guard = DeserializeGuard<MtlsDomain>;

/// What all reconciles share.
pub struct Ctx {
    pub client: Client,
    pub cluster_id: String,
    pub truststore_bucket: Option<String>,
    /// The namespaces that are watched; `None`: all.
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
    pub domains: Store<Guard>,
    pub certificates: Store<certificate::controller::Guard>,
    pub active_trust: Arc<ActiveTrust>,
    pub request_limiter: RequestLimiter,
    pub bypasses: Arc<Bypasses>,
    pub policy: InForce,
    /// Empty as long as nothing needs their labels.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    pub grant_index: Arc<GrantIndex>,
    pub concurrency: ConcurrencyLimit,
    pub states: Mutex<HashMap<String, ReconcileState>>,
}

/// What is kept of one object between two reconciles. All of it may be lost: it saves calls and decides
/// nothing.
#[derive(Clone, Default)]
pub struct ReconcileState {
    /// Looks in a row that found AWS still working.
    pub(super) polls: u32,
    /// Our last change of the records, until it is in sync.
    pub(super) change: Option<String>,
    pub(super) versions: Arc<Versions>,
    /// Of which generation everything was as it should be at a reconcile, and when that began: nothing was
    /// written since.
    pub(super) in_sync_since: Option<(i64, Instant)>,
    pub(super) corrections: Contention,
    /// It has not been Ready yet, as far as we have seen it from its beginning.
    is_new: bool,
    /// The status that was written last and the one it replaced: the cache may still show that one.
    written: Option<(MtlsDomainStatus, Option<MtlsDomainStatus>)>,
}

/// The kinds that a domain depends on.
pub struct Watches {
    pub domains: Watch<Guard>,
    pub certificates: Watch<certificate::controller::Guard>,
    pub secrets: Watch<PartialObjectMeta<Secret>>,
    pub config_maps: Watch<PartialObjectMeta<ConfigMap>>,
    pub namespaces: Watch<PartialObjectMeta<Namespace>>,
    pub grants: Watch<grant_index::Guard>,
}

/// Runs until `stop`; reconciles that are under way are finished.
pub async fn run(ctx: Arc<Ctx>, watches: &Watches, stop: CancellationToken) {
    let state = ctx.domains.state();
    let queued = state
        .iter()
        .filter_map(|d| d.0.as_ref().ok())
        .filter(|d| d.status.as_ref().is_some_and(serving::is_queued));
    ctx.gate.quota.restore_waiters(queued.map(queue_key));
    let granted = ctx.gate.quota.granted().filter_map(|object| async move {
        let (namespace, name) = object.split_once('/')?;
        Some(ObjectRef::<Guard>::new(name).within(namespace))
    });
    let heartbeat = ctx.heartbeat.clone();
    heartbeat.record(metrics::Controller::Domain);
    let bypasses = ctx.bypasses.clone().changes();
    let bypasses = bypasses.map(|(namespace, name)| ObjectRef::<Guard>::new(&name).within(&namespace));
    let (all, for_secrets, for_maps) = (ctx.domains.clone(), ctx.domains.clone(), ctx.domains.clone());
    let (for_certificates, for_namespaces, for_cross_namespace) = (ctx.clone(), ctx.clone(), ctx.clone());
    let ending = ctx.clone();
    let controller = Controller::for_shared_stream(
        watches.domains.subscribe_when(change_predicate),
        ctx.domains.clone(),
    )
    // One that goes, or comes, may settle a dispute about a name.
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
                || desired::authorities(d)
                    .is_ok_and(|all| all.iter().any(|a| a.source.secret() == Some(&s.name_any())))
        });
        touched.extend(
            trusted_by
                .iter()
                .flat_map(|d| trusting(&s.namespace().unwrap_or_default(), d, &for_cross_namespace)),
        );
        touched
    })
    .watches_shared_stream(
        watches.grants.subscribe_when(grant_index::change_predicate),
        |g| {
            let grant = g.0.as_ref().ok()?;
            let name = &grant.spec.domain_ref.name;
            Some(ObjectRef::new(name).within(&grant.namespace().unwrap_or_default()))
        },
    )
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

fn failed(object: Arc<Guard>, error: &Error, ctx: Arc<Ctx>) -> Next {
    tracing::warn!(object = %ObjectRef::from_obj(&*object), error = %logging::chain(error), "reconcile failed");
    if error.is_final() {
        Next::await_change()
    } else {
        Next::requeue(ctx.poll(&object.uid().unwrap_or_default()))
    }
}

/// As tickets name it.
fn queue_key(domain: &MtlsDomain) -> String {
    format!("{}/{}", domain.namespace().unwrap_or_default(), domain.name_any())
}

async fn reconcile(object: Arc<Guard>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let Some(_permit) = ctx.concurrency.acquire().await else {
        return Ok(Next::await_change());
    };
    // It may have changed while others were looked at. Of one that is gone there is nothing more to do.
    let Some(object) = ctx.domains.get(&ObjectRef::from_obj(&*object)) else {
        return Ok(Next::await_change());
    };
    let started = Instant::now();
    let result = reconcile::with_deadline(&object, |domain| reconcile_domain(domain, &ctx)).await;
    if let (Ok(_), Ok(domain)) = (&result, &object.0) {
        ctx.gate.quota.reconciled(&queue_key(domain), started);
    }
    ctx.metrics
        .reconciled(metrics::Controller::Domain, &result, started.elapsed());
    result
}

impl Ctx {
    pub(super) fn update_state<T>(&self, uid: &str, change: impl FnOnce(&mut ReconcileState) -> T) -> T {
        change(
            self.states
                .lock()
                .expect("nobody panics while holding it")
                .entry(uid.to_owned())
                .or_default(),
        )
    }

    /// Nothing is known of it any more, and its place in the queue is free.
    pub(super) fn forget(&self, domain: &MtlsDomain) {
        let key = (
            domain.namespace().expect("MtlsDomain is namespaced"),
            domain.name_any(),
        );
        self.active_trust.set(&key, None, None, Timestamp::now());
        self.bypasses.forget(&key);
        self.states
            .lock()
            .expect("nobody panics while holding it")
            .remove(&domain.uid().unwrap_or_default());
        self.gate.quota.withdraw(&queue_key(domain));
    }

    /// How long until the next reconcile while AWS is working.
    pub(super) fn poll(&self, uid: &str) -> Duration {
        self.update_state(uid, |m| {
            m.polls += 1;
            poll_after(m.polls)
        })
    }

    /// How long until the next reconcile while somebody has to make something first that nothing here hears
    /// of.
    pub(super) fn poll_seldom(&self, uid: &str) -> Duration {
        self.update_state(uid, |m| {
            m.polls += 1;
            FIRST_POLL
                .saturating_mul(1 << (m.polls - 1).min(12))
                .min(LAST_SELDOM_POLL)
        })
    }

    /// The next reconcile when there is nothing to be done before something changes.
    pub(super) fn settled(&self, uid: &str) -> Next {
        self.update_state(uid, |m| m.polls = 0);
        Next::requeue(self.refresh.of(uid).medium)
    }

    /// The next reconcile when all is well: soon, because it is likely to cost no call of AWS.
    pub(super) fn resync_soon(&self, uid: &str) -> Next {
        self.update_state(uid, |m| m.polls = 0);
        Next::requeue(self.refresh.of(uid).short)
    }

    /// The labels of a namespace; `None`: not known.
    pub(super) fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.namespaces
            .get(&ObjectRef::new(namespace))
            .map(|found| found.labels().clone())
    }

    /// The status that the next one is computed from: the last one written, unless somebody else has changed
    /// it since.
    fn last_status(&self, domain: &MtlsDomain) -> MtlsDomainStatus {
        let written = self.update_state(&domain.uid().unwrap_or_default(), |m| m.written.clone());
        current(written, domain.status.as_ref())
    }

    pub(super) async fn write(
        &self,
        domain: &MtlsDomain,
        old: &MtlsDomainStatus,
        new: &MtlsDomainStatus,
    ) -> Result<(), Error> {
        let waiting = report::waiting_deletion(domain, new, Timestamp::now());
        let (new, waits) = (waiting.as_ref().unwrap_or(new), waiting.is_some());
        if status::write(&self.client, domain, old, new).await? {
            self.update_state(&domain.uid().unwrap_or_default(), |m| {
                m.written = Some((new.clone(), domain.status.clone()));
                let (old, new) = (&old.conditions, &new.conditions);
                self.metrics
                    .transitioned(metrics::Controller::Domain, domain, old, new, &mut m.is_new);
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

    /// What the ClientCertificates of this domain ask of it.
    fn clients(
        &self,
        domain: &MtlsDomain,
        theirs: &[Arc<certificate::controller::Guard>],
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

    /// Its own namespace's certificates and those of others that are granted, and again the ones of others,
    /// with what that is about.
    fn certificates_of(
        &self,
        domain: &MtlsDomain,
        now: Timestamp,
    ) -> (Vec<Arc<certificate::controller::Guard>>, Vec<CrossNamespace>) {
        let key = (domain.namespace().unwrap_or_default(), domain.name_any());
        let cross_namespace = self.grant_index.of_domain(&key, now);
        (
            certificates_for(&key, self.certificates.state(), &cross_namespace),
            cross_namespace,
        )
    }
}

/// Delay before the next reconcile after so many in a row that found AWS still working.
fn poll_after(polls: u32) -> Duration {
    FIRST_POLL
        .saturating_mul(1 << polls.saturating_sub(1).min(10))
        .min(LAST_POLL)
}

/// The status that holds: the one `written` last while the cache still shows the one that it replaced, else
/// the one `shown`.
fn current(
    written: Option<(MtlsDomainStatus, Option<MtlsDomainStatus>)>,
    shown: Option<&MtlsDomainStatus>,
) -> MtlsDomainStatus {
    match written {
        Some((written, before)) if before.as_ref() == shown => written,
        _ => shown.cloned().unwrap_or_default(),
    }
}

/// The reason of the Event about a condition that has turned; `None`: it is worth none.
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

/// Requests of the ClientCertificates of `domain`. `theirs` are its own namespace's and those of others that
/// may be granted, `cross_namespace` are those of others, and `all` are those of every domain; `admitting`
/// gives the grants for one of another namespace.
fn clients_of(
    domain: &MtlsDomain,
    theirs: &[Arc<certificate::controller::Guard>],
    cross_namespace: &[CrossNamespace],
    all: &[Arc<certificate::controller::Guard>],
    watched: Option<BTreeSet<String>>,
    admitting: &dyn Fn(&ClientCertificate) -> Option<Vec<ClientGrantSpec>>,
) -> Clients {
    let max = domain
        .spec
        .clients
        .as_ref()
        .and_then(|c| c.max_duration.as_ref())
        .map(desired::length);
    let trusted = |c: &ClientCertificate, terms: Option<&Terms>| {
        SelfSigned::of(c, certificate::desired::at_most(c, max, terms), admitting(c))
    };
    let theirs = || theirs.iter().filter_map(|c| c.0.as_ref().ok());
    let issued = theirs().filter(|c| c.spec.issuance == Issuance::Authority);
    let lives = issued
        .filter_map(|c| c.spec.duration.as_ref())
        .map(desired::length);
    let own = theirs()
        .filter(|c| !grant_index::is_cross_namespace(c))
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
    // One that cannot be read may be one of ours: what it has keeps its trust.
    let unreadable = all
        .iter()
        .filter(|c| c.0.is_err())
        .map(|c| SelfSigned::unclear(&**c));
    Clients {
        longest: lives.max().unwrap_or(desired::DEFAULT_LEAF),
        self_signed: own.chain(granted).chain(unreadable).collect(),
        watched,
    }
}

/// The certificates for a domain: those of its own namespace, and those of others unless they are certain not
/// to be granted.
fn certificates_for(
    domain: &DomainKey,
    all: Vec<Arc<certificate::controller::Guard>>,
    cross_namespace: &[CrossNamespace],
) -> Vec<Arc<certificate::controller::Guard>> {
    let of_it = |c: &ClientCertificate| {
        certificate::desired::domain_key(c) == *domain && !grant_index::is_cross_namespace(c)
    };
    let own = all.into_iter().filter(|c| c.0.as_ref().is_ok_and(of_it));
    let granted = cross_namespace
        .iter()
        .filter(|(_, decision)| !matches!(decision, Decision::Denied(_)))
        .map(|(c, _)| c.clone());
    own.chain(granted).collect()
}

/// A certificate of another namespace, and whether it is granted.
type CrossNamespace = (Arc<certificate::controller::Guard>, Decision);

async fn reconcile_domain(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    let (uid, old, now) = (
        domain.uid().unwrap_or_default(),
        ctx.last_status(domain),
        Timestamp::now(),
    );
    let generation = domain.metadata.generation.unwrap_or_default();
    let key = (domain.namespace().unwrap_or_default(), domain.name_any());
    match start(domain) {
        Start::Forget => {
            ctx.forget(domain);
            return Ok(Next::await_change());
        }
        Start::Abandon => {
            let note = format!(
                "nothing was deleted in AWS, as {} asks for; there may be left: {}",
                finalizer::ABANDON,
                deletion::left(domain)
            );
            ctx.events
                .publish(&domain.object_ref(&()), Notice::Abandoned, "Delete", &note)
                .await;
            return deletion::release(domain, ctx).await;
        }
        Start::Suspend => {
            ctx.bypasses.forget(&key);
            let new = report::with_conditions(&old, generation, &Acceptance::Suspended, &[], now);
            ctx.write(domain, &old, &new).await?;
            return Ok(Next::await_change());
        }
        Start::Leave => return deletion::leave(domain, ctx).await,
        Start::CallAws => {}
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
                None => report::blind(&old, generation, &observe::unseen(&error), now),
            };
            ctx.write(domain, &old, &new).await?;
            return Ok(Next::requeue(ctx.poll(&uid)));
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
    match course(domain, &placement) {
        Course::Refuse(moved) => {
            let new = report::with_conditions(&old, generation, &moved, &[], now);
            ctx.write(domain, &old, &new).await?;
            return Ok(ctx.settled(&uid));
        }
        Course::Delete => {
            return deletion::delete(domain, &placement, &permission, &session, &old, ctx, now).await;
        }
        Course::Serve => {}
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
    Ok(ctx.settled(&uid))
}

/// Course of a reconcile before it calls AWS, as the object's own metadata and spec say.
#[derive(Debug, PartialEq)]
enum Start {
    /// The object is deleted and has nothing in AWS: only the memory of it goes.
    Forget,
    /// The object is deleted, and its owner has let go of what it has in AWS.
    Abandon,
    /// Everything stays as it is.
    Suspend,
    /// The object is deleted and was only observed: nothing in AWS is touched.
    Leave,
    /// AWS is called, as far as the operator's policy allows.
    CallAws,
}

fn start(domain: &MtlsDomain) -> Start {
    let deleting = domain.metadata.deletion_timestamp.is_some();
    if deleting && !finalizer::is_held(domain) {
        Start::Forget
    } else if deleting && finalizer::is_abandoned(domain) {
        Start::Abandon
    } else if domain.spec.suspend {
        Start::Suspend
    } else if deleting && domain.spec.management_policy == ManagementPolicy::Observe {
        Start::Leave
    } else {
        Start::CallAws
    }
}

/// Course of a reconcile once the account and Region of the domain are known and allowed.
#[derive(Debug, PartialEq)]
enum Course {
    /// The object's resources are in another place: none is changed in either.
    Refuse(Acceptance),
    Delete,
    Serve,
}

fn course(domain: &MtlsDomain, placement: &Placement) -> Course {
    match moved(domain, placement) {
        Some(moved) => Course::Refuse(moved),
        None if domain.metadata.deletion_timestamp.is_some() => Course::Delete,
        None => Course::Serve,
    }
}

/// Returns the desired state, or the refusal: another object has the domain name (`claimed`), or the spec is
/// invalid.
fn admit(
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

/// Resources of this object stand in another account or Region.
fn moved(domain: &MtlsDomain, placement: &Placement) -> Option<Acceptance> {
    let before = finalizer::placement(domain).filter(|before| *before != placement.location())?;
    Some(Acceptance::Refused {
        reason: Reason::HomeChanged,
        message: format!(
            "the resources of this object are in {before}, but account and Region are {} now; nothing is \
             done in either. Go back to {before}, or \
             delete this object there first",
            placement.location()
        ),
        stalled: true,
    })
}

/// The session of this domain, and the Region of those that name none: empty when the operator has none of
/// its own, and they are not served.
async fn sessions(
    domain: &MtlsDomain,
    policy: Option<&Policy>,
    ctx: &Ctx,
) -> Result<(Session, String), errors::Error> {
    let session = ctx.sessions.get(&desired::access(domain, policy)).await?;
    if domain.spec.aws.as_ref().is_none_or(|aws| aws.region.is_none()) {
        let region = session.region.clone();
        return Ok((session, region));
    }
    let own = ctx.sessions.get(&Access::default()).await.map(|own| own.region);
    Ok((session, own_region(own)?))
}

/// The Region of the domains that name none; empty when the operator has none of its own.
fn own_region(own: Result<String, errors::Error>) -> Result<String, errors::Error> {
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

/// Refusal of `domain` because an older one of `all` has its domain name. One that the policy certainly
/// denies has no claim on it.
fn contested<'a>(
    domain: &MtlsDomain,
    all: impl Iterator<Item = &'a MtlsDomain>,
    is_refused: impl Fn(&MtlsDomain) -> bool,
    own_region: &str,
) -> Option<Acceptance> {
    let all = all.filter(|d| d.spec.domain_name == domain.spec.domain_name && !is_refused(d));
    let winner = conflicts::winner(domain, all, own_region)?;
    // Whose name it is in another namespace is not this namespace's to know.
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
pub(in crate::domain) mod tests;
