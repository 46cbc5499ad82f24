//! The operator writes nothing where nothing changes, and nothing to AWS where it only observes.
use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::support::{
    kubernetes::domains::{events, generated_authorities},
    test_env::TestEnv,
    world::run,
};

#[test]
fn observing_reports_the_planned_writes_and_writes_nothing_to_aws() {
    run(async {
        let env = TestEnv::start("observe").await;
        let mark = env.mark().await;
        env.create_domain("d", json!({"managementPolicy": "Observe"}))
            .await;
        let issued = env
            .condition("d", "CertificateIssued", |c| c.reason == "Observing")
            .await;
        assert_eq!(issued.status, "False");
        assert!(issued.message.contains(&env.host()), "{}", issued.message);
        let plan = async || {
            env.domains()
                .get("d")
                .await
                .unwrap()
                .status
                .unwrap_or_default()
                .plan
        };
        let first = plan().await;
        assert!(
            first.iter().any(|line| line.contains("request certificate")),
            "{first:?}"
        );
        assert!(
            first
                .iter()
                .any(|line| line.contains("generate authority partners")),
            "{first:?}"
        );
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(generated_authorities(&env).await, 0);
        let object = env.domains().get("d").await.unwrap();
        assert_eq!(object.metadata.finalizers, None, "there is nothing to clean up");

        env.change("d", json!({"managementPolicy": "Manage"})).await;
        env.ready("d").await;
        assert_eq!(plan().await, [""; 0]);

        // The operator reports drift, and leaves it.
        env.change("d", json!({"managementPolicy": "Observe"})).await;
        env.ready("d").await;
        let id = env.mapping_id("").await;
        env.gateway()
            .delete_api_mapping()
            .domain_name(env.host())
            .api_mapping_id(id)
            .send()
            .await
            .unwrap();
        let mark = env.mark().await;
        env.condition("d", "MappingsProgrammed", |c| c.reason == "Observing")
            .await;
        let drift = plan().await;
        assert!(
            drift.len() == 1 && drift[0].contains("create mapping"),
            "{drift:?}"
        );
        env.reconciles(2).await;

        // The operator does not even delete.
        env.delete_domain("d").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(env.gateway_domains().await, [env.host()]);
        assert_eq!(events(&env, "Retained").await.len(), 1);
    });
}

/// ResourceVersions of everything that the operator writes but its Lease.
async fn versions(env: &TestEnv) -> BTreeMap<String, String> {
    let list = ListParams::default();
    let mut all = BTreeMap::new();
    all.extend(
        env.domains()
            .list(&list)
            .await
            .unwrap()
            .iter()
            .map(|o| version("MtlsDomain", o)),
    );
    all.extend(
        env.certificates()
            .list(&list)
            .await
            .unwrap()
            .iter()
            .map(|o| version("ClientCertificate", o)),
    );
    all.extend(
        env.secrets()
            .list(&list)
            .await
            .unwrap()
            .iter()
            .map(|o| version("Secret", o)),
    );
    let events = Api::<Event>::namespaced(env.client.clone(), &env.namespace);
    all.extend(
        events
            .list(&list)
            .await
            .unwrap()
            .iter()
            .map(|o| version("Event", o)),
    );
    all
}

fn version<T: ResourceExt>(kind: &str, object: &T) -> (String, String) {
    (
        format!("{kind} {}", object.name_any()),
        object
            .resource_version()
            .expect("everything in the API server has one"),
    )
}

#[test]
fn an_unchanged_world_sees_no_write() {
    run(async {
        let env = TestEnv::start("steady").await;
        env.create_domain("d", json!({})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        env.reconciles(1).await;
        let (mark, before) = (env.mark().await, versions(&env).await);
        for expected in [
            "MtlsDomain d",
            "ClientCertificate client1",
            "Secret client1",
            "Secret d.partners-ca",
        ] {
            assert!(before.contains_key(expected), "{before:?}");
        }
        env.reconciles(3).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(versions(&env).await, before);
    });
}

#[test]
fn a_restart_writes_nothing() {
    run(async {
        let mut env = TestEnv::start("restarted").await;
        env.create_domain("d", json!({})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        env.reconciles(1).await;
        env.operator.stop().await.expect("the operator stops");
        let (mark, before) = (env.mark().await, versions(&env).await);
        env.operator.restart().expect("the operator starts");
        env.reconciles(2).await;
        // The operator knows the domain by now, so it has reconciled the other certificate, too.
        env.create_certificate("fence", "d").await;
        env.certificate_ready("fence").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        let mut after = versions(&env).await;
        after.retain(|key, _| before.contains_key(key));
        assert_eq!(after, before);
    });
}
