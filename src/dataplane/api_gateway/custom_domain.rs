//! The step DomainProgrammed: the custom domain, which the operator changes in place, and only when it owns
//! the domain or takes over a domain without owner.

use jiff::Timestamp;

use crate::{
    api::{AdoptionPolicy, UnlistedMappings, conditions::Reason},
    aws::{
        acm::{self, CertificateStatus},
        action::ApiGatewayAction,
        gateway::domains::{Domain, DomainRequest, DomainStatus, MUTUAL_TLS_POLICY},
        tags::{self, ADOPTED_TAG, OWNER_TAG},
    },
    dns::records,
    model::{
        desired::Desired,
        front::Ownership,
        observed::Observed,
        placement::Placement,
        step::{Actions, Step, StepPlan, StepState},
    },
    observation::seen::Seen,
    server_certificate::owned,
    status::text::{self, MOST_TOLD},
};

/// Routing mode in which API mappings alone select the API.
const MAPPINGS_ONLY: &str = "API_MAPPING_ONLY";

pub(crate) fn domain(
    d: &Desired,
    o: &Observed,
    certificate: Option<&acm::Certificate>,
    ownership: Option<&acm::Certificate>,
    published: &StepPlan,
    now: Timestamp,
) -> StepPlan {
    let existing = match &o.domain {
        Err(why) => return StepState::unknown(why).into(),
        Ok(existing) => existing.as_ref(),
    };
    let version = o
        .published
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .filter(|_| published.is_done())
        .map(|p| &p.version);
    let pair = certificate.map(|c| (c.arn.as_str(), ownership.map(|c| c.arn.as_str())));
    let desired = |(arn, ownership): (&str, Option<&str>), version: &str| DomainRequest {
        name: d.placement.domain_name.clone(),
        certificate_arn: arn.to_owned(),
        ownership_certificate_arn: ownership.map(str::to_owned),
        truststore_uri: d.truststore.uri(),
        truststore_version: version.to_owned(),
        ip_address_type: d.ip_address_type,
    };
    let Some(g) = existing else {
        return match (pair, version) {
            (Some(pair), Some(version)) => StepPlan::in_progress(
                format!("creating the custom domain {}", d.placement.domain_name),
                ApiGatewayAction::CreateDomain(desired(pair, version)),
            ),
            (None, _) => StepState::WaitingFor(Step::CertificateIssued).into(),
            (_, None) => StepState::WaitingFor(Step::TruststorePublished).into(),
        };
    };
    let domain_ownership = domain_ownership(&d.placement, g);
    if is_barred(d, o) {
        if domain_ownership == Ownership::Unowned && has_lost_its_tag(d, o, g) {
            return StepPlan::in_progress(
                format!("restoring the ownership tag on the custom domain {}", g.name),
                ApiGatewayAction::TagDomain { arn: g.arn.clone() },
            );
        }
        return not_ours(g, &domain_ownership).into();
    }
    if let Some(why) = unmanageable(g, &domain_ownership) {
        return StepState::blocked(Reason::DomainRejected, why).into();
    }
    if g.status.is_in_progress() {
        return StepState::wait(Reason::WaitingForDomain, in_progress(g)).into();
    }
    if g.security_policy != MUTUAL_TLS_POLICY {
        return StepPlan::in_progress(
            format!(
                "restoring the TLS policy {MUTUAL_TLS_POLICY} of the custom domain {}, for which API Gateway \
                 takes up to an hour",
                g.name
            ),
            ApiGatewayAction::RestoreSecurityPolicy {
                name: g.name.clone(),
                from: g.security_policy.clone(),
            },
        );
    }
    // The present certificate and truststore are usable for an update of other fields, as long as API Gateway
    // accepts them.
    let in_use = o
        .certificate(&g.certificate_arn)
        .filter(|c| c.status == CertificateStatus::Issued);
    let in_use = in_use.map(|c| (c.arn.as_str(), g.ownership_certificate_arn.as_deref()));
    let pinned = g
        .truststore
        .as_ref()
        .filter(|t| t.uri == d.truststore.uri())
        .and_then(|t| t.version.as_ref());
    let readable = pinned.filter(|_| matches!(o.pinned, Ok(Some(_))));
    let (wanted, wanted_version) = match (pair.or(in_use), version.or(readable)) {
        (Some(wanted), Some(version)) => (wanted, version),
        (None, _) => return StepState::WaitingFor(Step::CertificateIssued).into(),
        (_, None) => return StepState::WaitingFor(Step::TruststorePublished).into(),
    };
    // Without a desired proof certificate, a remaining proof certificate does no harm.
    let has_pair = |(arn, ownership): (&str, Option<&str>)| {
        g.certificate_arn == arn
            && (ownership.is_none() || g.ownership_certificate_arn.as_deref() == ownership)
    };
    if let Some(locked) = locked(g, has_pair(wanted)) {
        return locked.into();
    }
    let as_desired = has_pair(wanted)
        && pinned == Some(wanted_version)
        && g.ip_address_type == d.ip_address_type
        && g.routing_mode == MAPPINGS_ONLY;
    let mut actions = vec![];
    if matches!(domain_ownership, Ownership::Unowned | Ownership::Adopted) {
        if let Err(refused) = nobody_loses(d, &domain_ownership, g, o, now) {
            return refused.into();
        }
        if domain_ownership == Ownership::Unowned {
            match (pair, version) {
                (None, _) => return StepState::WaitingFor(Step::CertificateIssued).into(),
                (_, None) => return StepState::WaitingFor(Step::TruststorePublished).into(),
                _ => {} // only with certificate and truststore
            }
            // The tag comes first: after an interruption, the next reconcile then recognises the domain.
            actions.push(ApiGatewayAction::AdoptDomain { arn: g.arn.clone() });
        }
    }
    if !as_desired {
        actions.push(ApiGatewayAction::UpdateDomain(desired(wanted, wanted_version)));
    }
    if let Some(actions) = Actions::of(actions) {
        let what = if domain_ownership == Ownership::Unowned {
            "taking over"
        } else {
            "updating"
        };
        return StepPlan::in_progress(format!("{what} the custom domain {}", g.name), actions);
    }
    match (pair, version) {
        (None, _) => StepState::WaitingFor(Step::CertificateIssued).into(),
        (_, None) => StepState::WaitingFor(Step::TruststorePublished).into(),
        _ => StepPlan::done(
            Reason::Programmed,
            format!(
                "{} is AVAILABLE with this certificate and truststore version",
                g.name
            ),
        )
        .then(tagging(&d.placement, g)),
    }
}

