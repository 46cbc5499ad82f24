//! The truststore's bucket is created where the spec says so, finished after a crash, and left alone where
//! another owner has it.
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use futures::future::join_all;
use sandbox::control::{Calls, Fault, When};
use serde_json::json;

use crate::support::{
    aws::buckets::{ELSEWHERE, enable_versioning, is_as_it_should_be, s3_in, to_be_made},
    test_env::TestEnv,
    world::run,
};

#[test]
fn a_missing_bucket_is_created_in_the_domains_region() {
    run(async {
        let env = TestEnv::start("made").await;
        let (near, spec) = to_be_made(&env, "near");
        let mark = env.mark().await;
        env.create_domain("near", spec).await;
        env.ready("near").await;
        let key = format!("arn:aws:kms:{ELSEWHERE}:{}:key/0a1b2c3d", env.account.id);
        let (far, mut spec) = to_be_made(&env, "far");
        spec["truststore"]["kmsKeyArn"] = json!(key);
        spec["aws"] = json!({"region": ELSEWHERE});
        spec["domainName"] = json!(format!("far.{}", env.prepared.zone));
        env.create_domain("far", spec).await;
        env.condition("far", "TruststorePublished", |c| c.status == "True")
            .await;
        let all = Calls {
            account: &env.account.id,
            service: "s3",
            since: mark,
            ..Calls::default()
        };
        let calls = env.control().calls(&all).await.unwrap().calls;

        is_as_it_should_be(&env.s3(), &near, &env.owner("near"), None).await;
        let s3 = s3_in(&env, ELSEWHERE);
        is_as_it_should_be(&s3, &far, &env.owner("far"), Some(&key)).await;
        let at = s3
            .get_bucket_location()
            .bucket(&far)
            .send()
            .await
            .unwrap()
            .location_constraint;
        assert!(
            at.is_none_or(|at| at.as_str().is_empty()),
            "us-east-1 needs no location constraint"
        );
        let at = env
            .s3()
            .get_bucket_location()
            .bucket(&near)
            .send()
            .await
            .unwrap()
            .location_constraint;
        assert_eq!(
            at,
            Some(BucketLocationConstraint::from(env.account.region.as_str()))
        );
        // S3 itself refuses CreateBucket for a name that another account takes in between.
        for call in calls.iter().filter(|c| c.operation != "CreateBucket") {
            assert_eq!(call.bucket_owner, env.account.id, "{call:?}");
        }
        // The operator never deletes buckets.
        env.delete_domain("near").await;
        env.s3().head_bucket().bucket(&near).send().await.unwrap();
    });
}

