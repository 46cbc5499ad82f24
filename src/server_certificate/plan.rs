//! The step CertificateIssued: one issued, owned certificate, with its validation record, and without
//! superseded certificates; or a valid existing certificate, which the operator only reads.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    owned::{fits, is_ours, lines, owned},
    requests,
};

use crate::{
    api::conditions::Reason,
    aws::{
        acm::{self, CertificateKind, CertificateStatus},
        action::{AcmAction, Route53Action},
        arn::Arn,
        route53::{Change, RecordSet},
        tags,
    },
    dns::{records, zone::zone},
    model::{
        desired::{Desired, DesiredCertificate, DesiredRequest},
        observed::Observed,
        placement::{DesiredDns, Placement},
        step::{Actions, Step, StepPlan, StepState},
    },
    observation::seen::Unseen,
};

/// Desired certificate.
enum Wanted<'a> {
    /// Certificate that the operator requests.
    Requested(&'a DesiredRequest),
    /// Existing certificate, which the operator only reads.
    There(There<'a>),
}

struct There<'a> {
    arn: &'a str,
    /// ARN of the public certificate that proves the name.
    ownership_arn: Option<&'a str>,
    /// True when the domain had the certificate at its takeover, and the spec names none.
    kept: bool,
}

/// Returns the desired certificate. A domain that the operator took over keeps its certificate while the spec
/// names none. A later certificate that the operator requested for the domain counts as requested.
fn wanted<'a>(d: &'a Desired, o: &'a Observed) -> Result<Wanted<'a>, StepState> {
    let request = match &d.certificate {
        DesiredCertificate::Existing { arn, ownership_arn } => {
            return Ok(Wanted::There(There {
                arn: arn.as_str(),
                ownership_arn: ownership_arn.as_ref().map(Arn::as_str),
                kept: false,
            }));
        }
        DesiredCertificate::Request { request, keep: false } => return Ok(Wanted::Requested(request)),
        DesiredCertificate::Request { request, keep: true } => request,
    };
    let front = o.front.as_ref().map_err(StepState::unknown)?;
    let Some(front) = front.as_ref().filter(|front| front.is_taken_over(d.adoption)) else {
        return Ok(Wanted::Requested(request));
    };
    let certificates = o.certificates.as_ref().map_err(StepState::unknown)?;
    if certificates
        .iter()
        .any(|c| c.arn == front.certificate_arn && is_ours(&d.placement, c))
    {
        return Ok(Wanted::Requested(request));
    }
    if front.certificate_arn.is_empty() {
        return Err(StepState::WaitingFor(Step::DomainProgrammed)); // edge-optimized, which that step rejects
    }
    let ownership_arn = front.ownership_certificate_arn.as_deref();
    Ok(Wanted::There(There {
        arn: &front.certificate_arn,
        ownership_arn,
        kept: true,
    }))
}

/// Returns the certificate that the domain should have, in any status. Owned certificates: issued before
/// pending, in use before unused, then the oldest.
pub(crate) fn chosen<'a>(d: &'a Desired, o: &'a Observed) -> Option<&'a acm::Certificate> {
    match wanted(d, o).ok()? {
        Wanted::Requested(wanted) => requested(d, wanted, o),
        Wanted::There(there) => named(o, there.arn).ok()?,
    }
}

/// Returns the public certificate that proves the name for the chosen certificate.
pub(crate) fn ownership<'a>(d: &'a Desired, o: &'a Observed) -> Option<&'a acm::Certificate> {
    match wanted(d, o).ok()? {
        Wanted::Requested(_) => None,
        Wanted::There(there) => named(o, there.ownership_arn?).ok()?,
    }
}

fn requested<'a>(d: &'a Desired, wanted: &DesiredRequest, o: &'a Observed) -> Option<&'a acm::Certificate> {
    let used = o
        .front
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map(|front| front.certificate_arn.as_str());
    owned(&d.placement, o)
        .filter(|c| {
            fits(wanted, c)
                && matches!(
                    c.status,
                    CertificateStatus::Issued | CertificateStatus::PendingValidation
                )
        })
        .min_by_key(|c| {
            (
                c.status != CertificateStatus::Issued,
                used != Some(c.arn.as_str()),
                c.created_at,
                c.arn.clone(),
            )
        })
}

