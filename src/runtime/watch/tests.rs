//! Tests of `watch`.

use super::*;

use std::{collections::BTreeSet, sync::Arc};

use futures::{
    Stream, StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;

use crate::runtime::merge::tests::{NAMESPACES, object, show};

type Events = UnboundedSender<(usize, watcher::Result<Event<ConfigMap>>)>;

/// Returns a running watch over events that the test creates.
fn running() -> (Watch<ConfigMap>, Events) {
    running_with(|_| ())
}

fn running_with(trim: fn(&mut ConfigMap)) -> (Watch<ConfigMap>, Events) {
    let (sender, receiver): (_, UnboundedReceiver<_>) = unbounded();
    let (watch, driver) = Watch::over(NAMESPACES.map(|n| Some(n.into())).into(), trim, receiver);
    tokio::spawn(driver);
    (watch, sender)
}

async fn heard(subscription: &mut (impl Stream<Item = Arc<ConfigMap>> + Unpin)) -> String {
    let next = tokio::time::timeout(std::time::Duration::from_secs(10), subscription.next());
    let object = next.await.expect("is told").expect("goes on");
    show(&[Event::Apply((*object).clone())])[0].replace("Apply ", "")
}

#[tokio::test]
async fn a_watch_without_a_driver_has_ended() {
    let (watch, events) = running();
    assert!(!watch.synced().has_ended());
    drop(events);
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while !watch.synced().has_ended() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("its driver ends with its events");
}

#[tokio::test]
async fn subscribers_get_existing_objects_changes_and_deletions() {
    let (watch, events) = running();
    let mut early = watch.subscribe();
    let send = |source, event| events.unbounded_send((source, Ok(event))).unwrap();
    for (source, namespace) in NAMESPACES.into_iter().enumerate() {
        send(source, Event::Init);
        send(source, Event::InitApply(object(namespace, "x", 1)));
        send(source, Event::InitDone);
    }
    let first = BTreeSet::from([heard(&mut early).await, heard(&mut early).await]);
    assert_eq!(first, ["a/x@1", "b/x@1"].map(String::from).into());

    drop(watch.subscribe());
    let mut late = watch.subscribe();
    let first = BTreeSet::from([heard(&mut late).await, heard(&mut late).await]);
    assert_eq!(first, ["a/x@1", "b/x@1"].map(String::from).into());

    send(0, Event::Apply(object("a", "x", 2)));
    send(0, Event::Delete(object("a", "x", 3)));
    // Deleted before any subscriber read it: reported all the same.
    send(1, Event::Init);
    send(1, Event::InitDone);
    send(1, Event::Apply(object("b", "y", 4)));
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(heard(&mut late).await);
    }
    assert_eq!(told, ["a/x@2", "a/x@3", "b/x@1", "b/y@4"]);
    assert_eq!(watch.store().state().len(), 1);
}

#[tokio::test]
async fn filtered_subscribers_get_every_deletion() {
    let (watch, events) = running();
    let mut named = watch.subscribe_when(|map| map.metadata.labels.clone());
    let send = |source, event| events.unbounded_send((source, Ok(event))).unwrap();
    for source in [0, 1] {
        send(source, Event::Init);
        send(source, Event::InitDone);
    }
    send(0, Event::Apply(object("a", "x", 1)));
    assert_eq!(heard(&mut named).await, "a/x@1");
    send(0, Event::Apply(object("a", "x", 2)));
    let mut other = object("a", "y", 3);
    other.metadata.uid = Some("another".into());
    send(0, Event::Apply(other));
    assert_eq!(heard(&mut named).await, "a/y@3", "nothing new of x");
    send(0, Event::Delete(object("a", "x", 4)));
    assert_eq!(heard(&mut named).await, "a/x@4");
}

#[tokio::test]
async fn every_object_is_trimmed_before_it_is_stored() {
    let (watch, events) = running_with(|map| map.data = None);
    let full = |name: &str, version| {
        let mut map = object("a", name, version);
        map.data = Some([("k".into(), "v".into())].into());
        map
    };
    let send = |source, event| events.unbounded_send((source, Ok(event))).unwrap();
    for source in [0, 1] {
        send(source, Event::Init);
    }
    send(0, Event::InitApply(full("listed", 1)));
    for source in [0, 1] {
        send(source, Event::InitDone);
    }
    let mut told = watch.subscribe_when(|map| map.metadata.resource_version.clone());
    send(0, Event::Apply(full("added", 2)));
    for _ in 0..2 {
        heard(&mut told).await;
    }
    let stored = watch.store().state();
    assert_eq!(stored.len(), 2);
    assert!(stored.iter().all(|map| map.data.is_none()), "{stored:?}");
}

#[tokio::test]
async fn a_watch_reports_why_it_is_not_synced() {
    let (watch, events) = running();
    assert_eq!(
        watch.synced().problem().as_deref(),
        Some("ConfigMap is not listed yet")
    );

    let refusal = |code: u16, reason: &str| {
        let status =
            serde_json::from_value(serde_json::json!({"code": code, "reason": reason, "message": reason}));
        watcher::Error::InitialListFailed(kube::Error::Api(status.unwrap()))
    };
    let mut changes = watch.synced().progress.clone();
    for (error, expected) in [
        (
            refusal(404, "NotFound"),
            "CustomResourceDefinition is not installed",
        ),
        (
            refusal(403, "Forbidden"),
            "not permitted to list and watch ConfigMap in namespace b",
        ),
        (refusal(500, "InternalError"), "cannot list or watch ConfigMap"),
    ] {
        changes.mark_unchanged();
        events.unbounded_send((1, Err(error))).unwrap();
        changes.changed().await.unwrap();
        let problem = watch.synced().problem().unwrap();
        assert!(problem.contains(expected), "{problem}");
    }
    for source in [0, 1] {
        assert!(watch.synced().problem().is_some());
        events.unbounded_send((source, Ok(Event::Init))).unwrap();
        events.unbounded_send((source, Ok(Event::InitDone))).unwrap();
    }
    watch.synced().wait().await;
    assert_eq!(watch.synced().problem(), None);
}
