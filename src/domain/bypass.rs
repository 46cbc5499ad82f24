//! Finds the other ways to mapped APIs: custom domains without mutual TLS. AWS keeps no list of what leads to
//! an API, so every domain of an account and Region is read, in the background, once for all MtlsDomains
//! there, and slowly: nothing waits for it, and everything else shares its quota. Reads only. What it found
//! is kept in memory and decides nothing but the condition BypassDetected. Routing rules, which a domain may
//! have instead of mappings, are not looked at.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::Stream;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::active_trust::DomainKey;
use crate::{
    aws::{errors, session::Session},
    telemetry::logging,
};

/// Between two domains: a tenth of API Gateway's calls at the most.
const PAUSE: Duration = Duration::from_secs(1);

/// One way round a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bypass {
    /// A custom domain without mutual TLS...
    pub domain: String,
    /// ... and the API of ours that it leads to.
    pub api_id: String,
}

/// The names of the domains without mutual TLS that lead to an API, by its id.
type Found = BTreeMap<String, BTreeSet<String>>;

#[derive(Default)]
pub struct Bypasses {
    known: Mutex<Known>,
    /// There is a place that was not there before.
    begun: Notify,
    /// Somebody is to reconcile again.
    changed: Notify,
}

#[derive(Default)]
struct Known {
    /// By account and Region; where nothing is served, there is none.
    places: BTreeMap<(String, String), Place>,
    changed: BTreeSet<DomainKey>,
}

struct Place {
    session: Session,
    /// The domain name of each MtlsDomain that is served here, and the APIs that it maps.
    served: BTreeMap<DomainKey, (String, BTreeSet<String>)>,
    /// As of the last scan that succeeded.
    found: Option<Found>,
    due: Instant,
}

impl Bypasses {
    /// The MtlsDomain is served, under this name and with these APIs: what leads round it, as far as that is
    /// known yet.
    pub fn of(
        &self,
        key: &DomainKey,
        session: &Session,
        name: &str,
        apis: impl Iterator<Item = String>,
    ) -> Option<Vec<Bypass>> {
        let mut known = self.known();
        let place = known
            .places
            .entry((session.account.clone(), session.region.clone()))
            .or_insert_with(|| {
                self.begun.notify_one();
                Place {
                    session: session.clone(),
                    served: BTreeMap::new(),
                    found: None,
                    due: Instant::now(),
                }
            });
        place.session = session.clone();
        let (name, apis) = place
            .served
            .entry(key.clone())
            .insert_entry((name.to_owned(), apis.collect()))
            .get()
            .clone();
        place.found.as_ref().map(|found| concerning(found, &name, &apis))
    }

    /// It is not served any more.
    pub fn forget(&self, key: &DomainKey) {
        self.known().places.retain(|_, place| {
            place.served.remove(key);
            !place.served.is_empty()
        });
    }

    /// The MtlsDomains for which something has changed, as it is found. For one listener.
    pub fn changes(self: Arc<Self>) -> impl Stream<Item = DomainKey> + Send {
        futures::stream::unfold(self, |bypasses| async move {
            loop {
                let next = bypasses.known().changed.pop_first();
                match next {
                    Some(key) => return Some((key, bypasses)),
                    None => bypasses.changed.notified().await,
                }
            }
        })
    }

    /// Scans each place as soon as something is served there, and then again and again, until `stop`.
    pub async fn run(&self, interval: Duration, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.scan_forever(interval) => {}
        }
    }

    async fn scan_forever(&self, interval: Duration) {
        loop {
            let next = self
                .known()
                .places
                .values()
                .min_by_key(|p| p.due)
                .map(|p| (p.due, p.session.clone()));
            match next {
                Some((due, session)) if due <= Instant::now() => {
                    let found = Box::pin(scan(&session)).await;
                    self.keep(&session, found, Instant::now() + interval);
                }
                Some((due, _)) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = self.begun.notified() => {}
                },
                None => self.begun.notified().await,
            }
        }
    }

    /// A scan that failed says nothing: what was found before stays.
    fn keep(&self, session: &Session, found: Result<Found, errors::Error>, due: Instant) {
        let mut known = self.known();
        let Known { places, changed } = &mut *known;
        let Some(place) = places.get_mut(&(session.account.clone(), session.region.clone())) else {
            return;
        };
        place.due = due;
        match found {
            Ok(found) => {
                let before = place.found.replace(found).unwrap_or_default();
                let now = place.found.as_ref().expect("set in the line before");
                let differs = |(name, apis): &(String, BTreeSet<String>)| {
                    concerning(&before, name, apis) != concerning(now, name, apis)
                };
                changed.extend(
                    place
                        .served
                        .iter()
                        .filter(|(_, served)| differs(served))
                        .map(|(key, _)| key.clone()),
                );
                self.changed.notify_one();
            }
            Err(error) => tracing::warn!(
                account = session.account, region = session.region, error = %logging::chain(&error),
                "looking for domains without mutual TLS failed"
            ),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics while holding it")
    }
}

/// Which domains without mutual TLS lead to these APIs, but for the domain of this name itself.
fn concerning(found: &Found, name: &str, apis: &BTreeSet<String>) -> Vec<Bypass> {
    let ways = apis.iter().filter_map(|api| Some((api, found.get(api)?)));
    let ways = ways.flat_map(|(api, domains)| domains.iter().map(move |domain| (api, domain)));
    let others = ways.filter(|(_, domain)| *domain != name);
    let mut all: Vec<_> = others
        .map(|(api, domain)| Bypass {
            domain: domain.clone(),
            api_id: api.clone(),
        })
        .collect();
    all.sort();
    all
}

async fn scan(session: &Session) -> Result<Found, errors::Error> {
    let mut found = Found::new();
    for domain in session
        .gateway
        .domains()
        .await?
        .into_iter()
        .filter(|domain| !domain.mutual_tls)
    {
        tokio::time::sleep(PAUSE).await;
        for api in session.gateway.apis_behind(&domain).await? {
            found.entry(api).or_default().insert(domain.name.clone());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_a_domain_is_every_way_to_its_apis_but_itself() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let found = Found::from([
            ("a1".to_owned(), names(&["mtls.example.com", "plain.example.com"])),
            ("a2".to_owned(), names(&["old.example.com", "plain.example.com"])),
            ("a3".to_owned(), names(&["other.example.com"])),
        ]);
        let way = |domain: &str, api: &str| Bypass {
            domain: domain.into(),
            api_id: api.into(),
        };
        assert_eq!(
            concerning(&found, "mtls.example.com", &names(&["a1", "a2", "a9"])),
            [
                way("old.example.com", "a2"),
                way("plain.example.com", "a1"),
                way("plain.example.com", "a2")
            ]
        );
        assert_eq!(concerning(&found, "other.example.com", &names(&["a3"])), []);
    }
}
