//! Plan of a `ClientCertificate`: compares the observed state with the desired state and selects the next
//! action. Pure: no I/O, no clock.

use jiff::{SignedDuration, Timestamp};

use super::{
    action::Action,
    desired::Desired,
    issuer::Issuer,
    known_key::staged_key,
    observed::{Held, Observed, Problem},
    pace::{self, Wait, record::Cause},
    self_signed,
    trusted::trusted,
};

use crate::{
    api::conditions::{ConditionType, Reason},
    pki::{
        certificate::Certificate,
        inspect::{self, Inspection, Violation},
        keys::DesiredKey,
    },
    status::{StepCondition, StepStatus, conditions, text},
    trust::{active_trust::Trust, self_signed::next_secret},
};

#[derive(Debug)]
pub struct Plan {
    pub action: Option<Action>,
    /// Conditions Issued and Trusted, as they are without a new leaf.
    pub step_conditions: Vec<StepCondition>,
    /// Time of the leaf's renewal.
    pub renewal: Option<Timestamp>,
    /// Leaf in the Secret.
    pub leaf: Option<Certificate>,
    /// Time of the next reconcile before the renewal, even without another event.
    pub requeue_at: Option<Timestamp>,
    /// Wait before the next leaf.
    pub wait: Option<Wait>,
    /// Occasion of the leaf that the action makes.
    pub cause: Option<Cause>,
}

/// Delay until the operator asks an issuer again that has not answered.
pub const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// Returns the plan. `propagation`: time that a truststore version must have been in use before every server
/// of AWS has it.
pub fn plan(d: &Desired, o: &Observed, propagation: SignedDuration, now: Timestamp) -> Plan {
    // The operator ignores the leaf in a Secret that it does not own.
    let leaf = o.secret.as_ref().filter(|s| s.ours).and_then(Held::leaf);
    let renewal = leaf
        .as_ref()
        .map(|leaf| inspect::renewal_time(leaf, d.renew_before));
    let Issuing {
        action,
        step_condition,
        requeue_at,
        wait,
        cause,
    } = issuing(d, o, leaf.as_ref(), propagation, now);
    // Another writer may have written a leaf that waits for its correction.
    let is_reported = wait.is_none() || step_condition.status == StepStatus::Done;
    let step_conditions = vec![
        step_condition,
        trusted(d, o.trust.as_ref(), o.domain_gone, leaf.as_ref()),
    ];
    Plan {
        action,
        step_conditions,
        renewal,
        leaf: leaf.filter(|_| is_reported),
        requeue_at,
        wait,
        cause,
    }
}

/// Returns the step conditions right after the issue of a leaf.
pub fn conditions_after_issue(d: &Desired, trust: Option<&Trust>, leaf: &Certificate) -> Vec<StepCondition> {
    vec![in_secret(leaf), trusted(d, trust, false, Some(leaf))]
}

/// Returns the condition Issued after a failed issue. After a failed renewal, the condition stays True and
/// its message contains the failure, unless the API server rejects the Secret: a user has to act before the
/// leaf expires. `lasting`: reason why a retry does not help by itself.
pub fn after_failure(
    planned: StepCondition,
    leaf: Option<&Certificate>,
    lasting: Option<Reason>,
    message: &str,
) -> StepCondition {
    match (leaf, lasting) {
        (Some(leaf), Some(Reason::SecretRejected)) if planned.status == StepStatus::Done => {
            let message = format!("{message}. Until then {}", in_secret(leaf).message);
            step_condition(StepStatus::Blocked, Reason::SecretRejected, message)
        }
        (Some(leaf), _) if planned.status == StepStatus::Done => next_one(in_secret(leaf), message),
        (_, Some(reason)) => step_condition(StepStatus::Blocked, reason, message.to_owned()),
        _ => step_condition(StepStatus::Unreachable, planned.reason, message.to_owned()),
    }
}

/// Returns the condition Issued while the issuer has not answered the request.
pub fn while_pending(planned: StepCondition, leaf: Option<&Certificate>) -> StepCondition {
    let message = "the issuer has the request, and has not issued the certificate yet";
    match leaf {
        Some(leaf) if planned.status == StepStatus::Done => next_one(in_secret(leaf), message),
        _ => step_condition(StepStatus::Working, Reason::Issuing, message.to_owned()),
    }
}

