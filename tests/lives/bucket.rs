//! The truststore's bucket and object: made where the spec says so and finished after a crash, left alone where they are somebody
//! else's, encrypted as the spec says, moved with all that is remembered in them.
use std::time::Duration;

use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, ServerSideEncryption,
    VersioningConfiguration,
};
use futures::future::join_all;
use mtls_operator::domain::plan::OWNER_TAG;
use sandbox::control::{Calls, Fault, When};
use serde_json::{Value, json};

use crate::{
    objects::{
        CERTIFICATE, Ca, Caller, DOMAIN, certificate_spec, create, create_secret, domain_spec, holds, truststore,
    },
    world::{Life, eventually, run},
};

/// The Region whose name S3 does not take as a place.
const ELSEWHERE: &str = "us-east-1";

/// S3 in another Region.
fn s3_in(life: &Life, region: &str) -> aws_sdk_s3::Client {
    let config = life.account.sdk().to_builder().region(aws_sdk_s3::config::Region::new(region.to_owned())).build();
    aws_sdk_s3::Client::new(&config)
}

/// A bucket name that is free, and the spec that has it made.
fn to_be_made(life: &Life, suffix: &str) -> (String, Value) {
    let name = format!("made-{suffix}-{}", life.account.id);
    let spec = json!({"truststore": {"bucket": name, "bucketCreation": "IfMissing"}});
    (name, spec)
}

async fn enable_versioning(life: &Life, bucket: &str) {
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    life.s3().put_bucket_versioning().bucket(bucket).versioning_configuration(enabled).send().await.unwrap();
}

/// Versioned, private, encrypted, and marked as made for the MtlsDomain `name`.
async fn is_as_it_should_be(s3: &aws_sdk_s3::Client, bucket: &str, owner: &str, kms_key: Option<&str>) {
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
    let rule = encryption.server_side_encryption_configuration.unwrap().rules.remove(0);
    let default = rule.apply_server_side_encryption_by_default.unwrap();
    let algorithm = if kms_key.is_some() { ServerSideEncryption::AwsKms } else { ServerSideEncryption::Aes256 };
    assert_eq!((default.sse_algorithm, default.kms_master_key_id.as_deref()), (algorithm, kms_key));
    let tags = s3.get_bucket_tagging().bucket(bucket).send().await.unwrap().tag_set;
    let tags: Vec<_> = tags.iter().map(|t| (t.key.as_str(), t.value.as_str())).collect();
    assert_eq!(tags, [(OWNER_TAG, owner)]);
}

#[test]
fn a_missing_bucket_is_made_in_the_domains_region() {
    run(async {
        let life = Life::start("made").await;
        let (near, spec) = to_be_made(&life, "near");
        let mark = life.mark().await;
        life.create_domain("near", spec).await;
        life.ready("near").await;
        let key = format!("arn:aws:kms:{ELSEWHERE}:{}:key/0a1b2c3d", life.account.id);
        let (far, mut spec) = to_be_made(&life, "far");
        spec["truststore"]["kmsKeyArn"] = json!(key);
        spec["aws"] = json!({"region": ELSEWHERE});
        spec["domainName"] = json!(format!("far.{}", life.prepared.zone));
        life.create_domain("far", spec).await;
        life.condition("far", "TruststorePublished", |c| c.status == "True").await;
        let all = Calls { account: &life.account.id, service: "s3", since: mark, ..Calls::default() };
        let calls = life.control().calls(&all).await.unwrap().calls;

        is_as_it_should_be(&life.s3(), &near, &life.owner("near"), None).await;
        let s3 = s3_in(&life, ELSEWHERE);
        is_as_it_should_be(&s3, &far, &life.owner("far"), Some(&key)).await;
        let at = s3.get_bucket_location().bucket(&far).send().await.unwrap().location_constraint;
        assert!(at.is_none_or(|at| at.as_str().is_empty()), "us-east-1 is said by saying nothing");
        let at = life.s3().get_bucket_location().bucket(&near).send().await.unwrap().location_constraint;
        assert_eq!(at, Some(BucketLocationConstraint::from(life.account.region.as_str())));
        // A name that a stranger takes in between is refused by S3 itself.
        for call in calls.iter().filter(|c| c.operation != "CreateBucket") {
            assert_eq!(call.bucket_owner, life.account.id, "{call:?}");
        }
        // Buckets are never deleted.
        life.delete_domain("near").await;
        life.s3().head_bucket().bucket(&near).send().await.unwrap();
    });
}

