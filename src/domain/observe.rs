//! Reads what is there: AWS through a session, Kubernetes through `sources`. Reads only; what a reading means is `plan`'s to say.
use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use kube::Client;

use super::{
    clients,
    desired::{Desired, Home, sha256},
    observed::{Api, Observed, Published, Remains, Seen, Unseen},
    plan::{OWNER_METADATA, OWNER_TAG, PENDING_TAG},
    records, sources,
};
use crate::{
    api::conditions::Reason,
    aws::{
        acm,
        errors::{self, Error, Kind},
        gateway::{Domain, Mapping},
        probe::EndpointProbe,
        route53::{RecordSet, Zone},
        s3::Content,
        session::Session,
    },
    pki::truststore::Bundle,
};

/// What a reading needs beside the session.
pub struct Eyes<'a> {
    pub client: &'a Client,
    pub probe: &'a EndpointProbe,
    /// Versions of truststore objects that were read before: a version never changes.
    pub versions: &'a Versions,
    /// Our last change of records that was not in sync at the last look.
    pub pending_change: Option<String>,
}

/// Versions of the truststore object of one domain, by URI and version.
#[derive(Debug, Default)]
pub struct Versions(std::sync::Mutex<BTreeMap<(String, String), Content>>);

pub async fn observe(d: &Desired, session: &Session, eyes: &Eyes<'_>) -> Observed {
    let home = &d.home;
    let (authorities, self_signed, zone, certificates, bucket, published, domain, apis, records_in_sync) = tokio::join!(
        Box::pin(sources::read(eyes.client, &home.namespace, &d.authorities)),
        Box::pin(clients::read(eyes.client, &home.namespace, &home.name, &d.self_signed)),
        zone(home, session),
        seen(session.acm.certificates(&home.domain_name)),
        seen(session.s3.bucket(&home.bucket)),
        published(home, session, eyes.versions),
        seen(session.gateway.domain(&home.domain_name)),
        apis(d, session, eyes.probe),
        in_sync(session, eyes.pending_change.as_deref()),
    );
    let (validation, records, mappings, pinned) = tokio::join!(
        validation(home, session, &zone, &certificates),
        records_of(home, session, &zone),
        mappings(home, session, &domain),
        pinned(home, session, &domain, eyes.versions),
    );
    eyes.versions.keep(&published, &domain);
    Observed {
        authorities,
        self_signed,
        zone,
        certificates,
        validation,
        bucket,
        published,
        pinned,
        domain,
        mappings,
        apis,
        records,
        records_in_sync,
    }
}

/// What is left of a domain that is being deleted.
pub async fn remains(home: &Home, session: &Session) -> Remains {
    let (zone, certificates, domain, versions) = tokio::join!(
        zone(home, session),
        seen(session.acm.certificates(&home.domain_name)),
        seen(session.gateway.domain(&home.domain_name)),
        versions(home, session),
    );
    let (records, mappings) = tokio::join!(records_of(home, session, &zone), mappings(home, session, &domain));
    let zone_id = zone.ok().flatten().map(|z| z.id);
    Remains { zone_id, records, domain, mappings, certificates, versions }
}

/// Why a call did not answer.
pub fn unseen(error: &Error) -> Unseen {
    let (_, reason, message) = super::report::refusal(error);
    let message = match error.kind {
        Kind::NotFound | Kind::Conflict | Kind::Invalid => error.to_string(),
        _ => message,
    };
    Unseen { reason: if reason == Reason::Progressing { Reason::Unreachable } else { reason }, message }
}

async fn seen<T>(call: impl Future<Output = Result<T, errors::Error>>) -> Seen<T> {
    // On the heap: a dozen of the SDK's futures side by side are more than a thread's stack holds.
    Box::pin(call).await.map_err(|error| unseen(&error))
}

