//! Runs the rooms of an `MtlsDomain` one after the other, wakes up when something it depends on changes, and says when to look again.
//! The only place of this kind where Kubernetes is written to, but for what `execute` does.
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Client, Resource, ResourceExt,
    api::PartialObjectMeta,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{Action as Next, Config},
        reflector::{ObjectRef, Store},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    allowance::Allowance,
    bypass::Bypasses,
    claims,
    clients::{self, SelfSigned, TRUSTED_BY},
    desired::{self, AuthorityWish, Clients, Desired, Home, Refused, Surroundings},
    execute::{self, AUTHORITY_LABEL, DOMAIN_LABEL, Hands},
    observe::{self, Eyes, Versions},
    observed::{Leaf, LeafIssuer, Observed, Pinned},
    plan::{self, Action, Judged, Plan, Step, Verdict},
    report::{self, Notice},
    served::Served,
    teardown,
};
use crate::{
    api::{
        ClientCertificate, Issuance, ManagementPolicy, MtlsDomain, MtlsDomainStatus,
        conditions::{ConditionType, Reason},
    },
    aws::{
        errors::{self, Kind},
        gate::Gate,
        gateway::DomainStatus,
        quota::Class,
        session::{Access, Session, Sessions},
    },
    certificate,
    cluster::{
        apply,
        events::Events,
        finalizer,
        look::{self, Error},
        status,
        watch::Watch,
    },
    conditions::{Acceptance, transitions},
    ops::{
        logging,
        metrics::{Metrics, OK},
    },
    outside::{probe::EndpointProbe, public_dns::PublicDns},
};

/// Domains that are looked at at the same time. AWS's quota sets the pace; this only keeps memory in bounds.
const CONCURRENCY: u16 = 32;
/// While AWS is working on something: first look again after this, then twice as long each time.
const FIRST_POLL: Duration = Duration::from_millis(100);
/// ... but never longer than this.
const LAST_POLL: Duration = Duration::from_secs(15);

pub type Guard = DeserializeGuard<MtlsDomain>;

/// What all looks share.
pub struct Ctx {
    pub client: Client,
    pub cluster_id: String,
    pub truststore_bucket: Option<String>,
    pub drift_interval: Duration,
    pub sessions: Sessions,
    pub gate: Gate,
    pub probe: EndpointProbe,
    pub public_dns: PublicDns,
    pub events: Events,
    pub metrics: Metrics,
    pub domains: Store<Guard>,
    pub certificates: Store<certificate::controller::Guard>,
    pub served: Arc<Served>,
    pub allowance: Allowance,
    pub bypasses: Arc<Bypasses>,
    pub memory: Mutex<HashMap<String, Memory>>,
}

/// What is kept of one object between two looks. All of it may be lost: it saves calls and decides nothing.
#[derive(Clone, Default)]
pub struct Memory {
    /// Looks in a row that found AWS still working.
    polls: u32,
    /// Our last change of the records, until it is in sync.
    change: Option<String>,
    versions: Arc<Versions>,
    /// The status that was written last and the one it replaced: the cache may still show that one.
    written: Option<(MtlsDomainStatus, Option<MtlsDomainStatus>)>,
}

/// The kinds that a domain depends on.
pub struct Watches {
    pub domains: Watch<Guard>,
    pub certificates: Watch<certificate::controller::Guard>,
    pub secrets: Watch<PartialObjectMeta<Secret>>,
    pub config_maps: Watch<PartialObjectMeta<ConfigMap>>,
}