#[test]
fn killed_while_it_makes_a_bucket_the_next_operator_finishes_it() {
    run(async {
        let points = ["CreateBucket", "PutPublicAccessBlock", "PutBucketEncryption", "PutBucketVersioning"];
        join_all(points.map(|operation| Box::pin(killed_after(operation)))).await;
    });
}

async fn killed_after(operation: &str) {
    let mut life = Life::start("halfmade").await;
    let (bucket, mut spec) = to_be_made(&life, "half");
    let key = format!("arn:aws:kms:{}:{}:key/half", life.account.region, life.account.id);
    spec["truststore"]["kmsKeyArn"] = json!(key);
    let account = life.account.id.clone();
    let hold =
        Fault { operation, account: &account, resource: &bucket, when: When::After, hold: true, ..Fault::default() };
    let fault = life.control().add_faults(&[hold]).await.unwrap().remove(0).id;
    life.create_domain("d", spec).await;
    life.kill_at(fault, operation).await;
    life.condition("d", "TruststorePublished", |c| c.status == "True").await;
    is_as_it_should_be(&life.s3(), &bucket, &life.owner("d"), Some(&key)).await;
    let made = Calls { account: &account, operation: "CreateBucket", ..Calls::default() };
    let made = life.control().calls(&made).await.unwrap().calls;
    assert_eq!(made.iter().filter(|c| c.resource == bucket).count(), 1, "{operation}");
}

#[test]
fn a_bucket_that_the_operator_did_not_make_is_not_changed() {
    run(async {
        let life = Life::start("theirs").await;
        let (plain, spec) = to_be_made(&life, "plain");
        let place = BucketLocationConstraint::from(life.account.region.as_str());
        let here = CreateBucketConfiguration::builder().location_constraint(place).build();
        life.s3().create_bucket().bucket(&plain).create_bucket_configuration(here).send().await.unwrap();
        let (far, elsewhere) = to_be_made(&life, "far");
        s3_in(&life, ELSEWHERE).create_bucket().bucket(&far).send().await.unwrap();

        let mark = life.mark().await;
        life.create_domain("d", spec).await;
        let published = life.condition("d", "TruststorePublished", |c| c.reason == "BucketNotVersioned").await;
        assert_eq!(published.status, "False");
        life.change("d", elsewhere).await;
        let published = life.condition("d", "TruststorePublished", |c| c.reason == "BucketInOtherRegion").await;
        assert_eq!(published.status, "False");
        for name in [&far, ELSEWHERE, &life.account.region] {
            assert!(published.message.contains(name), "{}", published.message);
        }
        // No such bucket, and not to be made.
        life.change("d", json!({"truststore": {"bucket": "nowhere", "bucketCreation": "Never"}})).await;
        life.condition("d", "TruststorePublished", |c| c.reason == "BucketNotFound").await;
        // Another account's.
        let stranger = crate::world::world().aws.new_account();
        let not_owned = format!("foreign-{}", stranger.id);
        sandbox::prepare::versioned_bucket(&stranger, &not_owned).await.unwrap();
        life.change("d", json!({"truststore": {"bucket": not_owned, "bucketCreation": "IfMissing"}})).await;
        let published = life.condition("d", "TruststorePublished", |c| c.reason == "PermissionDenied").await;
        assert!(published.message.contains(&format!("not account {}'s", life.account.id)), "{}", published.message);
        let writes = life.writes(mark).await;
        assert!(!writes.iter().any(|w| w.contains("Bucket") || w.contains("Object")), "{writes:?}");

        life.change("d", json!({"truststore": {"bucket": plain, "bucketCreation": "IfMissing"}})).await;
        life.condition("d", "TruststorePublished", |c| c.reason == "BucketNotVersioned").await;
        enable_versioning(&life, &plain).await;
        life.ready("d").await;
        let s3 = life.s3();
        assert!(s3.get_bucket_tagging().bucket(&plain).send().await.is_err(), "it carries no ownership tag");
        // A wrong bucket in the spec does not keep the object from being deleted.
        life.change("d", json!({"truststore": {"bucket": far, "bucketCreation": "IfMissing"}})).await;
        life.condition("d", "TruststorePublished", |c| c.reason == "BucketInOtherRegion").await;
        life.delete_domain("d").await;
    });
}

