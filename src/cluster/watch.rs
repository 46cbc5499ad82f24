//! Watching one kind, in all namespaces or in a list of them: a store that is whole from its first moment, and every
//! change after that to whoever subscribed. Reads only.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex},
};

use futures::{
    FutureExt, Stream, StreamExt,
    channel::mpsc::{UnboundedSender, unbounded},
    future::BoxFuture,
    stream::select_all,
};
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// `kubectl apply` keeps the whole object here, a Secret's data with it. We asked for metadata to not have those.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What can be watched. Own kinds as `DeserializeGuard`, so that one bad object stops nobody; Secrets and ConfigMaps as
/// `PartialObjectMeta`, so that no key comes into memory by a watch.
pub trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// One kind, watched once for everybody who needs it. Cheap to clone.
///
/// Instead of kube's `store_shared`, for three reasons (kube-runtime 5.0): its subscribers never hear of a deletion
/// (`Writer::dispatch_event` passes on `Apply` and `InitDone` only); a subscriber that is told of an object which has left
/// the store since returns `Pending` without a waker, so that its `Controller` may never be polled again
/// (`ReflectHandle::poll_next`); and a re-list says nothing about objects that vanished meanwhile.
pub struct Watch<K: Watched> {
    store: Store<K>,
    subscribers: Arc<Mutex<Vec<UnboundedSender<Arc<K>>>>>,
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
    /// The watch, and the future that drives it, which ends never: spawn it. No namespaces means all. Errors are logged and
    /// tried again with a growing delay, each namespace for itself.
    pub fn new(
        client: &Client,
        namespaces: &[String],
        config: watcher::Config,
    ) -> (Self, BoxFuture<'static, ()>) {
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
            watcher(api, config.clone())
                .default_backoff()
                .map(move |event| (source, event))
                .boxed()
        }));
        Self::over(namespaces, events)
    }

    /// Over any events; `namespaces[i]` is where those of source `i` come from.
    fn over(
        namespaces: Vec<Option<String>>,
        events: impl Stream<Item = (usize, watcher::Result<Event<K>>)> + Send + 'static,
    ) -> (Self, BoxFuture<'static, ()>) {
        let (store, writer) = reflector::store();
        let (progress, synced) = watch::channel(Progress::default());
        let me = Self {
            store,
            subscribers: Arc::default(),
            synced: Synced {
                kind: K::kind(&()).into(),
                progress: synced,
            },
        };
        let driver = me
            .clone()
            .drive(namespaces, writer, progress, events)
            .boxed();
        (me, driver)
    }

    /// Everything there is, for reading. Empty until synced, which is not the same as "nothing there".
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    pub fn synced(&self) -> Synced {
        self.synced.clone()
    }

    /// First every object in the store, then every one that is added, changed or deleted, for
    /// `Controller::for_shared_stream`, `watches_shared_stream` and `owns_shared_stream`. Begin when the reading begins: what
    /// nobody reads piles up.
    pub fn subscribe(&self) -> impl Stream<Item = Arc<K>> + Send + 'static + use<K> {
        // Unbounded, because one slow reader must not hold up the store of all others; a Controller reads at once, and
        // folds what waits by object.
        let (sender, receiver) = unbounded();
        let mut subscribers = self
            .subscribers
            .lock()
            .expect("nobody panics while holding it");
        for object in self.store.state() {
            let _ = sender.unbounded_send(object);
        }
        subscribers.push(sender);
        receiver
    }

    /// As [`Watch::subscribe`], but of an object only when `key` says something else of it than at the last time, for those
    /// whose own writes would else wake them up.
    pub fn subscribe_when<T, F>(&self, key: F) -> impl Stream<Item = Arc<K>> + Send + 'static + use<K, T, F>
    where
        F: Fn(&K) -> T + Send + 'static,
        T: PartialEq + Send + 'static,
    {
        let mut last = HashMap::new();
        self.subscribe().filter(move |object| {
            let now = key(object);
            let is_news = last.get(&object.meta().uid) != Some(&now);
            last.insert(object.meta().uid.clone(), now);
            futures::future::ready(is_news)
        })
    }

    async fn drive(
        self,
        namespaces: Vec<Option<String>>,
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
                    let listed = matches!(event, Event::InitDone);
                    for event in merge.next(source, event.modify(trim), stored) {
                        writer.apply_watcher_event(&event);
                        self.tell(event);
                    }
                    if listed {
                        progress.send_modify(|p| {
                            p.live = merge.live;
                            p.problems.remove(&source);
                        });
                    }
                }
                Err(error) => {
                    let namespace = namespaces[source].as_deref();
                    tracing::warn!(kind = %K::kind(&()), namespace, error = &error as &dyn std::error::Error, "watch");
                    progress.send_modify(|p| {
                        p.problems.insert(source, problem::<K>(&error, namespace));
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
            .expect("nobody panics while holding it")
            .retain(|s| {
                touched
                    .iter()
                    .all(|object| s.unbounded_send(object.clone()).is_ok())
            });
    }
}

fn trim<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// Why nothing can be listed, for people.
fn problem<K: Watched>(error: &watcher::Error, namespace: Option<&str>) -> String {
    let kind = K::kind(&());
    let answer = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(s))
        | watcher::Error::WatchStartFailed(kube::Error::Api(s)) => Some(s),
        _ => None,
    };
    match answer {
        Some(s) if s.is_not_found() => {
            format!(
                "the API server does not know {kind}: its CustomResourceDefinition is not installed"
            )
        }
        Some(s) if s.is_forbidden() => match namespace {
            Some(namespace) => {
                format!("not permitted to list and watch {kind} in namespace {namespace}")
            }
            None => format!("not permitted to list and watch {kind} in all namespaces"),
        },
        _ => format!("cannot list {kind}: {error}"),
    }
}

