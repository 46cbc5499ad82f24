//! Admission of a certificate to a reconcile: the decision whether the operator issues for the certificate,
//! refuses it, or waits. Pure: plain data and the caches in, one decision out.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::conflicts;

use crate::{
    api::{ClientCertificate, MtlsDomain, conditions::Reason, durations::length},
    grants::{
        evaluation::{Decision, Terms},
        index::is_cross_namespace,
    },
    issuance::{
        desired::{self, Desired},
        self_signed,
    },
    runtime::watch::Cached,
    status::{Acceptance, Refused},
    trust::active_trust::Trust,
};

/// Delay of the next reconcile while the watch cache is behind.
pub(crate) const SOON: Duration = Duration::from_millis(50);
/// Age from which the cache contains all certificates with the same creationTimestamp.
const SETTLED: SignedDuration = SignedDuration::from_secs(3);
/// Time after a start in which the domains have their first reconcile. Until then the operator does not know
/// their trust, and does not write that into the status of each of their certificates.
const FIRST_RECONCILES: Duration = Duration::from_secs(10);
/// Delay of the next reconcile while the labels of namespaces are being read.
const LABELS: Duration = Duration::from_secs(1);
/// Delay between two reconciles of a renewal that is due and has to wait.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// Facts around one certificate. A costly fact is a function, which the decision calls only when it needs
/// the fact.
pub(crate) struct Facts<'a, 'd> {
    pub cert: &'a ClientCertificate,
    /// True while the watch cache does not show the status that this process wrote last.
    pub is_behind: bool,
    /// Decision of the grants on `cert`.
    pub decision: &'a dyn Fn() -> Option<Decision>,
    /// Result of the grants for a certificate in another namespace than its domain's.
    pub grants: &'a dyn Fn(&ClientCertificate) -> Option<Decision>,
    /// True while the labels of the certificate's namespace, by which a grant selects, are being read.
    pub are_labels_pending: &'a dyn Fn() -> bool,
    /// Domain of the certificate, when it exists and is readable.
    pub domain: Option<&'d MtlsDomain>,
    /// True once the domain has had a reconcile since the start.
    pub is_trust_known: bool,
    pub trust: Option<&'a Trust>,
    /// All certificates.
    pub all: &'a dyn Fn() -> Vec<Arc<Cached<ClientCertificate>>>,
    /// Time since this process became the leader.
    pub since_start: Duration,
    pub now: Timestamp,
}

/// Decision about a certificate.
#[derive(Debug)]
pub(crate) enum Admission<'a> {
    /// The certificate is being deleted: its owner reference decides about the Secret.
    Ignored,
    /// The operator lacks facts, and reconciles again after the delay.
    Wait(Duration),
    /// The operator issues nothing and reports why. The end of the cause, which is an event, causes the next
    /// reconcile.
    Refused(Acceptance),
    /// The operator issues and renews.
    Admitted(Box<Admitted<'a>>),
}

/// Admitted certificate.
#[derive(Debug)]
pub(crate) struct Admitted<'a> {
    pub d: Desired,
    pub acceptance: Acceptance,
    /// Terms of the grant; `None` when the certificate needs no grant.
    pub terms: Option<Terms>,
    /// Domain of the certificate, when it exists and the certificate may know it.
    pub domain: Option<&'a MtlsDomain>,
}

/// Decides about a certificate.
pub(crate) fn admission<'d>(facts: &Facts<'_, 'd>) -> Admission<'d> {
    let Facts { cert, now, .. } = facts;
    if cert.metadata.deletion_timestamp.is_some() {
        return Admission::Ignored;
    }
    if facts.is_behind {
        return Admission::Wait(SOON);
    }
    if cert.spec.suspend {
        return Admission::Refused(Acceptance::Suspended);
    }
    let decision = is_cross_namespace(cert).then(|| (facts.decision)()).flatten();
    let terms = match decision {
        // A tenant reads the same, whether a grant that might select its namespace allows these names or not.
        Some(Decision::Denied(message) | Decision::Unknown(message)) => {
            return match (facts.are_labels_pending)() {
                true => Admission::Wait(LABELS),
                false => Admission::Refused(denied(&message)),
            };
        }
        Some(Decision::Allowed(terms)) => Some(terms),
        None => None,
    };
    if let Some(wait) = unsettled(cert, terms.as_ref(), *now) {
        return Admission::Wait(wait);
    }
    let domain = facts.domain.filter(|_| may_know_domain(cert, terms.as_ref()));
    let max = domain
        .and_then(|d| d.spec.clients.as_ref())
        .and_then(|c| c.max_duration.as_ref())
        .map(length);
    let d = match desired::desired(cert, max, terms.as_ref()) {
        Ok(desired) => desired,
        Err(refused) => return Admission::Refused(not_served(refused)),
    };
    if domain.is_some() && !facts.is_trust_known && facts.since_start < FIRST_RECONCILES {
        return Admission::Wait(FIRST_RECONCILES); // or after the domain's first reconcile
    }
    if let Some(Refused { reason, message }) = contested(facts, &d) {
        return Admission::Refused(Acceptance::Refused {
            reason,
            message,
            stalled: false,
        });
    }
    let acceptance = match &terms {
        Some(terms) => Acceptance::Granted(terms.grant.clone()),
        None => Acceptance::Accepted,
    };
    Admission::Admitted(Box::new(Admitted {
        d,
        acceptance,
        terms,
        domain,
    }))
}

