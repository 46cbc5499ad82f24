//! Proxy between one client and the API server, over plain HTTP: records the requests, and injects the faults
//! of a network, a slow server or a dying one. Every request that passes reaches the real API server, with
//! the client's own token.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::config::{AuthInfo, Config};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::control::When;

/// Running proxy. Dropping it stops it, with all its connections.
pub struct ApiProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Recorded request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub method: Method,
    /// Path without the query.
    pub path: String,
    /// True when the request asks for a watch.
    pub watch: bool,
}

impl Seen {
    /// True when the request changes an object.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// Effect of a rule on a matching request.
#[derive(Clone, Debug)]
pub enum ProxyAction {
    /// Neither answers nor forwards the request until the rule is removed; then closes the connection.
    Hold,
    /// Closes the connection without an answer.
    Drop,
    /// Answers with this status and reason, as the API server does. Never after the effect.
    Refuse(StatusCode, &'static str),
    /// Replaces one text in the answer by another.
    Replace(String, String),
}

/// Rule for matching requests.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Method to match; none for any.
    pub method: Option<Method>,
    /// Part of the path and query to match, or several parts with `*` between them.
    pub path: String,
    /// Number of matching requests that pass first.
    pub skip: u64,
    /// Number of matching requests that the rule then affects.
    pub times: u64,
    /// Before the API server receives the request, or after it has handled the request.
    pub when: When,
    pub act: ProxyAction,
}

impl Rule {
    /// Returns a rule for every request with that method (None: any) and that part in its path, before its
    /// effect.
    #[must_use]
    pub fn of(method: Option<Method>, path: &str, act: ProxyAction) -> Self {
        Self {
            method,
            path: path.into(),
            skip: 0,
            times: u64::MAX,
            when: When::Before,
            act,
        }
    }

    fn is_about(&self, method: &Method, uri: &Uri) -> bool {
        let text = uri.path_and_query().map_or("", |text| text.as_str());
        let mut rest = Some(text);
        for part in self.path.split('*') {
            rest = rest.and_then(|text| Some(&text[text.find(part)? + part.len()..]));
        }
        rest.is_some() && self.method.as_ref().is_none_or(|only| only == method)
    }
}

/// Counters of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fared {
    pub matched: u64,
    pub fired: u64,
    /// Number of requests held now.
    pub held: u64,
}

struct Shared {
    upstream: Client,
    state: Mutex<State>,
    /// Number of the era: connections of an earlier era are closed. `None` when no connection is accepted.
    era: watch::Sender<Option<u64>>,
}

#[derive(Default)]
struct State {
    rules: BTreeMap<u64, (Rule, Fared)>,
    next: u64,
    seen: Vec<Seen>,
}

type Answer = Response<UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>>;

