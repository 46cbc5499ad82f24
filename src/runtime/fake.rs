//! Test support: a Client whose API server is a function.

use std::sync::Arc;

use http::{Method, Request, Response};
use kube::{
    Client, Resource,
    client::Body,
    runtime::{
        reflector::{self, Store},
        watcher::Event,
    },
};
use serde_json::Value;

/// Returns a client; `answer` gets method, path and the JSON of the body (null when empty), and returns HTTP
/// status and body.
pub fn client(answer: impl Fn(&Method, &str, Value) -> (u16, Value) + Send + Sync + 'static) -> Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let (status, reply) = answer(
                &head.method,
                head.uri.path(),
                serde_json::from_slice(&body).unwrap_or_default(),
            );
            let reply = Body::from(serde_json::to_vec(&reply).expect("JSON"));
            Ok::<_, kube::Error>(
                Response::builder()
                    .status(status)
                    .body(reply)
                    .expect("a response"),
            )
        }
    });
    Client::new(service, "default")
}

/// Returns the body of an error in the API server's form.
pub fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": reason,
    });
    (code, body)
}

/// Returns a synced store with these objects.
pub fn store<K: Resource<DynamicType = ()> + Clone + 'static>(all: Vec<K>) -> Store<K> {
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for one in all {
        writer.apply_watcher_event(&Event::InitApply(one));
    }
    writer.apply_watcher_event(&Event::InitDone);
    store
}
