//! HTTP listener for liveness, readiness and metrics, and for the log level.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    exposition::{self, Format},
    logging::{self, Level},
    metrics_auth::{self, MetricsAuth},
};

/// Sources of the answers.
pub struct Shown {
    pub registry: Registry,
    /// Returns why the process is not ready: caches that have not synced, CRDs that are missing. Called at
    /// each probe.
    pub unready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Returns why the process is not live, for failures that only a restart fixes: a loop that hangs, a task
    /// that died. Called at each probe.
    pub not_live: Box<dyn Fn() -> Option<String> + Send + Sync>,
    pub level: Level,
    /// Access to `/metrics`; `None`: everything that reaches the listener has it.
    pub metrics_auth: Option<MetricsAuth>,
}

/// Maximum number of connections that wait to be accepted; the kernel caps it.
const BACKLOG: i32 = 1024;

/// Answers of `/metrics` that are written at the same time, which leave threads to lookups of names.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Listens at `address`. `[::]` accepts IPv4 connections too; on a machine without IPv6 it becomes `0.0.0.0`.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(address, bind)
}

fn listen_with<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match bind(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_without_ipv6(&error) => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::info!(%address, %instead, "this machine has no IPv6: listening on IPv4 alone");
            bind(instead)
        }
        other => other,
    }
}

