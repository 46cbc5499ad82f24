//! One look at an `MtlsDomain` that is to be served: observe, plan, execute, report, and when to look again. Writes its status and Events.
use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action as Next, reflector::ObjectRef},
};
use tokio::time::Instant;

use super::{
    controller::Ctx,
    desired::{self, Desired, Refused},
    execute::{self, Hands},
    observe::{self, Eyes},
    observed::{Glance, Leaf, LeafIssuer, Observed, Pinned},
    permission::Permission,
    plan::{self, Action, Plan, Verdict},
    reach,
    readings::Sight,
    report::{self, Outcome},
};
use crate::{
    api::{
        ManagementPolicy, MtlsDomain, MtlsDomainStatus,
        conditions::{ConditionType, Reason},
    },
    aws::{gateway::DomainStatus, quota::Class, session::Session},
    certificate,
    cluster::{finalizer, look::Error},
    conditions::{Acceptance, Truth},
    ops::metrics::{Controller, Stage},
    policy::Reach,
};

/// What is there, and what is to be done about it.
struct View {
    observed: Observed,
    plan: Plan,
}

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
    let kept = ctx.readings.of(&desired::access(domain, permission.policy()));
    // What was read before will do as long as it shows that nothing is to be done: whatever else it shows is looked at anew.
    let quiet = ctx.remember(&uid, |m| m.quiet_since).filter(|(of, _)| *of == generation);
    let calm = match quiet {
        Some((_, since)) => {
            let sight = Sight::calm(session, &kept, ctx.tiers.of(&uid), since);
            let glance = observe::glance(d, &sight).await;
            match permission.allows(&reached(d, domain, &glance)) {
                true => Some(view(d, theirs, permission, &sight, glance).await).filter(|view| is_quiet(&view.plan)),
                false => None,
            }
        }
        None => None,
    };
    // There were no news after all: kept readings are of no use here, for whatever reason.
    let in_vain = quiet.is_some() && calm.is_none();
    let View { observed, plan } = match calm {
        Some(view) => view,
        None => {
            let (sight, began) = (Sight::fresh(session, &kept), Instant::now());
            let glance = observe::glance(d, &sight).await;
            let unseen =
                glance.zones.as_ref().err().or_else(|| glance.apis.values().find_map(|api| api.as_ref().err()));
            if let Some(next) = permission.ends(&reached(d, domain, &glance), unseen).await? {
                return Ok(next);
            }
            let view = view(d, theirs, permission, &sight, glance).await;
            // Before anything is done: what was read until then is old news from then on.
            ctx.remember(&uid, |m| m.quiet_since = is_quiet(&view.plan).then_some((generation, began)));
            view
        }
    };
    timed(Stage::Observe, begun);
    let created = domain.creation_timestamp().map(|t| t.0);
    if let Some(Refused { reason, message }) = plan::without_trust(d, &observed, created, now) {
        tell_served(d, &observed, &plan, ctx);
        ctx.bypasses.forget(&(d.home.namespace.clone(), d.home.name.clone()));
        let refused = Acceptance::Refused { reason, message, stalled: false };
        ctx.write(domain, old, &report::with_conditions(old, generation, &refused, &[], now)).await?;
        return Ok(ctx.settled(&uid));
    }
    if !observing {
        // Before anything is written to AWS: that it is ours to clean up, and where.
        finalizer::hold(&ctx.client, domain, Some(&d.home.place())).await?;
    }
    if observed.records_in_sync == Ok(true) {
        ctx.remember(&uid, |m| m.change = None);
    }
    tell_served(d, &observed, &plan, ctx);
    let next = || if is_quiet(&plan) && !in_vain { ctx.quiet(&uid) } else { ctx.settled(&uid) };
    let key = (d.home.namespace.clone(), d.home.name.clone());
    let bypasses = ctx.bypasses.of(&key, session, &d.home.domain_name, d.mappings.values().map(|m| m.id.clone()));
    if observing {
        let new = report::observing(old, generation, &d.home, &plan, &observed, now);
        let new = report::with_bypasses(new, generation, bypasses.as_deref(), now);
        ctx.write(domain, old, &new).await?;
        return Ok(next());
    }
    let hands = Hands {
        client: &ctx.client,
        session,
        quota: &ctx.gate.quota,
        allowance: &ctx.allowance,
        home: &d.home,
        domain,
        authorities: &d.authorities,
        said: &old.conditions,
        class: class(d, &observed, &plan, old, generation),
        since: waiting_since(old).unwrap_or(now),
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
    // Whoever stands in a line is woken: asking again and again would keep those from their calls whose turn it is.
    let passes = |outcome: &Outcome| report::passes(outcome) && !outcome.is_queued();
    let is_missing = done.outcomes.values().any(report::is_missing);
    Ok(if done.effects > 0 {
        ctx.remember(&uid, |m| m.polls = 0);
        Next::requeue(Duration::ZERO)
    } else if !waits && done.outcomes.values().filter(|outcome| passes(outcome)).all(report::is_missing) && is_missing {
        Next::requeue(ctx.poll_seldom(&uid))
    } else if waits || done.outcomes.values().any(passes) {
        Next::requeue(ctx.poll(&uid))
    } else {
        next()
    })
}

