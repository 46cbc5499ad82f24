//! Decides whether a `ClientCertificate` has what it should, and what to do if not. Pure: no I/O, no clock.
use jiff::{SignedDuration, Timestamp};

use super::{desired::Desired, observed::*};
use crate::{
    api::conditions::{ConditionType, Reason},
    conditions::{Line, Standing},
    domain::served::Trust,
    pki::{
        authority::Issuer,
        certificate::{self, Certificate},
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
    let leaf = o.secret.as_ref().filter(|s| s.ours).and_then(held);
    let renewal = leaf.as_ref().map(|leaf| inspect::renewal_time(leaf, d.renew_before));
    let (issue, issued) = issued(d, o, leaf.as_ref(), now);
    Plan { issue, lines: vec![issued, trusted(o.trust.as_ref(), o.domain_gone, leaf.as_ref())], renewal, leaf }
}

/// The lines once a leaf has just been issued.
pub fn lines_after_issue(trust: Option<&Trust>, leaf: &Certificate) -> Vec<Line> {
    vec![in_secret(leaf), trusted(trust, false, Some(leaf))]
}

fn held(secret: &Held) -> Option<Certificate> {
    let pem = secret.data.tls_crt.as_ref()?;
    certificate::parse_pem_bundle(std::str::from_utf8(pem).ok()?).ok()?.into_iter().next()
}

fn issued(d: &Desired, o: &Observed, leaf: Option<&Certificate>, now: Timestamp) -> (Option<Violation>, Line) {
    if o.secret.as_ref().is_some_and(|s| !s.ours) {
        let message = format!(
            "the Secret {} exists already and is not this certificate's; delete it, or create a ClientCertificate with another spec.secretName",
            d.secret_name
        );
        return (None, line(Standing::Stuck, Reason::SecretNotOwned, message));
    }
    // Something that still works is kept, whatever stands in the way of the next one.
    let usable = leaf.filter(|leaf| now < leaf.not_after);
    let or_kept = |standing, reason, message: String| match usable {
        Some(leaf) if standing != Standing::Stuck => {
            Line { message: format!("{}; the next one: {message}", in_secret(leaf).message), ..in_secret(leaf) }
        }
        _ => line(standing, reason, message),
    };
    let issuer = match &o.issuer {
        Ok(issuer) => issuer,
        Err(Problem { standing, reason, message }) => return (None, or_kept(*standing, *reason, message.clone())),
    };
    let inspection = Inspection {
        secret: o.secret.as_ref().map(|s| &s.data),
        request: &d.request,
        key_kind: d.key_kind,
        encoding: d.encoding,
        issuer,
        renew_before: d.renew_before,
        now,
    };
    let Some(violation) = inspect::needs_issue(&inspection) else {
        let leaf = leaf.expect("nothing is missing, so the leaf was read");
        return (None, in_secret(leaf));
    };
    match may_hand_out(o, issuer, d.request.duration) {
        Ok(()) => {
            let message = violation.message.clone();
            (Some(violation), or_kept(Standing::Working, Reason::Issuing, message))
        }
        Err(message) => (None, or_kept(Standing::Working, Reason::WaitingForDomainTrust, message)),
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
        format!("the Secret holds {} with serial number {}", leaf.subject, leaf.serial),
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
