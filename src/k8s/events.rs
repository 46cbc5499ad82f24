//! Kubernetes Events: what people read in `kubectl describe`. Writes Events, and nothing depends on them.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::MANAGER;
use crate::{
    api::{conditions::Reason, events::EventReason},
    conditions::transitions,
    telemetry::logging::chain,
};

/// The API server's limits for an Event (`ValidateEventCreate` in
/// kubernetes/pkg/apis/core/validation/events.go).
const NOTE_BYTES: usize = 1024;

/// Make one per process and clone it: clones share the memory of what was said already.
///
/// The same (normal or warning, action, reason, object) within 6 minutes is counted on the first Event,
/// *whose note is kept*: what must be seen belongs into the reason.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// `instance` is this process, as in the Lease.
    pub fn new(client: Client, instance: &str) -> Self {
        Self(Recorder::new(
            client,
            Reporter {
                controller: MANAGER.into(),
                instance: Some(instance.into()),
            },
        ))
    }

    /// Publishes on transitions only: that is for the caller to know. An Event is a courtesy; that it could
    /// not be written is logged and fails nothing. `action` is what was being done.
    pub async fn publish(
        &self,
        object: &ObjectReference,
        reason: impl Into<EventReason>,
        action: &str,
        note: &str,
    ) {
        let reason = reason.into();
        let event = Event {
            type_: if reason.is_warning() {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.as_str().into(),
            action: action.into(),
            note: Some(note[..note.floor_char_boundary(NOTE_BYTES)].to_owned()),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, object).await {
            tracing::warn!(error = %chain(&error), reason = reason.as_str(), "cannot publish an Event");
        }
    }

    /// What has become of Ready since the conditions were `old`: that it is not, and then that it is again.
    /// That all went well at once is what the object itself says: one Event for each of a thousand
    /// certificates would be a third of all that is written for it.
    pub async fn publish_ready(&self, object: &ObjectReference, old: &[Condition], new: &[Condition]) {
        let is_first = old.is_empty();
        for t in transitions(old, new) {
            let told = t.type_ == "Ready" && (t.status == "False" || t.status == "True" && !is_first);
            let reason = Reason::parse(&t.reason)
                .filter(|_| told)
                .and_then(EventReason::of_condition);
            if let Some(reason) = reason {
                self.publish(object, reason, "Reconcile", &t.message).await;
            }
        }
    }
}
