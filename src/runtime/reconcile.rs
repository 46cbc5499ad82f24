//! Reconcile of one object of any kind: within a time limit, and with one set of errors.

use std::time::Duration;

use kube::{
    Resource,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{controller::Action, reflector::ObjectRef},
};

use super::workers;

use crate::{runtime, telemetry::logging};

/// Time limit of a reconcile. The Kubernetes client has none of its own.
const LONGEST: Duration = Duration::from_secs(120);

/// Failure of a reconcile because of the Kubernetes API or of this process; every other failure becomes a
/// condition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the object does not match the schema that this operator was built with")]
    Unreadable(#[source] Box<InvalidObject>),
    #[error("the reconcile took too long")]
    TooLong,
    #[error(transparent)]
    Work(#[from] workers::Error),
    #[error(transparent)]
    Kubernetes(#[from] runtime::Error),
}

impl Error {
    /// Returns the value of the metric label, one of [`crate::telemetry::metrics::ERROR_CATEGORIES`].
    pub fn category(&self) -> &'static str {
        match self {
            Error::Unreadable(_) => "Unreadable",
            Error::TooLong => "TooLong",
            Error::Work(_) => "Work",
            Error::Kubernetes(_) => "KubernetesApi",
        }
    }

    /// True when only another version of the object can help.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Unreadable(_))
    }
}

/// Logs the failure of a reconcile, and returns the next one: after `delay`, unless only a change of the
/// object can fix the error.
pub fn after_failure<K>(
    object: &DeserializeGuard<K>,
    error: &Error,
    delay: impl FnOnce() -> Duration,
) -> Action
where
    DeserializeGuard<K>: Resource<DynamicType = ()>,
{
    tracing::warn!(
        object = %ObjectRef::from_obj(object),
        error = %logging::chain(error),
        "reconcile failed"
    );
    if error.is_final() {
        Action::await_change()
    } else {
        Action::requeue(delay())
    }
}

/// Reconciles the object in the guard within the time limit, on the heap: the futures of a reconcile are too
/// large for a thread's stack.
pub async fn with_deadline<'a, K, T, F>(
    object: &'a DeserializeGuard<K>,
    reconcile: impl FnOnce(&'a K) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>> + 'a,
{
    match &object.0 {
        Err(error) => Err(Error::Unreadable(Box::new(error.clone()))),
        Ok(object) => tokio::time::timeout(LONGEST, Box::pin(reconcile(object)))
            .await
            .unwrap_or(Err(Error::TooLong)),
    }
}
