//! A distrusted authority leaves at once, no distrust ends by accident, and a bundle in `ca.crt` adds no
//! trust.
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, certificate_spec, change, create, domain_spec, issued, says, until,
            until_object,
        },
        secrets::{create_secret, text},
        trust_sources::{answers, message, pinned, warnings, write_config_map},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_authority_stays_for_its_leaves_and_a_distrusted_one_goes_at_once() {
    let env = TestEnv::start("distrust").await;
    let [old, acme, other] = ["Old CA", "Acme CA", "Other CA"].map(Ca::new);
    create_secret(&env, "old-ca", &[("tls.crt", &old.pem), ("tls.key", &old.key)]).await;
    let old_entry = |state: &str| json!({"name": "old", "state": state, "secretRef": {"name": "old-ca"}});
    let acme_entry = |state: &str| json!({"name": "acme", "state": state, "pem": acme.pem});
    let others = [
        json!({"name": "new", "generate": {}}),
        json!({"name": "other", "pem": other.pem}),
    ];
    let trust = |issuing: &str, more: Vec<Value>| {
        json!({
            "issuingAuthority": issuing, "authorities": ([&others[..], &more[..]].concat()),
        })
    };
    create(
        &env,
        DOMAIN,
        "partners",
        domain_spec(
            &env,
            trust("old", vec![old_entry("Active"), acme_entry("Active")]),
        ),
    )
    .await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
    let living = Caller::of(&env.secrets().get("client1").await.expect("the Secret"));
    answers(&env, &living, "200", "a leaf of the old authority").await;

    // The authority leaves the spec: certificates move to another issuer, and AWS accepts their earlier
    // leaves until these expire.
    change(
        &env,
        DOMAIN,
        "partners",
        json!({"trust": trust("new", vec![acme_entry("Active")])}),
    )
    .await;
    pinned(&env, "remembers until when", |text| text.contains("keep-until: ")).await;
    eventually("the certificate has another issuer", async || {
        let secret = env.secrets().get("client1").await.expect("the Secret");
        if holds(&text(&secret, "ca.crt"), &old.pem) {
            Err("the old one")
        } else {
            Ok(())
        }
        .map_err(String::from)
    })
    .await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let (_, kept) = truststore(&env).await;
    assert!(holds(&kept, &old.pem), "{kept}");
    assert_eq!(living.calls(&env).await, "200");
    assert_eq!(acme.leaf("caller").calls(&env).await, "200");

    // Distrusted authorities are out at once, trust-only or issuing, with any leaves under them. No other
    // caller notices.
    change(
        &env,
        DOMAIN,
        "partners",
        json!({"trust": trust("new", vec![old_entry("Distrusted"), acme_entry("Distrusted")])}),
    )
    .await;
    pinned(&env, "is without both", |text| {
        !holds(text, &old.pem) && !holds(text, &acme.pem)
    })
    .await;
    answers(&env, &living, "403", "a living leaf of a distrusted authority").await;
    answers(&env, &acme.leaf("caller"), "403", "a distrusted partner").await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(other.leaf("caller").calls(&env).await, "200");
    let moved = Caller::of(&env.secrets().get("client1").await.expect("the Secret"));
    assert_eq!(moved.calls(&env).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_distrust_is_reported_and_a_read_one_outlives_its_source() {
    let mut env = TestEnv::start("holds").await;
    let [thief_ca, fine, late] = ["Compromised CA", "Fine CA", "Late CA"].map(Ca::new);
    let (thief, caller) = (thief_ca.leaf("thief"), fine.leaf("caller"));
    write_config_map(&env, "partners", &format!("{}{}", thief_ca.pem, fine.pem)).await;
    let all = json!({"name": "all", "configMapRef": {"name": "partners"}});
    let out = json!({"name": "out", "state": "Distrusted", "configMapRef": {"name": "out"}});
    create(
        &env,
        DOMAIN,
        "partners",
        domain_spec(&env, json!({"authorities": [all]})),
    )
    .await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    answers(&env, &thief, "200", "before").await;

    // The source is missing, then truncated: the operator does not know which certificates to remove, and
    // says so.
    change(
        &env,
        DOMAIN,
        "partners",
        json!({"trust": {"authorities": [all, out]}}),
    )
    .await;
    let object = until(&env, DOMAIN, "partners", "ResolvedRefs", "False", "RefNotFound").await;
    assert!(
        message(&object, "ResolvedRefs").contains("there is no ConfigMap out"),
        "{object}"
    );
    write_config_map(&env, "out", &thief_ca.pem[..thief_ca.pem.len() / 2]).await;
    let object = until(
        &env,
        DOMAIN,
        "partners",
        "ResolvedRefs",
        "False",
        "InvalidCACertificateRef",
    )
    .await;
    assert!(
        message(&object, "Ready").contains("authority out: the distrust has no effect yet"),
        "{object}"
    );
    assert_eq!(thief.calls(&env).await, "200");

    write_config_map(&env, "out", &thief_ca.pem).await;
    answers(&env, &thief, "403", "distrusted").await;
    let object = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert!(!warnings(&object).contains("takes nothing away"), "{object}");
    let (version, text) = truststore(&env).await;
    assert_eq!(text.matches("  distrusted: ").count(), 1, "{text}");

    // The source is deleted, and the operator knows only the state of AWS.
    let maps: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    maps.delete("out", &Default::default()).await.expect("deleted");
    env.operator.kill();
    env.end_lease().await;
    env.operator.restart().expect("the operator starts");
    let object = until_object(&env, DOMAIN, "partners", "a warning", |o| {
        warnings(o).contains("keys that this entry distrusted before stay distrusted")
    })
    .await;
    assert_eq!(
        (
            says(&object, "Ready").as_str(),
            says(&object, "ResolvedRefs").as_str()
        ),
        ("True", "True")
    );
    assert_eq!(
        (thief.calls(&env).await.as_str(), truststore(&env).await.0),
        ("403", version)
    );
    // The next version of the truststore records the distrust, too.
    write_config_map(
        &env,
        "partners",
        &format!("{}{}{}", thief_ca.pem, fine.pem, late.pem),
    )
    .await;
    let (_, text) = pinned(&env, "has the late authority", |text| holds(text, &late.pem)).await;
    assert!(!holds(&text, &thief_ca.pem), "{text}");
    answers(&env, &late.leaf("late"), "200", "others come").await;
    assert_eq!(
        (
            thief.calls(&env).await.as_str(),
            caller.calls(&env).await.as_str()
        ),
        ("403", "200")
    );

    change(&env, DOMAIN, "partners", json!({"trust": {"authorities": [all]}})).await;
    let (_, text) = pinned(&env, "forgets with the entry", |text| {
        !text.contains("distrusted: ")
    })
    .await;
    assert!(holds(&text, &thief_ca.pem), "{text}");
    answers(&env, &thief, "200", "the entry is gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_beside_an_authority_adds_no_trust() {
    let env = TestEnv::start("beside").await;
    let [own, stranger] = ["Own CA", "Stranger CA"].map(Ca::new);
    let bundle = format!("{}{}", own.pem, stranger.pem);
    create_secret(
        &env,
        "own-ca",
        &[("tls.crt", &own.pem), ("tls.key", &own.key), ("ca.crt", &bundle)],
    )
    .await;
    let entry = json!({"name": "own", "secretRef": {"name": "own-ca"}});
    create(
        &env,
        DOMAIN,
        "partners",
        domain_spec(&env, json!({"authorities": [entry]})),
    )
    .await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let object = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert!(
        warnings(&object).contains("authority own: CN=Stranger CA stands in ca.crt"),
        "{object}"
    );
    let (_, secret) = issued(&env, "client1", 1).await;
    answers(&env, &Caller::of(&secret), "200", "issued under it").await;
    answers(&env, &own.leaf("caller"), "200", "a caller of the authority").await;
    assert_eq!(stranger.leaf("stranger").calls(&env).await, "403");
    assert!(!holds(&truststore(&env).await.1, &stranger.pem));
}
