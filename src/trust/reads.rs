//! Limit of the objects with certificates that are in memory at a time.

use tokio::sync::Semaphore;

/// Maximum number of objects that one reconcile reads at a time. An object may have a megabyte, and several
/// times as much while it is decoded.
pub(crate) const AT_ONCE: usize = 4;
/// Maximum number of objects that all reconciles together read at a time.
const ALL_AT_ONCE: usize = 8;

static PERMITS: Semaphore = Semaphore::const_new(ALL_AT_ONCE);

/// Runs one read, from the request until the object is dropped, after those that wait already. Each reconcile
/// has at most [`AT_ONCE`] of them waiting, so none delays the others by the number of its objects.
pub(crate) async fn one_of_few<T>(read: impl Future<Output = T>) -> T {
    let _permit = PERMITS.acquire().await.expect("the semaphore is never closed");
    read.await
}
