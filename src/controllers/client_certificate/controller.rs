//! Controller of `ClientCertificate` objects. It runs the stages of a reconcile one after the other. It
//! requeues a certificate when its Secret, its issuer or its domain's trust changes, and at the time of the
//! next due step.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, unbounded},
    stream,
};
use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::{Controller, controller::Action as Next, reflector::ObjectRef},
};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{self, Admission, Admitted, Facts, next_reconcile},
    apply::{Outcome, apply, contested, made, pending},
    context::Ctx,
    mappers::{
        change_predicate, conflicting, is_there, of_domain, of_grant, of_namespace, sharing_slots,
        touched_by, when_due,
    },
    report::{self, Leaf},
};

use crate::{
    api::{
        ClientCertificate,
        conditions::{ConditionType, Reason},
        events::{EventReason, Notice},
        object_id::ObjectId,
    },
    controllers::watches::Watches,
    grants::index,
    issuance::{
        action::Action,
        desired::Desired,
        execute::{self, ApplyContext},
        observe::{self, ObserveContext},
        observed::Past,
        pace,
        plan::{self, conditions_after_issue},
    },
    pki::inspect,
    runtime::{
        reconcile::{self, Error},
        watch::Cached,
    },
    status::{Acceptance, StepCondition, StepStatus},
    telemetry::{heartbeat, logging, metrics},
};

/// Maximum number of concurrent ClientCertificate reconciles.
pub const AT_ONCE: usize = 32;

/// Runs the controller until `stop`, and finishes running reconciles first. `trust_changes`: domains whose
/// trust has changed.
pub async fn run(
    ctx: Arc<Ctx>,
    watches: &Watches,
    trust_changes: UnboundedReceiver<ObjectId>,
    stop: CancellationToken,
) {
    let (by_domain, by_conflict, by_secret, by_trust) = (ctx.clone(), ctx.clone(), ctx.clone(), ctx.clone());
    let (by_grant, by_namespace) = (ctx.clone(), ctx.clone());
    let deletions = watches
        .certificates
        .subscribe()
        .take_until(stop.clone().cancelled_owned());
    let deletions = deletions.for_each(|c| tell_of_deletion(c, &ctx));
    let trusts = trust_changes.flat_map(move |key| stream::iter(of_domain(&by_trust, &key)));
    let (used, heartbeat) = (ctx.clone(), ctx.heartbeat.clone());
    heartbeat.record(metrics::Controller::Certificate);
    // The mapper of shared slots gets its certificates from this stream too: a subscriber of its own would
    // keep the state of each of thousands of certificates a second time.
    let (share_slots, sharing) = unbounded();
    let certificates = watches
        .certificates
        .subscribe_when(change_predicate)
        .inspect(move |c| {
            index_secrets(c, &used);
            let _ = share_slots.unbounded_send(c.clone());
        });
    let controller = Controller::for_shared_stream(certificates, ctx.certificates.clone())
        .watches_shared_stream(
            watches.domains.subscribe_when(|d| {
                d.0.as_ref()
                    .ok()
                    .map(|d| (d.metadata.generation, d.metadata.deletion_timestamp.is_some()))
            }),
            move |d| of_domain(&by_domain, &ObjectId::of(&*d)),
        )
        // The deletion of a certificate may free a subject.
        .watches_shared_stream(watches.certificates.subscribe(), move |c| {
            conflicting(&c, &by_conflict)
        })
        .reconcile_on(sharing_slots(sharing, ctx.clone()))
        .watches_shared_stream(watches.grants.subscribe_when(index::change_predicate), move |g| {
            of_grant(&g, &by_grant)
        })
        .watches_shared_stream(
            watches.namespaces.subscribe_when(|n| n.labels().clone()),
            move |n| of_namespace(&n.name_any(), &by_namespace),
        )
        .watches_shared_stream(watches.secrets.subscribe(), move |secret| {
            touched_by(&by_secret, &secret)
        })
        .reconcile_on(trusts)
        .reconcile_on(when_due(ctx.clone()))
        .reconcile_on(heartbeat::ticks())
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, failed, ctx.clone())
        .for_each(async |_| heartbeat.record(metrics::Controller::Certificate));
    tokio::join!(controller, deletions, async {
        stop.cancelled().await;
        ctx.concurrency.close();
    });
    heartbeat.end(metrics::Controller::Certificate);
}

/// Updates the index before the reconcile, so that the controller misses no later change of a Secret.
fn index_secrets(c: &Cached<ClientCertificate>, ctx: &Ctx) {
    let Ok(cert) = &c.0 else { return };
    if is_there(c, ctx) {
        ctx.secret_index.add(cert)
    } else {
        ctx.secret_index.remove(cert)
    }
}

