//! Trust that is taken away, or never given: no distrust ends by accident, a bundle in `ca.crt` adds no
//! trust, and no tenant takes an authority's place in the truststore.
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::holds,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, api, change, condition, create, delete, generated, ready_domain, says, until,
        },
        trust_sources::{answers, pinned, warnings, write_config_map},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

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
