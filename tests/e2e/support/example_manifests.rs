//! Manifests of examples/, as a user applies them: with the names of this environment in place of the
//! example's.
use std::path::Path;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::Value;

use super::test_env::TestEnv;

/// Applies every object of an example, with the host and the API of this environment, and with each text of
/// `others` replaced.
pub async fn apply(env: &TestEnv, file: &str, others: &[(&str, &str)]) {
    apply_in(env, &env.namespace, file, others).await;
}

/// Applies the example in another namespace. Returns the objects as the API server then has them.
pub async fn apply_in(
    env: &TestEnv,
    namespace: &str,
    file: &str,
    others: &[(&str, &str)],
) -> Vec<DynamicObject> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
    let mut text = std::fs::read_to_string(&path).expect("the example is there");
    let host = env.host();
    let usual = [
        ("mtls.example.com", host.as_str()),
        ("a1b2c3d4e5", &env.prepared.api_id),
    ];
    for (theirs, ours) in others {
        assert!(text.contains(theirs), "{file} says nothing of {theirs}");
        text = text.replace(theirs, ours);
    }
    for (theirs, ours) in usual {
        text = text.replace(theirs, ours);
    }
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("the example is YAML");
    let mut applied = Vec::new();
    for object in objects {
        let kind = object["kind"].as_str().expect("a kind");
        let version = object["apiVersion"].as_str().expect("an apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(env.client.clone(), namespace, &resource);
        let name = object["metadata"]["name"].as_str().expect("a name");
        let apply = PatchParams::apply("user").force();
        applied.push(
            api.patch(name, &apply, &Patch::Apply(&object))
                .await
                .expect("the API server takes the example"),
        );
    }
    applied
}
