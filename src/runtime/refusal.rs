//! Answers of the API server that refuse a request: its own sentence, and the remedy. No other code prints a
//! `kube::Error`: kube's text holds the answer a second time, as a Rust structure.

use std::fmt::{self, Display, Formatter};

use kube::core::Status;

use crate::telemetry::logging::sentence;

/// Failure of a request. Prints the API server's own sentence.
#[derive(Debug)]
pub(super) struct Answer(pub(super) Box<kube::Error>);

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            kube::Error::Api(status) => f.write_str(&sentence(status)),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Answer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.0 {
            kube::Error::Api(_) => None,
            other => other.source(),
        }
    }
}

/// True when the API server, an admission policy or a webhook does not want the object: the same request
/// fails again until a user changes one of them. A webhook chooses the code of its refusal.
pub(super) fn is_rejection(status: &Status) -> bool {
    let is_denied =
        status.message.contains("denied the request") || status.message.contains("denied request");
    let may_pass = status.is_conflict() || status.is_already_exists() || status.is_not_found();
    let is_final =
        status.is_forbidden() || status.is_invalid() || matches!(status.code, 400 | 403 | 413 | 422);
    is_denied || (is_final && !may_pass)
}

/// Returns the remedy for a rejection, by the API server's sentence.
pub(super) fn remedy(sentence: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| sentence.contains(word));
    if says(&["immutable"]) {
        "delete it, and the operator writes a new one"
    } else if says(&["exceeded quota", "must specify"]) {
        "raise the quota of the namespace, or make room in it"
    } else if says(&["being terminated"]) {
        "the namespace is being deleted"
    } else if says(&["denied the request", "denied request"]) {
        "change the admission policy or webhook, or exempt the operator"
    } else if says(&[
        "cannot create resource",
        "cannot patch resource",
        "cannot update resource",
    ]) {
        "allow it in the operator's role"
    } else {
        "correct the cause that it names"
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        runtime::{apply, fake},
        telemetry::logging,
    };

    /// Answers as API servers give them.
    const IMMUTABLE: &str =
        "Secret \"c\" is invalid: data: Forbidden: field is immutable when `immutable` is set";
    const QUOTA: &str = "secrets \"c\" is forbidden: exceeded quota: q, requested: secrets=1, \
                         used: secrets=5, limited: secrets=5";
    const POLICY: &str = "secrets \"c\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied \
                          request: no keys here";
    const WEBHOOK: &str = "admission webhook \"validate.kyverno.svc-fail\" denied the request: \n\nresource \
                           Secret/acme/c was blocked";
    const ROLE: &str = "secrets is forbidden: User \"u\" cannot create resource \"secrets\" in API group \
                        \"\" in the namespace \"acme\"";
    const WEBHOOK_DOWN: &str = "Internal error occurred: failed calling webhook \"x\": connection refused";

    async fn refused(code: u16, reason: &'static str, message: &'static str) -> crate::runtime::Error {
        let client = fake::client(move |_, _, _| {
            let (code, mut body) = fake::refusal(code, reason);
            body["message"] = message.into();
            body["metadata"] = serde_json::json!({});
            body["details"] =
                serde_json::json!({"name": "c", "kind": "secrets", "causes": [{"reason": "x"}]});
            (code, body)
        });
        let mut secret = k8s_openapi::api::core::v1::Secret::default();
        (secret.metadata.name, secret.metadata.namespace) = (Some("c".into()), Some("acme".into()));
        apply::write_secret(&client, secret, None).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_refusal_is_the_sentence_of_the_api_server_and_never_a_dump() {
        let delete = Some("delete it, and the operator writes a new one");
        let quota = Some("raise the quota");
        let policy = Some("change the admission policy or webhook");
        for (code, reason, message, remedy) in [
            (422, "Invalid", IMMUTABLE, delete),
            (403, "Forbidden", QUOTA, quota),
            (403, "Forbidden", POLICY, policy),
            (422, "Invalid", POLICY, policy),
            (401, "Unauthorized", POLICY, policy),
            (400, "", WEBHOOK, policy),
            (500, "", WEBHOOK, policy),
            (403, "Forbidden", ROLE, Some("allow it in the operator's role")),
            (
                413,
                "RequestEntityTooLarge",
                "Request entity too large: limit is 3145728",
                Some("correct the cause"),
            ),
            (401, "Unauthorized", "Unauthorized", None),
            (404, "NotFound", "namespaces \"acme\" not found", None),
            (409, "AlreadyExists", "secrets \"c\" already exists", None),
            (409, "Conflict", "the object has been modified", None),
            (429, "TooManyRequests", "the server is busy", None),
            (500, "InternalError", WEBHOOK_DOWN, None),
            (
                504,
                "Timeout",
                "request did not complete within requested timeout",
                None,
            ),
        ] {
            let error = refused(code, reason, message).await;
            let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
            let logged = logging::chain(&error).to_string();
            assert_eq!(logged, format!("cannot create Secret acme/c: {line}"));
            let rejection = error.rejection();
            assert_eq!(rejection.is_some(), remedy.is_some(), "{code} {message}");
            if let (Some(rejection), Some(remedy)) = (rejection, remedy) {
                assert!(
                    rejection.starts_with("the API server rejects the Secret acme/c ("),
                    "{rejection}"
                );
                assert!(
                    rejection.contains(remedy) && rejection.ends_with(&line),
                    "{rejection}"
                );
            }
        }
        assert_eq!(
            logging::chain(&refused(503, "ServiceUnavailable", "").await).to_string(),
            "cannot create Secret acme/c: ServiceUnavailable"
        );
    }
}
