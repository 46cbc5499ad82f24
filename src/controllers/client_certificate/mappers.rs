//! Mappers from a change of an object to the ClientCertificates to reconcile. They read only the stores of
//! the watches.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, channel::mpsc::UnboundedReceiver, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt, api::PartialObjectMeta, runtime::reflector::ObjectRef};

use super::context::Ctx;

use crate::{
    api::{ClientCertificate, ClientGrant, Issuance, MtlsDomain, object_id::ObjectId},
    grants::index::is_cross_namespace,
    issuance::desired::RENEW,
    model::authorities,
    runtime::watch::Cached,
};

/// Interval at which the operator reads the due certificates from the
/// [`DueQueue`](super::due_queue::DueQueue).
const DUE: Duration = Duration::from_secs(5);
/// Time within which several changes of slots count as one change.
const GATHER: Duration = Duration::from_secs(1);
/// Maximum number of certificates with shared slots that are requeued at once; the next batch follows after
/// [`PAUSE`].
const FEW: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) fn change_predicate(c: &Cached<ClientCertificate>) -> Option<(Option<i64>, bool, Option<String>)> {
    let meta = &c.0.as_ref().ok()?.metadata;
    let renew = meta.annotations.as_ref().and_then(|a| a.get(RENEW)).cloned();
    Some((meta.generation, meta.deletion_timestamp.is_some(), renew))
}

/// Returns the other self-signed certificates of the domain when a self-signed certificate is deleted.
pub(crate) fn conflicting(
    going: &Cached<ClientCertificate>,
    ctx: &Ctx,
) -> Vec<ObjectRef<Cached<ClientCertificate>>> {
    let goes = going.meta().deletion_timestamp.is_some() || !is_there(going, ctx);
    let Ok(changed) = &going.0 else { return vec![] };
    if !goes || changed.spec.issuance != Issuance::SelfSigned {
        return vec![];
    }
    those(ctx, |c| {
        c.spec.issuance == Issuance::SelfSigned
            && c.domain_id() == changed.domain_id()
            && c.uid() != changed.uid()
    })
}

/// Requeues the certificates that get another decision because a certificate with which they share the slots
/// of a grant is created, changed or deleted. Each change may concern thousands of certificates. The stream
/// collects changes and requeues a few certificates at a time, so that a tenant with many changes does not
/// delay other tenants.
pub(crate) fn sharing_slots(
    changed: UnboundedReceiver<Arc<Cached<ClientCertificate>>>,
    ctx: Arc<Ctx>,
) -> impl Stream<Item = ObjectRef<Cached<ClientCertificate>>> + Send {
    let shared = |changed: &Cached<ClientCertificate>, ctx: &Ctx| {
        let cert = changed.0.as_ref().ok().filter(|cert| is_cross_namespace(cert))?;
        Some(cert.domain_id()).filter(|key| ctx.grant_index.has_slots(key))
    };
    let few = stream::unfold((changed, VecDeque::new()), move |(mut changed, mut waiting)| {
        let ctx = ctx.clone();
        async move {
            if waiting.is_empty() {
                let mut keys = BTreeSet::new();
                while keys.is_empty() {
                    keys.extend(shared(&*changed.next().await?, &ctx));
                }
                tokio::time::sleep(GATHER).await;
                while let Some(Some(more)) = changed.next().now_or_never() {
                    keys.extend(shared(&more, &ctx));
                }
                waiting.extend(concerned(&ctx, keys));
            } else {
                tokio::time::sleep(PAUSE).await;
            }
            let some: Vec<_> = waiting.drain(..waiting.len().min(FEW)).collect();
            Some((stream::iter(some), (changed, waiting)))
        }
    });
    few.flatten()
}

/// Requeues the certificates that are due, and drops old writes from the state.
pub(crate) fn when_due(ctx: Arc<Ctx>) -> impl Stream<Item = ObjectRef<Cached<ClientCertificate>>> + Send {
    let reconciles = stream::unfold(ctx, async |ctx| {
        tokio::time::sleep(DUE).await;
        ctx.forget_old_writes();
        let due = ctx.due_queue.due(Timestamp::now());
        let those = if due.is_empty() {
            vec![]
        } else {
            those(&ctx, |c| {
                c.metadata.uid.as_ref().is_some_and(|uid| due.contains(uid))
            })
        };
        Some((stream::iter(those), ctx))
    });
    reconciles.flatten()
}

