//! One reconcile of a served `MtlsDomain`: observes, plans, executes, reports, and decides when to reconcile
//! again. Writes its status and Events.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action as Next, reflector::ObjectRef},
};
use tokio::time::Instant;

use super::{
    access_request,
    context::Ctx,
    execute::{self, ApplyContext},
    observe::{self, ObserveContext},
    permission::Permission,
    plan,
    report::{self, Outcome, Outcomes, server_certificate},
};

use crate::model::front::Progress;
use crate::{
    api::{
        ClientCertificate, ManagementPolicy, MtlsDomain, MtlsDomainStatus,
        conditions::{ConditionType, Reason},
    },
    aws::{action::ApiGatewayAction, quota::Class, session::Session},
    dataplane::api_gateway::identity,
    model::{
        action::Action,
        desired::Desired,
        observed::{Leaf, LeafIssuer, Observed, Pinned, Preflight},
        placement,
        step::{Plan, StepPlan, StepState},
    },
    observation::{read_cache::AwsReader, seen::Seen},
    pki::truststore::Bundle,
    policy::AccessRequest,
    runtime::{finalizer, reconcile::Error, watch::Cached},
    status::{Acceptance, ConditionStatus, Refused},
    telemetry::metrics::{Controller, Stage},
    trust::{self_signed_sources, truststore},
};

/// Observed state of a domain, and the plan for it.
struct View {
    observed: Observed,
    plan: Plan,
}

