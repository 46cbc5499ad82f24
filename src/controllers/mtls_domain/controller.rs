//! Controller of `MtlsDomain`: reconciles a domain when the domain or one of its dependencies changes.
//! Serves, deletes or refuses the domain, and writes its status and Events.

use std::sync::{Arc, LazyLock};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{Controller, controller::Action as Next, reflector::ObjectRef},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    claims::Finding,
    conflicts,
    context::{Ctx, queue_key},
    course::{self, Blind, Course, Facts, Located},
    deletion,
    mappers::{
        certificate_predicate, change_predicate, changes, conflict_predicate, conflicting, of_certificate,
        of_namespace, readers, referring, trusting,
    },
    permission::Permission,
    quota_class, report, serving,
};

use crate::{
    api::{MtlsDomain, object_id::ObjectId},
    aws::{
        errors::{self, Kind},
        session::{Access, Session},
    },
    controllers::watches::Watches,
    grants::index,
    model::{authorities, placement},
    observation::seen,
    policy::Policy,
    runtime::{
        reconcile::{self, Error},
        watch::Cached,
    },
    status::Acceptance,
    telemetry::{heartbeat, metrics},
    trust::self_signed::TRUSTED_BY,
};

/// Maximum number of concurrent MtlsDomain reconciles. AWS quotas set the pace; this limit only bounds
/// memory.
pub const AT_ONCE: usize = 32;
/// Runs until `stop`, then finishes the reconciles in progress.
pub async fn run(ctx: Arc<Ctx>, watches: &Watches, stop: CancellationToken) {
    let state = ctx.domains.state();
    let queued = state
        .iter()
        .filter_map(|d| d.0.as_ref().ok())
        .filter(|d| d.status.as_ref().is_some_and(quota_class::is_queued));
    ctx.gate.quota.restore_waiters(queued.map(queue_key));
    let granted =
        ctx.gate.quota.granted().filter_map(|object| async move {
            Some(ObjectId::parse(&object)?.to_ref::<Cached<MtlsDomain>>())
        });
    let heartbeat = ctx.heartbeat.clone();
    heartbeat.record(metrics::Controller::Domain);
    let bypasses = ctx.bypasses.clone().changes();
    let bypasses = bypasses.map(|key| key.to_ref::<Cached<MtlsDomain>>());
    let (claims, all) = (ctx.claims.clone(), ctx.domains.clone());
    let claims = claims.changes().flat_map(move |id| {
        let changed = all.get(&id.to_ref());
        stream::iter(changed.map(|d| conflicting(&d, &all)).unwrap_or_default())
    });
    let (gone, all) = (ctx.clone(), ctx.domains.clone());
    let (for_secrets, for_maps) = (ctx.domains.clone(), ctx.domains.clone());
    let (for_certificates, for_namespaces, for_cross_namespace) = (ctx.clone(), ctx.clone(), ctx.clone());
    let ending = ctx.clone();
    let controller = Controller::for_shared_stream(
        watches.domains.subscribe_when(change_predicate),
        ctx.domains.clone(),
    )
    // The creation or deletion of a domain may change the winner of a conflict about its domain name.
    .watches_shared_stream(
        watches.domains.subscribe_when(conflict_predicate),
        move |changed| {
            gone.forget_claim(&changed);
            conflicting(&changed, &all)
        },
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
    .reconcile_on(claims)
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
    if let Ok(domain) = &object.0 {
        ctx.claims.record(domain, Finding::Undecided);
    }
    reconcile::after_failure(&object, error, || ctx.backoff(&object.uid().unwrap_or_default()))
}

async fn reconcile(object: Arc<Cached<MtlsDomain>>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let Some(_permit) = ctx
        .concurrency
        .acquire(object.meta().namespace.as_deref().unwrap_or_default())
        .await
    else {
        return Ok(Next::await_change());
    };
    // The object may have changed while it waited for the permit. A deleted object needs no reconcile.
    let Some(object) = ctx.domains.get(&ObjectRef::from_obj(&*object)) else {
        return Ok(Next::await_change());
    };
    let started = Instant::now();
    let result = reconcile::with_deadline(&object, |domain| reconcile_domain(domain, &ctx)).await;
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

/// Reconciles a domain: decides its course, and then deletes, serves or refuses the domain.
async fn reconcile_domain(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    let (uid, old, now) = (
        domain.uid().unwrap_or_default(),
        ctx.last_status(domain),
        Timestamp::now(),
    );
    let generation = domain.metadata.generation.unwrap_or_default();
    let permission = Permission::of(domain, &old, ctx, now);
    let certificates = LazyLock::new(|| ctx.certificates_of(domain, now));
    let course_with = |session: Option<&Result<Located, Blind>>| {
        course::course(&Facts {
            domain,
            cluster_id: &ctx.cluster_id,
            truststore_bucket: ctx.truststore_bucket.as_deref(),
            aws_tags: &ctx.aws_tags,
            policy: permission.policy(),
            labels: &|namespace| ctx.labels(namespace),
            session,
            all: &|| ctx.domains.state(),
            claim: &|other| ctx.claims.of(other),
            clients: &|| {
                let (theirs, cross_namespace) = &*certificates;
                ctx.clients(domain, theirs, cross_namespace)
            },
        })
    };
    let (course, session) = match course_with(None) {
        Course::OpenSession => match sessions(domain, permission.policy(), ctx).await {
            Ok((session, own_region)) => {
                let located = Located {
                    account: session.account.clone(),
                    region: session.region.clone(),
                    own_region,
                };
                (course_with(Some(&Ok(located))), Some(session))
            }
            Err(error) => {
                let blind = match ctx.service_account.remedy(&error).await {
                    Some(remedy) => Blind::WithoutCredentials(remedy),
                    None => Blind::Unseen(seen::unseen(&error)),
                };
                (course_with(Some(&Err(blind))), None)
            }
        },
        course => (course, None),
    };
    let session = || {
        session
            .as_ref()
            .expect("the course needs a session, which is open")
    };
    match course {
        Course::Forget => {
            ctx.forget(domain);
            Ok(Next::await_change())
        }
        Course::Abandon => deletion::abandon(domain, ctx).await,
        Course::Leave => deletion::leave(domain, ctx).await,
        Course::Suspend => {
            ctx.bypasses.forget(&ObjectId::of(domain));
            ctx.claims.record(
                domain,
                match conflicts::may_hold_its_name(domain) {
                    true => Finding::Undecided,
                    false => Finding::Invalid,
                },
            );
            let new = report::with_conditions(&old, generation, &Acceptance::Suspended, &[], now);
            ctx.write(domain, &old, &new).await?;
            Ok(Next::await_change())
        }
        Course::OpenSession => unreachable!("the course is decided with a session or without its need"),
        Course::Retry(blind) => {
            let (new, finding) = match &blind {
                Blind::WithoutCredentials(remedy) => (
                    report::without_credentials(&old, generation, remedy, now),
                    Finding::Undecided,
                ),
                Blind::Unseen(unseen) => (
                    report::blind(&old, generation, unseen, now),
                    Finding::of_failure(unseen),
                ),
            };
            ctx.claims.record(domain, finding);
            ctx.write(domain, &old, &new).await?;
            Ok(Next::requeue(ctx.backoff(&uid)))
        }
        Course::Unclear(unseen) => permission.unclear(&unseen).await,
        Course::AwaitOlder => Ok(Next::requeue(ctx.backoff(&uid))),
        Course::Refuse(refused) => permission.refuse(&refused).await,
        Course::Moved(moved) => {
            ctx.claims.record(domain, Finding::of_refusal(&moved));
            let new = report::with_conditions(&old, generation, &moved, &[], now);
            ctx.write(domain, &old, &new).await?;
            Ok(ctx.resync_later(&uid))
        }
        Course::Delete(placement) => {
            ctx.claims.record(domain, Finding::Undecided);
            deletion::delete(domain, &placement, &permission, session(), &old, ctx, now).await
        }
        Course::Serve(desired) => serving::serve(&desired, &certificates.0, &permission, session()).await,
    }
}

/// Returns the AWS session of this domain, and the Region of domains that specify none. That Region is empty
/// when the operator has no Region of its own: the operator does not serve those domains then.
pub(crate) async fn sessions(
    domain: &MtlsDomain,
    policy: Option<&Policy>,
    ctx: &Ctx,
) -> Result<(Session, String), errors::Error> {
    let session = ctx.sessions.get(&placement::access(domain, policy)).await?;
    if domain.region().is_none() {
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

#[cfg(test)]
pub(crate) mod tests;
