//! One HTTP listener for liveness, readiness and metrics.

use std::sync::Arc;

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves /livez, /readyz and /metrics until `stop`. `unready` is asked at each probe, and answers why not yet: caches
/// that have not synced, CRDs that are missing.
///
/// Alive says nothing about CRDs, the API server, AWS or leadership: a restart would mend none of these.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    unready: impl Fn() -> Option<String> + Send + Sync + 'static,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (unready, registry) = (Arc::new(unready), Arc::new(registry));
    let app = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match unready() {
                None => (StatusCode::OK, "ok\n".to_owned()),
                Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
            }),
        )
        .route("/metrics", get(async move || metrics(&registry)));
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn metrics(registry: &Registry) -> axum::response::Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::ops::metrics::Metrics;

    #[tokio::test]
    async fn answers_probes_with_the_reason_and_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, registry) = Metrics::new();
        let reason = Arc::new(Mutex::new(Some("MtlsDomain is not listed yet".to_owned())));
        let stop = CancellationToken::new();
        let unready = reason.clone();
        let server = tokio::spawn(serve(listener, registry, move || unready.lock().unwrap().clone(), stop.clone()));
        let ask = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };

        assert!(ask("/livez").await.starts_with("HTTP/1.1 200"));
        let answer = ask("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("MtlsDomain is not listed yet\n"), "{answer}");
        reason.lock().unwrap().take();
        assert!(ask("/readyz").await.starts_with("HTTP/1.1 200"));
        metrics.leads(true);
        assert!(ask("/metrics").await.contains("mtls_operator_leader 1\n"));
        assert!(ask("/nothing").await.starts_with("HTTP/1.1 404"));

        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), server).await.expect("stops").unwrap().unwrap();
    }
}
