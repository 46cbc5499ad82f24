//! Records of a domain in Route 53: their desired state, their ownership, and the single batch of changes
//! between the two. Pure.

use crate::{
    aws::{
        gateway::domains::IpAddressType,
        route53::{Action, Alias, Change, RecordSet, Zone},
    },
    model::{front::DnsTarget, placement::Placement},
    pki::digest::short_hash,
};

/// Seconds that resolvers may cache a validation record or an ownership record.
const TTL: i64 = 300;

/// Plan for the records of the domain name.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordPlan {
    /// The records are correct. `owned`: the operator owns them, so they are deleted with the domain.
    Right { owned: bool },
    /// `first`: the operator owns no record there yet.
    Change { changes: Vec<Change>, first: bool },
    /// The operator does not own the records and changes none. The text names them and the remedy, and
    /// follows "the hosted zone has".
    NotOwned(String),
}

/// Returns the name of the TXT record that identifies the owner of the records of `domain_name`.
pub fn ownership_record_name(domain_name: &str) -> String {
    format!("_mtls-operator.{domain_name}")
}

/// Returns the ownership record of `owner`. Its value is a hash, because DNS is public and the owner contains
/// the name of a namespace.
pub fn ownership_record(placement: &Placement) -> RecordSet {
    RecordSet {
        name: ownership_record_name(&placement.domain_name),
        kind: "TXT".into(),
        ttl: Some(TTL),
        values: vec![format!("\"mtls-operator={}\"", short_hash(&placement.owner))],
        alias: None,
        routed: false,
    }
}

fn alias(name: &str, kind: &str, target: &DnsTarget) -> RecordSet {
    RecordSet {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ttl: None,
        values: vec![],
        alias: Some(Alias {
            target: target.name.to_lowercase(),
            hosted_zone_id: target.hosted_zone_id.clone(),
            evaluate_target_health: false,
        }),
        routed: false,
    }
}

/// True when `name` is `zone` or below it, on label boundaries.
pub fn is_inside(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|head| head.ends_with('.'))
}

/// Returns the names at which external-dns's TXT registry may record the owner of a record, besides the name
/// itself: with the record's type as prefix, and with `cname-` for an alias. Source: external-dns,
/// docs/registry/txt.md.
pub fn registry_names(domain_name: &str) -> [String; 2] {
    ["a", "cname"].map(|kind| format!("{kind}-{domain_name}"))
}

/// True when the ownership record of this placement exists.
pub fn has_ownership_record(placement: &Placement, there: &[RecordSet]) -> bool {
    let ownership_record = ownership_record(placement);
    there
        .iter()
        .any(|r| r.name == ownership_record.name && r.kind == "TXT" && r.values == ownership_record.values)
}

/// True when records exist at the domain name without an ownership record of any MtlsDomain.
pub fn lacks_ownership_record(placement: &Placement, there: &[RecordSet]) -> bool {
    let ownership_record = ownership_record_name(&placement.domain_name);
    at_name(placement, there).next().is_some()
        && !there
            .iter()
            .any(|r| r.name == ownership_record && r.kind == "TXT")
}

/// Returns the records that answer or redirect queries for the domain name's addresses.
fn at_name<'a>(placement: &'a Placement, there: &'a [RecordSet]) -> impl Iterator<Item = &'a RecordSet> {
    there
        .iter()
        .filter(|r| r.name == placement.domain_name && matches!(&*r.kind, "A" | "AAAA" | "CNAME"))
}

/// Returns the plan for the records. `there` is every record set at the domain name, at its ownership record,
/// and, when that record is missing, at [`registry_names`].
pub fn plan(
    placement: &Placement,
    zone: &Zone,
    target: &DnsTarget,
    ip: IpAddressType,
    there: &[RecordSet],
) -> RecordPlan {
    let name = &placement.domain_name;
    let ownership_record = ownership_record(placement);
    let registered = there
        .iter()
        .find(|r| r.name == ownership_record.name && r.kind == "TXT");
    if registered.is_some_and(|m| m.values != ownership_record.values) {
        return RecordPlan::NotOwned(format!(
            "the ownership record of another owner, TXT {}: the records of {name} belong to another \
             MtlsDomain, possibly of another cluster; delete that MtlsDomain, or the ownership record if \
             there is none",
            ownership_record.name
        ));
    }
    if let Some(delegation) = there
        .iter()
        .find(|r| r.name == *name && r.kind == "NS" && *name != zone.name)
    {
        return RecordPlan::NotOwned(format!(
            "{}: that name is delegated to a zone of its own. Name that zone with \
             spec.dns.route53.hostedZoneId and assumeRole, or set spec.dns.external",
            describe(delegation)
        ));
    }
    let kinds: &[&str] = match ip {
        IpAddressType::Ipv4 => &["A"],
        IpAddressType::Dualstack => &["A", "AAAA"],
    };
    let missing = |r: &&&str| !at_name(placement, there).any(|found| found.kind == **r);
    if let Some(routed) = at_name(placement, there).find(|r| r.routed) {
        return RecordPlan::NotOwned(format!(
            "{}, one of several that a routing policy chooses from, and the operator changes none of them; \
             delete them, or keep them and set \
             spec.dns.external",
            describe(routed)
        ));
    }
    if registered.is_none() && at_name(placement, there).next().is_some() {
        if let Some(not_owned) = at_name(placement, there).find(|r| !points_at(r, target)) {
            return RecordPlan::NotOwned(format!("{}, {}", describe(not_owned), whose(placement, there)));
        }
        let alias = at_name(placement, there).all(|r| r.kind != "CNAME");
        return match kinds.iter().find(missing).filter(|_| alias) {
            Some(kind) => RecordPlan::NotOwned(format!(
                "no {kind} {name} beside records that are correct but not owned by the operator; create an \
                 alias to {} there, or delete the other records to let the operator write all of them",
                target.name
            )),
            None => RecordPlan::Right { owned: false },
        };
    }
    let mut changes: Vec<_> = at_name(placement, there)
        .filter(|r| !kinds.contains(&&*r.kind))
        .map(|r| Change {
            action: Action::Delete,
            record: r.clone(),
        })
        .collect();
    for record in kinds.iter().map(|kind| alias(name, kind, target)) {
        match at_name(placement, there).find(|r| r.kind == record.kind) {
            Some(r) if points_at(r, target) => {}
            Some(_) => changes.push(Change {
                action: Action::Upsert,
                record,
            }),
            None => changes.push(Change {
                action: Action::Create,
                record,
            }),
        }
    }
    if changes.is_empty() {
        return RecordPlan::Right {
            owned: registered.is_some(),
        };
    }
    let first = registered.is_none();
    if first {
        changes.push(Change {
            action: Action::Create,
            record: ownership_record,
        });
    }
    RecordPlan::Change { changes, first }
}