impl ApiProxy {
    /// Starts the proxy on a free port of 127.0.0.1, in front of the API server of `config`. The proxy does
    /// not use the credentials of `config`.
    ///
    /// # Errors
    /// No port can be bound, or `config` is invalid.
    pub async fn start(config: Config) -> io::Result<Self> {
        let mut config = config;
        (config.auth_info, config.default_retry) = (AuthInfo::default(), false);
        let upstream = Client::try_from(config).map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::default(),
            era: watch::Sender::new(Some(0)),
        });
        let listening = tokio::spawn(shared.clone().listen(listener));
        Ok(Self {
            address,
            shared,
            listening,
        })
    }

    /// Returns `http://127.0.0.1:<port>`, for a kubeconfig.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule from now on and returns its number; for each request only the first rule that fires
    /// counts.
    #[must_use]
    pub fn add(&self, rule: Rule) -> u64 {
        let mut state = self.shared.state();
        state.next += 1;
        let id = state.next;
        state.rules.insert(id, (rule, Fared::default()));
        id
    }

    /// Removes a rule and closes the connections that it holds.
    pub fn remove(&self, id: u64) {
        self.shared.state().rules.remove(&id);
    }

    /// Returns the counters of a rule; `None` when it has been removed.
    #[must_use]
    pub fn fared(&self, id: u64) -> Option<Fared> {
        self.shared.state().rules.get(&id).map(|(_, fared)| *fared)
    }

    /// Returns all requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Closes every connection, including watches.
    pub fn cut(&self) {
        self.shared.era.send_modify(|era| *era = era.map(|era| era + 1));
    }

    /// Simulates an unavailable API server: closes connections, and new ones too.
    pub fn down(&self) {
        self.shared.era.send_replace(None);
    }

    /// Ends the simulation of an unavailable API server.
    pub fn up(&self) {
        self.shared.era.send_replace(Some(0));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                    let _ = tcp.set_nodelay(true);
                    let (me, mut era) = (self.clone(), self.era.subscribe());
                    let born = *era.borrow_and_update();
                    connections.spawn(async move {
                        if born.is_none() {
                            return;
                        }
                        let service = service_fn(|request| me.answer(request));
                        let serving = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(tcp), service);
                        tokio::select! {
                            _ = serving => {}
                            _ = era.wait_for(|now| *now != born) => {}
                        }
                    });
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Returns the effect on a request at that moment, if any, with the number of the rule.
    fn fires(&self, method: &Method, uri: &Uri, when: When) -> Option<(u64, ProxyAction)> {
        let mut state = self.state();
        for (id, (rule, fared)) in &mut state.rules {
            if rule.when == when && rule.is_about(method, uri) {
                fared.matched += 1;
                if fared.matched > rule.skip && fared.fired < rule.times {
                    fared.fired += 1;
                    fared.held += u64::from(matches!(rule.act, ProxyAction::Hold));
                    return Some((*id, rule.act.clone()));
                }
            }
        }
        None
    }

    /// Forwards a request and returns the answer; an error closes the connection.
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Answer> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let watch = uri.query().is_some_and(|query| query.contains("watch=true"));
        self.state().seen.push(Seen {
            method: method.clone(),
            path: uri.path().to_owned(),
            watch,
        });
        let mut replace = None;
        match self.fires(&method, &uri, When::Before) {
            Some((_, ProxyAction::Replace(from, to))) => replace = Some((from, to)),
            Some((id, act)) => return self.perform(id, act).await,
            None => {}
        }
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(header::HOST);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = Uri::try_from(path).map_err(io::Error::other)?;
        // Reads the whole body: a request is small, and the client of the API server needs its length.
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let request = Request::from_parts(parts, Body::from(body.to_vec()));
        let mut response = self.upstream.send(request).await.map_err(io::Error::other)?;
        if let Some((id, act)) = self.fires(&method, &uri, When::After) {
            return self.perform(id, act).await;
        }
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            response.headers_mut().remove(name); // of the other connection
        }
        Ok(match replace {
            None => response.map(|body| body.map_err(Into::into).boxed_unsync()),
            Some((from, to)) => replaced(response, watch, &from, &to).await?,
        })
    }

    async fn perform(&self, id: u64, act: ProxyAction) -> io::Result<Answer> {
        match act {
            ProxyAction::Refuse(status, reason) => Ok(refusal(status, reason)),
            ProxyAction::Hold => {
                while self.state().rules.contains_key(&id) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            ProxyAction::Drop | ProxyAction::Replace(..) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Returns a refusal in the API server's form.
fn refusal(status: StatusCode, reason: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": status.as_u16(), "reason": reason, "message": "injected by the test",
    });
    let mut response = Response::new(whole(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>> {
    Full::from(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Returns the answer with one text replaced by another: a list as a whole, a watch event by event.
async fn replaced(response: Response<Body>, watch: bool, from: &str, to: &str) -> io::Result<Answer> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let (from, to) = (from.to_owned(), to.to_owned());
    let edit = move |bytes: Bytes| Bytes::from(String::from_utf8_lossy(&bytes).replace(&from, &to));
    if watch {
        // The API server writes each event at once, and the events of a test are small.
        let edited = body.map_frame(move |frame| frame.map_data(&edit));
        return Ok(Response::from_parts(
            parts,
            edited.map_err(Into::into).boxed_unsync(),
        ));
    }
    let all = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(parts, whole(edit(all))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_about_a_method_and_the_parts_of_a_path_in_their_order() {
        let get = |path: &str| Rule::of(Some(Method::GET), path, ProxyAction::Drop);
        let uri =
            Uri::from_static("/apis/mtls-operator.io/v1alpha1/namespaces/a/mtlsdomains/d/status?watch=true");
        for (path, about) in [
            ("", true),
            ("/mtlsdomains/", true),
            ("mtlsdomains*status", true),
            ("status*mtls", false),
        ] {
            assert_eq!(get(path).is_about(&Method::GET, &uri), about, "{path}");
            assert!(!get(path).is_about(&Method::PUT, &uri));
        }
        assert!(Rule::of(None, "watch=true", ProxyAction::Drop).is_about(&Method::PUT, &uri));
    }
}
