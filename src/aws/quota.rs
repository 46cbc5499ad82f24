//! Token buckets for AWS's quotas. A reconcile that needs a scarce call (a domain name operation every 30
//! seconds) requests a ticket and is requeued shortly before a token is available; then it plans again, so
//! that ten changes during the wait become one call. Plentiful calls simply wait.
//!
//! The queue is not persisted: each object's status has the start of its wait, and the object requests again
//! after a restart, which restores the order.
//! Long because the queue and the buckets change under one lock.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::Stream;
use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use super::rates::{Operation, Rate, Rates};

/// Time within which a granted ticket has to come back; then the next ticket is granted.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after a restart during which objects that waited in a queue before go first: enough to reconcile all
/// of AWS's 120 domains of an account.
const RESTORE_WINDOW: Duration = Duration::from_secs(180);
/// Fraction of an interval by which a ticket is granted early, so that its reconcile costs nothing of the
/// interval.
const AHEAD: f64 = 0.1;
/// Fraction of an interval for which the words of a request must stay unchanged before its scarce call is
/// made. Successive changes, including the first, thus become one call. After a whole interval the call is
/// made in any case.
const SETTLING: f64 = 1.0 / 6.0;
/// Tolerance of a whole token, a millionth of the interval: sums of fractions are not exact.
const ROUNDING: f64 = 1e-6;

/// All token buckets of this process, and their queues. Cheap to clone.
#[derive(Clone)]
pub struct Quota {
    inner: Arc<Inner>,
}

struct Inner {
    rates: Rates,
    state: Mutex<LimiterState>,
    /// Signals a change by which a ticket may become due.
    changed: Notify,
}

/// State behind the lock.
struct LimiterState {
    started: Instant,
    queues: HashMap<Bucket, WaitQueue>,
    /// Objects that waited in a queue before a restart and have not requested since, and the time until which
    /// the other objects wait for them.
    missed: (BTreeSet<String>, Instant),
}

/// Quota that a call counts against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    account: String,
    /// Empty where all Regions share one bucket.
    region: String,
    operation: Operation,
}

/// Reason of a call. Each class precedes the next one, but not indefinitely: see `Class::head_start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A client must lose access. Such a request does not wait for its words to settle either.
    Distrust,
    SpecChange,
    Creation,
    Drift,
}

/// Request for one call of a bucket. Order: the longest wait, with the head start of its class, then the
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub class: Class,
    pub since: Timestamp,
    /// Object to requeue, `namespace/name`. One ticket per object and bucket.
    pub object: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// The call may be made after this time, a tenth of an interval at most: its token is taken.
    Go { after: Duration },
    /// The ticket is in the queue; the limiter will requeue its object.
    Wait {
        /// Number of tickets before this one.
        ahead: usize,
        /// Estimated time until the grant.
        about: Duration,
    },
}

/// Call in flight, until this value is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct InFlight(Option<(Quota, Bucket)>);

/// Position of a waiting object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePosition {
    /// `namespace/name`.
    pub object: String,
    pub operation: Operation,
    pub since: Timestamp,
    /// Number of tickets before this one, as in [`Grant::Wait`].
    pub ahead: usize,
    pub about: Duration,
}

/// Bucket with its tokens and its tickets, in order.
struct WaitQueue {
    tokens: f64,
    at: Instant,
    /// Calls in flight. AWS counts each somewhere between its start and its answer, so its token grows again
    /// only from the answer on.
    in_flight: u32,
    waiting: Vec<Waiting>,
    /// Lock of the caller that makes the next plentiful call.
    next: Arc<tokio::sync::Mutex<()>>,
}

struct Waiting {
    ticket: Ticket,
    /// Description of the call, unchanged since `settling`.
    words: String,
    settling: Instant,
    /// Time of the first request, with any description.
    first: Instant,
    called: Option<Instant>,
}

impl Bucket {
    pub fn new(account: &str, region: &str, operation: Operation) -> Bucket {
        let everywhere = operation == Operation::Route53;
        Bucket {
            account: account.to_owned(),
            region: if everywhere {
                String::new()
            } else {
                region.to_owned()
            },
            operation,
        }
    }
}

impl Class {
    /// Head start over the last class, in intervals. An hour of domain name operations covers all domains
    /// that AWS allows an account: no request waits longer than that for more urgent ones.
    fn head_start(self) -> u32 {
        match self {
            Class::Distrust => 120,
            Class::SpecChange => 40,
            Class::Creation => 20,
            Class::Drift => 0,
        }
    }
}

impl Ticket {
    /// The ticket with the smallest rank goes first.
    fn rank(&self, interval: Duration) -> (i128, &str) {
        let head_start = (interval * self.class.head_start()).as_nanos();
        (
            self.since.as_nanosecond().saturating_sub_unsigned(head_start),
            &self.object,
        )
    }
}

impl Waiting {
    /// Returns the time from which the ticket may be granted.
    fn settled(&self, interval: Duration, burst: u32) -> Instant {
        if self.ticket.class == Class::Distrust || !is_scarce(burst) {
            return self.first;
        }
        (self.settling + interval.mul_f64(SETTLING)).min(self.first + interval)
    }
}

