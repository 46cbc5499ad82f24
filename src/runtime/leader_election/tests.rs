//! Tests of `leader_election`.

use super::*;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Method;

use k8s_openapi::api::coordination::v1::LeaseSpec;

use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::runtime::fake;

fn spec(holder: &str, seconds: Option<i32>) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.into()),
        lease_duration_seconds: seconds,
        ..LeaseSpec::default()
    }
}

#[test]
fn a_lease_is_taken_when_free_or_silent_for_as_long_as_its_holder_promised() {
    let s = Duration::from_secs;
    let cases = [
        (None, 0, Step::Take),
        (Some(spec("", Some(12))), 0, Step::Take),
        (Some(spec("a", Some(12))), 99, Step::Renew),
        (Some(spec("b", Some(12))), 11, Step::Wait),
        (Some(spec("b", Some(12))), 12, Step::Take),
        (Some(spec("b", Some(60))), 59, Step::Wait),
        (Some(spec("b", None)), 11, Step::Wait),
        (Some(spec("b", None)), 12, Step::Take),
    ];
    for (spec, silent, expected) in cases {
        assert_eq!(
            step(spec.as_ref(), "a", s(silent)),
            expected,
            "{spec:?} silent for {silent} s"
        );
    }
}

#[test]
fn an_election_is_over_when_its_task_is() {
    let (held, leadership) = watch::channel(None);
    let leadership = Leadership(leadership);
    assert!(!leadership.is_over());
    drop(held);
    assert!(leadership.is_over());
}

#[test]
fn two_identities_on_one_host_differ() {
    assert_ne!(identity("host"), identity("host"));
}

/// Network between one client and the server.
#[derive(Clone, Copy, PartialEq)]
enum Network {
    Fine,
    /// No request arrives.
    Refused,
    /// Writes arrive and take effect, but the answer is lost.
    AnswersLost,
}

/// API server with one Lease.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<(u64, Option<Value>)>>);

impl Server {
    fn answer(&self, method: &Method, mut body: Value) -> (u16, Value) {
        let (version, stored) = &mut *self.0.lock().unwrap();
        match (method, &stored) {
            (&Method::GET, None) => return fake::refusal(404, "NotFound"),
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::POST, Some(_)) => return fake::refusal(409, "AlreadyExists"),
            (&Method::PUT, Some(lease))
                if lease["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] =>
            {
                return fake::refusal(409, "Conflict");
            }
            _ => (),
        }
        *version += 1;
        body["metadata"]["resourceVersion"] = json!(version.to_string());
        *stored = Some(body.clone());
        (200, body)
    }

    fn client(&self) -> (kube::Client, Arc<Mutex<Network>>) {
        let (server, network) = (self.clone(), Arc::new(Mutex::new(Network::Fine)));
        let state = network.clone();
        let client = fake::client(move |method, _path, body| {
            let state = *state.lock().unwrap();
            if state == Network::Refused {
                return fake::refusal(500, "InternalError");
            }
            let answer = server.answer(method, body);
            if state == Network::AnswersLost {
                fake::refusal(500, "InternalError")
            } else {
                answer
            }
        });
        (client, network)
    }

    fn holder(&self) -> Option<String> {
        let (_, stored) = &*self.0.lock().unwrap();
        stored.as_ref()?["spec"]["holderIdentity"]
            .as_str()
            .map(str::to_owned)
    }

    /// Writes to the Lease without a change of its meaning.
    fn touch(&self) {
        let (version, stored) = &mut *self.0.lock().unwrap();
        *version += 1;
        stored.as_mut().unwrap()["metadata"]["resourceVersion"] = json!(version.to_string());
    }
}

struct Process {
    leads: Leadership,
    task: JoinHandle<()>,
    stop: CancellationToken,
    network: Arc<Mutex<Network>>,
}

impl Process {
    fn start(server: &Server, me: &str) -> Self {
        let (client, network) = server.client();
        let stop = CancellationToken::new();
        let (leads, task) = elect(client, "default", "op", me, stop.clone());
        Self {
            leads,
            task,
            stop,
            network,
        }
    }