/// Runs one reconcile of an accepted domain towards its desired state. With `managementPolicy: Observe`, the
/// operator changes nothing in AWS.
pub(crate) async fn serve(
    d: &Desired,
    theirs: &[Arc<Cached<ClientCertificate>>],
    permission: &Permission<'_>,
    session: &Session,
) -> Result<Next, Error> {
    let Permission {
        ctx,
        domain,
        old,
        now,
        ..
    } = *permission;
    let uid = domain.uid().unwrap_or_default();
    let generation = domain.metadata.generation.unwrap_or_default();
    let writes = writes(domain);
    let timed = |stage, since: Instant| ctx.metrics.stage(Controller::Domain, stage, since.elapsed());
    let begun = Instant::now();
    let cache = ctx.cache.of(&placement::access(domain, permission.policy()));
    // A cached pass suffices when it finds the domain in sync. Otherwise the operator reads AWS again.
    let in_sync = cached_since(ctx.update_state(&uid, |state| state.in_sync_since), generation);
    let cached = match in_sync {
        Some(since) => {
            let reader = AwsReader::cached(session, &cache, ctx.refresh.of(&uid), since);
            let preflight = observe::preflight(d, &reader).await;
            match permission.allows(&access_requests(d, domain, &preflight)) {
                true => Some(view(d, theirs, permission, &reader, preflight).await)
                    .filter(|view| is_in_sync(&view.plan)),
                false => None,
            }
        }
        None => None,
    };
    // The cached pass was inconclusive: do not use the cache for the next resync.
    let cache_was_stale = in_sync.is_some() && cached.is_none();
    let View { observed, plan } = match cached {
        Some(view) => view,
        None => {
            let (reader, began) = (AwsReader::live(session, &cache), Instant::now());
            let preflight = observe::preflight(d, &reader).await;
            let unseen = preflight
                .zones
                .as_ref()
                .err()
                .or_else(|| preflight.apis.values().find_map(|api| api.as_ref().err()));
            if let Some(next) = permission
                .ends(&access_requests(d, domain, &preflight), unseen)
                .await?
            {
                return Ok(next);
            }
            let view = view(d, theirs, permission, &reader, preflight).await;
            // The operator records this before it executes the plan: each action makes the earlier reads
            // stale.
            ctx.update_state(&uid, |state| {
                state.in_sync_since = in_sync_since(&view.plan, generation, began)
            });
            view
        }
    };
    timed(Stage::Observe, begun);
    let created = domain.creation_timestamp().map(|t| t.0);
    if let Some(Refused { reason, message }) = truststore::without_trust(d, &observed, created, now) {
        publish_trust(d, &observed, &plan, ctx);
        ctx.bypasses.forget(&d.placement.id());
        let refused = Acceptance::Refused {
            reason,
            message,
            stalled: false,
        };
        ctx.write(
            domain,
            old,
            &report::with_conditions(old, generation, &refused, &[], now),
        )
        .await?;
        return Ok(ctx.resync_later(&uid));
    }
    if writes {
        // Before the first write to AWS, the operator adds the finalizer and records account and Region for
        // the cleanup.
        finalizer::hold(&ctx.client, domain, Some(&d.placement.location())).await?;
    }
    ctx.update_state(&uid, |state| {
        state.change = pending_change(state.change.take(), &observed.records_in_sync)
    });
    publish_trust(d, &observed, &plan, ctx);
    let key = d.placement.id();
    let bypasses = ctx.bypasses.of(
        &key,
        session,
        &d.placement.domain_name,
        d.mappings.values().map(|state| state.id.clone()),
    );
    if !writes {
        let new = report::observing(old, generation, &d.placement, &plan, &observed, now);
        let new = report::with_bypasses(new, generation, bypasses.as_deref(), now);
        ctx.write(domain, old, &new).await?;
        return Ok(match requeue_when_idle(&plan, cache_was_stale) {
            Requeue::ResyncSoon => ctx.resync_soon(&uid),
            _ => ctx.resync_later(&uid),
        });
    }
    let apply_context = ApplyContext {
        client: &ctx.client,
        session,
        quota: &ctx.gate.quota,
        request_limiter: &ctx.request_limiter,
        placement: &d.placement,
        domain,
        authorities: &d.authorities,
        old_conditions: &old.conditions,
        class: class(d, &observed, &plan, old, generation),
        since: waiting_since(old).unwrap_or(now),
        now,
    };
    let begun = Instant::now();
    let done = execute::execute(plan.actions(), &apply_context).await;
    timed(Stage::Execute, begun);
    if let Some(change) = &done.change {
        ctx.update_state(&uid, |state| state.change = Some(change.clone()));
    }
    let begun = Instant::now();
    let new = report::report(
        old,
        generation,
        &d.placement,
        &plan,
        &observed,
        &done.outcomes,
        now,
    );
    let new = report::with_bypasses(new, generation, bypasses.as_deref(), now);
    ctx.write(domain, old, &new).await?;
    for (notice, message) in server_certificate::notices(old, &new, &d.placement, &plan, &observed, now) {
        ctx.events
            .publish(&domain.object_ref(&()), notice, "Watch", &message)
            .await;
    }
    timed(Stage::Report, begun);
    Ok(
        match requeue(&plan, done.effects, &done.outcomes, cache_was_stale) {
            Requeue::Immediately => {
                ctx.update_state(&uid, |state| state.backoff_attempts = 0);
                Next::requeue(Duration::ZERO)
            }
            Requeue::Backoff => Next::requeue(ctx.backoff(&uid)),
            Requeue::SlowBackoff => Next::requeue(ctx.slow_backoff(&uid)),
            Requeue::ResyncSoon => ctx.resync_soon(&uid),
            Requeue::ResyncLater => ctx.resync_later(&uid),
        },
    )
}

/// True when the operator writes to AWS for this domain.
fn writes(domain: &MtlsDomain) -> bool {
    domain.spec.management_policy != ManagementPolicy::Observe
}

/// Returns the time since which this generation of the domain has been in sync; `None`: the operator must not
/// use cached reads.
fn cached_since(in_sync: Option<(i64, Instant)>, generation: i64) -> Option<Instant> {
    in_sync
        .filter(|(of, _)| *of == generation)
        .map(|(_, since)| since)
}

/// Returns the start of the time in sync after a live pass that began at `began`; `None`: the plan has
/// actions or waits.
fn in_sync_since(plan: &Plan, generation: i64, began: Instant) -> Option<(i64, Instant)> {
    is_in_sync(plan).then_some((generation, began))
}

/// Returns the record change to ask Route 53 about in the next reconcile; `None` once Route 53 reports it in
/// sync.
fn pending_change(before: Option<String>, in_sync: &Seen<bool>) -> Option<String> {
    before.filter(|_| *in_sync != Ok(true))
}

