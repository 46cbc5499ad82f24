//! Hosted zones and their record sets, also in other accounts.
use aws_sdk_route53::types::RrType;
use sandbox::{aws::Account, prepare::hosted_zone};
use serde_json::json;

use crate::support::{test_env::TestEnv, world::world};

/// Record sets of a zone but its own NS and SOA, as in `A mtls.example.com`, sorted.
pub async fn names(account: &Account, zone_id: &str) -> Vec<String> {
    let client = aws_sdk_route53::Client::new(&account.sdk());
    let request = client.list_resource_record_sets().hosted_zone_id(zone_id);
    let all = request
        .send()
        .await
        .expect("ListResourceRecordSets")
        .resource_record_sets;
    let others = all
        .into_iter()
        .filter(|r| !matches!(r.r#type, RrType::Ns | RrType::Soa));
    let mut names: Vec<_> = others
        .map(|r| format!("{} {}", r.r#type.as_str(), r.name.trim_end_matches('.')))
        .collect();
    names.sort();
    names
}

/// Record sets of [`names`] without the validation records.
pub async fn ours(account: &Account, zone_id: &str) -> Vec<String> {
    names(account, zone_id)
        .await
        .into_iter()
        .filter(|r| !r.starts_with("CNAME _"))
        .collect()
}

pub fn role(account: &Account, name: &str) -> serde_json::Value {
    json!({"roleArn": format!("arn:aws:iam::{}:role/{name}", account.id)})
}

/// Deletes the zone of this environment, and makes one of the same name in another account.
pub async fn zone_elsewhere(env: &TestEnv) -> (Account, String) {
    env.route53()
        .delete_hosted_zone()
        .id(&env.prepared.zone_id)
        .send()
        .await
        .unwrap();
    let other = world().aws.new_account();
    let zone = hosted_zone(&other, &env.prepared.zone).await.unwrap();
    (other, zone)
}
