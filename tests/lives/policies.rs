//! The policies of an MtlsDomain: what stays when it goes, what is only looked at, where nothing may be written, and how to let go.
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use mtls_operator::domain::plan::OWNER_TAG;
use sandbox::control::Calls;
use serde_json::json;

use crate::world::{Life, eventually, run};

/// The notes of the Events with this reason on the MtlsDomain `d`.
async fn events(life: &Life, reason: &str) -> Vec<String> {
    let events = kube::Api::<k8s_openapi::api::events::v1::Event>::namespaced(life.client.clone(), &life.namespace);
    let all = events.list(&ListParams::default()).await.expect("Events").items;
    all.into_iter().filter(|e| e.reason.as_deref() == Some(reason)).filter_map(|e| e.note).collect()
}

async fn generated_authorities(life: &Life) -> usize {
    let authorities = ListParams::default().labels("mtls-operator.io/authority");
    life.secrets().list(&authorities).await.unwrap().items.len()
}

#[test]
fn a_retained_domain_goes_on_serving_without_our_ownership_tags_and_can_be_taken_back() {
    run(async {
        let life = Life::start("retained").await;
        life.create_domain("d", json!({"deletionPolicy": "Retain"})).await;
        life.create_certificate("client1", "d").await;
        life.ready("d").await;
        life.certificate_ready("client1").await;
        let identity = life.identity("client1").await;
        let (records, versions) = (life.records().await.len(), life.object_versions().await);
        let certificates = life.server_certificates().await;

        life.delete_domain("d").await;
        assert_eq!(life.call(&life.host(), "/", Some(&identity)).await.status, 200);
        assert_eq!(life.gateway_domain().await.tags.unwrap_or_default().get(OWNER_TAG), None);
        let request = life.acm().list_tags_for_certificate().certificate_arn(&certificates[0]);
        assert_eq!(request.send().await.unwrap().tags(), []);
        assert_eq!(life.server_certificates().await, certificates);
        assert_eq!(life.object_versions().await, versions);
        assert_eq!(life.records().await.len(), records - 1, "only the marker went");
        assert_eq!(generated_authorities(&life).await, 1, "who is let in may need a new certificate some day");
        assert_eq!(events(&life, "Retained").await.len(), 1);

        // Nothing of it is lost: the same manifest, with leave to take over, manages it again.
        life.create_domain("d", json!({"adoptionPolicy": "Unowned"})).await;
        life.ready("d").await;
        assert_eq!(life.gateway_domain().await.tags.unwrap_or_default().get(OWNER_TAG), Some(&life.owner("d")));
        assert_eq!(life.call(&life.host(), "/", Some(&identity)).await.status, 200);
    });
}

#[test]
fn observing_says_what_would_be_done_and_writes_nothing_to_aws() {
    run(async {
        let life = Life::start("observe").await;
        let mark = life.mark().await;
        life.create_domain("d", json!({"managementPolicy": "Observe"})).await;
        let issued = life.condition("d", "CertificateIssued", |c| c.reason == "Observing").await;
        assert_eq!(issued.status, "False");
        assert!(issued.message.contains(&life.host()), "{}", issued.message);
        let plan = async || life.domains().get("d").await.unwrap().status.unwrap_or_default().plan;
        let first = plan().await;
        assert!(first.iter().any(|line| line.contains("request certificate")), "{first:?}");
        assert!(first.iter().any(|line| line.contains("generate authority partners")), "{first:?}");
        life.reconciles(2).await;
        assert_eq!(life.writes(mark).await, [""; 0]);
        assert_eq!(generated_authorities(&life).await, 0);
        let object = life.domains().get("d").await.unwrap();
        assert_eq!(object.metadata.finalizers, None, "nothing is there to clean up");

        life.change("d", json!({"managementPolicy": "Manage"})).await;
        life.ready("d").await;
        assert_eq!(plan().await, [""; 0]);

        // Drift is reported, and stays.
        life.change("d", json!({"managementPolicy": "Observe"})).await;
        life.ready("d").await;
        let id = life.mapping_id("").await;
        life.gateway().delete_api_mapping().domain_name(life.host()).api_mapping_id(id).send().await.unwrap();
        let mark = life.mark().await;
        life.condition("d", "MappingsProgrammed", |c| c.reason == "Observing").await;
        let drift = plan().await;
        assert!(drift.len() == 1 && drift[0].contains("create mapping"), "{drift:?}");
        life.reconciles(2).await;

        // Not even to delete.
        life.delete_domain("d").await;
        assert_eq!(life.writes(mark).await, [""; 0]);
        assert_eq!(life.gateway_domains().await, [life.host()]);
        assert_eq!(events(&life, "Retained").await.len(), 1);
    });
}