/// Runs until `stop`; looks that are under way are finished.
pub async fn run(ctx: Arc<Ctx>, watches: &Watches, stop: CancellationToken) {
    let turns = ctx.gate.quota.turns().filter_map(|object| async move {
        let (namespace, name) = object.split_once('/')?;
        Some(ObjectRef::<Guard>::new(name).within(namespace))
    });
    let bypasses = ctx.bypasses.clone().changes();
    let bypasses = bypasses.map(|(namespace, name)| ObjectRef::<Guard>::new(&name).within(&namespace));
    let (all, for_secrets, for_maps) = (ctx.domains.clone(), ctx.domains.clone(), ctx.domains.clone());
    let for_certificates = ctx.clone();
    Controller::for_shared_stream(watches.domains.subscribe_when(worth_a_look), ctx.domains.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        // One that goes, or comes, may settle a dispute about a name.
        .watches_shared_stream(
            watches.domains.subscribe_when(|d| d.0.is_ok().then(|| d.meta().deletion_timestamp.clone())),
            move |changed| rivals(&changed, &all),
        )
        .watches_shared_stream(watches.certificates.subscribe_when(wanted_life), move |c| asked(&c, &for_certificates))
        .watches_shared_stream(watches.secrets.subscribe(), move |s| {
            let trusted_by = s.labels().get(TRUSTED_BY).cloned();
            referring(&for_secrets, s.namespace(), |d| {
                trusted_by.as_ref() == Some(&d.name_any())
                    || desired::authorities(d)
                        .is_ok_and(|all| all.iter().any(|a| a.source.secret() == Some(&s.name_any())))
            })
        })
        .reconcile_on(readers(&watches.config_maps, for_maps))
        .reconcile_on(turns)
        .reconcile_on(bypasses)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, failed, ctx)
        .for_each(async |_| ())
        .await;
}

/// What of a domain makes a look worth its calls: not our own writes of its status.
#[derive(PartialEq)]
struct Interest {
    generation: Option<i64>,
    deleting: bool,
    annotations: Vec<(String, String)>,
}

fn worth_a_look(d: &Guard) -> Option<Interest> {
    let meta = &d.0.as_ref().ok()?.metadata;
    let annotations = meta.annotations.clone().unwrap_or_default();
    Some(Interest {
        generation: meta.generation,
        deleting: meta.deletion_timestamp.is_some(),
        annotations: annotations.into_iter().filter(|(key, _)| key != finalizer::HOME).collect(),
    })
}

fn wanted_life(c: &certificate::controller::Guard) -> Option<(Option<SignedDuration>, bool)> {
    let c = c.0.as_ref().ok()?;
    Some((c.spec.duration.as_ref().map(desired::length), c.metadata.deletion_timestamp.is_some()))
}

/// The domain of a certificate that asks something of it: to trust the certificate itself, or longer leaves than it allows for. Any
/// other is issued without a call to AWS.
fn asked(c: &certificate::controller::Guard, ctx: &Ctx) -> Option<ObjectRef<Guard>> {
    let cert = c.0.as_ref().ok()?;
    let key = certificate::desired::domain_key(cert);
    let domain = ObjectRef::<Guard>::new(&key.1).within(&key.0);
    let max = ctx.domains.get(&domain).and_then(|d| d.0.as_ref().ok()?.spec.clients.clone()?.max_duration);
    let life = certificate::desired::duration(cert, max.as_ref().map(desired::length));
    let allowed = || ctx.served.trust(&key).is_some_and(|trust| trust.allows_everywhere(life));
    (cert.spec.issuance == Issuance::SelfSigned || !allowed()).then_some(domain)
}

fn rivals(changed: &Guard, all: &Store<Guard>) -> Vec<ObjectRef<Guard>> {
    let Ok(changed) = &changed.0 else { return vec![] };
    let same =
        |d: &MtlsDomain| d.spec.domain_name == changed.spec.domain_name && d.metadata.uid != changed.metadata.uid;
    let state = all.state();
    state.iter().filter(|d| d.0.as_ref().is_ok_and(same)).map(|d| ObjectRef::from_obj(&**d)).collect()
}

