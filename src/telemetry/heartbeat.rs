//! Liveness of the reconcile loops. Every few seconds each loop gets an object that does not exist, which
//! passes through the whole loop and finishes at once: while any results come out, the loop is alive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{Resource, runtime::reflector::ObjectRef};
use tokio::time::Instant;

use super::metrics::Controller;

const INTERVAL: Duration = Duration::from_secs(10);
/// Time without a result after which a loop counts as stuck. All concurrent reconciles may take their full
/// time limit of two minutes, and nothing else gets through meanwhile.
const LONGEST: Duration = Duration::from_secs(300);

/// Time of each loop's last result. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<Mutex<BTreeMap<Controller, Instant>>>);

impl Heartbeat {
    /// Records a result of the loop, or its start.
    pub fn record(&self, controller: Controller) {
        self.0
            .lock()
            .expect("no thread panics while holding it")
            .insert(controller, Instant::now());
    }

    /// Records the regular end of the loop.
    pub fn end(&self, controller: Controller) {
        self.0
            .lock()
            .expect("no thread panics while holding it")
            .remove(&controller);
    }

    /// Returns which loop is stuck, for users; `None` when no running loop is.
    pub fn problem(&self) -> Option<String> {
        let heartbeats = self.0.lock().expect("no thread panics while holding it");
        let not_live = |(controller, at): (&Controller, &Instant)| {
            let silent = at.elapsed();
            let message = format!(
                "the reconcile loop of {} has given no result for {} s",
                controller.kind(),
                silent.as_secs()
            );
            (silent > LONGEST).then_some(message)
        };
        heartbeats.iter().find_map(not_live)
    }
}

/// Returns the heartbeat of a loop, for `Controller::reconcile_on`.
pub fn ticks<K: Resource<DynamicType = ()> + 'static>() -> impl Stream<Item = ObjectRef<K>> + Send {
    let ticks = futures::stream::unfold((), |()| async {
        tokio::time::sleep(INTERVAL).await;
        Some(((), ()))
    });
    // No object has this name.
    ticks.map(|()| ObjectRef::new("").within(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use futures::StreamExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        ResourceExt,
        runtime::{
            Controller as Loop,
            controller::{Action, Config},
            reflector::{self},
            watcher::Event,
        },
    };
    use tokio::sync::Notify;

    use crate::telemetry::metrics::Controller;

    fn object(name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        (object.metadata.name, object.metadata.namespace) = (Some(name.into()), Some("n".into()));
        object
    }

    /// Runs a loop in which each reconcile waits for a notification of the result.
    fn running(names: &[&str], heartbeat: &Heartbeat) -> Arc<Notify> {
        let (store, mut writer) = reflector::store::<ConfigMap>();
        writer.apply_watcher_event(&Event::Init);
        for name in names {
            writer.apply_watcher_event(&Event::InitApply(object(name)));
        }
        writer.apply_watcher_event(&Event::InitDone);
        let objects: Vec<_> = store.state();
        let (go, heartbeat) = (Arc::new(Notify::new()), heartbeat.clone());
        let wait = go.clone();
        heartbeat.record(Controller::Domain);
        tokio::spawn(async move {
            let _writer = writer;
            let forever = futures::stream::iter(objects).chain(futures::stream::pending());
            let reconcile = |object: Arc<ConfigMap>, wait: Arc<Notify>| async move {
                if object.name_any() == "slow" {
                    wait.notified().await;
                }
                Ok::<_, std::convert::Infallible>(Action::await_change())
            };
            Loop::for_shared_stream(forever, store)
                .with_config(Config::default().concurrency(1))
                .reconcile_on(ticks())
                .run(reconcile, |_, _, _| Action::await_change(), wait)
                .for_each(async |_| heartbeat.record(Controller::Domain))
                .await;
        });
        go
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_live_while_it_gives_results() {
        let heartbeat = Heartbeat::default();
        running(&["quick"], &heartbeat);
        tokio::time::sleep(LONGEST * 20).await;
        assert_eq!(
            heartbeat.problem(),
            None,
            "there is nothing to do, which is no reason"
        );

        let heartbeat = Heartbeat::default();
        let go = running(&["slow"], &heartbeat);
        tokio::time::sleep(LONGEST - INTERVAL).await;
        assert_eq!(heartbeat.problem(), None, "it takes long, and may");
        tokio::time::sleep(INTERVAL * 2).await;
        let problem = heartbeat.problem().expect("it hangs");
        assert!(
            problem.starts_with("the reconcile loop of MtlsDomain has given no result for 3"),
            "{problem}"
        );
        go.notify_one();
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(heartbeat.problem(), None, "it goes on");
        heartbeat.end(Controller::Domain);
        tokio::time::sleep(LONGEST * 2).await;
        assert_eq!(heartbeat.problem(), None, "one that has ended is not stuck");
    }
}
