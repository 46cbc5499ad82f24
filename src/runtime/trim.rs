//! Parts of a watched object that stay in memory: functions for [`Watch::new`](super::watch::Watch::new).
//! Pure.
//!
//! Any user who may write an object can give it megabytes of metadata. So a cache keeps only parts that the
//! operator reads.

use std::collections::BTreeMap;

use kube::{Resource, api::ObjectMeta};

use super::finalizer;

/// Bytes of labels of one object that a cache keeps; of an object with more it keeps none.
const MAX_LABELS: usize = 16 * 1024;
/// Bytes of the value of one annotation that a cache keeps; it keeps no annotation with a longer value.
const MAX_VALUE: usize = 1024;

/// Keeps only the identity, the version and the value of `label`.
pub fn identity_and<K: Resource>(label: &str, object: &mut K) {
    let meta = object.meta_mut();
    let label = meta
        .labels
        .take()
        .and_then(|mut labels| labels.remove_entry(label));
    *meta = ObjectMeta {
        labels: label.map(|label| [label].into()),
        ..identity(meta)
    };
}

/// Keeps only the identity, the version and the labels, and no label of an object that has more than 16 KiB
/// of them: no selector selects such an object.
pub fn identity_and_labels<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    let length =
        |labels: &BTreeMap<String, String>| labels.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    *meta = ObjectMeta {
        labels: meta.labels.take().filter(|labels| length(labels) <= MAX_LABELS),
        ..identity(meta)
    };
}

/// Keeps of the metadata of one of the operator's kinds the identity, the version, the times, the finalizers
/// and the annotations that `is_read` names, if their values have at most 1 KiB.
pub fn own_kind<K: Resource>(object: &mut K, is_read: impl Fn(&str) -> bool) {
    let meta = object.meta_mut();
    let mut annotations = meta.annotations.take();
    if let Some(all) = &mut annotations {
        all.retain(|name, value| is_read(name) && value.len() <= MAX_VALUE);
    }
    *meta = ObjectMeta {
        generation: meta.generation,
        creation_timestamp: meta.creation_timestamp.take(),
        deletion_timestamp: meta.deletion_timestamp.take(),
        finalizers: meta.finalizers.take().map(finalizer::cached),
        annotations: annotations.filter(|all| !all.is_empty()),
        ..identity(meta)
    };
}

fn identity(meta: &mut ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: meta.name.take(),
        namespace: meta.namespace.take(),
        uid: meta.uid.take(),
        resource_version: meta.resource_version.take(),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use crate::runtime::finalizer::FINALIZER;

    fn object(meta: &Value) -> ConfigMap {
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    /// Metadata with everything that others may write.
    fn full() -> ConfigMap {
        object(&json!({
            "name": "x", "namespace": "a", "uid": "u", "resourceVersion": "7", "generation": 3,
            "generateName": "x-", "creationTimestamp": "2026-11-24T12:00:00Z",
            "deletionTimestamp": "2026-11-25T12:00:00Z",
            "labels": {"kept": "yes", "other": "no"},
            "annotations": {"read": "v", "other": "v", "long": "v".repeat(MAX_VALUE + 1)},
            "finalizers": ["other/one", FINALIZER],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
            "managedFields": [{"manager": "kubectl"}],
        }))
    }

    #[test]
    fn each_kind_keeps_only_what_has_a_reader() {
        let trimmed = |trim: fn(&mut ConfigMap)| {
            let mut object = full();
            trim(&mut object);
            object.metadata
        };
        let identity = json!({"name": "x", "namespace": "a", "uid": "u", "resourceVersion": "7"});
        let with = |more: Value| {
            let mut all = identity.clone();
            all.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            object(&all).metadata
        };
        assert_eq!(
            trimmed(|o| identity_and("kept", o)),
            with(json!({"labels": {"kept": "yes"}}))
        );
        assert_eq!(trimmed(|o| identity_and("absent", o)), with(json!({})));
        assert_eq!(
            trimmed(identity_and_labels),
            with(json!({"labels": {"kept": "yes", "other": "no"}}))
        );
        assert_eq!(
            trimmed(|o| own_kind(o, |name| name == "read" || name == "long")),
            with(json!({
                "generation": 3, "creationTimestamp": "2026-11-24T12:00:00Z",
                "deletionTimestamp": "2026-11-25T12:00:00Z", "annotations": {"read": "v"},
                "finalizers": ["other/one", FINALIZER],
            }))
        );
    }

    #[test]
    fn labels_are_kept_up_to_a_limit() {
        for (bytes, kept) in [(MAX_LABELS, true), (MAX_LABELS + 1, false)] {
            let mut map = full();
            map.metadata.labels = Some([("k".into(), "v".repeat(bytes - 1))].into());
            identity_and_labels(&mut map);
            assert_eq!(map.metadata.labels.is_some(), kept, "{bytes}");
        }
    }

    #[test]
    fn finalizers_of_others_are_kept_up_to_a_limit() {
        let others = (0..1000)
            .map(|i| format!("other/{i}"))
            .chain([FINALIZER.to_owned()]);
        let mut map = full();
        map.metadata.finalizers = Some(others.collect());
        own_kind(&mut map, |_| true);
        assert!(finalizer::is_held(&map));
        assert_eq!(map.metadata.finalizers.map(|all| all.len()), Some(2));
    }
}
