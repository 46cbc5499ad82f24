//! Threads with a tokio runtime of their own, for work that nothing else may delay: the Lease and the probes on
//! one, the watches on another. The controllers run on the main thread.

use std::{io, time::Duration};

use tokio::runtime::{Builder, Runtime};

/// Time that tasks get to end when the process stops.
const LAST: Duration = Duration::from_secs(1);
/// Number of threads for lookups of names and for the text of `/metrics`.
const BLOCKING: usize = 8;

/// The runtimes beside the main one. A `kube::Client` belongs to one runtime: its connections are tasks of the
/// runtime that opened them, and stand still with it. So each runtime has a client of its own.
#[derive(Debug)]
pub struct Threads {
    /// For the Lease, the probes and the signals: nothing whose length a tenant chooses.
    pub lease: Runtime,
    /// For the watches: the size of an object is its author's choice, and so is the time to decode it.
    pub watch: Runtime,
}

impl Threads {
    /// Starts the threads.
    ///
    /// # Errors
    /// Fails when the system gives no thread.
    pub fn start() -> io::Result<Threads> {
        let thread = |name: &str| {
            // The runtime of one worker, because a current-thread runtime runs only inside of `block_on`.
            Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(BLOCKING)
                .thread_name(name)
                .enable_all()
                .build()
        };
        Ok(Threads {
            lease: thread("lease")?,
            watch: thread("watch")?,
        })
    }

    /// Ends the threads; call it outside of every runtime, which is where a runtime may be dropped.
    pub fn end(self) {
        self.watch.shutdown_timeout(LAST);
        self.lease.shutdown_timeout(LAST);
    }
}

/// Calls `build` inside of a runtime, so that what it spawns and registers belongs to that runtime.
pub fn within<T>(runtime: &Runtime, build: impl FnOnce() -> T) -> T {
    let _inside = runtime.enter();
    build()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::atomic::{AtomicUsize, Ordering},
        time::Instant,
    };

    use k8s_openapi::api::coordination::v1::Lease;
    use tokio_util::sync::CancellationToken;

    use crate::{
        runtime::leader_election,
        telemetry::{health, logging, metrics::Metrics},
    };

    /// The main thread computes for longer than a term of the Lease.
    #[test]
    fn the_main_thread_holds_up_neither_the_lease_nor_the_probes() {
        static RENEWED: AtomicUsize = AtomicUsize::new(0);
        let threads = Threads::start().unwrap();
        let stop = CancellationToken::new();
        let client = || {
            let service = tower::service_fn(async |request: http::Request<kube::client::Body>| {
                let body = request.into_body().collect_bytes().await.unwrap();
                let mut lease: Lease = serde_json::from_slice(&body).unwrap_or_default();
                lease.metadata.resource_version = Some("1".into());
                RENEWED.fetch_add(1, Ordering::Relaxed);
                let answer = kube::client::Body::from(serde_json::to_vec(&lease).unwrap());
                Ok::<_, std::convert::Infallible>(http::Response::new(answer))
            });
            leader_election::elect(
                kube::Client::new(service, "default"),
                "n",
                "l",
                "me",
                stop.clone(),
            )
        };
        let main = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        main.block_on(async {
            let (leadership, _election) = within(&threads.lease, client);
            let listener = within(&threads.lease, || {
                health::listen("127.0.0.1:0".parse().unwrap()).unwrap()
            });
            let address = listener.local_addr().unwrap();
            let shown = health::Shown {
                registry: Metrics::new().1,
                unready: Box::new(|| None),
                not_live: Box::new(|| None),
                level: logging::tests::level("info"),
                metrics_auth: None,
            };
            threads.lease.spawn(health::serve(listener, shown, stop.clone()));
            leadership.acquired().await;
            let (began, before) = (Instant::now(), RENEWED.load(Ordering::Relaxed));
            // From here on the thread of `main` is never given back to its runtime.
            while RENEWED.load(Ordering::Relaxed) < before + 2 {
                assert!(
                    began.elapsed() < Duration::from_secs(60),
                    "the Lease was not renewed"
                );
                std::hint::spin_loop();
            }
            let mut probe = TcpStream::connect(address).unwrap();
            probe.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            probe
                .write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            probe.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(leadership.may_write());
        });
        stop.cancel();
        threads.end();
    }
}
