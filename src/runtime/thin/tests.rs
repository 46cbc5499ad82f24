//! Tests of `thin`.

use super::*;

use std::sync::Mutex;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ListParams, PartialObjectMeta, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use futures::{StreamExt, TryStreamExt};

/// Client of an API server that answers every request with `answer`, which gets the request's URI.
fn answering(answer: impl Fn(&Uri) -> Answer + Send + Sync + 'static) -> Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (status, content_type, body) = answer(request.uri());
            let response = Response::builder()
                .status(status)
                .header(CONTENT_TYPE, content_type);
            Ok::<_, kube::Error>(response.body(Body::from(body.into_bytes())).unwrap())
        }
    });
    over(Client::new(service, "default"), "default")
}

type Answer = (u16, &'static str, String);

fn object(i: usize, size: usize) -> Value {
    json!({"metadata": {
        "name": format!("o{i}"), "resourceVersion": "1", "labels": {"l": "v".repeat(size)},
        "annotations": {"a": "v".repeat(50)}, "managedFields": [{"manager": "m"}],
    }})
}

#[tokio::test]
async fn lists_and_events_arrive_without_the_dropped_metadata() {
    let client = answering(|uri| {
        let body = match limit(uri) {
            Some(_) => json!({"metadata": {"resourceVersion": "7"}, "items": [object(1, 1)]}),
            None => json!({"type": "ADDED", "object": object(2, 1)}),
        };
        (200, "application/json", format!("{body}\n"))
    });
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::all(client);
    let list = api.list(&ListParams::default().limit(10)).await.unwrap();
    let events = api.watch(&WatchParams::default(), "7").await.unwrap();
    let mut events = std::pin::pin!(events);
    let Some(WatchEvent::Added(added)) = events.try_next().await.unwrap() else {
        panic!("no event")
    };
    assert!(events.next().await.is_none());
    assert_eq!(list.metadata.resource_version.as_deref(), Some("7"));
    for (name, object) in [("o1", &list.items[0]), ("o2", &added)] {
        let expected = json!({"name": name, "resourceVersion": "1", "labels": {"l": "v"}});
        assert_eq!(serde_json::to_value(&object.metadata).unwrap(), expected);
    }
}

#[tokio::test]
async fn other_answers_stay_as_they_are() {
    let refusal = json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"});
    for (status, content_type, body, expected) in [
        (403, "application/json", refusal.to_string(), "Forbidden"),
        (
            404,
            "text/plain",
            "404 page not found\n".to_owned(),
            "404 page not found",
        ),
        (200, "application/json", "{oops".to_owned(), "NotJson"),
    ] {
        let client = answering(move |_| (status, content_type, body.clone()));
        let api: Api<ConfigMap> = Api::all(client);
        let lists = api.list(&ListParams::default().limit(10)).await;
        let error = format!("{:?}", lists.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

/// API server with a number of objects of a size, and the limits that it was asked for.
#[derive(Clone, Default)]
struct Objects {
    sizes: Arc<Vec<usize>>,
    limits: Arc<Mutex<Vec<u32>>>,
}

impl Objects {
    fn answer(&self, uri: &Uri) -> Answer {
        let limit = limit(uri).unwrap();
        self.limits.lock().unwrap().push(limit);
        let query = uri.query().unwrap();
        assert_eq!(query.matches("limit=").count(), 1, "{query}");
        let parameter = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name));
        let begin = parameter("continue=").map_or(0, |token| token.parse().unwrap());
        let end = (begin + limit as usize).min(self.sizes.len());
        let items: Vec<_> = (begin..end).map(|i| object(i, self.sizes[i])).collect();
        let next = if end < self.sizes.len() {
            end.to_string()
        } else {
            String::new()
        };
        let body = json!({"metadata": {"resourceVersion": "7", "continue": next}, "items": items});
        (200, "application/json", body.to_string())
    }
}

/// Lists all objects in pages of 100; returns the limits that the API server was asked for.
async fn list(sizes: Vec<usize>) -> Vec<u32> {
    let count = sizes.len();
    let server = Objects {
        sizes: sizes.into(),
        ..Objects::default()
    };
    let answered = server.clone();
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::all(answering(move |uri| answered.answer(uri)));
    let (mut params, mut names) = (ListParams::default().limit(100), Vec::new());
    loop {
        let page = api.list(&params).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|o| o.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    assert_eq!(names, (0..count).map(|i| format!("o{i}")).collect::<Vec<_>>());
    let limits = server.limits.lock().unwrap();
    limits.clone()
}

#[tokio::test]
async fn a_page_that_is_too_long_is_read_in_smaller_ones() {
    assert_eq!(list(vec![1; 250]).await, [100, 100, 100]);
    // Ten of the large objects are too long for a page, and one of them alone is not.
    let large = MAX_PAGE / 8;
    let sizes = [vec![1; 100], vec![large; 20], vec![1; 100]].concat();
    assert_eq!(list(sizes).await, [100, 100, 25, 6, 12, 3, 6, 12, 24, 48, 96]);
    assert_eq!(
        list(vec![MAX_PAGE * 2; 2]).await,
        [100, 25, 6, 1, 2, 1],
        "one object is never too long"
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_does_not_hold_up_the_others() {
    let service = tower::service_fn(|request: Request<Body>| async move {
        if request.uri().path().ends_with("/secrets") {
            std::future::pending::<()>().await;
        }
        let answer = Response::builder().header(CONTENT_TYPE, "application/json");
        let body = json!({"metadata": {"resourceVersion": "7"}, "items": []});
        Ok::<_, kube::Error>(answer.body(Body::from(body.to_string().into_bytes())).unwrap())
    });
    let client = over(Client::new(service, "default"), "default");
    let held = tokio::spawn({
        let api: Api<k8s_openapi::api::core::v1::Secret> = Api::all(client.clone());
        async move { api.list(&ListParams::default().limit(10)).await }
    });
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    let api: Api<ConfigMap> = Api::all(client);
    api.list(&ListParams::default().limit(10)).await.unwrap();
    // One list is read at a time, but not for as long as its answer takes.
    let waited = begun.elapsed();
    assert!((MAX_WAIT..=MAX_WAIT * 2).contains(&waited), "{waited:?}");
    assert!(!held.is_finished());
    held.abort();
}
