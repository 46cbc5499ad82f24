//! A partner gets a certificate by a file that is merged, loses it with the grant, and a sync by Argo CD or
//! Flux finds nothing to change.
use kube::{Api, ResourceExt, api::DynamicObject};
use serde_json::{Value, json};

use crate::support::{
    edge_calls::Identity,
    engines,
    example_manifests::apply_in,
    kubernetes::{
        objects::{self, condition, says},
        teams::{GRANT, Team},
    },
    test_env::TestEnv,
    world::run,
};

const DOMAIN: &str = "gitops/platform/domain.yaml";

const ACME: &str = "gitops/platform/acme.yaml";

const ORDERS: &str = "gitops/partner/client-certificate.yaml";

/// Health of these objects in Argo CD and Flux, from their state in the API server.
async fn health<const N: usize>(objects: [Value; N]) -> [[String; 2]; N] {
    let all = tokio::task::spawn_blocking(move || engines::health(&objects))
        .await
        .expect("the program ends");
    let all: Vec<_> = all
        .into_iter()
        .map(|[argo_cd, flux, _]| [argo_cd, flux])
        .collect();
    all.try_into().expect("one of each")
}

#[test]
fn a_partner_gets_a_certificate_by_a_merged_file_and_a_sync_finds_nothing_to_change() {
    // The engines are built before there is an operator that could lose its Lease meanwhile.
    engines::build();
    run(async {
        let env = TestEnv::start_among("gitops", &["acme"], &[]).await;
        let partner = Team::admin(&env, &env.beside("acme"));
        let (granted, domain) = (
            format!("[{}]", partner.namespace),
            format!("namespace: {}", env.namespace),
        );
        let (granted, domain) = (
            [("[acme]", granted.as_str())],
            [("namespace: payments", domain.as_str())],
        );
        // The partner applies its folder before the platform team grants anything.
        apply_in(&env, &partner.namespace, ORDERS, &domain).await;
        apply_in(&env, &env.namespace, DOMAIN, &[]).await;
        env.ready("partners").await;
        let refused = partner
            .until("acme-orders", "not granted", |o| says(o, "Accepted") == "False")
            .await;
        let served = objects::get(&env, objects::DOMAIN, "partners").await;
        assert_eq!(
            health([served, refused]).await,
            [["Healthy", "Current"], ["Degraded", "Failed"]]
        );
        apply_in(&env, &env.namespace, ACME, &granted).await;
        let issued = partner.ready("acme-orders").await;
        let granted_now = objects::until(&env, GRANT, "acme", "Ready", "True", "Ready").await;
        assert_eq!(
            health([issued, granted_now]).await,
            [["Healthy", "Current"], ["Healthy", "Current"]]
        );
        let mut data = partner
            .secrets()
            .get("acme-orders")
            .await
            .expect("a Secret")
            .data
            .expect("data");
        let mut pem = |key: &str| data.remove(key).expect("the key is there").0;
        let identity = Identity {
            certificate: pem("tls.crt"),
            key: pem("tls.key"),
        };
        assert_eq!(env.call(&env.host(), "/", Some(&identity)).await.status, 200);

        // The operator writes no field of the manifests: the next sync changes nothing.
        let sync = async || {
            let mut all = apply_in(&env, &env.namespace, DOMAIN, &[]).await;
            all.extend(apply_in(&env, &env.namespace, ACME, &granted).await);
            all.extend(apply_in(&env, &partner.namespace, ORDERS, &domain).await);
            let version = |o: &DynamicObject| o.resource_version();
            all.iter().map(version).collect::<Vec<_>>()
        };
        env.reconciles(2).await;
        let (first, second) = (sync().await, sync().await);
        assert_eq!(first, second);

        // Argo CD's action `reconcile` on the domain, and `renew` on the certificate.
        let before = partner
            .until("acme-orders", "issued", |o| {
                o["status"]["serialNumber"].is_string()
            })
            .await;
        partner
            .patch(
                "acme-orders",
                json!({"metadata": {"annotations": {"mtls-operator.io/renew": "now"}}}),
            )
            .await;
        partner
            .until("acme-orders", "renewed", |o| {
                o["status"]["serialNumber"] != before["status"]["serialNumber"]
            })
            .await;
        partner.ready("acme-orders").await;

        // The file is taken out: the operator renews nothing any more, and the certificate says so.
        let grants: Api<DynamicObject> = Team::admin(&env, &env.namespace).api(GRANT);
        grants
            .delete("acme", &Default::default())
            .await
            .expect("a pruned grant");
        let refused = partner
            .until("acme-orders", "no longer granted", |o| {
                says(o, "Accepted") == "False"
            })
            .await;
        let told = condition(&refused, "Accepted").expect("the condition is there");
        assert!(
            told["message"]
                .as_str()
                .is_some_and(|m| m.contains("ClientGrant")),
            "{told}"
        );
        assert_eq!(
            env.call(&env.host(), "/", Some(&identity)).await.status,
            200,
            "the issued certificate works until it expires"
        );

        // Suspended objects: neither engine waits for them, or takes them for failed.
        objects::change(&env, objects::DOMAIN, "partners", json!({"suspend": true})).await;
        let suspended = |o: &Value| condition(o, "Accepted").is_some_and(|c| c["reason"] == "Suspended");
        let suspended =
            objects::until_object(&env, objects::DOMAIN, "partners", "suspended", suspended).await;
        assert_eq!(health([suspended]).await, [["Suspended", "Current"]]);

        // A certificate that is applied before its domain is no failure. A deletion that waits is under way,
        // and says why.
        let early = json!({"domainRef": {"name": "later"}, "subject": {"commonName": "early"}});
        objects::create(&env, objects::CERTIFICATE, "early", early).await;
        let early = objects::until(&env, objects::CERTIFICATE, "early", "Ready", "Unknown", "").await;
        objects::delete(&env, objects::DOMAIN, "partners").await;
        let waiting = objects::until(&env, objects::DOMAIN, "partners", "Ready", "False", "Deleting").await;
        assert_eq!(health([early]).await, [["Progressing", "InProgress"]]);
        assert_eq!(health([waiting]).await[0][0], "Progressing");
    });
}