fn named<'a>(o: &'a Observed, arn: &str) -> Result<Option<&'a acm::Certificate>, &'a Unseen> {
    o.named
        .get(arn)
        .map_or(Ok(None), |read| read.as_ref().map(Option::as_ref))
}

pub(crate) fn certificates(d: &Desired, o: &Observed, now: Timestamp) -> StepPlan {
    match wanted(d, o) {
        Err(state) => state.into(),
        Ok(Wanted::Requested(wanted)) => ours(d, wanted, o, now),
        Ok(Wanted::There(there)) => match usable(d, &there, o, now) {
            Err(state) => state.into(),
            Ok(c) => {
                let what = if there.kept {
                    "the certificate that the domain came with, "
                } else {
                    ""
                };
                issued(what, c).then(superseded(d, o, [Some(there.arn), there.ownership_arn]))
            }
        },
    }
}

fn issued(what: &str, c: &acm::Certificate) -> StepPlan {
    let not_after = c
        .not_after
        .map(|t| t.strftime(", valid until %Y-%m-%d").to_string())
        .unwrap_or_default();
    StepPlan::done(Reason::Issued, format!("{what}{} is ISSUED{not_after}", c.arn))
}

/// Returns the certificate when API Gateway accepts it for mutual TLS.
fn usable<'a>(
    d: &Desired,
    there: &There,
    o: &'a Observed,
    now: Timestamp,
) -> Result<&'a acm::Certificate, StepState> {
    let Placement {
        domain_name: name, ..
    } = &d.placement;
    let (field, way_out) = match there.kept {
        true => (
            "the domain's certificate",
            "; name another one in spec.serverCertificate",
        ),
        false => ("spec.serverCertificate.existing.arn", ""),
    };
    let c = valid(field, way_out, there.arn, name, o, now)?;
    let proof = "spec.serverCertificate.existing.ownershipVerificationArn";
    let invalid = |message: String| Err(StepState::blocked(Reason::InvalidSpec, message));
    let origin = match c.kind {
        CertificateKind::Requested if there.ownership_arn.is_some() && !there.kept => {
            return invalid(format!(
                "{proof}: leave it out: {} is a public certificate, which proves its names itself",
                c.arn
            ));
        }
        CertificateKind::Requested => return Ok(c),
        CertificateKind::Imported => "was imported into ACM",
        CertificateKind::PrivateCa => "is from AWS Private CA",
    };
    let Some(ownership_arn) = there.ownership_arn else {
        let with = if there.kept {
            ", and this ARN as spec.serverCertificate.existing.arn"
        } else {
            ""
        };
        return invalid(format!(
            "{proof}: {} {origin}, and for mutual TLS API Gateway takes it only beside a public certificate \
             that proves the name: set here the ARN of one that ACM issued for {name}{with}",
            c.arn
        ));
    };
    let ownership = valid(proof, way_out, ownership_arn, name, o, now)?;
    if ownership.kind != CertificateKind::Requested {
        return invalid(format!(
            "{proof}: {ownership_arn} is not a public certificate that was requested from ACM"
        ));
    }
    Ok(c)
}

/// Returns the certificate with this ARN, when it exists, is valid and covers `name`. `field` is the field
/// that names it.
fn valid<'a>(
    field: &str,
    way_out: &str,
    arn: &str,
    name: &str,
    o: &'a Observed,
    now: Timestamp,
) -> Result<&'a acm::Certificate, StepState> {
    let c = named(o, arn).map_err(StepState::unknown)?.ok_or_else(|| {
        StepState::blocked(
            Reason::RefNotFound,
            format!("{field}: there is no certificate {arn} in ACM{way_out}"),
        )
    })?;
    let expired = c.not_after.is_some_and(|t| t <= now);
    let status = if expired {
        CertificateStatus::Expired
    } else {
        c.status.clone()
    };
    let problem = if status != CertificateStatus::Issued {
        format!("is {}, not ISSUED", status.as_str())
    } else if !covers(c, name) {
        format!("is not for {name}, but for {}", c.names.join(", "))
    } else {
        return Ok(c);
    };
    Err(StepState::blocked(
        Reason::CertificateFailed,
        format!("{field}: {arn} {problem}{way_out}"),
    ))
}

