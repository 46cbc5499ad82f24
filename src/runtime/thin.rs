//! Client of the API server for the watches. It bounds the memory of an answer while it reads the answer: it
//! drops the metadata that no cache keeps, reads one list at a time, and requests fewer objects again when a
//! page of a list is too long.

pub mod json;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::CONTENT_TYPE, request::Parts};
use http_body::{Body as _, Frame};
use kube::{Client, Config, client::Body};
use tokio::{sync::Semaphore, time::timeout};
use tower::BoxError;

use crate::api::GROUP;
use json::Thinner;

/// Prefix of the operator's annotations.
const ANNOTATIONS: &str = "mtls-operator.io/";
/// Bytes of one page of a list, without what is dropped. A page of one object may have more.
const MAX_PAGE: usize = 4 << 20;
/// Time that a list waits for another list to end. An API server that withholds one list must not withhold
/// the others.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Returns the client. It spawns its tasks on the current runtime.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    let namespace = config.default_namespace.clone();
    Ok(over(Client::try_from(config)?, &namespace))
}

/// Returns a client that sends its requests by another client.
fn over(inner: Client, namespace: &str) -> Client {
    let valid_until = *inner.valid_until();
    let lists = Arc::new(Lists {
        turn: Semaphore::new(1),
        limit: AtomicU32::new(u32::MAX),
    });
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, lists) = (inner.clone(), lists.clone());
        async move {
            match limit(request.uri()) {
                Some(limit) => lists.page(&inner, request, limit).await,
                None => {
                    let thinner = request.uri().query().is_some_and(|q| q.contains("watch=true"));
                    let thinner = thinner.then(|| thinner_of(request.uri()));
                    Ok(thinned(inner.send(request).await?, thinner))
                }
            }
        }
    });
    Client::new(service, namespace).with_valid_until(valid_until)
}

fn thinner_of(uri: &Uri) -> Thinner {
    let is_own = uri.path().starts_with(&format!("/apis/{GROUP}/"));
    Thinner::new(is_own.then_some(ANNOTATIONS))
}

/// Returns the limit of a list that is read in pages.
fn limit(uri: &Uri) -> Option<u32> {
    uri.query()?
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("limit=")?.parse().ok())
}

/// Returns the same list with another limit.
fn with_limit(head: &Parts, limit: u32) -> kube::Result<Request<Body>> {
    let query = head.uri.query().unwrap_or_default();
    let query: Vec<_> = query.split('&').filter(|p| !p.starts_with("limit=")).collect();
    let query = query.join("&");
    let uri = Uri::builder()
        .path_and_query(format!("{}?{query}&limit={limit}", head.uri.path()))
        .build()
        .map_err(kube::Error::HttpError)?;
    let mut head = head.clone();
    head.uri = uri;
    Ok(Request::from_parts(head, Body::empty()))
}

/// State shared by the lists of all kinds.
struct Lists {
    turn: Semaphore,
    /// Number of objects of the next page, if fewer are not asked for: a quarter after a page that was too
    /// long, twice as many after each other page.
    limit: AtomicU32,
}

impl Lists {
    /// Returns one page of a list, with fewer objects than asked for if it would be too long.
    async fn page(
        &self,
        inner: &Client,
        request: Request<Body>,
        asked: u32,
    ) -> kube::Result<Response<Thinned>> {
        let (head, _) = request.into_parts();
        let _turn = timeout(MAX_WAIT, self.turn.acquire()).await;
        loop {
            let limit = asked.min(self.limit.load(Relaxed));
            let response = inner.send(with_limit(&head, limit)?).await?;
            if !is_json(&response) {
                return Ok(thinned(response, None));
            }
            let (answer, body) = thinned(response, Some(thinner_of(&head.uri))).into_parts();
            match body.whole(if limit > 1 { MAX_PAGE } else { usize::MAX }).await? {
                Some(page) => {
                    self.limit.store(limit.saturating_mul(2), Relaxed);
                    return Ok(thinned(Response::from_parts(answer, page.into()), None));
                }
                None => self.limit.store((limit / 4).max(1), Relaxed),
            }
        }
    }
}

fn is_json(response: &Response<Body>) -> bool {
    let json = |v: &HeaderValue| v.as_bytes().starts_with(b"application/json");
    response.status().is_success() && response.headers().get(CONTENT_TYPE).is_some_and(json)
}

fn thinned(response: Response<Body>, thinner: Option<Thinner>) -> Response<Thinned> {
    let thinner = thinner.filter(|_| is_json(&response));
    response.map(|body| Thinned { body, thinner })
}

/// Body of an answer; `None`: as it comes.
struct Thinned {
    body: Body,
    thinner: Option<Thinner>,
}

impl Thinned {
    /// Reads all of it; `None` if it has more than `max` bytes.
    async fn whole(mut self, max: usize) -> Result<Option<Vec<u8>>, kube::Error> {
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            if let Ok(data) = frame.map_err(kube::Error::Service)?.into_data() {
                whole.extend_from_slice(&data);
                if whole.len() > max {
                    return Ok(None);
                }
            }
        }
        Ok(Some(whole))
    }
}

impl http_body::Body for Thinned {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(frame) = ready!(pin!(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            let frame = frame.map_err(|error| match error {
                kube::Error::Service(error) => error,
                error => error.into(),
            })?;
            let Some(thinner) = &mut self.thinner else {
                return Poll::Ready(Some(Ok(frame)));
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            let mut out = Vec::with_capacity(data.len().min(16 * 1024));
            thinner.thin(&data, &mut out)?;
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests;
