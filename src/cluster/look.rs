//! One look at one object, whatever its kind: within a limit of time, and with one set of ways to fail.
use std::time::Duration;

use kube::core::{DeserializeGuard, error_boundary::InvalidObject};

/// The Kubernetes client has no limit of its own.
const LONGEST: Duration = Duration::from_secs(120);

/// A look that could not be finished because of the Kubernetes API: everything else becomes a condition.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the object does not match the schema that this operator was built with")]
    Unreadable(#[source] Box<InvalidObject>),
    #[error("the look took too long")]
    TooLong,
    #[error(transparent)]
    Cluster(#[from] super::Error),
}

impl Error {
    /// All that [`Error::category`] says.
    pub const CATEGORIES: [&str; 3] = ["Unreadable", "TooLong", "KubernetesApi"];

    /// For metrics: a closed set.
    pub fn category(&self) -> &'static str {
        match self {
            Error::Unreadable(_) => "Unreadable",
            Error::TooLong => "TooLong",
            Error::Cluster(_) => "KubernetesApi",
        }
    }

    /// Only another version of the object can help.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Unreadable(_))
    }
}

/// Looks at what the guard holds, on the heap: the futures of a look are larger than a thread's stack likes.
pub async fn look<'a, K, T, F>(object: &'a DeserializeGuard<K>, look: impl FnOnce(&'a K) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>> + 'a,
{
    match &object.0 {
        Err(error) => Err(Error::Unreadable(Box::new(error.clone()))),
        Ok(object) => tokio::time::timeout(LONGEST, Box::pin(look(object))).await.unwrap_or(Err(Error::TooLong)),
    }
}
