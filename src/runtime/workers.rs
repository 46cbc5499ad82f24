//! Two threads for work whose length a tenant chooses (checking the certificates of a truststore, RSA keys,
//! keystores), in an order that is fair between namespaces. Owns that work while it waits; computes only.

mod queue;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use prometheus_client::metrics::{gauge::Gauge, histogram::Histogram};
use tokio::sync::oneshot;

use self::queue::{Queue, WAITING};

use crate::telemetry::metrics::Metrics;

/// Number of threads. A namespace has one of them at most, so that another finds one free.
const THREADS: usize = 2;
/// Time limit of one piece of work, from its start.
pub const LIMIT: Duration = Duration::from_secs(5);
/// Time after which work that does not end counts as stuck: only a restart ends it.
const STUCK: Duration = Duration::from_secs(60);

/// Work that was not done. All of it may be tried again later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{WAITING} computations of this namespace are waiting already")]
    Full,
    #[error("the computation failed")]
    Panicked,
}

/// Time limit of a piece of work, which asks for it in every loop whose length a tenant chooses.
#[derive(Clone, Debug)]
pub struct Limit {
    end: Instant,
    unwanted: Arc<AtomicBool>,
}

impl Limit {
    /// True once the work has to end: its time is over, or no caller waits for the result any more.
    pub fn is_over(&self) -> bool {
        self.unwanted.load(Ordering::Relaxed) || Instant::now() >= self.end
    }
}

/// The threads and their queue. Dropping it ends the threads after their current work.
pub struct Workers {
    shared: Arc<Shared>,
    waiting: Gauge,
    seconds: Histogram,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue<Job>>,
    more: Condvar,
}

type Job = Box<dyn FnOnce() + Send>;

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// Fails when the system gives no thread.
    pub fn start(metrics: &Metrics) -> std::io::Result<Workers> {
        let shared = Arc::new(Shared::default());
        for n in 0..THREADS {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("work-{n}"))
                .spawn(move || shared.work())?;
        }
        Ok(Workers {
            shared,
            waiting: metrics.work_waiting.clone(),
            seconds: metrics.work_seconds.clone(),
        })
    }

    /// Runs `work` for an object of this namespace, and returns its result. Work of one namespace runs one
    /// after the other. When the caller stops waiting, work that has not begun is skipped.
    ///
    /// # Errors
    /// [`Error::Full`] when the namespace has too much work waiting, [`Error::Panicked`] when the work
    /// panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce(&Limit) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (give, result) = oneshot::channel();
        let unwanted = Arc::new(AtomicBool::new(false));
        let (skip, seconds) = (unwanted.clone(), self.seconds.clone());
        let job: Job = Box::new(move || {
            if skip.load(Ordering::Relaxed) {
                return;
            }
            let begun = Instant::now();
            let limit = Limit {
                end: begun + LIMIT,
                unwanted: skip,
            };
            // Nothing that the work had in hand is used after a panic.
            let done = catch_unwind(AssertUnwindSafe(|| work(&limit)));
            seconds.observe(begun.elapsed().as_secs_f64());
            let _ = give.send(done.map_err(|_| Error::Panicked));
        });
        if !self.shared.lock().push(namespace, job) {
            return Err(Error::Full);
        }
        self.shared.more.notify_one();
        let _waits = Waits::new(&self.waiting, unwanted);
        result.await.unwrap_or(Err(Error::Panicked))
    }

    /// Returns which work does not end, for users; `None` when all does.
    pub fn problem(&self) -> Option<String> {
        let queue = self.shared.lock();
        let longest = queue.tenants.iter().filter_map(|(namespace, tenant)| {
            let took = tenant.running?.elapsed();
            (took > STUCK).then(|| format!("a computation for namespace {namespace} does not end"))
        });
        longest.min()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.more.notify_all();
    }
}

/// A caller that waits for a result.
struct Waits<'w> {
    waiting: &'w Gauge,
    unwanted: Arc<AtomicBool>,
}

impl<'w> Waits<'w> {
    fn new(waiting: &'w Gauge, unwanted: Arc<AtomicBool>) -> Self {
        waiting.inc();
        Waits { waiting, unwanted }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.waiting.dec();
        self.unwanted.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue<Job>> {
        self.queue
            .lock()
            .expect("no thread panics while holding it: jobs run without it")
    }

    fn work(&self) {
        let mut queue = self.lock();
        while !queue.closed {
            let Some((namespace, job)) = queue.pop(Instant::now()) else {
                queue = self.more.wait(queue).expect("no thread panics while holding it");
                continue;
            };
            drop(queue);
            let begun = Instant::now();
            job();
            queue = self.lock();
            queue.done(&namespace, begun.elapsed());
            // What this namespace has waiting may run now.
            self.more.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_asks_ends_in_time_and_others_go_on() {
        let workers = Workers::start(&Metrics::new().0).unwrap();
        let begun = Instant::now();
        let endless = workers.run("acme", |limit| {
            while !limit.is_over() {
                std::hint::spin_loop();
            }
        });
        let other = workers.run("zeta", |_| Instant::now());
        let (ended, other) = tokio::join!(endless, other);
        ended.unwrap();
        assert!(begun.elapsed() >= LIMIT);
        assert!(
            other.unwrap().duration_since(begun) < LIMIT,
            "it did not wait for acme"
        );
        assert_eq!(workers.problem(), None);
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_the_thread() {
        let workers = Workers::start(&Metrics::new().0).unwrap();
        for _ in 0..2 * THREADS {
            let failed = workers.run("acme", |_| panic!("on purpose")).await;
            assert!(matches!(failed, Err::<(), _>(Error::Panicked)));
        }
        assert_eq!(workers.run("acme", |_| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_without_a_waiting_caller_is_skipped_or_ends() {
        let workers = Workers::start(&Metrics::new().0).unwrap();
        let (begin, begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let ran = Arc::new(AtomicBool::new(false));
        let running = workers.run("acme", move |limit| {
            begin.send(()).unwrap();
            while !limit.is_over() {
                std::hint::spin_loop();
            }
            end.send((Instant::now(), limit.end)).unwrap();
        });
        let mut running = Box::pin(running);
        let flag = ran.clone();
        let waiting = workers.run("acme", move |_| flag.store(true, Ordering::Relaxed));
        let mut waiting = Box::pin(waiting);
        tokio::select! {
            biased; // the first comes first
            _ = &mut running => panic!("it runs until its end"),
            _ = &mut waiting => panic!("one of a namespace at a time"),
            _ = begun => {}
        };
        drop((running, waiting));
        let (ended, end) = ended.await.unwrap();
        assert!(ended < end, "it ended before its limit");
        workers.run("acme", |_| ()).await.unwrap();
        assert!(!ran.load(Ordering::Relaxed), "skipped");
    }
}
