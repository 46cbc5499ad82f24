//! Limit of concurrent reconciles, in an order that is fair between namespaces. Owns the order only.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot;

/// Limit of concurrent reconciles: one of each waiting namespace in turn, and first come, first served within a
/// namespace. The limit of a `Controller` itself takes the waiting object that it finds first in a hash table
/// (kube-runtime 5.0, `Scheduler::pending`): while objects keep arriving, others wait forever.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit(Arc<Mutex<Permits>>);

#[derive(Debug)]
struct Permits {
    free: usize,
    /// Maximum number of permits of one namespace: its slow reconciles leave others some.
    of_one: usize,
    held: HashMap<String, usize>,
    waiting: HashMap<String, VecDeque<oneshot::Sender<Permit>>>,
    /// The waiting namespaces, each once; the next one first.
    turns: VecDeque<String>,
    closed: bool,
}

/// Permit for one reconcile, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    limit: ConcurrencyLimit,
    namespace: String,
}

impl ConcurrencyLimit {
    /// Creates a limit of `at_once` concurrent reconciles, three quarters of them for one namespace at most.
    pub fn new(at_once: usize) -> ConcurrencyLimit {
        ConcurrencyLimit(Arc::new(Mutex::new(Permits {
            free: at_once,
            of_one: (at_once * 3 / 4).max(1),
            held: HashMap::new(),
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            closed: false,
        })))
    }

    /// Waits for a permit, which the caller holds until it drops the result; `None` after
    /// [`ConcurrencyLimit::close`]. Facts about the object from before the wait may be stale.
    pub async fn acquire(&self, namespace: &str) -> Option<Permit> {
        let (give, receive) = oneshot::channel();
        {
            let mut permits = self.lock();
            if permits.closed {
                return None;
            }
            let waiting = permits.waiting.entry(namespace.to_owned()).or_default();
            waiting.push_back(give);
            if waiting.len() == 1 {
                permits.turns.push_back(namespace.to_owned());
            }
        }
        self.give();
        receive.await.ok()
    }

    /// Prevents every further reconcile from starting.
    pub fn close(&self) {
        let mut permits = self.lock();
        permits.closed = true;
        permits.waiting.clear();
        permits.turns.clear();
    }

    /// Gives the free permits to those whose turn it is.
    fn give(&self) {
        loop {
            let Some((namespace, waiting)) = self.lock().next() else {
                return;
            };
            let permit = Permit {
                limit: self.clone(),
                namespace,
            };
            // A permit that nobody waits for any more comes back by its drop.
            let _ = waiting.send(permit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Permits> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Permits {
    /// Takes the request whose turn it is, and a permit for it.
    fn next(&mut self) -> Option<(String, oneshot::Sender<Permit>)> {
        if self.free == 0 {
            return None;
        }
        let may = |namespace: &String| self.held.get(namespace).copied().unwrap_or_default() < self.of_one;
        let turn = self.turns.iter().position(may)?;
        let namespace = self.turns.remove(turn)?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let first = waiting.pop_front()?;
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace.clone());
        }
        self.free -= 1;
        *self.held.entry(namespace.clone()).or_default() += 1;
        Some((namespace, first))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut permits = self.limit.lock();
            permits.free += 1;
            if let Some(held) = permits.held.get_mut(&self.namespace) {
                *held -= 1;
                if *held == 0 {
                    permits.held.remove(&self.namespace);
                }
            }
        }
        self.limit.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests permits in this order, and returns the order in which they are given, one at a time.
    async fn order(requests: &[&str]) -> Vec<String> {
        let (limit, order) = (ConcurrencyLimit::new(1), Arc::new(Mutex::new(vec![])));
        let first = limit.acquire("other").await.expect("no other permit is held");
        let waiting: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(n, namespace)| {
                let (limit, order, namespace) = (limit.clone(), order.clone(), (*namespace).to_owned());
                tokio::spawn(async move {
                    let _permit = limit.acquire(&namespace).await.expect("it comes");
                    order.lock().unwrap().push(format!("{namespace}{n}"));
                })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(first);
        futures::future::join_all(waiting).await;
        order.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn waiting_namespaces_take_turns_and_requests_of_one_keep_their_order() {
        assert_eq!(order(&["a", "a", "a"]).await, ["a0", "a1", "a2"]);
        assert_eq!(
            order(&["a", "a", "a", "a", "b", "c", "b"]).await,
            ["a0", "b4", "c5", "a1", "b6", "a2", "a3"]
        );
    }

    #[tokio::test]
    async fn one_namespace_leaves_permits_to_others() {
        let limit = ConcurrencyLimit::new(8);
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(limit.acquire("a").await.unwrap());
        }
        let mut seventh = Box::pin(limit.acquire("a"));
        assert!(futures::poll!(&mut seventh).is_pending());
        let others = [
            limit.acquire("b").await.unwrap(),
            limit.acquire("c").await.unwrap(),
        ];
        assert!(
            futures::poll!(&mut Box::pin(limit.acquire("d"))).is_pending(),
            "8 of 8"
        );
        drop(others);
        assert!(futures::poll!(&mut seventh).is_pending(), "of one namespace");
        held.pop();
        assert!(seventh.await.is_some());
    }

    #[tokio::test]
    async fn a_request_that_was_given_up_takes_no_permit() {
        let limit = ConcurrencyLimit::new(1);
        let held = limit.acquire("a").await.unwrap();
        let mut gone = Box::pin(limit.acquire("a"));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        drop(held);
        let held = limit.acquire("b").await;
        assert!(held.is_some());
        limit.close();
        assert!(limit.acquire("b").await.is_none(), "what has begun goes on");
    }
}
