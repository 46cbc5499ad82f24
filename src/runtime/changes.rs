//! Objects that changed outside of the API server, each once until the listener has it. In memory.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard},
};

use tokio::sync::Notify;

use crate::api::object_id::ObjectId;

/// Objects that are to be reconciled, for a single listener.
#[derive(Debug, Default)]
pub struct Changes {
    waiting: Mutex<BTreeSet<ObjectId>>,
    more: Notify,
}

impl Changes {
    /// Adds objects; one that waits already is not added again.
    pub fn add(&self, objects: impl IntoIterator<Item = ObjectId>) {
        self.waiting().extend(objects);
        self.more.notify_one();
    }

    /// Waits for the next object.
    pub async fn next(&self) -> ObjectId {
        loop {
            let first = self.waiting().pop_first();
            match first {
                Some(object) => return object,
                None => self.more.notified().await,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<ObjectId>> {
        self.waiting.lock().expect("no holder of the lock panics")
    }
}
