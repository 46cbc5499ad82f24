//! Actions on the truststore's bucket and object.

use std::{collections::BTreeMap, fmt};

use super::context::{ActionContext, gone, keys};

use crate::aws::{
    errors::Error,
    s3::{Encryption, Settings},
    session::Session,
    tags::{ENCRYPTION_METADATA, KMS_KEY_METADATA, OWNER_METADATA, TAGS_METADATA, Tags},
};

/// Action on the truststore's bucket or object. The operator can repeat it without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum S3Action {
    /// Creates the bucket with its tags.
    CreateBucket {
        bucket: String,
    },
    BlockPublicAccess {
        bucket: String,
    },
    EncryptBucket {
        bucket: String,
        kms_key: Option<String>,
    },
    /// Enables versioning, the last step of an owned bucket's setup: an owned bucket with versioning is
    /// complete.
    EnableVersioning {
        bucket: String,
    },
    /// Adds tags to the bucket. S3 only replaces all tags of a bucket: the action reads them first.
    TagBucket {
        bucket: String,
        tags: Tags,
    },
    PutTruststore {
        bucket: String,
        key: String,
        body: String,
        kms_key: Option<String>,
        encryption: Option<Encryption>,
        tags: Tags,
        /// Value of [`TAGS_METADATA`].
        tags_recorded: Option<String>,
    },
    DeleteTruststoreVersion {
        bucket: String,
        key: String,
        version: String,
    },
}

/// Text of an action, without the body of the truststore.
impl fmt::Display for S3Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            S3Action::CreateBucket { bucket } => write!(f, "create bucket {bucket}"),
            S3Action::BlockPublicAccess { bucket } => write!(f, "block public access to bucket {bucket}"),
            S3Action::EncryptBucket { bucket, .. } => write!(f, "encrypt bucket {bucket}"),
            S3Action::EnableVersioning { bucket } => write!(f, "enable versioning of bucket {bucket}"),
            S3Action::TagBucket { bucket, tags } => write!(f, "tag bucket {bucket} with {}", keys(tags)),
            S3Action::PutTruststore { bucket, key, .. } => write!(f, "upload s3://{bucket}/{key}"),
            S3Action::DeleteTruststoreVersion { key, version, .. } => {
                write!(f, "delete truststore {key} version {version}")
            }
        }
    }
}

impl S3Action {
    /// Makes the call.
    pub async fn perform(&self, session: &Session, context: &ActionContext<'_>) -> Result<(), Error> {
        let (s3, owner) = (&session.s3, context.owner.to_owned());
        match self {
            S3Action::CreateBucket { bucket } => s3.create_bucket(bucket, &context.all_tags()).await,
            S3Action::BlockPublicAccess { bucket } => s3.block_public_access(bucket).await,
            S3Action::EncryptBucket { bucket, kms_key } => {
                s3.encrypt_bucket(bucket, kms_key.as_deref()).await
            }
            S3Action::EnableVersioning { bucket } => s3.enable_versioning(bucket).await,
            S3Action::TagBucket { bucket, tags } => s3.tag_bucket(bucket, tags).await,
            S3Action::PutTruststore {
                bucket,
                key,
                body,
                kms_key,
                encryption,
                tags,
                tags_recorded,
            } => {
                let mut metadata = BTreeMap::from([(OWNER_METADATA.to_owned(), owner)]);
                metadata.extend(kms_key.clone().map(|key| (KMS_KEY_METADATA.to_owned(), key)));
                metadata.extend(tags_recorded.clone().map(|tags| (TAGS_METADATA.to_owned(), tags)));
                let named = encryption.filter(|_| kms_key.is_none());
                metadata.extend(named.map(|e| (ENCRYPTION_METADATA.to_owned(), e.as_str().to_owned())));
                let settings = Settings {
                    metadata,
                    tags: tags.clone(),
                    encryption: *encryption,
                    kms_key: kms_key.as_deref(),
                };
                let body = body.clone().into_bytes();
                s3.put(bucket, key, body, &settings).await.map(drop)
            }
            S3Action::DeleteTruststoreVersion { bucket, key, version } => {
                gone(s3.delete_version(bucket, key, version).await)
            }
        }
    }
}
