//! Settings of the bucket that the operator created, read and changed as another writer would.
use std::collections::BTreeSet;

use aws_sdk_s3::types::{
    BucketVersioningStatus, ServerSideEncryption, ServerSideEncryptionByDefault,
    ServerSideEncryptionConfiguration, ServerSideEncryptionRule, Tag, Tagging, VersioningConfiguration,
};
use mtls_operator::aws::tags::OWNER_TAG;

use crate::support::test_env::TestEnv;

pub fn bucket(env: &TestEnv) -> String {
    format!("made-{}", env.account.id)
}

pub fn key(env: &TestEnv) -> String {
    format!("{}.pem", env.owner("d"))
}

pub async fn suspend_versioning(env: &TestEnv) {
    let suspended = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Suspended)
        .build();
    let request = env.s3().put_bucket_versioning().bucket(bucket(env));
    request.versioning_configuration(suspended).send().await.unwrap();
}

pub async fn mark(env: &TestEnv) {
    let tag = Tag::builder()
        .key(OWNER_TAG)
        .value(env.owner("d"))
        .build()
        .unwrap();
    let tagging = Tagging::builder().tag_set(tag).build().unwrap();
    env.s3()
        .put_bucket_tagging()
        .bucket(bucket(env))
        .tagging(tagging)
        .send()
        .await
        .unwrap();
}

pub async fn encrypt(env: &TestEnv, kms_key: &str) {
    let default = ServerSideEncryptionByDefault::builder()
        .sse_algorithm(ServerSideEncryption::AwsKms)
        .kms_master_key_id(kms_key)
        .build()
        .unwrap();
    let rule = ServerSideEncryptionRule::builder()
        .apply_server_side_encryption_by_default(default)
        .build();
    let configuration = ServerSideEncryptionConfiguration::builder()
        .rules(rule)
        .build()
        .unwrap();
    let request = env.s3().put_bucket_encryption().bucket(bucket(env));
    request
        .server_side_encryption_configuration(configuration)
        .send()
        .await
        .unwrap();
}

/// Settings of the bucket that the operator created, if it created one.
pub async fn settings(env: &TestEnv) -> BTreeSet<String> {
    let (s3, bucket) = (env.s3(), bucket(env));
    if s3.head_bucket().bucket(&bucket).send().await.is_err() {
        return BTreeSet::new();
    }
    let versioning = s3
        .get_bucket_versioning()
        .bucket(&bucket)
        .send()
        .await
        .unwrap()
        .status;
    let blocked = s3.get_public_access_block().bucket(&bucket).send().await.ok();
    let blocked = blocked.and_then(|b| b.public_access_block_configuration);
    let encryption = s3.get_bucket_encryption().bucket(&bucket).send().await.unwrap();
    let tags = s3
        .get_bucket_tagging()
        .bucket(&bucket)
        .send()
        .await
        .ok()
        .map(|t| t.tag_set);
    let encryption = encryption.server_side_encryption_configuration;
    [format!(
        "bucket {versioning:?} {blocked:?} {encryption:?} {tags:?}"
    )]
    .into()
}
