//! Watches one kind, in all namespaces or in a list of them: a store that is complete from its first moment,
//! and every later change for each subscriber. Reads only.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt::Debug,
    hash::{BuildHasher, Hash},
    sync::{Arc, Mutex},
};

use futures::{
    FutureExt, Stream, StreamExt, channel::mpsc::unbounded, future::BoxFuture, stream::select_all,
};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use self::synced::Progress;
pub use self::synced::{Listed, Synced};

use super::merge::Merge;

use crate::telemetry::logging::chain;

/// Number of objects in one answer to a list: the dropped parts of them stay in memory until the next answer.
const PAGE: u32 = 100;
/// Object of one of the operator's kinds in a watch cache: an error in place of the object when the operator
/// cannot read it.
pub type Cached<K> = DeserializeGuard<K>;

/// Kind that can be watched. The operator's kinds are `DeserializeGuard`, so that one invalid object stops no
/// other; Secrets, ConfigMaps and Namespaces are `PartialObjectMeta`, so that no watch brings a key into
/// memory.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// Hears of an object; false once it wants to hear no more.
type Subscriber<K> = Box<dyn Fn(&Arc<K>) -> bool + Send>;

/// Watch of one kind, shared by all its readers. Cheap to clone.
///
/// Instead of kube's `store_shared`, for three reasons (kube-runtime 5.0): its subscribers never hear of a
/// deletion (`Writer::dispatch_event` passes on `Apply` and `InitDone` only); a subscriber that is told of an
/// object which has left the store since returns `Pending` without a waker, so that its `Controller` may
/// never be polled again (`ReflectHandle::poll_next`); and a re-list says nothing about objects that vanished
/// meanwhile.
pub struct Watch<K: Watched> {
    store: Store<K>,
    subscribers: Arc<Mutex<Vec<Subscriber<K>>>>,
    synced: Synced,
}

impl<K: Watched> Clone for Watch<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            subscribers: self.subscribers.clone(),
            synced: self.synced.clone(),
        }
    }
}

impl<K: Watched> Watch<K> {
    /// Returns the watch, and the future that drives it, which never ends: spawn it. No namespaces means all.
    /// `trim` removes the parts of an object that no reader needs in memory. Failures are logged and retried,
    /// a list about every second, each namespace by itself.
    pub fn new(client: &Client, namespaces: &[String], trim: fn(&mut K)) -> (Self, BoxFuture<'static, ()>)
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        let mut namespaces = namespaces.to_vec();
        namespaces.sort();
        namespaces.dedup();
        let namespaces = if namespaces.is_empty() {
            vec![None]
        } else {
            namespaces.into_iter().map(Some).collect()
        };
        let events = select_all(namespaces.iter().enumerate().map(|(source, namespace)| {
            let api = match namespace {
                Some(namespace) => Api::<K>::namespaced(client.clone(), namespace),
                None => Api::all(client.clone()),
            };
            listing(api).map(move |event| (source, event)).boxed()
        }));
        Self::over(namespaces, trim, events)
    }

    /// Like [`Watch::new`], for a cluster-scoped kind.
    pub fn of_cluster(client: &Client, trim: fn(&mut K)) -> (Self, BoxFuture<'static, ()>) {
        Self::over(
            vec![None],
            trim,
            listing(Api::all(client.clone())).map(|event| (0, event)),
        )
    }

    /// Creates a watch over any events; `namespaces[i]` is the namespace of source `i`.
    fn over(
        namespaces: Vec<Option<String>>,
        trim: fn(&mut K),
        events: impl Stream<Item = (usize, watcher::Result<Event<K>>)> + Send + 'static,
    ) -> (Self, BoxFuture<'static, ()>) {
        let (store, writer) = reflector::store();
        let (progress, synced) = watch::channel(Progress::default());
        let me = Self {
            store,
            subscribers: Arc::default(),
            synced: Synced::of(K::kind(&()).into(), synced),
        };
        let driver = me
            .clone()
            .drive(namespaces, trim, writer, progress, events)
            .boxed();
        (me, driver)
    }

