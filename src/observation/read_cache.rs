//! Cache of AWS reads, used by resyncs that expect no change. While the cache shows an object in sync, the
//! operator reads from AWS only what is due: a list that all domains of an account and Region share, and at
//! times something of the object's own. When the cache shows anything else, or the operator has written
//! since, it reads everything again. It never changes anything because of a cached read. Reads only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::seen::{Seen, unseen};

use crate::{
    aws::{
        acm,
        arn::Arn,
        errors::{Error, Kind},
        gateway::{
            apis::{self, Protocol},
            authorizers,
            domains::Domain,
            integrations,
            mappings::Mapping,
            rest,
        },
        route53::{RecordSet, Zone},
        s3,
        session::{Access, Session},
    },
    probe::https::ProbeResult,
};

/// Maximum age of cached reads. Account-wide lists have the shortest interval. Whatever changes least and
/// concerns callers least has the longest.
#[derive(Clone, Copy, Debug)]
pub struct RefreshIntervals {
    /// Interval for custom domains, APIs and certificates, from the lists of the account and Region. Also the
    /// time between two reconciles of an object in sync.
    pub short: Duration,
    /// Interval for mappings, records and hosted zones, and for the answer of the default endpoint.
    pub medium: Duration,
    /// Interval for truststore and bucket, stages, integrations and authorizers, and for tags and validation
    /// of certificates.
    pub long: Duration,
}

/// Minimum of every interval.
const LEAST: Duration = Duration::from_secs(1);

impl RefreshIntervals {
    /// Returns the intervals for a full resync within `interval`.
    pub fn within(interval: Duration) -> Self {
        RefreshIntervals {
            short: (interval / 15).max(LEAST),
            medium: (interval / 3).max(LEAST),
            long: interval,
        }
    }

    /// Returns the intervals of one object: up to a fifth shorter, so that not all objects are due at once.
    pub fn of(self, object: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        let share = 0.8 + 0.2 * (hasher.finish() % 1000) as f64 / 1000.0;
        let [short, medium, long] =
            [self.short, self.medium, self.long].map(|interval| interval.mul_f64(share));
        RefreshIntervals { short, medium, long }
    }
}

/// All cached reads, by the access that they were read with: other permissions may show other resources.
#[derive(Default)]
pub struct ReadCache(Mutex<HashMap<Access, Arc<SessionCache>>>);

impl ReadCache {
    pub fn of(&self, access: &Access) -> Arc<SessionCache> {
        self.0
            .lock()
            .expect("no holder of the lock panics")
            .entry(access.clone())
            .or_default()
            .clone()
    }
}

/// Cached reads of one session.
#[derive(Default)]
pub struct SessionCache {
    domains: SingleFlight<(), Arc<BTreeMap<String, Domain>>>,
    apis: SingleFlight<(), Arc<BTreeMap<String, apis::Api>>>,
    listed: SingleFlight<(), Arc<Vec<acm::Listed>>>,
    /// Keyed by the certificate's list item: when the item changes, the certificate has changed.
    details: SingleFlight<acm::Listed, Option<acm::Certificate>>,
    certificates: SingleFlight<String, Option<acm::Certificate>>,
    zones: SingleFlight<(), Vec<Zone>>,
    zone: SingleFlight<String, Option<Zone>>,
    records: SingleFlight<(String, String), Vec<RecordSet>>,
    mappings: SingleFlight<String, Vec<Mapping>>,
    stages: SingleFlight<String, Option<Vec<apis::Stage>>>,
    integrations: SingleFlight<String, Vec<integrations::Integration>>,
    routes: SingleFlight<String, Vec<authorizers::Route>>,
    methods: SingleFlight<String, Arc<rest::Methods>>,
    authorizers: SingleFlight<String, Vec<authorizers::Authorizer>>,
    statements: SingleFlight<Arn, BTreeSet<String>>,
    probes: SingleFlight<String, Option<ProbeResult>>,
    buckets: SingleFlight<String, Option<s3::Bucket>>,
    tags: SingleFlight<String, BTreeMap<String, String>>,
    blocks: SingleFlight<String, bool>,
    default_keys: SingleFlight<String, Option<String>>,
    objects: SingleFlight<(String, String), Option<s3::Object>>,
}

/// Cached reads, each with its start. The first caller that finds a read too old reads again, and all others
/// wait for that read.
struct SingleFlight<K, V>(Mutex<HashMap<K, Entry<V>>>);
type Entry<V> = Arc<tokio::sync::Mutex<Option<(Instant, Seen<V>)>>>;

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        SingleFlight(Mutex::default())
    }
}

/// Age at which an unused entry is evicted.
const EVICTED_AFTER: Duration = Duration::from_secs(24 * 3600);

