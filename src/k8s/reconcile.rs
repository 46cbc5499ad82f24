//! One reconcile of one object, whatever its kind: when it is its turn, within a limit of time, and with one
//! set of ways to fail.
use std::time::Duration;

use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The Kubernetes client has no limit of its own.
const LONGEST: Duration = Duration::from_secs(120);

/// A reconcile that could not be finished because of the Kubernetes API: everything else becomes a condition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the object does not match the schema that this operator was built with")]
    Unreadable(#[source] Box<InvalidObject>),
    #[error("the reconcile took too long")]
    TooLong,
    #[error(transparent)]
    Kubernetes(#[from] super::Error),
}

impl Error {
    /// All that [`Error::category`] says.
    pub const CATEGORIES: [&str; 3] = ["Unreadable", "TooLong", "KubernetesApi"];

    /// For metrics: a closed set.
    pub fn category(&self) -> &'static str {
        match self {
            Error::Unreadable(_) => "Unreadable",
            Error::TooLong => "TooLong",
            Error::Kubernetes(_) => "KubernetesApi",
        }
    }

    /// Only another version of the object can help.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Unreadable(_))
    }
}

/// Whose turn it is when many want to look: first come, first served. A `Controller` with a limit of its own
/// takes of those that wait whichever it finds first in a hash table (kube-runtime 5.0,
/// `Scheduler::pending`): while there are always some, others wait forever.
#[derive(Debug)]
pub struct ConcurrencyLimit(Semaphore);

impl ConcurrencyLimit {
    /// So many at a time.
    pub fn new(at_once: usize) -> ConcurrencyLimit {
        ConcurrencyLimit(Semaphore::new(at_once))
    }

    /// Waits for one's turn, which lasts as long as what this returns; `None`: nobody is to begin any more.
    /// What was known of the object before may be old then.
    pub async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.0.acquire().await.ok()
    }

    /// From now on nobody begins.
    pub fn close(&self) {
        self.0.close();
    }
}

/// Looks at what the guard holds, on the heap: the futures of a reconcile are larger than a thread's stack
/// likes.
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
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn permits_are_given_in_the_order_of_the_requests() {
        let (concurrency, order) = (Arc::new(ConcurrencyLimit::new(1)), Arc::new(Mutex::new(vec![])));
        let first = concurrency.acquire().await.expect("nobody else is there");
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
