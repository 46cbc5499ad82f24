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
        evaluation::{self, Decision},
        index::{self, GrantIndex},
    },
    runtime::{
        events::Events,
        reconcile::{self, Error},
        status_writer,
        watch::{Cached, Listed},
    },
    status::{
        Acceptance, ConditionStatus, StepCondition, StepStatus, conditions,
        text::{WHOLE, listed},
    },
    telemetry::{
        heartbeat::{self, Heartbeat},
        metrics::{self, Metrics},
    },
};

/// Time within which changes of many certificates lead to one reconcile.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// Maximum number of notes in a message.
const MOST_TOLD: usize = 10;
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
    let (by_certificate, by_grant) = (ctx.clone(), ctx.clone());
    let (by_domain, by_namespace) = (ctx.clone(), ctx.clone());
    let heartbeat = ctx.heartbeat.clone();
    heartbeat.record(metrics::Controller::Grant);
    Controller::for_shared_stream(watches.grants.subscribe(), ctx.grants.clone())
        .with_config(Config::default().debounce(DEBOUNCE))
        .watches_shared_stream(watches.certificates.subscribe_when(counted), move |c| {
            of_certificate(&c, &by_certificate)
        })
        // The change of a grant moves certificates from and to other grants.
        .watches_shared_stream(watches.grants.subscribe_when(index::change_predicate), move |g| {
            let domain = g.0.as_ref().ok().map(index::domain_of);
            domain.map(|key| of_domain(&key, &by_grant)).unwrap_or_default()
        })
        .watches_shared_stream(watches.domains.subscribe_when(|d| d.0.is_ok()), move |d| {
            let all = by_domain.grant_index.of(&ObjectId::of(&*d));
            all.iter().map(|g| ObjectRef::from_obj(&**g)).collect::<Vec<_>>()
        })
        .watches_shared_stream(
            watches.namespaces.subscribe_when(|n| n.labels().clone()),
            move |n| of_namespace(&n.name_any(), &by_namespace),
        )
        .reconcile_on(heartbeat::ticks())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, failed, ctx)
        .for_each(async |_| heartbeat.record(metrics::Controller::Grant))
        .await;
    heartbeat.end(metrics::Controller::Grant);
}

/// Returns the grants for this domain that allow other certificates than before.
fn of_domain(key: &ObjectId, ctx: &Ctx) -> Vec<ObjectRef<Cached<ClientGrant>>> {
    let changed = ctx.grant_index.changed_grants(key, Timestamp::now());
    changed.iter().map(ObjectId::to_ref).collect()
}

/// Returns the grants that a change of this certificate concerns: the grant that allows the certificate,
/// whose expiry it shows, and the grants of which a certificate takes or leaves a slot by the change.
fn of_certificate(c: &Cached<ClientCertificate>, ctx: &Ctx) -> Vec<ObjectRef<Cached<ClientGrant>>> {
    let Some(cert) = c.0.as_ref().ok().filter(|c| index::is_cross_namespace(c)) else {
        return vec![];
    };
    let key = cert.domain_id();
    let mut concerned = of_domain(&key, ctx);
    if let Some(Decision::Allowed(terms)) = ctx.grant_index.decide(cert, Timestamp::now()) {
        concerned.push(ObjectId::new(&key.namespace, terms.grant).to_ref());
    }
    concerned
}

/// Returns the grants that may select the namespace, and those that allow other certificates than before.
fn of_namespace(namespace: &str, ctx: &Ctx) -> Vec<ObjectRef<Cached<ClientGrant>>> {
    let names = |g: &Cached<ClientGrant>| {
        let names = g.0.as_ref().ok().map(|g| &g.spec.namespaces.names);
        names.is_some_and(|names| {
            names
                .as_ref()
                .is_none_or(|all| all.iter().any(|one| one == namespace))
        })
    };
    let grants = ctx.grants.state();
    let selecting = grants
        .iter()
        .filter(|g| names(g))
        .map(|g| ObjectRef::from_obj(&**g));
    let asked = ctx.grant_index.asked_by(namespace);
    selecting
        .chain(asked.iter().flat_map(|key| of_domain(key, ctx)))
        .collect()
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
    let key = index::domain_of(grant);
    let is_there = ctx.domains.get(&key.to_ref()).is_some();
    let covered = ctx.grant_index.covered(grant, now);
    // The expiry is for people only: a certificate's own status decides nothing.
    let expiries = covered
        .iter()
        .filter_map(|c| c.0.as_ref().ok()?.status.as_ref()?.not_after.clone());
    let labels = ctx.grant_index.labels(grant);
    if labels == Listed::NotYet {
        return Ok(Next::requeue(DEBOUNCE));
    }
    let (status, reason, message) = match (is_there, &labels) {
        (true, Listed::Failed(problem)) => (
            StepStatus::Unreachable,
            Reason::Unreachable,
            format!(
                "spec.namespaces.matchLabels: the operator cannot read the labels of namespaces ({problem}), \
                 so this grant allows no certificate. Permit the operator to list and watch Namespaces (in \
                 the chart: rbac.namespaceLabels), or name the namespaces in spec.namespaces.names"
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
    let mut notes = evaluation::futile_patterns(&grant.spec);
    if selects_none {
        notes.push("spec.namespaces: no namespace of the cluster has such a name and such labels".into());
    }
    if is_there && labels == Listed::Yes && !notes.is_empty() {
        let (type_, message) = (
            ConditionType::Ready,
            listed(notes.iter().map(String::as_str), MOST_TOLD, WHOLE),
        );
        conditions::set(
            &mut new.conditions,
            generation,
            type_,
            ConditionStatus::True,
            Reason::Ready,
            &message,
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
