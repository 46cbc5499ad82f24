//! Tests of `quota`.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::aws::{
    quota::{Bucket, Class, Grant, Quota, RESTORE_WINDOW, Ticket},
    rates::{Operation, RateOverride, Rates},
};

const INTERVAL: Duration = Duration::from_secs(30);
/// Time that a scarce call waits for its words to settle.
const SETTLED: Duration = Duration::from_secs(5);

fn update() -> Bucket {
    Bucket::new("111111111111", "eu-west-1", Operation::UpdateDomainName)
}

fn ticket(object: &str, class: Class, since: i64) -> Ticket {
    Ticket {
        class,
        since: Timestamp::from_second(since).unwrap(),
        object: object.to_owned(),
    }
}

fn drift(object: &str) -> Ticket {
    ticket(object, Class::Drift, 0)
}

/// Requests an update with unchanged words, and rounds to whole seconds: durations come out of sums of
/// fractions.
fn request(quota: &Quota, ticket: Ticket) -> Grant {
    in_words(quota, ticket, "the same")
}

fn in_words(quota: &Quota, ticket: Ticket, words: &str) -> Grant {
    let whole = |about: Duration| Duration::from_secs(about.as_secs_f64().round() as u64);
    match quota.request(&update(), ticket, words.to_owned()) {
        Grant::Go { after } => Grant::Go { after: whole(after) },
        Grant::Wait { ahead, about } => Grant::Wait {
            ahead,
            about: whole(about),
        },
    }
}

fn wait(ahead: usize, seconds: u64) -> Grant {
    Grant::Wait {
        ahead,
        about: Duration::from_secs(seconds),
    }
}

fn go(seconds: u64) -> Grant {
    Grant::Go {
        after: Duration::from_secs(seconds),
    }
}

#[tokio::test(start_paused = true)]
async fn a_scarce_bucket_starts_empty_and_gives_one_call_an_interval() {
    let quota = Quota::new(Rates::default());
    assert_eq!(request(&quota, drift("a")), wait(0, 30));
    advance(Duration::from_secs(26)).await;
    assert_eq!(request(&quota, drift("a")), wait(0, 4));
    advance(Duration::from_secs(1)).await;
    assert_eq!(
        request(&quota, drift("a")),
        go(3),
        "a little early, so that its reconcile does not take of the interval"
    );
    assert_eq!(request(&quota, drift("b")), wait(0, 33));
    advance(Duration::from_secs(33)).await;
    assert_eq!(request(&quota, drift("b")), go(0));
    // However long no request comes, there is one token, not many.
    assert_eq!(request(&quota, drift("a")), wait(0, 30));
    advance(INTERVAL * 10).await;
    assert_eq!(request(&quota, drift("a")), go(0));
    assert_eq!(request(&quota, drift("a")), wait(0, 30));
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
        request(&quota, ticket);
    }
    let places: Vec<_> = tickets.iter().map(|t| request(&quota, t.clone())).collect();
    assert_eq!(
        places,
        [
            wait(5, 180),
            wait(4, 150),
            wait(3, 120),
            wait(2, 90),
            wait(1, 60),
            wait(0, 30)
        ]
    );
    advance(INTERVAL).await;
    // A token is available, and it is the head's, whichever object asks first.
    assert_eq!(request(&quota, tickets[0].clone()), wait(5, 150));
    assert_eq!(request(&quota, tickets[5].clone()), go(0));
    assert_eq!(request(&quota, tickets[4].clone()), wait(0, 30));
}