/// True when the kernel has no IPv6, or no interface may have an IPv6 address.
fn is_without_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        None,
    )?;
    if address.is_ipv6() {
        // Overrides the system's net.ipv6.bindv6only.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves /livez, /readyz, /metrics and /loglevel until `stop`.
///
/// Liveness does not depend on CRDs, the API server, AWS or the leadership: a restart would fix none of
/// these.
pub async fn serve(listener: TcpListener, shown: Shown, stop: CancellationToken) -> io::Result<()> {
    let app = app(shown).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn app(mut shown: Shown) -> Router {
    let auth = shown.metrics_auth.take();
    let pages = Router::new()
        .route(
            "/livez",
            get(async |State(shown): State<Arc<Shown>>| answer((shown.not_live)())),
        )
        .route(
            "/readyz",
            get(async |State(shown): State<Arc<Shown>>| answer((shown.unready)())),
        )
        .route("/metrics", get(metrics))
        .route(
            "/loglevel",
            get(async |State(shown): State<Arc<Shown>>| shown.level.filter() + "\n").put(set_level),
        )
        .with_state(Arc::new(shown));
    metrics_auth::guarded(pages, auth)
}

fn answer(problem: Option<String>) -> (StatusCode, String) {
    match problem {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

/// Runs on a thread of its own: writing the series of thousands of objects holds up no other request.
async fn metrics(State(shown): State<Arc<Shown>>, headers: HeaderMap) -> Response {
    let _one_of = AT_ONCE.acquire().await;
    let (format, packed) = (Format::accepted(&headers), exposition::gzip_accepted(&headers));
    let written = tokio::task::spawn_blocking(move || {
        let text = format.write(&shown.registry).ok()?;
        if packed {
            exposition::gzip(&text).ok()
        } else {
            Some(text.into_bytes())
        }
    });
    let Ok(Some(body)) = written.await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let kind = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::VARY, "accept, accept-encoding"),
    ];
    let coding = packed.then_some([(header::CONTENT_ENCODING, "gzip")]);
    (kind, coding.map(AppendHeaders), body).into_response()
}

/// Accepts requests from within the Pod only, where `kubectl port-forward` arrives: so a change needs the
/// permission to forward ports, and no other Pod can make it.
async fn set_level(
    State(shown): State<Arc<Shown>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: String,
) -> (StatusCode, String) {
    if !is_local(peer.ip()) {
        return (
            StatusCode::FORBIDDEN,
            "only from the Pod itself: use kubectl port-forward\n".to_owned(),
        );
    }
    match shown.level.set(body.trim()) {
        Ok(filter) => {
            tracing::warn!(filter, "the log level was changed");
            (StatusCode::OK, filter + "\n")
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{}\n", logging::chain(&error))),
    }
}

fn is_local(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{sync::Mutex, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use crate::telemetry::{
        heartbeat::Heartbeat,
        logging,
        metrics::{Controller, Metrics},
    };

    #[tokio::test]
    async fn answers_probes_with_the_reason_and_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, registry) = Metrics::new();
        let reason = Arc::new(Mutex::new(Some("MtlsDomain is not listed yet".to_owned())));
        let (stop, heartbeat) = (CancellationToken::new(), Heartbeat::default());
        let (unready, heartbeats) = (reason.clone(), heartbeat.clone());
        let shown = Shown {
            registry,
            unready: Box::new(move || unready.lock().unwrap().clone()),
            not_live: Box::new(move || heartbeats.problem()),
            level: logging::tests::level("info"),
            metrics_auth: None,
        };
        let server = tokio::spawn(serve(listener, shown, stop.clone()));
        let send = async |method: &str, path: &str, body: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let length = body.len();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: \
             close\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let ask = async |path: &str| send("GET", path, "").await;

        assert!(ask("/livez").await.starts_with("HTTP/1.1 200"));
        let answer = ask("/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.ends_with("MtlsDomain is not listed yet\n"),
            "{answer}"
        );
        reason.lock().unwrap().take();
        assert!(ask("/readyz").await.starts_with("HTTP/1.1 200"));
        metrics.leads(true);
        assert!(
            ask("/metrics")
                .await
                .contains("leader_election_master_status{name=\"mtls-operator\"} 1\n")
        );
        assert!(ask("/nothing").await.starts_with("HTTP/1.1 404"));

        let answer = send("PUT", "/loglevel", "debug").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(ask("/loglevel").await.ends_with("info,mtls_operator=debug\n"));
        let answer = send("PUT", "/loglevel", "everything").await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("not a level: write error"),
            "{answer}"
        );

        // The last heartbeat is long ago: the loop hangs; readiness does not depend on it.
        tokio::time::pause();
        heartbeat.record(Controller::Grant);
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::time::resume();
        let answer = ask("/livez").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("the reconcile loop of ClientGrant"),
            "{answer}"
        );
        assert!(ask("/readyz").await.starts_with("HTTP/1.1 200"));

        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), server)
            .await
            .expect("stops")
            .unwrap()
            .unwrap();
    }

    /// IPv4 reaches the listener at `[::]`, with IPv6 on the machine and without.
    #[tokio::test]
    async fn every_address_is_every_family() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .expect("IPv4");
    }

    #[test]
    fn without_ipv6_it_listens_on_ipv4() {
        let without = |errno: i32| {
            move |address: SocketAddr| {
                if address.is_ipv6() {
                    Err(io::Error::from_raw_os_error(errno))
                } else {
                    Ok(address.to_string())
                }
            }
        };
        let at = |address: &str, errno| {
            listen_with(address.parse().unwrap(), without(errno)).map_err(|e| e.kind())
        };
        assert_eq!(at("[::]:8080", 97), Ok("0.0.0.0:8080".to_owned()), "EAFNOSUPPORT");
        assert_eq!(
            at("[::]:8080", 99),
            Ok("0.0.0.0:8080".to_owned()),
            "EADDRNOTAVAIL"
        );
        assert_eq!(
            at("[::]:8080", 98),
            Err(io::ErrorKind::AddrInUse),
            "a port in use is no lack of IPv6"
        );
        assert!(at("[::1]:8080", 97).is_err(), "this one address was requested");
    }

    #[test]
    fn the_level_is_for_the_pod_itself() {
        for (peer, local) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true), // how a socket of both families shows it
            ("10.0.0.7", false),
            ("fd00::7", false),
            ("::ffff:10.0.0.7", false),
        ] {
            assert_eq!(is_local(peer.parse().unwrap()), local, "{peer}");
        }
    }

    #[tokio::test]
    async fn metrics_come_in_the_requested_format() {
        use std::io::Read;
        use tower::ServiceExt;
        let get = async |asked: &[(&str, &str)]| {
            let (_, registry) = Metrics::new();
            let level = logging::tests::level("info");
            let shown = Shown {
                registry,
                unready: Box::new(|| None),
                not_live: Box::new(|| None),
                level,
                metrics_auth: None,
            };
            let mut request = axum::extract::Request::get("/metrics");
            for (name, value) in asked {
                request = request.header(*name, *value);
            }
            let answer = app(shown)
                .oneshot(request.body(axum::body::Body::empty()).unwrap())
                .await
                .unwrap();
            let header = |name| {
                answer
                    .headers()
                    .get(name)
                    .map_or("", |v| v.to_str().unwrap())
                    .to_owned()
            };
            let (kind, coding) = (header(header::CONTENT_TYPE), header(header::CONTENT_ENCODING));
            assert_eq!(header(header::VARY), "accept, accept-encoding");
            (
                kind,
                coding,
                axum::body::to_bytes(answer.into_body(), usize::MAX)
                    .await
                    .unwrap(),
            )
        };
        let (kind, coding, body) = get(&[]).await;
        assert_eq!(
            (kind.as_str(), coding.as_str()),
            ("text/plain; version=0.0.4; charset=utf-8", "")
        );
        assert!(!String::from_utf8_lossy(&body).contains("# EOF"));
        let (kind, coding, body) = get(&[
            ("accept", "application/openmetrics-text;version=1.0.0"),
            ("accept-encoding", "gzip"),
        ])
        .await;
        let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!((kind.as_str(), coding.as_str()), (open_metrics, "gzip"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body[..])
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[tokio::test]
    async fn another_pod_changes_no_level() {
        use tower::ServiceExt;
        let (_, registry) = Metrics::new();
        let level = logging::tests::level("info");
        let shown = Shown {
            registry,
            unready: Box::new(|| None),
            not_live: Box::new(|| None),
            level: level.clone(),
            metrics_auth: None,
        };
        let mut request = axum::extract::Request::put("/loglevel")
            .body(axum::body::Body::from("debug"))
            .unwrap();
        request
            .extensions_mut()
            .insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 7], 4711))));
        assert_eq!(
            app(shown).oneshot(request).await.unwrap().status(),
            StatusCode::FORBIDDEN
        );
        assert_eq!(level.filter(), "info");
    }
}
