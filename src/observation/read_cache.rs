//! Cache of AWS reads, used by resyncs that expect no change. While the cache shows an object in sync, the
//! operator reads from AWS only what is due: a list that all domains of an account and Region share, and at
//! times something of the object's own. When the cache shows anything else, or the operator has written
//! since, it reads everything again. It never changes anything because of a cached read. Reads only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    refresh_intervals::RefreshIntervals,
    seen::{Seen, unseen},
    single_flight::SingleFlight,
};

use crate::{
    aws::{
        acm,
        arn::Arn,
        errors::Kind,
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

/// Returns the earliest start of a read that counts: at most `interval` ago, and not before `settled`,
/// because the operator has written nothing since then.
pub(crate) fn oldest(now: Instant, interval: Duration, settled: Instant) -> Instant {
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
pub(crate) mod tests;
