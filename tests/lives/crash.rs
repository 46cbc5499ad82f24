//! The operator is killed in the middle of a call, once before AWS has done it and once after: the next one finds its way from what is
//! there, and nothing is there twice.
use futures::future::join_all;
use kube::api::ListParams;
use sandbox::control::{Fault, When};
use serde_json::json;

use crate::world::{Life, run};

/// The calls on the way to Ready that change something, and how many of that kind come before it.
const POINTS: [(&str, u64); 7] = [
    ("RequestCertificate", 0),
    ("PutObject", 0),
    ("ChangeResourceRecordSets", 0),
    ("CreateDomainName", 0),
    ("CreateApiMapping", 0),
    ("ChangeResourceRecordSets", 1),
    ("UpdateApi", 0),
];

#[test]
fn killed_before_any_call_takes_effect_the_next_operator_finishes() {
    run(async {
        join_all(POINTS.map(|(operation, skip)| Box::pin(killed_at(operation, skip, When::Before)))).await;
    });
}

#[test]
fn killed_after_any_call_took_effect_the_next_operator_finishes_and_repeats_nothing() {
    run(async {
        join_all(POINTS.map(|(operation, skip)| Box::pin(killed_at(operation, skip, When::After)))).await;
    });
}

async fn killed_at(operation: &str, skip: u64, when: When) {
    let mut life = Life::start("killed").await;
    let point = format!("killed {when:?} {operation} number {}", skip + 1);
    let account = life.account.id.clone();
    let hold = Fault { operation, account: &account, skip, when, hold: true, ..Fault::default() };
    let fault = life.control().add_faults(&[hold]).await.unwrap().remove(0).id;
    life.create_domain("d", json!({})).await;
    life.kill_at(fault, &point).await;
    life.ready("d").await;

    assert_eq!(life.server_certificates().await.len(), 1, "{point}");
    assert_eq!(life.gateway_domains().await, [life.host()], "{point}");
    assert_eq!(life.object_versions().await.len(), 1, "{point}");
    assert_eq!(life.mapped().await.len(), 1, "{point}");
    assert_eq!(life.records().await.len(), 3, "{point}: alias, marker, validation record");
    assert!(life.endpoint_closed().await, "{point}");
    let authorities = ListParams::default().labels("mtls-operator.io/authority");
    assert_eq!(life.secrets().list(&authorities).await.unwrap().items.len(), 1, "{point}");
    // The Lease of the one that was killed has run out, and everything works as if nothing had been.
    life.delete_domain("d").await;
    assert_eq!(life.gateway_domains().await, [""; 0], "{point}");
}
