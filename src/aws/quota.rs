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

/// Where somebody stands who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `namespace/name`.
    pub object: String,
    pub operation: Operation,
    pub since: Timestamp,
    /// As in [`Grant::Wait`].
    pub ahead: usize,
    pub about: Duration,
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
            region: if everywhere { String::new() } else { region.to_owned() },
            operation,
        }
    }
}

impl Quota {
    pub fn new(rates: Rates) -> Quota {
        Quota {
            inner: Arc::new(Inner {
                rates,
                desk: Mutex::new(Desk { started: Instant::now(), lines: HashMap::new() }),
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
            line.waiting.insert(ahead, Waiting { ticket, called: None });
            Grant::Wait { ahead, about: interval.mul_f64(missing) }
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

    /// Everybody who waits, for metrics.
    pub fn waiting(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for (bucket, line) in &mut self.desk().lines {
            let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) else {
                continue;
            };
            line.refill(interval, burst);
            line.drop_absent();
            places.extend(line.waiting.iter().enumerate().map(|(ahead, Waiting { ticket, .. })| Place {
                object: ticket.object.clone(),
                operation: bucket.operation,
                since: ticket.since,
                ahead,
                about: interval.mul_f64((ahead as f64 + 1.0 - line.tokens).max(0.0)),
            }));
        }
        places
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
        self.adjust(bucket, |tokens| if tokens < 1.0 { tokens.floor() } else { tokens });
    }

    /// AWS says that there is nothing left: somebody else uses the account too.
    pub(super) fn drain(&self, bucket: &Bucket) {
        self.adjust(bucket, |tokens| tokens.min(0.0));
    }

    fn adjust(&self, bucket: &Bucket, tokens: impl FnOnce(f64) -> f64) {
        if let Rate::Limited { interval, burst } = self.inner.rates.of(bucket.operation) {
            let mut desk = self.desk();
            let line = desk.line(bucket, interval, burst);
            line.tokens = tokens(line.tokens);
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
        self.inner.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token is whole when less than this is missing, a millionth of the interval: sums of fractions do not come out even.
const ROUNDING: f64 = 1e-6;

/// Scarce calls start with none, because a restart must not spend twice; plentiful ones with what a second gives.
fn first_tokens(interval: Duration, burst: u32) -> f64 {
    if interval >= Duration::from_secs(1) { 0.0 } else { interval.as_secs_f64().recip().min(f64::from(burst)) }
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
        self.waiting.retain(|w| w.called.is_none_or(|called| now < called + PATIENCE));
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::rates::RateOverride;
    use futures::StreamExt;
    use std::pin::pin;
    use tokio::time::{advance, timeout};

    const INTERVAL: Duration = Duration::from_secs(30);

    fn update() -> Bucket {
        Bucket::new("111111111111", "eu-west-1", Operation::UpdateDomainName)
    }

    fn ticket(object: &str, class: Class, since: i64) -> Ticket {
        Ticket { class, since: Timestamp::from_second(since).unwrap(), object: object.to_owned() }
    }

    fn drift(object: &str) -> Ticket {
        ticket(object, Class::Drift, 0)
    }

    fn wait(ahead: usize, seconds: u64) -> Grant {
        Grant::Wait { ahead, about: Duration::from_secs(seconds) }
    }

    /// Durations come out of sums of fractions.
    fn about(grant: Grant) -> Grant {
        match grant {
            Grant::Go => Grant::Go,
            Grant::Wait { ahead, about } => wait(ahead, about.as_secs_f64().round() as u64),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scarce_bucket_starts_empty_and_gives_one_call_an_interval() {
        let quota = Quota::new(Rates::default());
        assert_eq!(about(quota.ask(&update(), drift("a"))), wait(0, 30));
        advance(Duration::from_secs(29)).await;
        assert_eq!(about(quota.ask(&update(), drift("a"))), wait(0, 1));
        advance(Duration::from_secs(1)).await;
        assert_eq!(quota.ask(&update(), drift("a")), Grant::Go);
        assert_eq!(about(quota.ask(&update(), drift("a"))), wait(0, 30));
        // However long nobody asks, there is one, not many.
        advance(INTERVAL * 10).await;
        assert_eq!(quota.ask(&update(), drift("a")), Grant::Go);
        assert_eq!(about(quota.ask(&update(), drift("a"))), wait(0, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_is_class_then_waiting_time_then_name() {
        let quota = Quota::new(Rates::default());
        let tickets = [
            ticket("drift", Class::Drift, 1),
            ticket("new-b", Class::Creation, 5),
            ticket("new-a", Class::Creation, 5),
            ticket("older", Class::Creation, 4),
            ticket("changed", Class::SpecChange, 9),
            ticket("distrusted", Class::Distrust, 99),
        ];
        for ticket in tickets.clone() {
            quota.ask(&update(), ticket);
        }
        let places: Vec<_> = tickets.iter().map(|t| about(quota.ask(&update(), t.clone()))).collect();
        assert_eq!(places, [wait(5, 180), wait(4, 150), wait(3, 120), wait(2, 90), wait(1, 60), wait(0, 30)]);
        advance(INTERVAL).await;
        // A token is there, and it is the head's, whoever asks first.
        assert_eq!(about(quota.ask(&update(), tickets[0].clone())), wait(5, 150));
        assert_eq!(quota.ask(&update(), tickets[5].clone()), Grant::Go);
        assert_eq!(about(quota.ask(&update(), tickets[4].clone())), wait(0, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_woken_when_its_turn_comes_and_once() {
        let quota = Quota::new(Rates::default());
        let mut turns = pin!(quota.turns());
        let start = Instant::now();
        for object in ["b", "a"] {
            quota.ask(&update(), drift(object));
        }
        assert_eq!(turns.next().await.as_deref(), Some("a"));
        assert_eq!((Instant::now() - start).as_secs(), 30);
        assert!(timeout(Duration::from_secs(20), turns.next()).await.is_err());
        assert_eq!(quota.ask(&update(), drift("a")), Grant::Go);
        assert_eq!(turns.next().await.as_deref(), Some("b"));
        // Tokens come every 30 s of the clock, however late the head was.
        assert_eq!((Instant::now() - start).as_secs(), 80);
        assert_eq!(quota.ask(&update(), drift("b")), Grant::Go);
        assert!(timeout(INTERVAL * 10, turns.next()).await.is_err(), "nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_called_and_does_not_come_holds_nobody_up() {
        let quota = Quota::new(Rates::default());
        let mut turns = pin!(quota.turns());
        let start = Instant::now();
        quota.ask(&update(), drift("gone"));
        quota.ask(&update(), drift("patient"));
        assert_eq!(turns.next().await.as_deref(), Some("gone"));
        assert_eq!(turns.next().await.as_deref(), Some("patient"));
        assert_eq!((Instant::now() - start).as_secs(), 90, "30 for the token, 60 of patience");
        assert_eq!(quota.ask(&update(), drift("patient")), Grant::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_more_urgent_ticket_passes_one_that_was_called() {
        let quota = Quota::new(Rates::default());
        let mut turns = pin!(quota.turns());
        quota.ask(&update(), drift("a"));
        assert_eq!(turns.next().await.as_deref(), Some("a"));
        assert_eq!(quota.ask(&update(), ticket("z", Class::Distrust, 9)), Grant::Go);
        assert_eq!(about(quota.ask(&update(), drift("a"))), wait(0, 30));
        assert_eq!(turns.next().await.as_deref(), Some("a"), "it is called again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_withdrawn_ticket_is_nobodys_turn() {
        let quota = Quota::new(Rates::default());
        let mut turns = pin!(quota.turns());
        quota.ask(&update(), drift("a"));
        quota.ask(&update(), drift("b"));
        quota.withdraw("a");
        assert_eq!(about(quota.ask(&update(), drift("b"))), wait(0, 30));
        assert_eq!(turns.next().await.as_deref(), Some("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_is_of_one_operation_account_and_region() {
        let quota = Quota::new(Rates::default());
        advance(INTERVAL).await;
        for (account, region, operation) in [
            ("111111111111", "eu-west-1", Operation::UpdateDomainName),
            ("111111111111", "eu-west-1", Operation::CreateDomainName),
            ("111111111111", "us-east-1", Operation::UpdateDomainName),
            ("222222222222", "eu-west-1", Operation::UpdateDomainName),
        ] {
            let bucket = Bucket::new(account, region, operation);
            assert_eq!(quota.ask(&bucket, drift("a")), Grant::Go);
            assert_eq!(about(quota.ask(&bucket, drift("a"))), wait(0, 30));
        }
        assert_eq!(
            Bucket::new("1", "eu-west-1", Operation::Route53),
            Bucket::new("1", "us-east-1", Operation::Route53)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_interval_runs_from_the_answer_and_a_refusal_empties_the_bucket() {
        let quota = Quota::new(Rates::default());
        advance(INTERVAL).await;
        assert_eq!(quota.ask(&update(), drift("a")), Grant::Go);
        advance(Duration::from_secs(4)).await; // on its way
        quota.answered(&update());
        assert_eq!(about(quota.ask(&update(), drift("a"))), wait(0, 30));
        advance(INTERVAL).await;
        quota.drain(&update());
        assert_eq!(about(quota.ask(&update(), drift("a"))), wait(0, 30));
        // An answer takes nothing from a bucket that has a whole token.
        advance(INTERVAL).await;
        quota.answered(&update());
        assert_eq!(quota.ask(&update(), drift("a")), Grant::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_counts_from_now_and_keeps_the_line() {
        let quota = Quota::new(Rates::default());
        quota.ask(&update(), drift("a"));
        advance(INTERVAL * 2).await;
        quota.start_over();
        assert_eq!(about(quota.ask(&update(), drift("b"))), wait(1, 60));
        let other = Bucket::new("222222222222", "eu-west-1", Operation::UpdateDomainName);
        assert_eq!(about(quota.ask(&other, drift("a"))), wait(0, 30), "not seen before");
    }

    #[tokio::test(start_paused = true)]
    async fn plentiful_calls_wait_in_the_order_of_asking() {
        let quota = Quota::new(Rates::default());
        let bucket = Bucket::new("1", "eu-west-1", Operation::ApiGateway);
        let start = Instant::now();
        let calls = futures::future::join_all((0..25).map(|_| async {
            quota.acquire(&bucket).await;
            (Instant::now() - start).as_millis()
        }));
        let at = calls.await;
        assert!(at.is_sorted());
        assert_eq!(at[..9], [0; 9], "a fresh process has what a second gives");
        assert!((1745..=1765).contains(&at[24]), "the rest one by one, 110 ms each: {at:?}");
        // After a pause the whole burst.
        advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..30 {
            quota.acquire(&bucket).await;
        }
        assert_eq!(Instant::now(), start);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let all = "*=unlimited".parse::<RateOverride>().unwrap();
        let quota = Quota::new(Rates::with(&[all]));
        for _ in 0..100 {
            assert_eq!(quota.ask(&update(), drift("a")), Grant::Go);
            quota.acquire(&update()).await;
        }
        assert!(timeout(INTERVAL, pin!(quota.turns()).next()).await.is_err());
    }
}
