//! Turns at AWS's quotas. Who wants a scarce call (a domain name operation every 30 seconds) draws a ticket and is woken when it
//! is its turn; then it looks again and plans, so that ten changes while it waited are one call. What is plentiful just waits.
//!
//! The queue is not kept: who waits knows since when and asks again after a restart, which restores the order.

pub use super::rates::Operation;
use super::rates::{Rate, Rates};
use futures::Stream;
use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a ticket that was called may take to come back; then the next one is called.
const PATIENCE: Duration = Duration::from_secs(60);

/// All token buckets of this process, and who waits at them. Cheap to clone.
#[derive(Clone)]
pub struct Quota {
    inner: Arc<Inner>,
}

struct Inner {
    rates: Rates,
    desk: Mutex<Desk>,
    /// Something changed that may make it somebody's turn.
    changed: Notify,
}

/// What is behind the lock.
struct Desk {
    started: Instant,
    lines: HashMap<Bucket, Line>,
}

/// What a call is counted against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    account: String,
    /// Empty where all Regions share one.
    region: String,
    operation: Operation,
}

/// Why a call is wanted; whoever comes first here goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody must lose access.
    Distrust,
    SpecChange,
    Creation,
    Drift,
}

/// A request for one call of a bucket. Order: class, then the longest wait, then the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub class: Class,
    pub since: Timestamp,
    /// Who is woken, `namespace/name`. One ticket per object and bucket.
    pub object: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Make the call now: its token is taken.
    Go,
    /// The ticket is in the line; its object will be woken.
    Wait {
        /// Tickets before this one.
        ahead: usize,
        /// How long until its turn, as far as can be told now.
        about: Duration,
    },
}

/// One bucket: its tokens and its tickets, in order.
struct Line {
    tokens: f64,
    at: Instant,
    waiting: Vec<Waiting>,
}