/// Each granted object comes back at once with a more urgent request; the waiting object is still granted.
#[tokio::test(start_paused = true)]
async fn no_ticket_starves() {
    for (storm, longest) in [(Class::SpecChange, 41), (Class::Distrust, 121)] {
        let quota = Quota::new(Rates::default());
        let mut granted = pin!(quota.granted());
        let start = Instant::now();
        let now = || (Instant::now() - start).as_secs() as i64;
        request(&quota, drift("patient"));
        for object in ["storm-1", "storm-2"] {
            request(&quota, ticket(object, storm, now()));
        }
        let mut before = 0;
        loop {
            let object = granted.next().await.unwrap();
            if object == "patient" {
                break;
            }
            before += 1;
            let Grant::Go { after } = request(&quota, ticket(&object, storm, now())) else {
                panic!("{object} was called")
            };
            sleep(after).await;
            request(&quota, ticket(&object, storm, now()));
        }
        assert!((longest - 2..=longest).contains(&before), "{before} went before");
    }
}

#[tokio::test(start_paused = true)]
async fn each_object_is_requeued_once_when_its_ticket_is_granted() {
    let quota = Quota::new(Rates::default());
    let mut granted = pin!(quota.granted());
    let start = Instant::now();
    for object in ["b", "a"] {
        request(&quota, drift(object));
    }
    assert_eq!(granted.next().await.as_deref(), Some("a"));
    assert_eq!(
        (Instant::now() - start).as_secs(),
        27,
        "a tenth of the interval ahead"
    );
    assert!(timeout(Duration::from_secs(20), granted.next()).await.is_err());
    assert_eq!(request(&quota, drift("a")), go(0));
    assert_eq!(granted.next().await.as_deref(), Some("b"));
    // Tokens come every 30 s of the clock, however late the head was.
    assert_eq!((Instant::now() - start).as_secs(), 47 + 27);
    assert_eq!(request(&quota, drift("b")), go(3));
    assert!(
        timeout(INTERVAL * 10, granted.next()).await.is_err(),
        "no ticket waits"
    );
}

#[tokio::test(start_paused = true)]
async fn a_granted_ticket_that_does_not_come_back_holds_up_no_other() {
    let quota = Quota::new(Rates::default());
    let mut granted = pin!(quota.granted());
    let start = Instant::now();
    for object in ["gone", "idle", "patient"] {
        request(&quota, drift(object));
    }
    assert_eq!(granted.next().await.as_deref(), Some("gone"));
    assert_eq!(granted.next().await.as_deref(), Some("idle"));
    assert_eq!(
        (Instant::now() - start).as_secs(),
        87,
        "27 for the token, 60 until the grant expires"
    );
    // A reconcile that needs no call any more makes room at once; a reconcile that began before the grant
    // changes nothing.
    quota.reconciled("idle", start);
    assert!(timeout(Duration::from_secs(1), granted.next()).await.is_err());
    quota.reconciled("idle", Instant::now());
    assert_eq!(granted.next().await.as_deref(), Some("patient"));
    assert_eq!(request(&quota, drift("patient")), go(0));
}