/// Returns the action that adds the demanded tags that the domain lacks. Other tags stay.
fn tagging(placement: &Placement, g: &Domain) -> Option<ApiGatewayAction> {
    let tags = tags::missing(&placement.tags, &g.tags);
    (!tags.is_empty()).then(|| ApiGatewayAction::AddDomainTags {
        arn: g.arn.clone(),
        tags,
    })
}

/// Returns what a domain waits for that API Gateway is working on.
pub(crate) fn in_progress(g: &Domain) -> String {
    match g.status {
        DomainStatus::Updating => format!("API Gateway is updating {}", g.name),
        _ => format!("{} is {}: waiting for API Gateway", g.name, g.status.as_str()),
    }
}

pub fn domain_ownership(placement: &Placement, g: &Domain) -> Ownership {
    match g.tags.get(OWNER_TAG) {
        None => Ownership::Unowned,
        Some(owner) if *owner != placement.owner => Ownership::NotOwned(owner.clone()),
        Some(_) if g.tags.contains_key(ADOPTED_TAG) => Ownership::Adopted,
        Some(_) => Ownership::Made,
    }
}

/// True when a domain exists that the operator may not change.
pub(crate) fn is_barred(d: &Desired, o: &Observed) -> bool {
    let existing = o.domain.as_ref().ok().and_then(Option::as_ref);
    match existing.map(|g| domain_ownership(&d.placement, g)) {
        Some(Ownership::NotOwned(_)) => true,
        Some(Ownership::Unowned) => d.adoption == AdoptionPolicy::Never,
        _ => false,
    }
}

/// True for a domain without an ownership tag that the operator created, according to everything else: the
/// domain has an owned certificate and uses the owned truststore, and the ownership record is in the hosted
/// zone. At a release, the operator removes that record before the tag.
fn has_lost_its_tag(d: &Desired, o: &Observed, g: &Domain) -> bool {
    let certificate = o
        .certificate(&g.certificate_arn)
        .is_some_and(|c| owned::is_ours(&d.placement, c));
    let uses_ours = g.truststore.as_ref().is_some_and(|t| t.uri == d.truststore.uri());
    let stored = o
        .pinned
        .iter()
        .flatten()
        .any(|p| p.owner.as_ref() == Some(&d.placement.owner));
    let ownership_record = o
        .records
        .as_ref()
        .is_ok_and(|there| records::has_ownership_record(&d.placement, there));
    certificate && uses_ours && stored && ownership_record
}

/// True for a domain with the ownership tag.
pub fn is_ours(placement: &Placement, g: &Domain) -> bool {
    domain_ownership(placement, g).is_ours()
}

/// True when mappings that the spec does not list stay: on a domain that was taken over, unless the spec says
/// otherwise.
pub fn keeps_unlisted(placement: &Placement, g: &Domain) -> bool {
    match placement.unlisted_mappings {
        Some(fate) => fate == UnlistedMappings::Keep,
        None => domain_ownership(placement, g) != Ownership::Made,
    }
}

fn not_ours(g: &Domain, domain_ownership: &Ownership) -> StepState {
    let whose = match domain_ownership {
        Ownership::NotOwned(owner) => format!("belongs to {owner}; it is left alone"),
        _ => "carries no ownership tag; it is left alone. Set spec.adoptionPolicy to Unowned to take it over"
            .into(),
    };
    StepState::blocked(
        Reason::ForeignOwner,
        format!("the custom domain {} exists already and {whose}", g.name),
    )
}

