//! One look at an `MtlsDomain` that is to be served: observe, plan, execute, report, and when to look again. Writes its status and Events.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action as Next, reflector::ObjectRef},
};

use super::{
    controller::Ctx,
    desired::Desired,
    execute::{self, Hands},
    observe::{self, Eyes},
    observed::{Leaf, LeafIssuer, Observed, Pinned},
    permission::Permission,
    plan::{self, Action, Plan, Verdict},
    reach, report,
};
use crate::{
    api::{
        ManagementPolicy, MtlsDomainStatus,
        conditions::{ConditionType, Reason},
    },
    aws::{gateway::DomainStatus, quota::Class, session::Session},
    certificate,
    cluster::{finalizer, look::Error},
    ops::metrics::{Controller, Stage},
};

pub(super) async fn serve(
    d: &Desired,
    theirs: &[Arc<certificate::controller::Guard>],
    permission: &Permission<'_>,
    session: &Session,
) -> Result<Next, Error> {
    let Permission { ctx, domain, old, now, .. } = *permission;
    let uid = domain.uid().unwrap_or_default();
    let generation = domain.metadata.generation.unwrap_or_default();
    let observing = domain.spec.management_policy == ManagementPolicy::Observe;
    let timed = |stage, since: Instant| ctx.metrics.stage(Controller::Domain, stage, since.elapsed());
    let begun = Instant::now();
    let glance = observe::glance(d, session).await;
    let reach = [reach::of(domain, &d.home, false), reach::found(domain, &glance)].concat();
    let unseen = glance.zones.as_ref().err().or_else(|| glance.apis.values().find_map(|api| api.as_ref().err()));
    if let Some(next) = permission.ends(&reach, unseen).await? {
        return Ok(next);
    }
    if !observing {
        // Before anything is written to AWS: that it is ours to clean up, and where.
        finalizer::hold(&ctx.client, domain, Some(&d.home.place())).await?;
    }
    let memory = ctx.remember(&uid, |m| m.clone());
    let eyes = Eyes {
        client: &ctx.client,
        probe: &ctx.probe,
        leaves: theirs.iter().flat_map(|c| leaves(c)).collect(),
        public_dns: &ctx.public_dns,
        versions: &memory.versions,
        pending_change: memory.change.clone(),
    };
    let mut observed = observe::observe(d, session, &eyes, glance).await;
    timed(Stage::Observe, begun);
    let in_place = plan::identity::in_place(d, &observed);
    observed.repairs = ctx.remember(&uid, |m| m.repairs.count(generation, in_place, &observed));
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
    let begun = Instant::now();
    let done = execute::execute(plan.actions(), &hands).await;
    timed(Stage::Execute, begun);
    if let Some(change) = &done.change {
        ctx.remember(&uid, |m| m.change = Some(change.clone()));
    }
    let begun = Instant::now();
    let new = report::report(old, generation, &d.home, &plan, &observed, &done.outcomes, now);
    let new = report::with_bypasses(new, generation, bypasses.as_deref(), now);
    ctx.write(domain, old, &new).await?;
    for (notice, message) in report::notices(old, &new, &d.home, &plan, &observed, now) {
        ctx.events.publish(&domain.object_ref(&()), notice, "Watch", &message).await;
    }
    timed(Stage::Report, begun);
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
pub(super) fn queued_since(old: &MtlsDomainStatus) -> Option<Timestamp> {
    let queued = old
        .conditions
        .iter()
        .find(|c| c.reason == Reason::Queued.as_str() && c.type_ == ConditionType::DomainProgrammed.as_str());
    queued.map(|c| c.last_transition_time.0)
}
