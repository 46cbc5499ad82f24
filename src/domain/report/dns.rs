//! The records that somebody else must create, for the status.
use crate::{
    api::{DnsRecord, DnsState, MtlsDomainStatus},
    domain::{
        desired::{DesiredDns, Placement},
        observed::Observed,
        plan::{Plan, certificates},
    },
};

const CNAME: &str = "CNAME";
/// At the first name of a zone, where a CNAME cannot be.
const ALIAS: &str = "ALIAS";

/// What somebody else must create, as far as it is known yet: kept as it was where it cannot be seen now, and
/// none when the operator makes the records.
pub(super) fn records(
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
    // Whoever brought a certificate along sees to its records.
    let ours = plan
        .certificate
        .iter()
        .filter(|c| certificates::is_ours(placement, c));
    let validation = ours.flat_map(certificates::validation);
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
