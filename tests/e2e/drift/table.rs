//! Table of rows that share an environment, one after the other. Each row starts from a domain that is served
//! as its spec says.
use std::collections::BTreeSet;

use super::{bucket_settings, cluster};
use crate::support::{test_env::TestEnv, world::eventually};

/// Time at which the operator notices a row. The tests do not measure it: it is the interval of the read that
/// shows the row.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// Event from Kubernetes.
    AtOnce,
    /// Reads of all custom domains, APIs and certificates of an account.
    EveryMinute,
    /// Reads of the mappings and records of this domain.
    EveryFiveMinutes,
    /// Reads of the bucket and the integrations.
    EveryQuarter,
    /// Next reconcile of the object for another reason, at the latest after a day or a restart.
    NextReconcile,
}

/// Numbers of rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub rows: usize,
    pub corrected: usize,
    pub reported: usize,
    pub not_owned_touched: usize,
}

/// Environment, and the rows that it has been through.
pub struct Table {
    pub env: TestEnv,
    pub figures: Figures,
    pub not_owned: BTreeSet<String>,
}

/// Condition that reports a row: type, status, reason, a part of the message.
pub type Says<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Table {
    /// Table of an environment that has all its resources of other owners, and `d` Ready in it.
    pub async fn of(env: TestEnv) -> Table {
        env.ready("d").await;
        env.reconciles(1).await;
        let not_owned = not_owned(&env).await;
        Table {
            env,
            figures: Figures::default(),
            not_owned,
        }
    }

    /// Checks that the operator restores the change of another writer (`theirs`, as the journal has it) by
    /// the writes `ours`, and by no others.
    pub async fn corrected(
        &mut self,
        what: &str,
        notice: Notice,
        theirs: &[&str],
        ours: &[&str],
        act: impl AsyncFnOnce(&TestEnv),
    ) {
        let (mark, before) = (self.env.mark().await, there(&self.env).await);
        act(&self.env).await;
        let expected: Vec<_> = theirs.iter().chain(ours).map(|write| self.named(write)).collect();
        eventually(&format!("{what}: {expected:?}"), async || {
            let writes = self.env.writes(mark).await;
            if writes.len() < expected.len() {
                return Err(format!("{writes:?}"));
            }
            let now = there(&self.env).await;
            let differs: Vec<_> = now.symmetric_difference(&before).collect();
            if differs.is_empty() {
                Ok(())
            } else {
                Err(format!("{differs:?} after {writes:?}"))
            }
        })
        .await;
        let ready = self.env.ready("d").await;
        self.env.reconciles(1).await;
        assert_eq!(self.env.writes(mark).await, expected, "{what}");
        assert_eq!(self.env.ready("d").await, ready, "{what}");
        self.noted(what, notice);
    }

    /// Counts a row that was restored, and checked by other means.
    pub fn noted(&mut self, what: &str, notice: Notice) {
        println!("drift {what}: restored, noticed {notice:?}");
        self.figures.rows += 1;
        self.figures.corrected += 1;
    }

    /// Checks that a condition reports the change of another writer (`theirs`), that the operator writes
    /// nothing, and that all is as before once the change is undone.
    pub async fn reported(
        &mut self,
        what: &str,
        notice: Notice,
        theirs: &[&str],
        (type_, status, reason, message): Says<'_>,
        act: impl AsyncFnOnce(&TestEnv),
        undo: impl AsyncFnOnce(&TestEnv),
    ) {
        let (mark, before) = (self.env.mark().await, there(&self.env).await);
        act(&self.env).await;
        let says = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            c.status == status && c.reason == reason && c.message.contains(message)
        };
        self.env.condition("d", type_, says).await;
        self.env.reconciles(1).await;
        let theirs: Vec<_> = theirs.iter().map(|write| self.named(write)).collect();
        assert_eq!(self.env.writes(mark).await, theirs, "{what}");
        undo(&self.env).await;
        eventually(&format!("{what}: undone"), async || {
            let now = there(&self.env).await;
            let differs: Vec<_> = now.symmetric_difference(&before).collect();
            if differs.is_empty() {
                Ok(())
            } else {
                Err(format!("{differs:?}"))
            }
        })
        .await;
        self.env.condition("d", type_, |c| !says(c)).await;
        self.env.ready("d").await;
        println!("drift {what}: reported ({type_}={status}/{reason}), noticed {notice:?}");
        self.figures.rows += 1;
        self.figures.reported += 1;
    }

    /// Returns a write as the journal has it. A row says HOST for the domain's name and ZONE for its parent.
    pub fn named(&self, write: &str) -> String {
        let host = self.env.host();
        write
            .replace("HOST", &host)
            .replace("ZONE", &self.env.prepared.zone)
    }

    /// Returns the figures, with the number of changed resources of other owners.
    pub async fn end(self) -> Figures {
        let now = not_owned(&self.env).await;
        let touched: Vec<_> = self.not_owned.symmetric_difference(&now).collect();
        assert!(touched.is_empty(), "{touched:?}");
        Figures {
            not_owned_touched: touched.len(),
            ..self.figures
        }
    }
}

/// Ownership tag of another owner.
pub const THEIRS: &str = "other/team/d";

