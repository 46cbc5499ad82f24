//! Requests of a certificate, and the pauses after failed requests and after certificates that do not fit.
//! These certificates stay in ACM until one that fits is ISSUED, and are the only state of the retries.

use jiff::{SignedDuration, Timestamp};

use super::owned::{fits, is_ours, lines, owned};

use crate::{
    api::conditions::Reason,
    aws::{
        acm::{self, CertificateStatus},
        action::AcmAction,
        tags::{OWNER_TAG, REQUEST_TAG},
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
    let attempts = || owned(&d.placement, o).filter(|c| fits(wanted, c) || is_misfit(wanted, c));
    if let Some(last) = attempts().max_by_key(|c| (c.created_at, &c.arn)) {
        let misfit = is_misfit(wanted, last);
        let alike = attempts().filter(|c| is_misfit(wanted, c) == misfit).count();
        let (why, pause, when) = match misfit {
            false => (
                why(last),
                pause(alike),
                "after three days at first and later once a week",
            ),
            true => (
                why_misfit(wanted, last),
                misfit_pause(alike),
                "after an hour at first and later once a day",
            ),
        };
        if last.created_at.is_none_or(|at| now < at + pause) {
            let message = format!(
                "{why}. The operator requests another certificate, {when}; to request it at once, delete \
                 this one in ACM"
            );
            return StepState::blocked(Reason::CertificateFailed, message).into();
        }
    }
    // A certificate that lost its ownership tag is not owned any more, like any certificate of a user; but
    // the unchanged token would return it again.
    let others = o
        .certificates
        .iter()
        .flatten()
        .filter(|c| (fits(wanted, c) || is_misfit(wanted, c)) && !is_ours(&d.placement, c))
        .count();
    StepPlan::in_progress(
        format!("requesting a certificate for {}", d.placement.domain_name),
        AcmAction::RequestCertificate(acm::CertificateRequest {
            domain_name: d.placement.domain_name.clone(),
            names: wanted.names.clone(),
            key_algorithm: wanted.new_key(),
            // ACM returns the same certificate for the same token for an hour, also a failed one.
            idempotency_token: short_hash(&format!("{}\n{}", wanted.token, attempts().count() + others)),
            tags: d
                .placement
                .tags
                .clone()
                .into_iter()
                .chain([
                    (OWNER_TAG.to_owned(), d.placement.owner.clone()),
                    (REQUEST_TAG.to_owned(), wanted.token.clone()),
                ])
                .collect(),
        }),
    )
}

/// True for ACM's answer to this very request, when the certificate has other names or another key. Without a
/// pause the operator would request certificates that never fit, one after the other. A certificate of an
/// earlier spec has another tag, and a certificate of an earlier release has none.
fn is_misfit(wanted: &DesiredRequest, c: &acm::Certificate) -> bool {
    !fits(wanted, c) && c.tags.get(REQUEST_TAG) == Some(&wanted.token)
}

/// Returns the pause after so many certificates that did not fit: an hour, doubled for each, up to a day.
fn misfit_pause(attempts: usize) -> SignedDuration {
    SignedDuration::from_hours(1 << attempts.saturating_sub(1).min(5)).min(SignedDuration::from_hours(24))
}

/// Returns the difference between the certificate and its request, with the remedy.
fn why_misfit(wanted: &DesiredRequest, c: &acm::Certificate) -> String {
    let mut differences = Vec::new();
    if c.names != wanted.names {
        differences.push(format!(
            "for {}, and not for {}",
            c.names.join(", "),
            wanted.names.join(", ")
        ));
    }
    let mut remedy = String::new();
    if let Some(key) = wanted
        .key_algorithm
        .as_ref()
        .filter(|key| **key != c.key_algorithm)
    {
        let key_there = Some(c.key_algorithm.as_str()).filter(|key| !key.is_empty());
        differences.push(format!(
            "with the key {}, and not {}",
            key_there.unwrap_or("of no named algorithm"),
            key.as_str()
        ));
        remedy = ". Remove spec.serverCertificate.request.keyAlgorithm to use any key".to_owned();
    }
    format!(
        "the certificate {} does not fit: ACM made it {}{remedy}",
        c.arn,
        differences.join(" and ")
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
        model::step::{StepPlan, StepState},
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

    /// Ten days with an ACM that ignores the key, as some emulators do, with a reconcile every ten minutes.
    /// The operator has no other memory than ACM, so a restart changes nothing.
    #[test]
    fn a_certificate_that_never_fits_is_requested_with_growing_pauses_and_reported() {
        for (status, ignores) in [
            (CertificateStatus::Issued, "the key"),
            (CertificateStatus::PendingValidation, "the key"),
            (CertificateStatus::Issued, "the names"),
        ] {
            let (d, mut w) = (desired(), empty());
            let (mut at, mut tokens) = (vec![], vec![]);
            for minute in (0..10 * 24 * 60).step_by(10) {
                let now = now() + SignedDuration::from_mins(minute);
                let plan = certificates(&d, &w.observed(), now);
                if !at.is_empty() && !plan.has_actions() {
                    let StepPlan::Pending(StepState::Blocked(reason, message), _) = &plan else {
                        panic!("{plan:?}")
                    };
                    assert_eq!(*reason, Reason::CertificateFailed);
                    let last = w.certificates.last().expect("requested");
                    let says = match ignores {
                        "the key" => {
                            "with the key RSA_2048, and not EC_prime256v1. Remove \
                                      spec.serverCertificate.request.keyAlgorithm"
                        }
                        _ => "for api.example.com, more.example.com, and not for api.example.com",
                    };
                    assert!(message.contains(&last.arn) && message.contains(says), "{message}");
                }
                for action in plan.into_actions() {
                    let Action::Acm(AcmAction::RequestCertificate(r)) = &action else {
                        panic!("{action:?}")
                    };
                    assert!(
                        !tokens.contains(&r.idempotency_token),
                        "ACM would return the same"
                    );
                    tokens.push(r.idempotency_token.clone());
                    w.perform(action);
                    at.push(now);
                    let last = w.certificates.last_mut().expect("requested");
                    (last.status, last.created_at) = (status.clone(), Some(now));
                    match ignores {
                        "the key" => last.key_algorithm = acm::KeyAlgorithm::Rsa2048,
                        _ => last.names.push("more.example.com".into()),
                    }
                }
            }
            let pauses: Vec<_> = at
                .windows(2)
                .map(|two| two[1].duration_since(two[0]).as_hours())
                .collect();
            assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 24], "{status:?} {pauses:?}");
            assert!(pauses[6..].iter().all(|hours| *hours == 24), "{pauses:?}");
        }
    }

    /// A certificate of another spec, of an earlier release or of another owner is no answer to a request.
    #[test]
    fn only_answers_to_this_request_pause_it() {
        for (tag, owner) in [
            (Some("another token"), None),
            (None, None),
            (Some("t"), Some("other/ns/partners")),
        ] {
            let (d, mut w) = (desired(), empty());
            w.perform(certificates(&d, &w.observed(), now()).into_actions().remove(0));
            let c = &mut w.certificates[0];
            assert_eq!(c.tags.get(REQUEST_TAG).map(String::as_str), Some("t"));
            (c.key_algorithm, c.created_at) = (acm::KeyAlgorithm::Rsa2048, Some(now()));
            c.tags.remove(REQUEST_TAG);
            c.tags
                .extend(tag.map(|tag| (REQUEST_TAG.to_owned(), tag.to_owned())));
            c.tags
                .extend(owner.map(|owner| (OWNER_TAG.to_owned(), owner.to_owned())));
            assert_eq!(
                certificates(&d, &w.observed(), now()).actions().count(),
                1,
                "{tag:?} {owner:?}"
            );
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
        // A certificate that an earlier spec requested is no attempt of this one.
        let c = &mut w.certificates[0];
        c.names.push("www.example.com".into());
        c.tags.insert(REQUEST_TAG.into(), "t0".into());
        assert_eq!(certificates(&d, &w.observed(), now()).actions().count(), 1);
    }
}
