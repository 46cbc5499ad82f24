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
pub mod status_writer;
pub mod thin;
pub mod threads;
pub mod trim;
pub mod watch;
pub mod workers;

use kube::core::Status;

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
    source: Box<kube::Error>,
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
            source: Box::new(source),
        }
    }

    /// Returns the API server's answer; `None` when no answer came, or another server sent it.
    fn answer(&self) -> Option<&Status> {
        match &*self.source {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// True when another writer came first, or the object exists already: reconcile again, then retry.
    pub fn is_conflict(&self) -> bool {
        self.answer()
            .is_some_and(|s| s.is_conflict() || s.is_already_exists())
    }
}

#[cfg(test)]
pub(crate) mod fake;
