//! Order in which work of several namespaces runs. Pure.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Number of pieces of work of one namespace that may wait.
pub(super) const WAITING: usize = 256;

/// Order of the work: the namespace that has used the least time is next (start-time fair queueing, Goyal et
/// al. 1996, with one piece of work at a time for each namespace). It has no clock.
pub(super) struct Queue<T> {
    pub(super) tenants: HashMap<String, Tenant<T>>,
    /// Used time of the namespace whose work began last. A namespace that comes back starts here: its rest
    /// earns it nothing.
    now: Duration,
    /// Number of pieces of work so far; the older wins between equals.
    arrived: u64,
    pub(super) closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            tenants: HashMap::new(),
            now: Duration::ZERO,
            arrived: 0,
            closed: false,
        }
    }
}

pub(super) struct Tenant<T> {
    waiting: VecDeque<(u64, T)>,
    used: Duration,
    pub(super) running: Option<Instant>,
}

impl<T> Queue<T> {
    /// Adds work; returns false when the namespace has too much of it.
    pub(super) fn push(&mut self, namespace: &str, work: T) -> bool {
        let now = self.now;
        let tenant = self.tenants.entry(namespace.to_owned()).or_insert(Tenant {
            waiting: VecDeque::new(),
            used: now,
            running: None,
        });
        if tenant.waiting.len() >= WAITING {
            return false;
        }
        if tenant.waiting.is_empty() && tenant.running.is_none() {
            tenant.used = tenant.used.max(now);
        }
        self.arrived += 1;
        tenant.waiting.push_back((self.arrived, work));
        true
    }

    /// Takes the next work, of a namespace of which none is running.
    pub(super) fn pop(&mut self, at: Instant) -> Option<(String, T)> {
        let free = self.tenants.iter_mut().filter(|(_, t)| t.running.is_none());
        let first = free.filter_map(|(name, tenant)| {
            let arrived = tenant.waiting.front()?.0;
            Some(((tenant.used, arrived), name, tenant))
        });
        let (_, name, tenant) = first.min_by_key(|(order, ..)| *order)?;
        let (_, work) = tenant.waiting.pop_front()?;
        tenant.running = Some(at);
        self.now = self.now.max(tenant.used);
        Some((name.clone(), work))
    }

    /// Records the end of the namespace's running work.
    pub(super) fn done(&mut self, namespace: &str, took: Duration) {
        if let Some(tenant) = self.tenants.get_mut(namespace) {
            tenant.running = None;
            tenant.used += took;
        }
        let now = self.now;
        self.tenants
            .retain(|_, t| t.running.is_some() || !t.waiting.is_empty() || t.used > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    fn next(queue: &mut Queue<u32>) -> Option<(String, u32)> {
        queue.pop(Instant::now())
    }

    #[test]
    fn a_namespace_with_much_work_delays_another_by_one_piece() {
        let mut queue = Queue::default();
        for n in 0..200 {
            assert!(queue.push("acme", n));
        }
        let (who, _) = next(&mut queue).unwrap();
        assert_eq!(who, "acme");
        assert_eq!(next(&mut queue), None, "it has one thread at most");
        queue.push("zeta", 1000);
        assert_eq!(
            next(&mut queue),
            Some(("zeta".into(), 1000)),
            "the other thread is free"
        );
        queue.done("acme", Duration::from_secs(5));
        queue.done("zeta", Duration::from_millis(1));
        queue.push("zeta", 1001);
        assert_eq!(
            next(&mut queue),
            Some(("zeta".into(), 1001)),
            "it has used less, although it came last"
        );
        assert_eq!(next(&mut queue).unwrap().0, "acme");
    }

    #[test]
    fn rest_earns_nothing_and_idle_namespaces_are_forgotten() {
        let mut queue = Queue::default();
        for n in 0..10 {
            queue.push("busy", n);
            next(&mut queue);
            queue.done("busy", Duration::from_secs(1));
        }
        queue.push("busy", 10);
        queue.push("fresh", 0);
        queue.push("fresh", 1);
        assert_eq!(next(&mut queue).unwrap().0, "fresh");
        queue.done("fresh", Duration::from_secs(5));
        assert_eq!(
            next(&mut queue).unwrap().0,
            "busy",
            "the ten seconds that it did not use are gone"
        );
        queue.done("busy", Duration::from_secs(9));
        assert_eq!(next(&mut queue).unwrap().0, "fresh");
        queue.done("fresh", Duration::ZERO);
        assert!(queue.tenants.len() <= 1, "{:?}", queue.tenants.keys());
    }

    #[test]
    fn rest_during_the_work_of_others_earns_nothing() {
        let mut queue = Queue::default();
        for (name, seconds) in [("rested", 10), ("busy", 20)] {
            queue.push(name, 0);
            next(&mut queue);
            queue.done(name, Duration::from_secs(seconds));
        }
        queue.push("busy", 1);
        assert_eq!(next(&mut queue), Some(("busy".into(), 1)));
        queue.push("busy", 2);
        queue.push("rested", 3);
        queue.done("busy", Duration::ZERO);
        assert_eq!(next(&mut queue), Some(("busy".into(), 2)), "it came first");
    }

    #[test]
    fn a_namespace_has_a_limit_of_its_own() {
        let mut queue = Queue::default();
        for n in 0..256 {
            assert!(queue.push("acme", n));
        }
        assert!(!queue.push("acme", 256));
        assert!(queue.push("zeta", 0));
    }

    proptest! {
        /// While several namespaces have work all the time, each gets the same time up to one piece of work.
        #[test]
        fn time_is_shared_equally(pieces in proptest::collection::vec(1u64..100, 1..400)) {
            let mut queue = Queue::default();
            let names = ["a", "b", "c"];
            let mut used: BTreeMap<String, u64> = BTreeMap::new();
            for name in names {
                queue.push(name, 0);
                queue.push(name, 0);
            }
            for piece in pieces {
                let (name, _) = next(&mut queue).expect("each has work");
                *used.entry(name.clone()).or_default() += piece;
                queue.push(&name, 0);
                queue.done(&name, Duration::from_secs(piece));
            }
            let of = |name: &str| used.get(name).copied().unwrap_or_default();
            let used_by = names.map(of);
            prop_assert!(used_by.iter().max().unwrap() - used_by.iter().min().unwrap() <= 100, "{used:?}");
        }
    }
}
