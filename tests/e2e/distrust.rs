//! Trust that is taken away, or never given: no distrust ends by accident, a bundle in `ca.crt` adds no
//! trust, and no tenant takes an authority's place in the truststore.
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, api, certificate_spec, change, condition, create, delete, domain_spec,
            generated, issued, ready_domain, says, until, until_object,
        },
        secrets::create_secret,
        trust_sources::{answers, message, pinned, warnings, write_config_map},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_distrust_is_loud_until_it_is_read_and_holds_whatever_becomes_of_its_source() {
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

#[tokio::test(flavor = "multi_thread")]
async fn tenants_who_fill_the_truststore_leave_room_for_an_authority() {
    let env = TestEnv::start("filled").await;
    ready_domain(&env).await;
    let uris: Vec<_> = (0..50)
        .map(|n| format!("spiffe://example.com/{n:02}{}", "a".repeat(1970)))
        .collect();
    let fat = |n: usize| {
        json!({
            "domainRef": {"name": "partners"}, "issuance": "SelfSigned",
            "subject": {"commonName": format!("fat-{n}")}, "uris": uris,
        })
    };
    for n in 0..8 {
        create(&env, CERTIFICATE, &format!("fat-{n}"), fat(n)).await;
    }
    // Waits until so many certificates are trusted, and so many do not fit and say so.
    let settled = async |trusted: usize, full: usize| {
        eventually(&format!("{full} do not fit"), async || {
            let all = api(&env, CERTIFICATE)
                .list(&Default::default())
                .await
                .map_err(|e| e.to_string())?
                .items;
            let all = all
                .iter()
                .map(|object| serde_json::to_value(object).expect("JSON"));
            let states: Vec<_> = all
                .map(|o| (says(&o, "Ready"), condition(&o, "Trusted")))
                .collect();
            let count = |ready: &str, reason: &str| {
                let is = |(is, c): &&(String, Option<Value>)| {
                    is == ready && c.as_ref().is_some_and(|c| c["reason"] == reason)
                };
                states.iter().filter(is).count()
            };
            let is_so = count("True", "Trusted") == trusted && count("False", "TruststoreFull") == full;
            if is_so { Ok(()) } else { Err(format!("{states:?}")) }
        })
        .await
    };
    settled(7, 1).await;
    let object = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert!(warnings(&object).contains("the truststore is full"), "{object}");

    // The domain's owner adds an authority that takes two places.
    let [next, late] = ["Next CA", "Late CA"].map(Ca::new);
    let big = Ca::with_uris("Big CA", &uris);
    write_config_map(&env, "next", &format!("{}{}{}", next.pem, big.pem, late.pem)).await;
    let mut authorities = generated()["authorities"].as_array().expect("a list").clone();
    authorities.push(json!({"name": "next", "configMapRef": {"name": "next"}}));
    change(
        &env,
        DOMAIN,
        "partners",
        json!({"trust": {"authorities": authorities}}),
    )
    .await;
    let all = [&next.pem, &big.pem, &late.pem];
    let (_, text) = pinned(&env, "has the authorities", |text| {
        all.iter().all(|pem| holds(text, pem))
    })
    .await;
    assert!(text.len() <= 1_000_000, "{}", text.len());
    answers(&env, &next.leaf("caller"), "200", "a caller of the new authority").await;
    settled(6, 2).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    // The truststore has room again: the certificate returns by itself.
    delete(&env, CERTIFICATE, "fat-0").await;
    settled(6, 1).await;
}
