//! Route 53: hosted zones and record sets. Names are normalised: lower case, no trailing dot, no escapes.

use aws_config::SdkConfig;
use aws_sdk_route53::{Client, types as sdk};

use super::{
    call_guard::CallContext,
    errors::{Error, Kind},
};

#[derive(Debug, Clone)]
pub struct Route53 {
    client: Client,
    context: CallContext,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Zone id without `/hostedzone/`.
    pub id: String,
    pub name: String,
    pub private: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSet {
    pub name: String,
    /// `A`, `AAAA`, `CNAME`, `TXT`, ...
    pub kind: String,
    /// Seconds; an alias has none.
    pub ttl: Option<i64>,
    /// Values as Route 53 returns them: TXT values in quotes, in Route 53's order.
    pub values: Vec<String>,
    pub alias: Option<Alias>,
    /// True for one of several sets for this name and type (weighted, by Region, ...). The operator does not
    /// keep the set identifier, so it reads such a set but cannot change it.
    pub routed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub target: String,
    /// Zone of the target, not the zone of the record.
    pub hosted_zone_id: String,
    pub evaluate_target_health: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub action: Action,
    pub record: RecordSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Creates the set; [`Kind::Conflict`] when a set of this name and type exists.
    Create,
    /// Creates the set or overwrites the existing one.
    Upsert,
    /// Deletes exactly this set: [`Kind::Conflict`] when the existing set differs, [`Kind::NotFound`] when it
    /// is gone.
    Delete,
}

impl Route53 {
    pub(crate) fn new(config: &SdkConfig, context: &CallContext) -> Route53 {
        Route53 {
            client: Client::new(config),
            context: context.clone(),
        }
    }

    /// Returns all writable zones. Zones that another AWS service manages are left out.
    pub async fn zones(&self) -> Result<Vec<Zone>, Error> {
        let mut zones = Vec::new();
        let mut marker = None;
        loop {
            let send = self.client.list_hosted_zones().set_marker(marker).send();
            let page = self.context.call("route53:ListHostedZones", send).await?;
            let ours = page
                .hosted_zones
                .into_iter()
                .filter(|z| z.linked_service.is_none());
            zones.extend(ours.map(zone));
            marker = page.next_marker.filter(|_| page.is_truncated);
            if marker.is_none() {
                return Ok(zones);
            }
        }
    }