/// Action and condition for the leaf in the Secret.
struct Issuing {
    action: Option<Action>,
    step_condition: StepCondition,
    requeue_at: Option<Timestamp>,
    wait: Option<Wait>,
    cause: Option<Cause>,
}

impl From<StepCondition> for Issuing {
    fn from(step_condition: StepCondition) -> Self {
        Issuing {
            action: None,
            step_condition,
            requeue_at: None,
            wait: None,
            cause: None,
        }
    }
}

fn issuing(
    d: &Desired,
    o: &Observed,
    leaf: Option<&Certificate>,
    propagation: SignedDuration,
    now: Timestamp,
) -> Issuing {
    if let Some(name) = not_owned(d, o) {
        let message = format!(
            "the Secret {name} exists and does not belong to this certificate; delete it, or create a \
             ClientCertificate with another spec.secretName"
        );
        return step_condition(StepStatus::Blocked, Reason::SecretNotOwned, message).into();
    }
    if let Some(Err(Problem {
        status,
        reason,
        message,
    })) = &o.password
    {
        // A keystore that exists stays with its leaf, for the time until the leaf's renewal.
        let stays = o.secret.as_ref().is_some_and(|held| held.has_keystore);
        let renewal = leaf.map(|leaf| (leaf, inspect::renewal_time(leaf, d.renew_before)));
        return match renewal.filter(|(_, renewal)| stays && now < *renewal) {
            Some((leaf, renewal)) => Issuing {
                requeue_at: Some(renewal),
                ..next_one(in_secret(leaf), message).into()
            },
            None => step_condition(*status, *reason, message.clone()).into(),
        };
    }
    let usable = leaf.filter(|leaf| now < leaf.not_after);
    let issuer = match (&o.issuer, usable) {
        (Ok(issuer), _) => issuer.as_ref(),
        // A usable leaf stays while the next leaf waits.
        (Err(Problem { status, message, .. }), Some(leaf)) if *status != StepStatus::Blocked => {
            return next_one(in_secret(leaf), message).into();
        }
        (
            Err(Problem {
                status,
                reason,
                message,
            }),
            None,
        ) => {
            // Manifests that a user applies together arrive one after the other.
            let fresh = conditions::fresh_until(d.created, now).filter(|_| o.domain_gone);
            return match fresh {
                Some(_) => Issuing {
                    action: None,
                    step_condition: step_condition(
                        StepStatus::Working,
                        Reason::WaitingForDomainTrust,
                        format!("{message} yet"),
                    ),
                    requeue_at: fresh,
                    wait: None,
                    cause: None,
                },
                None => step_condition(*status, *reason, message.clone()).into(),
            };
        }
        (
            Err(Problem {
                status,
                reason,
                message,
            }),
            _,
        ) => {
            return step_condition(*status, *reason, message.clone()).into();
        }
    };
    let (action, open, requeue_at) = match issuer {
        Some(issuer) => by_authority(d, o, issuer, usable, propagation, now),
        None => {
            let self_signed::Step {
                action,
                open,
                requeue_at,
            } = self_signed::next(d, o, propagation, now);
            let open = open.map(|(why, waits)| (why, Some(waits)));
            (action, open, requeue_at)
        }
    };
    let is_new = matches!(action, Some(Action::Issue(_) | Action::Stage { .. }));
    let next = open.as_ref().map(|(violation, _)| violation).filter(|_| is_new);
    let cause = next.map(|violation| pace::cause(d, o, violation, leaf, now));
    if let Some((violation, cause)) = next.zip(cause)
        && let Some(wait) = pace::wait(d, o, violation, cause, now)
    {
        return waiting(violation, wait, usable);
    }
    let step_condition = match (open, leaf) {
        (None, Some(leaf)) => in_secret(leaf),
        (None, None) => step_condition(
            StepStatus::Working,
            Reason::Issuing,
            "nothing is issued yet".into(),
        ),
        (Some((why, waits)), _) => {
            let reason = if waits.is_some() {
                Reason::WaitingForDomainTrust
            } else {
                Reason::Issuing
            };
            let message = waits.unwrap_or_else(|| why.message.clone());
            match usable {
                Some(leaf) if why.reason.is_renewal() => next_one(in_secret(leaf), &message),
                _ => step_condition(StepStatus::Working, reason, message),
            }
        }
    };
    Issuing {
        action,
        step_condition,
        requeue_at,
        wait: None,
        cause,
    }
}

