//! Counts how often somebody else has taken headers or an authorizer of ours out of an API, so that nobody
//! fights forever. Kept by this process, and from one spec to the next change of it: a new spec or a restart
//! begins again.

use std::collections::BTreeMap;

use super::{observed::Observed, plan::identity::InPlace};
use crate::aws::gateway::Place;

#[derive(Clone, Debug, Default)]
pub struct Contention {
    generation: i64,
    last: InPlace,
    counts: BTreeMap<String, u32>,
}

impl Contention {
    /// Takes note of what is in place at this reconcile; how often each API has lost some since they were
    /// first seen.
    pub fn count(&mut self, generation: i64, there: InPlace, o: &Observed) -> BTreeMap<String, u32> {
        if self.generation != generation {
            *self = Contention {
                generation,
                ..Contention::default()
            };
        }
        let exists = |id: &str, at: &Place| match o.apis.get(id) {
            Some(Ok(Some(api))) => {
                api.integrations.iter().flatten().flatten().any(|i| i.at == *at)
                    || api
                        .authorizers
                        .iter()
                        .flatten()
                        .any(|there| there.routes.iter().any(|route| route.at == *at))
            }
            _ => false,
        };
        let mut lost: Vec<_> = self
            .last
            .iter()
            .filter(|h| !there.contains(h) && exists(&h.0, &h.1))
            .map(|h| h.0.clone())
            .collect();
        lost.dedup(); // at one reconcile all that one API lost is one loss
        for id in lost {
            *self.counts.entry(id).or_default() += 1;
        }
        self.last = there;
        self.counts.clone()
    }
}
