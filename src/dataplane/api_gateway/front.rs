//! The custom domain as the front end that the other steps know. Pure.

use super::custom_domain::{domain_ownership, unmanageable};

use crate::{
    aws::gateway::domains::{Domain, DomainStatus, MUTUAL_TLS_POLICY},
    model::{
        front::{DnsTarget, Front, ObservedFront, Progress},
        placement::Placement,
    },
    observation::seen::Seen,
};

/// Returns the front end of a custom domain as it was read.
pub fn front(placement: &Placement, domain: &Seen<Option<Domain>>) -> ObservedFront {
    let domain = domain.as_ref().map_err(Clone::clone)?;
    Ok(domain.as_ref().map(|g| {
        let ownership = domain_ownership(placement, g);
        Front {
            name: g.name.clone(),
            is_managed: ownership.is_ours()
                && unmanageable(g, &ownership).is_none()
                && g.security_policy == MUTUAL_TLS_POLICY,
            progress: match &g.status {
                DomainStatus::Available => Progress::Settled,
                status if status.is_in_progress() => Progress::Changing,
                _ => Progress::Waiting,
            },
            certificate_arn: g.certificate_arn.clone(),
            ownership_certificate_arn: g.ownership_certificate_arn.clone(),
            truststore_uri: g.truststore.as_ref().map(|used| used.uri.clone()),
            dns_target: DnsTarget {
                name: g.target.clone(),
                hosted_zone_id: g.hosted_zone_id.clone(),
            },
            ownership,
        }
    }))
}