    pub async fn zone(&self, id: &str) -> Result<Option<Zone>, Error> {
        let send = self.client.get_hosted_zone().id(id).send();
        match self.context.call("route53:GetHostedZone", send).await {
            Ok(answer) => Ok(answer.hosted_zone.map(zone)),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns all record sets of exactly this name; [`Kind::NotFound`] when the zone does not exist.
    pub async fn records(&self, zone_id: &str, name: &str) -> Result<Vec<RecordSet>, Error> {
        let name = normalise(name);
        let mut records = Vec::new();
        let mut from = (Some(name.clone()), None, None);
        loop {
            let (start_name, start_type, start_identifier) = from;
            let send = self
                .client
                .list_resource_record_sets()
                .hosted_zone_id(zone_id)
                .set_start_record_name(start_name)
                .set_start_record_type(start_type)
                .set_start_record_identifier(start_identifier)
                .send();
            let page = self.context.call("route53:ListResourceRecordSets", send).await?;
            // The list begins at the name and continues through the rest of the zone.
            for set in page.resource_record_sets {
                let record = record(set);
                if record.name != name {
                    return Ok(records);
                }
                records.push(record);
            }
            if !page.is_truncated || page.next_record_name.is_none() {
                return Ok(records);
            }
            from = (
                page.next_record_name,
                page.next_record_type,
                page.next_record_identifier,
            );
        }
    }

    /// Makes all of the changes, or none, and returns the change's id. A deletion must have the record
    /// exactly as it was read.
    pub async fn change(&self, zone_id: &str, changes: &[Change]) -> Result<String, Error> {
        const CHANGE: &str = "route53:ChangeResourceRecordSets";
        if let Some(routed) = changes.iter().find(|c| c.record.routed) {
            let message = format!(
                "{} {} is one of several record sets that Route 53 chooses from; it is not changed",
                routed.record.name, routed.record.kind
            );
            return Err(Error::ours(Kind::Invalid, CHANGE, message));
        }
        let incomplete =
            |e: aws_sdk_route53::error::BuildError| Error::ours(Kind::Invalid, CHANGE, e.to_string());
        let batch = changes
            .iter()
            .map(sdk_change)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|changes| sdk::ChangeBatch::builder().set_changes(Some(changes)).build())
            .map_err(incomplete)?;
        let send = self
            .client
            .change_resource_record_sets()
            .hosted_zone_id(zone_id)
            .change_batch(batch)
            .send();
        let answer = self.context.call(CHANGE, send).await?;
        let id = answer.change_info.map(|info| info.id).unwrap_or_default();
        Ok(bare(&id, "/change/"))
    }

    /// True when all of Route 53's name servers answer with the change.
    pub async fn change_in_sync(&self, change_id: &str) -> Result<bool, Error> {
        let send = self.client.get_change().id(change_id).send();
        let answer = self.context.call("route53:GetChange", send).await?;
        Ok(answer
            .change_info
            .is_some_and(|info| info.status == sdk::ChangeStatus::Insync))
    }
}

/// Returns a DNS name in the form used for comparison: lower case, no trailing dot, and Route 53's `\052`
/// decoded to `*`.
pub fn normalise(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name.strip_suffix('.').unwrap_or(name);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        let code = escape
            .get(1..4)
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code.filter(|c| c.is_ascii_graphic() && *c != b'.' && *c != b'\\') {
            Some(c) => {
                plain.push(char::from(c));
                rest = &escape[4..];
            }
            None => {
                plain.push('\\');
                rest = &escape[1..];
            }
        }
    }
    plain.push_str(rest);
    plain.to_ascii_lowercase()
}

fn bare(id: &str, prefix: &str) -> String {
    id.strip_prefix(prefix).unwrap_or(id).to_owned()
}

fn zone(zone: sdk::HostedZone) -> Zone {
    Zone {
        id: bare(&zone.id, "/hostedzone/"),
        name: normalise(&zone.name),
        private: zone.config.is_some_and(|config| config.private_zone),
    }
}

fn record(set: sdk::ResourceRecordSet) -> RecordSet {
    RecordSet {
        name: normalise(&set.name),
        kind: set.r#type.as_str().to_owned(),
        ttl: set.ttl,
        values: set
            .resource_records
            .unwrap_or_default()
            .into_iter()
            .map(|r| r.value)
            .collect(),
        alias: set.alias_target.map(|alias| Alias {
            target: normalise(&alias.dns_name),
            hosted_zone_id: alias.hosted_zone_id,
            evaluate_target_health: alias.evaluate_target_health,
        }),
        routed: set.set_identifier.is_some(),
    }
}

fn sdk_change(change: &Change) -> Result<sdk::Change, aws_sdk_route53::error::BuildError> {
    let record = &change.record;
    let values = record
        .values
        .iter()
        .map(|value| sdk::ResourceRecord::builder().value(value).build())
        .collect::<Result<Vec<_>, _>>()?;
    let alias = record
        .alias
        .as_ref()
        .map(|alias| {
            sdk::AliasTarget::builder()
                .dns_name(&alias.target)
                .hosted_zone_id(&alias.hosted_zone_id)
                .evaluate_target_health(alias.evaluate_target_health)
                .build()
        })
        .transpose()?;
    let set = sdk::ResourceRecordSet::builder()
        .name(&record.name)
        .r#type(sdk::RrType::from(record.kind.as_str()))
        .set_ttl(record.ttl)
        .set_resource_records((!values.is_empty()).then_some(values))
        .set_alias_target(alias)
        .build()?;
    sdk::Change::builder()
        .action(match change.action {
            Action::Create => sdk::ChangeAction::Create,
            Action::Upsert => sdk::ChangeAction::Upsert,
            Action::Delete => sdk::ChangeAction::Delete,
        })
        .resource_record_set(set)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_one_form() {
        for (given, ours) in [
            ("API.Example.COM.", "api.example.com"),
            ("\\052.example.com.", "*.example.com"),
            ("_mtls-operator.api.example.com", "_mtls-operator.api.example.com"),
            // A dot inside a label stays distinct from a dot between labels.
            ("a\\056b.example.com", "a\\056b.example.com"),
            ("odd\\", "odd\\"),
            ("odd\\05", "odd\\05"),
            ("", ""),
        ] {
            assert_eq!(normalise(given), ours, "{given}");
        }
    }
}