/// Publishes an Event about the copies of a deleted certificate that the domain still accepts. The object has
/// no finalizer and no longer exists, so that only this Event reports them.
async fn tell_of_deletion(c: Arc<Cached<ClientCertificate>>, ctx: &Ctx) {
    let Ok(cert) = &c.0 else { return };
    if is_there(&c, ctx) {
        return;
    }
    ctx.states
        .lock()
        .expect("no holder of the lock panics")
        .remove(&cert.uid().unwrap_or_default());
    ctx.due_queue.remove(&cert.uid().unwrap_or_default());
    if let Some(note) = report::after_deletion(cert, Timestamp::now()) {
        ctx.events
            .publish(&cert.object_ref(&()), Notice::StillAccepted, "Delete", &note)
            .await;
    }
}

pub(crate) fn failed(object: Arc<Cached<ClientCertificate>>, error: &Error, ctx: Arc<Ctx>) -> Next {
    reconcile::after_failure(&object, error, || ctx.retry(&object.uid().unwrap_or_default()))
}

async fn reconcile(object: Arc<Cached<ClientCertificate>>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let Some(_permit) = ctx
        .concurrency
        .acquire(object.meta().namespace.as_deref().unwrap_or_default())
        .await
    else {
        return Ok(Next::await_change());
    };
    // The object may have changed, or been deleted, while this reconcile waited for its permit.
    let Some(object) = ctx.certificates.get(&ObjectRef::from_obj(&*object)) else {
        return Ok(Next::await_change());
    };
    let started = Instant::now();
    let result = reconcile::with_deadline(&object, |cert| reconcile_certificate(cert, &ctx)).await;
    ctx.metrics.reconciled(
        metrics::Controller::Certificate,
        result.as_ref().err().map(Error::category),
        started.elapsed(),
    );
    result
}

