//! Merges several watches of one kind into one. Pure.

use std::{collections::HashMap, iter, sync::Arc};

use kube::{Resource, runtime::watcher::Event};

/// Merge of several sources of one kind, pure. It emits nothing until each source has been listed; then one
/// whole list; then only changes. A repeated list (the watch fell too far behind) comes out as the changes
/// since the last one, so it never touches the objects of the other sources.
pub(crate) struct Merge<K> {
    sources: Vec<Source<K>>,
    /// True once every source has been listed.
    pub(crate) live: bool,
}

struct Source<K> {
    /// List in progress; before `live` also the finished list. Boxed, because a table of thousands of whole
    /// objects would be copied as it grows, and the allocator does not return such large pieces.
    buffer: HashMap<Key, Box<K>>,
    listed: bool,
}

/// Namespace and name.
type Key = (Option<String>, Option<String>);

fn key<K: Resource>(object: &K) -> Key {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

impl<K: Resource + Clone + 'static> Merge<K> {
    pub(crate) fn new(sources: usize) -> Self {
        let source = || Source {
            buffer: HashMap::new(),
            listed: false,
        };
        Self {
            sources: std::iter::repeat_with(source).take(sources).collect(),
            live: false,
        }
    }

    /// Returns the effect of `event` of source `i` on the store, one object after the other: the caller takes
    /// the next only after it has stored the last, so no object is in memory twice. `stored` returns the
    /// objects that the store has of that source.
    pub(crate) fn next(
        &mut self,
        i: usize,
        event: Event<K>,
        stored: impl FnOnce() -> Vec<Arc<K>>,
    ) -> Box<dyn Iterator<Item = Event<K>>> {
        let source = &mut self.sources[i];
        match event {
            // Also after a list that failed half-way.
            Event::Init => {
                source.buffer = HashMap::new();
                source.listed = false;
                Box::new(iter::empty())
            }
            Event::InitApply(object) => {
                source.buffer.insert(key(&object), object.into());
                Box::new(iter::empty())
            }
            Event::InitDone => {
                source.listed = true;
                if self.live {
                    Box::new(changes(stored(), std::mem::take(&mut source.buffer)).into_iter())
                } else if self.sources.iter().all(|s| s.listed) {
                    self.live = true;
                    let listed: Vec<_> = self
                        .sources
                        .iter_mut()
                        .map(|s| std::mem::take(&mut s.buffer))
                        .collect();
                    let listed = listed
                        .into_iter()
                        .flat_map(HashMap::into_values)
                        .map(|object| Event::InitApply(*object));
                    Box::new(
                        iter::once(Event::Init)
                            .chain(listed)
                            .chain(iter::once(Event::InitDone)),
                    )
                } else {
                    Box::new(iter::empty())
                }
            }
            change if self.live => Box::new(iter::once(change)),
            Event::Apply(object) => {
                source.buffer.insert(key(&object), object.into());
                Box::new(iter::empty())
            }
            Event::Delete(object) => {
                source.buffer.remove(&key(&object));
                Box::new(iter::empty())
            }
        }
    }
}