#[test]
fn nothing_is_pinned_while_a_new_bucket_gives_no_versions() {
    run(async {
        let life = Life::start("young").await;
        life.control().set_knobs(&life.account.id, &[("versioning_delay", 3600.0)]).await.unwrap();
        let (bucket, spec) = to_be_made(&life, "young");
        life.create_domain("d", spec).await;
        let published = life.condition("d", "TruststorePublished", |c| c.reason == "Unreachable").await;
        assert!(published.message.contains(&bucket), "{}", published.message);
        eventually("it is tried again", async || {
            let puts = Calls { account: &life.account.id, operation: "PutObject", ..Calls::default() };
            let puts = life.control().calls(&puts).await.map_err(|e| e.to_string())?.calls.len();
            if puts > 2 { Ok(()) } else { Err(format!("{puts} times")) }
        })
        .await;
        assert_eq!(life.gateway_domains().await, [""; 0]);

        life.control().advance(&life.account.id, Duration::from_secs(3600)).await.unwrap();
        life.ready("d").await;
        let pinned = life.gateway_domain().await.mutual_tls_authentication.unwrap().truststore_version.unwrap();
        assert!(!pinned.is_empty() && pinned != "null", "{pinned}");
        // What got no version carries the ownership tag as well, and goes with the rest.
        life.delete_domain("d").await;
        let left = life.s3().list_object_versions().bucket(&bucket).send().await.unwrap();
        assert_eq!(left.versions().len(), 0, "{left:?}");
    });
}

#[test]
fn another_kms_key_is_another_version_of_the_same_bytes() {
    run(async {
        let life = Life::start("kms").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        let (mut version, text) = truststore(&life).await;
        let arn = |key: &str| format!("arn:aws:kms:{}:{}:{key}", life.account.region, life.account.id);
        let object = format!("{}.pem", life.owner("d"));
        for (wanted, found) in [
            (json!(arn("key/one")), Some("key/one")),
            (json!(arn("key/two")), Some("key/two")),
            (json!(arn("alias/three")), Some("key/")),
            (Value::Null, None),
        ] {
            let mark = life.mark().await;
            life.change("d", json!({"truststore": {"kmsKeyArn": wanted}})).await;
            life.ready("d").await;
            life.reconciles(2).await;
            assert_eq!(life.writes(mark).await, ["PutObject", "UpdateDomainName"], "{wanted}");
            let (now, same) = truststore(&life).await;
            assert_ne!(now, version);
            assert_eq!(same, text);
            let head = life.s3().head_object().bucket(&life.prepared.bucket).key(&object).version_id(&now);
            let key = head.send().await.unwrap().ssekms_key_id;
            assert_eq!(key.is_some(), found.is_some(), "{key:?}");
            assert!(key.unwrap_or_default().starts_with(&found.map(arn).unwrap_or_default()));
            version = now;
        }
    });
}

