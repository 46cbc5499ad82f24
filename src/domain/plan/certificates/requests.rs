//! When a certificate is requested, and when again after attempts that came to nothing: those stay in ACM
//! until one is ISSUED, and are all the memory that this needs.

use jiff::{SignedDuration, Timestamp};

use super::{fits, is_ours, lines, owned, zone};
use crate::{
    api::conditions::Reason,
    aws::acm::{self, CertificateStatus},
    domain::{
        desired::{Desired, DesiredDns, DesiredRequest, short_hash},
        observed::Observed,
        plan::{Action, OWNER_TAG, StepPlan, StepState},
    },
};

/// Nothing that fits is ISSUED or on its way there.
pub(super) fn request(d: &Desired, wanted: &DesiredRequest, o: &Observed, now: Timestamp) -> StepPlan {
    if let DesiredDns::Route53 { .. } = d.placement.dns {
        // Before the request, so that no certificate is left that can never be issued.
        for name in &wanted.names {
            if let Err(state) = zone(d, o, name) {
                return state.into();
            }
        }
    }
    let failed: Vec<_> = owned(&d.placement, o).filter(|c| fits(wanted, c)).collect();
    if let Some(last) = failed.iter().max_by_key(|c| (c.created_at, &c.arn))
        && last.created_at.is_none_or(|at| now < at + pause(failed.len()))
    {
        return StepState::blocked(
            Reason::CertificateFailed,
            format!(
                "{}. Another one is requested by itself, after three days at first and once a week at last; \
                 to have that at once, delete \
                 this one in ACM",
                why(last)
            ),
        )
        .into();
    }
    // One that somebody has removed the ownership tag from is not ours any more, like any that a user made;
    // but our token would yield it again.
    let others = o
        .certificates
        .iter()
        .flatten()
        .filter(|c| fits(wanted, c) && !is_ours(&d.placement, c))
        .count();
    StepPlan::in_progress(
        format!("requesting a certificate for {}", d.placement.domain_name),
        vec![Action::RequestCertificate(acm::CertificateRequest {
            domain_name: d.placement.domain_name.clone(),
            names: wanted.names.clone(),
            key_algorithm: wanted.key_algorithm.clone(),
            // The same token gets the same certificate for an hour, also one that has failed.
            idempotency_token: short_hash(&format!("{}\n{}", wanted.token, failed.len() + others)),
            tags: [(OWNER_TAG.to_owned(), d.placement.owner.clone())].into(),
        })],
    )
}

/// How long after the last of so many attempts in vain the next one is made: three days, which is how long
/// ACM tries by itself, then a day more each time, up to a week. ACM's quota is 5,000 requests a year and
/// account (ACM User Guide, "Quotas").
fn pause(attempts: usize) -> SignedDuration {
    let days = (attempts + 2).min(7);
    SignedDuration::from_hours(24 * i64::try_from(days).expect("at most seven"))
}

/// Why it is not to be had, and what to do about that.
fn why(c: &acm::Certificate) -> String {
    match c.status {
        CertificateStatus::Failed => {
            let reason = c.failure.as_deref().unwrap_or("no reason given");
            format!("ACM could not issue {}: {reason}: {}", c.arn, remedy(reason))
        }
        CertificateStatus::ValidationTimedOut => format!(
            "ACM gave up on {} after 72 hours, because it did not find in public DNS: {}. Check that public \
             DNS delegates to where these \
             records are",
            c.arn,
            lines(c)
        ),
        _ => format!("{} is {}", c.arn, c.status.as_str()),
    }
}

