//! Ownership tags on a custom resource's metadata: the finalizer, the annotation for the account and Region
//! of its AWS resources, and the annotations that record keys. Touches no other part of an object.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{PartialObjectMeta, Patch, PatchParams},
    core::{NamespaceResourceScope, ObjectMeta},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::runtime::{Error, MANAGER};

/// Finalizer that keeps the object until its resources outside of Kubernetes are gone.
pub const FINALIZER: &str = "mtls-operator.io/cleanup";

/// Annotation `<account>/<region>`, set before the first write to AWS and never changed: it prevents a second
/// set of resources elsewhere.
pub const PLACEMENT: &str = "mtls-operator.io/home";

/// Annotation that a user sets to the object's own name: once the object is deleted, the operator releases
/// everything in AWS without a call. For an account to which all access is lost.
pub const ABANDON: &str = "mtls-operator.io/abandon";

/// Element of a cached object's finalizers that stands for those of others, which are too long to keep.
const ELIDED: &str = "mtls-operator.io/elided";
/// Bytes of the finalizers of one object that a cache keeps.
const MAX_CACHED: usize = 1024;

/// Number of attempts when another writer changes the object in between.
const ATTEMPTS: usize = 4;

/// Returns the account and Region of the AWS resources of `object`, once it has any.
pub fn placement<K: Resource>(object: &K) -> Option<&str> {
    object
        .meta()
        .annotations
        .as_ref()?
        .get(PLACEMENT)
        .map(String::as_str)
}

/// True when a user has released the AWS resources of `object`. The value must be the name, so that an
/// annotation in a copied manifest has no effect.
pub fn is_abandoned<K: Resource>(object: &K) -> bool {
    let meta = object.meta();
    meta.annotations
        .as_ref()
        .and_then(|a| a.get(ABANDON))
        .is_some_and(|name| Some(name) == meta.name.as_ref())
}

pub fn is_held<K: Resource>(object: &K) -> bool {
    object.meta().finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// Returns the finalizers that a cache keeps of an object's: all up to 1 KiB; of longer ones the operator's,
/// and a mark by which the writes of this module know that they have to read the others first.
pub fn cached(all: Vec<String>) -> Vec<String> {
    if all.iter().map(String::len).sum::<usize>() <= MAX_CACHED {
        return all;
    }
    let ours = all.into_iter().find(|f| f == FINALIZER);
    ours.into_iter().chain([ELIDED.to_owned()]).collect()
}

/// Adds the finalizer, and `placement` where the object has none yet (an existing one stays: see
/// [`placement`]), in one write. True when something was written. The API server rejects the write for an
/// object that is being deleted.
pub async fn hold<K>(client: &Client, object: &K, placement: Option<&str>) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    change(client, object, |meta| {
        let mut patch = json!({});
        let finalizers = meta.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            patch["finalizers"] = finalizers.into_iter().chain([FINALIZER.into()]).collect();
        }
        if let Some(placement) = placement
            && !meta
                .annotations
                .as_ref()
                .is_some_and(|a| a.contains_key(PLACEMENT))
        {
            patch["annotations"] = json!({PLACEMENT: placement});
        }
        patch
    })
    .await
}

/// Sets an annotation if its value is still the value in `object`. True when it was written; false when it
/// has another value, or the object is gone.
pub async fn annotate<K>(
    client: &Client,
    object: &K,
    annotation: &str,
    before: Option<&str>,
    value: &str,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    change(client, object, |meta| {
        let there = meta
            .annotations
            .as_ref()
            .and_then(|all| all.get(annotation))
            .map(String::as_str);
        if there == before {
            json!({"annotations": {annotation: value}})
        } else {
            json!({})
        }
    })
    .await
}

/// Returns the current metadata of an object from the API server; `None` when the object is gone, even if
/// another object has its name.
pub async fn metadata<K>(client: &Client, object: &K) -> Result<Option<PartialObjectMeta<K>>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let found = Api::<K>::namespaced(client.clone(), &namespace)
        .get_metadata_opt(&name)
        .await;
    let found = found.map_err(Error::on(
        "read the metadata of",
        &K::kind(&()),
        &namespace,
        &name,
    ))?;
    Ok(found.filter(|now| now.metadata.uid == object.meta().uid))
}

/// Removes the finalizer: a deleted object is gone after that. True when something was written. An object
/// that is already gone is no error.
pub async fn release<K>(client: &Client, object: &K) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    change(client, object, |meta| match &meta.finalizers {
        Some(f) if f.iter().any(|f| f == FINALIZER) => {
            json!({"finalizers": f.iter().filter(|f| *f != FINALIZER).collect::<Vec<_>>()})
        }
        _ => json!({}),
    })
    .await
}

/// Merges the result of `wanted` into the metadata, on condition that no other writer changed the object
/// since it was read (a merge patch replaces the list of finalizers as a whole). The object comes from a
/// cache, which may miss a recent write of this process: in that case the function reads the metadata again.
async fn change<K>(client: &Client, object: &K, wanted: impl Fn(&ObjectMeta) -> Value) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let error = |verb| Error::on(verb, &K::kind(&()), &namespace, &name);
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let params = PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    };
    let mut meta = object.meta().clone();
    if meta.finalizers.iter().flatten().any(|f| f == ELIDED) {
        match metadata(client, object).await? {
            Some(now) => meta = now.metadata,
            None => return Ok(false),
        }
    }
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
        match metadata(client, object).await? {
            Some(now) => meta = now.metadata,
            None => return Ok(false),
        }
    }
    unreachable!("the last attempt returns")
}

#[cfg(test)]
mod tests;