/// The domains that read these ConfigMaps, by name or by labels: by those that one has now, and by those that it had when it came by last.
fn readers(
    maps: &Watch<PartialObjectMeta<ConfigMap>>,
    domains: Store<Guard>,
) -> impl Stream<Item = ObjectRef<Guard>> + use<> {
    let there = maps.store();
    let mut last: HashMap<ObjectRef<_>, BTreeMap<String, String>> = HashMap::new();
    maps.subscribe().flat_map(move |map| {
        let (name, labels, key) = (map.name_any(), map.labels().clone(), ObjectRef::from_obj(&*map));
        let before = last.insert(key.clone(), labels.clone()).unwrap_or_default();
        if there.get(&key).is_none() {
            last.remove(&key);
        }
        let reads = |d: &MtlsDomain| {
            let by = |a: &AuthorityWish| {
                a.source.reads_config_map(&name, &labels) || a.source.reads_config_map(&name, &before)
            };
            desired::authorities(d).is_ok_and(|all| all.iter().any(by))
        };
        stream::iter(referring(&domains, map.namespace(), reads))
    })
}

fn referring(
    all: &Store<Guard>,
    namespace: Option<String>,
    refers: impl Fn(&MtlsDomain) -> bool,
) -> Vec<ObjectRef<Guard>> {
    let state = all.state();
    let there = state.iter().filter(|d| d.meta().namespace == namespace && d.0.as_ref().is_ok_and(&refers));
    there.map(|d| ObjectRef::from_obj(&**d)).collect()
}

fn failed(object: Arc<Guard>, error: &Error, ctx: Arc<Ctx>) -> Next {
    tracing::warn!(object = %ObjectRef::from_obj(&*object), error = %logging::chain(error), "look failed");
    if error.is_final() { Next::await_change() } else { Next::requeue(ctx.poll(&object.uid().unwrap_or_default())) }
}

async fn reconcile(object: Arc<Guard>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let started = std::time::Instant::now();
    let result = look::look(&object, |domain| look(domain, &ctx)).await;
    ctx.metrics.reconciled("MtlsDomain", result.as_ref().err().map_or(OK, Error::category), started.elapsed());
    result
}

impl Ctx {
    fn remember<T>(&self, uid: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.memory.lock().expect("nobody panics while holding it").entry(uid.to_owned()).or_default())
    }

    /// Nothing is known of it any more, and its place in the queue is free.
    fn forget(&self, domain: &MtlsDomain) {
        let key = (domain.namespace().expect("MtlsDomain is namespaced"), domain.name_any());
        self.served.set(&key, None, Timestamp::now());
        self.bypasses.forget(&key);
        self.memory.lock().expect("nobody panics while holding it").remove(&domain.uid().unwrap_or_default());
        self.gate.quota.withdraw(&format!("{}/{}", key.0, key.1));
    }

    /// How long until the next look while AWS is working.
    fn poll(&self, uid: &str) -> Duration {
        self.remember(uid, |m| {
            m.polls += 1;
            FIRST_POLL.saturating_mul(1 << (m.polls - 1).min(10)).min(LAST_POLL)
        })
    }

    fn settled(&self, uid: &str) -> Next {
        self.remember(uid, |m| m.polls = 0);
        Next::requeue(self.drift_interval)
    }

    /// The status that the next one is computed from: the last one written, unless somebody else has changed it since.
    fn last_status(&self, domain: &MtlsDomain) -> MtlsDomainStatus {
        let written = self.remember(&domain.uid().unwrap_or_default(), |m| m.written.clone());
        match written {
            Some((written, before)) if domain.status == before => written,
            _ => domain.status.clone().unwrap_or_default(),
        }
    }

    async fn write(&self, domain: &MtlsDomain, old: &MtlsDomainStatus, new: &MtlsDomainStatus) -> Result<(), Error> {
        if status::write(&self.client, domain, old, new).await? {
            self.remember(&domain.uid().unwrap_or_default(), |m| {
                m.written = Some((new.clone(), domain.status.clone()))
            });
        }
        for t in transitions(&old.conditions, &new.conditions) {
            let object = domain.object_ref(&());
            match (t.type_.as_str(), t.status.as_str()) {
                ("Ready", "True") => self.events.normal(&object, &t.reason, "Reconcile", &t.message).await,
                ("Stalled", _) => {}
                ("BypassDetected", _) => self.events.warning(&object, &t.reason, "Reconcile", &t.message).await,
                // As the spec wants it.
                (_, "False") if [Reason::KeptOpen, Reason::Observing].iter().any(|r| t.reason == r.as_str()) => {}
                (_, "False") => self.events.warning(&object, &t.reason, "Reconcile", &t.message).await,
                _ => {}
            }
        }
        Ok(())
    }

    /// What the ClientCertificates of this domain ask of it.
    fn clients(&self, domain: &MtlsDomain) -> Clients {
        let theirs = self.certificates_of(domain);
        let theirs = || theirs.iter().filter_map(|c| c.0.as_ref().ok());
        let issued = theirs().filter(|c| c.spec.issuance == Issuance::Authority);
        let lives = issued.filter_map(|c| c.spec.duration.as_ref()).map(desired::length);
        // One that cannot be read may be one of ours: what it has keeps its trust.
        let state = self.certificates.state();
        let unreadable = state
            .iter()
            .filter(|c| c.0.is_err() && c.namespace() == domain.namespace())
            .map(|c| SelfSigned { name: c.name_any(), entry: clients::entry_name(&**c), secrets: None });
        Clients {
            longest: lives.max().unwrap_or(desired::DEFAULT_LEAF),
            self_signed: theirs().filter_map(SelfSigned::of).chain(unreadable).collect(),
        }
    }

    fn certificates_of(&self, domain: &MtlsDomain) -> Vec<Arc<certificate::controller::Guard>> {
        let key = (domain.namespace().unwrap_or_default(), domain.name_any());
        let of_it = |c: &ClientCertificate| certificate::desired::domain_key(c) == key;
        self.certificates.state().into_iter().filter(|c| c.0.as_ref().is_ok_and(of_it)).collect()
    }
}

