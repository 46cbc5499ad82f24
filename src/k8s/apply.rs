//! Reading and writing single Secrets and ConfigMaps. Debug output of a Secret shows its bytes: nothing here
//! prints one.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::{Error, MANAGER};

/// Label on every Secret that we write, with the value [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The Secret, from the API server itself (the watches carry metadata only).
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    Api::<Secret>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::on("read", "Secret", namespace, name))
}

/// All Secrets with these labels.
pub async fn secrets(client: &Client, namespace: &str, selector: &str) -> Result<Vec<Secret>, Error> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(selector)).await;
    list.map(|list| list.items)
        .map_err(Error::on("list", "Secrets", namespace, selector))
}

/// The ConfigMap, from the API server itself.
pub async fn config_map(client: &Client, namespace: &str, name: &str) -> Result<Option<ConfigMap>, Error> {
    Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::on("read", "ConfigMap", namespace, name))
}

/// All ConfigMaps with these labels.
pub async fn config_maps(client: &Client, namespace: &str, selector: &str) -> Result<Vec<ConfigMap>, Error> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(selector)).await;
    list.map(|list| list.items)
        .map_err(Error::on("list", "ConfigMaps", namespace, selector))
}

/// Makes the Secret be as `wanted`, which names itself and carries everything we want of it; `found` is what
/// is there. Labels, annotations and keys of others stay, ours that are no longer wanted go. Whether what is
/// there may be overwritten at all is for the caller to know.
///
/// Where nothing was found it is a plain create, the cheapest write there is; if something is there after
/// all, the answer is a conflict: reconcile again. Otherwise server-side apply.
pub async fn write_secret(
    client: &Client,
    mut wanted: Secret,
    found: Option<&Secret>,
) -> Result<Secret, Error> {
    wanted.labels_mut().insert(MANAGED_BY.into(), MANAGER.into());
    let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
    let api = Api::<Secret>::namespaced(client.clone(), &namespace);
    let Some(found) = found else {
        let params = PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        };
        return api
            .create(&params, &wanted)
            .await
            .map_err(Error::on("create", "Secret", &namespace, &name));
    };
    own_as_applied(&api, found).await.map_err(Error::on(
        "take over the fields of",
        "Secret",
        &namespace,
        &name,
    ))?;
    api.patch(
        &name,
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(&wanted),
    )
    .await
    .map_err(Error::on("apply", "Secret", &namespace, &name))
}

/// The keys below a part of it (a JSON pointer: `/f:metadata/f:labels`, `/f:data`) that we wrote, as
/// managedFields has it.
pub fn written_by_us(found: &Secret, part: &str) -> BTreeSet<String> {
    let ours = found
        .managed_fields()
        .iter()
        .filter(|f| f.manager.as_deref() == Some(MANAGER));
    let fields = ours.filter_map(|f| f.fields_v1.as_ref()?.0.pointer(part)?.as_object());
    fields
        .flat_map(|map| map.keys())
        .filter_map(|key| Some(key.strip_prefix("f:")?.to_owned()))
        .collect()
}

/// What was made by a create counts as an update of ours, not as applied, and would never be removed by a
/// later apply. So its entry in managedFields is renamed once, before the first apply: what client-go's
/// `csaupgrade` does.
async fn own_as_applied(api: &Api<Secret>, found: &Secret) -> Result<(), kube::Error> {
    let ours = |operation: &str| {
        found.managed_fields().iter().position(|f| {
            f.manager.as_deref() == Some(MANAGER)
                && f.operation.as_deref() == Some(operation)
                && f.subresource.is_none()
        })
    };
    let (None, Some(created)) = (ours("Apply"), ours("Update")) else {
        return Ok(());
    };
    let operations = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": found.resource_version()},
        {"op": "replace", "path": format!("/metadata/managedFields/{created}/operation"), "value": "Apply"},
    ]);
    let patch =
        Patch::Json::<()>(serde_json::from_value(operations).expect("these are JSON patch operations"));
    let params = PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    };
    api.patch_metadata(&found.name_any(), &params, &patch)
        .await
        .map(|_| ())
}

/// Deletes the Secret that was `found`, not another one that has its name by now. That it is gone is fine.
pub async fn delete_secret(client: &Client, found: &Secret) -> Result<(), Error> {
    let (namespace, name) = (found.namespace().unwrap_or_default(), found.name_any());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: found.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match Api::<Secret>::namespaced(client.clone(), &namespace)
        .delete(&name, &params)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        Err(error) => Err(Error::on("delete", "Secret", &namespace, &name)(error)),
    }
}
