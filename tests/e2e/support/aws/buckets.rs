//! Buckets that the operator creates, and their settings.
use aws_sdk_s3::types::{BucketVersioningStatus, ServerSideEncryption, VersioningConfiguration};
use mtls_operator::aws::tags::OWNER_TAG;
use serde_json::{Value, json};

use crate::support::test_env::TestEnv;

/// Region whose name S3 does not accept as a location constraint.
pub const ELSEWHERE: &str = "us-east-1";

/// S3 client in another Region.
pub fn s3_in(env: &TestEnv, region: &str) -> aws_sdk_s3::Client {
    let config = env
        .account
        .sdk()
        .to_builder()
        .region(aws_sdk_s3::config::Region::new(region.to_owned()))
        .build();
    aws_sdk_s3::Client::new(&config)
}

/// Bucket name that is free, and the spec that makes the operator create the bucket.
pub fn to_be_made(env: &TestEnv, suffix: &str) -> (String, Value) {
    let name = format!("made-{suffix}-{}", env.account.id);
    let spec = json!({"truststore": {"bucket": name, "bucketCreation": "IfMissing"}});
    (name, spec)
}

pub async fn enable_versioning(env: &TestEnv, bucket: &str) {
    let enabled = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Enabled)
        .build();
    env.s3()
        .put_bucket_versioning()
        .bucket(bucket)
        .versioning_configuration(enabled)
        .send()
        .await
        .unwrap();
}

/// Checks that the bucket is versioned, private, encrypted, and tagged as created for the MtlsDomain `owner`.
pub async fn is_as_it_should_be(s3: &aws_sdk_s3::Client, bucket: &str, owner: &str, kms_key: Option<&str>) {
    let versioning = s3.get_bucket_versioning().bucket(bucket).send().await.unwrap();
    assert_eq!(versioning.status, Some(BucketVersioningStatus::Enabled));
    let blocked = s3.get_public_access_block().bucket(bucket).send().await.unwrap();
    let blocked = blocked.public_access_block_configuration.unwrap();
    let blocks = [
        blocked.block_public_acls,
        blocked.ignore_public_acls,
        blocked.block_public_policy,
        blocked.restrict_public_buckets,
    ];
    assert_eq!(blocks, [Some(true); 4]);
    let encryption = s3.get_bucket_encryption().bucket(bucket).send().await.unwrap();
    let rule = encryption
        .server_side_encryption_configuration
        .unwrap()
        .rules
        .remove(0);
    let default = rule.apply_server_side_encryption_by_default.unwrap();
    let algorithm = if kms_key.is_some() {
        ServerSideEncryption::AwsKms
    } else {
        ServerSideEncryption::Aes256
    };
    assert_eq!(
        (default.sse_algorithm, default.kms_master_key_id.as_deref()),
        (algorithm, kms_key)
    );
    let tags = s3
        .get_bucket_tagging()
        .bucket(bucket)
        .send()
        .await
        .unwrap()
        .tag_set;
    let tags: Vec<_> = tags.iter().map(|t| (t.key.as_str(), t.value.as_str())).collect();
    assert_eq!(tags, [(OWNER_TAG, owner)]);
}
