//! Each partner's ConfigMap that a label selector finds comes, changes and goes by itself.
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    kubernetes::objects::{DOMAIN, condition, create, domain_spec, until, until_object},
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

const SELECTOR: &str = "partner-cas";

/// Writes a ConfigMap of a partner. Without `label` the selector does not find it.
async fn write(env: &TestEnv, name: &str, label: Option<&str>, data: Value) {
    let maps: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    let labels = label
        .map(|value| json!({"mtls/partner": value}))
        .unwrap_or_else(|| json!({}));
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data,
    });
    maps.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(map))
        .await
        .expect("a ConfigMap");
}

async fn publish(env: &TestEnv, name: &str, ca: &Ca) {
    write(env, name, Some("yes"), json!({"ca.crt": ca.pem})).await;
}

fn spec(env: &TestEnv, own: &Ca) -> Value {
    let selector = json!({"matchLabels": {"mtls/partner": "yes"}});
    domain_spec(
        env,
        json!({"authorities": [
            {"name": "own", "pem": own.pem},
            {"name": SELECTOR, "configMapSelector": selector},
        ]}),
    )
}

async fn pinned(env: &TestEnv, what: &str, held: impl Fn(&str) -> bool) -> String {
    eventually(&format!("the pinned truststore {what}"), async || {
        let (_, text) = truststore(env).await;
        if held(&text) { Ok(text) } else { Err(text) }
    })
    .await
}

fn names(object: &Value) -> Vec<&str> {
    let authorities = object["status"]["truststore"]["authorities"].as_array();
    authorities
        .into_iter()
        .flatten()
        .filter_map(|a| a["name"].as_str())
        .collect()
}

fn message(object: &Value, type_: &str) -> String {
    condition(object, type_)
        .map(|c| c["message"].to_string())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_partner_comes_changes_and_goes_by_itself() {
    // Resyncs are an hour away: the watch brings the news.
    let env = TestEnv::start_with("partners", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "1h")]).await;
    let own = Ca::new("Own CA");
    let [acme, zeta, zeta2, beta, other] =
        ["Acme CA", "Zeta CA", "Zeta CA 2", "Beta CA", "Other CA"].map(Ca::new);
    publish(&env, "zeta", &zeta).await;
    publish(&env, "acme.example", &acme).await;
    write(&env, "other", Some("no"), json!({"ca.crt": other.pem})).await;
    write(&env, "unlabelled", None, json!({"ca.crt": other.pem})).await;
    create(&env, DOMAIN, "partners", spec(&env, &own)).await;
    let object = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(
        names(&object),
        ["own", "partner-cas/acme.example", "partner-cas/zeta"]
    );
    let (_, text) = truststore(&env).await;
    assert!(!holds(&text, &other.pem));
    let acmes = acme.leaf("caller");
    assert_eq!(acmes.calls(&env).await, "200");

    // Other text around the same certificate is no change.
    let mark = env.mark().await;
    write(
        &env,
        "zeta",
        Some("yes"),
        json!({"ca.crt": format!("Zeta's CA, renewed in 2045\n{}\n{}", zeta.pem, zeta.pem)}),
    )
    .await;

    // A broken ConfigMap keeps its former certificates, and is named. The others come and change.
    write(
        &env,
        "acme.example",
        Some("yes"),
        json!({"ca.crt": "-----BEGIN CERTIFICATE-----\nZm9v\n-----END CERTIFICATE-----\n"}),
    )
    .await;
    let object = until(
        &env,
        DOMAIN,
        "partners",
        "ResolvedRefs",
        "False",
        "InvalidCACertificateRef",
    )
    .await;
    let told = message(&object, "ResolvedRefs");
    assert!(
        told.contains("authority partner-cas, ConfigMap acme.example: ") && !told.contains("zeta"),
        "{told}"
    );
    assert!(!told.contains("Zm9v"), "{told}");
    assert_eq!(env.writes(mark).await, [""; 0], "the trust is unchanged");
    publish(&env, "beta", &beta).await;
    publish(&env, "zeta", &zeta2).await;
    pinned(&env, "has what came and what changed", |text| {
        [&acme, &beta, &zeta2].iter().all(|ca| holds(text, &ca.pem)) && !holds(text, &zeta.pem)
    })
    .await;
    assert_eq!(acmes.calls(&env).await, "200");
    write(&env, "acme.example", Some("yes"), json!({"typo.crt": acme.pem})).await;
    let object = until(&env, DOMAIN, "partners", "ResolvedRefs", "False", "RefNotFound").await;
    let told = message(&object, "ResolvedRefs");
    assert!(
        told.contains("ConfigMap acme.example has no key ca.crt"),
        "{told}"
    );
    publish(&env, "acme.example", &acme).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;

    // The first ConfigMap loses the label, the second is deleted: AWS no longer accepts their leaves.
    write(&env, "zeta", None, json!({"ca.crt": zeta2.pem})).await;
    pinned(&env, "is without the one that lost its label", |text| {
        !holds(text, &zeta2.pem)
    })
    .await;
    let maps: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    maps.delete("beta", &Default::default()).await.expect("deleted");
    let text = pinned(&env, "is without the one that is gone", |text| {
        !holds(text, &beta.pem)
    })
    .await;
    assert!(holds(&text, &own.pem) && holds(&text, &acme.pem));
    maps.delete("acme.example", &Default::default())
        .await
        .expect("deleted");
    let object = until_object(&env, DOMAIN, "partners", "only its own is left", |object| {
        names(object) == ["own"]
    })
    .await;
    let warnings = object["status"]["truststore"]["warnings"].to_string();
    assert!(
        warnings.contains("authority partner-cas: no ConfigMap"),
        "{warnings}"
    );
    assert_eq!(own.leaf("caller").calls(&env).await, "200");
}
