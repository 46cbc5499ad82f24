//! Tests of `finalizer`.

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
