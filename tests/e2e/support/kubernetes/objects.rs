//! Objects of both kinds as JSON: manifests, changes, waiting for conditions.
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams,
    PropagationPolicy,
};
use serde_json::{Value, json};

use crate::support::{test_env::TestEnv, world::eventually};

pub const DOMAIN: &str = "MtlsDomain";

pub const CERTIFICATE: &str = "ClientCertificate";

pub fn api(env: &TestEnv, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mtls-operator.io", "v1alpha1", kind));
    Api::namespaced_with(env.client.clone(), &env.namespace, &resource)
}

pub async fn create(env: &TestEnv, kind: &str, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let object = serde_json::from_value(object).expect("an object");
    api(env, kind)
        .create(&kube::api::PostParams::default(), &object)
        .await
        .expect("the API server takes the object");
}

/// Applies a merge patch to the spec.
pub async fn change(env: &TestEnv, kind: &str, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    api(env, kind)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("the API server takes the change");
}

pub async fn delete(env: &TestEnv, kind: &str, name: &str) {
    api(env, kind)
        .delete(name, &Default::default())
        .await
        .expect("the API server takes the deletion");
}

/// Deletes the object without the operator's cleanup, and leaves what the operator made. The result is the
/// state of a new cluster that receives only the manifests.
pub async fn taken_out(env: &TestEnv, kind: &str, name: &str) -> DynamicObject {
    let api = api(env, kind);
    let mut object = api.get(name).await.expect("the object");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(name, &PatchParams::default(), &free)
        .await
        .expect("without finalizers");
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    api.delete(name, &orphan).await.expect("deleted");
    eventually("the object is gone", async || {
        match api.get_opt(name).await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(_) => Err("there".into()),
        }
    })
    .await;
    object.data.as_object_mut().expect("an object").remove("status");
    object.metadata = ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    };
    object
}

/// Spec with the API of this environment behind all paths, and with these authorities.
pub fn domain_spec(env: &TestEnv, trust: Value) -> Value {
    json!({
        "domainName": env.host(),
        "trust": trust,
        "mappings": [{"path": "", "api": {"id": env.prepared.api_id, "stage": "$default"}}],
    })
}

/// Trust with one generated authority, `ca`.
pub fn generated() -> Value {
    json!({"authorities": [{"name": "ca", "generate": {}}]})
}

/// Creates the MtlsDomain `partners` with a generated authority, and waits until it is Ready.
pub async fn ready_domain(env: &TestEnv) {
    create(env, DOMAIN, "partners", domain_spec(env, generated())).await;
    until(env, DOMAIN, "partners", "Ready", "True", "").await;
}

pub fn certificate_spec(common_name: &str) -> Value {
    json!({"domainRef": {"name": "partners"}, "subject": {"commonName": common_name}})
}

pub fn condition(object: &Value, type_: &str) -> Option<Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == type_)
        .cloned()
}

/// Status of a condition, "" when it is absent.
pub fn says(object: &Value, type_: &str) -> String {
    condition(object, type_)
        .and_then(|c| Some(c["status"].as_str()?.to_owned()))
        .unwrap_or_default()
}

/// Statuses of Ready, Reconciling and Stalled.
pub fn summary(object: &Value) -> [String; 3] {
    ["Ready", "Reconciling", "Stalled"].map(|type_| says(object, type_))
}

pub async fn get(env: &TestEnv, kind: &str, name: &str) -> Value {
    serde_json::to_value(api(env, kind).get(name).await.expect("the object is there")).expect("JSON")
}

/// Waits until a condition has this status and reason for the current generation; an empty reason is any.
pub async fn until(env: &TestEnv, kind: &str, name: &str, type_: &str, status: &str, reason: &str) -> Value {
    until_object(env, kind, name, &format!("{type_}={status}/{reason}"), |object| {
        let Some(c) = condition(object, type_) else {
            return false;
        };
        c["status"] == status
            && (reason.is_empty() || c["reason"] == reason)
            && c["observedGeneration"] == object["metadata"]["generation"]
    })
    .await
}

pub async fn until_object(
    env: &TestEnv,
    kind: &str,
    name: &str,
    what: &str,
    held: impl Fn(&Value) -> bool,
) -> Value {
    eventually(&format!("{kind} {name}: {what}"), async || {
        let object = get(env, kind, name).await;
        if held(&object) {
            Ok(object)
        } else {
            Err(object["status"].to_string())
        }
    })
    .await
}

/// Waits until the ClientCertificate is Ready with that revision or a later one. Returns it and its Secret.
pub async fn issued(env: &TestEnv, name: &str, revision: i64) -> (Value, Secret) {
    let object = until_object(
        env,
        CERTIFICATE,
        name,
        &format!("Ready with revision {revision}"),
        |o| {
            says(o, "Ready") == "True"
                && o["status"]["revision"].as_i64() >= Some(revision)
                && o["status"]["observedGeneration"] == o["metadata"]["generation"]
        },
    )
    .await;
    let secret = env
        .secrets()
        .get(object["spec"]["secretName"].as_str().unwrap_or(name))
        .await
        .expect("its Secret");
    (object, secret)
}

pub async fn ask_for_renewal(env: &TestEnv, name: &str, value: &str) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/renew": value}}}));
    api(env, CERTIFICATE)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("an annotation");
}

/// Spec of a self-signed certificate, which stands in the truststore itself.
pub fn self_signed(common_name: &str) -> Value {
    json!({
        "domainRef": {"name": "partners"}, "subject": {"commonName": common_name}, "issuance": "SelfSigned",
    })
}

/// Creates a domain `partners` and a self-signed certificate `self1` that it trusts.
pub async fn with_self_signed(env: &TestEnv) {
    ready_domain(env).await;
    create(env, CERTIFICATE, "self1", self_signed("self1")).await;
    until(env, CERTIFICATE, "self1", "Ready", "True", "").await;
    until(env, DOMAIN, "partners", "Ready", "True", "").await;
    env.reconciles(1).await;
}