/// Returns the certificates that get another decision because of a change of this grant. An unreadable grant
/// may be for any domain in its namespace.
pub(crate) fn of_grant(grant: &Cached<ClientGrant>, ctx: &Ctx) -> Vec<ObjectRef<Cached<ClientCertificate>>> {
    let namespace = grant.meta().namespace.as_deref().unwrap_or_default();
    match &grant.0 {
        Ok(grant) => concerned(ctx, [ObjectId::new(namespace, &grant.spec.domain_ref.name)]),
        Err(_) => concerned(ctx, ctx.grant_index.domains_in(namespace)),
    }
}

/// Returns the certificates that get another decision because of a change of this namespace.
pub(crate) fn of_namespace(namespace: &str, ctx: &Ctx) -> Vec<ObjectRef<Cached<ClientCertificate>>> {
    concerned(ctx, ctx.grant_index.asked_by(namespace))
}

/// Returns the certificates for these domains whose decision has changed. With a self-signed one among them,
/// also the other self-signed ones of its domain: a subject may be free.
fn concerned(
    ctx: &Ctx,
    keys: impl IntoIterator<Item = ObjectId>,
) -> Vec<ObjectRef<Cached<ClientCertificate>>> {
    let is_self_signed = |c: &ClientCertificate| c.spec.issuance == Issuance::SelfSigned;
    let mut concerned = Vec::new();
    for key in keys {
        let changed = ctx.grant_index.changed_certificates(&key, Timestamp::now());
        let changed = changed.iter().map(ObjectId::to_ref).collect::<Vec<_>>();
        let claims = |c: &ObjectRef<Cached<ClientCertificate>>| {
            let there = ctx.certificates.get(c);
            there.is_some_and(|c| c.0.as_ref().is_ok_and(is_self_signed))
        };
        if changed.iter().any(claims) {
            concerned.extend(those(ctx, |c| is_self_signed(c) && c.domain_id() == key));
        }
        concerned.extend(changed);
    }
    concerned
}

pub(crate) fn of_domain(ctx: &Ctx, key: &ObjectId) -> Vec<ObjectRef<Cached<ClientCertificate>>> {
    those(ctx, |c| c.domain_id() == *key)
}

/// Returns the readable certificates for which the predicate is true.
fn those(
    ctx: &Ctx,
    wanted: impl Fn(&ClientCertificate) -> bool,
) -> Vec<ObjectRef<Cached<ClientCertificate>>> {
    let state = ctx.certificates.state();
    state
        .iter()
        .filter(|c| c.0.as_ref().is_ok_and(&wanted))
        .map(|c| ObjectRef::from_obj(&**c))
        .collect()
}

/// Returns the certificates that use the Secret, or that an authority with this Secret issues.
pub(crate) fn touched_by(
    ctx: &Ctx,
    secret: &PartialObjectMeta<Secret>,
) -> Vec<ObjectRef<Cached<ClientCertificate>>> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let users = ctx
        .secret_index
        .of(&namespace, &name)
        .into_iter()
        .map(|user| ObjectId::new(&namespace, user).to_ref());
    let there = users.filter(|user| ctx.certificates.get(user).is_some());
    let mut touched: Vec<_> = there.filter(|user| !ctx.wrote(user, secret)).collect();
    for domain in ctx.domains.state() {
        let Ok(domain) = &domain.0 else { continue };
        let issues = |d: &MtlsDomain| {
            authorities::authorities(d).is_ok_and(|all| all.iter().any(|a| a.source.secret() == Some(&name)))
        };
        if domain.namespace().as_ref() == Some(&namespace) && issues(domain) {
            touched.extend(of_domain(ctx, &ObjectId::of(domain)));
        }
    }
    touched
}

pub(crate) fn is_there(c: &Cached<ClientCertificate>, ctx: &Ctx) -> bool {
    ctx.certificates
        .get(&ObjectRef::from_obj(c))
        .is_some_and(|there| there.uid() == c.uid())
}

#[cfg(test)]
mod tests;
