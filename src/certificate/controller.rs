//! Runs the rooms of a `ClientCertificate` one after the other, wakes up when its Secret, its issuer or its domain's trust changes, and
//! says when to look again.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
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
    desired::{self, Desired},
    execute, observe,
    plan::{self, lines_after_issue},
    report::{self, Leaf},
};
use crate::{
    api::{ClientCertificate, ClientCertificateStatus, MtlsDomain, conditions::Reason},
    cluster::{
        events::Events,
        look::{self, Error},
        status,
        watch::Watch,
    },
    conditions::{Acceptance, Line, Standing, transitions},
    domain::{
        self,
        desired::{Refused, length},
        served::{DomainKey, Served},
    },
    ops::{
        logging,
        metrics::{Metrics, OK},
    },
    pki::inspect,
};

/// Certificates that are looked at at the same time.
const CONCURRENCY: u16 = 32;
/// First wait after a failure, then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Between two looks at a renewal that is due and has to wait.
const OVERDUE: Duration = Duration::from_secs(60);
/// Nothing is far enough away to sleep longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

pub type Guard = DeserializeGuard<ClientCertificate>;

pub struct Ctx {
    pub client: Client,
    pub events: Events,
    pub metrics: Metrics,
    pub certificates: Store<Guard>,
    pub domains: Store<domain::controller::Guard>,
    pub served: Arc<Served>,
    /// Failures in a row, by UID.
    pub failures: Mutex<HashMap<String, u32>>,
}

pub struct Watches {
    pub certificates: Watch<Guard>,
    pub domains: Watch<domain::controller::Guard>,
    pub secrets: Watch<PartialObjectMeta<Secret>>,
    /// Domains whose trust has changed.
    pub served: UnboundedReceiver<DomainKey>,
}

/// Runs until `stop`; looks that are under way are finished.
pub async fn run(ctx: Arc<Ctx>, watches: Watches, stop: CancellationToken) {
    let (by_domain, by_secret, by_trust) = (ctx.clone(), ctx.clone(), ctx.clone());
    let trusts = watches.served.flat_map(move |key| stream::iter(of_domain(&by_trust, &key)));
    Controller::for_shared_stream(watches.certificates.subscribe_when(worth_a_look), ctx.certificates.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .watches_shared_stream(
            watches.domains.subscribe_when(|d| {
                d.0.as_ref().ok().map(|d| (d.metadata.generation, d.metadata.deletion_timestamp.is_some()))
            }),
            move |d| of_domain(&by_domain, &(d.namespace().unwrap_or_default(), d.name_any())),
        )
        .watches_shared_stream(watches.secrets.subscribe(), move |secret| touched_by(&by_secret, &secret))
        .reconcile_on(trusts)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, failed, ctx)
        .for_each(async |_| ())
        .await;
}

fn worth_a_look(c: &Guard) -> Option<(Option<i64>, bool)> {
    let meta = &c.0.as_ref().ok()?.metadata;
    Some((meta.generation, meta.deletion_timestamp.is_some()))
}

fn of_domain(ctx: &Ctx, key: &DomainKey) -> Vec<ObjectRef<Guard>> {
    let state = ctx.certificates.state();
    let theirs = state.iter().filter(|c| c.0.as_ref().is_ok_and(|c| desired::domain_key(c) == *key));
    theirs.map(|c| ObjectRef::from_obj(&**c)).collect()
}

/// The certificate that the Secret holds, or those that are issued with it.
fn touched_by(ctx: &Ctx, secret: &PartialObjectMeta<Secret>) -> Vec<ObjectRef<Guard>> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let state = ctx.certificates.state();
    let holders = state.iter().filter(|c| {
        c.0.as_ref().is_ok_and(|c| {
            c.namespace().as_ref() == Some(&namespace)
                && c.spec.secret_name.clone().unwrap_or_else(|| c.name_any()) == name
        })
    });
    let mut touched: Vec<_> = holders.map(|c| ObjectRef::from_obj(&**c)).collect();
    for domain in ctx.domains.state() {
        let Ok(domain) = &domain.0 else { continue };
        let issues = |d: &MtlsDomain| {
            domain::desired::authorities(d).is_ok_and(|all| all.iter().any(|a| a.source.secret() == Some(&name)))
        };
        if domain.namespace().as_ref() == Some(&namespace) && issues(domain) {
            touched.extend(of_domain(ctx, &(namespace.clone(), domain.name_any())));
        }
    }
    touched
}

fn failed(object: Arc<Guard>, error: &Error, ctx: Arc<Ctx>) -> Next {
    tracing::warn!(object = %ObjectRef::from_obj(&*object), error = %logging::chain(error), "look failed");
    if error.is_final() { Next::await_change() } else { Next::requeue(ctx.retry(&object.uid().unwrap_or_default())) }
}

impl Ctx {
    fn retry(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().expect("nobody panics while holding it");
        let n = failures.entry(uid.to_owned()).or_default();
        *n += 1;
        FIRST_RETRY.saturating_mul(1 << (*n - 1).min(10)).min(LAST_RETRY)
    }

    fn succeeded(&self, uid: &str) {
        self.failures.lock().expect("nobody panics while holding it").remove(uid);
    }