async fn reconcile_certificate(cert: &ClientCertificate, ctx: &Ctx) -> Result<Next, Error> {
    let now = Timestamp::now();
    let key = cert.domain_id();
    let found = ctx.domains.get(&key.to_ref());
    let trust = ctx.active_trust.trust(&key);
    let decision = admission::admission(&Facts {
        cert,
        is_behind: ctx.is_behind(cert),
        decision: &|| ctx.grant_index.announce(cert, now),
        grants: &|cert| ctx.grant_index.decide(cert, now),
        are_labels_pending: &|| ctx.grant_index.are_labels_pending(cert),
        domain: found.as_ref().and_then(|d| d.0.as_ref().ok()),
        is_trust_known: ctx.active_trust.is_known(&key),
        trust: trust.as_ref(),
        all: &|| ctx.certificates.state(),
        since_start: ctx.started.elapsed(),
        now,
    });
    let generation = cert.metadata.generation.unwrap_or_default();
    let old = cert.status.clone().unwrap_or_default();
    let say = async |acceptance: &Acceptance, step_conditions: &[StepCondition], leaf: Option<Leaf<'_>>| {
        ctx.write(
            cert,
            &old,
            &report::report(&old, generation, acceptance, step_conditions, leaf, now),
        )
        .await
    };
    let uid = cert.uid().unwrap_or_default();
    let admitted = match decision {
        Admission::Ignored => return Ok(Next::await_change()),
        Admission::Wait(delay) => return Ok(Next::requeue(delay)),
        Admission::Refused(refused) => {
            say(&refused, &[], None).await?;
            return Ok(Next::await_change());
        }
        Admission::Admitted(admitted) => *admitted,
    };
    let Admitted {
        d,
        acceptance: accepted,
        terms,
        domain,
    } = admitted;
    let secret = ctx
        .secrets
        .get(&ObjectId::new(&d.namespace, &d.secret_name).to_ref());
    let version = secret.and_then(|secret| secret.resource_version());
    let past = Past {
        last_revision: old.revision.unwrap_or_default(),
        superseded: report::superseded(&old),
        pace: ctx.pace(&uid, version.as_ref(), now),
    };
    let observe_context = ObserveContext {
        client: &ctx.client,
        secrets: &ctx.secrets,
        signing_keys: &ctx.signing_keys,
    };
    let observed = observe::observe(&d, domain, trust, past, &observe_context).await?;
    let plan = plan::plan(&d, &observed, ctx.propagation, now);
    let apply_context = ApplyContext {
        cert,
        d: &d,
        password: observed.password.as_ref().and_then(|p| p.as_ref().ok()),
        client: &ctx.client,
        workers: &ctx.workers,
    };
    if let (Some(Err(problem)), Some(true)) = (
        &observed.password,
        observed.secret.as_ref().map(|held| held.has_keystore),
    ) && !report::issued_says(&old, &problem.message)
    {
        let (note, notice) = (&problem.message, Notice::KeystorePasswordMissing);
        ctx.events
            .publish(&cert.object_ref(&()), notice, "Issue", note)
            .await;
    }
    let done = match apply(&apply_context, &plan, &observed, now).await {
        // Another writer wrote the Secret first: reconcile again with the written Secret.
        Err(execute::Error::Kubernetes(error)) if error.is_conflict() => {
            return Ok(Next::requeue(ctx.retry(&uid)));
        }
        done => done,
    };
    match &done {
        Ok(Outcome::Completed) => ctx.change_pace(&uid, |pace| pace.completed(generation, now)),
        Ok(outcome) => {
            if let Some(cause) = made(outcome, &plan, &d, &observed) {
                ctx.change_pace(&uid, |pace| pace.issued(cause, now));
            }
        }
        Err(_) => {}
    }
    if let (Ok(_), Some(Action::Stage { revision: 2.. }), true) = (&done, &plan.action, d.self_signed) {
        let note = "the subject of the next certificate has another serialNumber (2.5.4.5), since API \
                    Gateway takes a subject only once: back ends should match the CN";
        ctx.events
            .publish(&cert.object_ref(&()), Notice::SubjectChanges, "Renew", note)
            .await;
    }
    match done {
        // The next reconcile reports that the staged certificate waits for the truststore, or sends the
        // request with the staged key.
        Ok(Outcome::Done) if matches!(plan.action, Some(Action::Stage { .. })) => {
            Ok(Next::requeue(Duration::ZERO))
        }
        Ok(Outcome::Issued {
            leaf,
            revision,
            version,
        }) => {
            ctx.update_state(&uid, |m| m.wrote_secret = version);
            let renewal = inspect::renewal_time(&leaf, d.renew_before);
            let step_conditions = conditions_after_issue(&d, observed.trust.as_ref(), &leaf);
            let secret = d.secret_name.as_str();
            say(
                &accepted,
                &step_conditions,
                Some(Leaf {
                    certificate: &leaf,
                    renewal,
                    revision,
                    secret,
                }),
            )
            .await?;
            if let Some(note) = report::after_renewal(&old, &leaf) {
                ctx.events
                    .publish(&cert.object_ref(&()), Notice::Renewed, "Renew", &note)
                    .await;
            }
            ctx.succeeded(&uid);
            Ok(ctx.requeue_at(&uid, next_reconcile(Some(renewal), &terms, now), now))
        }
        Ok(outcome) => {
            let mut wait = plan.wait;
            let (step_conditions, next) = match outcome {
                Outcome::Contested(until) => {
                    wait = pace::postponed(&d, &observed, until, now);
                    (contested(plan.step_conditions, wait.as_ref()), Some(until))
                }
                Outcome::Pending => (
                    pending(plan.step_conditions, plan.leaf.as_ref()),
                    Some(now + plan::ASK_AGAIN),
                ),
                _ => (plan.step_conditions, plan.requeue_at.or(plan.renewal)),
            };
            let leaf_serves = step_conditions.iter().all(|c| c.status == StepStatus::Done);
            let revision = observed.revision();
            let leaf = plan.leaf.as_ref().zip(plan.renewal);
            let secret = d.secret_name.as_str();
            let leaf = leaf.map(|(certificate, renewal)| Leaf {
                certificate,
                renewal,
                revision,
                secret,
            });
            say(&accepted, &step_conditions, leaf).await?;
            // The wait of a renewal does not change Ready, so that no other Event reports it.
            let wait = wait.filter(|wait| leaf_serves && !report::issued_says(&old, &wait.message));
            let reason = wait
                .as_ref()
                .and_then(|wait| EventReason::of_condition(wait.reason?));
            if let (Some(reason), Some(wait)) = (reason, wait) {
                ctx.events
                    .publish(&cert.object_ref(&()), reason, "Renew", &wait.message)
                    .await;
            }
            ctx.succeeded(&uid);
            Ok(ctx.requeue_at(&uid, next_reconcile(next, &terms, now), now))
        }
        Err(error) => {
            let message = describe(&error, &d);
            tracing::warn!(certificate = %cert.name_any(), error = %logging::chain(&error), "not issued");
            let failed = |step_condition: StepCondition| match step_condition.type_ {
                ConditionType::Issued => {
                    plan::after_failure(step_condition, plan.leaf.as_ref(), error.lasting(), &message)
                }
                _ => step_condition,
            };
            let step_conditions: Vec<_> = plan.step_conditions.into_iter().map(failed).collect();
            say(&accepted, &step_conditions, None).await?;
            // Publishes an Event for each new failure message. A failed renewal does not change Ready, so no
            // other Event reports it. A rejected Secret does.
            let is_reported = error.lasting() == Some(Reason::SecretRejected);
            if !is_reported && !report::issued_says(&old, &message) {
                ctx.events
                    .publish(&cert.object_ref(&()), Notice::NotIssued, "Issue", &message)
                    .await;
            }
            Ok(Next::requeue(ctx.retry(&uid)))
        }
    }
}

fn describe(error: &execute::Error, d: &Desired) -> String {
    if let execute::Error::Kubernetes(error) = error
        && let Some(rejection) = error.rejection()
    {
        return rejection;
    }
    use std::error::Error as _;
    let cause = error.source().map(|s| format!(": {s}")).unwrap_or_default();
    format!("cannot issue into the Secret {}: {error}{cause}", d.secret_name)
}

#[cfg(test)]
mod tests;
