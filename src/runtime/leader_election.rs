//! Leader election by one `coordination.k8s.io/v1` Lease, after client-go's leaderelection. The
//! resourceVersion guards every write, only the local clock decides when a silent holder is dead, and the
//! holder stops by its own clock before that. Touches that one Lease.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::telemetry::logging::chain;

/// Time for which another process must have seen the Lease unchanged before it may take the Lease.
const DURATION: Duration = Duration::from_secs(12);
/// Time from the sending of the last successful renewal to the end of the holder's own term. One second
/// shorter than `DURATION`, which others count from when they *see* the renewal; the second covers clocks
/// that run at different speeds.
const HELD: Duration = Duration::from_secs(11);
const RENEW: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);
/// Time limit of one attempt, which is a read and a write at most. The client's own retries have no such
/// limit.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Time limit of one call to AWS, which is one attempt.
const AWS_CALL: Duration = Duration::from_secs(5);

/// Returns a holder identity that no other process has: the host's name and a random part.
pub fn identity(host: &str) -> String {
    // The operating system seeds a RandomState; the hash of an empty input is as random as the seed.
    format!("{host}_{:016x}", RandomState::new().hash_one(()))
}

/// Continuous time in which this process held the Lease.
#[derive(Clone, Copy, Debug)]
struct Term {
    since: Instant,
    until: Instant,
}

/// Read side: the current leadership of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Term>>);

impl Leadership {
    pub fn is_held(&self) -> bool {
        self.left() > Duration::ZERO
    }

    /// Returns the time for which no other process can lead, even if every further renewal fails. Zero when
    /// another process may lead.
    pub fn left(&self) -> Duration {
        self.0.borrow().map_or(Duration::ZERO, |term| {
            term.until.saturating_duration_since(Instant::now())
        })
    }

    /// True while enough time is left for a call to end within the term. Every write to AWS checks it right
    /// before the call.
    pub fn may_write(&self) -> bool {
        self.left() > AWS_CALL
    }

    /// True once the election task has ended (stopped or crashed).
    pub fn is_over(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until this process leads.
    pub async fn acquired(&self) {
        let mut terms = self.0.clone();
        while !self.is_held() {
            if terms.changed().await.is_err() {
                // The election has ended, so this process never leads again.
                return std::future::pending().await;
            }
        }
    }

    /// Waits until the current term ends, also when the election hangs, and also when another term of this
    /// process has begun since. Returns at once without a current term.
    pub async fn lost(&self) {
        let mut terms = self.0.clone();
        let mut since = None;
        loop {
            let Some(term) = *terms.borrow_and_update() else {
                return;
            };
            if Instant::now() >= term.until || *since.get_or_insert(term.since) != term.since {
                return;
            }
            tokio::select! {
                () = sleep_until(term.until) => (),
                changed = terms.changed() => if changed.is_err() { return sleep_until(term.until).await },
            }
        }
    }
}

/// Takes part in the election until `stop`; then releases the Lease, so that the next process need not wait.
/// Cancel `stop` only after all work that needs the leadership has ended, then await the task.
pub fn elect(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
    stop: CancellationToken,
) -> (Leadership, JoinHandle<()>) {
    let (held, leadership) = watch::channel(None);
    let candidate = Candidate {
        api: Api::namespaced(client, namespace),
        name: name.into(),
        me: identity.into(),
        held,
        mine: None,
        seen: None,
        logged: None,
    };
    (Leadership(leadership), tokio::spawn(candidate.run(stop)))
}

#[derive(Debug, PartialEq)]
enum Step {
    Take,
    Renew,
    Wait,
}

/// Decides the next step. Pure. `silent` is the time for which this process has seen the Lease unchanged.
fn step(spec: Option<&LeaseSpec>, me: &str, silent: Duration) -> Step {
    let holder = spec
        .and_then(|s| s.holder_identity.as_deref())
        .unwrap_or_default();
    // The duration that the holder wrote counts, not this process's own.
    let duration = spec
        .and_then(|s| s.lease_duration_seconds)
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs);
    if holder == me {
        Step::Renew
    } else if holder.is_empty() || silent >= duration {
        Step::Take
    } else {
        Step::Wait
    }
}