/// Returns the owner of the records at the domain name without an ownership record, if it can be determined,
/// and the remedy.
fn whose(placement: &Placement, there: &[RecordSet]) -> String {
    let registry = registry_names(&placement.domain_name);
    let texts = there
        .iter()
        .filter(|r| r.kind == "TXT" && (r.name == placement.domain_name || registry.contains(&r.name)));
    let claim = texts.flat_map(|r| &r.values).find_map(|value| {
        let mut fields = value
            .trim_matches('"')
            .split(',')
            .filter_map(|field| field.split_once('='));
        fields
            .next()
            .filter(|heritage| *heritage == ("heritage", "external-dns"))?;
        let resource =
            fields.find_map(|(key, resource)| (key == "external-dns/resource").then_some(resource));
        Some(resource.unwrap_or("an object that it does not name").to_owned())
    });
    match claim {
        Some(resource) => format!(
            "which external-dns made for {resource}; remove the name there, so that external-dns deletes the \
             record and the operator can write {}",
            placement.domain_name
        ),
        None => format!(
            "which carries no ownership record of this operator; delete it to let the operator write {}",
            placement.domain_name
        ),
    }
}

/// Returns the deletion of exactly the records that were read, and only with this placement's ownership
/// record beside them.
pub fn removal(placement: &Placement, there: &[RecordSet]) -> Vec<Change> {
    let ownership_record = ownership_record(placement);
    let Some(registered) = there
        .iter()
        .find(|r| r.name == ownership_record.name && r.kind == "TXT" && r.values == ownership_record.values)
    else {
        return vec![];
    };
    let ours = at_name(placement, there).filter(|r| {
        !r.routed
            && r.alias
                .as_ref()
                .is_some_and(|a| a.target.contains(".execute-api."))
    });
    ours.chain([registered])
        .map(|r| Change {
            action: Action::Delete,
            record: r.clone(),
        })
        .collect()
}

/// Returns the deletion of this placement's ownership record alone.
pub fn ownership_removal(placement: &Placement, there: &[RecordSet]) -> Vec<Change> {
    let ownership_record = ownership_record(placement);
    let registered = there.iter().filter(|r| {
        r.name == ownership_record.name && r.kind == "TXT" && r.values == ownership_record.values
    });
    registered
        .map(|r| Change {
            action: Action::Delete,
            record: r.clone(),
        })
        .collect()
}

/// Returns the change that creates or corrects a validation CNAME; `None` when the record is correct. The
/// record is the same for every certificate of that name in the account.
pub fn validation_change(name: &str, value: &str, there: &[RecordSet]) -> Option<Change> {
    let existing = there.iter().find(|r| r.kind == "CNAME");
    if existing.is_some_and(|r| r.values.len() == 1 && plain(&r.values[0]) == plain(value)) {
        return None;
    }
    let record = RecordSet {
        name: plain(name),
        kind: "CNAME".into(),
        ttl: Some(TTL),
        values: vec![value.to_owned()],
        alias: None,
        routed: false,
    };
    Some(Change {
        action: if existing.is_some() {
            Action::Upsert
        } else {
            Action::Create
        },
        record,
    })
}

/// True when the record leads callers to the domain: an alias like the operator's, or a CNAME of another
/// writer.
fn points_at(r: &RecordSet, target: &DnsTarget) -> bool {
    let name = plain(&target.name);
    match &r.alias {
        Some(alias) => plain(&alias.target) == name && alias.hosted_zone_id == target.hosted_zone_id,
        None => r.kind == "CNAME" && r.values.len() == 1 && plain(&r.values[0]) == name,
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

fn describe(record: &RecordSet) -> String {
    let value = match &record.alias {
        Some(alias) => format!("an alias to {}", plain(&alias.target)),
        None => record.values.join(", "),
    };
    format!("{} {} ({value})", record.kind, record.name)
}

#[cfg(test)]
mod tests;
