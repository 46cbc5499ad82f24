//! The bucket that the operator created, the truststore object and the server certificate are restored.
use aws_sdk_s3::types::PublicAccessBlockConfiguration;
use mtls_operator::aws::tags::OWNER_TAG;
use serde_json::json;

use super::{
    bucket_settings::{bucket, encrypt, key, mark, suspend_versioning},
    table::{
        Figures,
        Notice::{EveryMinute, EveryQuarter},
        THEIRS, Table,
    },
};
use crate::support::{test_env::TestEnv, world::eventually};

/// Checks that the operator replaces a deleted certificate that nothing uses yet.
async fn unused_certificate(env: &TestEnv) {
    env.create_domain("d", json!({"truststore": {"bucket": "nowhere"}}))
        .await;
    env.condition("d", "CertificateIssued", |c| c.status == "True")
        .await;
    env.condition("d", "TruststorePublished", |c| c.reason == "BucketNotFound")
        .await;
    env.reconciles(1).await;
    let (since, first) = (env.mark().await, env.server_certificates().await);
    env.acm()
        .delete_certificate()
        .certificate_arn(&first[0])
        .send()
        .await
        .unwrap();
    eventually("another certificate", async || {
        let now = env.server_certificates().await;
        if now.len() == 1 && now != first {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    env.condition("d", "CertificateIssued", |c| {
        c.status == "True" && !c.message.contains(&first[0])
    })
    .await;
    env.reconciles(1).await;
    assert_eq!(
        env.writes(since).await,
        ["DeleteCertificate", "RequestCertificate"]
    );
}

pub async fn rows() -> Figures {
    let env = TestEnv::start("drift-storage").await;
    unused_certificate(&env).await;
    let kms_key = format!("arn:aws:kms:{}:{}:key/ours", env.account.region, env.account.id);
    let (bucket, key) = (bucket(&env), key(&env));
    let truststore = json!({"bucket": bucket, "bucketCreation": "IfMissing", "kmsKeyArn": kms_key});
    env.change("d", json!({"truststore": truststore})).await;
    // Another owner has a bucket and a certificate beside it.
    let theirs = format!("theirs-{}", env.account.id);
    sandbox::prepare::versioned_bucket(&env.account, &theirs)
        .await
        .unwrap();
    let request = env
        .s3()
        .put_object()
        .bucket(&theirs)
        .key(&key)
        .body(b"theirs".to_vec().into());
    request.send().await.unwrap();
    let tag = aws_sdk_acm::types::Tag::builder()
        .key(OWNER_TAG)
        .value(THEIRS)
        .build()
        .unwrap();
    let name = format!("theirs.{}", env.prepared.zone);
    env.acm()
        .request_certificate()
        .domain_name(name)
        .tags(tag)
        .send()
        .await
        .unwrap();
    let mut table = Table::of(env).await;
    table.noted("a certificate deleted that nothing uses", EveryMinute);

    let both = (&["PutBucketVersioning"], &["PutBucketVersioning"]);
    table
        .corrected(
            "versioning suspended",
            EveryQuarter,
            both.0,
            both.1,
            suspend_versioning,
        )
        .await;
    let (gone, back) = (["DeletePublicAccessBlock"], ["PutPublicAccessBlock"]);
    table
        .corrected(
            "the public access block removed",
            EveryQuarter,
            &gone,
            &back,
            async |env| {
                env.s3()
                    .delete_public_access_block()
                    .bucket(&bucket)
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;
    table
        .corrected(
            "a part of the public access block",
            EveryQuarter,
            &back,
            &back,
            async |env| {
                let part = PublicAccessBlockConfiguration::builder()
                    .block_public_acls(true)
                    .ignore_public_acls(true);
                let request = env.s3().put_public_access_block().bucket(&bucket);
                request
                    .public_access_block_configuration(part.build())
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;
    let (gone, back) = (["DeleteBucketEncryption"], ["PutBucketEncryption"]);
    table
        .corrected(
            "the default encryption removed",
            EveryQuarter,
            &gone,
            &back,
            async |env| {
                env.s3()
                    .delete_bucket_encryption()
                    .bucket(&bucket)
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;
    table
        .corrected(
            "another key of the default encryption",
            EveryQuarter,
            &back,
            &back,
            async |env| {
                encrypt(env, &kms_key.replace("ours", "other")).await;
            },
        )
        .await;
    table
        .reported(
            "the owner's tag taken off the bucket, and its versioning suspended",
            EveryQuarter,
            &["DeleteBucketTagging", "PutBucketVersioning"],
            (
                "TruststorePublished",
                "False",
                "BucketNotVersioned",
                &bucket.clone(),
            ),
            async |env| {
                env.s3()
                    .delete_bucket_tagging()
                    .bucket(&bucket)
                    .send()
                    .await
                    .unwrap();
                suspend_versioning(env).await;
            },
            mark,
        )
        .await;

    let ours = ["PutObject", "UpdateDomainName"];
    table
        .corrected(
            "the truststore object overwritten",
            EveryQuarter,
            &["PutObject"],
            &ours,
            async |env| {
                let request = env
                    .s3()
                    .put_object()
                    .bucket(&bucket)
                    .key(&key)
                    .body(b"nothing".to_vec().into());
                request.send().await.unwrap();
            },
        )
        .await;
    table
        .corrected(
            "the truststore object deleted",
            EveryQuarter,
            &["DeleteObject"],
            &ours,
            async |env| {
                env.s3()
                    .delete_object()
                    .bucket(&bucket)
                    .key(&key)
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;
    let all = table
        .env
        .s3()
        .list_object_versions()
        .bucket(&bucket)
        .prefix(&key)
        .send()
        .await
        .unwrap();
    let versions = all
        .versions()
        .iter()
        .map(|v| (v.is_latest() == Some(true), v.version_id().unwrap().to_owned()));
    let markers = all
        .delete_markers()
        .iter()
        .map(|m| (false, m.version_id().unwrap().to_owned()));
    let mut versions: Vec<_> = versions.chain(markers).collect();
    versions.sort(); // the latest goes last: it is the one that counts
    let deleted: Vec<_> = versions.iter().map(|_| "DeleteObject").collect();
    table
        .corrected(
            "every version of the truststore object deleted",
            EveryQuarter,
            &deleted,
            &ours,
            async |env| {
                for (_, version) in &versions {
                    env.s3()
                        .delete_object()
                        .bucket(&bucket)
                        .key(&key)
                        .version_id(version)
                        .send()
                        .await
                        .unwrap();
                }
            },
        )
        .await;

    let arn = async |env: &TestEnv| {
        let config = env
            .gateway_domain()
            .await
            .domain_name_configurations
            .unwrap()
            .remove(0);
        config.certificate_arn.unwrap()
    };
    let tag = |value: &str| {
        aws_sdk_acm::types::Tag::builder()
            .key(OWNER_TAG)
            .value(value)
            .build()
            .unwrap()
    };
    let ours = ["RequestCertificate", "UpdateDomainName"];
    let unmarked = arn(&table.env).await;
    table
        .corrected(
            "the owner's tag taken off the certificate",
            EveryMinute,
            &["RemoveTagsFromCertificate"],
            &ours,
            async |env| {
                let request = env
                    .acm()
                    .remove_tags_from_certificate()
                    .certificate_arn(&unmarked);
                request
                    .tags(aws_sdk_acm::types::Tag::builder().key(OWNER_TAG).build().unwrap())
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;
    let marked = arn(&table.env).await;
    assert_ne!(marked, unmarked);
    table
        .corrected(
            "another owner's tag on the certificate",
            EveryMinute,
            &["AddTagsToCertificate"],
            &ours,
            async |env| {
                let request = env
                    .acm()
                    .add_tags_to_certificate()
                    .certificate_arn(&marked)
                    .tags(tag("other/team/e"));
                request.send().await.unwrap();
            },
        )
        .await;
    let left = table.env.server_certificates().await;
    assert!(
        [unmarked, marked].iter().all(|arn| left.contains(arn)),
        "the operator does not delete a resource that it no longer owns"
    );
    table.end().await
}
