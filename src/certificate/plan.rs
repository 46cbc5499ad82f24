//! Decides whether a `ClientCertificate` has what it should, and what to do if not. Pure: no I/O, no clock.
use jiff::{SignedDuration, Timestamp};

use super::{desired::Desired, observed::*};
use crate::{
    api::conditions::{ConditionType, Reason},
    conditions::{Line, Standing},
    domain::served::Trust,
    pki::{
        authority::Issuer,
        certificate::Certificate,
        inspect::{self, Inspection, Violation},
    },
};

#[derive(Debug)]
pub struct Plan {
    /// Why a new leaf is to be issued now.
    pub issue: Option<Violation>,
    /// Issued and Trusted, as they stand when nothing is issued now.
    pub lines: Vec<Line>,
    /// When the leaf that is there is to be renewed.
    pub renewal: Option<Timestamp>,
    /// The leaf that the Secret holds.
    pub leaf: Option<Certificate>,
}

pub fn plan(d: &Desired, o: &Observed, now: Timestamp) -> Plan {
    // What somebody else keeps under that name is none of our business.
    let leaf = o.secret.as_ref().filter(|s| s.ours).and_then(Held::leaf);
    let renewal = leaf.as_ref().map(|leaf| inspect::renewal_time(leaf, d.renew_before));
    let (issue, issued) = issued(d, o, leaf.as_ref(), now);
    Plan { issue, lines: vec![issued, trusted(o.trust.as_ref(), o.domain_gone, leaf.as_ref())], renewal, leaf }
}

impl Plan {
    /// The Secret holds a leaf that serves.
    pub fn serves(&self) -> bool {
        self.lines.iter().any(|l| l.type_ == ConditionType::Issued && l.standing == Standing::Done)
    }
}

/// The lines once a leaf has just been issued.
pub fn lines_after_issue(trust: Option<&Trust>, leaf: &Certificate) -> Vec<Line> {
    vec![in_secret(leaf), trusted(trust, false, Some(leaf))]
}

fn issued(d: &Desired, o: &Observed, leaf: Option<&Certificate>, now: Timestamp) -> (Option<Violation>, Line) {
    if o.secret.as_ref().is_some_and(|s| !s.ours) {
        let message = format!(
            "the Secret {} exists already and is not this certificate's; delete it, or create a ClientCertificate with another spec.secretName",
            d.secret_name
        );
        return (None, line(Standing::Stuck, Reason::SecretNotOwned, message));
    }
    if let Some(Err(Problem { standing, reason, message })) = &o.password {
        return (None, line(*standing, *reason, message.clone()));
    }
    // A leaf that is only to be renewed serves, whatever stands in the way of the next one.
    let usable = leaf.filter(|leaf| now < leaf.not_after);
    let or_kept = |standing, reason, message: String| match usable {
        Some(leaf) if standing != Standing::Stuck => next_one(in_secret(leaf), &message),
        _ => line(standing, reason, message),
    };
    let issuer = match &o.issuer {
        Ok(issuer) => issuer,
        Err(Problem { standing, reason, message }) => return (None, or_kept(*standing, *reason, message.clone())),
    };
    let inspection = Inspection {
        secret: o.secret.as_ref().map(|s| &s.data),
        request: &d.request,
        key: &d.key,
        issuer: Some(issuer),
        renew_before: d.renew_before,
        renewal_asked: d.renew.is_some() && o.secret.as_ref().is_some_and(|s| s.renewed != d.renew),
        now,
    };
    let Some(violation) = inspect::needs_issue(&inspection) else {
        let leaf = leaf.expect("nothing is missing, so the leaf was read");
        return (None, in_secret(leaf));
    };
    let (reason, message, act) = match may_hand_out(o, issuer, d.request.duration) {
        Ok(()) => (Reason::Issuing, violation.message.clone(), true),
        Err(message) => (Reason::WaitingForDomainTrust, message, false),
    };
    let line = if violation.reason.is_renewal() {
        or_kept(Standing::Working, reason, message)
    } else {
        line(Standing::Working, reason, message)
    };
    (Some(violation).filter(|_| act), line)
}

/// A leaf that serves, and what the next one waits for.
fn next_one(kept: Line, message: &str) -> Line {
    Line { message: format!("{}; the next one: {message}", kept.message), ..kept }
}

/// The line Issued once issuing has failed: a failed renewal keeps what works and says why, a failed first issue says why.
pub fn after_failure(planned: Line, leaf: Option<&Certificate>, message: &str) -> Line {
    match leaf {
        Some(leaf) if planned.standing == Standing::Done => next_one(in_secret(leaf), message),
        _ => line(Standing::Unreachable, planned.reason, message.to_owned()),
    }
}

/// Never handed out before it is trusted, and before the truststore remembers how long it may live.
fn may_hand_out(o: &Observed, issuer: &Issuer, life: SignedDuration) -> Result<(), String> {
    let waiting = |what: &str| Err(format!("the domain does not {what} yet"));
    match &o.trust {
        None => waiting("serve"),
        Some(trust) if !trust.allows(issuer.authority(), life) => {
            waiting("trust the issuing authority for leaves of that life")
        }
        Some(_) => Ok(()),
    }
}

fn in_secret(leaf: &Certificate) -> Line {
    line(
        Standing::Done,
        Reason::Issued,
        format!("the Secret holds {} with serial number {}", leaf.subject, leaf.serial_text()),
    )
}

fn line(standing: Standing, reason: Reason, message: String) -> Line {
    Line { type_: ConditionType::Issued, standing, reason, message }
}

fn trusted(trust: Option<&Trust>, domain_gone: bool, leaf: Option<&Certificate>) -> Line {
    let (standing, reason, message) = match (trust, leaf) {
        (_, None) => (Standing::Working, Reason::WaitingForCertificate, "nothing is issued yet"),
        (None, _) if domain_gone => (Standing::Stuck, Reason::DomainGone, "the MtlsDomain is not there"),
        (None, _) => (
            Standing::Working,
            Reason::WaitingForDomainTrust,
            "the domain has not been looked at yet, or does not serve",
        ),
        (Some(trust), Some(leaf)) if trust.lets_in(leaf) => {
            (Standing::Done, Reason::Trusted, "its issuer is in the truststore version that the domain uses")
        }
        (Some(_), Some(_)) => (
            Standing::Working,
            Reason::WaitingForDomainTrust,
            "its issuer is not in the truststore version that the domain uses",
        ),
    };
    Line { type_: ConditionType::Trusted, standing, reason, message: message.into() }
}
