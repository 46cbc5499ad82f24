//! Access to `/metrics`: the API server says whose token a request has (TokenReview), and whether this user
//! may get the path (SubjectAccessReview).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::logging;

/// Time for which the decision on a token holds.
const HOLDS: Duration = Duration::from_secs(60);
/// Longest time of the reviews of one request, with the wait for those of others.
const REVIEW: Duration = Duration::from_secs(3);
/// Requests that the API server reviews at the same time.
const AT_ONCE: usize = 4;
/// Most decisions that are kept. Only tokens that the API server knows have one.
const MAX_DECISIONS: usize = 256;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Pages that need no token: the kubelet has none, and /loglevel accepts changes from the Pod itself only.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/loglevel"];

/// Reason why a request gets no metrics.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("send the token of a ServiceAccount: Authorization: Bearer TOKEN")]
    NoToken,
    #[error("the API server does not know this token")]
    Unknown,
    #[error(
        "this user may not get /metrics: bind it to a ClusterRole with nonResourceURLs /metrics, verb get"
    )]
    Forbidden,
    #[error("the API server did not review the token within 3 s")]
    Late,
    #[error("the API server did not review the token (see the operator's log)")]
    Failed(#[source] kube::Error),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Refusal::NoToken | Refusal::Unknown => {
                let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
                (StatusCode::UNAUTHORIZED, ask, text).into_response()
            }
            Refusal::Forbidden => (StatusCode::FORBIDDEN, text).into_response(),
            Refusal::Late => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
            Refusal::Failed(error) => {
                tracing::warn!(
                    error = %logging::chain(&error),
                    "no metrics: the reviews of --metrics-auth need the right to create tokenreviews and \
                     subjectaccessreviews"
                );
                (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
            }
        }
    }
}

/// Reviews of tokens, and the decisions of the last minute.
pub struct MetricsAuth {
    client: Client,
    /// True for users who may get the metrics, and the time of the review, by the SHA-256 of the token.
    decisions: Mutex<HashMap<Vec<u8>, (bool, Instant)>>,
    reviews: Semaphore,
}

impl MetricsAuth {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            decisions: Mutex::default(),
            reviews: Semaphore::new(AT_ONCE),
        }
    }

    async fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = bearer(headers).ok_or(Refusal::NoToken)?;
        let key = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
        let allowed = match self.known(&key) {
            Some(allowed) => allowed,
            None => {
                let review = async {
                    let _one_of = self.reviews.acquire().await;
                    self.review(token).await
                };
                let answer = timeout(REVIEW, review).await.map_err(|_| Refusal::Late)?;
                let allowed = answer.map_err(Refusal::Failed)?.ok_or(Refusal::Unknown)?;
                self.keep(key, allowed);
                allowed
            }
        };
        if allowed { Ok(()) } else { Err(Refusal::Forbidden) }
    }

    fn known(&self, key: &[u8]) -> Option<bool> {
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        let (allowed, at) = decisions.get(key)?;
        (at.elapsed() < HOLDS).then_some(*allowed)
    }

    fn keep(&self, key: Vec<u8>, allowed: bool) {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        if decisions.len() >= MAX_DECISIONS {
            decisions.retain(|_, (_, at)| at.elapsed() < HOLDS);
        }
        if decisions.len() < MAX_DECISIONS {
            decisions.insert(key, (allowed, Instant::now()));
        }
    }

    /// Returns whether the token's user may get the metrics; `None` for a token that the API server does not
    /// know.
    async fn review(&self, token: &str) -> kube::Result<Option<bool>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let tokens = Api::<TokenReview>::all(self.client.clone());
        let status = tokens.create(&PostParams::default(), &review).await?.status;
        let Some(user) = status
            .filter(|status| status.authenticated == Some(true))
            .and_then(|status| status.user)
        else {
            return Ok(None);
        };
        let accesses = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = accesses
            .create(&PostParams::default(), &access(user))
            .await?
            .status;
        Ok(Some(answer.is_some_and(|status| status.allowed)))
    }
}

/// Returns the question whether this user may get the metrics.
fn access(user: UserInfo) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/metrics".to_owned()),
                verb: Some("get".to_owned()),
            }),
            resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    }
}

/// Returns the token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let is_one = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN;
    is_one.then_some(token)
}

/// Returns the listener's pages, of which the probes need no token; `None`: no page needs one.
pub(super) fn guarded(pages: Router, auth: Option<MetricsAuth>) -> Router {
    match auth {
        None => pages,
        Some(auth) => pages.layer(middleware::from_fn_with_state(Arc::new(auth), guard)),
    }
}