impl<K: Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Returns the cached value if its read began at `oldest` or later, otherwise the result of `read`. A
    /// failure is shared only with the callers that wait for it.
    async fn get(&self, key: K, oldest: Instant, read: impl Future<Output = Result<V, Error>>) -> Seen<V> {
        let asked = Instant::now();
        let entry = self.entry(key);
        let mut cache = entry.lock().await;
        match &*cache {
            Some((begun, Ok(value))) if *begun >= oldest => return Ok(value.clone()),
            Some((begun, Err(why))) if *begun >= asked => return Err(why.clone()),
            _ => {}
        }
        let begun = Instant::now();
        // Boxed: a dozen of the SDK's futures side by side are larger than a thread's stack.
        let value = Box::pin(read).await.map_err(|error| unseen(&error));
        *cache = Some((begun, value.clone()));
        value
    }

    fn entry(&self, key: K) -> Entry<V> {
        let mut all = self.0.lock().expect("no holder of the lock panics");
        if !all.contains_key(&key) {
            let is_young = |entry: &Entry<V>| match entry.try_lock() {
                Ok(cache) => cache
                    .as_ref()
                    .is_some_and(|(begun, _)| begun.elapsed() < EVICTED_AFTER),
                Err(_) => true,
            };
            all.retain(|_, entry| Arc::strong_count(entry) > 1 || is_young(entry));
        }
        all.entry(key).or_default().clone()
    }
}

/// Returns the earliest start of a read that counts: at most `interval` ago, and not before `settled`,
/// because the operator has written nothing since then.
fn oldest(now: Instant, interval: Duration, settled: Instant) -> Instant {
    now.checked_sub(interval).unwrap_or(settled).max(settled)
}

/// A session as one reconcile uses it: each read is live, or cached and recent enough.
pub struct AwsReader<'a> {
    pub session: &'a Session,
    cache: &'a SessionCache,
    /// True when a list may stand for a single item in it.
    cached: bool,
    /// Earliest start of a read that is recent enough, by interval.
    short: Instant,
    medium: Instant,
    long: Instant,
}

impl<'a> AwsReader<'a> {
    /// Returns a reader that reads everything now.
    pub fn live(session: &'a Session, cache: &'a SessionCache) -> Self {
        let now = Instant::now();
        AwsReader {
            session,
            cache,
            cached: false,
            short: now,
            medium: now,
            long: now,
        }
    }

    /// Returns a reader that uses cached reads of at most these ages, and none from before `settled`.
    pub fn cached(
        session: &'a Session,
        cache: &'a SessionCache,
        refresh: RefreshIntervals,
        settled: Instant,
    ) -> Self {
        let now = Instant::now();
        let since = |interval: Duration| oldest(now, interval, settled);
        let (short, medium, long) = (since(refresh.short), since(refresh.medium), since(refresh.long));
        AwsReader {
            session,
            cache,
            cached: true,
            short,
            medium,
            long,
        }
    }

    pub fn is_cached(&self) -> bool {
        self.cached
    }

    pub async fn domain(&self, name: &str) -> Seen<Option<Domain>> {
        let gateway = &self.session.gateway;
        if self.cached {
            let all = self
                .cache
                .domains
                .get((), self.short, async {
                    gateway.all_domains().await.map(Arc::new)
                })
                .await?;
            // A domain that is not in the list is read by its name: the list lacks some kinds of domains.
            if let Some(found) = all.get(name) {
                return Ok(Some(found.clone()));
            }
        }
        Box::pin(gateway.domain(name))
            .await
            .map_err(|error| unseen(&error))
    }

    pub async fn api(&self, id: &str) -> Seen<Option<apis::Api>> {
        let gateway = &self.session.gateway;
        if self.cached {
            let all = self
                .cache
                .apis
                .get((), self.short, async { gateway.all_apis().await.map(Arc::new) })
                .await?;
            if let Some(found) = all.get(id) {
                return Ok(Some(found.clone()));
            }
        }
        Box::pin(gateway.api(id)).await.map_err(|error| unseen(&error))
    }

    /// Returns all certificates for exactly this domain name.
    pub async fn certificates(&self, domain_name: &str) -> Seen<Vec<acm::Certificate>> {
        let acm = &self.session.acm;
        let listed = self
            .cache
            .listed
            .get((), self.short, async { acm.listed().await.map(Arc::new) })
            .await?;
        let mut found = Vec::new();
        for listed in listed
            .iter()
            .filter(|l| l.domain_name.eq_ignore_ascii_case(domain_name))
        {
            let read = acm.certificate(&listed.arn);
            found.extend(self.cache.details.get(listed.clone(), self.long, read).await?);
        }
        Ok(found)
    }

    pub async fn certificate(&self, arn: &str) -> Seen<Option<acm::Certificate>> {
        self.cache
            .certificates
            .get(arn.to_owned(), self.long, self.session.acm.certificate(arn))
            .await
    }