impl Quota {
    pub fn new(rates: Rates) -> Quota {
        let now = Instant::now();
        let state = LimiterState {
            started: now,
            queues: HashMap::new(),
            missed: (BTreeSet::new(), now),
        };
        Quota {
            inner: Arc::new(Inner {
                rates,
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        }
    }

    /// Counts from now, like a process that just started: the tokens that a predecessor spent a moment ago
    /// are unknown. For a new leader. Tickets stay.
    pub fn start_over(&self) {
        let mut state = self.state();
        state.started = Instant::now();
        for (bucket, queue) in &mut state.queues {
            if let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) {
                queue.tokens = queue.tokens.min(first_tokens(interval, burst));
                queue.at = Instant::now();
            }
        }
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Registers objects that waited in a queue when another process ended. Until each of them has been
    /// reconciled, and for three minutes at most, only the class Distrust is granted: the order is unknown
    /// before.
    pub fn restore_waiters(&self, objects: impl Iterator<Item = String>) {
        self.state().missed = (objects.collect(), Instant::now() + RESTORE_WINDOW);
    }

    /// Requests a call. A ticket that has to wait stays in the queue until it is granted, replaced,
    /// withdrawn, or was granted and not used. `words` describe the call.
    pub fn request(&self, bucket: &Bucket, ticket: Ticket, words: String) -> Grant {
        let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
            return Grant::Go {
                after: Duration::ZERO,
            };
        };
        let now = Instant::now();
        let mut state = self.state();
        state.missed.0.remove(&ticket.object);
        let complete = state.is_complete(now) || ticket.class == Class::Distrust;
        let queue = state.queue(bucket, interval, burst);
        queue.drop_absent(now);
        let before = queue
            .waiting
            .iter()
            .position(|w| w.ticket.object == ticket.object);
        let waiting = match before.map(|at| queue.waiting.remove(at)) {
            None => Waiting {
                ticket,
                words,
                settling: now,
                first: now,
                called: None,
            },
            Some(before) => Waiting {
                settling: if before.words == words {
                    before.settling
                } else {
                    now
                },
                ticket: Ticket {
                    since: ticket.since.min(before.ticket.since),
                    ..ticket
                },
                words,
                called: None,
                ..before
            },
        };
        let position = queue
            .waiting
            .partition_point(|w| w.ticket.rank(interval) < waiting.ticket.rank(interval));
        let settled = waiting.settled(interval, burst);
        let ahead = queue.waiting[..position]
            .iter()
            .filter(|w| w.settled(interval, burst) <= now)
            .count();
        let missing = ahead as f64 + 1.0 - queue.tokens;
        let grant = if complete && settled <= now && missing < AHEAD + ROUNDING {
            queue.tokens -= 1.0;
            Grant::Go {
                after: interval.mul_f64(missing.max(0.0)),
            }
        } else {
            queue.waiting.insert(position, waiting);
            let wait = interval.mul_f64((position as f64 + 1.0 - queue.tokens).max(0.0));
            Grant::Wait {
                ahead: position,
                about: wait.max(settled - now),
            }
        };
        drop(state);
        self.inner.changed.notify_one();
        grant
    }

    /// Removes the object's tickets from every queue: the object needs no call any more.
    pub fn withdraw(&self, object: &str) {
        self.retain(object, |_| false);
    }

    /// Ends a reconcile of the object that began at this time: a ticket granted before that the reconcile did
    /// not request again is withdrawn.
    pub fn reconciled(&self, object: &str, began: Instant) {
        self.retain(object, |w| w.called.is_none_or(|called| called > began));
    }

    fn retain(&self, object: &str, keep: impl Fn(&Waiting) -> bool) {
        let mut state = self.state();
        state.missed.0.remove(object);
        for queue in state.queues.values_mut() {
            queue.waiting.retain(|w| w.ticket.object != object || keep(w));
        }
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Returns all waiting objects, for metrics.
    pub fn waiting(&self) -> Vec<QueuePosition> {
        let (mut positions, now) = (Vec::new(), Instant::now());
        for (bucket, queue) in &mut self.state().queues {
            let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
                continue;
            };
            queue.refill(interval, burst);
            queue.drop_absent(now);
            positions.extend(
                queue
                    .waiting
                    .iter()
                    .enumerate()
                    .map(|(ahead, Waiting { ticket, .. })| QueuePosition {
                        object: ticket.object.clone(),
                        operation: bucket.operation,
                        since: ticket.since,
                        ahead,
                        about: interval.mul_f64((ahead as f64 + 1.0 - queue.tokens).max(0.0)),
                    }),
            );
        }
        positions
    }

    /// Waits for a token, in the order of requests, and returns the call in flight. For buckets with many
    /// tokens a second.
    pub(crate) async fn acquire(&self, bucket: &Bucket) -> InFlight {
        let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
            return InFlight(None);
        };
        let next = self.state().queue(bucket, interval, burst).next.clone();
        let _next = next.lock().await;
        loop {
            let missing = {
                let mut state = self.state();
                let queue = state.queue(bucket, interval, burst);
                let missing = 1.0 - queue.tokens;
                if missing < ROUNDING {
                    queue.tokens -= 1.0;
                    queue.in_flight += 1;
                    return InFlight(Some((self.clone(), bucket.clone())));
                }
                missing
            };
            tokio::time::sleep(interval.mul_f64(missing)).await;
        }
    }