    /// Returns the store of all objects, for reading. Empty until synced, which does not mean that no objects
    /// exist.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    pub fn synced(&self) -> Synced {
        self.synced.clone()
    }

    /// Streams first every object in the store, then every one that is added, changed or deleted, for
    /// `Controller::for_shared_stream`, `watches_shared_stream` and `owns_shared_stream`. Subscribe only when
    /// reading begins: unread events accumulate.
    pub fn subscribe(&self) -> impl Stream<Item = Arc<K>> + Send + 'static + use<K> {
        // Unbounded, because one slow reader must not hold up the store of all others; a Controller reads at
        // once, and deduplicates waiting events by object.
        let (sender, receiver) = unbounded();
        let mut subscribers = self
            .subscribers
            .lock()
            .expect("no thread panics while holding it");
        for object in self.store.state() {
            let _ = sender.unbounded_send(object);
        }
        subscribers.push(Box::new(move |object| {
            sender.unbounded_send(object.clone()).is_ok()
        }));
        receiver
    }

    /// Calls `note` for every object in the store, then for every one that is added, changed or deleted,
    /// before any subscriber hears of it. `note` runs where the watch does, and must return at once.
    pub fn observe(&self, note: impl Fn(&K) + Send + 'static) {
        let mut subscribers = self
            .subscribers
            .lock()
            .expect("no thread panics while holding it");
        self.store.state().iter().for_each(|object| note(object));
        let always = move |object: &Arc<K>| {
            note(object);
            true
        };
        subscribers.insert(0, Box::new(always));
    }

    /// Like [`Watch::subscribe`], but streams an object only when `key` differs from its last value or the
    /// object is gone, for readers whose own writes would otherwise trigger them.
    pub fn subscribe_when<T, F>(&self, key: F) -> impl Stream<Item = Arc<K>> + Send + 'static + use<K, T, F>
    where
        F: Fn(&K) -> T + Send + 'static,
        T: Hash,
    {
        // Hashes only: there are several subscribers, and for thousands of objects the keys would be a tenth
        // of the memory. A collision, once in 10^19 times, misses one event.
        let (store, hasher, mut last) = (self.store.clone(), RandomState::new(), HashMap::<u64, u64>::new());
        self.subscribe().filter(move |object| {
            let uid = &object.meta().uid;
            // A deletion always passes, and is the last event of the object.
            let gone = store
                .get(&ObjectRef::from_obj(&**object))
                .is_none_or(|there| there.meta().uid != *uid);
            let uid = hasher.hash_one(uid);
            let before = if gone {
                last.remove(&uid)
            } else {
                last.insert(uid, hasher.hash_one(key(object)))
            };
            let is_news = gone || before != last.get(&uid).copied();
            futures::future::ready(is_news)
        })
    }

    async fn drive(
        self,
        namespaces: Vec<Option<String>>,
        trim: fn(&mut K),
        mut writer: Writer<K>,
        progress: watch::Sender<Progress>,
        events: impl Stream<Item = (usize, watcher::Result<Event<K>>)> + Send + 'static,
    ) {
        let mut merge = Merge::new(namespaces.len());
        let mut events = std::pin::pin!(events);
        while let Some((source, event)) = events.next().await {
            match event {
                Ok(event) => {
                    let stored = || match &namespaces[source] {
                        Some(namespace) => self
                            .store
                            .state_filter(|o| o.meta().namespace.as_ref() == Some(namespace)),
                        None => self.store.state(),
                    };
                    let began = matches!(event, Event::Init);
                    for event in merge.next(source, event.modify(trim), stored) {
                        writer.apply_watcher_event(&event);
                        self.tell(event);
                    }
                    progress.send_if_modified(|p| {
                        let solved = !began && p.problems.remove(&source).is_some();
                        solved | (std::mem::replace(&mut p.live, merge.live) != merge.live)
                    });
                }
                Err(error) => {
                    let problem = problem::<K>(&error, namespaces[source].as_deref());
                    // The same line again every second would bury everything else.
                    if progress.borrow().problems.get(&source) != Some(&problem) {
                        tracing::warn!(error = %chain(&error), "{problem}");
                    }
                    progress.send_modify(|p| {
                        p.problems.insert(source, problem);
                    });
                }
            }
        }
    }

    fn tell(&self, event: Event<K>) {
        let touched = match event {
            Event::Apply(object) => self
                .store
                .get(&ObjectRef::from_obj(&object))
                .into_iter()
                .collect(),
            Event::Delete(object) => vec![Arc::new(object)],
            Event::InitDone => self.store.state(),
            Event::Init | Event::InitApply(_) => return,
        };
        self.subscribers
            .lock()
            .expect("no thread panics while holding it")
            .retain(|hears| touched.iter().all(hears));
    }
}

fn listing<K: Watched>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff()
}

/// Returns why a list fails, for users.
fn problem<K: Watched>(error: &watcher::Error, namespace: Option<&str>) -> String {
    let kind = K::kind(&());
    let answer = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(s))
        | watcher::Error::WatchStartFailed(kube::Error::Api(s)) => Some(s),
        _ => None,
    };
    match answer {
        // By code: for an unknown kind the API server answers in plain text, without a reason.
        Some(s) if s.code == 404 => {
            format!("the API server does not know {kind}: its CustomResourceDefinition is not installed")
        }
        Some(s) if s.is_forbidden() => match namespace {
            Some(namespace) => {
                format!("not permitted to list and watch {kind} in namespace {namespace}")
            }
            None => format!("not permitted to list and watch {kind} in all namespaces"),
        },
        _ => format!("cannot list or watch {kind}"),
    }
}

mod synced;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
