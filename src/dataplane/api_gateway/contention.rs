//! Count of how often another writer has removed the operator's headers or authorizer from an API, so that
//! the operator does not fight that writer forever. The count is in memory only: it starts again with each
//! change of the spec and with a restart.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    authorizer,
    parameters::{covered, expression, value},
};

use crate::{
    aws::gateway::{authorizers::Authorization, integrations::Place},
    model::{desired::Desired, observed::Observed},
};

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

/// Maximum number of corrections of one API's headers. After that, a user has to find the writer that removes
/// them.
pub const MAX_CORRECTIONS: u32 = 3;

/// Headers in place, by API, integration and header name; and authorizers in place, by API, route and
/// authorizer ID.
pub type InPlace = BTreeSet<(String, Place, String)>;

/// Returns the headers in place, with or without their tag, and the owned authorizers in use.
pub fn in_place(d: &Desired, o: &Observed) -> InPlace {
    let mut all = InPlace::new();
    for (id, api) in o
        .apis
        .iter()
        .filter_map(|(id, api)| Some((id, api.as_ref().ok()?.as_ref()?)))
    {
        for (name, source) in &d.identity {
            let expression = expression(api.api.protocol, source);
            let there = covered(api).filter(|i| value(api, i, name) == Some(&expression));
            all.extend(there.map(|i| (id.clone(), i.at.clone(), name.clone())));
        }
        for there in api.authorizers.iter().flatten() {
            let is_ours = |asked: &String| {
                there
                    .all
                    .iter()
                    .any(|a| a.id == *asked && authorizer::is_ours(&d.placement, a))
            };
            all.extend(
                there
                    .routes
                    .iter()
                    .filter_map(|route| match &route.authorization {
                        Authorization::Authorizer(asked) if is_ours(asked) => {
                            Some((id.clone(), route.at.clone(), asked.clone()))
                        }
                        _ => None,
                    }),
            );
        }
    }
    all
}