    /// Marks a granted call as sent; the call is in flight until the result is dropped.
    pub(crate) fn depart(&self, bucket: &Bucket) -> InFlight {
        let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
            return InFlight(None);
        };
        let mut state = self.state();
        state.queue(bucket, interval, burst).in_flight += 1;
        InFlight(Some((self.clone(), bucket.clone())))
    }

    fn land(&self, bucket: &Bucket) {
        if let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) {
            self.state().queue(bucket, interval, burst).in_flight -= 1;
            self.inner.changed.notify_one();
        }
    }

    /// Empties the bucket, because AWS throttles: another client uses the account too.
    pub(crate) fn drain(&self, bucket: &Bucket) {
        if let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) {
            let mut state = self.state();
            let queue = state.queue(bucket, interval, burst);
            queue.tokens = queue.tokens.min(0.0);
            drop(state);
            self.inner.changed.notify_one();
        }
    }

    /// Streams the objects whose ticket is about to be due; each should reconcile and request again. For one
    /// listener.
    pub fn granted(&self) -> impl Stream<Item = String> + Send + use<> {
        futures::stream::unfold(self.clone(), |quota| async move {
            let object = quota.next_granted().await;
            Some((object, quota))
        })
    }

    async fn next_granted(&self) -> String {
        loop {
            let (called, again) = self.call_next();
            if let Some(object) = called {
                return object;
            }
            let sleep = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.inner.changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Grants a ticket whose token is about to be available; else returns when there may be one.
    fn call_next(&self) -> (Option<String>, Option<Instant>) {
        let now = Instant::now();
        let mut again: Option<Instant> = None;
        let mut state = self.state();
        let complete = state.is_complete(now);
        let restored_by = state.missed.1;
        for (bucket, queue) in &mut state.queues {
            let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
                continue;
            };
            queue.refill(interval, burst);
            queue.drop_absent(now);
            let tokens = queue.tokens;
            let mut ahead = 0.0;
            for waiting in &mut queue.waiting {
                let settled = waiting.settled(interval, burst);
                let next = if settled > now {
                    settled
                } else {
                    let missing = ahead + 1.0 - tokens;
                    ahead += 1.0;
                    match waiting.called {
                        Some(called) => called + CLAIM_TIMEOUT,
                        None if missing >= AHEAD + ROUNDING => now + interval.mul_f64(missing - AHEAD),
                        None if !complete && waiting.ticket.class != Class::Distrust => restored_by,
                        None => {
                            waiting.called = Some(now);
                            return (Some(waiting.ticket.object.clone()), None);
                        }
                    }
                };
                again = Some(again.map_or(next, |other| other.min(next)));
            }
        }
        (None, again)
    }

    fn state(&self) -> MutexGuard<'_, LimiterState> {
        // No panic happens between two halves of a change.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some((quota, bucket)) = &self.0 {
            quota.land(bucket);
        }
    }
}

/// True for a bucket with burst 1: one call at a time, with a long interval between two calls.
fn is_scarce(burst: u32) -> bool {
    burst == 1
}

/// Returns the initial tokens: none for scarce calls, because a restart must not spend twice; one second's
/// worth for plentiful calls.
fn first_tokens(interval: Duration, burst: u32) -> f64 {
    if is_scarce(burst) {
        0.0
    } else {
        interval.as_secs_f64().recip().min(f64::from(burst))
    }
}

impl LimiterState {
    /// True when all objects that waited before a restart have requested again, or their time has passed.
    fn is_complete(&self, now: Instant) -> bool {
        self.missed.0.is_empty() || self.missed.1 <= now
    }

    fn queue(&mut self, bucket: &Bucket, interval: Duration, burst: u32) -> &mut WaitQueue {
        let started = self.started;
        let queue = self.queues.entry(bucket.clone()).or_insert_with(|| WaitQueue {
            tokens: first_tokens(interval, burst),
            at: started,
            in_flight: 0,
            waiting: Vec::new(),
            next: Arc::default(),
        });
        queue.refill(interval, burst);
        queue
    }
}

impl WaitQueue {
    fn refill(&mut self, interval: Duration, burst: u32) {
        let now = Instant::now();
        let gained = (now - self.at).as_secs_f64() / interval.as_secs_f64();
        self.tokens = (self.tokens + gained).min(f64::from(burst.saturating_sub(self.in_flight)));
        self.at = now;
    }

    fn drop_absent(&mut self, now: Instant) {
        self.waiting
            .retain(|w| w.called.is_none_or(|called| now < called + CLAIM_TIMEOUT));
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
