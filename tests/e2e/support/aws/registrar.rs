//! Registrar where a user makes the records that the status lists, and a resolver that fails on demand.
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecordSet, RrType};
use mtls_operator::api::DnsRecord;
use sandbox::aws::Account;

use crate::support::{
    aws::{
        existing_resources::record,
        hosted_zones::{names, zone_elsewhere},
    },
    edge_calls::Identity,
    kubernetes::secrets::openssl,
    test_env::TestEnv,
    world::eventually,
};

/// User with a zone.
pub struct Registrar {
    pub account: Account,
    pub zone_id: String,
}

impl Registrar {
    /// Moves the zone of this environment to the registrar: Route 53 in the account of this environment no
    /// longer has it.
    pub async fn of(env: &TestEnv) -> Registrar {
        let (account, zone_id) = zone_elsewhere(env).await;
        Registrar { account, zone_id }
    }

    pub async fn change(&self, action: ChangeAction, record: ResourceRecordSet) {
        let change = Change::builder()
            .action(action)
            .resource_record_set(record)
            .build()
            .unwrap();
        let batch = ChangeBatch::builder().changes(change).build().unwrap();
        let client = aws_sdk_route53::Client::new(&self.account.sdk());
        let request = client
            .change_resource_record_sets()
            .hosted_zone_id(&self.zone_id)
            .change_batch(batch);
        request.send().await.unwrap();
    }

    /// Creates a record as the status lists it, word for word.
    pub async fn create(&self, listed: &DnsRecord) {
        let DnsRecord { name, r#type, value } = listed;
        self.change(
            ChangeAction::Upsert,
            record(name, RrType::from(r#type.as_str()), value),
        )
        .await;
    }

    pub async fn names(&self) -> Vec<String> {
        names(&self.account, &self.zone_id).await
    }
}

pub async fn listed(env: &TestEnv, name: &str) -> Vec<DnsRecord> {
    let status = env.domains().get(name).await.unwrap().status.unwrap_or_default();
    status.dns.map(|dns| dns.records).unwrap_or_default()
}

/// Records that prove control of the names to ACM, once the status lists that many.
pub async fn validation(env: &TestEnv, name: &str, count: usize) -> Vec<DnsRecord> {
    eventually("the validation records in the status", async || {
        let proofs: Vec<_> = listed(env, name)
            .await
            .into_iter()
            .filter(|r| r.name.starts_with('_'))
            .collect();
        if proofs.len() == count {
            Ok(proofs)
        } else {
            Err(format!("{proofs:?}"))
        }
    })
    .await
}

/// Record that leads callers to the domain.
pub async fn entrance(env: &TestEnv, name: &str, host: &str) -> DnsRecord {
    eventually("the record of the name in the status", async || {
        let all = listed(env, name).await;
        all.iter()
            .find(|r| r.name == host)
            .cloned()
            .ok_or_else(|| format!("{all:?}"))
    })
    .await
}

/// Creates an MtlsDomain `d` with external DNS, complete but for the record that leads callers to it. Returns
/// that record.
pub async fn nearly(env: &TestEnv, registrar: &Registrar, spec: serde_json::Value) -> DnsRecord {
    let domain = env.create_domain("d", spec).await;
    for proof in validation(env, "d", 1).await {
        registrar.create(&proof).await;
    }
    entrance(env, "d", &domain.spec.domain_name).await
}

/// Creates the self-signed certificate of one client, by the commands that a reader of the example types.
pub async fn self_signed() -> Identity {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        "req -newkey rsa:2048 -nodes -keyout client.key -out client.csr -subj /CN=client1",
        "x509 -signkey client.key -in client.csr -req -days 365 -out client.crt",
    ];
    for line in lines {
        openssl(dir.path(), &line.split(' ').collect::<Vec<_>>(), "")
            .await
            .expect("openssl does as the example says");
    }
    let read = |file: &str| std::fs::read(dir.path().join(file)).unwrap();
    Identity {
        certificate: read("client.crt"),
        key: read("client.key"),
    }
}