/// Returns why a domain cannot be managed: a setting incompatible with mutual TLS or with API mappings, or a
/// setting that only its owner may change. For an owned domain: a setting that needs a migration, during
/// which the domain has another endpoint. Source: API Gateway Developer Guide, "Configuring mutual TLS
/// authentication" and "Set the routing mode".
pub(crate) fn unmanageable(g: &Domain, domain_ownership: &Ownership) -> Option<String> {
    let name = &g.name;
    if g.endpoint_type != "REGIONAL" {
        return Some(format!(
            "the custom domain {name} is of endpoint type {}, and mutual TLS needs REGIONAL: migrate it \
             first (aws apigateway update-domain-name), or give this MtlsDomain another name",
            g.endpoint_type
        ));
    }
    if g.security_policy != MUTUAL_TLS_POLICY && *domain_ownership == Ownership::Unowned {
        return Some(format!(
            "the custom domain {name} has the TLS policy {}, and mutual TLS needs {MUTUAL_TLS_POLICY}: \
             change that first",
            g.security_policy
        ));
    }
    if g.routing_mode != MAPPINGS_ONLY && *domain_ownership != Ownership::Made {
        return Some(format!(
            "the custom domain {name} has the routing mode {}, in which API mappings alone do not select the \
             API: set it to API_MAPPING_ONLY first",
            g.routing_mode
        ));
    }
    None
}

/// Returns the state of a domain whose status only AWS or the owner of a certificate can end, unless the
/// certificates are about to be replaced. Source: API Gateway Developer Guide, "Troubleshoot your domain name
/// status".
fn locked(g: &Domain, has_pair: bool) -> Option<StepState> {
    let remedy = match g.status {
        DomainStatus::Available => return None,
        DomainStatus::PendingCertificateReimport => {
            "import a certificate into the same ARN that covers the name, from the same issuer"
        }
        DomainStatus::PendingOwnershipVerification => {
            "name a valid public certificate in spec.serverCertificate.existing.ownershipVerificationArn"
        }
        _ => "API Gateway gives no details",
    };
    let why = g.status_message.as_deref().unwrap_or("no message");
    let message = format!("{} is {}: {why}; {remedy}", g.name, g.status.as_str());
    has_pair.then(|| StepState::blocked(Reason::DomainRejected, message))
}

/// Rejects the takeover of a domain unless the desired truststore holds every certificate that the domain
/// trusts now. Expired certificates do not count.
fn nobody_loses(
    d: &Desired,
    domain_ownership: &Ownership,
    g: &Domain,
    o: &Observed,
    now: Timestamp,
) -> Result<(), StepState> {
    let Some(used) = &g.truststore else { return Ok(()) };
    let pinned = o.pinned.as_ref().map_err(StepState::unknown)?;
    let published = o.published.as_ref().map_err(StepState::unknown)?;
    let Some(pinned) = pinned else {
        let message = format!(
            "the custom domain {} trusts the certificates in {}, which the operator cannot read, so it \
             cannot know which callers would lose access. Restore that object, or turn mutual TLS off first",
            g.name, used.uri
        );
        return Err(StepState::blocked(Reason::TrustInUse, message));
    };
    if *domain_ownership == Ownership::Adopted && pinned.owner.as_ref() == Some(&d.placement.owner) {
        return Ok(()); // it uses the owned truststore, whose own checks apply
    }
    let stays = |certificate| {
        published
            .as_ref()
            .is_some_and(|p| p.bundle.find(certificate).is_some())
    };
    let certificates = pinned.bundle.entries.iter().map(|e| &e.certificate);
    let lost = certificates.filter(|c| now < c.not_after && !stays(c));
    let lost: Vec<_> = lost.map(|c| text::shown(&c.subject)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the custom domain {} trusts certificates that spec.trust.authorities does not list: {}. Add them, \
         or remove them from {} first",
        g.name,
        text::listed(lost.iter().map(String::as_str), MOST_TOLD, text::WITHIN),
        used.uri
    );
    Err(StepState::blocked(Reason::TrustInUse, message))
}

/// Returns the domain when it exists, is owned, and is suitable for mutual TLS: the operator directs no
/// caller to another domain.
pub(crate) fn ours<'a>(
    placement: &Placement,
    domain: &'a Seen<Option<Domain>>,
) -> Result<&'a Domain, StepState> {
    match domain {
        Err(why) => Err(StepState::unknown(why)),
        Ok(Some(g))
            if is_ours(placement, g)
                && unmanageable(g, &domain_ownership(placement, g)).is_none()
                && g.security_policy == MUTUAL_TLS_POLICY =>
        {
            Ok(g)
        }
        Ok(_) => Err(StepState::WaitingFor(Step::DomainProgrammed)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