/// Returns the condition while the pace of the object's certificates delays the next leaf.
fn waiting(violation: &Violation, wait: Wait, usable: Option<&Certificate>) -> Issuing {
    let step_condition = match (usable, wait.reason) {
        (Some(leaf), _) if violation.reason.is_renewal() => next_one(in_secret(leaf), &wait.message),
        (_, Some(reason)) => step_condition(StepStatus::Blocked, reason, wait.message.clone()),
        (_, None) => step_condition(StepStatus::Working, Reason::Issuing, wait.message.clone()),
    };
    Issuing {
        action: None,
        step_condition,
        requeue_at: Some(wait.until),
        wait: Some(wait),
        cause: None,
    }
}

/// Returns the name of a Secret that the certificate needs and that the operator does not own.
fn not_owned(d: &Desired, o: &Observed) -> Option<String> {
    let is_not_owned = |held: &Option<Held>| held.as_ref().is_some_and(|s| !s.ours);
    if is_not_owned(&o.secret) {
        return Some(d.secret_name.clone());
    }
    is_not_owned(&o.next).then(|| next_secret(&d.secret_name))
}

type Open = Option<(Violation, Option<String>)>;

/// Returns the action, the violation with its wait, and the time of the next reconcile.
fn by_authority(
    d: &Desired,
    o: &Observed,
    issuer: &Issuer,
    usable: Option<&Certificate>,
    propagation: SignedDuration,
    now: Timestamp,
) -> (Option<Action>, Open, Option<Timestamp>) {
    let inspection = Inspection {
        secret: o.secret.as_ref().map(|s| &s.data),
        request: &d.request,
        key: &d.key,
        issuer: Some(issuer.chain()),
        renew_before: d.renew_before,
        renewal_asked: d.renew.is_some() && o.secret.as_ref().is_some_and(|s| s.renewed != d.renew),
        now,
    };
    let Some(violation) = inspect::needs_issue(&inspection) else {
        // The staged key has its certificate; the staged Secret may still exist.
        let action = o.next.as_ref().map_or(Action::Complete, |_| Action::Unstage);
        return (Some(action), None, None);
    };
    let waits = |violation, what: &str, again| (None, Some((violation, Some(what.to_owned()))), again);
    // The operator never writes a leaf into the Secret before the domain trusts the leaf, and before the
    // truststore records its maximum validity.
    let Some(trust) = &o.trust else {
        return waits(violation, "the domain does not serve yet", None);
    };
    if !trust.allows(issuer.chain().authority(), d.request.duration) {
        return waits(
            violation,
            "the domain does not trust the issuing authority for certificates of this duration yet",
            None,
        );
    }
    // A first leaf replaces nothing. A usable leaf is not replaced with a leaf that some servers do not trust
    // yet.
    let everywhere = trust
        .since(issuer.chain().authority())
        .map(|since| since + propagation);
    let moves =
        violation.reason == inspect::Reason::IssuerDiffers && usable.is_some_and(|leaf| trust.accepts(leaf));
    match everywhere.filter(|everywhere| moves && now < *everywhere) {
        Some(_) => waits(
            violation,
            "AWS is distributing the truststore with the new authority to its servers",
            everywhere,
        ),
        None => (
            Some(request(d, o, issuer, &violation)),
            Some((violation, None)),
            None,
        ),
    }
}

/// Returns the action that gets a certificate from the issuer.
fn request(d: &Desired, o: &Observed, issuer: &Issuer, violation: &Violation) -> Action {
    let needs_staged_key = issuer.may_be_pending() && matches!(d.key, DesiredKey::Made { .. });
    match needs_staged_key && staged_key(d, o).is_none() {
        true => Action::Stage {
            revision: o.revision() + 1,
        },
        false => Action::Issue(violation.clone()),
    }
}

fn in_secret(leaf: &Certificate) -> StepCondition {
    step_condition(
        StepStatus::Done,
        Reason::Issued,
        format!(
            "the Secret holds {} with serial number {}",
            text::shown(&leaf.subject),
            text::shown(&leaf.serial_text())
        ),
    )
}

/// Returns the condition of a usable leaf, with the wait of the next leaf.
fn next_one(kept: StepCondition, message: &str) -> StepCondition {
    StepCondition {
        message: format!("{}; the next one: {message}", kept.message),
        ..kept
    }
}

fn step_condition(status: StepStatus, reason: Reason, message: String) -> StepCondition {
    StepCondition {
        type_: ConditionType::Issued,
        status,
        reason,
        message,
    }
}

#[cfg(test)]
mod tests;
