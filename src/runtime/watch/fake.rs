//! Test support: a watch whose events the test creates.

use futures::channel::mpsc::{self, UnboundedSender};

use super::*;

/// Watch, its source of events, and its driver.
pub struct Fake<K: Watched> {
    pub watch: Watch<K>,
    events: UnboundedSender<(usize, watcher::Result<Event<K>>)>,
    driver: BoxFuture<'static, ()>,
}

impl<K: Watched> Fake<K> {
    /// Returns a watch that has not listed anything.
    pub fn unlisted() -> Fake<K> {
        let (events, receiver) = mpsc::unbounded();
        let (watch, driver) = Watch::over(vec![None], |_| {}, receiver);
        Fake {
            watch,
            events,
            driver,
        }
    }

    /// Returns a synced watch of these objects.
    pub fn of(all: Vec<K>) -> Fake<K> {
        let mut fake = Fake::unlisted();
        let all = all.into_iter().map(Event::InitApply);
        for event in std::iter::once(Event::Init).chain(all).chain([Event::InitDone]) {
            fake.happens(event);
        }
        fake
    }

    /// Passes an event to the store and to every subscriber.
    pub fn happens(&mut self, event: Event<K>) {
        self.sends(Ok(event));
    }

    /// Fails a list, for want of the permission.
    pub fn is_forbidden(&mut self) {
        let mut status = kube::core::Status::failure("forbidden", "Forbidden");
        status.code = 403;
        let error = kube::Error::Api(status.boxed());
        self.sends(Err(watcher::Error::InitialListFailed(error)));
    }

    fn sends(&mut self, event: watcher::Result<Event<K>>) {
        self.events.unbounded_send((0, event)).expect("the driver lives");
        assert!(
            (&mut self.driver).now_or_never().is_none(),
            "the driver never ends"
        );
    }
}
