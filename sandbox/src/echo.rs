//! Back end: an HTTP server that answers every request with the request itself, so that a test sees what an
//! API passes on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Request as it arrived at the back end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echoed {
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Headers with names in lower case; repeated values of a header are joined with `, `.
    pub headers: BTreeMap<String, String>,
}

/// Running back end. Dropping it stops it, with all its connections.
pub struct Echo {
    address: SocketAddr,
    listening: JoinHandle<()>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Echo {
    /// Starts the back end on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            address,
            listening: tokio::spawn(listen(listener)),
        })
    }

    /// Returns `http://127.0.0.1:<port>`, for the URI of an integration.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn listen(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                let http = hyper::server::conn::http1::Builder::new();
                let serve = http.serve_connection(TokioIo::new(tcp), service_fn(answer));
                connections.spawn(serve);
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let all = headers.entry(name.as_str().to_owned());
        all.and_modify(|others| *others = format!("{others}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    let echoed = Echoed {
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        headers,
    };
    let body = serde_json::to_vec(&echoed).expect("strings are JSON");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