    async fn write(
        &self,
        cert: &ClientCertificate,
        old: &ClientCertificateStatus,
        new: &ClientCertificateStatus,
    ) -> Result<(), Error> {
        status::write(&self.client, cert, old, new).await?;
        for t in transitions(&old.conditions, &new.conditions) {
            let object = cert.object_ref(&());
            match (t.type_.as_str(), t.status.as_str()) {
                ("Ready", "True") => self.events.normal(&object, &t.reason, "Reconcile", &t.message).await,
                ("Ready", "False") => self.events.warning(&object, &t.reason, "Reconcile", &t.message).await,
                _ => {}
            }
        }
        Ok(())
    }
}

async fn reconcile(object: Arc<Guard>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let started = std::time::Instant::now();
    let result = look::look(&object, |cert| look(cert, &ctx)).await;
    ctx.metrics.reconciled("ClientCertificate", result.as_ref().err().map_or(OK, Error::category), started.elapsed());
    result
}

async fn look(cert: &ClientCertificate, ctx: &Ctx) -> Result<Next, Error> {
    if cert.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let (uid, now) = (cert.uid().unwrap_or_default(), Timestamp::now());
    let generation = cert.metadata.generation.unwrap_or_default();
    let old = cert.status.clone().unwrap_or_default();
    let say = async |acceptance: &Acceptance, lines: &[Line], leaf: Option<Leaf<'_>>| {
        ctx.write(cert, &old, &report::report(&old, generation, acceptance, lines, leaf, now)).await
    };
    if cert.spec.suspend {
        say(&Acceptance::Suspended, &[], None).await?;
        return Ok(Next::await_change());
    }
    let key = desired::domain_key(cert);
    let domain = ctx.domains.get(&ObjectRef::new(&key.1).within(&key.0)).and_then(|d| d.0.clone().ok());
    let max = domain.as_ref().and_then(|d| d.spec.clients.as_ref()).and_then(|c| c.max_duration.as_ref()).map(length);
    let d = match desired::desired(cert, max) {
        Ok(desired) => desired,
        Err(Refused { reason, message }) => {
            say(&Acceptance::Refused { reason, message, stalled: reason != Reason::DurationNotAllowed }, &[], None)
                .await?;
            return Ok(Next::await_change());
        }
    };
    let observed = observe::observe(&d, domain.as_ref(), &ctx.served, &ctx.client).await?;
    let plan = plan::plan(&d, &observed, now);
    // The Secret knows best; when it is lost the status does, and after a restore without either the count begins anew.
    let revision = observed.secret.as_ref().map_or(old.revision.unwrap_or_default(), |s| s.revision);
    let Some(violation) = plan.issue else {
        if let Some(secret) = observed.secret.as_ref().filter(|s| s.ours) {
            match execute::relabel(cert, &d, secret, &ctx.client).await {
                Err(execute::Error::Cluster(error)) if error.is_conflict() => {
                    return Ok(Next::requeue(ctx.retry(&uid)));
                }
                Err(execute::Error::Cluster(error)) => return Err(error.into()),
                _ => {}
            }
        }
        let leaf =
            plan.leaf.as_ref().zip(plan.renewal).map(|(certificate, renewal)| Leaf { certificate, renewal, revision });
        say(&Acceptance::Accepted, &plan.lines, leaf).await?;
        ctx.succeeded(&uid);
        return Ok(until(plan.renewal, now));
    };
    let issuer = match observed.issuer {
        Ok(issuer) => issuer,
        Err(_) => return Ok(Next::await_change()), // the plan issues only with an issuer
    };
    tracing::debug!(certificate = %cert.name_any(), reason = ?violation.reason, "issuing");
    match execute::issue(cert, &d, issuer, observed.secret.as_ref(), revision + 1, &ctx.client, now).await {
        Ok(issued) => {
            let renewal = inspect::renewal_time(&issued.leaf, d.renew_before);
            let leaf = Leaf { certificate: &issued.leaf, renewal, revision: issued.revision };
            say(&Acceptance::Accepted, &lines_after_issue(observed.trust.as_ref(), &issued.leaf), Some(leaf)).await?;
            ctx.succeeded(&uid);
            Ok(until(Some(renewal), now))
        }
        // Somebody wrote the Secret first: look at what they wrote.
        Err(execute::Error::Cluster(error)) if error.is_conflict() => Ok(Next::requeue(ctx.retry(&uid))),
        Err(error) => {
            let message = describe(&error, &d);
            tracing::warn!(certificate = %cert.name_any(), error = %logging::chain(&error), "not issued");
            let lines: Vec<_> = plan.lines.into_iter().map(|line| after_failure(line, &message)).collect();
            say(&Acceptance::Accepted, &lines, None).await?;
            Ok(Next::requeue(ctx.retry(&uid)))
        }
    }
}

/// A failed renewal keeps what works; a failed first issue says why.
fn after_failure(line: Line, message: &str) -> Line {
    if line.standing == Standing::Done {
        return line;
    }
    Line { standing: Standing::Unreachable, message: message.to_owned(), ..line }
}

fn describe(error: &execute::Error, d: &Desired) -> String {
    use std::error::Error as _;
    let cause = error.source().map(|s| format!(": {s}")).unwrap_or_default();
    format!("cannot issue into the Secret {}: {error}{cause}", d.secret_name)
}

fn until(renewal: Option<Timestamp>, now: Timestamp) -> Next {
    let Some(renewal) = renewal else { return Next::await_change() };
    if renewal <= now {
        return Next::requeue(OVERDUE); // something is in the way, and its end wakes us
    }
    let sleep = Duration::try_from(renewal.duration_since(now)).unwrap_or(Duration::ZERO);
    Next::requeue(sleep.clamp(Duration::from_secs(1), LONGEST_SLEEP))
}
