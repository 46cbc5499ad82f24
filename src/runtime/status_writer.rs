//! Writes the status subresource. Touches no other part of an object.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::runtime::{Error, MANAGER};

/// Replaces the status of `object` by `new`, unless `old` (the status at the time of the read) already equals
/// it. True when something was written. An object that is gone is no error.
///
/// The write is a JSON patch that sets `/status` as a whole: no earlier condition, list entry or field stays
/// behind. A merge patch would need a null for each removed field, known only from a cached, possibly stale
/// status; server-side apply removes only fields that this very manager applied, and would keep fields from
/// other writes. `test` on the UID protects an object that was created again under the same name.
///
/// A reconcile that starts before the watch has delivered the operator's last write compares with the status
/// before it. This corrects itself, since the write itself triggers another reconcile, *if* the watch is not
/// filtered by generation.
pub async fn write<K, S>(client: &Client, object: &K, old: &S, new: &S) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    S: Serialize,
{
    let (old, new) = (value(old), value(new));
    if old == new {
        return Ok(false);
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let operations = json!([
        {"op": "test", "path": "/metadata/uid", "value": object.uid()},
        {"op": "add", "path": "/status", "value": new},
    ]);
    let patch =
        Patch::Json::<()>(serde_json::from_value(operations).expect("these are JSON patch operations"));
    let params = PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    };
    match Api::<K>::namespaced(client.clone(), &namespace)
        .patch_status(&name, &params, &patch)
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(false),
        Err(error) => Err(Error::on("write the status of", &K::kind(&()), &namespace, &name)(error)),
    }
}

fn value<S: Serialize>(status: &S) -> Value {
    serde_json::to_value(status).expect("a status is plain data with string keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::{Pod, PodStatus};

    use serde_json::json;

    use crate::runtime::fake;

    fn status(phase: &str, message: Option<&str>) -> PodStatus {
        PodStatus {
            phase: Some(phase.into()),
            message: message.map(Into::into),
            ..PodStatus::default()
        }
    }

    #[tokio::test]
    async fn replaces_the_whole_status_and_only_when_it_differs() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let client = fake::client(move |method, path, body| {
            log.lock()
                .unwrap()
                .push((method.to_string(), path.to_owned(), body));
            (200, json!({"metadata": {"name": "p"}}))
        });
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.namespace = Some("n".into());
        pod.metadata.uid = Some("u".into());

        let old = status("Running", Some("away"));
        assert!(!write(&client, &pod, &old, &old.clone()).await.unwrap());
        assert!(seen.lock().unwrap().is_empty());
        assert!(write(&client, &pod, &old, &status("Failed", None)).await.unwrap());
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "add", "path": "/status", "value": {"phase": "Failed"}},
        ]);
        let path = "/api/v1/namespaces/n/pods/p/status".to_owned();
        assert_eq!(*seen.lock().unwrap(), [("PATCH".to_owned(), path, expected)]);
    }

    #[tokio::test]
    async fn an_object_that_is_gone_is_fine_and_a_refusal_is_not() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        for (code, reason) in [(404, "NotFound"), (422, "Invalid"), (403, "Forbidden")] {
            let client = fake::client(move |_, _, _| fake::refusal(code, reason));
            let written = write(&client, &pod, &status("a", None), &status("b", None)).await;
            match code {
                404 => assert!(!written.unwrap()),
                _ => {
                    let error = written.unwrap_err();
                    assert_eq!(error.answer().map(|status| status.code), Some(code));
                }
            }
        }
    }
}
