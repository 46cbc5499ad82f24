//! Kubernetes Events, for readers of `kubectl describe`. Writes Events only, and no decision depends on them.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    api::{conditions::Reason, events::EventReason},
    runtime::MANAGER,
    status::conditions::transitions,
    telemetry::logging::chain,
};

/// The API server's limits for an Event (`ValidateEventCreate` in
/// kubernetes/pkg/apis/core/validation/events.go).
const NOTE_BYTES: usize = 1024;

/// Publisher of Events. Create one per process and clone it: clones share the record of published Events.
///
/// The recorder counts the same Event (normal or warning, action, reason, object) within 6 minutes on the
/// first one, *and keeps the first note*: facts that must be visible belong into the reason.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Creates a publisher; `instance` identifies this process, as in the Lease.
    pub fn new(client: Client, instance: &str) -> Self {
        Self(Recorder::new(
            client,
            Reporter {
                controller: MANAGER.into(),
                instance: Some(instance.into()),
            },
        ))
    }

    /// Publishes an Event. The caller publishes on transitions only. A failure to write an Event is logged
    /// and fails no reconcile. `action` names the operation in progress.
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

    /// Publishes the change of Ready since the conditions were `old`: that it is False, and later that it is
    /// True again. An object that becomes Ready at once gets no Event: for a thousand certificates these
    /// Events would be a third of all writes.
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
