//! Count of how often another writer has removed the operator's headers or authorizer from an API, so that
//! the operator does not fight that writer forever. The count is in memory only: it starts again with each
//! change of the spec and with a restart.

use std::collections::BTreeMap;

use super::identity::InPlace;

use crate::{aws::gateway::integrations::Place, model::observed::Observed};

#[derive(Clone, Debug, Default)]
pub struct Contention {
    generation: i64,
    last: InPlace,
    counts: BTreeMap<String, u32>,
}

impl Contention {
    /// Records which headers and authorizers are in place at this reconcile. Returns, for each API, how many
    /// reconciles found some of them removed since this generation was first seen.
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
        lost.dedup(); // all losses of an API in one reconcile count once
        for id in lost {
            *self.counts.entry(id).or_default() += 1;
        }
        self.last = there;
        self.counts.clone()
    }
}
