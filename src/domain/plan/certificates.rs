//! The step CertificateIssued: one certificate of ours, issued, its validation record kept, superseded ones gone.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Judged, OWNER_TAG, Step, Verdict};
use crate::{
    api::conditions::Reason,
    aws::{
        acm::{self, CertificateStatus},
        route53::{Change, RecordSet, Zone},
    },
    domain::{
        desired::{CertificateWish, Desired, DnsWish, Home, RequestWish},
        observed::{Observed, ZoneChoice},
        records,
    },
};
/// For exactly the names and key that the spec says.
fn fits(wish: &RequestWish, c: &acm::Certificate) -> bool {
    c.names == wish.names && c.key_algorithm == wish.key_algorithm
}

fn owned<'a>(home: &'a Home, o: &'a Observed) -> impl Iterator<Item = &'a acm::Certificate> {
    o.certificates.iter().flatten().filter(|c| c.tags.get(OWNER_TAG) == Some(&home.owner))
}

/// The one that the domain shall have: issued before pending, in use before not, then the oldest.
pub(super) fn chosen<'a>(d: &'a Desired, o: &'a Observed) -> Option<&'a acm::Certificate> {
    let CertificateWish::Request { request, .. } = &d.certificate else { return None };
    let used = o.domain.as_ref().ok().and_then(Option::as_ref).map(|g| g.certificate_arn.as_str());
    owned(&d.home, o)
        .filter(|c| {
            fits(request, c) && matches!(c.status, CertificateStatus::Issued | CertificateStatus::PendingValidation)
        })
        .min_by_key(|c| {
            (c.status != CertificateStatus::Issued, used != Some(c.arn.as_str()), c.created_at, c.arn.clone())
        })
}

pub(super) fn certificates(d: &Desired, o: &Observed) -> Judged {
    if let Err(why) = &o.certificates {
        return Verdict::unknown(why).into();
    }
    let CertificateWish::Request { request: wish, .. } = &d.certificate else {
        return Verdict::Behind(Step::ResolvedRefs).into();
    };
    let Some(certificate) = chosen(d, o) else { return request(d, wish, o) };
    let validation = match (&d.home.dns, &o.validation) {
        (DnsWish::External { .. }, _) => Ok(vec![]),
        (_, Ok(found)) => validation_records(d, o, certificate, found),
        (_, Err(why)) => Err(Verdict::unknown(why)),
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
        Ok(_) if matches!(d.home.dns, DnsWish::External { .. }) => {
            Verdict::wait(Reason::WaitingForValidation, format!("create in public DNS: {}", lines(certificate))).into()
        }
        Ok(_) => {
            Verdict::wait(Reason::WaitingForValidation, "the validation record is in Route 53; ACM has not issued yet")
                .into()
        }
    }
}

/// Zones are looked up before the request, so that no certificate is left that can never be issued.
fn request(d: &Desired, wish: &RequestWish, o: &Observed) -> Judged {
    if let DnsWish::Route53 { .. } = d.home.dns {
        for name in &wish.names {
            if let Err(verdict) = zone(d, o, name) {
                return verdict.into();
            }
        }
    }
    if let Some(failed) = owned(&d.home, o).find(|c| fits(wish, c) && c.status == CertificateStatus::Failed) {
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
            names: wish.names.clone(),
            key_algorithm: wish.key_algorithm.clone(),
            idempotency_token: wish.token.clone(),
            tags: [(OWNER_TAG.to_owned(), d.home.owner.clone())].into(),
        })],
    )
}

/// The hosted zone that the records of `name` belong into.
pub(super) fn zone<'a>(d: &Desired, o: &'a Observed, name: &str) -> Result<&'a Zone, Verdict> {
    let zones = o.zones.as_ref().map_err(Verdict::unknown)?;
    let DnsWish::Route53 { zone_id, .. } = &d.home.dns else {
        return Err(Verdict::blocked(Reason::HostedZoneNotFound, format!("the records of {name} are made elsewhere")));
    };
    let message = match (zones.get(name), zone_id) {
        (Some(ZoneChoice::Found(zone)), _) => return Ok(zone),
        (Some(ZoneChoice::Ambiguous(ids)), _) => {
            format!(
                "{} are public hosted zones of one name, a parent of {name}; say with spec.dns.route53.hostedZoneId which one",
                ids.join(" and ")
            )
        }
        (_, Some(id)) if name == d.home.domain_name => {
            format!("spec.dns.route53.hostedZoneId: there is no public hosted zone {id} that {name} belongs into")
        }
        _ => format!(
            "no public hosted zone in account {} is a parent of {name}; create one, or set spec.dns.route53.hostedZoneId",
            d.home.route53_account()
        ),
    };
    Err(Verdict::blocked(Reason::HostedZoneNotFound, message))
}

/// The CNAMEs by which ACM sees that the names of a certificate are ours, and that it looks for again at each renewal: name and value
/// without final dot, each once, sorted.
pub fn validation(c: &acm::Certificate) -> Vec<(String, String)> {
    let records = c.validation.iter().filter_map(|v| v.record.as_ref());
    let records = records.map(|(name, value)| (name.clone(), value.trim_end_matches('.').to_owned()));
    records.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The same as lines of a zone file.
fn lines(c: &acm::Certificate) -> String {
    let lines: Vec<_> = validation(c).iter().map(|(name, value)| format!("{name}. CNAME {value}.")).collect();
    lines.join("; ")
}

/// What it takes for the validation records of `certificate` to be there: one batch for each zone.
fn validation_records(
    d: &Desired,
    o: &Observed,
    certificate: &acm::Certificate,
    found: &BTreeMap<String, Vec<RecordSet>>,
) -> Result<Vec<Action>, Verdict> {
    let mut batches: BTreeMap<&str, BTreeMap<String, Change>> = BTreeMap::new();
    for validation in &certificate.validation {
        let Some((name, value)) = &validation.record else { continue };
        let zone = zone(d, o, &validation.domain)?;
        let there = found.get(name).map_or(&[][..], Vec::as_slice);
        if let Some(change) = records::validation_change(name, value, there) {
            // A name and its wildcard have the same record, and a batch must not name it twice.
            batches.entry(&zone.id).or_default().insert(name.clone(), change);
        }
    }
    let batch = |(zone_id, changes): (&str, BTreeMap<_, _>)| Action::ChangeRecords {
        zone_id: zone_id.to_owned(),
        changes: changes.into_values().collect(),
    };
    Ok(batches.into_iter().map(batch).collect())
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
