//! Reconcile of one object of any kind: within the concurrency limit, within a time limit, and with one
//! set of errors.

use std::time::Duration;

use kube::{
    Resource,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{controller::Action, reflector::ObjectRef},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{runtime, telemetry::logging};

/// Time limit of a reconcile. The Kubernetes client has none of its own.
const LONGEST: Duration = Duration::from_secs(120);

/// Failure of a reconcile because of the Kubernetes API; every other failure becomes a condition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the object does not match the schema that this operator was built with")]
    Unreadable(#[source] Box<InvalidObject>),
    #[error("the reconcile took too long")]
    TooLong,
    #[error(transparent)]
    Kubernetes(#[from] runtime::Error),
}

impl Error {
    /// Returns the value of the metric label, one of [`crate::telemetry::metrics::ERROR_CATEGORIES`].
    pub fn category(&self) -> &'static str {
        match self {
            Error::Unreadable(_) => "Unreadable",
            Error::TooLong => "TooLong",
            Error::Kubernetes(_) => "KubernetesApi",
        }
    }

    /// True when only another version of the object can help.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Unreadable(_))
    }
}

/// Limit of concurrent reconciles, first come, first served. The limit of a `Controller` itself takes the
/// waiting object that it finds first in a hash table (kube-runtime 5.0, `Scheduler::pending`): while objects
/// keep arriving, others wait forever.
#[derive(Debug)]
pub struct ConcurrencyLimit(Semaphore);

impl ConcurrencyLimit {
    /// Creates a limit of `at_once` concurrent reconciles.
    pub fn new(at_once: usize) -> ConcurrencyLimit {
        ConcurrencyLimit(Semaphore::new(at_once))
    }

    /// Waits for a permit, which the caller holds until it drops the result; `None` after
    /// [`ConcurrencyLimit::close`]. Facts about the object from before the wait may be stale.
    pub async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.0.acquire().await.ok()
    }

    /// Prevents every further reconcile from starting.
    pub fn close(&self) {
        self.0.close();
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

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn permits_are_given_in_the_order_of_the_requests() {
        let (concurrency, order) = (Arc::new(ConcurrencyLimit::new(1)), Arc::new(Mutex::new(vec![])));
        let first = concurrency.acquire().await.expect("no other permit is held");
        let waiting: Vec<_> = (0..100)
            .map(|n| {
                let (concurrency, order) = (concurrency.clone(), order.clone());
                tokio::spawn(async move {
                    let _permit = concurrency.acquire().await.expect("it comes");
                    order.lock().unwrap().push(n);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(first);
        futures::future::join_all(waiting).await;
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
        let held = concurrency.acquire().await;
        concurrency.close();
        assert!(
            held.is_some() && concurrency.acquire().await.is_none(),
            "what has begun goes on"
        );
    }
}