enum Attempt {
    /// Lease of this process, by a write sent at this time.
    Held(Instant),
    /// Lease of another process.
    Taken,
    /// Another write came first. The holder is unknown.
    Conflict,
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    me: String,
    held: watch::Sender<Option<Term>>,
    /// Lease after this process's last write: the next renewal needs no read.
    mine: Option<Lease>,
    /// The resourceVersion of another process's Lease, and the time when this process first saw it.
    seen: Option<(String, Instant)>,
    /// Leader in the last log line.
    logged: Option<String>,
}

impl Candidate {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let started = Instant::now();
            let next = match timeout(ATTEMPT, self.attempt()).await {
                Ok(Ok(Attempt::Held(sent))) => {
                    self.extend(sent);
                    started + RENEW
                }
                Ok(Ok(Attempt::Taken)) => {
                    if self.held.send_replace(None).is_some() {
                        tracing::error!("another process has taken the Lease");
                    }
                    started + RETRY
                }
                // After these outcomes the current term still counts.
                Ok(Ok(Attempt::Conflict)) => Instant::now() + RETRY,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = %chain(&error),
                        "cannot read or write the Lease"
                    );
                    Instant::now() + RETRY
                }
                Err(_) => {
                    tracing::warn!("no answer about the Lease in {ATTEMPT:?}");
                    Instant::now() + RETRY
                }
            };
            // `stop` never cancels an attempt: a renewal in flight would make the release fail.
            tokio::select! { () = stop.cancelled() => break, () = sleep_until(next) => () }
        }
        if self.held.send_replace(None).is_some() {
            match timeout(ATTEMPT, self.release()).await {
                Ok(Ok(())) => tracing::info!("released the Lease"),
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = %chain(&error),
                        "cannot release the Lease"
                    );
                }
                Err(_) => tracing::warn!("cannot release the Lease: no answer in {ATTEMPT:?}"),
            }
        }
    }

    /// Logs each holder once.
    fn log_leader(&mut self, holder: Option<String>) {
        if self.logged != holder {
            tracing::info!(
                leader = holder.as_deref().unwrap_or_default(),
                "another process leads; standing by"
            );
            self.logged = holder;
        }
    }

    fn extend(&mut self, sent: Instant) {
        let until = sent + HELD;
        self.held.send_modify(|term| match term {
            Some(term) if Instant::now() < term.until => term.until = until,
            _ => {
                tracing::info!(identity = self.me, "acquired the Lease");
                self.logged = None;
                *term = Some(Term { since: sent, until });
            }
        });
    }

    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        // `mine` is taken out: unless this write succeeds, the next attempt reads first.
        let found = match self.mine.take() {
            Some(lease) => Some(lease),
            None => self.api.get_opt(&self.name).await?,
        };
        let sent;
        let written = match found {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.spec(None)),
                };
                sent = Instant::now();
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(lease) => {
                let version = lease.resource_version().unwrap_or_default();
                if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
                    self.seen = Some((version, Instant::now()));
                }
                let silent = self
                    .seen
                    .as_ref()
                    .map_or(Duration::ZERO, |(_, since)| since.elapsed());
                if step(lease.spec.as_ref(), &self.me, silent) == Step::Wait {
                    self.log_leader(lease.spec.and_then(|spec| spec.holder_identity));
                    return Ok(Attempt::Taken);
                }
                // Carries the resourceVersion that was read: of two processes that take the Lease, one wins.
                let next = Lease {
                    spec: Some(self.spec(lease.spec.as_ref())),
                    ..lease
                };
                sent = Instant::now();
                self.api.replace(&self.name, &PostParams::default(), &next).await
            }
        };
        match written {
            Ok(lease) => {
                self.mine = Some(lease);
                Ok(Attempt::Held(sent))
            }
            Err(kube::Error::Api(s)) if s.is_conflict() || s.is_already_exists() => Ok(Attempt::Conflict),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = old.filter(|s| s.holder_identity.as_deref() == Some(&self.me));
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: mine.and_then(|s| s.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(old.map_or(0, |s| {
                s.lease_transitions
                    .unwrap_or(0)
                    .saturating_add(i32::from(mine.is_none()))
            })),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return Ok(());
        };
        match lease.spec.as_mut() {
            Some(spec) if spec.holder_identity.as_deref() == Some(&self.me) => spec.holder_identity = None,
            _ => return Ok(()),
        }
        self.api
            .replace(&self.name, &PostParams::default(), &lease)
            .await
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests;
