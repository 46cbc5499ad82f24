//! Metric of the watch caches' size, computed from the caches at each scrape.

use std::{
    fmt::{self, Debug, Formatter},
    io::{self, Write},
};

use kube::{
    Resource,
    api::PartialObjectMeta,
    core::DeserializeGuard,
    runtime::reflector::{Lookup, Store},
};
use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, metrics::MetricType, registry::Unit,
};
use serde::Serialize;

use super::queue_metrics::gauge;

/// Collector of the size of each watch cache.
#[derive(Default)]
pub struct Caches(Vec<Cache>);

struct Cache {
    kind: String,
    bytes: Box<dyn Fn() -> usize + Send + Sync>,
}

impl Debug for Caches {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

impl Caches {
    /// Adds a cache of whole objects. An object that cannot be deserialised counts with its metadata.
    #[must_use]
    pub fn with<K>(self, store: Store<DeserializeGuard<K>>) -> Self
    where
        K: Resource<DynamicType = ()> + Serialize + Clone + Send + Sync + 'static,
    {
        self.over(store, |object| match &object.0 {
            Ok(object) => bytes(object),
            Err(invalid) => bytes(&invalid.metadata) + invalid.error.len(),
        })
    }

    /// Adds a cache of metadata.
    #[must_use]
    pub fn with_metadata<K>(self, store: Store<PartialObjectMeta<K>>) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    {
        self.over(store, |object| bytes(&object.metadata))
    }

    fn over<K>(mut self, store: Store<K>, bytes: fn(&K) -> usize) -> Self
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
    {
        self.0.push(Cache {
            kind: <K as Resource>::kind(&()).into_owned(),
            bytes: Box::new(move || store.state().iter().map(|object| bytes(object)).sum()),
        });
        self
    }
}

impl Collector for Caches {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "Size of the objects in the watch cache of a kind, as JSON";
        let mut metric = encoder.encode_descriptor("cache", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        self.0.iter().try_for_each(|Cache { kind, bytes }| {
            let bytes = i64::try_from(bytes()).unwrap_or(i64::MAX);
            gauge(&mut metric, &[("kind", kind.as_str())], bytes)
        })
    }
}

/// Returns the length of the JSON of `object`.
fn bytes(object: &impl Serialize) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0 += piece.len();
            Ok(piece.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // An object that came as JSON has a JSON form, and a count never fails.
    let _ = serde_json::to_writer(&mut count, object);
    count.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use kube::runtime::{reflector, watcher::Event};
    use prometheus_client::{encoding::text::encode, registry::Registry};
    use serde_json::json;

    fn store<K>(objects: &[serde_json::Value]) -> Store<K>
    where
        K: Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + 'static,
    {
        let (store, mut writer) = reflector::store();
        for object in objects {
            writer.apply_watcher_event(&Event::Apply(serde_json::from_value(object.clone()).unwrap()));
        }
        store
    }

    /// Returns caches with one object.
    pub fn one() -> Caches {
        Caches::default().with_metadata::<Secret>(store(&[json!({"metadata": {"name": "x"}})]))
    }

    #[test]
    fn each_kind_shows_the_json_length_of_its_objects() {
        let small = json!({"metadata": {"name": "x"}});
        let large = json!({"metadata": {"name": "y", "labels": {"l": "v".repeat(1000)}}, "data": {"k": "v"}});
        let invalid = json!({"metadata": {"name": "z"}, "data": 7});
        let length = |value: &serde_json::Value| value.to_string().len();
        // k8s-openapi writes kind and apiVersion of whole objects.
        let types = length(&json!({"apiVersion": "v1", "kind": "ConfigMap"})) - 1;
        let maps: Store<DeserializeGuard<ConfigMap>> = store(&[small.clone(), large.clone()]);
        let broken: Store<DeserializeGuard<ConfigMap>> = store(std::slice::from_ref(&invalid));
        let state = broken.state();
        let error = state[0].0.as_ref().unwrap_err().error.len();
        for (caches, expected) in [
            (
                Caches::default().with(maps),
                length(&small) + length(&large) + 2 * types,
            ),
            (
                Caches::default().with_metadata::<ConfigMap>(store(&[small.clone(), large.clone()])),
                length(&small["metadata"]) + length(&large["metadata"]),
            ),
            (
                Caches::default().with(broken),
                length(&invalid["metadata"]) + error,
            ),
        ] {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(caches));
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let line = format!("cache_bytes{{kind=\"ConfigMap\"}} {expected}\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
