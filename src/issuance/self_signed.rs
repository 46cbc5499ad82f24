//! Next step for a certificate that signs itself. The truststore must hold such a certificate before any
//! client uses it. The next certificate therefore waits, with its key, in a second Secret until every server
//! of AWS trusts it. Then the operator swaps it in. Pure.

use jiff::{SignedDuration, Timestamp};

use super::{
    action::Action,
    desired::Desired,
    observed::{Held, Observed},
};

use crate::{
    pki::{
        certificate::Certificate,
        inspect::{self, Inspection, Violation},
        leaf::{self, LeafRequest},
    },
    trust::{active_trust::Trust, self_signed},
};

/// Message about a full truststore, with the remedies.
pub(crate) const FULL: &str = "the truststore of the domain is full, or the maxBytes of the ClientGrant are \
                               used up, and this certificate does not fit: request fewer or shorter names, \
                               or have certificates or authorities removed that are no longer needed";

/// Next step, the reason for waiting, and the time of the next reconcile without another event.
pub(crate) struct Step {
    pub action: Option<Action>,
    /// Violation of the desired state in the Secret, and the message about the wait.
    pub open: Option<(Violation, String)>,
    pub requeue_at: Option<Timestamp>,
}

/// Returns the next step. `propagation`: time that a truststore version must have been in use before every
/// server of AWS has it.
pub(crate) fn next(d: &Desired, o: &Observed, propagation: SignedDuration, now: Timestamp) -> Step {
    let held = o.secret.as_ref();
    let Some(violation) = broken(d, held, now) else {
        // The swap is done; the staged Secret may still exist.
        let action = Some(if o.next.is_some() {
            Action::Unstage
        } else {
            Action::Complete
        });
        return Step {
            action,
            open: None,
            requeue_at: None,
        };
    };
    let step = |action, waits: &str, requeue_at| Step {
        action,
        open: Some((violation, waits.to_owned())),
        requeue_at,
    };
    let staged = o.next.as_ref().and_then(|next| Some((next, next.leaf()?)));
    let fitting =
        staged.filter(|(next, leaf)| broken(d, Some(next), now).is_none() && !is_shadowed(d, o, leaf));
    let Some((_, leaf)) = fitting else {
        return step(
            Some(Action::Stage {
                revision: next_revision(d, o),
            }),
            "the operator is creating the next certificate",
            None,
        );
    };
    match o.trust.as_ref().map(|trust| trust.since(&leaf)) {
        None => step(None, "the domain does not serve yet", None),
        Some(None) if o.trust.as_ref().is_some_and(|trust| trust.has_no_room(&d.entry)) => {
            step(None, FULL, None)
        }
        Some(None) => step(None, "the domain does not trust the next certificate yet", None),
        Some(Some(since)) if now < since + propagation => step(
            None,
            "AWS is distributing the truststore with the next certificate to its servers",
            Some(since + propagation),
        ),
        Some(Some(_)) => step(Some(Action::Swap), "the next certificate is trusted", None),
    }
}

fn broken(d: &Desired, held: Option<&Held>, now: Timestamp) -> Option<Violation> {
    inspect::needs_issue(&Inspection {
        secret: held.map(|s| &s.data),
        request: &request(d, held.map_or(1, |s| s.revision)),
        key: &d.key,
        issuer: None,
        renew_before: d.renew_before,
        renewal_asked: d.renew.is_some() && held.is_some_and(|s| s.renewed != d.renew),
        now,
    })
}

/// Returns the contents of the certificate with that revision. Each certificate but the first carries its
/// revision, because API Gateway rejects two certificates with the same subject.
pub(crate) fn request(d: &Desired, revision: i64) -> LeafRequest {
    LeafRequest {
        serial_number: (revision > 1).then(|| revision.to_string()),
        ..d.request.clone()
    }
}

/// True when an earlier certificate of this object is in the truststore with the subject of this certificate.
fn is_shadowed(d: &Desired, o: &Observed, leaf: &Certificate) -> bool {
    let holder = o.trust.as_ref().and_then(|trust| trust.holder(&leaf.subject_key));
    holder.is_some_and(|entry| entry.authority == d.entry && entry.certificate != *leaf)
}

/// Returns the lowest revision above all known revisions whose subject is not in the truststore: the count
/// may have been lost.
fn next_revision(d: &Desired, o: &Observed) -> i64 {
    let known = [
        Some(o.past.last_revision),
        o.secret.as_ref().map(|s| s.revision),
        o.next.as_ref().map(|s| s.revision),
    ];
    let first = known.into_iter().flatten().max().unwrap_or_default() + 1;
    let is_free = |revision: &i64| match (&o.trust, leaf::subject_key(&request(d, *revision))) {
        (Some(trust), Some(subject)) => trust
            .holder(&subject)
            .is_none_or(|entry| entry.authority != d.entry),
        _ => true,
    };
    (first..)
        .find(is_free)
        .expect("a truststore holds a thousand certificates at the most")
}

/// Returns the name of the authority in the truststore that has this subject.
pub(crate) fn holder<'a>(d: &Desired, trust: Option<&'a Trust>) -> Option<&'a str> {
    let entry = trust?.holder(&leaf::subject_key(&d.request)?)?;
    (!self_signed::is_self_signed(&entry.authority)).then_some(entry.authority.as_str())
}