async fn look(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    let (uid, old, now) = (domain.uid().unwrap_or_default(), ctx.last_status(domain), Timestamp::now());
    let generation = domain.metadata.generation.unwrap_or_default();
    let deleting = domain.metadata.deletion_timestamp.is_some();
    if deleting && !finalizer::is_held(domain) {
        ctx.forget(domain);
        return Ok(Next::await_change());
    }
    if deleting && finalizer::is_abandoned(domain) {
        let note = format!(
            "nothing was deleted in AWS, as {} asks for; there may be left: {}",
            finalizer::ABANDON,
            left(domain)
        );
        ctx.events.warning(&domain.object_ref(&()), "Abandoned", "Delete", &note).await;
        return let_go(domain, ctx).await;
    }
    let key = (domain.namespace().unwrap_or_default(), domain.name_any());
    if domain.spec.suspend {
        ctx.bypasses.forget(&key);
        let new = report::with_conditions(&old, generation, &Acceptance::Suspended, &[], now);
        ctx.write(domain, &old, &new).await?;
        return Ok(Next::await_change());
    }
    let (session, own_region) = match sessions(domain, ctx).await {
        Ok(found) => found,
        Err(error) => {
            let new = report::blind(&old, generation, &observe::unseen(&error), now);
            ctx.write(domain, &old, &new).await?;
            return Ok(Next::requeue(ctx.poll(&uid)));
        }
    };
    let surroundings = Surroundings {
        cluster_id: &ctx.cluster_id,
        account: &session.account,
        region: &session.region,
        truststore_bucket: ctx.truststore_bucket.as_deref(),
    };
    let home = Home::of(domain, &surroundings);
    if let Some(moved) = moved(domain, &home) {
        let new = report::with_conditions(&old, generation, &moved, &[], now);
        ctx.write(domain, &old, &new).await?;
        return Ok(ctx.settled(&uid));
    }
    if deleting {
        return delete(domain, &home, &session, &old, ctx, now).await;
    }
    let refused = match claim(domain, ctx, &own_region) {
        Some(claimed) => claimed,
        None => match desired::desired(domain, &surroundings, ctx.clients(domain)) {
            Ok(desired) => return serve(domain, &desired, &session, &old, ctx, now).await,
            Err(Refused { reason, message }) => Acceptance::Refused { reason, message, stalled: true },
        },
    };
    ctx.bypasses.forget(&key);
    let new = report::with_conditions(&old, generation, &refused, &[], now);
    ctx.write(domain, &old, &new).await?;
    Ok(ctx.settled(&uid))
}