    fn network(&self, state: Network) {
        *self.network.lock().unwrap() = state;
    }
}

/// Passes paused time in small steps and checks both in each: never may two lead at once.
async fn pass(seconds: u64, a: &Leadership, b: &Leadership) {
    for _ in 0..seconds * 20 {
        assert!(!(a.is_held() && b.is_held()), "two leaders");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_hands_over_at_once() {
    let server = Server::default();
    let a = Process::start(&server, "a");
    a.leads.acquired().await;
    let b = Process::start(&server, "b");
    pass(60, &a.leads, &b.leads).await;
    assert!(a.leads.may_write() && !b.leads.is_held());

    a.stop.cancel();
    a.task.await.unwrap();
    assert!(!a.leads.is_held());
    assert_eq!(server.holder(), None);
    pass(2, &a.leads, &b.leads).await;
    assert!(b.leads.may_write(), "no need to wait for the Lease to run out");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_the_next_one_starts() {
    let server = Server::default();
    let (a, b) = (Process::start(&server, "a"), Process::start(&server, "b"));
    a.leads.acquired().await;
    pass(5, &a.leads, &b.leads).await;
    a.network(Network::Refused);
    let cut = Instant::now();

    a.leads.lost().await;
    let lost = Instant::now();
    assert!(!a.leads.is_held() && lost - cut <= HELD);
    b.leads.acquired().await;
    assert!(Instant::now() > lost);
    pass(20, &a.leads, &b.leads).await;
    assert_eq!(server.holder().as_deref(), Some("b"));

    a.network(Network::Fine);
    pass(20, &a.leads, &b.leads).await;
    assert!(b.leads.is_held(), "the returning process does not take the Lease");
}

#[tokio::test(start_paused = true)]
async fn writing_ends_an_aws_call_before_the_term_does() {
    let server = Server::default();
    let a = Process::start(&server, "a");
    a.leads.acquired().await;
    a.network(Network::Refused);
    while a.leads.may_write() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(a.leads.is_held());
    tokio::time::sleep(AWS_CALL - Duration::from_millis(20)).await;
    assert!(
        a.leads.is_held(),
        "a call that was started in time has ended in time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_after_its_lease_ran_out() {
    let server = Server::default();
    let (a, b) = (Process::start(&server, "a"), Process::start(&server, "b"));
    a.leads.acquired().await;
    pass(5, &a.leads, &b.leads).await;
    a.task.abort();
    let killed = Instant::now();
    b.leads.acquired().await;
    assert!(killed.elapsed() >= DURATION - RENEW, "{:?}", killed.elapsed());
    assert!(killed.elapsed() <= DURATION + 2 * RETRY, "{:?}", killed.elapsed());
    assert!(!a.leads.is_held());
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_writes_by_others_cost_no_term() {
    let server = Server::default();
    let a = Process::start(&server, "a");
    a.leads.acquired().await;
    let lost = tokio::spawn({
        let leads = a.leads.clone();
        async move { leads.lost().await }
    });
    for _ in 0..10 {
        a.network(Network::AnswersLost);
        tokio::time::sleep(Duration::from_secs(4)).await;
        a.network(Network::Fine);
        server.touch();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(a.leads.may_write());
    }
    assert!(!lost.is_finished());
    a.stop.cancel();
    lost.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_second_term_does_not_hide_that_the_first_was_lost() {
    let server = Server::default();
    let a = Process::start(&server, "a");
    a.leads.acquired().await;
    a.network(Network::Refused);
    // Polled here for the first time, and then not before the second term runs.
    let mut lost = Box::pin(a.leads.lost());
    assert!(futures::poll!(&mut lost).is_pending());
    tokio::time::sleep(HELD + RETRY).await;
    assert!(!a.leads.is_held());
    a.network(Network::Fine);
    a.leads.acquired().await;
    assert!(futures::poll!(&mut lost).is_ready());
}