fn changes<K: Resource + Clone>(old: Vec<Arc<K>>, mut new: HashMap<Key, Box<K>>) -> Vec<Event<K>> {
    let mut events = Vec::new();
    for object in old {
        match new.get(&key(&*object)) {
            None => events.push(Event::Delete(Arc::unwrap_or_clone(object))),
            // No subscriber needs this object.
            Some(same) if same.meta().resource_version == object.meta().resource_version => {
                new.remove(&key(&*object));
            }
            Some(_) => (),
        }
    }
    events.extend(new.into_values().map(|object| Event::Apply(*object)));
    events
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{
        reflector::{self, Store, store::Writer},
        watcher::Event,
    };

    pub fn object(namespace: &str, name: &str, version: u32) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(version.to_string());
        map
    }

    /// Formats events as "Apply a/x@1"; objects are sorted within one answer where their order means nothing.
    pub fn show(events: &[Event<ConfigMap>]) -> Vec<String> {
        let of = |o: &ConfigMap| {
            let m = &o.metadata;
            let text = |o: &Option<String>| o.clone().unwrap();
            format!(
                "{}/{}@{}",
                text(&m.namespace),
                text(&m.name),
                text(&m.resource_version)
            )
        };
        events
            .iter()
            .map(|e| match e {
                Event::Apply(o) => format!("Apply {}", of(o)),
                Event::Delete(o) => format!("Delete {}", of(o)),
                Event::Init => "Init".into(),
                Event::InitApply(o) => format!("InitApply {}", of(o)),
                Event::InitDone => "InitDone".into(),
            })
            .collect()
    }

    /// Merge together with the store that it feeds.
    struct World {
        merge: Merge<ConfigMap>,
        store: Store<ConfigMap>,
        writer: Writer<ConfigMap>,
    }

    pub const NAMESPACES: [&str; 2] = ["a", "b"];

    impl World {
        fn new() -> Self {
            let (store, writer) = reflector::store();
            Self {
                merge: Merge::new(2),
                store,
                writer,
            }
        }

        fn next(&mut self, source: usize, event: Event<ConfigMap>) -> Vec<String> {
            let stored = || {
                self.store
                    .state_filter(|o| o.metadata.namespace.as_deref() == Some(NAMESPACES[source]))
            };
            let events: Vec<_> = self.merge.next(source, event, stored).collect();
            for event in &events {
                self.writer.apply_watcher_event(event);
            }
            show(&events)
        }

        fn names(&self) -> BTreeSet<String> {
            let state = self.store.state();
            state
                .iter()
                .map(|o| show(&[Event::Apply((**o).clone())])[0].replace("Apply ", ""))
                .collect()
        }
    }

    #[test]
    fn one_whole_list_after_all_are_listed_then_only_changes() {
        use Event::{Apply, Delete, Init, InitApply, InitDone};
        let nothing: &[&str] = &[];
        let mut world = World::new();
        let steps: Vec<(usize, Event<ConfigMap>, &[&str])> = vec![
            (0, Init, nothing),
            (0, InitApply(object("a", "half", 1)), nothing),
            // The list fails and begins again.
            (0, Init, nothing),
            (0, InitApply(object("a", "x", 1)), nothing),
            (0, InitApply(object("a", "y", 1)), nothing),
            (1, Init, nothing),
            (0, InitDone, nothing),
            // The watch of the first source runs while the second is still being listed.
            (0, Delete(object("a", "y", 2)), nothing),
            (0, Apply(object("a", "x", 3)), nothing),
            (1, InitApply(object("b", "x", 1)), nothing),
            (
                1,
                InitDone,
                &["Init", "InitApply a/x@3", "InitApply b/x@1", "InitDone"],
            ),
            (0, Apply(object("a", "z", 4)), &["Apply a/z@4"]),
            (1, Delete(object("b", "x", 5)), &["Delete b/x@5"]),
            (1, Apply(object("b", "y", 6)), &["Apply b/y@6"]),
            // The first source is listed again: x vanished, z is unchanged, w is new, b is not concerned.
            (0, Init, nothing),
            (0, InitApply(object("a", "half", 6)), nothing),
            (0, Init, nothing),
            (0, InitApply(object("a", "z", 4)), nothing),
            (1, Apply(object("b", "y", 7)), &["Apply b/y@7"]),
            (0, InitApply(object("a", "w", 7)), nothing),
            (0, InitDone, &["Delete a/x@3", "Apply a/w@7"]),
            (0, Apply(object("a", "w", 8)), &["Apply a/w@8"]),
        ];
        for (i, (source, event, expected)) in steps.into_iter().enumerate() {
            let mut found = world.next(source, event);
            if found.len() == 4 {
                found[1..3].sort();
            }
            assert_eq!(found, expected, "step {i}");
        }
        assert_eq!(
            world.names(),
            ["a/w@8", "a/z@4", "b/y@7"].map(String::from).into()
        );
    }

    proptest! {
        /// Checks the result of any sequence of events in two namespaces, with any number of interrupted and
        /// repeated lists: once both are listed, the store holds the existing objects, and the events that
        /// subscribers got add up to the same.
        #[test]
        fn the_store_ends_with_the_existing_objects(
            steps in proptest::collection::vec((0..2_usize, 0..4_usize, 0..6_u8), 0..60)
        ) {
            let mut world = World::new();
            let mut there: [BTreeSet<(usize, u32)>; 2] = Default::default();
            let mut version = 0;
            let mut heard: BTreeSet<String> = BTreeSet::new();
            let mut watching = [false; 2];
            let mut hear = |events: Vec<String>| for event in events {
                let (what, object) = event.split_once(' ').unwrap_or((&event, ""));
                let name = object.split('@').next().unwrap();
                match what {
                    "Delete" => { heard.retain(|h| h.split('@').next() != Some(name)); }
                    "Apply" | "InitApply" => {
                        heard.retain(|h| h.split('@').next() != Some(name));
                        heard.insert(object.into());
                    }
                    _ => (),
                }
            };
            let relist = |world: &mut World, source: usize, there: &BTreeSet<(usize, u32)>, whole: bool| {
                let mut out = world.next(source, Event::Init);
                for (name, version) in there.iter().take(if whole { usize::MAX } else { 1 }) {
                    let listed = object(NAMESPACES[source], &name.to_string(), *version);
                    out.extend(world.next(source, Event::InitApply(listed)));
                }
                if whole {
                    out.extend(world.next(source, Event::InitDone));
                }
                out
            };
            for (source, name, what) in steps {
                version += 1;
                let old = there[source].iter().find(|(n, _)| *n == name).copied();
                match what {
                    // A change, seen by the watch if one runs.
                    0 | 1 => {
                        old.map(|old| there[source].remove(&old));
                        there[source].insert((name, version));
                        if watching[source] {
                            let changed = object(NAMESPACES[source], &name.to_string(), version);
                            hear(world.next(source, Event::Apply(changed)));
                        }
                    }
                    2 => if let Some(old) = old {
                        there[source].remove(&old);
                        if watching[source] {
                            let deleted = object(NAMESPACES[source], &name.to_string(), version);
                            hear(world.next(source, Event::Delete(deleted)));
                        }
                    },
                    3 => watching[source] = false,
                    4 => {
                        watching[source] = false;
                        hear(relist(&mut world, source, &there[source], false));
                    }
                    _ => {
                        hear(relist(&mut world, source, &there[source], true));
                        watching[source] = true;
                    }
                }
            }
            for (source, there) in there.iter().enumerate() {
                hear(relist(&mut world, source, there, true));
            }
            let expected: BTreeSet<String> = (0..2)
                .flat_map(|s| there[s].iter().map(move |(n, v)| format!("{}/{n}@{v}", NAMESPACES[s])))
                .collect();
            prop_assert_eq!(world.names(), expected.clone());
            prop_assert_eq!(heard, expected);
        }
    }
}
