//! Everything said to the Kubernetes API server: reading, writing, watching, and who leads. Knows our field
//! manager and our ownership tags, but neither of our kinds.

pub mod apply;
pub mod events;
pub mod finalizer;
pub mod identity;
pub mod lease;
mod merge;
pub mod reconcile;
pub mod status;
pub mod watch;

#[cfg(test)]
pub(crate) mod fake;

use kube::core::Status;

/// Field manager of all our writes, value of the `managed-by` label, and reporting controller of our Events.
pub const MANAGER: &str = "mtls-operator";

/// A request to the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {what}")]
pub struct Error {
    /// What was tried, as an infinitive: "read", "create".
    verb: &'static str,
    /// On what: kind, namespace and name.
    what: String,
    #[source]
    source: Box<kube::Error>,
}

impl Error {
    /// For `map_err`.
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

    /// What the API server answered; `None` when there was no answer, or none that it gave itself.
    fn answer(&self) -> Option<&Status> {
        match &*self.source {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// Somebody else wrote first, or it exists already: reconcile again, then try again.
    pub fn is_conflict(&self) -> bool {
        self.answer()
            .is_some_and(|s| s.is_conflict() || s.is_already_exists())
    }

    /// RBAC or an admission policy does not let us.
    pub fn is_forbidden(&self) -> bool {
        self.answer().is_some_and(Status::is_forbidden)
    }

    /// The API server understood, and will refuse this again.
    pub fn is_invalid(&self) -> bool {
        self.answer().is_some_and(|s| s.is_invalid() || s.code == 422)
    }
}