/// Resources of this object stand in another account or Region.
fn moved(domain: &MtlsDomain, home: &Home) -> Option<Acceptance> {
    let before = finalizer::home(domain).filter(|before| *before != home.place())?;
    Some(Acceptance::Refused {
        reason: Reason::HomeChanged,
        message: format!(
            "the resources of this object are in {before}, but account and Region are {} now; nothing is done in either. Go back to {before}, or \
             delete this object there first",
            home.place()
        ),
        stalled: true,
    })
}

/// The session of this domain, and the Region of those that name none: empty when the operator has none of its own, and they are not served.
async fn sessions(domain: &MtlsDomain, ctx: &Ctx) -> Result<(Session, String), errors::Error> {
    let session = ctx.sessions.get(&desired::access(domain)).await?;
    if domain.spec.aws.as_ref().is_none_or(|aws| aws.region.is_none()) {
        let region = session.region.clone();
        return Ok((session, region));
    }
    match ctx.sessions.get(&Access::default()).await {
        Ok(own) => Ok((session, own.region)),
        Err(error) if error.kind == Kind::Invalid => Ok((session, String::new())),
        Err(error) => Err(error),
    }
}

fn claim(domain: &MtlsDomain, ctx: &Ctx, own_region: &str) -> Option<Acceptance> {
    let state = ctx.domains.state();
    let all = state.iter().filter_map(|d| d.0.as_ref().ok());
    let older = claims::older(domain, all, own_region)?;
    // Whose name it is in another namespace is not this namespace's to know.
    let who = if older.namespace() == domain.namespace() {
        format!("the older MtlsDomain {}", older.name_any())
    } else {
        "an older MtlsDomain".into()
    };
    Some(Acceptance::Refused {
        reason: Reason::DomainNameClaimed,
        message: format!("spec.domainName: {who} has {} already", domain.spec.domain_name),
        stalled: false,
    })
}