async fn guard(State(auth): State<Arc<MetricsAuth>>, request: Request, next: Next) -> Response {
    if !OPEN.contains(&request.uri().path())
        && let Err(refusal) = auth.check(request.headers()).await
    {
        return refusal.into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::{body::Body, routing::get};
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use crate::runtime::fake::{client, refusal};

    type Calls = Arc<Mutex<Vec<String>>>;

    /// Pages behind an API server that knows three tokens: of a reader, of a user without rights, and one
    /// that it fails to review.
    fn pages() -> (Router, Calls) {
        let calls = Calls::default();
        let seen = calls.clone();
        let client = client(move |_, path, body: Value| {
            let (_, kind) = path.rsplit_once('/').unwrap();
            let spec = &body["spec"];
            seen.lock().unwrap().push(kind.to_owned());
            let status = match (kind, spec["token"].as_str()) {
                ("tokenreviews", Some("broken")) => return refusal(403, "Forbidden"),
                ("tokenreviews", Some(user @ ("reader" | "other"))) => {
                    json!({"authenticated": true, "user": {"username": user, "groups": ["g"]}})
                }
                // A status without `authenticated` is one of an unknown token, whatever user it names.
                ("tokenreviews", Some("half")) => json!({"user": {"username": "reader"}}),
                ("tokenreviews", _) => json!({"authenticated": false}),
                _ => {
                    let asked = json!({"path": "/metrics", "verb": "get"});
                    assert_eq!(spec["nonResourceAttributes"], asked);
                    assert_eq!(spec["groups"], json!(["g"]));
                    json!({"allowed": spec["user"] == "reader"})
                }
            };
            (201, json!({"metadata": {}, "spec": spec, "status": status}))
        });
        let page = || get(async || "page");
        let pages = OPEN
            .iter()
            .fold(Router::new(), |pages, path| pages.route(path, page()));
        let pages = pages.route("/metrics", page());
        (guarded(pages, Some(MetricsAuth::new(client))), calls)
    }

    async fn ask(pages: &Router, path: &str, authorization: Option<&str>) -> (u16, String) {
        let mut request = Request::get(path);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let request = request.body(Body::empty()).unwrap();
        let answer = pages.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn only_a_user_who_may_get_the_metrics_gets_them() {
        let (pages, _) = pages();
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        for (authorization, expected) in [
            (None, 401),
            (Some("Bearer "), 401),
            (Some("Basic cmVhZGVyOg=="), 401),
            (Some("reader"), 401),
            (Some("Bearer unknown"), 401),
            (Some("Bearer half"), 401),
            (Some(long.as_str()), 401),
            (Some("Bearer other"), 403),
            (Some("Bearer broken"), 503),
            (Some("Bearer reader"), 200),
            (Some("bearer  reader"), 200),
        ] {
            let (status, body) = ask(&pages, "/metrics", authorization).await;
            assert_eq!(status, expected, "{authorization:?}: {body}");
            assert_eq!(body == "page", status == 200, "{authorization:?}: {body}");
        }
        for path in OPEN {
            assert_eq!(ask(&pages, path, None).await.0, 200, "{path}");
        }
        // Any other page is closed, so that one that is added is not open by mistake.
        assert_eq!(ask(&pages, "/other", None).await.0, 401);
    }

    #[tokio::test(start_paused = true)]
    async fn a_decision_holds_for_a_minute_and_one_on_an_unknown_token_not_at_all() {
        let (pages, calls) = pages();
        let reviews = async |token: &str| {
            ask(&pages, "/metrics", Some(token)).await;
            std::mem::take(&mut *calls.lock().unwrap()).len()
        };
        for token in ["Bearer reader", "Bearer other"] {
            assert_eq!(reviews(token).await, 2, "{token}");
            assert_eq!(reviews(token).await, 0, "{token}");
        }
        tokio::time::advance(HOLDS - Duration::from_secs(1)).await;
        assert_eq!(reviews("Bearer reader").await, 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(reviews("Bearer reader").await, 2);
        for _ in 0..2 {
            assert_eq!(reviews("Bearer unknown").await, 1);
            assert_eq!(reviews("Bearer broken").await, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_answer_costs_three_seconds() {
        let silent = tower::service_fn(|_: axum::http::Request<kube::client::Body>| {
            std::future::pending::<Result<axum::http::Response<kube::client::Body>, kube::Error>>()
        });
        let auth = MetricsAuth::new(Client::new(silent, "default"));
        let pages = guarded(Router::new().route("/metrics", get(async || "page")), Some(auth));
        let start = Instant::now();
        let all = (0..3 * AT_ONCE).map(|_| ask(&pages, "/metrics", Some("Bearer reader")));
        for (status, body) in futures::future::join_all(all).await {
            assert_eq!(status, 503, "{body}");
        }
        assert_eq!(start.elapsed().as_secs(), REVIEW.as_secs());
    }

    #[test]
    fn decisions_are_bounded() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let auth = MetricsAuth::new(client(|_, _, _| refusal(500, "InternalError")));
        for n in 0..2 * MAX_DECISIONS {
            auth.keep(n.to_be_bytes().to_vec(), true);
        }
        assert_eq!(auth.decisions.lock().unwrap().len(), MAX_DECISIONS);
    }
}
