//! Nothing changes, so nothing is written: neither to AWS nor to Kubernetes.
use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::world::{Life, run};

/// The resourceVersion of everything that the operator writes but its Lease.
async fn versions(life: &Life) -> BTreeMap<String, String> {
    let list = ListParams::default();
    let mut all = BTreeMap::new();
    all.extend(life.domains().list(&list).await.unwrap().iter().map(|o| version("MtlsDomain", o)));
    all.extend(life.certificates().list(&list).await.unwrap().iter().map(|o| version("ClientCertificate", o)));
    all.extend(life.secrets().list(&list).await.unwrap().iter().map(|o| version("Secret", o)));
    let events = Api::<Event>::namespaced(life.client.clone(), &life.namespace);
    all.extend(events.list(&list).await.unwrap().iter().map(|o| version("Event", o)));
    all
}

fn version<T: ResourceExt>(kind: &str, object: &T) -> (String, String) {
    (format!("{kind} {}", object.name_any()), object.resource_version().expect("everything in the API server has one"))
}

#[test]
fn an_unchanged_world_sees_no_write() {
    run(async {
        let life = Life::start("steady").await;
        life.create_domain("d", json!({})).await;
        life.create_certificate("client1", "d").await;
        life.ready("d").await;
        life.certificate_ready("client1").await;
        life.reconciles(1).await;
        let (mark, before) = (life.mark().await, versions(&life).await);
        for expected in ["MtlsDomain d", "ClientCertificate client1", "Secret client1", "Secret d.partners-ca"] {
            assert!(before.contains_key(expected), "{before:?}");
        }
        life.reconciles(3).await;
        assert_eq!(life.writes(mark).await, [""; 0]);
        assert_eq!(versions(&life).await, before);
    });
}

#[test]
fn a_restart_writes_nothing_either() {
    run(async {
        let mut life = Life::start("restarted").await;
        life.create_domain("d", json!({})).await;
        life.create_certificate("client1", "d").await;
        life.ready("d").await;
        life.certificate_ready("client1").await;
        life.reconciles(1).await;
        life.operator.stop().await.expect("it stops");
        let (mark, before) = (life.mark().await, versions(&life).await);
        life.operator.restart().expect("it starts");
        life.reconciles(2).await;
        // Its domain is known by now, so the other certificate has been looked at, too.
        life.create_certificate("fence", "d").await;
        life.certificate_ready("fence").await;
        assert_eq!(life.writes(mark).await, [""; 0]);
        let mut after = versions(&life).await;
        after.retain(|key, _| before.contains_key(key));
        assert_eq!(after, before);
    });
}
