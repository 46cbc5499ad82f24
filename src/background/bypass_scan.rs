//! Scan for mTLS bypasses: custom domains without mutual TLS that lead to mapped APIs. AWS has no list of the
//! domains of an API, so the scan reads every domain of an account and Region. It runs in the background,
//! once for all MtlsDomains there, and slowly: no reconcile waits for it, and all other calls share its
//! quota. Reads only. The result is kept in memory and decides nothing but the condition BypassDetected. The
//! scan does not read routing rules, which a domain may have instead of mappings.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::Stream;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    api::object_id::ObjectId,
    aws::{errors, session::Session},
    runtime::changes::Changes,
    telemetry::logging,
};

/// Pause between two domains: the scan uses at most a tenth of API Gateway's calls.
const PAUSE: Duration = Duration::from_secs(1);

/// An mTLS bypass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bypass {
    /// Custom domain without mutual TLS.
    pub domain: String,
    /// Mapped API that the custom domain leads to.
    pub api_id: String,
}

/// Names of the domains without mutual TLS that lead to an API, by its id.
type Found = BTreeMap<String, BTreeSet<String>>;

#[derive(Default)]
pub struct Bypasses {
    /// Accounts and Regions in which a domain is served.
    places: Mutex<Scanned>,
    /// Notified when a new account and Region is to be scanned.
    begun: Notify,
    /// MtlsDomains that are to be reconciled.
    changed: Changes,
}

type Scanned = BTreeMap<(String, String), Place>;

struct Place {
    session: Session,
    /// Domain name of each MtlsDomain that is served here, and the APIs that it maps.
    served: BTreeMap<ObjectId, (String, BTreeSet<String>)>,
    /// Result of the last scan that succeeded.
    found: Option<Found>,
    due: Instant,
}

impl Bypasses {
    /// Records that the MtlsDomain is served, under this name and with these APIs. Returns its bypasses;
    /// `None` when no scan has finished yet.
    pub fn of(
        &self,
        key: &ObjectId,
        session: &Session,
        name: &str,
        apis: impl Iterator<Item = String>,
    ) -> Option<Vec<Bypass>> {
        let mut places = self.places();
        let place = places
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

    /// Records that the MtlsDomain is not served any more.
    pub fn forget(&self, key: &ObjectId) {
        self.places().retain(|_, place| {
            place.served.remove(key);
            !place.served.is_empty()
        });
    }

    /// Stream of the MtlsDomains whose bypasses have changed. For a single listener.
    pub fn changes(self: Arc<Self>) -> impl Stream<Item = ObjectId> + Send {
        futures::stream::unfold(self, |bypasses| async move {
            let next = bypasses.changed.next().await;
            Some((next, bypasses))
        })
    }

    /// Scans each account and Region as soon as a domain is served there, and then at each interval, until
    /// `stop`.
    pub async fn run(&self, interval: Duration, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.scan_forever(interval) => {}
        }
    }

    async fn scan_forever(&self, interval: Duration) {
        loop {
            let next = self
                .places()
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

    /// Stores the result of a scan. A failed scan keeps the previous result.
    fn keep(&self, session: &Session, found: Result<Found, errors::Error>, due: Instant) {
        let mut places = self.places();
        let Some(place) = places.get_mut(&(session.account.clone(), session.region.clone())) else {
            return;
        };
        place.due = due;
        match found {
            Ok(found) => {
                let before = place.found.replace(found).unwrap_or_default();
                let now = place.found.as_ref().expect("the statement before sets it");
                let differs = |(name, apis): &(String, BTreeSet<String>)| {
                    concerning(&before, name, apis) != concerning(now, name, apis)
                };
                let served = place.served.iter().filter(|(_, served)| differs(served));
                self.changed.add(served.map(|(key, _)| key.clone()));
            }
            Err(error) => tracing::warn!(
                account = session.account, region = session.region, error = %logging::chain(&error),
                "scan for domains without mutual TLS failed"
            ),
        }
    }

    fn places(&self) -> MutexGuard<'_, Scanned> {
        self.places.lock().expect("no holder of the lock panics")
    }
}

/// Returns the domains without mutual TLS that lead to these APIs, except for the domain of this name itself.
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

    use std::collections::BTreeSet;

    #[test]
    fn the_bypasses_of_a_domain_are_all_other_domains_of_its_apis() {
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
