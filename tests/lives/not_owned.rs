//! What belongs to somebody else is not touched: the conditions say so, and the journal shows no write to it.
use aws_sdk_route53::types::{ChangeAction, RrType};
use mtls_operator::domain::plan::{OWNER_METADATA, OWNER_TAG};
use serde_json::json;

use crate::{
    existing::{self, record},
    world::{Life, run},
};

#[test]
fn a_domain_with_another_owners_tag_is_left_alone() {
    run(async {
        let life = Life::start("theirs").await;
        let arn = existing::certificate(&life).await;
        existing::domain(&life, &arn, &[(OWNER_TAG, "other/team/d")], None).await;
        let before = life.gateway_domain().await;

        let mark = life.mark().await;
        life.create_domain("d", json!({})).await;
        let programmed = life.condition("d", "DomainProgrammed", |c| c.reason == "ForeignOwner").await;
        assert_eq!(programmed.status, "False");
        assert!(programmed.message.contains("other/team/d"), "{}", programmed.message);
        life.condition("d", "Ready", |c| c.status == "False" && c.reason == "ForeignOwner").await;
        life.reconciles(2).await;
        life.delete_domain("d").await;

        assert_eq!(life.writes(mark).await, [""; 0]);
        assert_eq!(format!("{:?}", life.gateway_domain().await.tags), format!("{:?}", before.tags));
        assert_eq!(life.server_certificates().await, [arn], "theirs stays");
    });
}

#[test]
fn a_name_that_another_account_has_is_waited_for_without_a_stir() {
    run(async {
        let (theirs, life) = (Life::start("taken").await, Life::start("taker").await);
        let name = theirs.host();
        theirs.create_domain("d", json!({})).await;
        theirs.ready("d").await;
        // A zone of that name is in the other account too: nothing but API Gateway itself knows.
        sandbox::prepare::hosted_zone(&life.account, &theirs.prepared.zone).await.unwrap();
        life.create_domain("d", json!({"domainName": name})).await;
        let programmed = life.condition("d", "DomainProgrammed", |c| c.reason == "ForeignOwner").await;
        assert_eq!(programmed.status, "False");
        assert!(programmed.message.contains("another AWS account"), "{}", programmed.message);
        theirs.delete_domain("d").await;
        life.condition("d", "DomainProgrammed", |c| c.status == "True").await;
        life.delete_domain("d").await;
    });
}

#[test]
fn an_address_record_without_our_ownership_record_is_left_alone_until_it_is_gone() {
    run(async {
        let life = Life::start("address").await;
        let theirs = record(&format!("{}.", life.host()), RrType::A, "192.0.2.1");
        life.change_record(ChangeAction::Create, theirs.clone()).await;
        let mark = life.mark().await;
        life.create_domain("d", json!({})).await;
        let dns = life.condition("d", "DNSProgrammed", |c| c.reason == "ForeignOwner").await;
        assert_eq!(dns.status, "False");
        assert!(dns.message.contains("192.0.2.1"), "{}", dns.message);
        life.reconciles(2).await;
        let writes = life.writes(mark).await;
        assert_eq!(writes.iter().filter(|w| w.contains(" A ")).collect::<Vec<_>>(), [""; 0], "{writes:?}");
        assert_eq!(life.record(RrType::A).await, Some(theirs.clone()));
        assert!(!life.endpoint_closed().await, "callers have no other way in yet");

        life.change_record(ChangeAction::Delete, theirs).await;
        life.ready("d").await;
        assert!(life.record(RrType::A).await.unwrap().alias_target.is_some());
    });
}

#[test]
fn a_truststore_object_of_another_owner_is_not_overwritten() {
    run(async {
        let life = Life::start("object").await;
        let (bucket, key) = (&life.prepared.bucket, format!("{}.pem", life.owner("d")));
        let request = life.s3().put_object().bucket(bucket).key(&key).metadata(OWNER_METADATA, "other/team/d");
        let version = request.body(b"theirs".to_vec().into()).send().await.unwrap().version_id.unwrap();
        let mark = life.mark().await;
        life.create_domain("d", json!({})).await;
        let published = life.condition("d", "TruststorePublished", |c| c.reason == "ForeignOwner").await;
        assert_eq!(published.status, "False");
        assert!(published.message.contains("other/team/d"), "{}", published.message);
        life.reconciles(2).await;
        life.delete_domain("d").await;
        let writes = life.writes(mark).await;
        assert!(!writes.iter().any(|w| w.contains("Object") || w.contains("Domain")), "{writes:?}");
        assert_eq!(life.object_versions().await, [version]);
    });
}

#[test]
fn of_two_objects_with_one_name_the_older_wins_until_it_is_deleted() {
    run(async {
        let life = Life::start("claimed").await;
        life.create_domain("a", json!({})).await;
        life.ready("a").await;
        // The older one makes no call from here on, so every call in the journal would be the younger one's.
        life.change("a", json!({"suspend": true})).await;
        life.condition("a", "Accepted", |c| c.reason == "Suspended").await;
        let mark = life.mark().await;
        life.create_domain("b", json!({})).await;
        let accepted = life.condition("b", "Accepted", |c| c.status == "False").await;
        assert_eq!(accepted.reason, "DomainNameClaimed");
        assert!(accepted.message.contains("MtlsDomain a "), "{}", accepted.message);
        let all = sandbox::control::Calls { account: &life.account.id, since: mark, ..Default::default() };
        assert_eq!(life.control().calls(&all).await.unwrap().calls.len(), 0);

        life.change("a", json!({"suspend": false})).await;
        life.ready("a").await;
        life.delete_domain("a").await;
        life.ready("b").await;
        let tags = life.gateway_domain().await.tags.unwrap();
        assert_eq!(tags.get(OWNER_TAG), Some(&life.owner("b")));
    });
}
