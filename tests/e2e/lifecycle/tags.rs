//! Tags that an organization demands, on everything that the operator creates. Tags of others stay.
use std::collections::BTreeMap;

use aws_sdk_acm::types::Tag as CertificateTag;
use aws_sdk_s3::types::{Tag, Tagging};
use serde_json::json;

use crate::support::{
    aws::{buckets::to_be_made, server_certificates::in_use},
    test_env::TestEnv,
    world::{eventually, run},
};

type Tags = BTreeMap<String, String>;

/// Tags of the certificate, the custom domain, the bucket and the truststore object, without the operator's
/// own.
async fn tags(env: &TestEnv, bucket: &str) -> [Tags; 4] {
    let (arn, _) = in_use(env).await;
    let certificate = env
        .acm()
        .list_tags_for_certificate()
        .certificate_arn(arn)
        .send()
        .await
        .expect("ListTagsForCertificate");
    let certificate = certificate
        .tags()
        .iter()
        .map(|t| (t.key.clone(), t.value.clone().unwrap_or_default()))
        .collect();
    let domain = env.gateway_domain().await;
    let used = domain.mutual_tls_authentication().expect("mutual TLS");
    let uri = used.truststore_uri().expect("a truststore");
    let key = uri.split_once(&format!("{bucket}/")).expect("in the bucket").1;
    let object = env.s3().get_object_tagging().bucket(bucket).key(key);
    let object = object
        .set_version_id(used.truststore_version().map(str::to_owned))
        .send();
    let object = of_s3(object.await.expect("GetObjectTagging").tag_set());
    let domain = domain.tags().cloned().unwrap_or_default().into_iter().collect();
    let bucket = env.s3().get_bucket_tagging().bucket(bucket).send();
    let bucket = of_s3(bucket.await.expect("GetBucketTagging").tag_set());
    [certificate, domain, bucket, object].map(|mut all: Tags| {
        all.retain(|key, _| !key.starts_with("mtls-operator.io/"));
        all
    })
}

fn of_s3(all: &[Tag]) -> Tags {
    all.iter().map(|t| (t.key.clone(), t.value.clone())).collect()
}

fn these(all: &[(&str, &str)]) -> Tags {
    all.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn until(env: &TestEnv, bucket: &str, wanted: [&Tags; 4]) {
    eventually("the tags", async || {
        let found = tags(env, bucket).await;
        if found.each_ref() == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    env.ready("d").await;
}

#[test]
fn demanded_tags_are_on_every_resource_and_tags_of_others_stay() {
    run(async {
        let flag = [("MTLS_OPERATOR_AWS_TAGS", "cost-center=0,team=payments")];
        let env = TestEnv::start_with("tags", &flag).await;
        let (bucket, mut spec) = to_be_made(&env, "tagged");
        spec["aws"] = json!({"tags": {"cost-center": "4711"}});
        env.create_domain("d", spec).await;
        env.ready("d").await;
        let both = these(&[("cost-center", "4711"), ("team", "payments")]);
        let at_creation = tags(&env, &bucket).await;
        assert_eq!(at_creation.each_ref(), [&both; 4], "the spec wins over the flag");

        // The organization's robot tags, too.
        let (arn, _) = in_use(&env).await;
        let theirs = CertificateTag::builder().key("robot").value("x").build().unwrap();
        let tagged = env.acm().add_tags_to_certificate().certificate_arn(arn);
        tagged.tags(theirs).send().await.expect("AddTagsToCertificate");
        let domain_arn = format!(
            "arn:aws:apigateway:{}::/domainnames/{}",
            env.account.region,
            env.host()
        );
        let tagged = env.gateway().tag_resource().resource_arn(&domain_arn);
        tagged.tags("robot", "x").send().await.expect("TagResource");
        let all = env
            .s3()
            .get_bucket_tagging()
            .bucket(&bucket)
            .send()
            .await
            .unwrap();
        let theirs = Tag::builder().key("robot").value("x").build().unwrap();
        let all = all.tag_set.into_iter().chain([theirs]).collect();
        let all = Tagging::builder().set_tag_set(Some(all)).build().unwrap();
        let tagged = env.s3().put_bucket_tagging().bucket(&bucket).tagging(all);
        tagged.send().await.expect("PutBucketTagging");
        let mark = env.mark().await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);

        // What exists gets a further tag, and another value.
        let more = json!({"tags": {"cost-center": "4712", "mail": "a@example.com"}});
        env.change("d", json!({"aws": more})).await;
        let ours = these(&[
            ("cost-center", "4712"),
            ("mail", "a@example.com"),
            ("team", "payments"),
        ]);
        let mut with_theirs = ours.clone();
        with_theirs.insert("robot".into(), "x".into());
        until(&env, &bucket, [&with_theirs, &with_theirs, &with_theirs, &ours]).await;
        let mut writes = env.writes(mark).await;
        writes.sort();
        let expected = [
            "AddTagsToCertificate",
            "PutBucketTagging",
            "PutObject",
            "TagResource",
            "UpdateDomainName",
        ];
        assert_eq!(writes, expected);

        // A tag that the spec does not demand any more stays; one that another writer removes comes back.
        let mark = env.mark().await;
        env.change("d", json!({"aws": {"tags": {"mail": null}}})).await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        let untagged = env.gateway().untag_resource().resource_arn(&domain_arn);
        untagged.tag_keys("team").send().await.expect("UntagResource");
        until(&env, &bucket, [&with_theirs, &with_theirs, &with_theirs, &ours]).await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, ["UntagResource", "TagResource"]);
    });
}

#[test]
fn a_truststore_object_has_the_first_ten_of_forty_tags() {
    run(async {
        let env = TestEnv::start("fortytags").await;
        let (bucket, mut spec) = to_be_made(&env, "forty");
        let all: Tags = (0..40)
            .map(|n| (format!("tag {n:02}"), format!("a+b={n}")))
            .collect();
        spec["aws"] = json!({"tags": all});
        env.create_domain("d", spec).await;
        env.ready("d").await;
        let first: Tags = all.clone().into_iter().take(10).collect();
        assert_eq!(tags(&env, &bucket).await.each_ref(), [&all, &all, &all, &first]);
        let mark = env.mark().await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        env.delete_domain("d").await;
    });
}

#[test]
fn too_many_tags_of_flag_and_spec_together_are_refused() {
    run(async {
        let flag = [("MTLS_OPERATOR_AWS_TAGS", "team=payments")];
        let env = TestEnv::start_with("manytags", &flag).await;
        let all: Tags = (0..40).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        env.create_domain("d", json!({"aws": {"tags": all}})).await;
        let refused = env.condition("d", "Accepted", |c| c.status == "False").await;
        assert_eq!(refused.reason, "InvalidSpec");
        for part in ["spec.aws.tags", "--aws-tags", "41 tags", "at most 40"] {
            assert!(refused.message.contains(part), "{refused:?}");
        }
    });
}