/// The public zone of that id, or else the one with the longest name that the domain name ends in.
async fn zone(home: &Home, session: &Session) -> Seen<Option<Zone>> {
    let candidates = match &home.zone_id {
        Some(id) => seen(session.route53.zone(id)).await?.into_iter().collect(),
        None => seen(session.route53.zones()).await?,
    };
    Ok(best_zone(&home.domain_name, candidates))
}

fn best_zone(name: &str, zones: Vec<Zone>) -> Option<Zone> {
    let fitting = zones.into_iter().filter(|z| !z.private && records::is_inside(name, &z.name));
    fitting.max_by_key(|z| (z.name.len(), std::cmp::Reverse(z.id.clone())))
}

async fn validation(
    home: &Home,
    session: &Session,
    zone: &Seen<Option<Zone>>,
    certificates: &Seen<Vec<acm::Certificate>>,
) -> Seen<BTreeMap<String, Vec<RecordSet>>> {
    let (Some(zone), certificates) =
        (zone.as_ref().map_err(Clone::clone)?, certificates.as_ref().map_err(Clone::clone)?)
    else {
        return Ok(BTreeMap::new());
    };
    let ours = certificates.iter().filter(|c| c.tags.get(OWNER_TAG) == Some(&home.owner));
    let names: BTreeSet<_> =
        ours.flat_map(|c| &c.validation).filter_map(|v| v.record.as_ref()).map(|(name, _)| name.clone()).collect();
    let reads = names.into_iter().map(async |name| {
        let records = seen(session.route53.records(&zone.id, &name)).await?;
        Ok((name, records))
    });
    join_all(reads).await.into_iter().collect()
}

async fn records_of(home: &Home, session: &Session, zone: &Seen<Option<Zone>>) -> Seen<Vec<RecordSet>> {
    let Some(zone) = zone.as_ref().map_err(Clone::clone)? else { return Ok(vec![]) };
    let marker = records::marker_name(&home.domain_name);
    let (mut at_name, at_marker) = tokio::join!(
        seen(session.route53.records(&zone.id, &home.domain_name)),
        seen(session.route53.records(&zone.id, &marker)),
    );
    at_name.as_mut().map_err(|e| e.clone())?.extend(at_marker?);
    at_name
}

async fn in_sync(session: &Session, change: Option<&str>) -> Seen<bool> {
    match change {
        None => Ok(true),
        Some(id) => match Box::pin(session.route53.change_in_sync(id)).await {
            Err(error) if error.kind == Kind::NotFound => Ok(true),
            other => other.map_err(|error| unseen(&error)),
        },
    }
}

async fn mappings(home: &Home, session: &Session, domain: &Seen<Option<Domain>>) -> Seen<Vec<Mapping>> {
    match domain.as_ref().map_err(Clone::clone)? {
        None => Ok(vec![]),
        Some(_) => seen(session.gateway.mappings(&home.domain_name)).await,
    }
}

async fn apis(d: &Desired, session: &Session, probe: &EndpointProbe) -> BTreeMap<String, Seen<Option<Api>>> {
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for mapped in d.mappings.values() {
        wanted.entry(&mapped.id).or_default().insert(&mapped.stage);
    }
    let reads = wanted.into_iter().map(async |(id, stages)| (id.to_owned(), api(id, stages, session, probe).await));
    join_all(reads).await.into_iter().collect()
}

async fn api(id: &str, stages: BTreeSet<&str>, session: &Session, probe: &EndpointProbe) -> Seen<Option<Api>> {
    let Some(api) = seen(session.gateway.api(id)).await? else { return Ok(None) };
    let reads =
        stages.into_iter().map(async |name| Ok((name.to_owned(), seen(session.gateway.stage(id, name)).await?)));
    let stages = join_all(reads).await.into_iter().collect::<Seen<BTreeMap<_, _>>>()?;
    let settled = api.endpoint_closed && !api.tags.contains_key(PENDING_TAG);
    let probe = if settled { Some(Box::pin(probe.probe(&session.execute_api_host(id))).await) } else { None };
    Ok(Some(Api { api, stages, probe }))
}