#[derive(Debug, Default)]
struct Progress {
    live: bool,
    /// By source; what kept it from being listed at the last attempt.
    problems: BTreeMap<usize, String>,
}

/// Whether one watch has listed all there is.
#[derive(Clone, Debug)]
pub struct Synced {
    kind: String,
    progress: watch::Receiver<Progress>,
}

impl Synced {
    /// True from the moment that the store holds everything; stays true, since a store never becomes less than the last
    /// good list.
    pub fn is_synced(&self) -> bool {
        self.progress.borrow().live
    }

    /// Waits for it.
    pub async fn wait(&self) {
        if self.progress.clone().wait_for(|p| p.live).await.is_err() {
            // The driver is gone: never.
            std::future::pending().await
        }
    }

    /// Why it is not synced, `None` once it is.
    pub fn problem(&self) -> Option<String> {
        let progress = self.progress.borrow();
        (!progress.live).then(|| {
            progress
                .problems
                .values()
                .next()
                .cloned()
                .unwrap_or_else(|| format!("{} is not listed yet", self.kind))
        })
    }
}

/// Whether all of them are.
pub fn synced(watches: &[Synced]) -> bool {
    watches.iter().all(Synced::is_synced)
}

/// Several sources of one kind made into one, pure: until each has been listed nothing comes out; then one whole list;
/// then only changes. A list that is made anew (the watch fell too far behind) comes out as the changes it amounts to, so it
/// never touches the objects of the other sources.
struct Merge<K> {
    sources: Vec<Source<K>>,
    live: bool,
}

struct Source<K> {
    /// The list that is being made; before `live` also what was listed.
    buffer: HashMap<Key, K>,
    listed: bool,
}

/// Namespace and name.
type Key = (Option<String>, Option<String>);

fn key<K: Resource>(object: &K) -> Key {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

impl<K: Resource + Clone> Merge<K> {
    fn new(sources: usize) -> Self {
        let source = || Source {
            buffer: HashMap::new(),
            listed: false,
        };
        Self {
            sources: std::iter::repeat_with(source).take(sources).collect(),
            live: false,
        }
    }

    /// What `event` of source `i` means for the store. `stored` answers what the store holds of that source.
    fn next(
        &mut self,
        i: usize,
        event: Event<K>,
        stored: impl FnOnce() -> Vec<Arc<K>>,
    ) -> Vec<Event<K>> {
        let source = &mut self.sources[i];
        match event {
            // Also after a list that failed half-way.
            Event::Init => {
                source.buffer.clear();
                source.listed = false;
                vec![]
            }
            Event::InitApply(object) => {
                source.buffer.insert(key(&object), object);
                vec![]
            }
            Event::InitDone => {
                source.listed = true;
                if self.live {
                    changes(stored(), std::mem::take(&mut source.buffer))
                } else if self.sources.iter().all(|s| s.listed) {
                    self.live = true;
                    let listed = self
                        .sources
                        .iter_mut()
                        .flat_map(|s| std::mem::take(&mut s.buffer).into_values());
                    [Event::Init]
                        .into_iter()
                        .chain(listed.map(Event::InitApply))
                        .chain([Event::InitDone])
                        .collect()
                } else {
                    vec![]
                }
            }
            change if self.live => vec![change],
            Event::Apply(object) => {
                source.buffer.insert(key(&object), object);
                vec![]
            }
            Event::Delete(object) => {
                source.buffer.remove(&key(&object));
                vec![]
            }
        }
    }
}

fn changes<K: Resource + Clone>(old: Vec<Arc<K>>, mut new: HashMap<Key, K>) -> Vec<Event<K>> {
    let mut events = Vec::new();
    for object in old {
        match new.get(&key(&*object)) {
            None => events.push(Event::Delete(Arc::unwrap_or_clone(object))),
            // Nobody needs to be woken for it.
            Some(same) if same.meta().resource_version == object.meta().resource_version => {
                new.remove(&key(&*object));
            }
            Some(_) => (),
        }
    }
    events.extend(new.into_values().map(Event::Apply));
    events
}