/// Bucket policies of organizations deny an upload without the header that they demand.
#[test]
fn the_encryption_that_a_bucket_policy_demands_is_in_the_request() {
    run(async {
        let env = TestEnv::start("demanded").await;
        let demand = async |n: f64| {
            let knobs = [("required_encryption", n)];
            env.control().set_knobs(&env.account.id, &knobs).await.unwrap();
        };
        let stored = async || {
            let used = env.gateway_domain().await;
            let used = used.mutual_tls_authentication().unwrap();
            let (bucket, key) = used
                .truststore_uri()
                .and_then(|uri| uri.strip_prefix("s3://")?.split_once('/'))
                .unwrap();
            let object = env.s3().head_object().bucket(bucket).key(key);
            let object = object
                .version_id(used.truststore_version().unwrap())
                .send()
                .await
                .unwrap();
            object.server_side_encryption.map(|e| e.as_str().to_owned())
        };
        demand(1.0).await;
        env.create_domain("d", json!({})).await;
        env.condition("d", "TruststorePublished", |c| c.reason == "PermissionDenied")
            .await;
        env.change("d", json!({"truststore": {"encryption": "SSES3"}}))
            .await;
        env.ready("d").await;
        assert_eq!(stored().await.as_deref(), Some("AES256"));

        // Another demand is a new version of the same bytes, once.
        demand(2.0).await;
        let mark = env.mark().await;
        env.change("d", json!({"truststore": {"encryption": "SSEKMS"}}))
            .await;
        env.ready("d").await;
        assert_eq!(stored().await.as_deref(), Some("aws:kms"));
        let key = format!("arn:aws:kms:{}:{}:key/one", env.account.region, env.account.id);
        env.change("d", json!({"truststore": {"kmsKeyArn": key}})).await;
        env.ready("d").await;
        env.reconciles(2).await;
        let twice = ["PutObject", "UpdateDomainName", "PutObject", "UpdateDomainName"];
        assert_eq!(env.writes(mark).await, twice);

        // The header of a named key is the same with and without the field.
        let mark = env.mark().await;
        env.change("d", json!({"truststore": {"encryption": null}})).await;
        env.ready("d").await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}

#[test]
fn a_half_created_bucket_is_finished_by_the_next_operator() {
    run(async {
        let points = [
            "CreateBucket",
            "PutPublicAccessBlock",
            "PutBucketEncryption",
            "PutBucketVersioning",
        ];
        join_all(points.map(|operation| Box::pin(killed_after(operation)))).await;
    });
}

async fn killed_after(operation: &str) {
    let mut env = TestEnv::start("halfmade").await;
    let (bucket, mut spec) = to_be_made(&env, "half");
    let key = format!("arn:aws:kms:{}:{}:key/half", env.account.region, env.account.id);
    spec["truststore"]["kmsKeyArn"] = json!(key);
    let account = env.account.id.clone();
    let hold = Fault {
        operation,
        account: &account,
        resource: &bucket,
        when: When::After,
        hold: true,
        ..Fault::default()
    };
    let fault = env.control().add_faults(&[hold]).await.unwrap().remove(0).id;
    env.create_domain("d", spec).await;
    env.kill_at(fault, operation).await;
    env.condition("d", "TruststorePublished", |c| c.status == "True")
        .await;
    is_as_it_should_be(&env.s3(), &bucket, &env.owner("d"), Some(&key)).await;
    let made = Calls {
        account: &account,
        operation: "CreateBucket",
        ..Calls::default()
    };
    let made = env.control().calls(&made).await.unwrap().calls;
    assert_eq!(
        made.iter().filter(|c| c.resource == bucket).count(),
        1,
        "{operation}"
    );
}

#[test]
fn a_bucket_of_another_owner_is_not_changed() {
    run(async {
        let env = TestEnv::start("theirs").await;
        let (plain, spec) = to_be_made(&env, "plain");
        let place = BucketLocationConstraint::from(env.account.region.as_str());
        let here = CreateBucketConfiguration::builder()
            .location_constraint(place)
            .build();
        env.s3()
            .create_bucket()
            .bucket(&plain)
            .create_bucket_configuration(here)
            .send()
            .await
            .unwrap();
        let (far, elsewhere) = to_be_made(&env, "far");
        s3_in(&env, ELSEWHERE)
            .create_bucket()
            .bucket(&far)
            .send()
            .await
            .unwrap();

        let mark = env.mark().await;
        env.create_domain("d", spec).await;
        let published = env
            .condition("d", "TruststorePublished", |c| c.reason == "BucketNotVersioned")
            .await;
        assert_eq!(published.status, "False");
        env.change("d", elsewhere).await;
        let published = env
            .condition("d", "TruststorePublished", |c| c.reason == "BucketInOtherRegion")
            .await;
        assert_eq!(published.status, "False");
        for name in [&far, ELSEWHERE, &env.account.region] {
            assert!(published.message.contains(name), "{}", published.message);
        }
        // The bucket does not exist, and the operator must not create it.
        env.change(
            "d",
            json!({"truststore": {"bucket": "nowhere", "bucketCreation": "Never"}}),
        )
        .await;
        env.condition("d", "TruststorePublished", |c| c.reason == "BucketNotFound")
            .await;
        // A bucket of another account.
        let stranger = crate::support::world::world().aws.new_account();
        let not_owned = format!("not-owned-{}", stranger.id);
        sandbox::prepare::versioned_bucket(&stranger, &not_owned)
            .await
            .unwrap();
        env.change(
            "d",
            json!({"truststore": {"bucket": not_owned, "bucketCreation": "IfMissing"}}),
        )
        .await;
        let published = env
            .condition("d", "TruststorePublished", |c| c.reason == "PermissionDenied")
            .await;
        assert!(
            published
                .message
                .contains(&format!("not account {}'s", env.account.id)),
            "{}",
            published.message
        );
        let writes = env.writes(mark).await;
        assert!(
            !writes
                .iter()
                .any(|w| w.contains("Bucket") || w.contains("Object")),
            "{writes:?}"
        );

        env.change(
            "d",
            json!({"truststore": {"bucket": plain, "bucketCreation": "IfMissing"}}),
        )
        .await;
        env.condition("d", "TruststorePublished", |c| c.reason == "BucketNotVersioned")
            .await;
        enable_versioning(&env, &plain).await;
        env.ready("d").await;
        let s3 = env.s3();
        assert!(
            s3.get_bucket_tagging().bucket(&plain).send().await.is_err(),
            "the bucket carries no ownership tag"
        );
        // A wrong bucket in the spec does not block the deletion of the object.
        env.change(
            "d",
            json!({"truststore": {"bucket": far, "bucketCreation": "IfMissing"}}),
        )
        .await;
        env.condition("d", "TruststorePublished", |c| c.reason == "BucketInOtherRegion")
            .await;
        env.delete_domain("d").await;
    });
}
