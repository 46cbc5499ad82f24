//! Test support: a Session whose AWS is a function.

use std::{fmt, sync::Arc};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
};

use super::{call_guard::Gate, quota::Quota, rates::Rates, session::Session};

pub const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "eu-west-1";

/// HTTP status, headers and body.
pub type Answer = (u16, Vec<(&'static str, &'static str)>, String);

/// Returns a session in [`ACCOUNT`] and [`REGION`]. `answer` gets the call, as in `GET host/path?query` or,
/// where the service has no paths, `POST host/ Service.Operation`, and its body; it returns HTTP status and
/// body.
pub fn session(gate: &Gate, answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) -> Session {
    session_with(gate, move |call, body| {
        let (status, body) = answer(call, body);
        (status, vec![], body)
    })
}

/// Returns a gate without rate limits.
pub fn gate() -> Gate {
    Gate::new(
        Quota::new(Rates::with(&["*=unlimited".parse().expect("a rate")])),
        || true,
    )
}

/// Returns a session that answers a call with the first of `answers` whose text the call contains, else with
/// 404.
pub fn answering(answers: Vec<(&'static str, Answer)>) -> Session {
    session_with(&gate(), move |call, _| {
        let found = answers
            .iter()
            .find(|(text, _)| call.contains(text))
            .map(|(_, answer)| answer.clone());
        found.unwrap_or_else(|| (404, vec![], "{}".to_owned()))
    })
}

/// Returns a [`session`] whose answers also have headers.
pub fn session_with(gate: &Gate, answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Session {
    let connector = SharedHttpConnector::new(Connector(Arc::new(answer)));
    let credentials = Credentials::new("key", "secret", None, None, "fake");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .build();
    Session::with(config, ACCOUNT.to_owned(), REGION.to_owned(), gate)
}

type Function = dyn Fn(&str, &str) -> Answer + Send + Sync;

struct Connector(Arc<Function>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request
            .headers()
            .get("x-amz-target")
            .map(|target| format!(" {target}"))
            .unwrap_or_default();
        let uri = request.uri().trim_start_matches("https://");
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let (status, headers, body) = (self.0)(&format!("{} {uri}{target}", request.method()), &body);
        let status = status.try_into().expect("an HTTP status");
        let mut answer = HttpResponse::new(status, SdkBody::from(body));
        for (name, value) in headers {
            answer.headers_mut().insert(name, value);
        }
        HttpConnectorFuture::ready(Ok(answer))
    }
}
