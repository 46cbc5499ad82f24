//! Requests of a certificate, and the pauses after failed requests. Failed certificates stay in ACM until a
//! certificate is ISSUED, and are the only state of the retries.

use jiff::{SignedDuration, Timestamp};

use super::owned::{fits, is_ours, lines, owned};

use crate::{
    api::conditions::Reason,
    aws::{
        acm::{self, CertificateStatus},
        action::AcmAction,
        tags::OWNER_TAG,
    },
    dns::zone::zone,
    model::{
        desired::{Desired, DesiredRequest},
        observed::Observed,
        placement::DesiredDns,
        step::{StepPlan, StepState},
    },
    pki::digest::short_hash,
};

/// Maximum length of a certificate's first name, which is the common name of its subject (RFC 5280,
/// ub-common-name; ACM User Guide, "Certificate characteristics"). Additional names may be longer.
const FIRST_NAME: usize = 64;

/// Returns the step plan when no fitting certificate is ISSUED or pending.
pub(crate) fn request(d: &Desired, wanted: &DesiredRequest, o: &Observed, now: Timestamp) -> StepPlan {
    // Objects of earlier releases, and adopted domains whose certificate is gone, pass the rule of the CRD.
    let length = d.placement.domain_name.len();
    if length > FIRST_NAME {
        return StepState::blocked(
            Reason::InvalidSpec,
            format!(
                "spec.domainName has {length} characters, and ACM does not issue a certificate whose first \
                 name is longer than {FIRST_NAME}: request one by hand, with a shorter first name and this \
                 name as an additional name, and name it in spec.serverCertificate.existing.arn"
            ),
        )
        .into();
    }
    if let DesiredDns::Route53 { .. } = d.placement.dns {
        // The check precedes the request, so that no certificate remains that ACM can never issue.
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
                "{}. The operator requests another certificate, after three days at first and later once a \
                 week; to request it at once, delete this one in ACM",
                why(last)
            ),
        )
        .into();
    }
    // A certificate that lost its ownership tag is not owned any more, like any certificate of a user; but
    // the unchanged token would return it again.
    let others = o
        .certificates
        .iter()
        .flatten()
        .filter(|c| fits(wanted, c) && !is_ours(&d.placement, c))
        .count();
    StepPlan::in_progress(
        format!("requesting a certificate for {}", d.placement.domain_name),
        AcmAction::RequestCertificate(acm::CertificateRequest {
            domain_name: d.placement.domain_name.clone(),
            names: wanted.names.clone(),
            key_algorithm: wanted.new_key(),
            // ACM returns the same certificate for the same token for an hour, also a failed one.
            idempotency_token: short_hash(&format!("{}\n{}", wanted.token, failed.len() + others)),
            tags: [(OWNER_TAG.to_owned(), d.placement.owner.clone())].into(),
        }),
    )
}

/// Returns the pause after so many failed attempts: three days, which is how long ACM tries, then a day more
/// for each attempt, up to a week. ACM's quota is 5,000 requests a year and account (ACM User Guide,
/// "Quotas").
fn pause(attempts: usize) -> SignedDuration {
    let days = (attempts + 2).min(7);
    SignedDuration::from_hours(24 * i64::try_from(days).expect("at most seven"))
}

/// Returns the reason of the failure, with the remedy.
fn why(c: &acm::Certificate) -> String {
    match c.status {
        CertificateStatus::Failed => {
            let reason = c.failure.as_deref().unwrap_or("no reason given");
            format!("ACM could not issue {}: {reason}: {}", c.arn, remedy(reason))
        }
        CertificateStatus::ValidationTimedOut => format!(
            "ACM gave up on {} after 72 hours, because it did not find in public DNS: {}. Check that public \
             DNS delegates to the zone of these records",
            c.arn,
            lines(c)
        ),
        _ => format!("{} is {}", c.arn, c.status.as_str()),
    }
}

/// Returns the remedy for ACM's failure reason. Source: ACM User Guide, "Troubleshoot certificate requests",
/// and FailureReason in its API reference.
pub fn remedy(reason: &str) -> &'static str {
    match reason {
        "CAA_ERROR" => {
            "a CAA record of one of the names, or of a parent, excludes Amazon. Add to it: 0 issue \
             \"amazon.com\" (for a wildcard issuewild)"
        }
        "ADDITIONAL_VERIFICATION_REQUIRED" => {
            "Amazon needs more information about one of the names, as for very well-known names. Contact AWS \
             Support"
        }
        "DOMAIN_NOT_ALLOWED" => {
            "one of the names is reported as unsafe (VirusTotal, Google Safe Browsing). Have it removed \
             from those lists, then contact AWS Support"
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

    use jiff::SignedDuration;

    use crate::{
        api::conditions::Reason,
        aws::acm::CertificateStatus,
        controllers::mtls_domain::simulation::world::{desired, empty, now},
        model::action::Action,
        server_certificate::plan::{certificates, tests::state},
    };

    #[test]
    fn the_pause_grows_to_a_week() {
        let days: Vec<_> = (1..9).map(|attempts| pause(attempts).as_hours() / 24).collect();
        assert_eq!(days, [3, 4, 5, 6, 7, 7, 7, 7]);
    }

    #[test]
    fn a_name_that_acm_refuses_is_not_requested() {
        let labels = "a".repeat(50);
        for (name, asks) in [
            (format!("{labels}.x.example.com"), true),
            (format!("{labels}.xy.example.com"), false),
        ] {
            assert_eq!(name.len() <= 64, asks, "{name}");
            let mut d = desired();
            d.placement.domain_name = name.clone();
            let plan = certificates(&d, &empty().observed(), now());
            assert_eq!(plan.has_actions(), asks, "{name}");
            if !asks {
                let (told, message) = state(&d, &empty());
                assert_eq!(told, Reason::InvalidSpec);
                assert!(
                    message.contains("spec.domainName has 65") && message.contains("existing.arn"),
                    "{message}"
                );
            }
        }
    }

    /// A year with an ACM that never issues, with four reconciles a day.
    #[test]
    fn a_year_of_failures_causes_few_requests_with_growing_pauses() {
        for status in [
            CertificateStatus::ValidationTimedOut,
            CertificateStatus::Failed,
            CertificateStatus::Revoked,
        ] {
            let (d, mut w) = (desired(), empty());
            let (mut at, mut tokens) = (vec![], vec![]);
            for attempt in 0..4 * 365 {
                let now = now() + SignedDuration::from_hours(6 * attempt);
                for action in certificates(&d, &w.observed(), now).into_actions() {
                    let Action::Acm(AcmAction::RequestCertificate(r)) = &action else {
                        panic!("{action:?}")
                    };
                    assert!(
                        !tokens.contains(&r.idempotency_token),
                        "ACM would return the failed certificate"
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
    fn a_failure_is_reported_with_its_remedy() {
        let (d, mut w) = (desired(), empty());
        w.perform(certificates(&d, &w.observed(), now()).into_actions().remove(0));
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
        // A certificate for other names, or of another owner, is no attempt of this MtlsDomain.
        w.certificates[0].names.push("www.example.com".into());
        assert_eq!(certificates(&d, &w.observed(), now()).actions().count(), 1);
    }
}