fn denied(message: &str) -> Acceptance {
    Acceptance::Refused {
        reason: Reason::RefNotPermitted,
        message: format!(
            "{message}. Until then the operator issues and renews nothing; an existing Secret stays"
        ),
        stalled: false,
    }
}

/// Returns the delay until the operator can allocate the slots of a grant (`spec.maxCertificates`). Slots go
/// to the oldest certificates, but creationTimestamp counts whole seconds: a second certificate with the same
/// timestamp may still arrive. `None`: no delay.
fn unsettled(cert: &ClientCertificate, terms: Option<&Terms>, now: Timestamp) -> Option<Duration> {
    terms.filter(|terms| terms.is_counted)?;
    let settled = cert.creation_timestamp().map_or(now, |t| t.0 + SETTLED);
    let wait = || {
        Duration::try_from(settled.duration_since(now))
            .unwrap_or(SOON)
            .max(SOON)
    };
    (now < settled).then(wait)
}

/// True when the status of a certificate may contain information about its domain. A certificate in another
/// namespace needs a grant for that. A certificate that requests nothing an authority could certify has no
/// grant.
fn may_know_domain(cert: &ClientCertificate, terms: Option<&Terms>) -> bool {
    terms.is_some() || !is_cross_namespace(cert)
}

/// Acceptance of a refused spec. Only a refused duration may become valid without a change of the spec: when
/// the domain's limit changes.
fn not_served(Refused { reason, message }: Refused) -> Acceptance {
    Acceptance::Refused {
        reason,
        message,
        stalled: reason != Reason::DurationNotAllowed,
    }
}

/// True for a certificate with a claim on its subject. A certificate in another namespace has a claim only
/// with a grant, or while the grants are unknown.
fn has_claim(cert: &ClientCertificate, grants: &dyn Fn(&ClientCertificate) -> Option<Decision>) -> bool {
    !is_cross_namespace(cert) || matches!(grants(cert), Some(Decision::Allowed(_) | Decision::Unknown(_)))
}

/// Returns the refusal of a self-signed certificate when an older certificate with a claim on its subject, or
/// an authority, has the subject in the truststore, now or after the next change.
fn contested(facts: &Facts, d: &Desired) -> Option<Refused> {
    let Facts { cert, .. } = facts;
    if !d.self_signed {
        return None; // before the scan of thousands of certificates
    }
    let all = (facts.all)();
    let all = all
        .iter()
        .filter_map(|c| c.0.as_ref().ok())
        .filter(|c| conflicts::wants_the_same(cert, c) && has_claim(c, facts.grants));
    // The message does not name a certificate of another namespace.
    let winner = conflicts::winner(cert, all).map(|c| match c.namespace() == cert.namespace() {
        true => format!("ClientCertificate {}", c.name_any()),
        false => "ClientCertificate of another namespace".into(),
    });
    let authority = self_signed::holder(d, facts.trust).map(|name| match is_cross_namespace(cert) {
        true => "domain".into(),
        false => format!("authority {name}"),
    });
    let message = format!(
        "spec.subject: the {} has this subject in the truststore, and API Gateway takes a subject only once; \
         choose another",
        winner.or(authority)?
    );
    Some(Refused {
        reason: Reason::SubjectInUse,
        message,
    })
}

/// Returns the time of the next reconcile: the next step, or the end of the grant, which the status must
/// report, when that is earlier.
pub(crate) fn next_reconcile(
    next: Option<Timestamp>,
    terms: &Option<Terms>,
    now: Timestamp,
) -> Option<Timestamp> {
    // An overdue step waits for another event, which causes a reconcile of its own.
    let next = next.map(|next| if next <= now { now + OVERDUE } else { next });
    let end = terms.as_ref().and_then(|terms| terms.not_after);
    [next, end].into_iter().flatten().min()
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
