//! Kubernetes Events: what people read in `kubectl describe`. Writes Events, and nothing depends on them.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::MANAGER;
use crate::ops::logging::chain;

/// The API server's limits for an Event (`ValidateEventCreate` in kubernetes/pkg/apis/core/validation/events.go).
const NOTE_BYTES: usize = 1024;

/// Make one per process and clone it: clones share the memory of what was said already.
///
/// The same (normal or warning, action, reason, object) within 6 minutes is counted on the first Event, *whose note is
/// kept*: what must be seen belongs into the reason.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// `instance` is this process, as in the Lease.
    pub fn new(client: Client, instance: &str) -> Self {
        Self(Recorder::new(client, Reporter { controller: MANAGER.into(), instance: Some(instance.into()) }))
    }

    pub async fn normal(&self, object: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(object, EventType::Normal, reason, action, note).await;
    }

    pub async fn warning(&self, object: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(object, EventType::Warning, reason, action, note).await;
    }

    /// Publishes on transitions only: that is for the caller to know. An Event is a courtesy; that it could not be
    /// written is logged and fails nothing.
    async fn publish(&self, object: &ObjectReference, type_: EventType, reason: &str, action: &str, note: &str) {
        let note = note[..note.floor_char_boundary(NOTE_BYTES)].to_owned();
        let event = Event { type_, reason: reason.into(), action: action.into(), note: Some(note), secondary: None };
        if let Err(error) = self.0.publish(&event, object).await {
            tracing::warn!(
                error = %chain(&error),
                reason,
                "cannot publish an Event"
            );
        }
    }
}