    pub async fn zones(&self) -> Seen<Vec<Zone>> {
        self.cache
            .zones
            .get((), self.medium, self.session.route53.zones())
            .await
    }

    pub async fn zone(&self, id: &str) -> Seen<Option<Zone>> {
        self.cache
            .zone
            .get(id.to_owned(), self.medium, self.session.route53.zone(id))
            .await
    }

    pub async fn records(&self, zone_id: &str, name: &str) -> Seen<Vec<RecordSet>> {
        let key = (zone_id.to_owned(), name.to_owned());
        self.cache
            .records
            .get(key, self.medium, self.session.route53.records(zone_id, name))
            .await
    }

    pub async fn mappings(&self, domain: &str) -> Seen<Vec<Mapping>> {
        self.cache
            .mappings
            .get(
                domain.to_owned(),
                self.medium,
                self.session.gateway.mappings(domain),
            )
            .await
    }

    /// Returns all stages of an API; `None`: there is no such API.
    pub async fn stages(&self, protocol: Protocol, api_id: &str) -> Seen<Option<Vec<apis::Stage>>> {
        let read = async {
            match self.session.gateway.stages(protocol, api_id).await {
                Err(error) if error.kind == Kind::NotFound => Ok(None),
                other => other.map(Some),
            }
        };
        self.cache.stages.get(api_id.to_owned(), self.long, read).await
    }

    pub async fn integrations(
        &self,
        protocol: Protocol,
        api_id: &str,
    ) -> Seen<Vec<integrations::Integration>> {
        if protocol == Protocol::Rest {
            return Ok(self.methods(api_id).await?.integrations.clone());
        }
        let read = self.session.gateway.integrations(api_id);
        self.cache
            .integrations
            .get(api_id.to_owned(), self.long, read)
            .await
    }

    /// Returns the routes of an API, or the methods of a REST API.
    pub async fn routes(&self, protocol: Protocol, api_id: &str) -> Seen<Vec<authorizers::Route>> {
        if protocol == Protocol::Rest {
            return Ok(self.methods(api_id).await?.routes.clone());
        }
        self.cache
            .routes
            .get(api_id.to_owned(), self.long, self.session.gateway.routes(api_id))
            .await
    }

    /// Returns the methods and integrations of a REST API, which a single read yields.
    async fn methods(&self, api_id: &str) -> Seen<Arc<rest::Methods>> {
        let read = async { self.session.gateway.methods(api_id).await.map(Arc::new) };
        self.cache.methods.get(api_id.to_owned(), self.long, read).await
    }

    pub async fn authorizers(&self, protocol: Protocol, api_id: &str) -> Seen<Vec<authorizers::Authorizer>> {
        let read = self.session.gateway.authorizers(protocol, api_id);
        self.cache
            .authorizers
            .get(api_id.to_owned(), self.long, read)
            .await
    }

    /// Returns the ids of the statements in the policy of a Lambda function.
    pub async fn statements(&self, function: &Arn) -> Seen<BTreeSet<String>> {
        let read = async { self.session.lambda(function).statements(function.as_str()).await };
        self.cache.statements.get(function.clone(), self.long, read).await
    }

    /// Returns the answer of a default endpoint, at all stages that are probed.
    pub async fn probe(
        &self,
        at: String,
        probe: impl Future<Output = Option<ProbeResult>>,
    ) -> Option<ProbeResult> {
        self.cache
            .probes
            .get(at, self.medium, async { Ok(probe.await) })
            .await
            .ok()
            .flatten()
    }

    pub async fn bucket(&self, name: &str) -> Seen<Option<s3::Bucket>> {
        self.cache
            .buckets
            .get(name.to_owned(), self.long, self.session.s3.bucket(name))
            .await
    }

    pub async fn bucket_tags(&self, name: &str) -> Seen<BTreeMap<String, String>> {
        self.cache
            .tags
            .get(name.to_owned(), self.long, self.session.s3.bucket_tags(name))
            .await
    }

    pub async fn public_access_is_blocked(&self, bucket: &str) -> Seen<bool> {
        let read = self.session.s3.public_access_is_blocked(bucket);
        self.cache.blocks.get(bucket.to_owned(), self.long, read).await
    }

    pub async fn default_kms_key(&self, bucket: &str) -> Seen<Option<String>> {
        self.cache
            .default_keys
            .get(
                bucket.to_owned(),
                self.long,
                self.session.s3.default_kms_key(bucket),
            )
            .await
    }

    /// Returns the newest version of an object.
    pub async fn head(&self, bucket: &str, key: &str) -> Seen<Option<s3::Object>> {
        let object = (bucket.to_owned(), key.to_owned());
        self.cache
            .objects
            .get(object, self.long, self.session.s3.head(bucket, key))
            .await
    }
}

#[cfg(test)]
mod tests;
