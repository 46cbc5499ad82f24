//! S3: the bucket that holds truststores, and their versions. Every call but [`S3::get_anywhere`] names the
//! account that must own the bucket, so S3 itself refuses a bucket of that name in another account.
//! Long because each service has one file.

use std::collections::BTreeMap;

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::{
    Client,
    error::BuildError,
    operation::get_object::builders::GetObjectFluentBuilder,
    primitives::ByteStream,
    types::{
        BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration,
        PublicAccessBlockConfiguration, ServerSideEncryption, ServerSideEncryptionByDefault,
        ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tag, Tagging, VersioningConfiguration,
    },
};

use super::{
    call_guard::CallContext,
    errors::{Error, Kind},
    tags::{Tags, as_query},
};

use crate::aws::ATTEMPT;

#[derive(Debug, Clone)]
pub struct S3 {
    client: Client,
    context: CallContext,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    pub region: String,
    /// True when versioning is enabled (not suspended).
    pub versioned: bool,
}

/// Newest version of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Never the `null` of an object without versions, which becomes an empty string.
    pub version: String,
    /// Keys are lower-case ASCII.
    pub metadata: BTreeMap<String, String>,
    pub size: u64,
    /// ARN of the KMS key that encrypts the object; none with S3's own key.
    pub kms_key: Option<String>,
}

/// Encryption that a request for an object names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// S3's own keys: `AES256`.
    SseS3,
    /// A KMS key: `aws:kms`.
    SseKms,
}

impl Encryption {
    /// Name in the CRD.
    pub fn as_str(self) -> &'static str {
        match self {
            Encryption::SseS3 => "SSES3",
            Encryption::SseKms => "SSEKMS",
        }
    }
}

/// Name of the KMS key that S3 uses for `aws:kms` without a key (S3 User Guide, "Using server-side encryption
/// with AWS KMS keys").
pub const AWS_MANAGED_KEY: &str = "alias/aws/s3";

/// Settings of an object besides its bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings<'a> {
    /// Keys are lower-case ASCII.
    pub metadata: BTreeMap<String, String>,
    pub tags: Tags,
    /// `None`: the key's, or the bucket's default.
    pub encryption: Option<Encryption>,
    pub kms_key: Option<&'a str>,
}

/// Bytes of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub metadata: BTreeMap<String, String>,
}

/// Version of an object; lists have the newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    pub id: String,
    pub latest: bool,
    /// True for a delete marker, which has no bytes and records that the object was deleted.
    pub delete_marker: bool,
}

impl S3 {
    pub(crate) fn new(config: &SdkConfig, context: &CallContext) -> S3 {
        S3 {
            client: Client::new(config),
            context: context.clone(),
        }
    }