async fn serve(
    domain: &MtlsDomain,
    d: &Desired,
    session: &Session,
    old: &MtlsDomainStatus,
    ctx: &Ctx,
    now: Timestamp,
) -> Result<Next, Error> {
    let uid = domain.uid().unwrap_or_default();
    let generation = domain.metadata.generation.unwrap_or_default();
    let observing = domain.spec.management_policy == ManagementPolicy::Observe;
    if !observing {
        // Before anything is written to AWS: that it is ours to clean up, and where.
        finalizer::hold(&ctx.client, domain, Some(&d.home.place())).await?;
    }
    let memory = ctx.remember(&uid, |m| m.clone());
    let eyes = Eyes {
        client: &ctx.client,
        probe: &ctx.probe,
        leaves: ctx.certificates_of(domain).iter().flat_map(|c| leaves(c)).collect(),
        public_dns: &ctx.public_dns,
        versions: &memory.versions,
        pending_change: memory.change.clone(),
    };
    let observed = observe::observe(d, session, &eyes).await;
    if observed.records_in_sync == Ok(true) {
        ctx.remember(&uid, |m| m.change = None);
    }
    tell_served(d, &observed, ctx);
    let plan = plan::plan(d, &observed, now);
    let key = (d.home.namespace.clone(), d.home.name.clone());
    let bypasses = ctx.bypasses.of(&key, session, &d.home.domain_name, d.mappings.values().map(|m| m.id.clone()));
    if observing {
        let new = report::observing(old, generation, &d.home, &plan, &observed, now);
        let new = report::with_bypasses(new, generation, bypasses.as_deref(), now);
        ctx.write(domain, old, &new).await?;
        return Ok(ctx.settled(&uid));
    }
    let hands = Hands {
        client: &ctx.client,
        session,
        quota: &ctx.gate.quota,
        allowance: &ctx.allowance,
        home: &d.home,
        authorities: &d.authorities,
        class: class(d, &observed, &plan, old, generation),
        since: queued_since(old).unwrap_or(now),
        now,
    };
    let done = execute::execute(plan.actions(), &hands).await;
    if let Some(change) = &done.change {
        ctx.remember(&uid, |m| m.change = Some(change.clone()));
    }
    let new = report::report(old, generation, &d.home, &plan, &observed, &done.outcomes, now);
    let new = report::with_bypasses(new, generation, bypasses.as_deref(), now);
    ctx.write(domain, old, &new).await?;
    for notice in report::notices(old, &new, &d.home, &plan, &observed, now) {
        let (object, Notice { warning, reason, message }) = (domain.object_ref(&()), notice);
        match warning {
            true => ctx.events.warning(&object, reason, "Watch", &message).await,
            false => ctx.events.normal(&object, reason, "Watch", &message).await,
        }
    }
    let waits = plan.steps.values().any(|j| matches!(j.verdict, Verdict::Wait(..) | Verdict::Unknown(_)));
    Ok(if done.effects > 0 {
        ctx.remember(&uid, |m| m.polls = 0);
        Next::requeue(Duration::ZERO)
    } else if waits || done.outcomes.values().any(report::passes) {
        Next::requeue(ctx.poll(&uid))
    } else {
        ctx.settled(&uid)
    })
}

/// The leaves that a ClientCertificate says it holds, or held.
fn leaves(c: &certificate::controller::Guard) -> Vec<Leaf> {
    let (holder, status) = (ObjectRef::from_obj(c).to_string(), c.0.as_ref().ok().and_then(|c| c.status.as_ref()));
    let leaf = |issuer, not_after: &Time| Leaf { holder: holder.clone(), issuer, not_after: not_after.0 };
    let held = status.and_then(|s| Some(leaf(LeafIssuer::Name(s.issuer.clone()?), s.not_after.as_ref()?)));
    let previous = status.iter().flat_map(|s| &s.previous);
    let previous = previous.map(|p| leaf(LeafIssuer::KeyId(p.issuer_key_id.clone()), &p.not_after));
    held.into_iter().chain(previous).collect()
}

/// Tells the ClientCertificates what is let in, once that is certain: while a domain is UPDATING it serves what it did before.
fn tell_served(d: &Desired, o: &Observed, ctx: &Ctx) {
    let key = (d.home.namespace.clone(), d.home.name.clone());
    match (&o.domain, &o.pinned) {
        (Ok(Some(g)), Ok(Some(pinned))) if g.status != DomainStatus::Updating => {
            ctx.served.set(&key, Some(&pinned.bundle), Timestamp::now())
        }
        (Ok(None), _) => ctx.served.set(&key, None, Timestamp::now()),
        _ => {}
    }
}

fn class(d: &Desired, o: &Observed, plan: &Plan, old: &MtlsDomainStatus, generation: i64) -> Class {
    let withdrawn = |pinned: &Pinned| !plan::self_signed::withdrawn(d, &pinned.bundle).is_empty();
    let served = old.conditions.iter().any(|c| {
        c.type_ == ConditionType::Ready.as_str() && c.status == "True" && c.observed_generation == Some(generation)
    });
    if plan.actions().any(|(_, a)| matches!(a, Action::CreateDomain(_))) {
        Class::Creation
    } else if plan.truststore.as_ref().is_some_and(|compiled| compiled.distrusts)
        || o.pinned.iter().flatten().any(withdrawn)
    {
        Class::Distrust
    } else if served {
        Class::Drift
    } else {
        Class::SpecChange
    }
}

