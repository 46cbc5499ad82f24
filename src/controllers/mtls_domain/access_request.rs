//! AWS resources that a spec accesses, for the operator's policy to decide on: all resources that the spec
//! names, all that its defaults lead to, and all that the operator discovers. Pure.

use std::collections::BTreeMap;

use crate::{
    api::{AdoptionPolicy, MtlsDomain},
    aws::route53,
    model::{
        observed::{Preflight, ZoneChoice},
        placement::{DesiredDns, Placement, TruststoreObject, UnresolvedPlacement},
    },
    observation::seen::Seen,
    policy::{AccessRequest, Resource},
};

/// Returns the requests for the resources that the spec names, and for their placement. A `deleted` domain
/// requests only the access that its deletion needs.
pub fn of(domain: &MtlsDomain, placement: &Placement, deleted: bool) -> Vec<AccessRequest> {
    known(
        domain,
        Some(&placement.account),
        Some(&placement.region),
        &placement.dns,
        placement.truststore.as_ref(),
        deleted,
    )
}

/// Returns the requests before AWS has answered: the policy may deny them, and never allows them.
pub fn unresolved(domain: &MtlsDomain, placement: &UnresolvedPlacement, deleted: bool) -> Vec<AccessRequest> {
    let mut all = known(
        domain,
        placement.account.as_deref(),
        placement.region.as_deref(),
        &placement.dns,
        placement.truststore.as_ref(),
        deleted,
    );
    all.push(access_request(
        "the account, Region and bucket, which AWS has not confirmed yet".into(),
        Resource::Unresolved,
    ));
    all
}

fn known(
    domain: &MtlsDomain,
    account: Option<&str>,
    region: Option<&str>,
    dns: &DesiredDns,
    truststore: Option<&TruststoreObject>,
    deleted: bool,
) -> Vec<AccessRequest> {
    let spec = &domain.spec;
    let aws = spec.aws.clone().unwrap_or_default();
    let mut all = vec![access_request(
        format!("spec.domainName: {}", spec.domain_name),
        Resource::Name(spec.domain_name.clone()),
    )];
    if let Some(region) = region {
        all.push(access_request(
            format!("Region {region} (spec.aws.region)"),
            Resource::Region(region.to_owned()),
        ));
    }
    if let Some(account) = account {
        all.push(access_request(
            format!("account {account} (spec.aws)"),
            Resource::Account(account.to_owned()),
        ));
    }
    if let Some(role) = aws.assume_role {
        all.push(access_request(
            format!("spec.aws.assumeRole.roleArn: {}", role.role_arn),
            Resource::Role(role.role_arn),
        ));
    }
    if let DesiredDns::Route53 { zone_id, role_arn } = dns {
        let zone = zone_id.iter().map(|id| {
            (
                format!("spec.dns.route53.hostedZoneId: {id}"),
                Resource::Zone(Some(id.clone())),
            )
        });
        let role = role_arn.iter().map(|arn| {
            (
                format!("spec.dns.route53.assumeRole.roleArn: {arn}"),
                Resource::Role(arn.to_string()),
            )
        });
        all.extend(
            zone.chain(role)
                .map(|(part, resource)| access_request(part, resource)),
        );
    }
    if let Some(object) = truststore {
        all.push(access_request(
            format!("spec.truststore: {}", object.uri()),
            Resource::Object {
                bucket: object.bucket.clone(),
                key: object.key.clone(),
            },
        ));
    }
    if !deleted {
        all.extend(to_build(domain));
    }
    all
}

/// Returns the requests that only creating and changing a domain needs.
fn to_build(domain: &MtlsDomain) -> Vec<AccessRequest> {
    let spec = &domain.spec;
    let certificate = spec.server_certificate.clone().unwrap_or_default();
    let mut all = Vec::new();
    for (key, value) in spec.aws.iter().flat_map(|aws| &aws.tags) {
        all.push(access_request(
            format!("spec.aws.tags: {key}={value}"),
            Resource::TagKey(key.clone()),
        ));
    }
    for name in certificate
        .request
        .into_iter()
        .flat_map(|request| request.subject_alternative_names)
    {
        let part = format!("spec.serverCertificate.request.subjectAlternativeNames: {name}");
        all.push(access_request(part, Resource::Name(name)));
    }
    if let Some(existing) = certificate.existing {
        let ownership = existing
            .ownership_verification_arn
            .map(|arn| ("ownershipVerificationArn", arn));
        for (field, arn) in [("arn", existing.arn)].into_iter().chain(ownership) {
            all.push(access_request(
                format!("spec.serverCertificate.existing.{field}: {arn}"),
                Resource::Certificate(arn),
            ));
        }
    }
    if let Some(arn) = spec.truststore.as_ref().and_then(|t| t.kms_key_arn.clone()) {
        all.push(access_request(
            format!("spec.truststore.kmsKeyArn: {arn}"),
            Resource::KmsKey(arn),
        ));
    }
    let authorizer = spec
        .identity
        .as_ref()
        .and_then(|identity| identity.authorizer.clone());
    if let Some(arn) = authorizer.and_then(|authorizer| authorizer.function_arn) {
        all.push(access_request(
            format!("spec.identity.authorizer.functionArn: {arn}"),
            Resource::Function(arn),
        ));
    }
    if spec.adoption_policy == AdoptionPolicy::Unowned {
        all.push(access_request(
            "spec.adoptionPolicy: Unowned".into(),
            Resource::Adoption,
        ));
    }
    all
}

/// Returns the requests for the zones and APIs of a spec, as they were found. An API that does not exist has
/// no tags.
pub fn found(domain: &MtlsDomain, preflight: &Preflight) -> Vec<AccessRequest> {
    let mut all = zones(&preflight.zones);
    for mapping in &domain.spec.mappings {
        let id = &mapping.api.id;
        let tags = match preflight.apis.get(id) {
            Some(Ok(api)) => Some(api.as_ref().map(|api| api.tags.clone()).unwrap_or_default()),
            Some(Err(_)) | None => None,
        };
        let part = format!(
            "the API {id}, which does not exist or is not for this namespace (spec.mappings, path {:?})",
            mapping.path
        );
        all.push(access_request(part, Resource::Api(tags)));
    }
    all
}

/// Returns the requests for the zones of the names. The messages do not disclose the zones' ids.
pub fn zones(zones: &Seen<BTreeMap<String, ZoneChoice>>) -> Vec<AccessRequest> {
    let Ok(zones) = zones else {
        return vec![access_request(
            "the hosted zone (spec.dns.route53.hostedZoneId)".into(),
            Resource::Zone(None),
        )];
    };
    let found = zones
        .iter()
        .filter_map(|(name, choice)| Some((name, choice.found()?)));
    let zone = |(name, zone): (&String, &route53::Zone)| {
        access_request(
            format!("the hosted zone that {name} is in (spec.dns.route53.hostedZoneId)"),
            Resource::Zone(Some(zone.id.clone())),
        )
    };
    found.map(zone).collect()
}

fn access_request(part: String, resource: Resource) -> AccessRequest {
    AccessRequest { part, resource }
}

#[cfg(test)]
mod tests;
