//! Teams in namespaces of their own, which request certificates by a ClientGrant.
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{
    kubernetes::objects::{CERTIFICATE, condition, says},
    test_env::TestEnv,
    world::eventually,
};

pub const GRANT: &str = "ClientGrant";

/// User in one namespace.
pub struct Team {
    pub client: Client,
    pub namespace: String,
}

impl Team {
    pub fn admin(env: &TestEnv, namespace: &str) -> Team {
        Team {
            client: env.client.clone(),
            namespace: namespace.into(),
        }
    }

    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mtls-operator.io", "v1alpha1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn request(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": CERTIFICATE, "metadata": {"name": name},
            "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        self.api(CERTIFICATE)
            .create(&PostParams::default(), &object)
            .await
            .expect("the API server takes it");
    }

    pub async fn patch(&self, name: &str, patch: Value) {
        self.api(CERTIFICATE)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("a change");
    }

    pub async fn until(&self, name: &str, what: &str, held: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name} in {}: {what}", self.namespace), async || {
            let found = self.api(CERTIFICATE).get(name).await.map_err(|e| e.to_string())?;
            let object = serde_json::to_value(found).unwrap();
            if held(&object) {
                Ok(object)
            } else {
                Err(object["status"].to_string())
            }
        })
        .await
    }

    pub async fn ready(&self, name: &str) -> Value {
        let current = |o: &Value| o["status"]["observedGeneration"] == o["metadata"]["generation"];
        self.until(name, "Ready", |o| says(o, "Ready") == "True" && current(o))
            .await
    }

    /// Returns the message of Accepted once it is False for the current spec, and contains these words.
    pub async fn refused(&self, name: &str, words: &str) -> String {
        let object = self
            .until(name, &format!("refused: {words}"), |o| {
                let Some(c) = condition(o, "Accepted") else {
                    return false;
                };
                c["status"] == "False"
                    && c["message"].as_str().unwrap().contains(words)
                    && c["observedGeneration"] == o["metadata"]["generation"]
            })
            .await;
        condition(&object, "Accepted").unwrap()["message"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// Spec of a ClientCertificate in another namespace for the environment's domain `partners`.
pub fn asking(env: &TestEnv, common_name: &str, more: Value) -> Value {
    let mut spec = json!({
        "domainRef": {"name": "partners", "namespace": env.namespace}, "subject": {"commonName": common_name},
    });
    more.as_object()
        .unwrap()
        .iter()
        .for_each(|(field, value)| spec[field] = value.clone());
    spec
}

/// Spec of a ClientGrant for that domain.
pub fn granting(namespace: &str, more: Value) -> Value {
    let mut spec = json!({
        "domainRef": {"name": "partners"}, "namespaces": {"names": [namespace]}, "commonNames": ["acme-*"],
    });
    more.as_object()
        .unwrap()
        .iter()
        .for_each(|(field, value)| spec[field] = value.clone());
    spec
}
