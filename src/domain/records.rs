//! The records of a domain in Route 53: what must stand there, whose it is, and the one batch that makes it so. Pure.
use super::desired::{Home, short_hash};
use crate::aws::{
    gateway::{Domain, IpAddressType},
    route53::{Action, Alias, Change, RecordSet},
};

/// Seconds that resolvers may keep a validation record or marker.
const TTL: i64 = 300;

/// What to do about the records of the domain name.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordPlan {
    Right,
    /// `first`: nothing of ours stands there yet.
    Change {
        changes: Vec<Change>,
        first: bool,
    },
    /// Somebody else's record is in the way; the text says which.
    Foreign(String),
}

/// Name of the TXT record that says whose the records of `domain_name` are.
pub fn marker_name(domain_name: &str) -> String {
    format!("_mtls-operator.{domain_name}")
}

/// The marker of `owner`. A hash, because DNS is public and the owner names a namespace.
pub fn marker(home: &Home) -> RecordSet {
    RecordSet {
        name: marker_name(&home.domain_name),
        kind: "TXT".into(),
        ttl: Some(TTL),
        values: vec![format!("\"mtls-operator={}\"", short_hash(&home.owner))],
        alias: None,
        routed: false,
    }
}

fn alias(name: &str, kind: &str, g: &Domain) -> RecordSet {
    RecordSet {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ttl: None,
        values: vec![],
        alias: Some(Alias {
            target: g.target.to_lowercase(),
            hosted_zone_id: g.hosted_zone_id.clone(),
            evaluate_target_health: false,
        }),
        routed: false,
    }
}

/// Whether `name` is `zone` or below it, on label boundaries.
pub fn is_inside(name: &str, zone: &str) -> bool {
    name == zone || name.strip_suffix(zone).is_some_and(|head| head.ends_with('.'))
}

/// `there` is every record set at the domain name and at its marker.
pub fn plan(home: &Home, g: &Domain, ip: IpAddressType, there: &[RecordSet]) -> RecordPlan {
    let marker = marker(home);
    let mark = there.iter().find(|r| r.name == marker.name && r.kind == "TXT");
    if let Some(other) = mark.filter(|m| m.values != marker.values) {
        return RecordPlan::Foreign(format!("another owner's marker at {}", other.name));
    }
    let marked = mark.is_some();
    let kinds: &[&str] = match ip {
        IpAddressType::Ipv4 => &["A"],
        IpAddressType::Dualstack => &["A", "AAAA"],
    };
    let wanted: Vec<_> = kinds.iter().map(|kind| alias(&home.domain_name, kind, g)).collect();
    let at_name: Vec<_> =
        there.iter().filter(|r| r.name == home.domain_name && matches!(&*r.kind, "A" | "AAAA" | "CNAME")).collect();
    let is_right = |r: &RecordSet| wanted.iter().any(|w| same(w, r));
    if let Some(foreign) = at_name.iter().find(|r| !is_right(r) && (!marked || r.routed)) {
        return RecordPlan::Foreign(describe(foreign));
    }
    let mut changes: Vec<_> = at_name
        .iter()
        .filter(|r| !kinds.contains(&&*r.kind))
        .map(|r| Change { action: Action::Delete, record: (*r).clone() })
        .collect();
    for record in wanted {
        match at_name.iter().find(|r| r.kind == record.kind) {
            Some(r) if same(&record, r) => {}
            Some(_) => changes.push(Change { action: Action::Upsert, record }),
            None => changes.push(Change { action: Action::Create, record }),
        }
    }
    if changes.is_empty() {
        return RecordPlan::Right; // unmarked: somebody else's, and right as it is
    }
    let first = !marked;
    if first {
        changes.push(Change { action: Action::Create, record: marker });
    }
    RecordPlan::Change { changes, first }
}

/// Deletes exactly what was read, and only what our marker stands beside.
pub fn removal(home: &Home, there: &[RecordSet]) -> Vec<Change> {
    let marker = marker(home);
    let Some(mark) = there.iter().find(|r| r.name == marker.name && r.kind == "TXT" && r.values == marker.values)
    else {
        return vec![];
    };
    let ours = there.iter().filter(|r| {
        r.name == home.domain_name
            && matches!(&*r.kind, "A" | "AAAA")
            && r.alias.as_ref().is_some_and(|a| a.target.contains(".execute-api."))
    });
    ours.chain([mark]).map(|r| Change { action: Action::Delete, record: r.clone() }).collect()
}

/// Takes our marker away and leaves what it stood beside.
pub fn unmarking(home: &Home, there: &[RecordSet]) -> Vec<Change> {
    let marker = marker(home);
    let mark = there.iter().filter(|r| r.name == marker.name && r.kind == "TXT" && r.values == marker.values);
    mark.map(|r| Change { action: Action::Delete, record: r.clone() }).collect()
}

/// What it takes for the validation CNAME to be there. It is the same for every certificate of that name in the account.
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
    Some(Change { action: if existing.is_some() { Action::Upsert } else { Action::Create }, record })
}

fn same(wanted: &RecordSet, there: &RecordSet) -> bool {
    wanted.kind == there.kind
        && !there.routed
        && match (&wanted.alias, &there.alias) {
            (Some(w), Some(t)) => plain(&w.target) == plain(&t.target) && w.hosted_zone_id == t.hosted_zone_id,
            _ => false,
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