// ---- the truststore object

async fn published(home: &Home, session: &Session, versions: &Versions) -> Seen<Option<Published>> {
    let Some(object) = seen(session.s3.head(&home.bucket, &home.key)).await? else { return Ok(None) };
    let Some(content) = versions.read(home, session, &object.version).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&content.bytes);
    Ok(Some(Published {
        version: object.version,
        owner: content.metadata.get(OWNER_METADATA).cloned(),
        sha256: sha256(&content.bytes),
        // What cannot be read holds no memory; it is replaced by a version that can.
        bundle: Bundle::parse(&text).unwrap_or_default(),
    }))
}

async fn pinned(
    home: &Home,
    session: &Session,
    domain: &Seen<Option<Domain>>,
    versions: &Versions,
) -> Seen<Option<Bundle>> {
    let domain = domain.as_ref().map_err(Clone::clone)?;
    let used =
        domain.as_ref().filter(|g| g.tags.get(OWNER_TAG) == Some(&home.owner)).and_then(|g| g.truststore.as_ref());
    let Some(version) = used.filter(|t| t.uri == home.truststore_uri()).and_then(|t| t.version.as_ref()) else {
        return Ok(None);
    };
    let content = versions.read(home, session, version).await?;
    Ok(content.and_then(|c| Bundle::parse(&String::from_utf8_lossy(&c.bytes)).ok()))
}

impl Versions {
    async fn read(&self, home: &Home, session: &Session, version: &str) -> Seen<Option<Content>> {
        let key = (home.truststore_uri(), version.to_owned());
        if let Some(known) = self.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let content = seen(session.s3.get(&home.bucket, &home.key, version)).await?;
        if let Some(content) = &content {
            self.lock().insert(key, content.clone());
        }
        Ok(content)
    }

    /// Forgets what is neither the latest nor in use.
    fn keep(&self, published: &Seen<Option<Published>>, domain: &Seen<Option<Domain>>) {
        let (Ok(published), Ok(domain)) = (published, domain) else { return };
        let used = domain.as_ref().and_then(|g| g.truststore.as_ref()).and_then(|t| t.version.as_ref());
        let latest = published.as_ref().map(|p| &p.version);
        self.lock().retain(|(_, version), _| Some(version) == used || Some(version) == latest);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Content>> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

/// The versions that carry our mark; somebody else's in the same key stay.
async fn versions(home: &Home, session: &Session) -> Seen<Vec<String>> {
    if home.bucket.is_empty() || seen(session.s3.bucket(&home.bucket)).await?.is_none() {
        return Ok(vec![]);
    }
    let all = seen(session.s3.versions(&home.bucket, &home.key)).await?;
    let reads = all.into_iter().filter(|v| !v.delete_marker).map(async |version| {
        let content = seen(session.s3.get(&home.bucket, &home.key, &version.id)).await?;
        let ours = content.is_some_and(|c| c.metadata.get(OWNER_METADATA) == Some(&home.owner));
        Ok(ours.then_some(version.id))
    });
    let read: Seen<Vec<_>> = join_all(reads).await.into_iter().collect();
    Ok(read?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(id: &str, name: &str, private: bool) -> Zone {
        Zone { id: id.into(), name: name.into(), private }
    }

    #[test]
    fn the_longest_public_zone_on_label_boundaries() {
        let zones = || {
            vec![
                zone("Z1", "example.com", false),
                zone("Z2", "api.example.com", false),
                zone("Z3", "mtls.api.example.com", true),
                zone("Z4", "ample.com", false),
            ]
        };
        let best = |name| best_zone(name, zones()).map(|z| z.id);
        assert_eq!(best("mtls.api.example.com").as_deref(), Some("Z2"));
        assert_eq!(best("myapi.example.com").as_deref(), Some("Z1"));
        assert_eq!(best("example.com").as_deref(), Some("Z1"));
        assert_eq!(best("example.org"), None);
    }
}
