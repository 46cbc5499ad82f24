//! Operators under a policy file whose rules come and go.
use std::{collections::BTreeSet, fs, path::PathBuf};

use sandbox::control::Calls;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::test_env::TestEnv;

/// Environment whose operator goes by a policy file.
pub struct Bounded {
    pub env: TestEnv,
    pub dir: TempDir,
}

impl Bounded {
    /// Starts under a policy without rules, with these namespaces beside the environment's own.
    pub async fn start(name: &str, beside: &[&str]) -> Bounded {
        Bounded::start_with(name, beside, &[]).await
    }

    /// Starts the same with a resync interval of an hour: the operator sees nothing that causes no event.
    pub async fn start_waking(name: &str) -> Bounded {
        Bounded::start_with(name, &[], &[("MTLS_OPERATOR_DRIFT_INTERVAL", "1h")]).await
    }

    pub async fn start_with(name: &str, beside: &[&str], variables: &[(&str, &str)]) -> Bounded {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, &json!([]));
        let path = file(&dir).to_str().unwrap().to_owned();
        let variables = [variables, &[("MTLS_OPERATOR_POLICY", path.as_str())]].concat();
        let env = TestEnv::start_among(name, beside, &variables).await;
        Bounded { env, dir }
    }

    /// Replaces all rules. The operator reads them within seconds.
    pub fn rules(&self, rules: &Value) {
        write(&self.dir, rules);
    }

    /// Rule for the environment's own namespace that bounds everything to what the environment has, with
    /// `more` merged over it.
    pub fn rule(&self, more: Value) -> Value {
        let env = &self.env;
        let mut rule = json!({
            "name": "own",
            "namespaces": {"names": [env.namespace]},
            "domainSuffixes": [env.prepared.zone],
            "hostedZoneIds": [env.prepared.zone_id],
            "regions": [env.account.region],
            "accounts": [env.account.id],
            "buckets": [{"name": env.prepared.bucket, "prefix": "e2e/{namespace}/"}],
            "apis": {"tag": {"key": "team", "value": env.namespace}},
        });
        for (field, value) in more.as_object().unwrap() {
            rule[field] = value.clone();
        }
        rule
    }

    /// Tags an API with the environment's namespace, as the rule requires.
    pub async fn tag_api(&self) {
        let gateway = self.env.gateway();
        let request = gateway
            .tag_resource()
            .resource_arn(self.api_arn())
            .tags("team", &self.env.namespace);
        request.send().await.unwrap();
    }

    pub async fn untag_api(&self) {
        let gateway = self.env.gateway();
        gateway
            .untag_resource()
            .resource_arn(self.api_arn())
            .tag_keys("team")
            .send()
            .await
            .unwrap();
    }

    pub fn api_arn(&self) -> String {
        format!(
            "arn:aws:apigateway:{}::/apis/{}",
            self.env.account.region, self.env.prepared.api_id
        )
    }

    /// Message of the condition Accepted, once the policy refuses the object with these words.
    pub async fn not_permitted(&self, name: &str, words: &str) -> String {
        let refused = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            c.status == "False" && c.reason == "NotPermitted" && c.message.contains(words)
        };
        let message = self.env.condition(name, "Accepted", refused).await.message;
        // Ready of an object that is being deleted says just that.
        let waits = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            refused(c) || (c.status == "False" && c.reason == "Deleting" && c.message.contains(words))
        };
        self.env.condition(name, "Ready", waits).await;
        let conditions = self
            .env
            .domains()
            .get(name)
            .await
            .unwrap()
            .status
            .unwrap()
            .conditions;
        assert!(
            !conditions.iter().any(|c| c.type_ == "Stalled"),
            "a policy may change: {conditions:?}"
        );
        message
    }

    /// Operations called in this account after `mark`, once each, without the operator's request for its
    /// identity, which it makes when it begins to lead.
    pub async fn operations(&self, mark: u64) -> BTreeSet<String> {
        let which = Calls {
            account: &self.env.account.id,
            since: mark,
            ..Calls::default()
        };
        self.env
            .control()
            .calls(&which)
            .await
            .unwrap()
            .calls
            .into_iter()
            .map(|c| c.operation)
            .filter(|o| o != "GetCallerIdentity")
            .collect()
    }

    /// Takes another object through its whole lifecycle, from nothing to Ready and away.
    pub async fn meanwhile(&self, host: &str) {
        let spec = json!({"domainName": host, "mappings": []});
        self.env.create_domain("meanwhile", spec).await;
        self.env.ready("meanwhile").await;
        self.env.delete_domain("meanwhile").await;
    }
}

pub fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("policy.yaml")
}

/// Writes the rules as JSON, which is YAML, whole at once, as a ConfigMap changes.
pub fn write(dir: &TempDir, rules: &Value) {
    let new = dir.path().join("new");
    fs::write(&new, json!({"rules": rules}).to_string()).unwrap();
    fs::rename(new, file(dir)).unwrap();
}
