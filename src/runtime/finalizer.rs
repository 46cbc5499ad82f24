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
mod tests {
    use super::*;

    use std::sync::{Arc, Mutex};

    use http::Method;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Client;

    use serde_json::{Value, json};

    use crate::runtime::fake;

    /// API server with one object's metadata; `None` when there is none.
    #[derive(Clone)]
    struct Server {
        meta: Arc<Mutex<Option<Value>>>,
        /// Number of writes by others that still come right before the write under test.
        busy: Arc<Mutex<usize>>,
        writes: Arc<Mutex<usize>>,
    }

    impl Server {
        fn with(meta: Option<Value>) -> (Self, Client) {
            let me = Self {
                meta: Arc::new(Mutex::new(meta)),
                busy: Arc::default(),
                writes: Arc::default(),
            };
            let server = me.clone();
            (
                me,
                fake::client(move |method, _path, body| server.answer(method, &body)),
            )
        }

        fn answer(&self, method: &Method, body: &Value) -> (u16, Value) {
            let mut stored = self.meta.lock().unwrap();
            let Some(meta) = stored.as_mut() else {
                return fake::refusal(404, "NotFound");
            };
            if method == Method::PATCH {
                let mut busy = self.busy.lock().unwrap();
                if *busy > 0 {
                    *busy -= 1;
                    advance(meta);
                }
                let patch = &body["metadata"];
                if ["resourceVersion", "uid"].iter().any(|k| patch[k] != meta[k]) {
                    return fake::refusal(409, "Conflict");
                }
                *self.writes.lock().unwrap() += 1;
                if let Some(finalizers) = patch.get("finalizers") {
                    meta["finalizers"] = finalizers.clone();
                }
                for (key, value) in patch["annotations"].as_object().into_iter().flatten() {
                    meta["annotations"][key] = value.clone();
                }
                advance(meta);
            }
            (200, json!({"metadata": meta}))
        }

        fn object(&self) -> ConfigMap {
            serde_json::from_value(json!({"metadata": *self.meta.lock().unwrap()})).unwrap()
        }
    }

    fn advance(meta: &mut Value) {
        let version: u64 = meta["resourceVersion"].as_str().unwrap().parse().unwrap();
        meta["resourceVersion"] = json!((version + 1).to_string());
    }

    fn meta() -> Value {
        json!({
            "name": "x", "namespace": "n", "uid": "u", "resourceVersion": "1",
            "finalizers": ["other/one"], "annotations": {"a": "b"},
        })
    }

    #[tokio::test]
    async fn holds_and_releases_once_and_leaves_the_metadata_of_others() {
        let (server, client) = Server::with(Some(meta()));
        let old = server.object();
        assert!(hold(&client, &old, Some("123456789012/eu-west-1")).await.unwrap());
        let held = server.object();
        assert_eq!(
            held.metadata.finalizers,
            Some(vec!["other/one".into(), FINALIZER.into()])
        );
        assert_eq!((is_held(&old), is_held(&held)), (false, true));
        assert_eq!(
            (placement(&old), placement(&held)),
            (None, Some("123456789012/eu-west-1"))
        );
        assert_eq!(held.metadata.annotations.as_ref().unwrap()["a"], "b");

        assert!(
            !hold(&client, &held, Some("another/home")).await.unwrap(),
            "a home stays"
        );
        // A cache that has not seen the first write: the second call reads again and writes nothing.
        assert!(!hold(&client, &old, Some("another/home")).await.unwrap());
        assert_eq!(placement(&server.object()), Some("123456789012/eu-west-1"));

        assert!(release(&client, &held).await.unwrap());
        assert!(!release(&client, &held).await.unwrap());
        assert_eq!(
            server.object().metadata.finalizers,
            Some(vec!["other/one".into()])
        );
        assert_eq!(*server.writes.lock().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_write_by_another_writer_is_read_and_kept_and_attempts_are_limited() {
        let (server, client) = Server::with(Some(meta()));
        let old = server.object();
        *server.busy.lock().unwrap() = ATTEMPTS - 1;
        assert!(hold(&client, &old, None).await.unwrap());
        *server.busy.lock().unwrap() = ATTEMPTS;
        assert!(
            release(&client, &old).await.is_ok_and(|written| !written),
            "not in what it was given"
        );
        let held = server.object();
        assert!(release(&client, &held).await.unwrap_err().is_conflict());
    }

    #[tokio::test]
    async fn finalizers_that_the_cache_elides_stay() {
        let others: Vec<_> = (0..200).map(|i| format!("other/{i}")).collect();
        let mut long = meta();
        long["finalizers"] = json!(others);
        let (server, client) = Server::with(Some(long));
        let with_ours: Vec<_> = others.iter().cloned().chain([FINALIZER.into()]).collect();
        let in_cache = || {
            let mut object = server.object();
            object.metadata.finalizers = object.metadata.finalizers.map(cached);
            object
        };
        assert!(hold(&client, &in_cache(), None).await.unwrap());
        assert_eq!(server.object().metadata.finalizers, Some(with_ours));
        assert!(is_held(&in_cache()));
        assert!(!hold(&client, &in_cache(), None).await.unwrap());
        assert!(release(&client, &in_cache()).await.unwrap());
        assert_eq!(server.object().metadata.finalizers, Some(others));
    }

    #[tokio::test]
    async fn a_missing_object_is_fine_and_another_object_of_that_name_is_left_alone() {
        let mut held = meta();
        held["finalizers"] = json!([FINALIZER]);
        let (server, client) = Server::with(Some(held.clone()));
        let object = server.object();
        held["uid"] = json!("another");
        *server.meta.lock().unwrap() = Some(held);
        assert!(!release(&client, &object).await.unwrap());
        assert!(is_held(&server.object()));
        *server.meta.lock().unwrap() = None;
        assert!(!release(&client, &object).await.unwrap());
    }

    #[test]
    fn an_object_is_abandoned_by_its_own_name_only() {
        let with = |annotations: Value| {
            let mut meta = meta();
            meta["annotations"] = annotations;
            is_abandoned(&serde_json::from_value::<ConfigMap>(json!({"metadata": meta})).unwrap())
        };
        assert!(with(json!({ABANDON: "x"})));
        for other in [
            json!({}),
            json!({ABANDON: "y"}),
            json!({ABANDON: ""}),
            json!({ABANDON: "true"}),
            json!({PLACEMENT: "x"}),
        ] {
            assert!(!with(other.clone()), "{other}");
        }
    }

    #[tokio::test]
    async fn an_annotation_is_set_only_while_it_is_unchanged() {
        let (server, client) = Server::with(Some(meta()));
        let object = server.object();
        assert!(
            !annotate(&client, &object, "a", None, "c").await.unwrap(),
            "it is there"
        );
        assert!(
            !annotate(&client, &object, "a", Some("z"), "c").await.unwrap(),
            "it is another"
        );
        assert_eq!(*server.writes.lock().unwrap(), 0);
        assert!(annotate(&client, &object, "a", Some("b"), "c").await.unwrap());
        assert!(
            !annotate(&client, &object, "a", Some("b"), "d").await.unwrap(),
            "the cache is old: read again"
        );
        assert!(annotate(&client, &object, "new", None, "v").await.unwrap());
        assert_eq!(server.object().metadata.annotations.unwrap()["a"], "c");
    }
}