/// Since when it has been waiting for its turn, also across a restart.
fn queued_since(old: &MtlsDomainStatus) -> Option<Timestamp> {
    let queued = old
        .conditions
        .iter()
        .find(|c| c.reason == Reason::Queued.as_str() && c.type_ == ConditionType::DomainProgrammed.as_str());
    queued.map(|c| c.last_transition_time.0)
}

async fn delete(
    domain: &MtlsDomain,
    home: &Home,
    session: &Session,
    old: &MtlsDomainStatus,
    ctx: &Ctx,
    now: Timestamp,
) -> Result<Next, Error> {
    let uid = domain.uid().unwrap_or_default();
    if domain.spec.management_policy == ManagementPolicy::Observe {
        let note =
            format!("managementPolicy is Observe: nothing is deleted in AWS; there may be left: {}", left(domain));
        ctx.events.normal(&domain.object_ref(&()), "Retained", "Delete", &note).await;
        return let_go(domain, ctx).await;
    }
    let policy = domain.spec.deletion_policy;
    let listed: Vec<_> = domain.spec.mappings.iter().map(|m| m.path.clone()).collect();
    let remains = observe::remains(home, session).await;
    let judged = teardown::teardown(home, policy, &listed, &remains);
    if judged.verdict.is_done() {
        // Whoever is let in by what stays may need a new certificate some day.
        if remains.domain.is_ok_and(|g| teardown::stays(home, policy, g.as_ref())) {
            let note = format!("in AWS everything stays as it is, without our mark: {}", left(domain));
            ctx.events.normal(&domain.object_ref(&()), "Retained", "Delete", &note).await;
        } else {
            delete_authorities(domain, ctx).await?;
        }
        return let_go(domain, ctx).await;
    }
    let hands = Hands {
        client: &ctx.client,
        session,
        quota: &ctx.gate.quota,
        allowance: &ctx.allowance,
        home,
        authorities: &[],
        class: Class::SpecChange,
        since: queued_since(old).unwrap_or(now),
        now,
    };
    let done = execute::execute(judged.actions.iter().map(|a| (Step::DomainProgrammed, a)), &hands).await;
    let line = report::deletion_line(&judged, done.outcomes.get(&Step::DomainProgrammed));
    let generation = domain.metadata.generation.unwrap_or_default();
    let new = report::with_conditions(old, generation, &Acceptance::Accepted, &[line], now);
    ctx.write(domain, old, &new).await?;
    Ok(match &judged {
        _ if done.effects > 0 && done.outcomes.is_empty() => Next::requeue(Duration::ZERO),
        Judged { verdict: Verdict::Blocked(..), .. } => ctx.settled(&uid),
        _ => Next::requeue(ctx.poll(&uid)),
    })
}

/// As a rule nothing wakes it again: the API server deletes it with its last finalizer.
async fn let_go(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    finalizer::release(&ctx.client, domain).await?;
    ctx.forget(domain);
    Ok(Next::await_change())
}

/// For an Event: what the status last said of things in AWS.
fn left(domain: &MtlsDomain) -> String {
    let status = domain.status.clone().unwrap_or_default();
    let all = [
        Some(format!("the custom domain and the records of {}", domain.spec.domain_name)),
        status.certificate.map(|c| c.arn),
        status.truststore.map(|t| t.uri),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The Secrets of generated authorities have no owner reference, so that nothing but this takes them.
async fn delete_authorities(domain: &MtlsDomain, ctx: &Ctx) -> Result<(), Error> {
    let selector = format!("{DOMAIN_LABEL}={},{AUTHORITY_LABEL}", domain.name_any());
    let namespace = domain.namespace().expect("MtlsDomain is namespaced");
    for secret in apply::secrets(&ctx.client, &namespace, &selector).await? {
        apply::delete_secret(&ctx.client, &secret).await?;
    }
    Ok(())
}
