//! Observes hosted zones, the records of a domain, and its name in public DNS. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use super::records;

use crate::{
    api::{DnsVerification, conditions::Reason},
    aws::{
        errors::Kind,
        route53::{RecordSet, Zone},
        session::Session,
    },
    model::{
        front::ObservedFront,
        observed::ZoneChoice,
        placement::{DesiredDns, Placement},
    },
    observation::{
        read_cache::AwsReader,
        seen::{Seen, Unseen, unseen},
    },
    probe::public_dns::{PublicDns, PublicName},
};

/// Returns the hosted zone of the records of a domain that is being deleted.
pub async fn zone_of_leftovers(
    placement: &Placement,
    reader: &AwsReader<'_>,
) -> Seen<BTreeMap<String, ZoneChoice>> {
    zones(placement, &[], reader).await
}

/// Returns the zones of a domain that is being deleted. Fails when two zones may have the records: that is
/// not the same as no records.
pub(crate) fn unambiguous(
    placement: &Placement,
    zones: BTreeMap<String, ZoneChoice>,
) -> Seen<BTreeMap<String, ZoneChoice>> {
    match zones.get(&placement.domain_name) {
        Some(ZoneChoice::Ambiguous(ids)) => Err(Unseen {
            reason: Reason::HostedZoneNotFound,
            message: format!(
                "{} are public hosted zones of the same name; set spec.dns.route53.hostedZoneId to the one \
                 that has the records",
                ids.join(" and ")
            ),
        }),
        _ => Ok(zones),
    }
}

/// Returns the zone of the domain name and of each of `names`: the zone of the spec, or the public zone with
/// the longest name that contains them.
pub(crate) async fn zones(
    placement: &Placement,
    names: &[String],
    reader: &AwsReader<'_>,
) -> Seen<BTreeMap<String, ZoneChoice>> {
    let DesiredDns::Route53 { zone_id, .. } = &placement.dns else {
        return Ok(BTreeMap::new());
    };
    let given = match zone_id {
        Some(id) => reader.zone(id).await?,
        None => None,
    };
    let names: BTreeSet<_> = names.iter().chain([&placement.domain_name]).collect();
    let fits = |name: &str| given.as_ref().is_some_and(|zone| is_in_zone(name, zone));
    let all = match zone_id {
        Some(_)
            if names
                .iter()
                .all(|name| fits(name) || **name == placement.domain_name) =>
        {
            vec![]
        }
        _ => reader.zones().await?,
    };
    let choice = |name: &String| match zone_id {
        Some(_) => given_zone(placement, name, given.as_ref(), &all),
        None => best_zone(name, &all),
    };
    Ok(names
        .into_iter()
        .map(|name| (name.clone(), choice(name)))
        .collect())
}

/// True for a public zone that contains `name`.
fn is_in_zone(name: &str, zone: &Zone) -> bool {
    !zone.private && records::is_inside(name, &zone.name)
}

/// Returns the zone of a name where the spec names a zone (`given`, when it exists). The domain's own name is
/// in that zone or in none, any other name in its best match.
pub(crate) fn given_zone(
    placement: &Placement,
    name: &str,
    given: Option<&Zone>,
    all: &[Zone],
) -> ZoneChoice {
    match given {
        Some(zone) if is_in_zone(name, zone) => ZoneChoice::Found(zone.clone()),
        _ if name == placement.domain_name => ZoneChoice::Missing,
        _ => best_zone(name, all),
    }
}

pub(crate) fn best_zone(name: &str, zones: &[Zone]) -> ZoneChoice {
    let fitting: Vec<_> = zones.iter().filter(|zone| is_in_zone(name, zone)).collect();
    let Some(longest) = fitting.iter().map(|z| z.name.len()).max() else {
        return ZoneChoice::Missing;
    };
    let mut best: Vec<_> = fitting.into_iter().filter(|z| z.name.len() == longest).collect();
    best.sort_by(|a, b| a.id.cmp(&b.id));
    match best.as_slice() {
        [zone] => ZoneChoice::Found((*zone).clone()),
        several => ZoneChoice::Ambiguous(several.iter().map(|z| z.id.clone()).collect()),
    }
}

pub(crate) async fn records_of(
    placement: &Placement,
    reader: &AwsReader<'_>,
    zones: &Seen<BTreeMap<String, ZoneChoice>>,
) -> Seen<Vec<RecordSet>> {
    let zones = zones.as_ref().map_err(Clone::clone)?;
    let Some(zone) = zones.get(&placement.domain_name).and_then(ZoneChoice::found) else {
        return Ok(vec![]);
    };
    let at = async |name: &str| reader.records(&zone.id, name).await;
    let ownership_record = records::ownership_record_name(&placement.domain_name);
    let (at_name, at_ownership_record) = tokio::join!(at(&placement.domain_name), at(&ownership_record));
    let mut all = [at_name?, at_ownership_record?].concat();
    if records::lacks_ownership_record(placement, &all) {
        for name in records::registry_names(&placement.domain_name) {
            all.extend(at(&name).await?);
        }
    }
    Ok(all)
}

pub(crate) async fn public(
    placement: &Placement,
    front: &ObservedFront,
    dns: &PublicDns,
) -> Seen<Option<PublicName>> {
    let front = front.as_ref().map_err(Clone::clone)?;
    match (&placement.dns, front) {
        (
            DesiredDns::External {
                verify: DnsVerification::PublicDNS,
            },
            Some(front),
        ) => {
            let found =
                Box::pin(dns.resolve(&placement.domain_name, &front.dns_target.name.to_lowercase())).await;
            found.map(Some).map_err(|why| Unseen {
                reason: Reason::Unreachable,
                message: why.to_string(),
            })
        }
        _ => Ok(None),
    }
}

pub(crate) async fn in_sync(session: &Session, change: Option<&str>) -> Seen<bool> {
    match change {
        None => Ok(true),
        Some(id) => match Box::pin(session.route53.change_in_sync(id)).await {
            Err(error) if error.kind == Kind::NotFound => Ok(true),
            other => other.map_err(|error| unseen(&error)),
        },
    }
}