#[test]
fn another_account_than_the_spec_names_is_refused_before_the_first_write() {
    run(async {
        let life = Life::start("account").await;
        let mark = life.mark().await;
        life.create_domain("d", json!({"aws": {"accountId": "999999999999"}})).await;
        let accepted = life.condition("d", "Accepted", |c| c.status == "False").await;
        assert_eq!(accepted.reason, "WrongAccount");
        assert!(accepted.message.contains(&life.account.id), "{}", accepted.message);
        life.condition("d", "Stalled", |c| c.status == "True").await;
        assert_eq!(life.writes(mark).await, [""; 0]);
        life.delete_domain("d").await;
        assert_eq!(life.writes(mark).await, [""; 0]);
    });
}

#[test]
fn a_domain_whose_account_changed_has_no_second_set_of_resources() {
    run(async {
        let mut life = Life::start("home").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        life.operator.stop().await.unwrap();
        // The operator comes back with other credentials.
        let other = crate::world::world().aws.new_account();
        life.operator.set_env("AWS_ACCESS_KEY_ID", &other.id);
        life.operator.restart().unwrap();
        let accepted = life.condition("d", "Accepted", |c| c.reason == "HomeChanged").await;
        assert!(accepted.message.contains(&life.account.id), "{}", accepted.message);
        life.condition("d", "Stalled", |c| c.status == "True").await;
        // Nor is it deleted in the wrong place.
        life.domains().delete("d", &DeleteParams::default()).await.unwrap();
        let theirs = Calls { account: &other.id, writes: true, ..Calls::default() };
        assert_eq!(life.control().calls(&theirs).await.unwrap().calls.len(), 0);
        assert_eq!(life.gateway_domains().await, [life.host()]);
        life.operator.set_env("AWS_ACCESS_KEY_ID", &life.account.id.clone());
        life.operator.restart().unwrap();
        life.domain_gone("d").await;
        assert_eq!(life.gateway_domains().await, [""; 0]);
    });
}

#[test]
fn a_domain_lives_in_the_region_that_its_spec_names() {
    run(async {
        let life = Life::start("region").await;
        let mut there = life.account.clone();
        there.region = "us-east-1".into();
        let bucket = format!("elsewhere-{}", there.id);
        sandbox::prepare::versioned_bucket(&there, &bucket).await.unwrap();
        let api = sandbox::prepare::http_api(&there, "elsewhere", None).await.unwrap();
        life.create_domain(
            "d",
            json!({
                "aws": {"region": "us-east-1"},
                "truststore": {"bucket": bucket},
                "mappings": [{"path": "", "api": {"id": api, "stage": "$default"}}],
            }),
        )
        .await;
        life.create_certificate("client1", "d").await;
        life.ready("d").await;
        life.certificate_ready("client1").await;
        assert_eq!(life.gateway_domains().await, [""; 0], "none in the operator's own Region");
        let gateway = aws_sdk_apigatewayv2::Client::new(&there.sdk());
        let domain = gateway.get_domain_name().domain_name(life.host()).send().await.unwrap();
        let config = &domain.domain_name_configurations()[0];
        assert!(config.certificate_arn().unwrap().starts_with("arn:aws:acm:us-east-1:"));
        assert!(config.api_gateway_domain_name().unwrap().contains(".us-east-1."));
        assert_eq!(life.call(&life.host(), "/", Some(&life.identity("client1").await)).await.status, 200);
        life.delete_domain("d").await;
        assert_eq!(gateway.get_domain_names().send().await.unwrap().items().len(), 0);
    });
}

