//! A deleted domain leaves nothing but what the spec retains; no deletion happens while it is suspended, and
//! an abandoned one needs no write to AWS.
use aws_sdk_route53::types::RrType;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use mtls_operator::aws::tags::OWNER_TAG;
use sandbox::control::Fault;
use serde_json::json;

use crate::support::{
    kubernetes::domains::{events, generated_authorities},
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn a_deleted_domain_leaves_nothing_but_the_validation_record_and_a_closed_endpoint() {
    run(async {
        let env = TestEnv::start("deleted").await;
        env.create_domain("d", json!({})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        assert!(env.secrets().get_opt("d.partners-ca").await.unwrap().is_some());
        let mark = env.mark().await;
        env.delete_domain("d").await;

        assert_eq!(env.gateway_domains().await, [""; 0]);
        assert_eq!(env.server_certificates().await, [""; 0]);
        assert_eq!(env.object_versions().await, [""; 0]);
        let left: Vec<_> = env.records().await.into_iter().map(|r| r.r#type).collect();
        assert_eq!(left, [RrType::Cname], "the validation record");
        assert!(env.endpoint_closed().await);
        let secrets = env
            .secrets()
            .list(&ListParams::default().labels("mtls-operator.io/authority"))
            .await
            .unwrap();
        assert_eq!(secrets.items.len(), 0, "the authority went with its domain");

        // The operator deletes the record that leads callers here before the domain, and the domain before
        // its parts.
        let writes = env.writes(mark).await;
        let at = |operation: &str| {
            let found = writes.iter().position(|w| w.starts_with(operation));
            found.unwrap_or_else(|| panic!("no {operation} in {writes:?}"))
        };
        assert!(
            at("ChangeResourceRecordSets") < at("DeleteDomainName"),
            "{writes:?}"
        );
        assert!(at("DeleteDomainName") < at("DeleteCertificate"), "{writes:?}");
        assert!(at("DeleteDomainName") < at("DeleteObject"), "{writes:?}");
        assert!(!writes.iter().any(|w| w == "UpdateApi"), "{writes:?}");
    });
}

#[test]
fn a_retained_domain_goes_on_serving_without_our_ownership_tags_and_can_be_taken_back() {
    run(async {
        let env = TestEnv::start("retained").await;
        env.create_domain("d", json!({"deletionPolicy": "Retain"})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        let identity = env.identity("client1").await;
        let (records, versions) = (env.records().await.len(), env.object_versions().await);
        let certificates = env.server_certificates().await;

        env.delete_domain("d").await;
        assert_eq!(env.call(&env.host(), "/", Some(&identity)).await.status, 200);
        assert_eq!(
            env.gateway_domain().await.tags.unwrap_or_default().get(OWNER_TAG),
            None
        );
        let request = env
            .acm()
            .list_tags_for_certificate()
            .certificate_arn(&certificates[0]);
        assert_eq!(request.send().await.unwrap().tags(), []);
        assert_eq!(env.server_certificates().await, certificates);
        assert_eq!(env.object_versions().await, versions);
        assert_eq!(
            env.records().await.len(),
            records - 1,
            "only the ownership record went"
        );
        assert_eq!(
            generated_authorities(&env).await,
            1,
            "the clients may need new certificates later"
        );
        assert_eq!(events(&env, "Retained").await.len(), 1);

        // Nothing of the domain is lost: the same manifest, with permission to take over, manages it again.
        env.create_domain("d", json!({"adoptionPolicy": "Unowned"})).await;
        env.ready("d").await;
        assert_eq!(
            env.gateway_domain().await.tags.unwrap_or_default().get(OWNER_TAG),
            Some(&env.owner("d"))
        );
        assert_eq!(env.call(&env.host(), "/", Some(&identity)).await.status, 200);
    });
}

#[test]
fn nothing_is_deleted_while_suspended() {
    run(async {
        let env = TestEnv::start("suspendeddelete").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.change("d", json!({"suspend": true})).await;
        env.condition("d", "Accepted", |c| c.reason == "Suspended").await;
        let mark = env.mark().await;
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        // Another object goes through its whole lifecycle meanwhile.
        env.create_domain(
            "other",
            json!({"domainName": format!("other.{}", env.prepared.zone)}),
        )
        .await;
        env.ready("other").await;
        let writes = env.writes(mark).await;
        assert!(
            !writes
                .iter()
                .any(|w| w.starts_with("Delete") || w.contains("DELETE")),
            "{writes:?}"
        );
        assert!(env.gateway_domains().await.contains(&env.host()));
        env.change("d", json!({"suspend": false})).await;
        env.domain_gone("d").await;
        assert!(!env.gateway_domains().await.contains(&env.host()));
    });
}

#[test]
fn an_abandoned_domain_is_deleted_without_a_write_to_aws() {
    run(async {
        let env = TestEnv::start("abandoned").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.control().deny(&env.account.id, &["*"]).await.unwrap();
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        env.condition("d", "DomainProgrammed", |c| {
            c.status == "False" && c.reason == "PermissionDenied"
        })
        .await;
        env.condition("d", "Ready", |c| c.status == "False" && c.reason == "Deleting")
            .await;

        let annotate = async |name: &str| {
            let patch =
                Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/abandon": name}}}));
            env.domains()
                .patch("d", &PatchParams::default(), &patch)
                .await
                .unwrap();
        };
        annotate("another").await; // came along with a copied manifest
        env.condition("d", "Ready", |c| c.status == "False").await;
        let mark = env.mark().await;
        annotate("d").await;
        env.domain_gone("d").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        let note = eventually("the Event", async || {
            events(&env, "Abandoned").await.pop().ok_or("none".into())
        })
        .await;
        for part in [
            env.host(),
            "arn:aws:acm:".into(),
            format!("s3://{}", env.prepared.bucket),
        ] {
            assert!(note.contains(&part), "{note}");
        }
    });
}

/// Users report certificates that ACM calls in use for good, until AWS Support removes the association.
#[test]
fn a_certificate_that_stays_in_use_is_left_in_aws_when_the_spec_says_retain() {
    run(async {
        let env = TestEnv::start("inuse").await;
        let knobs = [("in_use_linger", 1e9)];
        env.control().set_knobs(&env.account.id, &knobs).await.unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let arn = env.server_certificates().await.remove(0);
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        let ready = env
            .condition("d", "Ready", |c| c.message.contains("still reports"))
            .await;
        for part in [&*arn, "spec.deletionPolicy to Retain", "AWS Support"] {
            assert!(ready.message.contains(part), "{ready:?}");
        }
        env.change("d", json!({"deletionPolicy": "Retain"})).await;
        env.domain_gone("d").await;
        let left = env
            .acm()
            .list_tags_for_certificate()
            .certificate_arn(&arn)
            .send()
            .await
            .expect("the certificate is there");
        assert_eq!(left.tags(), []);
    });
}

#[test]
fn a_deletion_that_cannot_read_the_domain_reports_nothing_as_there() {
    run(async {
        let env = TestEnv::start("unread").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let down = Fault {
            service: "apigatewayv2",
            operation: "GetDomainName",
            account: &env.account.id,
            times: -1,
            status: 503,
            ..Fault::default()
        };
        let fault = env.control().add_faults(&[down]).await.unwrap().remove(0).id;
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        for type_ in ["CertificateIssued", "MappingsProgrammed", "DNSProgrammed"] {
            let c = env.condition("d", type_, |c| c.status != "True").await;
            assert_eq!((c.status.as_str(), c.reason.as_str()), ("Unknown", "Unreachable"));
        }
        env.control().remove_fault(fault).await.unwrap();
        env.domain_gone("d").await;
    });
}
