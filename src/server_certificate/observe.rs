//! Observes the certificates that a domain uses or names, and their validation records. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::owned;

use crate::{
    aws::{acm, arn::Arn, route53::RecordSet},
    model::{
        desired::{Desired, DesiredCertificate},
        front::{Front, ObservedFront},
        observed::ZoneChoice,
        placement::Placement,
    },
    observation::{read_cache::AwsReader, seen::Seen},
};

pub(crate) fn certificate_names(d: &Desired) -> &[String] {
    match &d.certificate {
        DesiredCertificate::Request { request, .. } => &request.names,
        DesiredCertificate::Existing { .. } => &[],
    }
}

pub(crate) async fn named(
    d: &Desired,
    reader: &AwsReader<'_>,
    certificates: &Seen<Vec<acm::Certificate>>,
    front: &ObservedFront,
) -> BTreeMap<String, Seen<Option<acm::Certificate>>> {
    let arns = named_arns(d, front);
    let reads = arns.into_iter().map(async |arn| {
        let listed = certificates.iter().flatten().find(|c| c.arn == arn);
        let read = match listed {
            Some(certificate) => Ok(Some(certificate.clone())),
            None => reader.certificate(arn).await,
        };
        (arn.to_owned(), read)
    });
    join_all(reads).await.into_iter().collect()
}

/// Returns the certificates that the spec names, and those of an owned domain or a domain to be taken over.
pub(crate) fn named_arns<'a>(d: &'a Desired, front: &'a ObservedFront) -> BTreeSet<&'a str> {
    let mut arns = BTreeSet::new();
    if let DesiredCertificate::Existing { arn, ownership_arn } = &d.certificate {
        arns.extend(ownership_arn.iter().chain([arn]).map(Arn::as_str));
    }
    let is_ours = |front: &&Front| front.ownership.is_ours() || front.is_taken_over(d.adoption);
    if let Some(front) = front.iter().flatten().find(is_ours) {
        arns.extend(
            front
                .ownership_certificate_arn
                .iter()
                .chain([&front.certificate_arn])
                .map(String::as_str)
                .filter(|arn| !arn.is_empty()),
        );
    }
    arns
}

/// Reads the record sets at the validation records of the owned certificates, in their zones.
pub(crate) async fn validation(
    placement: &Placement,
    reader: &AwsReader<'_>,
    zones: &Seen<BTreeMap<String, ZoneChoice>>,
    certificates: &Seen<Vec<acm::Certificate>>,
) -> Seen<BTreeMap<String, Vec<RecordSet>>> {
    let (zones, certificates) = (
        zones.as_ref().map_err(Clone::clone)?,
        certificates.as_ref().map_err(Clone::clone)?,
    );
    let reads = validation_names(placement, zones, certificates)
        .into_iter()
        .map(async |(zone, name)| {
            let records = reader.records(zone, name).await?;
            Ok((name.clone(), records))
        });
    join_all(reads).await.into_iter().collect()
}

/// Returns the names of the validation records of the owned certificates, each with the id of its zone.
pub(crate) fn validation_names<'a>(
    placement: &Placement,
    zones: &'a BTreeMap<String, ZoneChoice>,
    certificates: &'a [acm::Certificate],
) -> BTreeSet<(&'a String, &'a String)> {
    let ours = certificates.iter().filter(|c| owned::is_ours(placement, c));
    ours.flat_map(|c| &c.validation)
        .filter_map(|v| Some((&zones.get(&v.domain)?.found()?.id, &v.record.as_ref()?.0)))
        .collect()
}