/// What to do about ACM's reason for a failure. Source: ACM User Guide, "Troubleshoot certificate requests",
/// and FailureReason in its API reference.
pub fn remedy(reason: &str) -> &'static str {
    match reason {
        "CAA_ERROR" => {
            "a CAA record of one of the names, or of a parent, keeps Amazon out. Add to it: 0 \
             issue \"amazon.com\" (for a wildcard issuewild)"
        }
        "ADDITIONAL_VERIFICATION_REQUIRED" => {
            "Amazon wants to know more about one of the names, as it does of very well-known ones. Write to \
             AWS Support"
        }
        "DOMAIN_NOT_ALLOWED" => {
            "one of the names is reported as unsafe (VirusTotal, Google Safe Browsing). Have it taken off \
             those lists, then write to AWS Support"
        }
        "INVALID_PUBLIC_DOMAIN" => {
            "one of the names does not end in a public top-level domain. Correct spec.domainName or \
             spec.serverCertificate.request.subjectAlternativeNames"
        }
        _ => "see \"Troubleshoot certificate requests\" in the ACM User Guide",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        plan::certificates::{certificates, tests::state},
        simulation::{desired, empty, now},
    };

    #[test]
    fn the_pause_grows_to_a_week() {
        let days: Vec<_> = (1..9).map(|attempts| pause(attempts).as_hours() / 24).collect();
        assert_eq!(days, [3, 4, 5, 6, 7, 7, 7, 7]);
    }

    /// A year of an ACM that never issues, looked at four times a day.
    #[test]
    fn a_year_in_vain_is_few_requests_ever_further_apart() {
        for status in [
            CertificateStatus::ValidationTimedOut,
            CertificateStatus::Failed,
            CertificateStatus::Revoked,
        ] {
            let (d, mut w) = (desired(), empty());
            let (mut at, mut tokens) = (vec![], vec![]);
            for attempt in 0..4 * 365 {
                let now = now() + SignedDuration::from_hours(6 * attempt);
                for action in certificates(&d, &w.observed(), now).actions {
                    let Action::RequestCertificate(r) = &action else {
                        panic!("{action:?}")
                    };
                    assert!(
                        !tokens.contains(&r.idempotency_token),
                        "ACM would answer with the one that failed"
                    );
                    tokens.push(r.idempotency_token.clone());
                    w.perform(action);
                    at.push(now);
                    let last = w.certificates.last_mut().expect("requested");
                    (last.status, last.created_at) = (status.clone(), Some(now));
                }
            }
            let pauses: Vec<_> = at.windows(2).map(|two| two[1].duration_since(two[0])).collect();
            assert!(
                pauses.is_sorted() && pauses.last() == Some(&SignedDuration::from_hours(7 * 24)),
                "{pauses:?}"
            );
            assert!((50..60).contains(&at.len()), "{}", at.len());
        }
    }

    #[test]
    fn a_failure_is_told_with_what_to_do() {
        let (d, mut w) = (desired(), empty());
        w.perform(certificates(&d, &w.observed(), now()).actions.remove(0));
        let c = &mut w.certificates[0];
        (c.status, c.created_at) = (CertificateStatus::Failed, Some(now()));
        for (reason, says) in [
            (Some("CAA_ERROR"), "CAA_ERROR: a CAA record"),
            (Some("ADDITIONAL_VERIFICATION_REQUIRED"), "AWS Support"),
            (Some("DOMAIN_NOT_ALLOWED"), "unsafe"),
            (Some("INVALID_PUBLIC_DOMAIN"), "spec.domainName"),
            (Some("SOMETHING_NEW"), "SOMETHING_NEW: see"),
            (None, "no reason given"),
        ] {
            w.certificates[0].failure = reason.map(str::to_owned);
            let (told, message) = state(&d, &w);
            assert_eq!(told, Reason::CertificateFailed);
            assert!(
                message.contains(says) && message.contains(&w.certificates[0].arn),
                "{message}"
            );
        }
        let c = &mut w.certificates[0];
        c.status = CertificateStatus::ValidationTimedOut;
        c.validation[0].record = Some(("_x.api.example.com".into(), "_y.acm-validations.aws.".into()));
        let (told, message) = state(&d, &w);
        assert_eq!(told, Reason::CertificateFailed);
        assert!(
            message.contains("_x.api.example.com. CNAME _y.acm-validations.aws."),
            "{message}"
        );
        // Of other names, or of somebody else, it is no attempt of ours.
        w.certificates[0].names.push("www.example.com".into());
        assert_eq!(certificates(&d, &w.observed(), now()).actions.len(), 1);
    }
}
