//! One reconcile of an `MtlsDomain` that is being deleted: tears down its resources in AWS, deletes the
//! Secrets of its generated authorities, then removes the finalizer.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Resource, ResourceExt, runtime::controller::Action as Next};

use super::{
    access_request,
    context::Ctx,
    execute::{self, ApplyContext},
    observe,
    permission::Permission,
    quota_class::waiting_since,
    report::{
        self, Fate,
        step_conditions::{self, Outcome},
    },
    teardown,
};

use crate::{
    api::{MtlsDomain, MtlsDomainStatus, events::Notice},
    aws::{quota::Class, session::Session},
    dns::observe::zone_of_leftovers,
    model::{
        desired,
        placement::{self, Placement},
        step::{Step, StepPlan, StepState},
    },
    observation::{read_cache::AwsReader, seen},
    runtime::{apply, finalizer, reconcile::Error},
    status::Acceptance,
    trust::generated_authority::{AUTHORITY_LABEL, DOMAIN_LABEL},
};

/// Tears down the domain's resources in AWS, one pass at a time, and releases the domain when none is left.
pub(crate) async fn delete(
    domain: &MtlsDomain,
    placement: &Placement,
    permission: &Permission<'_>,
    session: &Session,
    old: &MtlsDomainStatus,
    ctx: &Ctx,
    now: Timestamp,
) -> Result<Next, Error> {
    let uid = domain.uid().unwrap_or_default();
    let generation = domain.metadata.generation.unwrap_or_default();
    let cache = ctx.cache.of(&placement::access(domain, permission.policy()));
    let reader = AwsReader::live(session, &cache);
    let zones = zone_of_leftovers(placement, &reader).await;
    let requests = [
        access_request::of(domain, placement, true),
        access_request::zones(&zones),
    ]
    .concat();
    if let Some(next) = permission.ends(&requests, zones.as_ref().err()).await? {
        return Ok(next);
    }
    let policy = domain.spec.deletion_policy;
    let mapped = desired::mappings(domain);
    let listed: Vec<_> = mapped.keys().cloned().collect();
    let leftovers = observe::leftovers(placement, &mapped, &reader, zones).await;
    let step_plan = teardown::teardown(
        placement,
        policy,
        domain.spec.rest_deployment,
        &listed,
        &leftovers,
    );
    if let StepPlan::Done(..) = step_plan {
        // Clients that a retained custom domain accepts may need a new certificate later: the authorities'
        // Secrets stay.
        if leftovers
            .domain
            .is_ok_and(|g| teardown::stays(placement, policy, g.as_ref()))
        {
            let note = format!(
                "the operator retains these AWS resources and has removed its ownership tag: {}",
                left(domain)
            );
            ctx.events
                .publish(&domain.object_ref(&()), Notice::Retained, "Delete", &note)
                .await;
        } else {
            delete_authorities(domain, ctx).await?;
        }
        return release(domain, ctx).await;
    }
    let apply_context = ApplyContext {
        client: &ctx.client,
        workers: &ctx.workers,
        session,
        quota: &ctx.gate.quota,
        request_limiter: &ctx.request_limiter,
        placement,
        domain,
        authorities: &[],
        old_conditions: &old.conditions,
        class: Class::SpecChange,
        since: waiting_since(old).unwrap_or(now),
        refused: &ctx.refusals(&uid, generation),
        longest_pause: ctx.refresh.of(&uid).medium,
        now,
    };
    let done = execute::execute(
        step_plan.actions().map(|a| (Step::DomainProgrammed, a)),
        &apply_context,
    )
    .await;
    let step_condition =
        step_conditions::deletion_condition(&step_plan, done.outcomes.get(&Step::DomainProgrammed));
    ctx.remember_refusals(&uid, generation, done.refused);
    let is_refused = seen::is_refused(step_condition.reason);
    let why = report::with_way_out(domain, step_condition.reason, &step_condition.message);
    let new = report::with_conditions(old, generation, &Acceptance::Accepted, &[step_condition], now);
    let fate = match &leftovers.domain {
        Ok(g) if teardown::stays(placement, policy, g.as_ref()) => Fate::Stay,
        Ok(_) => Fate::Deleted,
        Err(unseen) => Fate::Unknown(unseen),
    };
    let new = report::deleting(new, generation, &why, &fate, now);
    ctx.write(domain, old, &new).await?;
    if is_refused
        || matches!(
            step_plan,
            StepPlan::Pending(StepState::Wait(..) | StepState::Blocked(..), _)
        )
    {
        ctx.tell_of_waiting(domain, old, &new).await;
    }
    Ok(match &step_plan {
        _ if done.effects > 0 && done.outcomes.is_empty() => Next::requeue(Duration::ZERO),
        StepPlan::Pending(StepState::Blocked(..), _) => ctx.resync_later(&uid),
        // The quota queue triggers its reconcile.
        _ if done.outcomes.values().any(Outcome::is_queued) => ctx.resync_later(&uid),
        _ if done.retry_at.is_some() => ctx.after_pause(&uid, done.retry_at),
        _ => Next::requeue(ctx.backoff(&uid)),
    })
}

/// Releases a domain whose AWS resources a user has abandoned: nothing in AWS changes.
pub(crate) async fn abandon(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    let note = format!(
        "the operator deleted nothing in AWS, as the annotation {} requests; these resources may \
         remain: {}",
        finalizer::ABANDON,
        left(domain)
    );
    ctx.events
        .publish(&domain.object_ref(&()), Notice::Abandoned, "Delete", &note)
        .await;
    release(domain, ctx).await
}

/// Releases a domain that was only observed: nothing in AWS changes.
pub(crate) async fn leave(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    let note = format!(
        "managementPolicy is Observe: the operator deletes nothing in AWS; these resources may \
         remain: {}",
        left(domain)
    );
    ctx.events
        .publish(&domain.object_ref(&()), Notice::Retained, "Delete", &note)
        .await;
    release(domain, ctx).await
}

/// Removes the finalizer and drops the in-memory state. Usually no event follows: the API server deletes the
/// object with its last finalizer.
pub(crate) async fn release(domain: &MtlsDomain, ctx: &Ctx) -> Result<Next, Error> {
    finalizer::release(&ctx.client, domain).await?;
    ctx.forget(domain);
    Ok(Next::await_change())
}

/// Returns the AWS resources that the last status names, for an Event.
pub(crate) fn left(domain: &MtlsDomain) -> String {
    let status = domain.status.clone().unwrap_or_default();
    let all = [
        Some(format!(
            "the custom domain and the records of {}",
            domain.spec.domain_name
        )),
        status.certificate.map(|c| c.arn),
        status.truststore.map(|t| t.uri),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Deletes the Secrets of generated authorities. They have no owner reference, so that only this function
/// deletes them.
async fn delete_authorities(domain: &MtlsDomain, ctx: &Ctx) -> Result<(), Error> {
    let selector = format!("{DOMAIN_LABEL}={},{AUTHORITY_LABEL}", domain.name_any());
    let namespace = domain.namespace().expect("MtlsDomain is namespaced");
    for secret in apply::labelled_secrets(&ctx.client, &namespace, &selector).await? {
        apply::delete_secret(&ctx.client, &secret).await?;
    }
    Ok(())
}
