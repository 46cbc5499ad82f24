//! Server certificate in the status, and its Events: renewals and expiry, which no condition reports. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    api::{CertificateState, MtlsDomainStatus, events::Notice},
    aws::acm::{self, CertificateStatus, RenewalStatus},
    dataplane::api_gateway::custom_domain,
    model::{observed::Observed, placement::Placement, step::Plan},
    pki::lint::EXPIRES_SOON,
    server_certificate::{owned, requests},
    status::conditions,
};

/// Returns the status of the certificate that the domain is to have.
pub(crate) fn state(
    placement: &Placement,
    plan: &Plan,
    o: &Observed,
    now: Timestamp,
) -> Option<CertificateState> {
    plan.certificate.as_ref().map(|c| CertificateState {
        arn: c.arn.clone(),
        status: c.status.as_str().to_owned(),
        not_after: c.not_after.map(conditions::in_seconds),
        renewal: c.renewal.as_ref().map(|r| r.status.as_str().to_owned()),
        warnings: worries(placement, plan, o, now)
            .into_iter()
            .map(|(_, message)| message)
            .collect(),
    })
}

/// Returns the Events about the certificate: each new warning once, and each renewal.
pub fn notices(
    old: &MtlsDomainStatus,
    new: &MtlsDomainStatus,
    placement: &Placement,
    plan: &Plan,
    o: &Observed,
    now: Timestamp,
) -> Vec<(Notice, String)> {
    let warnings = |status: &MtlsDomainStatus| {
        status
            .certificate
            .iter()
            .flat_map(|c| c.warnings.clone())
            .collect()
    };
    let (before, after): (Vec<_>, Vec<_>) = (warnings(old), warnings(new));
    let is_new = |message: &String| after.contains(message) && !before.contains(message);
    let mut notices = worries(placement, plan, o, now);
    notices.retain(|(_, message)| is_new(message));
    if let (Some(old), Some(new)) = (&old.certificate, &new.certificate)
        && let (Some(before), Some(after)) = (&old.not_after, &new.not_after)
        && (old.arn == new.arn && before < after)
    {
        let message = format!(
            "{} was renewed and is valid until {}",
            new.arn,
            after.0.strftime("%Y-%m-%d")
        );
        notices.push((Notice::CertificateRenewed, message));
    }
    notices
}

/// Returns the problems that need a user's action, each with its Event reason. Covers the certificate that
/// the domain is to have, the certificate that proves the ownership of the name, and a different certificate
/// that is still in use.
fn worries(placement: &Placement, plan: &Plan, o: &Observed, now: Timestamp) -> Vec<(Notice, String)> {
    let ours = o
        .domain
        .iter()
        .flatten()
        .find(|g| custom_domain::is_ours(placement, g));
    let used = ours.and_then(|g| o.certificate(&g.certificate_arn));
    let watched: BTreeMap<_, _> = plan
        .certificate
        .iter()
        .chain(&plan.ownership)
        .chain(used)
        .map(|c| (c.arn.as_str(), c))
        .collect();
    let issued = watched
        .into_values()
        .filter(|c| c.status == CertificateStatus::Issued);
    issued.flat_map(|c| of_one(c, now)).collect()
}

fn of_one(c: &acm::Certificate, now: Timestamp) -> Vec<(Notice, String)> {
    let mut worries = vec![];
    let arn = &c.arn;
    match c.renewal.as_ref().map(|r| (&r.status, r.reason.as_deref())) {
        Some((RenewalStatus::PendingValidation, _)) => {
            let lines = owned::lines(c);
            worries.push((
                Notice::RenewalPending,
                format!("ACM renews {arn} only once it finds in public DNS: {lines}"),
            ));
        }
        Some((RenewalStatus::Failed, reason)) => {
            let reason = reason.unwrap_or("no reason given");
            let remedy = requests::remedy(reason);
            worries.push((
                Notice::RenewalFailed,
                format!("ACM could not renew {arn}: {reason}: {remedy}"),
            ));
        }
        _ => {}
    }
    if let Some(end) = c.not_after.filter(|end| now < *end && *end < now + EXPIRES_SOON) {
        let day = end.strftime("%Y-%m-%d");
        worries.push((
            Notice::CertificateExpiring,
            format!("{arn} expires on {day} and has not been renewed"),
        ));
    }
    worries
}

#[cfg(test)]
mod tests {
    use super::*;

    use jiff::{SignedDuration, Timestamp};

