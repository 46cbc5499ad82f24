//! One reconcile of a served `MtlsDomain`: observes, plans, executes, reports, and decides when to reconcile
//! again. Writes its status and Events.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action as Next, reflector::ObjectRef},
};
use tokio::time::Instant;

use super::{
    access_request,
    claims::Finding,
    context::Ctx,
    execute::{self, ApplyContext},
    observe::{self, ObserveContext},
    permission::Permission,
    plan,
    quota_class::{class, waiting_since},
    report::{self, server_certificate},
    requeue::{Requeue, cached_since, in_sync_since, is_in_sync, pending_change, requeue, requeue_when_idle},
};

use crate::{
    api::{ClientCertificate, ManagementPolicy, MtlsDomain},
    aws::session::Session,
    dataplane::api_gateway::contention,
    model::{
        desired::Desired,
        front::Progress,
        observed::{Leaf, LeafIssuer, Observed, Preflight},
        placement,
        step::Plan,
    },
    observation::read_cache::AwsReader,
    pki::truststore::Bundle,
    policy::AccessRequest,
    runtime::{finalizer, reconcile::Error, watch::Cached},
    status::{Acceptance, Refused},
    telemetry::metrics::{Controller, Stage},
    trust::truststore,
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
                true => Some(view(d, theirs, permission, &reader, preflight).await?)
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
            let view = view(d, theirs, permission, &reader, preflight).await?;
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
        ctx.claims.record(domain, Finding::of_refusal(&refused));
        ctx.write(
            domain,
            old,
            &report::with_conditions(old, generation, &refused, &[], now),
        )
        .await?;
        return Ok(ctx.resync_later(&uid));
    }
    ctx.claims.record(domain, Finding::Valid);
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
        workers: &ctx.workers,
        session,
        quota: &ctx.gate.quota,
        request_limiter: &ctx.request_limiter,
        placement: &d.placement,
        domain,
        authorities: &d.authorities,
        old_conditions: &old.conditions,
        class: class(d, &observed, &plan, old, generation),
        since: waiting_since(old).unwrap_or(now),
        refused: &ctx.refusals(&uid, generation),
        longest_pause: ctx.refresh.of(&uid).medium,
        now,
    };
    let begun = Instant::now();
    let done = execute::execute(plan.actions(), &apply_context).await;
    timed(Stage::Execute, begun);
    ctx.remember_refusals(&uid, generation, done.refused);
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
            Requeue::AfterPause => ctx.after_pause(&uid, done.retry_at),
            Requeue::ResyncSoon => ctx.resync_soon(&uid),
            Requeue::ResyncLater => ctx.resync_later(&uid),
        },
    )
}

/// True when the operator writes to AWS for this domain.
fn writes(domain: &MtlsDomain) -> bool {
    domain.spec.management_policy != ManagementPolicy::Observe
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
) -> Result<View, Error> {
    let Permission { ctx, domain, now, .. } = *permission;
    let uid = domain.uid().unwrap_or_default();
    let state = ctx.update_state(&uid, |state| state.clone());
    let observe_context = ObserveContext {
        client: &ctx.client,
        workers: &ctx.workers,
        secrets: &ctx.secrets,
        config_maps: &ctx.config_maps,
        domain,
        probe: &ctx.probe,
        leaves: theirs.iter().flat_map(|c| leaves(c)).collect(),
        public_dns: &ctx.public_dns,
        versions: &state.versions,
        known_leaves: &state.leaves,
        pending_change: state.change.clone(),
    };
    let mut observed = observe::observe(d, reader, &observe_context, preflight).await;
    let in_place = contention::in_place(d, &observed);
    let generation = domain.metadata.generation.unwrap_or_default();
    observed.corrections = ctx.update_state(&uid, |state| {
        state.corrections.count(generation, in_place, &observed)
    });
    let (d, namespace) = (d.clone(), domain.namespace().unwrap_or_default());
    let planned = ctx.workers.run(&namespace, move |limit| {
        let plan = plan::plan(&d, &observed, now, &|| limit.is_over());
        View { observed, plan }
    });
    Ok(planned.await?)
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
pub(crate) enum InUse<'a> {
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

#[cfg(test)]
pub(crate) mod tests;
