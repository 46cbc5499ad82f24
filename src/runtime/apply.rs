//! Reads and writes single Secrets and ConfigMaps. Debug output of a Secret shows its bytes: this module
//! prints none.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use crate::{
    api::is_object_name,
    runtime::{Error, MANAGER, trim},
};

/// Label on every Secret that the operator writes, with the value [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Number of objects in one answer to a list of metadata.
const PAGE: u32 = 20;

/// Returns the Secret, from the API server itself (the watches carry metadata only). A text that no object
/// can have as its name reads as an absent Secret: in the URL of a request it could be a path or a query.
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    if !is_object_name(name) {
        return Ok(None);
    }
    Api::<Secret>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::on("read", "Secret", namespace, name))
}

/// Returns the metadata of all Secrets with these labels. Their content stays on the API server: any user may
/// give a megabyte of it those labels.
pub async fn labelled_secrets(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Vec<PartialObjectMeta<Secret>>, Error> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let (mut all, mut params) = (Vec::new(), ListParams::default().labels(selector).limit(PAGE));
    loop {
        let page = api.list_metadata(&params).await;
        let page = page.map_err(Error::on("list", "Secrets", namespace, selector))?;
        all.extend(page.items.into_iter().map(|mut secret| {
            trim::identity_and("", &mut secret);
            secret
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// Returns the ConfigMap, from the API server itself. Treats `name` as [`secret`] does.
pub async fn config_map(client: &Client, namespace: &str, name: &str) -> Result<Option<ConfigMap>, Error> {
    if !is_object_name(name) {
        return Ok(None);
    }
    Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::on("read", "ConfigMap", namespace, name))
}

/// Writes the Secret `wanted`, which has its name and all content of the operator; `found` is the existing
/// Secret. Labels, annotations and keys of other writers stay; the operator's own that `wanted` no longer has
/// are removed. The caller decides whether the existing Secret may be overwritten at all.
///
/// Without an existing Secret the write is a plain create, the cheapest write; when a Secret exists after
/// all, the API server answers with a conflict: reconcile again. Otherwise the write is a server-side apply.
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

/// Succeeds when the API server would create this Secret, which it does not do. A webhook that no dry run may
/// call says nothing about the Secret.
pub async fn try_create_secret(client: &Client, wanted: &Secret) -> Result<(), Error> {
    let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
    let params = PostParams {
        dry_run: true,
        field_manager: Some(MANAGER.into()),
    };
    match Api::<Secret>::namespaced(client.clone(), &namespace)
        .create(&params, wanted)
        .await
        .map_err(Error::on("create", "Secret", &namespace, &name))
    {
        Err(error) if !error.is_conflict() && !error.is_of_dry_run() => Err(error),
        _ => Ok(()),
    }
}

/// Returns the keys below a part of the Secret (a JSON pointer: `/f:metadata/f:labels`, `/f:data`) that the
/// operator wrote, according to managedFields.
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

/// Renames the operator's entry in managedFields once, before the first apply, as client-go's `csaupgrade`
/// does: the API server records a create as an update, not as an apply, and a later apply would never remove
/// its fields.
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

/// Deletes the Secret `found`, not another Secret that has its name now. A Secret that is already gone is no
/// error.
pub async fn delete_secret(client: &Client, found: &impl ResourceExt) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    use crate::runtime::fake;

    /// A specification that an earlier release's schema accepted may still hold such texts.
    #[tokio::test]
    async fn only_names_of_objects_are_sent_to_the_api_server() {
        let bystander = json!({"metadata": {"name": "bystander", "namespace": "acme"}});
        let client = fake::client(move |_, _, _| (200, bystander.clone()));
        let long = "a".repeat(254);
        for (name, expected) in [
            ("bystander", true),
            ("a.b-c.example.com", true),
            ("0", true),
            (&long[..253], true),
            (&long, false),
            ("", false),
            (".", false),
            ("..", false),
            ("a..b", false),
            ("-a", false),
            ("a-", false),
            ("a.-b", false),
            ("A", false),
            ("a_b", false),
            ("bystander?x=y", false),
            ("bystander#x", false),
            ("?labelSelector=x", false),
            ("../../platform/secrets/partners.main-ca", false),
            ("..%2fsecrets%2fca", false),
            ("bystander\n", false),
            ("b\u{fc}rger", false),
        ] {
            let secret = secret(&client, "acme", name).await.unwrap();
            let config_map = config_map(&client, "acme", name).await.unwrap();
            assert_eq!(
                (secret.is_some(), config_map.is_some()),
                (expected, expected),
                "{name:?}"
            );
        }
    }
}