    use crate::{
        api::{MtlsDomainStatus, events::Notice},
        aws::{
            acm::{self, Renewal, RenewalStatus},
            action::AcmAction,
        },
        controllers::mtls_domain::{
            plan::unlimited as plan,
            report::report,
            simulation::world::{World, desired, empty, now},
        },
    };

    fn days(n: i64) -> SignedDuration {
        SignedDuration::from_hours(24 * n)
    }

    /// Runs a reconcile. Returns the status after it, and the reasons of its Events.
    fn reported(w: &World, old: &MtlsDomainStatus, now: Timestamp) -> (MtlsDomainStatus, Vec<Notice>) {
        let (d, o) = (desired(), w.observed());
        let plan = plan(&d, &o, now);
        let new = report(old, 1, &d.placement, &plan, &o, &Default::default(), now);
        let notices = notices(old, &new, &d.placement, &plan, &o, now);
        (new, notices.into_iter().map(|(notice, _)| notice).collect())
    }

    #[test]
    fn each_step_of_a_renewal_is_reported_once() {
        let (mut w, mut status) = (empty(), MtlsDomainStatus::default());
        w.converge(&desired());
        let mut renewal =
            |after: i64, end: i64, state: Option<(RenewalStatus, Option<&str>)>, told: &[Notice]| {
                let reason = |r: Option<&str>| r.map(str::to_owned);
                w.certificates[0].renewal = state.map(|(status, r)| Renewal {
                    status,
                    reason: reason(r),
                });
                w.certificates[0].not_after = Some(now() + days(end));
                let (new, reasons) = reported(&w, &status, now() + days(after));
                assert_eq!(reasons, told, "{after} {end}");
                let (again, reasons) = reported(&w, &new, now() + days(after));
                assert_eq!(
                    (&again, reasons),
                    (&new, vec![]),
                    "reported once, and an unchanged status"
                );
                status = new;
                status.certificate.clone().expect("there")
            };
        let told = renewal(0, 198, None, &[]);
        assert_eq!((told.renewal, told.warnings), (None, vec![]));
        renewal(150, 198, Some((RenewalStatus::PendingAutoRenewal, None)), &[]);
        let told = renewal(
            153,
            198,
            Some((RenewalStatus::PendingValidation, None)),
            &[Notice::RenewalPending],
        );
        assert_eq!(told.renewal.as_deref(), Some("PENDING_VALIDATION"));
        assert!(
            told.warnings[0].contains("_x.api.example.com. CNAME _y.acm-validations.aws."),
            "{told:?}"
        );
        renewal(
            169,
            198,
            Some((RenewalStatus::PendingValidation, None)),
            &[Notice::CertificateExpiring],
        );
        let told = renewal(
            170,
            198,
            Some((RenewalStatus::Failed, Some("CAA_ERROR"))),
            &[Notice::RenewalFailed],
        );
        assert!(
            told.warnings
                .iter()
                .any(|w| w.contains("CAA_ERROR: a CAA record")),
            "{told:?}"
        );
        let told = renewal(
            171,
            396,
            Some((RenewalStatus::Success, None)),
            &[Notice::CertificateRenewed],
        );
        assert_eq!(
            (told.renewal.as_deref(), told.warnings),
            (Some("SUCCESS"), vec![])
        );
        // The warning about the previous expiry does not hide the next expiry.
        renewal(
            380,
            396,
            Some((RenewalStatus::Success, None)),
            &[Notice::CertificateExpiring],
        );
    }

    /// Checks that the certificate in use is watched while its successor is pending.
    #[test]
    fn a_certificate_in_use_is_watched_until_it_is_replaced() {
        let (mut w, status) = (empty(), MtlsDomainStatus::default());
        w.converge(&desired());
        w.certificates[0].not_after = Some(now() + days(100));
        w.certificates[0].names.push("old.example.com".to_owned());
        let request = acm::CertificateRequest {
            domain_name: desired().placement.domain_name,
            names: vec![desired().placement.domain_name],
            key_algorithm: acm::KeyAlgorithm::EcPrime256v1,
            idempotency_token: String::new(),
            tags: w.certificates[0].tags.clone(),
        };
        w.perform(AcmAction::RequestCertificate(request).into());
        let (new, reasons) = reported(&w, &status, now() + days(80));
        assert_eq!(reasons, [Notice::CertificateExpiring]);
        let shown = new.certificate.expect("there");
        assert_eq!(
            (shown.status.as_str(), shown.warnings.len()),
            ("PENDING_VALIDATION", 1)
        );
    }
}
