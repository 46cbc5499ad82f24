//! Resources of other owners stay untouched, and the conditions say so.
use aws_sdk_route53::types::{ChangeAction, RrType};
use mtls_operator::aws::tags::{OWNER_METADATA, OWNER_TAG};
use sandbox::control::Fault;
use serde_json::json;

use crate::support::{
    aws::existing_resources::{self, record},
    test_env::TestEnv,
    world::run,
};

#[test]
fn a_domain_with_another_owners_tag_is_left_alone() {
    run(async {
        let env = TestEnv::start("theirs").await;
        let arn = existing_resources::certificate(&env).await;
        existing_resources::domain(&env, &arn, &[(OWNER_TAG, "other/team/d")], None).await;
        let before = env.gateway_domain().await;

        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        let programmed = env
            .condition("d", "DomainProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        assert_eq!(programmed.status, "False");
        assert!(
            programmed.message.contains("other/team/d"),
            "{}",
            programmed.message
        );
        env.condition("d", "Ready", |c| {
            c.status == "False" && c.reason == "ForeignOwner"
        })
        .await;
        env.reconciles(2).await;
        env.delete_domain("d").await;

        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(
            format!("{:?}", env.gateway_domain().await.tags),
            format!("{:?}", before.tags)
        );
        assert_eq!(env.server_certificates().await, [arn], "theirs stays");
    });
}

#[test]
fn a_name_that_another_account_has_is_waited_for() {
    run(async {
        let (theirs, env) = (TestEnv::start("taken").await, TestEnv::start("taker").await);
        let name = theirs.host();
        theirs.create_domain("d", json!({})).await;
        theirs.ready("d").await;
        // The other account has a zone of that name too: only API Gateway itself knows of the conflict.
        sandbox::prepare::hosted_zone(&env.account, &theirs.prepared.zone)
            .await
            .unwrap();
        env.create_domain("d", json!({"domainName": name})).await;
        let programmed = env
            .condition("d", "DomainProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        assert_eq!(programmed.status, "False");
        assert!(
            programmed.message.contains("another AWS account"),
            "{}",
            programmed.message
        );
        theirs.delete_domain("d").await;
        env.condition("d", "DomainProgrammed", |c| c.status == "True")
            .await;
        env.delete_domain("d").await;
    });
}

/// API Gateway answers 409, or 400 with the same text, when a change collides with another one. The text asks
/// for another attempt.
#[test]
fn a_concurrent_change_is_retried_soon() {
    run(async {
        // The drift interval is long: nothing but the retry itself leads to another attempt in time.
        let slow = [("MTLS_OPERATOR_DRIFT_INTERVAL", "3600s")];
        let env = TestEnv::start_with("concurrent", &slow).await;
        let collision = |status, code, skip| Fault {
            operation: "CreateDomainName",
            account: &env.account.id,
            status,
            code,
            skip,
            message: "Unable to complete operation due to concurrent modification. Please try again later.",
            ..Fault::default()
        };
        let faults = [
            collision(409, "ConflictException", 0),
            collision(400, "BadRequestException", 0),
        ];
        env.control().add_faults(&faults).await.expect("two faults");
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        env.condition("d", "DomainProgrammed", |c| {
            assert_ne!(c.reason, "ForeignOwner", "{}", c.message);
            c.status == "True"
        })
        .await;
        let writes = env.writes(mark).await;
        let attempts = writes.iter().filter(|w| *w == "CreateDomainName").count();
        assert_eq!(attempts, 3, "{writes:?}");
        env.delete_domain("d").await;
    });
}

#[test]
fn an_address_record_without_our_ownership_record_is_left_alone_until_it_is_gone() {
    run(async {
        let env = TestEnv::start("address").await;
        let theirs = record(&format!("{}.", env.host()), RrType::A, "192.0.2.1");
        env.change_record(ChangeAction::Create, theirs.clone()).await;
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        let dns = env
            .condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner")
            .await;
        assert_eq!(dns.status, "False");
        assert!(dns.message.contains("192.0.2.1"), "{}", dns.message);
        env.reconciles(2).await;
        let writes = env.writes(mark).await;
        assert_eq!(
            writes.iter().filter(|w| w.contains(" A ")).collect::<Vec<_>>(),
            [""; 0],
            "{writes:?}"
        );
        assert_eq!(env.record(RrType::A).await, Some(theirs.clone()));
        assert!(!env.endpoint_closed().await, "callers have no other way in yet");

        env.change_record(ChangeAction::Delete, theirs).await;
        env.ready("d").await;
        assert!(env.record(RrType::A).await.unwrap().alias_target.is_some());
    });
}

#[test]
fn a_truststore_object_of_another_owner_is_not_overwritten() {
    run(async {
        let env = TestEnv::start("object").await;
        let (bucket, key) = (&env.prepared.bucket, format!("{}.pem", env.owner("d")));
        let request = env
            .s3()
            .put_object()
            .bucket(bucket)
            .key(&key)
            .metadata(OWNER_METADATA, "other/team/d");
        let version = request
            .body(b"theirs".to_vec().into())
            .send()
            .await
            .unwrap()
            .version_id
            .unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        let published = env
            .condition("d", "TruststorePublished", |c| c.reason == "ForeignOwner")
            .await;
        assert_eq!(published.status, "False");
        assert!(
            published.message.contains("other/team/d"),
            "{}",
            published.message
        );
        env.reconciles(2).await;
        env.delete_domain("d").await;
        let writes = env.writes(mark).await;
        assert!(
            !writes
                .iter()
                .any(|w| w.contains("Object") || w.contains("Domain")),
            "{writes:?}"
        );
        assert_eq!(env.object_versions().await, [version]);
    });
}

#[test]
fn the_older_of_two_objects_with_one_name_wins_until_it_is_deleted() {
    run(async {
        let env = TestEnv::start("claimed").await;
        env.create_domain("a", json!({})).await;
        env.ready("a").await;
        // The older object makes no call while it is suspended, so every call in the journal would be the
        // younger one's.
        env.change("a", json!({"suspend": true})).await;
        env.condition("a", "Accepted", |c| c.reason == "Suspended").await;
        let mark = env.mark().await;
        env.create_domain("b", json!({})).await;
        let accepted = env.condition("b", "Accepted", |c| c.status == "False").await;
        assert_eq!(accepted.reason, "DomainNameClaimed");
        assert!(accepted.message.contains("MtlsDomain a "), "{}", accepted.message);
        let all = sandbox::control::Calls {
            account: &env.account.id,
            since: mark,
            ..Default::default()
        };
        assert_eq!(env.control().calls(&all).await.unwrap().calls.len(), 0);

        env.change("a", json!({"suspend": false})).await;
        env.ready("a").await;
        env.delete_domain("a").await;
        env.ready("b").await;
        let tags = env.gateway_domain().await.tags.unwrap();
        assert_eq!(tags.get(OWNER_TAG), Some(&env.owner("b")));
    });
}

#[test]
fn the_end_of_a_claim_wakes_the_object_that_waits_for_the_name() {
    run(async {
        // Nothing is reconciled by time.
        let env = TestEnv::start_with("unclaim", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "1h")]).await;
        // The older object has no custom domain: the operator only observes.
        env.create_domain("a", json!({"managementPolicy": "Observe"}))
            .await;
        env.condition("a", "Accepted", |c| c.status == "True").await;
        env.create_domain("b", json!({})).await;
        env.condition("b", "Accepted", |c| c.reason == "DomainNameClaimed")
            .await;
        env.change("a", json!({"suspend": true})).await;
        env.ready("b").await;
    });
}
