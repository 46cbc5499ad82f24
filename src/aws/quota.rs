//! Turns at AWS's quotas. Who wants a scarce call (a domain name operation every 30 seconds) draws a ticket
//! and is woken when it is about its turn; then it reconciles again and plans, so that ten changes while it
//! waited are one call. What is plentiful just waits.
//!
//! The queue is not kept: who waits knows since when and asks again after a restart, which restores the
//! order.

pub use super::rates::Operation;
use super::rates::{Rate, Rates};
use futures::Stream;
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a ticket that was called may take to come back; then the next one is called.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(60);
/// How long those are waited for that waited in a queue before a restart: until all of AWS's 120 domains of
/// an account have been looked at.
const RESTORE_WINDOW: Duration = Duration::from_secs(180);
/// A ticket is called this much of an interval before its turn, so that its reconcile does not take of it.
const AHEAD: f64 = 0.1;
/// A scarce call is made once it has been asked for in the same words for this much of an interval, so that
/// changes that come one after the other are one call, the first of them included; but after a whole interval
/// whatever comes.
const SETTLING: f64 = 1.0 / 6.0;
/// A token is whole when less than this is missing, a millionth of the interval: sums of fractions do not
/// come out even.
const ROUNDING: f64 = 1e-6;

/// All token buckets of this process, and who waits at them. Cheap to clone.
#[derive(Clone)]
pub struct Quota {
    inner: Arc<Inner>,
}

struct Inner {
    rates: Rates,
    state: Mutex<LimiterState>,
    /// Something changed that may make it somebody's turn.
    changed: Notify,
}

/// What is behind the lock.
struct LimiterState {
    started: Instant,
    queues: HashMap<Bucket, WaitQueue>,
    /// The objects that waited in a queue before a restart and have not come since, and until when the others
    /// let them go first.
    missed: (BTreeSet<String>, Instant),
}

/// What a call is counted against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    account: String,
    /// Empty where all Regions share one.
    region: String,
    operation: Operation,
}

/// Why a call is wanted. Each goes before the next one, but not forever: see [`Class::head_start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody must lose access. It does not wait for its words to settle either.
    Distrust,
    SpecChange,
    Creation,
    Drift,
}

/// A request for one call of a bucket. Order: the longest wait, with the head start of its class, then the
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub class: Class,
    pub since: Timestamp,
    /// Who is woken, `namespace/name`. One ticket per object and bucket.
    pub object: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Make the call after this time, of a tenth of an interval at the most: its token is taken.
    Go { after: Duration },
    /// The ticket is in the queue; its object will be woken.
    Wait {
        /// Tickets before this one.
        ahead: usize,
        /// How long until its turn, as far as can be told now.
        about: Duration,
    },
}

/// A call that is on its way, until this is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct InFlight(Option<(Quota, Bucket)>);

/// Where somebody stands who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePosition {
    /// `namespace/name`.
    pub object: String,
    pub operation: Operation,
    pub since: Timestamp,
    /// As in [`Grant::Wait`].
    pub ahead: usize,
    pub about: Duration,
}

/// One bucket: its tokens and its tickets, in order.
struct WaitQueue {
    tokens: f64,
    at: Instant,
    /// Calls on their way. AWS counts each somewhere between its start and its answer, so its token grows
    /// again only from then on.
    in_flight: u32,
    waiting: Vec<Waiting>,
    /// Held by who is next to make a plentiful call.
    next: Arc<tokio::sync::Mutex<()>>,
}

struct Waiting {
    ticket: Ticket,
    /// What is asked for, and since when in these words.
    words: String,
    settling: Instant,
    /// When it was asked for first, in whatever words.
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
    /// So many intervals does it go before one of the last class that has waited as long. An hour of a domain
    /// name operation is as long as all domains take that AWS allows an account: nobody waits longer than
    /// that for more urgent ones.
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
    /// Whoever has the least goes first.
    fn rank(&self, interval: Duration) -> (i128, &str) {
        let head_start = (interval * self.class.head_start()).as_nanos();
        (
            self.since.as_nanosecond().saturating_sub_unsigned(head_start),
            &self.object,
        )
    }
}

impl Waiting {
    /// Since when it may be called.
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

    /// Count from now, as a process does that just started: nobody knows what a predecessor spent a moment
    /// ago. For whoever becomes leader. Tickets stay.
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

    /// These objects waited in a queue when another process ended. Until each of them has been looked at, and
    /// for three minutes at the most, nobody but those who distrust gets a turn: who is first is not known
    /// before.
    pub fn restore_waiters(&self, objects: impl Iterator<Item = String>) {
        self.state().missed = (objects.collect(), Instant::now() + RESTORE_WINDOW);
    }

    /// Ask for a call. A ticket that has to wait stays in the queue until it is granted, asked with again,
    /// withdrawn, or was called and came to nothing. `words` say what the call would do.
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

    /// Take the object's tickets out of every queue: it wants nothing any more.
    pub fn withdraw(&self, object: &str) {
        self.retain(object, |_| false);
    }

    /// A reconcile of the object, which began then, has ended: what it was called for before that and did not
    /// ask for again, it does not want.
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

    /// Everybody who waits, for metrics.
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

    /// Wait for a call's turn, in the order of asking, and make it while the flight lasts. For buckets that
    /// give many calls a second.
    pub(super) async fn acquire(&self, bucket: &Bucket) -> InFlight {
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

    /// A call that was granted is sent; it is on its way while the flight lasts.
    pub(super) fn depart(&self, bucket: &Bucket) -> InFlight {
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

    /// AWS says that there is nothing left: somebody else uses the account too.
    pub(super) fn drain(&self, bucket: &Bucket) {
        if let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) {
            let mut state = self.state();
            let queue = state.queue(bucket, interval, burst);
            queue.tokens = queue.tokens.min(0.0);
            drop(state);
            self.inner.changed.notify_one();
        }
    }

    /// The objects whose turn it is about to be, as it comes; each should reconcile again and ask again. For
    /// one listener.
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

    /// Call a ticket for which there is about to be a token; else say when there may be one.
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
        // Nothing panics between two halves of a change.
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

/// One at a time, and a long time between two.
fn is_scarce(burst: u32) -> bool {
    burst == 1
}

/// Scarce calls start with none, because a restart must not spend twice; plentiful ones with what a second
/// gives.
fn first_tokens(interval: Duration, burst: u32) -> f64 {
    if is_scarce(burst) {
        0.0
    } else {
        interval.as_secs_f64().recip().min(f64::from(burst))
    }
}

impl LimiterState {
    /// Whether everybody is there who waited before a restart, or nobody waits for them any more.
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
mod tests;
