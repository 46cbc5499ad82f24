//! Steady state: in an unchanged world the operator writes neither to AWS nor to Kubernetes.
use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::support::{test_env::TestEnv, world::run};

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
fn a_restart_writes_nothing_either() {
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