/// Whether everything is as it should be.
fn is_quiet(plan: &Plan) -> bool {
    let is_fine = |verdict: &Verdict| verdict.is_done() || matches!(verdict, Verdict::Blocked(Reason::KeptOpen, _));
    plan.actions().next().is_none() && plan.steps.values().all(|judged| is_fine(&judged.verdict))
}

/// What the operator's policy has to allow.
fn reached(d: &Desired, domain: &MtlsDomain, glance: &Glance) -> Vec<Reach> {
    [reach::of(domain, &d.home, false), reach::found(domain, glance)].concat()
}

async fn view(
    d: &Desired,
    theirs: &[Arc<certificate::controller::Guard>],
    permission: &Permission<'_>,
    sight: &Sight<'_>,
    glance: Glance,
) -> View {
    let Permission { ctx, domain, now, .. } = *permission;
    let uid = domain.uid().unwrap_or_default();
    let memory = ctx.remember(&uid, |m| m.clone());
    let eyes = Eyes {
        client: &ctx.client,
        domain,
        probe: &ctx.probe,
        leaves: theirs.iter().flat_map(|c| leaves(c)).collect(),
        public_dns: &ctx.public_dns,
        versions: &memory.versions,
        pending_change: memory.change.clone(),
    };
    let mut observed = observe::observe(d, sight, &eyes, glance).await;
    let in_place = plan::identity::in_place(d, &observed);
    let generation = domain.metadata.generation.unwrap_or_default();
    observed.repairs = ctx.remember(&uid, |m| m.repairs.count(generation, in_place, &observed));
    let plan = plan::plan(d, &observed, now);
    View { observed, plan }
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
fn tell_served(d: &Desired, o: &Observed, plan: &Plan, ctx: &Ctx) {
    let key = (d.home.namespace.clone(), d.home.name.clone());
    match (&o.domain, &o.pinned) {
        (Ok(Some(g)), Ok(Some(pinned))) if g.status != DomainStatus::Updating => {
            let without_room = plan.truststore.as_ref().map(|compiled| &compiled.without_room);
            ctx.served.set(&key, Some(&pinned.bundle), without_room, Timestamp::now())
        }
        (Ok(None), _) => ctx.served.set(&key, None, None, Timestamp::now()),
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

/// Since when the domain has not been as it should be, for all that is known: its place in the line, also across a restart.
pub(super) fn waiting_since(old: &MtlsDomainStatus) -> Option<Timestamp> {
    let programmed = old.conditions.iter().find(|c| c.type_ == ConditionType::DomainProgrammed.as_str());
    programmed.filter(|c| c.status == Truth::Unknown.as_str()).map(|c| c.last_transition_time.0)
}

/// Whether it stood in the line when its status was written.
pub(super) fn is_queued(old: &MtlsDomainStatus) -> bool {
    let is_it =
        |c: &Condition| c.type_ == ConditionType::DomainProgrammed.as_str() && c.reason == Reason::Queued.as_str();
    old.conditions.iter().any(is_it)
}