/// Time of the next reconcile when no event comes first.
#[derive(Debug, PartialEq)]
enum Requeue {
    /// The operator changed something: the next action follows immediately.
    Immediately,
    /// AWS is working on something, did not answer, or failed a call: requeue with backoff.
    Backoff,
    /// Another party has to create something first, and no event will announce it: requeue with a longer
    /// backoff.
    SlowBackoff,
    /// The domain is in sync: resync soon, from the cache.
    ResyncSoon,
    /// Another party has to act, or the cached pass was inconclusive.
    ResyncLater,
}

fn requeue(plan: &Plan, effects: usize, outcomes: &Outcomes, cache_was_stale: bool) -> Requeue {
    let is_waiting = |step_plan: &StepPlan| {
        matches!(
            step_plan,
            StepPlan::Pending(StepState::Wait(..) | StepState::Unknown(_), _)
        )
    };
    let waits = plan.steps.values().any(is_waiting);
    // The quota queue triggers the reconcile of a queued domain. Polling would only take calls from the
    // domains ahead of it.
    let is_retryable = |outcome: &Outcome| report::passes(outcome) && !outcome.is_queued();
    let retryable = || outcomes.values().filter(|outcome| is_retryable(outcome));
    if effects > 0 {
        Requeue::Immediately
    } else if !waits && retryable().count() > 0 && retryable().all(report::is_missing) {
        Requeue::SlowBackoff
    } else if waits || outcomes.values().any(is_retryable) {
        Requeue::Backoff
    } else {
        requeue_when_idle(plan, cache_was_stale)
    }
}

/// Returns the next reconcile when there is nothing to do now. `cache_was_stale`: a cached pass was
/// inconclusive.
fn requeue_when_idle(plan: &Plan, cache_was_stale: bool) -> Requeue {
    if is_in_sync(plan) && !cache_was_stale {
        Requeue::ResyncSoon
    } else {
        Requeue::ResyncLater
    }
}

/// True when the plan has no actions, and every step is done or is kept open by the spec.
fn is_in_sync(plan: &Plan) -> bool {
    let is_fine = |step_plan: &StepPlan| {
        let is_kept_open = || {
            matches!(
                step_plan,
                StepPlan::Pending(StepState::Blocked(Reason::KeptOpen, _), _)
            )
        };
        step_plan.is_done() || is_kept_open()
    };
    plan.actions().next().is_none() && plan.steps.values().all(is_fine)
}

/// Returns the access that the operator's policy has to allow.
fn access_requests(d: &Desired, domain: &MtlsDomain, preflight: &Preflight) -> Vec<AccessRequest> {
    [
        access_request::of(domain, &d.placement, false),
        access_request::found(domain, preflight),
    ]
    .concat()
}

async fn view(
    d: &Desired,
    theirs: &[Arc<Cached<ClientCertificate>>],
    permission: &Permission<'_>,
    reader: &AwsReader<'_>,
    preflight: Preflight,
) -> View {
    let Permission { ctx, domain, now, .. } = *permission;
    let uid = domain.uid().unwrap_or_default();
    let state = ctx.update_state(&uid, |state| state.clone());
    let observe_context = ObserveContext {
        client: &ctx.client,
        domain,
        probe: &ctx.probe,
        leaves: theirs.iter().flat_map(|c| leaves(c)).collect(),
        public_dns: &ctx.public_dns,
        versions: &state.versions,
        pending_change: state.change.clone(),
    };
    let mut observed = observe::observe(d, reader, &observe_context, preflight).await;
    let in_place = identity::in_place(d, &observed);
    let generation = domain.metadata.generation.unwrap_or_default();
    observed.corrections = ctx.update_state(&uid, |state| {
        state.corrections.count(generation, in_place, &observed)
    });
    let plan = plan::plan(d, &observed, now);
    View { observed, plan }
}

