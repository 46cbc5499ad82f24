//! The step DomainProgrammed: the custom domain, changed in place and only when it is ours.

use super::{Action, Judged, OWNER_TAG, Step, Verdict};
use crate::{
    api::conditions::Reason,
    aws::{
        acm::{self, CertificateStatus},
        gateway::{Domain, DomainRequest, DomainStatus},
    },
    domain::{
        desired::{Desired, Home},
        observed::{Observed, Seen},
    },
};
pub(super) fn domain(
    d: &Desired,
    o: &Observed,
    certificate: Option<&acm::Certificate>,
    ownership: Option<&acm::Certificate>,
    published: &Verdict,
) -> Judged {
    let existing = match &o.domain {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(existing) => existing.as_ref(),
    };
    let version =
        o.published.as_ref().ok().and_then(Option::as_ref).filter(|_| published.is_done()).map(|p| &p.version);
    let pair = certificate.map(|c| (c.arn.as_str(), ownership.map(|c| c.arn.as_str())));
    let wished = |(arn, ownership): (&str, Option<&str>), version: &str| DomainRequest {
        name: d.home.domain_name.clone(),
        certificate_arn: arn.to_owned(),
        ownership_certificate_arn: ownership.map(str::to_owned),
        truststore_uri: d.home.truststore_uri(),
        truststore_version: version.to_owned(),
        ip_address_type: d.ip_address_type,
    };
    let Some(g) = existing else {
        return match (pair, version) {
            (Some(pair), Some(version)) => Judged::act(
                format!("creating the custom domain {}", d.home.domain_name),
                vec![Action::CreateDomain(wished(pair, version))],
            ),
            (None, _) => Verdict::Behind(Step::CertificateIssued).into(),
            (_, None) => Verdict::Behind(Step::TruststorePublished).into(),
        };
    };
    if let Some(refused) = foreign(&d.home, g) {
        return refused.into();
    }
    // Nothing is wished for beside a public certificate, and what may be left there from before does no harm.
    let has = |(arn, ownership): (&str, Option<&str>)| {
        g.certificate_arn == arn && (ownership.is_none() || g.ownership_certificate_arn.as_deref() == ownership)
    };
    match &g.status {
        DomainStatus::Available => {}
        // Locked but for what helps: another certificate, or another proof of the name.
        DomainStatus::PendingCertificateReimport | DomainStatus::PendingOwnershipVerification
            if pair.is_some_and(|pair| !has(pair)) => {}
        DomainStatus::Updating => {
            return Verdict::wait(Reason::WaitingForDomain, format!("API Gateway is updating {}", g.name)).into();
        }
        status => {
            let why = g.status_message.as_deref().unwrap_or("no message");
            return Verdict::blocked(Reason::DomainRejected, format!("{} is {}: {why}", g.name, status.as_str()))
                .into();
        }
    }
    // What it has serves for an update of the rest, as long as API Gateway takes it.
    let in_use = o.certificate(&g.certificate_arn).filter(|c| c.status == CertificateStatus::Issued);
    let in_use = in_use.map(|c| (c.arn.as_str(), g.ownership_certificate_arn.as_deref()));
    let pinned = g.truststore.as_ref().filter(|t| t.uri == d.home.truststore_uri()).and_then(|t| t.version.as_ref());
    let readable = pinned.filter(|_| matches!(o.pinned, Ok(Some(_))));
    let (wanted, wanted_version) = match (pair.or(in_use), version.or(readable)) {
        (Some(wanted), Some(version)) => (wanted, version),
        (None, _) => return Verdict::Behind(Step::CertificateIssued).into(),
        (_, None) => return Verdict::Behind(Step::TruststorePublished).into(),
    };
    let as_wished = has(wanted) && pinned == Some(wanted_version) && g.ip_address_type == d.ip_address_type;
    if !as_wished {
        return Judged::act(
            format!("updating the custom domain {}", g.name),
            vec![Action::UpdateDomain(wished(wanted, wanted_version))],
        );
    }
    match (pair, version) {
        (None, _) => Verdict::Behind(Step::CertificateIssued).into(),
        (_, None) => Verdict::Behind(Step::TruststorePublished).into(),
        _ => Verdict::done(
            Reason::Programmed,
            format!("{} is AVAILABLE with this certificate and truststore version", g.name),
        )
        .into(),
    }
}

/// Why a domain of that name is none of ours.
fn foreign(home: &Home, g: &Domain) -> Option<Verdict> {
    match g.tags.get(OWNER_TAG) {
        Some(owner) if *owner == home.owner => None,
        owner => Some(Verdict::blocked(
            Reason::ForeignOwner,
            format!(
                "the custom domain {} exists already and {}; it is left alone",
                g.name,
                owner.map_or("carries no owner's mark (taking over is not supported yet)".into(), |o| format!(
                    "belongs to {o}"
                ))
            ),
        )),
    }
}

/// The domain, when it is there and ours.
pub(super) fn ours<'a>(home: &Home, domain: &'a Seen<Option<Domain>>) -> Result<&'a Domain, Verdict> {
    match domain {
        Err(why) => Err(Verdict::unknown(why)),
        Ok(Some(g)) if foreign(home, g).is_none() => Ok(g),
        Ok(_) => Err(Verdict::Behind(Step::DomainProgrammed)),
    }
}
