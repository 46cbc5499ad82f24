//! Writing the status subresource. Touches nothing else of an object.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Error, MANAGER};

/// Replaces the status of `object` by `new`, if that is not what `old` (the status it was read with) is already.
/// True when something was written. An object that is gone has nobody left to tell: fine.
///
/// A JSON patch that sets `/status` as a whole, because then what is there is what we said: no condition, list entry or
/// field of before stays behind. A merge patch would need a null for each field that went away, known only from a
/// cached, perhaps old, status; server-side apply removes only what this very manager applied, and would keep what came
/// in by another way. `test` on the UID keeps it off an object that was made anew under the same name.
///
/// A reconcile that starts before the watch has brought our last write compares with the status before it. That
/// corrects itself, since the write itself wakes the object again, *if* the watch is not filtered by generation.
pub async fn write<K, S>(client: &Client, object: &K, old: &S, new: &S) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
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
    let patch = Patch::Json::<()>(
        serde_json::from_value(operations).expect("these are JSON patch operations"),
    );
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
        Err(error) => Err(Error::on(
            "write the status of",
            &K::kind(&()),
            &namespace,
            &name,
        )(error)),
    }
}

fn value<S: Serialize>(status: &S) -> Value {
    serde_json::to_value(status).expect("a status is plain data with string keys")
}
