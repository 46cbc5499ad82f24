//! What a spec reaches for in AWS, for the operator's policy to judge: everything that is named in it, everything that its defaults come to, and
//! what is found by looking. Pure.
use super::{
    desired::{DnsWish, Home},
    observed::{Glance, Seen, ZoneChoice},
};
use crate::{
    api::{AdoptionPolicy, MtlsDomain},
    policy::{Reach, Thing},
};
use std::collections::BTreeMap;

/// What the spec names and where its resources go. Before AWS has said where that is, `home` has an empty account, Region or bucket. Of a domain
/// that is being `deleted` only what deleting touches.
pub fn of(domain: &MtlsDomain, home: &Home, deleted: bool) -> Vec<Reach> {
    let spec = &domain.spec;
    let aws = spec.aws.clone().unwrap_or_default();
    let mut all = vec![reach(format!("spec.domainName: {}", spec.domain_name), Thing::Name(spec.domain_name.clone()))];
    if !home.region.is_empty() {
        all.push(reach(format!("Region {} (spec.aws.region)", home.region), Thing::Region(home.region.clone())));
    }
    if !home.account.is_empty() {
        all.push(reach(format!("account {} (spec.aws)", home.account), Thing::Account(home.account.clone())));
    }
    if let Some(role) = aws.assume_role {
        all.push(reach(format!("spec.aws.assumeRole.roleArn: {}", role.role_arn), Thing::Role(role.role_arn)));
    }
    if let DnsWish::Route53 { zone_id, role_arn } = &home.dns {
        let zone =
            zone_id.iter().map(|id| (format!("spec.dns.route53.hostedZoneId: {id}"), Thing::Zone(Some(id.clone()))));
        let role = role_arn
            .iter()
            .map(|arn| (format!("spec.dns.route53.assumeRole.roleArn: {arn}"), Thing::Role(arn.clone())));
        all.extend(zone.chain(role).map(|(part, thing)| reach(part, thing)));
    }
    if !home.bucket.is_empty() {
        let object = Thing::Object { bucket: home.bucket.clone(), key: home.key.clone() };
        all.push(reach(format!("spec.truststore: {}", home.truststore_uri()), object));
    }
    if !deleted {
        all.extend(to_build(domain));
    }
    all
}

/// What only making and changing a domain takes.
fn to_build(domain: &MtlsDomain) -> Vec<Reach> {
    let spec = &domain.spec;
    let certificate = spec.server_certificate.clone().unwrap_or_default();
    let mut all = Vec::new();
    for name in certificate.request.into_iter().flat_map(|request| request.subject_alternative_names) {
        let part = format!("spec.serverCertificate.request.subjectAlternativeNames: {name}");
        all.push(reach(part, Thing::Name(name)));
    }
    if let Some(existing) = certificate.existing {
        let ownership = existing.ownership_verification_arn.map(|arn| ("ownershipVerificationArn", arn));
        for (field, arn) in [("arn", existing.arn)].into_iter().chain(ownership) {
            all.push(reach(format!("spec.serverCertificate.existing.{field}: {arn}"), Thing::Certificate(arn)));
        }
    }
    if let Some(arn) = spec.truststore.as_ref().and_then(|t| t.kms_key_arn.clone()) {
        all.push(reach(format!("spec.truststore.kmsKeyArn: {arn}"), Thing::KmsKey(arn)));
    }
    if spec.adoption_policy == AdoptionPolicy::Unowned {
        all.push(reach("spec.adoptionPolicy: Unowned".into(), Thing::Adoption));
    }
    all
}

/// The zones and APIs of a spec, as they were found. An API that is not there carries no tag.
pub fn found(domain: &MtlsDomain, glance: &Glance) -> Vec<Reach> {
    let mut all = zones(&glance.zones);
    for mapping in &domain.spec.mappings {
        let id = &mapping.api.id;
        let tags = match glance.apis.get(id) {
            Some(Ok(api)) => Some(api.as_ref().map(|api| api.tags.clone()).unwrap_or_default()),
            Some(Err(_)) | None => None,
        };
        let part = format!(
            "the API {id}, which is not there or not for this namespace (spec.mappings, path {:?})",
            mapping.path
        );
        all.push(reach(part, Thing::Api(tags)));
    }
    all
}

/// The zones that names are in. Which ids they have is not the spec's to know.
pub fn zones(zones: &Seen<BTreeMap<String, ZoneChoice>>) -> Vec<Reach> {
    let Ok(zones) = zones else {
        return vec![reach("the hosted zone (spec.dns.route53.hostedZoneId)".into(), Thing::Zone(None))];
    };
    let found = zones.iter().filter_map(|(name, choice)| Some((name, choice.found()?)));
    let zone = |(name, zone): (&String, &crate::aws::route53::Zone)| {
        reach(
            format!("the hosted zone that {name} is in (spec.dns.route53.hostedZoneId)"),
            Thing::Zone(Some(zone.id.clone())),
        )
    };
    found.map(zone).collect()
}

fn reach(part: String, thing: Thing) -> Reach {
    Reach { part, thing }
}
