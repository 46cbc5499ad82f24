//! Observes the bucket and the truststore object, the latest version and the one that the domain uses. Reads
//! only.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::{
    aws::{
        gateway::domains::Domain,
        s3::Content,
        session::Session,
        tags::{ENCRYPTION_METADATA, KMS_KEY_METADATA, OWNER_METADATA, OWNER_TAG, TAGS_METADATA},
    },
    model::{
        desired::Desired,
        observed::{Bucket, Made, Pinned, Published},
        placement::{Placement, TruststoreObject},
    },
    observation::{
        read_cache::AwsReader,
        seen::{Seen, seen},
    },
    pki::{digest::sha256, truststore::Bundle},
};

/// Cached versions of the truststore object of one domain, by URI and version.
#[derive(Debug, Default)]
pub struct Versions(std::sync::Mutex<BTreeMap<(String, String), Content>>);

pub(crate) async fn bucket(d: &Desired, reader: &AwsReader<'_>) -> Seen<Option<Bucket>> {
    let name = &d.truststore.bucket;
    let Some(found) = reader.bucket(name).await? else {
        return Ok(None);
    };
    let mut bucket = Bucket {
        region: found.region,
        versioned: found.versioned,
        made: None,
    };
    if d.create_bucket && bucket.region == d.placement.region {
        bucket.made = made(d, reader).await?;
    }
    Ok(Some(bucket))
}

/// Reads the settings of a bucket that the operator created; `None` for other buckets.
pub(crate) async fn made(d: &Desired, reader: &AwsReader<'_>) -> Seen<Option<Made>> {
    let name = &d.truststore.bucket;
    let tags = reader.bucket_tags(name).await?;
    let owner = tags.get(OWNER_TAG).cloned();
    let Some(owner) = owner.filter(|owner| d.placement.is_of_this_cluster(owner)) else {
        return Ok(None);
    };
    let private = reader.public_access_is_blocked(name).await?;
    let kms_key = reader.default_kms_key(name).await?;
    Ok(Some(Made {
        owner,
        tags,
        private,
        kms_key,
    }))
}

pub(crate) async fn published(
    truststore: &TruststoreObject,
    reader: &AwsReader<'_>,
    versions: &Versions,
) -> Seen<Option<Published>> {
    let Some(object) = reader.head(&truststore.bucket, &truststore.key).await? else {
        return Ok(None);
    };
    let Some(content) = versions
        .read(
            &truststore.bucket,
            &truststore.key,
            reader.session,
            &object.version,
        )
        .await?
    else {
        return Ok(None);
    };
    Ok(Some(Published {
        version: object.version,
        owner: content.metadata.get(OWNER_METADATA).cloned(),
        kms_key: object.kms_key,
        desired_kms_key: content.metadata.get(KMS_KEY_METADATA).cloned(),
        encryption: content.metadata.get(ENCRYPTION_METADATA).cloned(),
        tags: content
            .metadata
            .get(TAGS_METADATA)
            .into_iter()
            .flat_map(|all| all.split(','))
            .map(str::to_owned)
            .collect(),
        sha256: sha256(&content.bytes),
        // An unreadable object has no entries; a readable version replaces it.
        bundle: Bundle::parse(&content.bytes).unwrap_or_default(),
    }))
}

/// Reads the object and version that the domain uses: also for a domain that is not owned yet, and for a
/// truststore that has moved.
pub(crate) async fn pinned(
    reader: &AwsReader<'_>,
    domain: &Seen<Option<Domain>>,
    versions: &Versions,
) -> Seen<Option<Pinned>> {
    let domain = domain.as_ref().map_err(Clone::clone)?;
    let Some(used) = domain.as_ref().and_then(|g| g.truststore.as_ref()) else {
        return Ok(None);
    };
    let Some((bucket, key)) = used.place() else {
        return Ok(None);
    };
    let version = match &used.version {
        Some(version) => version.clone(),
        // Not pinned: the domain uses the version that was newest at its last update, presumably the latest.
        None => match reader.head(bucket, key).await? {
            Some(object) => object.version,
            None => return Ok(None),
        },
    };
    let content = versions.read(bucket, key, reader.session, &version).await?;
    Ok(content.and_then(|c| {
        let bundle = Bundle::parse(&c.bytes).ok()?;
        Some(Pinned {
            owner: c.metadata.get(OWNER_METADATA).cloned(),
            bundle,
        })
    }))
}

impl Versions {
    pub(crate) async fn read(
        &self,
        bucket: &str,
        key: &str,
        session: &Session,
        version: &str,
    ) -> Seen<Option<Content>> {
        let name = (format!("s3://{bucket}/{key}"), version.to_owned());
        if let Some(known) = self.lock().get(&name) {
            return Ok(Some(known.clone()));
        }
        let content = seen(session.s3.get(bucket, key, version)).await?;
        // An object without a version can have other content tomorrow.
        if let Some(content) = content.as_ref().filter(|_| !version.is_empty()) {
            self.lock().insert(name, content.clone());
        }
        Ok(content)
    }

    /// Removes all versions that are neither the latest nor in use.
    pub(crate) fn keep(&self, published: &Seen<Option<Published>>, domain: &Seen<Option<Domain>>) {
        let (Ok(published), Ok(domain)) = (published, domain) else {
            return;
        };
        let used = domain
            .as_ref()
            .and_then(|g| g.truststore.as_ref())
            .and_then(|t| t.version.as_ref());
        let latest = published.as_ref().map(|p| &p.version);
        self.lock()
            .retain(|(_, version), _| Some(version) == used || Some(version) == latest);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Content>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// Returns the versions that carry the ownership tag; versions of other owners at the same key stay.
pub(crate) async fn versions(placement: &Placement, reader: &AwsReader<'_>) -> Seen<Vec<String>> {
    let Some(TruststoreObject { bucket: name, key }) = &placement.truststore else {
        return Ok(vec![]);
    };
    // The operator never stores anything in a bucket of another Region.
    match reader.bucket(name).await? {
        Some(bucket) if bucket.region == placement.region => {}
        _ => return Ok(vec![]),
    }
    let all = seen(reader.session.s3.versions(name, key)).await?;
    let reads = all.into_iter().filter(|v| !v.delete_marker).map(async |version| {
        let content = seen(reader.session.s3.get(name, key, &version.id)).await?;
        let ours = content.is_some_and(|c| c.metadata.get(OWNER_METADATA) == Some(&placement.owner));
        Ok(ours.then_some(version.id))
    });
    let read: Seen<Vec<_>> = join_all(reads).await.into_iter().collect();
    Ok(read?.into_iter().flatten().collect())
}