#[tokio::test(start_paused = true)]
async fn a_more_urgent_ticket_passes_a_granted_one() {
    let quota = Quota::new(Rates::default());
    let mut granted = pin!(quota.granted());
    request(&quota, drift("a"));
    assert_eq!(granted.next().await.as_deref(), Some("a"));
    assert_eq!(request(&quota, ticket("z", Class::Distrust, 9)), go(3));
    assert_eq!(request(&quota, drift("a")), wait(0, 33));
    assert_eq!(granted.next().await.as_deref(), Some("a"), "it is granted again");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_ticket_is_never_granted() {
    let quota = Quota::new(Rates::default());
    let mut granted = pin!(quota.granted());
    request(&quota, drift("a"));
    request(&quota, drift("b"));
    quota.withdraw("a");
    assert_eq!(request(&quota, drift("b")), wait(0, 30));
    assert_eq!(granted.next().await.as_deref(), Some("b"));
}

/// The bucket is full when the first of five changes comes, and still there is one call, with the last of the
/// changes.
#[tokio::test(start_paused = true)]
async fn changes_within_seconds_are_one_call() {
    let quota = Quota::new(Rates::default());
    let mut granted = pin!(quota.granted());
    advance(INTERVAL * 2).await;
    for words in ["1", "2", "3", "4", "5"] {
        assert!(
            timeout(SETTLED - Duration::from_secs(1), granted.next())
                .await
                .is_err()
        );
        assert_eq!(in_words(&quota, drift("a"), words), wait(0, 5));
    }
    let last = Instant::now();
    assert_eq!(granted.next().await.as_deref(), Some("a"));
    assert_eq!(Instant::now() - last, SETTLED);
    assert_eq!(in_words(&quota, drift("a"), "5"), go(0));
    // A client that must lose access loses it at once.
    advance(INTERVAL * 2).await;
    assert_eq!(in_words(&quota, ticket("a", Class::Distrust, 0), "6"), go(0));
}

#[tokio::test(start_paused = true)]
async fn endless_changes_delay_only_their_own_ticket_and_for_one_interval() {
    let quota = Quota::new(Rates::default());
    advance(INTERVAL * 2).await;
    for second in 0..30 {
        assert!(
            matches!(
                in_words(&quota, drift("a"), &second.to_string()),
                Grant::Wait { .. }
            ),
            "{second}"
        );
        if second == 10 {
            assert_eq!(
                in_words(&quota, drift("b"), ""),
                wait(1, 30),
                "behind it, as far as can be told"
            );
        }
        if second == 20 {
            assert_eq!(
                in_words(&quota, drift("b"), ""),
                go(0),
                "it is asked for in the same words since 10"
            );
        }
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(
        in_words(&quota, drift("a"), "30"),
        wait(0, 20),
        "its interval is over, and b had the token"
    );
    advance(Duration::from_secs(20)).await;
    assert_eq!(in_words(&quota, drift("a"), "31"), go(0));
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
        let request = || quota.request(&bucket, ticket("a", Class::Distrust, 0), String::new());
        assert_eq!(request(), go(0));
        assert!(matches!(request(), Grant::Wait { ahead: 0, .. }));
    }
    assert_eq!(
        Bucket::new("1", "eu-west-1", Operation::Route53),
        Bucket::new("1", "us-east-1", Operation::Route53)
    );
}

#[tokio::test(start_paused = true)]
async fn the_interval_runs_from_the_answer_and_a_refusal_empties_the_bucket() {
    let quota = Quota::new(Rates::default());
    let distrust = || ticket("a", Class::Distrust, 0);
    advance(INTERVAL).await;
    assert_eq!(request(&quota, distrust()), go(0));
    let in_flight = quota.depart(&update());
    advance(Duration::from_secs(4)).await;
    assert_eq!(request(&quota, distrust()), wait(0, 30), "as far as can be told");
    drop(in_flight);
    assert_eq!(request(&quota, distrust()), wait(0, 30));
    advance(INTERVAL).await;
    quota.drain(&update());
    assert_eq!(request(&quota, distrust()), wait(0, 30));
    // A call made without a request counts too.
    advance(INTERVAL * 2).await;
    drop(quota.depart(&update()));
    assert_eq!(request(&quota, distrust()), wait(0, 30));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_counts_from_now_and_keeps_the_queue() {
    let quota = Quota::new(Rates::default());
    request(&quota, drift("a"));
    advance(INTERVAL * 2).await;
    quota.start_over();
    assert_eq!(request(&quota, drift("b")), wait(1, 60));
    let other = Bucket::new("222222222222", "eu-west-1", Operation::UpdateDomainName);
    let wait = quota.request(&other, drift("a"), String::new());
    assert_eq!(
        wait,
        Grant::Wait {
            ahead: 0,
            about: INTERVAL
        },
        "not seen before"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_no_ticket_is_granted_before_all_waiters_have_been_reconciled() {
    let quota = Quota::new(Rates::default());
    let mut granted = pin!(quota.granted());
    quota.restore_waiters(["first", "second", "idle"].map(str::to_owned).into_iter());
    request(&quota, ticket("second", Class::Creation, 2));
    request(&quota, ticket("third", Class::Creation, 3));
    advance(INTERVAL * 2).await;
    assert_eq!(
        request(&quota, ticket("second", Class::Creation, 2)),
        wait(0, 0),
        "the first has not come yet"
    );
    assert_eq!(
        request(&quota, ticket("urgent", Class::Distrust, 9)),
        go(0),
        "a client that must lose access does not wait"
    );
    quota.reconciled("idle", Instant::now());
    assert!(timeout(INTERVAL, granted.next()).await.is_err());
    advance(SETTLED).await;
    assert_eq!(request(&quota, ticket("first", Class::Creation, 1)), wait(0, 5));
    assert_eq!(
        granted.next().await.as_deref(),
        Some("second"),
        "while the first settles"
    );
    assert_eq!(request(&quota, ticket("second", Class::Creation, 2)), go(0));
    assert_eq!(granted.next().await.as_deref(), Some("first"));
}

#[tokio::test(start_paused = true)]
async fn no_waiter_is_awaited_forever_after_a_restart() {
    let quota = Quota::new(Rates::default());
    let mut granted = pin!(quota.granted());
    let start = Instant::now();
    quota.restore_waiters([String::from("gone")].into_iter());
    request(&quota, drift("a"));
    assert_eq!(granted.next().await.as_deref(), Some("a"));
    assert_eq!(Instant::now() - start, RESTORE_WINDOW);
}

#[tokio::test(start_paused = true)]
async fn plentiful_calls_wait_in_the_order_of_asking() {
    let quota = Quota::new(Rates::default());
    let bucket = Bucket::new("1", "eu-west-1", Operation::ApiGateway);
    let start = Instant::now();
    let calls = futures::future::join_all((0..25).map(|_| async {
        drop(quota.acquire(&bucket).await);
        (Instant::now() - start).as_millis()
    }));
    let at = calls.await;
    assert!(at.is_sorted());
    assert_eq!(at[..9], [0; 9], "a fresh process has what a second gives");
    assert!(
        (1745..=1765).contains(&at[24]),
        "the rest one by one, 110 ms each: {at:?}"
    );
    // After a pause the whole burst is available.
    advance(Duration::from_secs(60)).await;
    let start = Instant::now();
    for _ in 0..30 {
        drop(quota.acquire(&bucket).await);
    }
    assert_eq!(Instant::now(), start);
}

/// AWS counts a call somewhere between its start and its answer. However late a call is, AWS never counts
/// more than its quota.
#[tokio::test(start_paused = true)]
async fn calls_that_arrive_late_and_all_at_once_keep_to_the_quota() {
    let quota = Quota::new(Rates::default());
    let bucket = Bucket::new("1", "eu-west-1", Operation::Route53);
    advance(Duration::from_secs(60)).await;
    let stalled_until = Instant::now() + Duration::from_secs(10);
    let calls = (0..40).map(|_| async {
        let _in_flight = quota.acquire(&bucket).await;
        // No call gets through for ten seconds, then all at once.
        tokio::time::sleep_until(stalled_until.max(Instant::now() + Duration::from_millis(100))).await;
        Instant::now()
    });
    let counted = futures::future::join_all(calls).await;
    let (mut tokens, mut last) = (5.0, stalled_until);
    for at in counted {
        tokens = f64::min(tokens + (at - last).as_secs_f64() * 5.0, 5.0) - 1.0;
        last = at;
        assert!(tokens >= 0.0, "{:?} after the others", at - stalled_until);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_no_call_waits() {
    let all = "*=unlimited".parse::<RateOverride>().unwrap();
    let quota = Quota::new(Rates::with(&[all]));
    for _ in 0..100 {
        assert_eq!(request(&quota, drift("a")), go(0));
        drop(quota.acquire(&update()).await);
    }
    assert!(timeout(INTERVAL, pin!(quota.granted()).next()).await.is_err());
}
