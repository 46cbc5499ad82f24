//! Controller of `ClientGrant`: reports whether its domain exists and which certificates use the grant.
//! Writes its status and Events, and nothing else.

use std::{hash::Hash, sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt,
    runtime::{
        Controller,
        controller::{Action as Next, Config},
        reflector::{ObjectRef, Store},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        ClientCertificate, ClientGrant, ClientGrantStatus, MtlsDomain,
        conditions::{ConditionType, Reason},
        object_id::ObjectId,
    },
    controllers::watches::Watches,
    grants::{
        evaluation::Decision,
        index::{self, GrantIndex},
    },
    runtime::{
        events::Events,
        reconcile::{self, Error},
        status_writer,
        watch::{Cached, Listed},
    },
    status::{Acceptance, ConditionStatus, StepCondition, StepStatus, conditions},
    telemetry::{
        heartbeat::{self, Heartbeat},
        metrics::{self, Metrics},
    },
};

/// Time within which changes of many certificates lead to one reconcile.
const DEBOUNCE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);
/// Maximum time until the next reconcile.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

pub struct Ctx {
    pub client: Client,
    pub events: Events,
    pub metrics: Metrics,
    pub heartbeat: Heartbeat,
    pub grants: Store<Cached<ClientGrant>>,
    pub domains: Store<Cached<MtlsDomain>>,
    pub grant_index: Arc<GrantIndex>,
}

/// Runs until `stop`; finishes the reconciles that are under way.
pub async fn run(ctx: Arc<Ctx>, watches: &Watches, stop: CancellationToken) {
    let (by_certificate, by_domain, by_namespace) = (ctx.clone(), ctx.clone(), ctx.clone());
    let heartbeat = ctx.heartbeat.clone();
    heartbeat.record(metrics::Controller::Grant);
    let refs = |all: Vec<Arc<Cached<ClientGrant>>>| {
        all.into_iter()
            .map(|g| ObjectRef::from_obj(&*g))
            .collect::<Vec<_>>()
    };
    Controller::for_shared_stream(watches.grants.subscribe(), ctx.grants.clone())
        .with_config(Config::default().debounce(DEBOUNCE))
        .watches_shared_stream(watches.certificates.subscribe_when(counted), move |c| {
            let cross_namespace = c.0.as_ref().ok().filter(|c| index::is_cross_namespace(c));
            cross_namespace
                .map(|c| refs(by_certificate.grant_index.of(&c.domain_id())))
                .unwrap_or_default()
        })
        .watches_shared_stream(watches.domains.subscribe_when(|d| d.0.is_ok()), move |d| {
            refs(by_domain.grant_index.of(&ObjectId::of(&*d)))
        })
        .watches_shared_stream(
            watches.namespaces.subscribe_when(|n| n.labels().clone()),
            move |_| refs(by_namespace.grants.state()),
        )
        .reconcile_on(heartbeat::ticks())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, failed, ctx)
        .for_each(async |_| heartbeat.record(metrics::Controller::Grant))
        .await;
    heartbeat.end(metrics::Controller::Grant);
}

/// Hash of the facts of a certificate that a grant counts, or that may move the certificate from one grant to
/// another.
fn counted(c: &Cached<ClientCertificate>) -> Option<impl Hash + use<>> {
    let c = c.0.as_ref().ok()?;
    let status = c.status.as_ref();
    let mut conditions = status.iter().flat_map(|s| &s.conditions);
    let accepted = conditions
        .find(|c| c.type_ == ConditionType::Accepted.as_str())
        .map(|c| c.message.clone());
    let not_after = status.and_then(|s| s.not_after.as_ref()).map(|t| t.0);
    Some((
        c.metadata.generation,
        c.metadata.deletion_timestamp.is_some(),
        not_after,
        accepted,
    ))
}

fn failed(object: Arc<Cached<ClientGrant>>, error: &Error, _: Arc<Ctx>) -> Next {
    reconcile::after_failure(&object, error, || RETRY)
}

