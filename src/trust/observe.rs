//! Observes the bucket and the truststore object, the latest version and the one that the domain uses. Reads
//! only.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;

use crate::{
    api::conditions::Reason,
    aws::{
        errors::Error,
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
        seen::{Seen, Unseen, seen},
    },
    pki::{digest::sha256, truststore::Bundle},
    runtime::workers::Workers,
};

/// Version of the truststore object.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) metadata: BTreeMap<String, String>,
    /// SHA-256 of its bytes, in hexadecimal.
    pub(crate) sha256: String,
    /// `None`: the bytes are no truststore.
    pub(crate) bundle: Option<Arc<Bundle>>,
}

/// Cached versions of the truststore object of one domain, by URI and version.
#[derive(Debug, Default)]
pub struct Versions(std::sync::Mutex<BTreeMap<(String, String), Version>>);

/// End of the URI of an object that was read in a bucket of any account and Region.
const ELSEWHERE: &str = " elsewhere";

/// What reads of the truststore object need besides a session.
#[derive(Clone, Copy)]
pub(crate) struct Parsing<'a> {
    pub(crate) workers: &'a Workers,
    /// Namespace of the MtlsDomain.
    pub(crate) namespace: &'a str,
    pub(crate) versions: &'a Versions,
}

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
    parsing: Parsing<'_>,
) -> Seen<Option<Published>> {
    let Some(object) = reader.head(&truststore.bucket, &truststore.key).await? else {
        return Ok(None);
    };
    let Some(content) = parsing
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
        sha256: content.sha256,
        // An unreadable object has no entries; a readable version replaces it.
        bundle: content.bundle.unwrap_or_default(),
    }))
}

/// Reads the object and version that the domain uses: also for a domain that is not owned yet, and for a
/// truststore that has moved. `own` is the truststore of the spec: an object at any other place may be in
/// another account or Region, where it has no owner among the MtlsDomains.
pub(crate) async fn pinned(
    own: &TruststoreObject,
    reader: &AwsReader<'_>,
    domain: &Seen<Option<Domain>>,
    parsing: Parsing<'_>,
) -> Seen<Option<Pinned>> {
    let domain = domain.as_ref().map_err(Clone::clone)?;
    let Some(used) = domain.as_ref().and_then(|g| g.truststore.as_ref()) else {
        return Ok(None);
    };
    let Some((bucket, key)) = used.place() else {
        return Ok(None);
    };
    let read = async {
        let version = match &used.version {
            Some(version) => version.clone(),
            // Not pinned: the domain uses the version that was newest at its last update, presumably the
            // latest.
            None => match reader.head(bucket, key).await? {
                Some(object) => object.version,
                None => return Ok(None),
            },
        };
        parsing.read(bucket, key, reader.session, &version).await
    };
    let (content, is_here) = match read.await {
        Err(_) if (bucket, key) != (own.bucket.as_str(), own.key.as_str()) => {
            let version = used.version.as_deref().unwrap_or_default();
            let read = parsing.read_anywhere(bucket, key, reader.session, version);
            (read.await.map_err(|unseen| unreadable(&used.uri, unseen))?, false)
        }
        content => (content?, true),
    };
    Ok(content.and_then(|c| {
        let owner = c.metadata.get(OWNER_METADATA).filter(|_| is_here);
        Some(Pinned {
            owner: owner.cloned(),
            bundle: c.bundle?,
        })
    }))
}

/// Returns why the truststore that a custom domain uses cannot be read, with its URI: it may belong to
/// another account.
fn unreadable(uri: &str, unseen: Unseen) -> Unseen {
    if unseen.reason != Reason::PermissionDenied {
        return unseen;
    }
    Unseen {
        message: format!(
            "the custom domain trusts the certificates in {uri}, which the operator may not read, so it \
             cannot know which callers would lose access. Allow it s3:GetObject and s3:GetObjectVersion \
             there, in the bucket's policy too where the bucket is in another account, or turn mutual TLS \
             off first"
        ),
        ..unseen
    }
}

impl Parsing<'_> {
    /// Reads a version that is not known yet, and parses it in a worker: a truststore may have a thousand
    /// certificates.
    pub(crate) async fn read(
        self,
        bucket: &str,
        key: &str,
        session: &Session,
        version: &str,
    ) -> Seen<Option<Version>> {
        let name = (format!("s3://{bucket}/{key}"), version.to_owned());
        let get = session.s3.get(bucket, key, version);
        self.cached(name, get).await
    }

    /// Reads an object in a bucket of any account and Region.
    async fn read_anywhere(
        self,
        bucket: &str,
        key: &str,
        session: &Session,
        version: &str,
    ) -> Seen<Option<Version>> {
        // Not the name of the same object in this account, which has an owner.
        let name = (format!("s3://{bucket}/{key}{ELSEWHERE}"), version.to_owned());
        let get = session.s3.get_anywhere(bucket, key, version);
        self.cached(name, get).await
    }

    async fn cached(
        self,
        name: (String, String),
        get: impl Future<Output = Result<Option<Content>, Error>>,
    ) -> Seen<Option<Version>> {
        if let Some(known) = self.versions.lock().get(&name) {
            return Ok(Some(known.clone()));
        }
        let Some(content) = seen(get).await? else {
            return Ok(None);
        };
        let parse = move |_: &_| Version {
            sha256: sha256(&content.bytes),
            bundle: Bundle::parse(&content.bytes).ok().map(Arc::new),
            metadata: content.metadata,
        };
        let parsed = self.workers.run(self.namespace, parse).await;
        let parsed = parsed.map_err(|error| Unseen {
            reason: Reason::Unreachable,
            message: format!(
                "the truststore {} cannot be parsed: {error}; trying again",
                name.0
            ),
        })?;
        // An object without a version can have other content tomorrow.
        if !name.1.is_empty() {
            self.versions.lock().insert(name, parsed.clone());
        }
        Ok(Some(parsed))
    }
}

impl Versions {
    /// Removes all versions that are neither the latest of `truststore` nor in use.
    pub(crate) fn keep(
        &self,
        truststore: &TruststoreObject,
        published: &Seen<Option<Published>>,
        domain: &Seen<Option<Domain>>,
    ) {
        let (Ok(published), Ok(domain)) = (published, domain) else {
            return;
        };
        let latest = published.as_ref().map(|p| (truststore.uri(), p.version.clone()));
        let used = domain.as_ref().and_then(|g| {
            let used = g.truststore.as_ref()?;
            Some((used.uri.clone(), used.version.clone()?))
        });
        self.lock().retain(|(uri, version), _| {
            let here = uri.strip_suffix(ELSEWHERE).unwrap_or(uri);
            [&latest, &used]
                .into_iter()
                .flatten()
                .any(|(of, named)| of == here && named == version)
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Version>> {
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
