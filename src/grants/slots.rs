//! Slots of the grants of one domain (`spec.maxCertificates`), which go to the requests in the order of their
//! age: the oldest first. Pure.

use super::evaluation::Fit;

/// Result of the slots for one request. Grants are positions in the list that the request's [`Fit`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed(usize),
    /// The grant, if any, of which older requests have all slots.
    Denied(Option<usize>),
    /// The same, while a fact is unknown that may allow the request.
    Unknown(Option<usize>),
}

/// Slots of one grant: those that certificates have taken, and those that they may have taken.
#[derive(Clone, Copy, Default)]
struct Used {
    taken: u32,
    tentative: u32,
}

impl Used {
    /// Returns `None` when unknown facts decide whether there is a free slot.
    fn is_free(self, max: u32) -> Option<bool> {
        match self {
            Used { taken, .. } if taken >= max => Some(false),
            Used { taken, tentative } if taken.saturating_add(tentative) >= max => None,
            _ => Some(true),
        }
    }
}

/// Slots of all grants of one domain.
pub struct Slots {
    /// Limit and use of each grant.
    grants: Vec<(Option<u32>, Used)>,
    unreadable: bool,
}

impl Slots {
    /// Returns the free slots of grants with these limits. `unreadable`: there are further grants, which the
    /// operator cannot read.
    pub fn new(limits: &[Option<u32>], unreadable: bool) -> Slots {
        Slots {
            grants: limits.iter().map(|max| (*max, Used::default())).collect(),
            unreadable,
        }
    }

    /// Gives the next request its slot.
    pub fn take(&mut self, fit: &Fit) -> Outcome {
        let (mut full, mut tentative) = (None, Vec::new());
        let mut allowed = None;
        for &(at, is_selected) in fit.admitting() {
            let (max, used) = self.grants.get(at).copied().unwrap_or_default();
            match (is_selected, max.map_or(Some(true), |max| used.is_free(max))) {
                (true, Some(true)) => {
                    allowed = Some(at);
                    break;
                }
                (true, Some(false)) => full = Some(at),
                (false, Some(false)) => {}
                // Older requests may have the slots.
                (true, None) => {
                    full = Some(at);
                    tentative.push(at);
                }
                (false, _) => tentative.push(at),
            }
        }
        let is_certain = tentative.is_empty() && !self.unreadable;
        for at in &tentative {
            self.using(*at, |used| used.tentative += 1);
        }
        match allowed {
            Some(at) => {
                self.using(at, |used| {
                    if is_certain {
                        used.taken += 1
                    } else {
                        used.tentative += 1
                    }
                });
                Outcome::Allowed(at)
            }
            None if is_certain => Outcome::Denied(full),
            None => Outcome::Unknown(full),
        }
    }

    fn using(&mut self, at: usize, change: impl FnOnce(&mut Used)) {
        if let Some((_, used)) = self.grants.get_mut(at) {
            change(used);
        }
    }
}