/// A name is unique in a Region, and the older object without a Region of its own is in the operator's.
#[test]
fn one_name_in_two_regions_is_no_dispute() {
    run(async {
        let life = Life::start("regions").await;
        life.create_domain("here", json!({})).await;
        life.ready("here").await;
        let mut there = life.account.clone();
        there.region = "us-east-1".into();
        let bucket = format!("there-{}", there.id);
        sandbox::prepare::versioned_bucket(&there, &bucket).await.unwrap();
        let spec = json!({"aws": {"region": "us-east-1"}, "truststore": {"bucket": bucket}, "mappings": []});
        life.create_domain("there", spec).await;
        life.condition("there", "DomainProgrammed", |c| c.status == "True").await;
        let gateway = aws_sdk_apigatewayv2::Client::new(&there.sdk());
        let domain = gateway.get_domain_name().domain_name(life.host()).send().await.unwrap();
        assert_eq!(domain.tags.unwrap_or_default().get(OWNER_TAG), Some(&life.owner("there")));
        // There is one record for both, and the first has it.
        life.condition("there", "DNSProgrammed", |c| c.reason == "ForeignOwner").await;
        life.ready("here").await;
        life.delete_domain("there").await;
        life.ready("here").await;
        assert_eq!(life.gateway_domains().await, [life.host()]);
    });
}

#[test]
fn nothing_is_deleted_while_suspended() {
    run(async {
        let life = Life::start("suspendeddelete").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        life.change("d", json!({"suspend": true})).await;
        life.condition("d", "Accepted", |c| c.reason == "Suspended").await;
        let mark = life.mark().await;
        life.domains().delete("d", &DeleteParams::default()).await.unwrap();
        // Another object's whole life goes by meanwhile.
        life.create_domain("other", json!({"domainName": format!("other.{}", life.prepared.zone)})).await;
        life.ready("other").await;
        let writes = life.writes(mark).await;
        assert!(!writes.iter().any(|w| w.starts_with("Delete") || w.contains("DELETE")), "{writes:?}");
        assert!(life.gateway_domains().await.contains(&life.host()));
        life.change("d", json!({"suspend": false})).await;
        life.domain_gone("d").await;
        assert!(!life.gateway_domains().await.contains(&life.host()));
    });
}

#[test]
fn an_abandoned_domain_goes_without_aws() {
    run(async {
        let life = Life::start("abandoned").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        life.control().deny(&life.account.id, &["*"]).await.unwrap();
        life.domains().delete("d", &DeleteParams::default()).await.unwrap();
        life.condition("d", "DomainProgrammed", |c| c.status == "False" && c.reason == "PermissionDenied").await;
        life.condition("d", "Ready", |c| c.status == "False" && c.reason == "Deleting").await;

        let annotate = async |name: &str| {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/abandon": name}}}));
            life.domains().patch("d", &PatchParams::default(), &patch).await.unwrap();
        };
        annotate("another").await; // came along with a copied manifest
        life.condition("d", "Ready", |c| c.status == "False").await;
        let mark = life.mark().await;
        annotate("d").await;
        life.domain_gone("d").await;
        assert_eq!(life.writes(mark).await, [""; 0]);
        let note = eventually("the Event", async || events(&life, "Abandoned").await.pop().ok_or("none".into())).await;
        for part in [life.host(), "arn:aws:acm:".into(), format!("s3://{}", life.prepared.bucket)] {
            assert!(note.contains(&part), "{note}");
        }
    });
}
