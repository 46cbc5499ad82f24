//! Progress of a watch: whether its store has been complete, and why not.

use std::collections::BTreeMap;

use tokio::sync::watch;

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub live: bool,
    /// Reason why the last list failed, by source.
    pub problems: BTreeMap<usize, String>,
}

/// Result of the lists of one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    Yes,
    /// No list has succeeded. Reason why the last one failed, for users.
    Failed(String),
    /// The first list has not started, or is in progress.
    NotYet,
}

/// Sync state of one watch.
#[derive(Clone, Debug)]
pub struct Synced {
    kind: String,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Synced {
    pub(super) fn of(kind: String, progress: watch::Receiver<Progress>) -> Synced {
        Synced { kind, progress }
    }

    /// Waits until the store is complete.
    pub async fn wait(&self) {
        if self.progress.clone().wait_for(|p| p.live).await.is_err() {
            // Without the driver the store never becomes complete.
            std::future::pending().await
        }
    }

    /// True once the task that drives the watch has died, so that its store becomes stale.
    pub fn has_ended(&self) -> bool {
        self.progress.has_changed().is_err()
    }

    /// Returns the watched kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns whether the store has ever been complete.
    pub fn listed(&self) -> Listed {
        let progress = self.progress.borrow();
        match progress.problems.values().next() {
            _ if progress.live => Listed::Yes,
            Some(problem) => Listed::Failed(problem.clone()),
            None => Listed::NotYet,
        }
    }

    /// Returns why the watch is not synced; `None` once it is.
    pub fn problem(&self) -> Option<String> {
        let progress = self.progress.borrow();
        (!progress.live).then(|| {
            progress
                .problems
                .values()
                .next()
                .cloned()
                .unwrap_or_else(|| format!("{} is not listed yet", self.kind))
        })
    }
}
