//! Tests of `read_cache`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::time::{Instant, advance, sleep};

use crate::{
    aws::errors::{Error, Kind},
    observation::{
        read_cache::{AwsReader, SessionCache, oldest},
        refresh_intervals::RefreshIntervals,
        single_flight::{EVICTED_AFTER, SingleFlight},
    },
};

#[test]
fn refresh_intervals_are_fractions_of_the_full_resync_with_a_minimum() {
    let seconds = |refresh: RefreshIntervals| {
        [refresh.short, refresh.medium, refresh.long].map(|interval| interval.as_secs())
    };
    assert_eq!(
        seconds(RefreshIntervals::within(Duration::from_secs(900))),
        [60, 300, 900]
    );
    assert_eq!(
        seconds(RefreshIntervals::within(Duration::from_secs(1))),
        [1, 1, 1]
    );
    for object in ["a", "b", "c"] {
        let [short, medium, long] = seconds(RefreshIntervals::within(Duration::from_secs(900)).of(object));
        assert!((48..=60).contains(&short) && (240..=300).contains(&medium) && (720..=900).contains(&long));
    }
}

/// A value whose read takes a second, and that is another each time.
#[derive(Default)]
struct World {
    reads: AtomicUsize,
    is_down: bool,
}

impl World {
    async fn read(&self) -> Result<usize, Error> {
        sleep(Duration::from_secs(1)).await;
        let count = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        let (kind, operation, message) = (Kind::Transient, "s3:HeadBucket", "down".to_owned());
        if self.is_down {
            Err(Error {
                kind,
                operation,
                message,
                code: None,
                source: None,
            })
        } else {
            Ok(count)
        }
    }
}

#[test]
fn a_read_from_before_the_operators_own_write_does_not_count() {
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let at = |minutes| start + minute * minutes;
    for (now, settled, expected) in [(10, 0, 9), (10, 9, 9), (10, 10, 10), (1, 0, 0)] {
        assert_eq!(
            oldest(at(now), minute, at(settled)),
            at(expected),
            "{now} {settled}"
        );
    }
    let century = Duration::from_secs(100 * 366 * 24 * 3600);
    assert_eq!(
        oldest(at(10), century, at(3)),
        at(3),
        "a time before the machine was started"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cached_pass_reads_again_what_was_read_before_it_settled() {
    use crate::aws::{call_guard::Gate, fake, quota::Quota, rates::Rates};
    let gate = Gate::new(Quota::new(Rates::with(&["*=unlimited".parse().unwrap()])), || {
        true
    });
    let calls = Arc::new(Mutex::new(Vec::new()));
    let log = calls.clone();
    let session = fake::session(&gate, move |call, _| {
        log.lock().unwrap().push(
            call.split('?')
                .next()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned(),
        );
        match call {
            _ if call.contains("/domainnames?") || call.ends_with("/domainnames") => {
                (200, r#"{"items": [{"domainName": "listed.example.com"}]}"#.into())
            }
            _ => (404, "{}".into()),
        }
    });
    let (cache, refresh) = (
        SessionCache::default(),
        RefreshIntervals::within(Duration::from_secs(900)),
    );
    let calls = move || std::mem::take(&mut *calls.lock().unwrap());
    let start = Instant::now();
    let cached = |settled| AwsReader::cached(&session, &cache, refresh, settled);
    assert!(
        cached(start)
            .domain("listed.example.com")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(calls(), ["domainnames"]);
    assert!(
        cached(start)
            .domain("listed.example.com")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(calls(), [""; 0], "the list is recent enough");
    assert_eq!(cached(start).domain("other.example.com").await, Ok(None));
    assert_eq!(
        calls(),
        ["other.example.com"],
        "not all kinds of domains are in the list"
    );
    advance(Duration::from_secs(1)).await;
    cached(Instant::now()).domain("listed.example.com").await.unwrap();
    assert_eq!(
        calls(),
        ["domainnames"],
        "something was written since it was read"
    );
    advance(refresh.short + Duration::from_secs(1)).await;
    cached(start).domain("listed.example.com").await.unwrap();
    assert_eq!(calls(), ["domainnames"], "the list is too old");
    assert_eq!(
        AwsReader::live(&session, &cache)
            .domain("listed.example.com")
            .await,
        Ok(None)
    );
    assert_eq!(
        calls(),
        ["listed.example.com"],
        "a live pass reads the domain itself"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cached_read_is_used_as_long_as_it_is_recent_enough() {
    let (single_flight, world) = (SingleFlight::default(), World::default());
    let start = Instant::now();
    assert_eq!(single_flight.get("a", start, world.read()).await, Ok(1));
    assert_eq!(single_flight.get("a", start, world.read()).await, Ok(1));
    assert_eq!(single_flight.get("b", start, world.read()).await, Ok(2));
    // The age of a read counts from its start: it may miss a change during the read.
    assert_eq!(
        single_flight
            .get("a", start + Duration::from_millis(500), world.read())
            .await,
        Ok(3)
    );
    advance(EVICTED_AFTER).await;
    assert_eq!(single_flight.get("c", start, world.read()).await, Ok(4));
    assert_eq!(
        single_flight.0.lock().unwrap().keys().collect::<Vec<_>>(),
        [&"c"],
        "the other entries are evicted"
    );
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_a_read_that_began_after_their_request() {
    let (single_flight, world) = (SingleFlight::default(), World::default());
    let one = async |millis| {
        sleep(Duration::from_millis(millis)).await;
        single_flight.get((), Instant::now(), world.read()).await
    };
    let all = join_all((0..50).map(|n| one(n * 10))).await;
    // The first read had begun when the others came; the second serves them all.
    assert_eq!(all[0], Ok(1));
    assert!(all[1..].iter().all(|read| *read == Ok(2)), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_only_with_waiting_callers() {
    let (single_flight, world) = (
        SingleFlight::default(),
        World {
            is_down: true,
            ..World::default()
        },
    );
    let start = Instant::now();
    let all = join_all((0..50).map(|_| single_flight.get((), start, world.read()))).await;
    assert!(all.iter().all(Result::is_err));
    assert!(
        world.reads.load(Ordering::Relaxed) <= 2,
        "callers do not time out one after the other"
    );
    let world = World::default();
    assert_eq!(single_flight.get((), start, world.read()).await, Ok(1));
}