/// True when the certificate has the exact name, or a wildcard for its first label.
fn covers(c: &acm::Certificate, name: &str) -> bool {
    let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    c.names.iter().any(|n| n == name || Some(n) == wildcard.as_ref())
}

pub(crate) fn ours(d: &Desired, wanted: &DesiredRequest, o: &Observed, now: Timestamp) -> StepPlan {
    if let Err(why) = &o.certificates {
        return StepState::unknown(why).into();
    }
    let Some(certificate) = requested(d, wanted, o) else {
        return requests::request(d, wanted, o, now);
    };
    let validation = match (&d.placement.dns, &o.validation) {
        (DesiredDns::External { .. }, _) => Ok(vec![]),
        (_, Ok(found)) => validation_records(d, o, certificate, found),
        (_, Err(why)) => Err(StepState::unknown(why)),
    };
    if certificate.status == CertificateStatus::Issued {
        // The renewal depends on the record: the operator restores a removed record without a change of the
        // condition.
        return issued("", certificate)
            .then(validation.unwrap_or_default())
            .then(superseded(d, o, [Some(&certificate.arn), None]))
            .then(tagging(d, certificate));
    }
    let changes = match validation {
        Err(state) => return state.into(),
        Ok(changes) => changes,
    };
    if let Some(actions) = Actions::of(changes) {
        return StepPlan::in_progress("writing the validation record into Route 53", actions);
    }
    let is_named =
        !certificate.validation.is_empty() && certificate.validation.iter().all(|v| v.record.is_some());
    let waits = if !is_named {
        "ACM has not named the validation record yet".to_owned()
    } else if matches!(d.placement.dns, DesiredDns::External { .. }) {
        format!("create in public DNS: {}", lines(certificate))
    } else {
        "the validation record is in Route 53; ACM has not issued yet".to_owned()
    };
    StepState::wait(Reason::WaitingForValidation, waits).into()
}

/// Returns the action that adds the demanded tags that an owned certificate lacks. Other tags stay.
fn tagging(d: &Desired, certificate: &acm::Certificate) -> Option<AcmAction> {
    let tags = tags::missing(&d.placement.tags, &certificate.tags);
    (!tags.is_empty()).then(|| AcmAction::TagCertificate {
        arn: certificate.arn.clone(),
        tags,
    })
}

/// Returns the actions that create the validation records of `certificate`: one batch for each zone.
fn validation_records(
    d: &Desired,
    o: &Observed,
    certificate: &acm::Certificate,
    found: &BTreeMap<String, Vec<RecordSet>>,
) -> Result<Vec<Route53Action>, StepState> {
    let mut batches: BTreeMap<&str, BTreeMap<String, Change>> = BTreeMap::new();
    for validation in &certificate.validation {
        let Some((name, value)) = &validation.record else {
            continue;
        };
        let zone = zone(d, o, &validation.domain)?;
        let there = found.get(name).map_or(&[][..], Vec::as_slice);
        if let Some(change) = records::validation_change(name, value, there) {
            // A name and its wildcard have the same record, and a batch must not contain it twice.
            batches.entry(&zone.id).or_default().insert(name.clone(), change);
        }
    }
    let batch = |(zone_id, changes): (&str, BTreeMap<_, _>)| Route53Action::ChangeRecords {
        zone_id: zone_id.to_owned(),
        changes: changes.into_values().collect(),
    };
    Ok(batches.into_iter().map(batch).collect())
}

/// Returns the deletions of unused owned certificates, except those `needed`.
fn superseded<'a>(
    d: &'a Desired,
    o: &'a Observed,
    needed: [Option<&'a str>; 2],
) -> impl Iterator<Item = AcmAction> + 'a {
    let used = match &o.front {
        Ok(front) => Some(
            front
                .as_ref()
                .map(|front| front.certificate_arn.as_str())
                .unwrap_or_default(),
        ),
        Err(_) => None, // the used certificate is unknown: no deletion
    };
    owned(&d.placement, o)
        .filter(move |c| {
            !needed.contains(&Some(&*c.arn)) && !c.in_use && used.is_some_and(|used| used != c.arn)
        })
        .map(|c| AcmAction::DeleteCertificate { arn: c.arn.clone() })
}

#[cfg(test)]
pub(crate) mod tests;
