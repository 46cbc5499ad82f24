//! All communication with the Kubernetes API server (reads, writes, watches, leader election), and the
//! threads that work runs on. Knows the field manager and the ownership tags, but none of the operator's
//! kinds.

pub mod apply;
pub mod changes;
pub mod cluster_id;
pub mod concurrency;
pub mod events;
pub mod finalizer;
pub mod leader_election;
pub mod merge;
pub mod reconcile;
pub mod refusal;
pub mod status_writer;
pub mod thin;
pub mod threads;
pub mod trim;
pub mod watch;
pub mod workers;

use kube::core::Status;

use crate::telemetry::logging::sentence;

use refusal::Answer;

/// Field manager of all writes, value of the `managed-by` label, and reporting controller of the Events.
pub const MANAGER: &str = "mtls-operator";

/// Failed request to the API server.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {what}")]
pub struct Error {
    /// Operation, as an infinitive: "read", "create".
    verb: &'static str,
    /// Object of the request: kind, namespace and name.
    what: String,
    #[source]
    source: Answer,
}

impl Error {
    /// Returns a conversion for `map_err`.
    fn on(
        verb: &'static str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> impl FnOnce(kube::Error) -> Error + use<> {
        let what = format!("{kind} {namespace}/{name}");
        move |source| Error {
            verb,
            what,
            source: Answer(Box::new(source)),
        }
    }

    /// Returns the API server's answer; `None` when no answer came, or another server sent it.
    fn answer(&self) -> Option<&Status> {
        match &*self.source.0 {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// True when another writer came first, or the object exists already: reconcile again, then retry.
    pub fn is_conflict(&self) -> bool {
        self.answer()
            .is_some_and(|s| s.is_conflict() || s.is_already_exists())
    }

    /// True when a dry run failed for the reason only that it was one: a webhook with side effects.
    fn is_of_dry_run(&self) -> bool {
        self.answer()
            .is_some_and(|status| status.message.contains("does not support dry run"))
    }

    /// Returns why the API server rejects the object, with the remedy and its own sentence; `None` when a
    /// retry may help by itself.
    pub fn rejection(&self) -> Option<String> {
        let status = self.answer().filter(|status| refusal::is_rejection(status))?;
        let (sentence, what) = (sentence(status), &self.what);
        let remedy = refusal::remedy(&sentence);
        Some(format!(
            "the API server rejects the {what} ({remedy}): {sentence}"
        ))
    }
}

#[cfg(test)]
pub(crate) mod fake;