    /// Returns the bucket; `None` when no bucket has this name, [`Kind::Denied`] when another account owns
    /// the name or permissions are missing.
    pub async fn bucket(&self, name: &str) -> Result<Option<Bucket>, Error> {
        let own = Some(self.context.account.as_str());
        let region = match self.region_of(name, own, &[301, 307, 400]).await {
            Ok(Some(region)) => region,
            Ok(None) => return Ok(None),
            Err(e) => return Err(self.explained(name, e).await),
        };
        let ask = self
            .client_in(&region)
            .get_bucket_versioning()
            .bucket(name)
            .expected_bucket_owner(&self.context.account)
            .send();
        let versioning = match self.context.call("s3:GetBucketVersioning", ask).await {
            Ok(answer) => answer.status,
            Err(e) if e.kind == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(Some(Bucket {
            region,
            versioned: versioning == Some(BucketVersioningStatus::Enabled),
        }))
    }

    /// Returns the Region of a bucket; `None` when no bucket has this name. S3 names the Region in refusals
    /// too: those with one of `statuses` count as an answer.
    async fn region_of(
        &self,
        bucket: &str,
        owner: Option<&str>,
        statuses: &[u16],
    ) -> Result<Option<String>, Error> {
        let head = self.client.head_bucket().bucket(bucket);
        let head = head.set_expected_bucket_owner(owner.map(str::to_owned));
        let send = async {
            match head.send().await {
                Ok(found) => Ok(found.bucket_region),
                Err(e) => {
                    let named = e
                        .raw_response()
                        .filter(|r| statuses.contains(&r.status().as_u16()))
                        .and_then(|r| r.headers().get("x-amz-bucket-region"))
                        .map(str::to_owned);
                    named.map(Some).ok_or(e)
                }
            }
        };
        match self.context.call("s3:HeadBucket", send).await {
            Ok(region) => Ok(Some(region.unwrap_or_else(|| self.context.region.clone()))),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn client_in(&self, region: &str) -> Client {
        let there = self
            .client
            .config()
            .to_builder()
            .region(Region::new(region.to_owned()));
        Client::from_conf(there.build())
    }

    /// Returns the reason of a refused HEAD request, whose answer has no body, where another call has the
    /// same reason: the credentials, the clock, or a policy outside the operator's role.
    async fn explained(&self, bucket: &str, head: Error) -> Error {
        if !matches!(head.kind, Kind::Denied | Kind::Invalid) {
            return head;
        }
        let ask = self
            .client
            .get_bucket_versioning()
            .bucket(bucket)
            .expected_bucket_owner(&self.context.account)
            .send();
        match self.context.call("s3:GetBucketVersioning", ask).await {
            Err(e) if e.kind == Kind::Credentials || e.is_lasting() => e,
            _ => head,
        }
    }

    /// True when nothing in the bucket can become public, even by settings on the bucket or its objects:
    /// [`S3::block_public_access`].
    pub async fn public_access_is_blocked(&self, bucket: &str) -> Result<bool, Error> {
        let send = self
            .client
            .get_public_access_block()
            .bucket(bucket)
            .expected_bucket_owner(&self.context.account)
            .send();
        match self.context.call("s3:GetPublicAccessBlock", send).await {
            Ok(answer) => Ok(answer.public_access_block_configuration.is_some_and(|set| {
                [
                    set.block_public_acls,
                    set.ignore_public_acls,
                    set.block_public_policy,
                    set.restrict_public_buckets,
                ]
                .iter()
                .all(|each| *each == Some(true))
            })),
            Err(e) if e.kind == Kind::NotFound => Ok(false), // NoSuchPublicAccessBlockConfiguration
            Err(e) => Err(e),
        }
    }

    /// Returns the KMS key that encrypts objects by default, [`AWS_MANAGED_KEY`] for `aws:kms` without a key;
    /// none for S3's own key, which every bucket has at least.
    pub async fn default_kms_key(&self, bucket: &str) -> Result<Option<String>, Error> {
        let send = self
            .client
            .get_bucket_encryption()
            .bucket(bucket)
            .expected_bucket_owner(&self.context.account)
            .send();
        let answer = match self.context.call("s3:GetBucketEncryption", send).await {
            Ok(answer) => answer,
            Err(e) if e.kind == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let rules = answer
            .server_side_encryption_configuration
            .into_iter()
            .flat_map(|all| all.rules);
        let mut defaults = rules.filter_map(|rule| rule.apply_server_side_encryption_by_default);
        Ok(defaults.find_map(|default| {
            let is_kms = default.sse_algorithm == ServerSideEncryption::AwsKms;
            let managed = is_kms.then(|| AWS_MANAGED_KEY.to_owned());
            default.kms_master_key_id.or(managed)
        }))
    }

    /// Returns the tags of a bucket; empty when the bucket does not exist.
    pub async fn bucket_tags(&self, name: &str) -> Result<BTreeMap<String, String>, Error> {
        let send = self
            .client
            .get_bucket_tagging()
            .bucket(name)
            .expected_bucket_owner(&self.context.account)
            .send();
        match self.context.call("s3:GetBucketTagging", send).await {
            Ok(answer) => Ok(answer
                .tag_set
                .into_iter()
                .map(|tag| (tag.key, tag.value))
                .collect()),
            Err(e) if e.kind == Kind::NotFound => Ok(BTreeMap::new()), // NoSuchTagSet too
            Err(e) => Err(e),
        }
    }

    /// Creates a bucket in this Region. The bucket has its tags from the first moment on; S3 makes it
    /// private, with S3's own key. A bucket that this account already owns is [`Kind::Conflict`], in
    /// us-east-1 too, because the request has tags.
    pub async fn create_bucket(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), Error> {
        const CREATE: &str = "s3:CreateBucket";
        // us-east-1 is the default location of a bucket, and S3 rejects its name.
        let place = Some(self.context.region.as_str()).filter(|region| *region != "us-east-1");
        let configuration = CreateBucketConfiguration::builder()
            .set_location_constraint(place.map(BucketLocationConstraint::from))
            .set_tags(Some(self::tags(CREATE, tags)?))
            .build();
        let send = self
            .client
            .create_bucket()
            .bucket(name)
            .create_bucket_configuration(configuration)
            .send();
        self.context.call(CREATE, send).await?;
        Ok(())
    }

    /// Adds tags to a bucket, and changes the values of those that are there. S3 has no call for this: the
    /// tags that are there, AWS's own included, go back as they were.
    pub async fn tag_bucket(&self, bucket: &str, more: &Tags) -> Result<(), Error> {
        const TAG: &str = "s3:PutBucketTagging";
        let mut all = self.bucket_tags(bucket).await?;
        all.extend(more.clone());
        let tagging = Tagging::builder()
            .set_tag_set(Some(self::tags(TAG, &all)?))
            .build()
            .map_err(|e| unmade(TAG, &e))?;
        let send = self
            .client
            .put_bucket_tagging()
            .bucket(bucket)
            .expected_bucket_owner(&self.context.account)
            .tagging(tagging)
            .send();
        self.context.call(TAG, send).await?;
        Ok(())
    }

    /// Prevents every later setting on the bucket or its objects from making anything in it public.
    pub async fn block_public_access(&self, bucket: &str) -> Result<(), Error> {
        let all = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let send = self
            .client
            .put_public_access_block()
            .bucket(bucket)
            .expected_bucket_owner(&self.context.account)
            .public_access_block_configuration(all)
            .send();
        self.context.call("s3:PutPublicAccessBlock", send).await?;
        Ok(())
    }

    /// Sets the default encryption of objects: this KMS key, else S3's own.
    pub async fn encrypt_bucket(&self, bucket: &str, kms_key: Option<&str>) -> Result<(), Error> {
        const ENCRYPT: &str = "s3:PutBucketEncryption";
        let algorithm = kms_key.map_or(ServerSideEncryption::Aes256, |_| ServerSideEncryption::AwsKms);
        let default = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(algorithm)
            .set_kms_master_key_id(kms_key.map(str::to_owned))
            .build();
        let rule = ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(default.map_err(|e| unmade(ENCRYPT, &e))?)
            .set_bucket_key_enabled(kms_key.map(|_| true))
            .build();
        let configuration = ServerSideEncryptionConfiguration::builder().rules(rule).build();
        let send = self
            .client
            .put_bucket_encryption()
            .bucket(bucket)
            .expected_bucket_owner(&self.context.account)
            .server_side_encryption_configuration(configuration.map_err(|e| unmade(ENCRYPT, &e))?)
            .send();
        self.context.call(ENCRYPT, send).await?;
        Ok(())
    }

    /// Enables versioning: S3 keeps every version of every object from now on.
    pub async fn enable_versioning(&self, bucket: &str) -> Result<(), Error> {
        let enabled = VersioningConfiguration::builder()
            .status(BucketVersioningStatus::Enabled)
            .build();
        let send = self
            .client
            .put_bucket_versioning()
            .bucket(bucket)
            .expected_bucket_owner(&self.context.account)
            .versioning_configuration(enabled)
            .send();
        self.context.call("s3:PutBucketVersioning", send).await?;
        Ok(())
    }

    /// Returns the newest version of the object, without its bytes; `None` when there is none or it was
    /// deleted. Without `s3:ListBucket` S3 answers [`Kind::Denied`] for an object that does not exist.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<Option<Object>, Error> {
        let send = self
            .client
            .head_object()
            .bucket(bucket)
            .key(key)
            .expected_bucket_owner(&self.context.account)
            .send();
        match self.context.call("s3:HeadObject", send).await {
            Ok(answer) => Ok(Some(Object {
                version: answer.version_id.filter(|id| id != "null").unwrap_or_default(),
                metadata: answer.metadata.unwrap_or_default().into_iter().collect(),
                size: u64::try_from(answer.content_length.unwrap_or_default()).unwrap_or_default(),
                kms_key: answer.ssekms_key_id,
            })),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns the bytes of one version, or (an empty version) of an object without versions; `None` when it
    /// is gone or is a delete marker.
    pub async fn get(&self, bucket: &str, key: &str, version: &str) -> Result<Option<Content>, Error> {
        let request = self
            .client
            .get_object()
            .expected_bucket_owner(&self.context.account);
        self.content(request.bucket(bucket).key(key), version).await
    }

    /// Returns the bytes of an object in a bucket of any account and Region, as [`S3::get`]; of the newest
    /// version when none is given.
    pub async fn get_anywhere(
        &self,
        bucket: &str,
        key: &str,
        version: &str,
    ) -> Result<Option<Content>, Error> {
        let Some(region) = self.region_of(bucket, None, &[301, 307, 400, 403]).await? else {
            return Ok(None);
        };
        let request = self.client_in(&region).get_object();
        self.content(request.bucket(bucket).key(key), version).await
    }

    async fn content(
        &self,
        request: GetObjectFluentBuilder,
        version: &str,
    ) -> Result<Option<Content>, Error> {
        const GET: &str = "s3:GetObject";
        let version = Some(version).filter(|v| !v.is_empty());
        let send = request.set_version_id(version.map(str::to_owned)).send();
        let answer = match self.context.call(GET, send).await {
            Ok(answer) => answer,
            Err(e) if e.kind == Kind::NotFound || e.code.as_deref() == Some("MethodNotAllowed") => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        // The SDK's time limit ends at the start of the body.
        let body = tokio::time::timeout(ATTEMPT, answer.body.collect()).await;
        let broken = || Error::ours(Kind::Transient, GET, "the object did not arrive whole");
        let bytes = body.map_err(|_| broken())?.map_err(|_| broken())?;
        Ok(Some(Content {
            bytes: bytes.to_vec(),
            metadata: answer.metadata.unwrap_or_default().into_iter().collect(),
        }))
    }

    /// Stores the bytes as a new version and returns its id. An answer without an id is a transient error: as
    /// a rule the bucket's versioning was enabled so recently that it has not propagated through S3 (AWS
    /// speaks of up to 15 minutes).
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: Vec<u8>,
        settings: &Settings<'_>,
    ) -> Result<String, Error> {
        const PUT: &str = "s3:PutObject";
        let Settings {
            metadata,
            tags,
            encryption,
            kms_key,
        } = settings;
        let encryption = encryption.or(kms_key.map(|_| Encryption::SseKms));
        let encryption = encryption.map(|encryption| match encryption {
            Encryption::SseS3 => ServerSideEncryption::Aes256,
            Encryption::SseKms => ServerSideEncryption::AwsKms,
        });
        let send = self
            .client
            .put_object()
            .bucket(bucket)
            .key(key)
            .expected_bucket_owner(&self.context.account)
            .content_type("application/x-pem-file")
            .set_metadata(Some(metadata.clone().into_iter().collect()))
            .set_tagging((!tags.is_empty()).then(|| as_query(tags)))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key.map(str::to_owned))
            .body(ByteStream::from(bytes))
            .send();
        let answer = self.context.call(PUT, send).await?;
        answer.version_id.filter(|id| id != "null").ok_or_else(|| {
            let message =
                format!("bucket {bucket} gives no version yet: its versioning was enabled a short time ago");
            Error::ours(Kind::Transient, PUT, message)
        })
    }

    /// Returns all versions of exactly this key, newest first.
    pub async fn versions(&self, bucket: &str, key: &str) -> Result<Vec<Version>, Error> {
        let mut versions: Vec<(Option<(i64, u32)>, Version)> = Vec::new();
        let (mut key_marker, mut version_marker) = (None, None);
        loop {
            let send = self
                .client
                .list_object_versions()
                .bucket(bucket)
                .prefix(key)
                .set_key_marker(key_marker)
                .set_version_id_marker(version_marker)
                .expected_bucket_owner(&self.context.account)
                .send();
            let page = self.context.call("s3:ListObjectVersions", send).await?;
            let objects = page
                .versions
                .unwrap_or_default()
                .into_iter()
                .map(|v| (v.key, v.version_id, v.is_latest, v.last_modified, false));
            let markers = page
                .delete_markers
                .unwrap_or_default()
                .into_iter()
                .map(|v| (v.key, v.version_id, v.is_latest, v.last_modified, true));
            for (of, id, latest, at, delete_marker) in objects.chain(markers) {
                if of.as_deref() == Some(key) {
                    let version = Version {
                        id: id.unwrap_or_default(),
                        latest: latest.unwrap_or_default(),
                        delete_marker,
                    };
                    versions.push((at.map(|at| (at.secs(), at.subsec_nanos())), version));
                }
            }
            // Keys come in order: keys after this one only begin with it.
            let past = page.next_key_marker.as_deref().is_some_and(|next| next > key);
            if page.is_truncated != Some(true) || page.next_key_marker.is_none() || past {
                break;
            }
            key_marker = page.next_key_marker;
            version_marker = page.next_version_id_marker;
        }
        // Objects and markers come in two lists. S3's dates have whole seconds: of equal dates the latest
        // version goes first.
        versions.sort_by(|(a, x), (b, y)| (y.latest, b).cmp(&(x.latest, a)));
        Ok(versions.into_iter().map(|(_, version)| version).collect())
    }

    /// Deletes one version permanently. S3 reports no error for a version that is already gone.
    pub async fn delete_version(&self, bucket: &str, key: &str, version: &str) -> Result<(), Error> {
        let send = self
            .client
            .delete_object()
            .bucket(bucket)
            .key(key)
            .version_id(version)
            .expected_bucket_owner(&self.context.account)
            .send();
        self.context.call("s3:DeleteObject", send).await?;
        Ok(())
    }
}

fn tags(operation: &'static str, tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, Error> {
    let tag = |(key, value)| {
        Tag::builder()
            .key(key)
            .value(value)
            .build()
            .map_err(|e| unmade(operation, &e))
    };
    tags.iter().map(tag).collect()
}

fn unmade(operation: &'static str, error: &BuildError) -> Error {
    Error::ours(
        Kind::Invalid,
        operation,
        format!("the request cannot be made: {error}"),
    )
}

#[cfg(test)]
pub(crate) mod tests;
