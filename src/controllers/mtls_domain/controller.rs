//! Controller of `MtlsDomain`: reconciles a domain when the domain or one of its dependencies changes.
//! Serves, deletes or refuses the domain, and writes its status and Events.

use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{Controller, controller::Action as Next, reflector::ObjectRef},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    access_request, conflicts,
    context::{Ctx, queue_key},
    deletion,
    mappers::{
        certificate_predicate, change_predicate, changes, conflicting, of_certificate, of_namespace, readers,
        referring, trusting,
    },
    permission::{Permission, before_aws},
    report, serving,
};

use crate::{
    api::{ClientCertificate, ClientGrant, ManagementPolicy, MtlsDomain, conditions::Reason, events::Notice},
    aws::{
        errors::{self, Kind},
        session::{Access, Session},
    },
    grants::index,
    model::{
        authorities,
        desired::{self, Desired},
        placement::{self, OperatorConfig, Placement},
    },
    observation::seen,
    policy::Policy,
    runtime::{
        finalizer,
        reconcile::Error,
        watch::{Cached, Watch},
    },
    status::{Acceptance, Refused},
    telemetry::{heartbeat, logging, metrics},
    trust::self_signed::TRUSTED_BY,
};

/// Maximum number of concurrent MtlsDomain reconciles. AWS quotas set the pace; this limit only bounds
/// memory.
pub const AT_ONCE: usize = 32;
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
    ctx.metrics
        .reconciled(metrics::Controller::Domain, &result, started.elapsed());
    result
}

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