async fn reconcile(object: Arc<Cached<ClientGrant>>, ctx: Arc<Ctx>) -> Result<Next, Error> {
    let started = std::time::Instant::now();
    let result = reconcile::with_deadline(&object, |grant| reconcile_grant(grant, &ctx)).await;
    ctx.metrics.reconciled(
        metrics::Controller::Grant,
        result.as_ref().err().map(Error::category),
        started.elapsed(),
    );
    result
}

async fn reconcile_grant(grant: &ClientGrant, ctx: &Ctx) -> Result<Next, Error> {
    let now = Timestamp::now();
    let key = ObjectId::new(grant.namespace().unwrap_or_default(), &grant.spec.domain_ref.name);
    let is_there = ctx.domains.get(&key.to_ref()).is_some();
    let by_it =
        |decision: &Decision| matches!(decision, Decision::Allowed(terms) if terms.grant == grant.name_any());
    let all = ctx.grant_index.of_domain(&key, now);
    let covered: Vec<_> = all
        .iter()
        .filter(|(_, decision)| by_it(decision))
        .filter_map(|(c, _)| c.0.as_ref().ok())
        .collect();
    // The expiry is for people only: a certificate's own status decides nothing.
    let expiries = covered
        .iter()
        .filter_map(|c| c.status.as_ref()?.not_after.clone());
    let labels = ctx.grant_index.labels(grant);
    if labels == Listed::NotYet {
        return Ok(Next::requeue(DEBOUNCE));
    }
    let (status, reason, message) = match (is_there, &labels) {
        (true, Listed::Failed(problem)) => (
            StepStatus::Unreachable,
            Reason::Unreachable,
            format!(
                "spec.namespaces.matchLabels: the operator cannot read the labels of namespaces ({problem}), so \
                 this grant allows no certificate. Permit the operator to list and watch Namespaces (in the \
                 chart: rbac.namespaceLabels), or name the namespaces in spec.namespaces.names"
            ),
        ),
        (true, _) => (
            StepStatus::Done,
            Reason::ResolvedRefs,
            "the MtlsDomain is there".to_owned(),
        ),
        (false, _) => (
            StepStatus::Blocked,
            Reason::RefNotFound,
            format!("there is no MtlsDomain {} in this namespace", key.name),
        ),
    };
    let step_condition = StepCondition {
        type_: ConditionType::ResolvedRefs,
        status,
        reason,
        message,
    };
    let old = grant.status.clone().unwrap_or_default();
    let generation = grant.metadata.generation.unwrap_or_default();
    let selects_none = is_there && ctx.grant_index.is_for_nobody(grant);
    let mut new = ClientGrantStatus {
        observed_generation: Some(generation),
        conditions: conditions::write(
            &old.conditions,
            generation,
            &Acceptance::Accepted,
            &[step_condition],
            now,
        ),
        certificates: Some(u32::try_from(covered.len()).unwrap_or(u32::MAX)),
        latest_expiry: expiries.max_by_key(|t| t.0),
    };
    if selects_none {
        let (type_, message) = (
            ConditionType::Ready,
            "spec.namespaces: no namespace of the cluster has such a name and such labels",
        );
        conditions::set(
            &mut new.conditions,
            generation,
            type_,
            ConditionStatus::True,
            Reason::Ready,
            message,
            now,
        );
    }
    status_writer::write(&ctx.client, grant, &old, &new).await?;
    ctx.events
        .publish_ready(&grant.object_ref(&()), &old.conditions, &new.conditions)
        .await;
    if labels != Listed::Yes {
        return Ok(Next::requeue(RETRY)); // no event tells when the labels become readable
    }
    let end = grant
        .spec
        .not_after
        .as_ref()
        .map(|t| t.0)
        .filter(|end| now < *end);
    Ok(
        match end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()) {
            Some(left) => Next::requeue(left.clamp(DEBOUNCE, LONGEST_SLEEP)),
            None => Next::await_change(),
        },
    )
}