#[test]
fn an_object_without_an_owner_is_stored_over_only_when_the_spec_says_so() {
    run(async {
        let life = Life::start("older").await;
        let (bucket, key) = (life.prepared.bucket.clone(), "truststore.pem");
        let older = Ca::new("Older CA").pem;
        let request = life.s3().put_object().bucket(&bucket).key(key).body(older.into_bytes().into());
        let old = request.send().await.unwrap().version_id.unwrap();
        let mark = life.mark().await;
        life.create_domain("d", json!({"truststore": {"bucket": bucket, "key": key}})).await;
        let published = life.condition("d", "TruststorePublished", |c| c.reason == "ForeignOwner").await;
        assert_eq!(published.status, "False");
        for part in [key, "spec.truststore.key", "spec.adoptionPolicy"] {
            assert!(published.message.contains(part), "{}", published.message);
        }
        life.reconciles(2).await;
        assert!(!life.writes(mark).await.iter().any(|w| w.contains("Object")));
        assert_eq!(life.object_versions().await, std::slice::from_ref(&old));

        life.change("d", json!({"adoptionPolicy": "Unowned"})).await;
        life.ready("d").await;
        let versions = life.object_versions().await;
        assert_eq!((versions.len(), &versions[1]), (2, &old));
        assert_eq!(truststore(&life).await.0, versions[0]);
        life.delete_domain("d").await;
        assert_eq!(life.object_versions().await, [old], "what was there before is there again");
    });
}

#[test]
fn a_truststore_that_moves_keeps_its_memory_and_revives_nothing() {
    run(async {
        let life = Life::start("moves").await;
        let [old, lost] = ["Old CA", "Lost CA"].map(Ca::new);
        create_secret(&life, "old-ca", &[("tls.crt", &old.pem), ("tls.key", &old.key)]).await;
        create_secret(&life, "lost-ca", &[("tls.crt", &lost.pem), ("tls.key", &lost.key)]).await;
        let entry = json!({"name": "old", "secretRef": {"name": "old-ca"}});
        let lost_entry = |state: &str| json!({"name": "lost", "state": state, "secretRef": {"name": "lost-ca"}});
        let trust = |more: Vec<Value>| {
            let mut authorities = vec![json!({"name": "new", "generate": {}})];
            authorities.extend(more);
            json!({"issuingAuthority": "new", "authorities": authorities})
        };
        let mut issued_by_old = trust(vec![entry, lost_entry("Active")]);
        issued_by_old["issuingAuthority"] = json!("old");
        create(&life, DOMAIN, "partners", domain_spec(&life, issued_by_old)).await;
        create(&life, CERTIFICATE, "client1", certificate_spec("client1")).await;
        life.ready("partners").await;
        life.certificate_ready("client1").await;
        let living = Caller::of(&life.secrets().get("client1").await.unwrap());
        // The authority leaves the spec while a leaf under it lives.
        life.change("partners", json!({"trust": trust(vec![lost_entry("Active")])})).await;
        life.ready("partners").await;
        let keep_until = |text: &str| {
            let line = text.lines().find(|l| l.contains("keep-until: ")).map(str::to_owned);
            line.unwrap_or_else(|| panic!("nothing is remembered: {text}"))
        };
        let (_, before) = truststore(&life).await;
        let remembered = keep_until(&before);

        // ... and then the truststore moves, twice.
        let first = json!({"truststore": {"bucket": life.prepared.bucket, "key": "first.pem"}});
        let second = json!({"truststore": {"bucket": life.prepared.bucket, "key": "second.pem"}});
        let old_place = life.object_versions().await;
        for place in [&first, &second] {
            life.change("partners", place.clone()).await;
            life.ready("partners").await;
            let (_, text) = truststore(&life).await;
            assert_eq!(keep_until(&text), remembered);
            assert_eq!(living.calls(&life).await, "200");
        }
        let everything = life.object_versions().await;
        assert!(old_place.iter().all(|v| everything.contains(v)), "the object at the old place stays");

        // What is trusted no more is still in the object at the first place; going back there does not bring it back.
        life.change("partners", json!({"trust": trust(vec![lost_entry("Distrusted")])})).await;
        life.ready("partners").await;
        life.change("partners", json!({"trust": trust(vec![])})).await;
        life.ready("partners").await;
        life.change("partners", first).await;
        life.ready("partners").await;
        let (_, text) = truststore(&life).await;
        assert_eq!(keep_until(&text), remembered);
        assert!(!holds(&text, &lost.pem), "{text}");
    });
}