/// Returns the leaves that a ClientCertificate holds or held, according to its status.
fn leaves(c: &Cached<ClientCertificate>) -> Vec<Leaf> {
    let (holder, status) = (
        ObjectRef::from_obj(c).to_string(),
        c.0.as_ref().ok().and_then(|c| c.status.as_ref()),
    );
    let leaf = |issuer, not_after: &Time| Leaf {
        holder: holder.clone(),
        issuer,
        not_after: not_after.0,
    };
    let held = status.and_then(|s| Some(leaf(LeafIssuer::Name(s.issuer.clone()?), s.not_after.as_ref()?)));
    let previous = status.iter().flat_map(|s| &s.previous);
    let previous = previous.map(|p| leaf(LeafIssuer::KeyId(p.issuer_key_id.clone()), &p.not_after));
    held.into_iter().chain(previous).collect()
}

/// Publishes the truststore that the domain uses in `ActiveTrust`, for ClientCertificate reconciles. Does
/// nothing while that truststore is not certain.
fn publish_trust(d: &Desired, o: &Observed, plan: &Plan, ctx: &Ctx) {
    let key = d.placement.id();
    match trust_in_use(o, plan) {
        InUse::Bundle(bundle, without_room) => {
            ctx.active_trust
                .set(&key, Some(bundle), without_room, Timestamp::now());
        }
        InUse::NoDomain => ctx.active_trust.set(&key, None, None, Timestamp::now()),
        InUse::Unknown => {}
    }
}

/// Truststore that a domain uses.
#[derive(Debug, PartialEq)]
enum InUse<'a> {
    /// The bundle in use, and the entries with a certificate that does not fit into the next bundle.
    Bundle(&'a Bundle, Option<&'a BTreeSet<String>>),
    NoDomain,
    /// Not certain: the published trust stays. While a domain is UPDATING, API Gateway may still use the
    /// previous truststore.
    Unknown,
}

fn trust_in_use<'a>(o: &'a Observed, plan: &'a Plan) -> InUse<'a> {
    match (&o.front, &o.pinned) {
        (Ok(Some(front)), Ok(Some(pinned))) if front.progress != Progress::Changing => InUse::Bundle(
            &pinned.bundle,
            plan.truststore.as_ref().map(|compiled| &compiled.without_room),
        ),
        (Ok(None), _) => InUse::NoDomain,
        _ => InUse::Unknown,
    }
}

/// Returns the priority class for calls with a low AWS quota. The class and the waiting time decide the
/// position in the quota queue.
fn class(d: &Desired, o: &Observed, plan: &Plan, old: &MtlsDomainStatus, generation: i64) -> Class {
    let withdrawn = |pinned: &Pinned| !self_signed_sources::withdrawn(d, &pinned.bundle).is_empty();
    let served = old.conditions.iter().any(|c| {
        c.type_ == ConditionType::Ready.as_str()
            && c.status == "True"
            && c.observed_generation == Some(generation)
    });
    if plan
        .actions()
        .any(|(_, a)| matches!(a, Action::ApiGateway(ApiGatewayAction::CreateDomain(_))))
    {
        Class::Creation
    } else if plan
        .truststore
        .as_ref()
        .is_some_and(|compiled| compiled.distrusts)
        || o.pinned.iter().flatten().any(withdrawn)
    {
        Class::Distrust
    } else if served {
        Class::Drift
    } else {
        Class::SpecChange
    }
}

/// Returns the start of the domain's wait according to its status. Kept in the status, this time decides the
/// position in the quota queue also after a restart.
pub(crate) fn waiting_since(old: &MtlsDomainStatus) -> Option<Timestamp> {
    let programmed = old
        .conditions
        .iter()
        .find(|c| c.type_ == ConditionType::DomainProgrammed.as_str());
    programmed
        .filter(|c| c.status == ConditionStatus::Unknown.as_str())
        .map(|c| c.last_transition_time.0)
}

/// True when the domain was queued at the time its status was written.
pub(crate) fn is_queued(old: &MtlsDomainStatus) -> bool {
    let is_it = |c: &Condition| {
        c.type_ == ConditionType::DomainProgrammed.as_str() && c.reason == Reason::Queued.as_str()
    };
    old.conditions.iter().any(is_it)
}

#[cfg(test)]
mod tests;
