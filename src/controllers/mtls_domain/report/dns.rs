//! DNS records that another party must create, for the status.

use crate::{
    api::{DnsRecord, DnsState, MtlsDomainStatus},
    model::{
        observed::Observed,
        placement::{DesiredDns, Placement},
        step::Plan,
    },
    server_certificate::owned,
};

const CNAME: &str = "CNAME";
/// Kind at the apex of a zone, where a CNAME cannot be.
const ALIAS: &str = "ALIAS";

/// Returns the records that another party must create, as far as they are known yet. Keeps the previous ones
/// while AWS cannot be read; `None` when the operator manages the records.
pub(crate) fn records(
    status: &MtlsDomainStatus,
    placement: &Placement,
    plan: &Plan,
    o: &Observed,
) -> Option<DnsState> {
    let DesiredDns::External { .. } = placement.dns else {
        return None;
    };
    if o.certificates.is_err() || o.domain.is_err() {
        return status.dns.clone();
    }
    let listed = status
        .dns
        .iter()
        .flat_map(|dns| &dns.records)
        .find(|r| r.name == placement.domain_name);
    let kind = match &o.public {
        Ok(Some(found)) if found.apex => ALIAS,
        Err(_) if listed.is_some_and(|r| r.r#type == ALIAS) => ALIAS,
        _ => CNAME,
    };
    let record = |name: String, kind: &str, value: String| DnsRecord {
        name,
        r#type: kind.to_owned(),
        value,
    };
    // The owner of a certificate that the operator did not request creates its validation records.
    let ours = plan.certificate.iter().filter(|c| owned::is_ours(placement, c));
    let validation = ours.flat_map(owned::validation);
    let mut records: Vec<_> = validation
        .map(|(name, value)| record(name, CNAME, value))
        .collect();
    records.extend(
        status
            .target_domain_name
            .iter()
            .map(|t| record(placement.domain_name.clone(), kind, t.to_lowercase())),
    );
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Some(DnsState { records }).filter(|dns| !dns.records.is_empty())
}
