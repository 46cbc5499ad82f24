//! Every state of an object as a watch shows them, and the Events about it.
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{kubernetes::objects::api, test_env::TestEnv, world::eventually};

/// Reasons of all Events about that object.
pub async fn events_about(env: &TestEnv, name: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
    let all = events
        .list(&Default::default())
        .await
        .expect("a list")
        .items
        .into_iter();
    let about = all.filter(|e| {
        e.regarding
            .as_ref()
            .is_some_and(|r| r.name.as_deref() == Some(name))
    });
    about.map(|e| e.reason.unwrap_or_default()).collect()
}

/// Note of the Event about that object with that reason.
pub async fn event(env: &TestEnv, name: &str, reason: &str) -> String {
    let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
    eventually(&format!("the Event {reason} about {name}"), async || {
        let all = events
            .list(&Default::default())
            .await
            .map_err(|e| e.to_string())?
            .items;
        let about = |e: &&Event| {
            e.reason.as_deref() == Some(reason)
                && e.regarding
                    .as_ref()
                    .is_some_and(|r| r.name.as_deref() == Some(name))
        };
        all.iter()
            .find(about)
            .and_then(|e| e.note.clone())
            .ok_or(format!("{} others", all.len()))
    })
    .await
}

/// Record of every state of one object (an empty name: of all of its kind), as a watch shows them.
pub struct Recorder {
    pub seen: Arc<Mutex<Vec<Value>>>,
    pub task: JoinHandle<()>,
}

impl Recorder {
    pub async fn start(env: &TestEnv, kind: &str, name: &str) -> Recorder {
        let api = api(env, kind);
        let only = if name.is_empty() {
            String::new()
        } else {
            format!("metadata.name={name}")
        };
        let now = api
            .list(&ListParams::default().fields(&only))
            .await
            .expect("a list");
        let version = now.metadata.resource_version.expect("lists have one");
        let there: Vec<_> = now
            .items
            .into_iter()
            .map(|object| serde_json::to_value(object).expect("JSON"))
            .collect();
        let params = WatchParams::default().fields(&only);
        let seen = Arc::new(Mutex::new(there));
        let log = seen.clone();
        let task = tokio::spawn(async move {
            let mut events = api.watch(&params, &version).await.expect("a watch").boxed();
            while let Some(event) = events.next().await {
                if let Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) = event {
                    log.lock()
                        .unwrap()
                        .push(serde_json::to_value(object).expect("JSON"));
                }
            }
        });
        Recorder { seen, task }
    }

    /// States seen so far.
    pub fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    /// States seen until `last`, an object as it was read, has come by.
    pub async fn until(&self, last: &Value) -> Vec<Value> {
        eventually("the watch shows what was read", async || {
            assert!(!self.task.is_finished(), "the watch has ended");
            let seen = self.seen();
            let version = |o: &Value| {
                o["metadata"]["resourceVersion"]
                    .as_str()
                    .and_then(|v| v.parse::<u64>().ok())
            };
            let reached = seen.last().is_some_and(|newest| version(newest) >= version(last));
            if reached {
                Ok(seen)
            } else {
                Err(format!("{} events", seen.len()))
            }
        })
        .await
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
