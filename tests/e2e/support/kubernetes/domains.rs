//! MtlsDomains and ClientCertificates of an environment: created, changed, awaited, deleted.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use mtls_operator::api::{ClientCertificate, MtlsDomain};

use crate::support::{test_env::TestEnv, world::eventually};

impl TestEnv {
    /// Creates an MtlsDomain with a generated authority and everything mapped to the prepared API; `spec` is
    /// merged over that.
    pub async fn create_domain(&self, name: &str, spec: serde_json::Value) -> MtlsDomain {
        let mut object = serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": {"name": name},
            "spec": {
                "domainName": self.host(),
                "trust": {"authorities": [{"name": "partners", "generate": {}}]},
                "mappings": [{"path": "", "api": {"id": self.prepared.api_id, "stage": "$default"}}],
            },
        });
        for (field, value) in spec.as_object().expect("a spec is an object") {
            object["spec"][field] = value.clone();
        }
        let object = serde_json::from_value(object).expect("an MtlsDomain");
        self.domains()
            .create(&PostParams::default(), &object)
            .await
            .expect("the MtlsDomain is accepted")
    }

    pub async fn create_certificate(&self, name: &str, domain: &str) -> ClientCertificate {
        let object = serde_json::from_value(serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": name},
            "spec": {"domainRef": {"name": domain}, "subject": {"commonName": name}, "secretName": name},
        }))
        .expect("a ClientCertificate");
        self.certificates()
            .create(&PostParams::default(), &object)
            .await
            .expect("the ClientCertificate is accepted")
    }

    /// Merges `spec` into the spec of an MtlsDomain.
    pub async fn change(&self, name: &str, spec: serde_json::Value) {
        let patch = Patch::Merge(serde_json::json!({"spec": spec}));
        self.domains()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("the change is accepted");
    }

    /// Condition of the MtlsDomain, as soon as it is about the current spec and `wanted` holds.
    pub async fn condition(&self, name: &str, type_: &str, wanted: impl Fn(&Condition) -> bool) -> Condition {
        eventually(&format!("{type_} of {name}"), async || {
            let domain = self.domains().get(name).await.map_err(|e| e.to_string())?;
            let generation = domain.metadata.generation;
            let conditions = domain.status.map(|s| s.conditions).unwrap_or_default();
            let found = conditions
                .iter()
                .find(|c| c.type_ == type_ && c.observed_generation == generation && wanted(c));
            found.cloned().ok_or_else(|| shown(&conditions))
        })
        .await
    }

    /// Waits until the MtlsDomain is Ready with its current spec.
    pub async fn ready(&self, name: &str) -> Condition {
        self.condition(name, "Ready", |c| c.status == "True").await
    }

    pub async fn certificate_ready(&self, name: &str) {
        eventually(&format!("Ready of the certificate {name}"), async || {
            let certificate = self.certificates().get(name).await.map_err(|e| e.to_string())?;
            let generation = certificate.metadata.generation;
            let conditions = certificate.status.map(|s| s.conditions).unwrap_or_default();
            let ready = conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True" && c.observed_generation == generation);
            if ready { Ok(()) } else { Err(shown(&conditions)) }
        })
        .await
    }

    /// Deletes the MtlsDomain and waits until it is gone.
    pub async fn delete_domain(&self, name: &str) {
        self.domains()
            .delete(name, &DeleteParams::default())
            .await
            .expect("the MtlsDomain can be deleted");
        self.domain_gone(name).await;
    }

    pub async fn domain_gone(&self, name: &str) {
        eventually(&format!("the end of {name}"), async || {
            match self.domains().get_opt(name).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(left) => Err(shown(&left.status.map(|s| s.conditions).unwrap_or_default())),
            }
        })
        .await
    }
}

/// Conditions, one a line, for the message of a test that fails.
pub fn shown(conditions: &[Condition]) -> String {
    let line = |c: &Condition| {
        format!(
            "\n  {}={} {} (generation {:?}): {}",
            c.type_, c.status, c.reason, c.observed_generation, c.message
        )
    };
    conditions.iter().map(line).collect()
}

/// Notes of the Events with this reason on the MtlsDomain `d`.
pub async fn events(env: &TestEnv, reason: &str) -> Vec<String> {
    let events =
        kube::Api::<k8s_openapi::api::events::v1::Event>::namespaced(env.client.clone(), &env.namespace);
    let all = events.list(&ListParams::default()).await.expect("Events").items;
    all.into_iter()
        .filter(|e| e.reason.as_deref() == Some(reason))
        .filter_map(|e| e.note)
        .collect()
}

pub async fn generated_authorities(env: &TestEnv) -> usize {
    let authorities = ListParams::default().labels("mtls-operator.io/authority");
    env.secrets().list(&authorities).await.unwrap().items.len()
}
