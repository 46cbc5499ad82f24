//! The step CertificateIssued: one certificate of ours, issued, its validation record kept, superseded ones gone.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Judged, OWNER_TAG, Verdict};
use crate::{
    api::conditions::Reason,
    aws::{
        acm::{self, CertificateStatus},
        route53::RecordSet,
    },
    domain::{
        desired::{Desired, Home},
        observed::Observed,
        records,
    },
};
/// Ours, for exactly the names and key that the spec says.
fn fits(d: &Desired, c: &acm::Certificate) -> bool {
    c.names == d.certificate.names && c.key_algorithm == d.certificate.key_algorithm
}

fn owned<'a>(home: &'a Home, o: &'a Observed) -> impl Iterator<Item = &'a acm::Certificate> {
    o.certificates.iter().flatten().filter(|c| c.tags.get(OWNER_TAG) == Some(&home.owner))
}

/// The one that the domain shall have: issued before pending, in use before not, then the oldest.
pub(super) fn chosen<'a>(d: &'a Desired, o: &'a Observed) -> Option<&'a acm::Certificate> {
    let used = o.domain.as_ref().ok().and_then(Option::as_ref).map(|g| g.certificate_arn.as_str());
    owned(&d.home, o)
        .filter(|c| fits(d, c) && matches!(c.status, CertificateStatus::Issued | CertificateStatus::PendingValidation))
        .min_by_key(|c| {
            (c.status != CertificateStatus::Issued, used != Some(c.arn.as_str()), c.created_at, c.arn.clone())
        })
}

pub(super) fn certificates(d: &Desired, o: &Observed) -> Judged {
    if let Err(why) = &o.certificates {
        return Verdict::unknown(why).into();
    }
    let Some(certificate) = chosen(d, o) else { return request(d, o) };
    let validation = match &o.validation {
        Ok(found) => validation_records(d, o, certificate, found),
        Err(why) => Err(Verdict::unknown(why)),
    };
    if certificate.status == CertificateStatus::Issued {
        // The record is what the renewal hangs on: put back when somebody removed it, without a fuss.
        let mut actions = validation.unwrap_or_default();
        actions.extend(superseded(d, o, certificate));
        let day = |t: jiff::Timestamp| t.strftime("%Y-%m-%d").to_string();
        let not_after = certificate.not_after.map(|t| format!(", valid until {}", day(t))).unwrap_or_default();
        return Judged {
            verdict: Verdict::done(Reason::Issued, format!("{} is ISSUED{not_after}", certificate.arn)),
            actions,
        };
    }
    match validation {
        Err(verdict) => verdict.into(),
        Ok(changes) if !changes.is_empty() => Judged::act("writing the validation record into Route 53", changes),
        Ok(_) if certificate.validation.is_empty() || certificate.validation.iter().any(|v| v.record.is_none()) => {
            Verdict::wait(Reason::WaitingForValidation, "ACM has not named the validation record yet").into()
        }
        Ok(_) => {
            Verdict::wait(Reason::WaitingForValidation, "the validation record is in Route 53; ACM has not issued yet")
                .into()
        }
    }
}

/// Zones are looked up before the request, so that no certificate is left that can never be issued.
fn request(d: &Desired, o: &Observed) -> Judged {
    match &o.zone {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(None) => return no_zone(d).into(),
        Ok(Some(zone)) => {
            if let Some(outside) = d.certificate.names.iter().find(|n| !records::is_inside(n, &zone.name)) {
                return Verdict::blocked(
                    Reason::HostedZoneNotFound,
                    format!(
                        "spec.serverCertificate.request.subjectAlternativeNames: {outside} is not inside the hosted zone {}; names of other \
                         zones are not supported yet",
                        zone.name
                    ),
                )
                .into();
            }
        }
    }
    if let Some(failed) = owned(&d.home, o).find(|c| fits(d, c) && c.status == CertificateStatus::Failed) {
        let why = failed.failure.as_deref().unwrap_or("no reason given");
        return Verdict::blocked(
            Reason::CertificateFailed,
            format!("ACM could not issue {}: {why}. Put that right, then delete the failed certificate in ACM: a new one is requested", failed.arn),
        )
        .into();
    }
    Judged::act(
        format!("requesting a certificate for {}", d.home.domain_name),
        vec![Action::RequestCertificate(acm::CertificateRequest {
            domain_name: d.home.domain_name.clone(),
            names: d.certificate.names.clone(),
            key_algorithm: d.certificate.key_algorithm.clone(),
            idempotency_token: d.certificate.token.clone(),
            tags: [(OWNER_TAG.to_owned(), d.home.owner.clone())].into(),
        })],
    )
}

pub(super) fn no_zone(d: &Desired) -> Verdict {
    let message = match &d.home.zone_id {
        Some(id) => format!(
            "spec.dns.route53.hostedZoneId: there is no public hosted zone {id} that {} belongs into",
            d.home.domain_name
        ),
        None => format!(
            "no public hosted zone in account {} is a parent of {}; create one, or set spec.dns.route53.hostedZoneId",
            d.home.account, d.home.domain_name
        ),
    };
    Verdict::blocked(Reason::HostedZoneNotFound, message)
}

/// What it takes for the validation records of `certificate` to be there.
fn validation_records(
    d: &Desired,
    o: &Observed,
    certificate: &acm::Certificate,
    found: &BTreeMap<String, Vec<RecordSet>>,
) -> Result<Vec<Action>, Verdict> {
    let zone = match &o.zone {
        Err(why) => return Err(Verdict::unknown(why)),
        Ok(None) => return Err(no_zone(d)),
        Ok(Some(zone)) => zone,
    };
    let wanted: BTreeSet<_> = certificate.validation.iter().filter_map(|v| v.record.clone()).collect();
    let changes: Vec<_> = wanted
        .into_iter()
        .filter_map(|(name, value)| {
            records::validation_change(&name, &value, found.get(&name).map_or(&[], Vec::as_slice))
        })
        .collect();
    Ok(if changes.is_empty() { vec![] } else { vec![Action::ChangeRecords { zone_id: zone.id.clone(), changes }] })
}

/// Certificates of ours that nothing needs any more.
fn superseded<'a>(d: &'a Desired, o: &'a Observed, kept: &'a acm::Certificate) -> impl Iterator<Item = Action> + 'a {
    let used = match &o.domain {
        Ok(domain) => Some(domain.as_ref().map(|g| g.certificate_arn.as_str()).unwrap_or_default()),
        Err(_) => None, // not known which one is in use: none may go
    };
    owned(&d.home, o)
        .filter(move |c| c.arn != kept.arn && !c.in_use && used.is_some_and(|used| used != c.arn))
        .map(|c| Action::DeleteCertificate { arn: c.arn.clone() })
}
