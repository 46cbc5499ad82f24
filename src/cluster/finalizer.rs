//! Our two marks on a custom resource's metadata: the finalizer, and the annotation that says where its AWS resources
//! are. Touches nothing else of an object.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::{NamespaceResourceScope, ObjectMeta},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Error, MANAGER};

/// Keeps the object until what it made outside of Kubernetes is gone.
pub const FINALIZER: &str = "mtls-operator.io/cleanup";

/// `<account>/<region>`, set before the first write to AWS and never changed: a second set of resources elsewhere cannot
/// come to be.
pub const HOME: &str = "mtls-operator.io/home";

/// How often to look again after somebody else wrote in between.
const ATTEMPTS: usize = 4;

/// The account and Region where the AWS resources of `object` are, once it has any.
pub fn home<K: Resource>(object: &K) -> Option<&str> {
    object
        .meta()
        .annotations
        .as_ref()?
        .get(HOME)
        .map(String::as_str)
}

pub fn is_held<K: Resource>(object: &K) -> bool {
    object
        .meta()
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == FINALIZER)
}

/// Adds the finalizer, and `home` where the object has none yet (one that is there stays: see [`home`]), in one write.
/// True when something was written. An object that is being deleted is refused by the API server.
pub async fn hold<K>(client: &Client, object: &K, home: Option<&str>) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    change(client, object, |meta| {
        let mut patch = json!({});
        let finalizers = meta.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            patch["finalizers"] = finalizers.into_iter().chain([FINALIZER.into()]).collect();
        }
        if let Some(home) = home
            && !meta
                .annotations
                .as_ref()
                .is_some_and(|a| a.contains_key(HOME))
        {
            patch["annotations"] = json!({HOME: home});
        }
        patch
    })
    .await
}

/// Removes the finalizer: a deleted object is gone after that. True when something was written; that it is gone
/// already is fine.
pub async fn release<K>(client: &Client, object: &K) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    change(client, object, |meta| match &meta.finalizers {
        Some(f) if f.iter().any(|f| f == FINALIZER) => {
            json!({"finalizers": f.iter().filter(|f| *f != FINALIZER).collect::<Vec<_>>()})
        }
        _ => json!({}),
    })
    .await
}

/// Merges what `wanted` answers into the metadata, on condition that nobody wrote since they were read (a merge patch
/// replaces the list of finalizers as a whole). The object comes from a cache, and an own write of a moment ago may be
/// missing in it: read anew then.
async fn change<K>(
    client: &Client,
    object: &K,
    wanted: impl Fn(&ObjectMeta) -> Value,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let error = |verb| Error::on(verb, &K::kind(&()), &namespace, &name);
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let params = PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    };
    let mut meta = object.meta().clone();
    for attempt in 1.. {
        let mut patch = wanted(&meta);
        if patch == json!({}) {
            return Ok(false);
        }
        patch["resourceVersion"] = json!(meta.resource_version);
        patch["uid"] = json!(meta.uid);
        match api
            .patch_metadata(&name, &params, &Patch::Merge(json!({"metadata": patch})))
            .await
        {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(false),
            Err(kube::Error::Api(answer)) if answer.is_conflict() && attempt < ATTEMPTS => (),
            Err(source) => return Err(error("change the metadata of")(source)),
        }
        match api
            .get_metadata_opt(&name)
            .await
            .map_err(error("read the metadata of"))?
        {
            Some(now) if now.metadata.uid == object.meta().uid => meta = now.metadata,
            // Gone; perhaps another one has its name.
            _ => return Ok(false),
        }
    }
    unreachable!("the last attempt returns")
}