struct Waiting {
    ticket: Ticket,
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

impl Quota {
    pub fn new(rates: Rates) -> Quota {
        Quota {
            inner: Arc::new(Inner {
                rates,
                desk: Mutex::new(Desk {
                    started: Instant::now(),
                    lines: HashMap::new(),
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Count from now, as a process does that just started: nobody knows what a predecessor spent a moment ago. For whoever
    /// becomes leader. Tickets stay.
    pub fn start_over(&self) {
        let mut desk = self.desk();
        desk.started = Instant::now();
        for (bucket, line) in &mut desk.lines {
            if let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) {
                line.tokens = line.tokens.min(first_tokens(interval, burst));
                line.at = Instant::now();
            }
        }
        drop(desk);
        self.inner.changed.notify_one();
    }

    /// Ask for a call. A ticket that has to wait stays in the line until it is granted, asked with again, withdrawn, or was
    /// called and did not come for a minute.
    pub fn ask(&self, bucket: &Bucket, ticket: Ticket) -> Grant {
        let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
            return Grant::Go;
        };
        let mut desk = self.desk();
        let line = desk.line(bucket, interval, burst);
        line.waiting.retain(|w| w.ticket.object != ticket.object);
        line.drop_absent();
        let ahead = line.waiting.partition_point(|w| w.ticket < ticket);
        let missing = ahead as f64 + 1.0 - line.tokens;
        let grant = if missing < ROUNDING {
            line.tokens -= 1.0;
            Grant::Go
        } else {
            line.waiting.insert(
                ahead,
                Waiting {
                    ticket,
                    called: None,
                },
            );
            Grant::Wait {
                ahead,
                about: interval.mul_f64(missing),
            }
        };
        drop(desk);
        self.inner.changed.notify_one();
        grant
    }

    /// Take the object's tickets out of every line: it wants nothing any more.
    pub fn withdraw(&self, object: &str) {
        for line in self.desk().lines.values_mut() {
            line.waiting.retain(|w| w.ticket.object != object);
        }
        self.inner.changed.notify_one();
    }

    /// Wait for a call's turn, in the order of asking. For buckets that give many calls a second.
    pub async fn acquire(&self, bucket: &Bucket) {
        let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
            return;
        };
        let wait = {
            let mut desk = self.desk();
            let line = desk.line(bucket, interval, burst);
            line.tokens -= 1.0; // below zero: calls that are promised already
            interval.mul_f64((-line.tokens).max(0.0))
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// A call of this bucket has been answered. AWS counted it somewhere between its grant and now, so the time until the next
    /// one runs from now.
    pub(super) fn answered(&self, bucket: &Bucket) {
        self.rewind(bucket, f64::INFINITY);
    }

    /// AWS says that there is nothing left: somebody else uses the account too.
    pub(super) fn drain(&self, bucket: &Bucket) {
        self.rewind(bucket, 0.0);
    }

    fn rewind(&self, bucket: &Bucket, at_most: f64) {
        if let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) {
            let mut desk = self.desk();
            let line = desk.line(bucket, interval, burst);
            line.tokens = line.tokens.min(at_most);
            if at_most.is_infinite() && line.tokens < 1.0 {
                line.tokens = line.tokens.floor();
            }
            drop(desk);
            self.inner.changed.notify_one();
        }
    }

    /// The objects whose turn it is, as it comes; each should look again and ask again. For one listener.
    pub fn turns(&self) -> impl Stream<Item = String> + Send + use<> {
        futures::stream::unfold(self.clone(), |quota| async move {
            let object = quota.next_turn().await;
            Some((object, quota))
        })
    }

    async fn next_turn(&self) -> String {
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

    /// Call a ticket for which there is a token; else say when there may be one.
    fn call_next(&self) -> (Option<String>, Option<Instant>) {
        let mut again: Option<Instant> = None;
        let mut desk = self.desk();
        for (bucket, line) in &mut desk.lines {
            let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
                continue;
            };
            line.refill(interval, burst);
            line.drop_absent();
            let (tokens, at) = (line.tokens, line.at);
            for (ahead, waiting) in line.waiting.iter_mut().enumerate() {
                let missing = ahead as f64 + 1.0 - tokens;
                let next = match waiting.called {
                    Some(called) => called + PATIENCE,
                    None if missing < ROUNDING => {
                        waiting.called = Some(at);
                        return (Some(waiting.ticket.object.clone()), None);
                    }
                    None => at + interval.mul_f64(missing),
                };
                again = Some(again.map_or(next, |other| other.min(next)));
            }
        }
        (None, again)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics between two halves of a change.
        self.inner
            .desk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token is whole when less than this is missing, a millionth of the interval: sums of fractions do not come out even.
const ROUNDING: f64 = 1e-6;

/// Scarce calls start with none, because a restart must not spend twice; plentiful ones with what a second gives.
fn first_tokens(interval: Duration, burst: u32) -> f64 {
    if interval >= Duration::from_secs(1) {
        0.0
    } else {
        interval.as_secs_f64().recip().min(f64::from(burst))
    }
}

impl Desk {
    fn line(&mut self, bucket: &Bucket, interval: Duration, burst: u32) -> &mut Line {
        let started = self.started;
        let line = self.lines.entry(bucket.clone()).or_insert_with(|| Line {
            tokens: first_tokens(interval, burst),
            at: started,
            waiting: Vec::new(),
        });
        line.refill(interval, burst);
        line
    }
}

impl Line {
    fn refill(&mut self, interval: Duration, burst: u32) {
        let now = Instant::now();
        let gained = (now - self.at).as_secs_f64() / interval.as_secs_f64();
        self.tokens = (self.tokens + gained).min(f64::from(burst));
        self.at = now;
    }

    fn drop_absent(&mut self) {
        let now = Instant::now();
        self.waiting
            .retain(|w| w.called.is_none_or(|called| now < called + PATIENCE));
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").finish_non_exhaustive()
    }
}
