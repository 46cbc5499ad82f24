//! Cache of one kind of read: of all callers that find a value too old, one reads again.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::seen::{Seen, unseen};

use crate::aws::errors::Error;

/// Cached reads, each with its start. The first caller that finds a read too old reads again, and all others
/// wait for that read.
pub(crate) struct SingleFlight<K, V>(pub(crate) Mutex<HashMap<K, Entry<V>>>);
type Entry<V> = Arc<tokio::sync::Mutex<Option<(Instant, Seen<V>)>>>;

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        SingleFlight(Mutex::default())
    }
}

/// Age at which an unused entry is evicted.
pub(crate) const EVICTED_AFTER: Duration = Duration::from_secs(24 * 3600);

impl<K: Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Returns the cached value if its read began at `oldest` or later, otherwise the result of `read`. A
    /// failure is shared only with the callers that wait for it.
    pub(crate) async fn get(
        &self,
        key: K,
        oldest: Instant,
        read: impl Future<Output = Result<V, Error>>,
    ) -> Seen<V> {
        let asked = Instant::now();
        let entry = self.entry(key);
        let mut cache = entry.lock().await;
        match &*cache {
            Some((begun, Ok(value))) if *begun >= oldest => return Ok(value.clone()),
            Some((begun, Err(why))) if *begun >= asked => return Err(why.clone()),
            _ => {}
        }
        let begun = Instant::now();
        // Boxed: a dozen of the SDK's futures side by side are larger than a thread's stack.
        let value = Box::pin(read).await.map_err(|error| unseen(&error));
        *cache = Some((begun, value.clone()));
        value
    }

    pub(crate) fn entry(&self, key: K) -> Entry<V> {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        if !all.contains_key(&key) {
            let is_young = |entry: &Entry<V>| match entry.try_lock() {
                Ok(cache) => cache
                    .as_ref()
                    .is_some_and(|(begun, _)| begun.elapsed() < EVICTED_AFTER),
                Err(_) => true,
            };
            all.retain(|_, entry| Arc::strong_count(entry) > 1 || is_young(entry));
        }
        all.entry(key).or_default().clone()
    }
}