/// Resources that the domain `d` of the environment has in AWS, in words that do not change when the operator
/// creates a resource again.
pub async fn there(env: &TestEnv) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let domain = env
        .gateway()
        .get_domain_name()
        .domain_name(env.host())
        .send()
        .await;
    let mut target = "no target".to_owned();
    if let Ok(domain) = domain {
        let config = &domain.domain_name_configurations()[0];
        target = config.api_gateway_domain_name().unwrap_or_default().to_owned();
        let trust = domain.mutual_tls_authentication();
        let ours = |(key, _): &(&String, &String)| key.starts_with("mtls-operator.io/");
        let tags: BTreeSet<_> = domain.tags().into_iter().flatten().filter(ours).collect();
        all.insert(format!(
            "domain {:?} {:?} {:?} {:?} {:?} {tags:?}",
            config.domain_name_status(),
            config.ip_address_type(),
            config.security_policy(),
            domain.routing_mode(),
            trust.map(|t| t.truststore_uri()),
        ));
        let version = trust.and_then(|t| Some((t.truststore_uri()?, t.truststore_version()?)));
        if let Some((bucket, key, version)) = version.and_then(|(uri, version)| {
            let (bucket, key) = uri.strip_prefix("s3://")?.split_once('/')?;
            Some((bucket, key, version))
        }) {
            let object = env
                .s3()
                .get_object()
                .bucket(bucket)
                .key(key)
                .version_id(version)
                .send()
                .await;
            let text = match object {
                Ok(object) => object.body.collect().await.expect("bytes").into_bytes().to_vec(),
                Err(_) => b"gone".to_vec(),
            };
            let latest = env.s3().head_object().bucket(bucket).key(key).send().await;
            let is_latest = latest.is_ok_and(|latest| latest.version_id() == Some(version));
            all.insert(format!(
                "truststore latest: {is_latest} {}",
                String::from_utf8_lossy(&text)
            ));
        }
        let arn = config.certificate_arn().unwrap_or_default();
        let tags = env
            .acm()
            .list_tags_for_certificate()
            .certificate_arn(arn)
            .send()
            .await;
        all.insert(format!("certificate {:?}", tags.ok().and_then(|tags| tags.tags)));
        all.extend(
            env.mapped()
                .await
                .iter()
                .map(|mapping| format!("mapping {mapping:?}")),
        );
    }
    all.extend(
        env.records()
            .await
            .iter()
            .map(|r| format!("{r:?}").replace(&target.to_lowercase(), "TARGET")),
    );
    for api in env.gateway().get_apis().send().await.expect("GetApis").items() {
        let id = api.api_id().unwrap_or_default();
        let mut tags: Vec<_> = api.tags().into_iter().flatten().collect();
        tags.sort();
        all.insert(format!(
            "API {id} {:?} {tags:?}",
            api.disable_execute_api_endpoint()
        ));
        for i in env
            .gateway()
            .get_integrations()
            .api_id(id)
            .send()
            .await
            .expect("GetIntegrations")
            .items()
        {
            let mut parameters: Vec<_> = i.request_parameters().into_iter().flatten().collect();
            parameters.sort();
            all.insert(format!(
                "integration {id} {:?} {parameters:?}",
                i.integration_id()
            ));
        }
    }
    let v1 = aws_sdk_apigateway::Client::new(&env.account.sdk());
    for api in v1.get_rest_apis().send().await.expect("GetRestApis").items() {
        let id = api.id().unwrap_or_default();
        let mut tags: Vec<_> = api.tags().into_iter().flatten().collect();
        tags.sort();
        all.insert(format!(
            "REST API {id} {} {tags:?}",
            api.disable_execute_api_endpoint()
        ));
        let resources = v1
            .get_resources()
            .rest_api_id(id)
            .embed("methods")
            .send()
            .await
            .expect("GetResources");
        let methods = resources
            .items()
            .iter()
            .flat_map(|r| r.resource_methods().into_iter().flatten());
        for (method, at) in methods {
            let parameters = at.method_integration().and_then(|i| i.request_parameters());
            let mut parameters: Vec<_> = parameters.into_iter().flatten().collect();
            parameters.sort();
            all.insert(format!("REST integration {id} {method} {parameters:?}"));
        }
    }
    all.extend(bucket_settings::settings(env).await);
    all.extend(cluster::marks(env).await);
    all
}

/// Resources that are not the operator's, as the end-to-end tests create them.
pub async fn not_owned(env: &TestEnv) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for domain in env
        .gateway()
        .get_domain_names()
        .send()
        .await
        .expect("GetDomainNames")
        .items()
    {
        if domain.domain_name() != Some(&env.host()) {
            all.insert(format!("{domain:?}"));
        }
    }
    for arn in env.server_certificates().await {
        let tags = env
            .acm()
            .list_tags_for_certificate()
            .certificate_arn(&arn)
            .send()
            .await
            .expect("tags")
            .tags;
        if tags.iter().flatten().any(|tag| tag.value() == Some(THEIRS)) {
            all.insert(format!("{arn} {tags:?}"));
        }
    }
    all.extend(
        env.records()
            .await
            .iter()
            .filter(|r| r.name.starts_with("theirs."))
            .map(|r| format!("{r:?}")),
    );
    let buckets = env.s3().list_buckets().send().await.expect("ListBuckets");
    for bucket in buckets
        .buckets()
        .iter()
        .filter_map(|b| b.name())
        .filter(|b| b.starts_with("theirs-"))
    {
        let versioning = env
            .s3()
            .get_bucket_versioning()
            .bucket(bucket)
            .send()
            .await
            .expect("versioning");
        let objects = env
            .s3()
            .list_object_versions()
            .bucket(bucket)
            .send()
            .await
            .expect("ListObjectVersions");
        all.insert(format!(
            "{bucket} {:?} {:?}",
            versioning.status(),
            objects.versions()
        ));
    }
    all.extend(cluster::not_owned(env).await);
    all
}
