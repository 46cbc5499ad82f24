//! ConfigMaps with authorities, and waiting until the truststore or a caller shows the effect.
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::truststore, edge_calls::Caller, kubernetes::objects::condition, test_env::TestEnv,
    world::eventually,
};

pub async fn write_config_map(env: &TestEnv, name: &str, pem: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"ca.crt": pem}});
    maps.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(map))
        .await
        .expect("a ConfigMap");
}

pub fn message(object: &Value, type_: &str) -> String {
    condition(object, type_)
        .map(|c| c["message"].to_string())
        .unwrap_or_default()
}

/// Waits until the domain pins a truststore version for which `held` is true. Returns the version and its
/// text.
pub async fn pinned(env: &TestEnv, what: &str, held: impl Fn(&str) -> bool) -> (String, String) {
    eventually(&format!("the pinned truststore {what}"), async || {
        let (version, text) = truststore(env).await;
        if held(&text) {
            Ok((version, text))
        } else {
            Err(text)
        }
    })
    .await
}

pub async fn answers(env: &TestEnv, caller: &Caller, status: &str, why: &str) {
    eventually(why, async || match caller.calls(env).await {
        seen if seen == status => Ok(()),
        seen => Err(seen),
    })
    .await;
}

pub fn warnings(object: &Value) -> String {
    object["status"]["truststore"]["warnings"].to_string()
}
