//! No tenant starves another: neither of the operator's time nor of room in the truststore.
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::holds,
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, api, change, condition, create, delete, generated, ready_domain, says,
            until, until_object,
        },
        teams::{GRANT, asking, granting},
        tenants::requester,
        trust_sources::{answers, pinned, warnings, write_config_map},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn many_objects_and_edits_starve_no_other_tenant() {
    run(async {
        let env = TestEnv::start_among("starve", &["acme", "zeta"], &[]).await;
        ready_domain(&env).await;
        let (acme, zeta) = (requester(&env, "acme").await, requester(&env, "zeta").await);
        create(
            &env,
            GRANT,
            "acme",
            granting(&acme.namespace, json!({"maxCertificates": 3})),
        )
        .await;
        create(
            &env,
            GRANT,
            "zeta",
            granting(&zeta.namespace, json!({"commonNames": ["zeta-*"]})),
        )
        .await;
        let names: Vec<_> = (0..1000).map(|n| format!("c{n}")).collect();
        // The last names first, and many in each second: an object created later in the same second has the
        // name that sorts first, and still the operator gives no place twice.
        for some in names.rchunks(30) {
            join_all(
                some.iter()
                    .map(|name| acme.request(name, asking(&env, &format!("acme-{name}"), json!({})))),
            )
            .await;
        }
        let edits = async {
            for round in 0..1 {
                for some in names.chunks(30) {
                    let spec = json!({"spec": {"duration": format!("{}h", 100 + round)}});
                    join_all(some.iter().map(|name| acme.patch(name, spec.clone()))).await;
                }
            }
        };
        let other = async {
            zeta.request("client", asking(&env, "zeta-1", json!({}))).await;
            zeta.ready("client").await
        };
        tokio::join!(edits, other);
        let caller = Caller::of(&zeta.secrets().get("client").await.unwrap());
        assert_eq!(caller.calls(&env).await, "200");
        // The many objects had three places.
        until_object(&env, GRANT, "acme", "all places are taken", |o| {
            o["status"]["certificates"] == 3
        })
        .await;
        for name in &names {
            acme.until(name, "answered", |o| {
                ["True", "False"].contains(&says(o, "Accepted").as_str())
            })
            .await;
        }
        assert_eq!(
            acme.secrets()
                .list(&Default::default())
                .await
                .unwrap()
                .items
                .len(),
            3
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_who_fill_the_truststore_leave_room_for_an_authority() {
    let env = TestEnv::start("filled").await;
    ready_domain(&env).await;
    // As long as the names of a certificate may be, and an authority as long.
    let uris = uris(4);
    let big = Ca::with_uris("Big CA", &uris);
    // Other authorities leave room for seven and a half such certificates, with 250 bytes of comments each.
    let bulk = bulk(1_000_000 - 3000 - (big.pem.len() + 250) * 15 / 2);
    write_config_map(&env, "bulk", &bulk).await;
    let trust = async |authorities: &[Value]| {
        let trust = json!({"trust": {"authorities": authorities}});
        change(&env, DOMAIN, "partners", trust).await;
    };
    let mut authorities = generated()["authorities"].as_array().expect("a list").clone();
    authorities.push(json!({"name": "bulk", "configMapRef": {"name": "bulk"}}));
    trust(&authorities).await;
    pinned(&env, "has the other authorities", |text| text.len() > bulk.len()).await;
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

    // The domain's owner adds authorities that take the half place and another one.
    let [next, late] = ["Next CA", "Late CA"].map(Ca::new);
    write_config_map(&env, "next", &format!("{}{}{}", next.pem, big.pem, late.pem)).await;
    authorities.push(json!({"name": "next", "configMapRef": {"name": "next"}}));
    trust(&authorities).await;
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

#[test]
fn the_self_signed_certificates_of_a_grant_have_its_bytes_together() {
    run(async {
        let env = TestEnv::start_among("share", &["acme", "zeta"], &[]).await;
        ready_domain(&env).await;
        let (acme, zeta) = (requester(&env, "acme").await, requester(&env, "zeta").await);
        let bounds = json!({"issuance": "SelfSigned", "uris": ["spiffe://example.com/*"], "maxBytes": 2000});
        create(&env, GRANT, "acme", granting(&acme.namespace, bounds.clone())).await;
        create(&env, GRANT, "zeta", granting(&zeta.namespace, bounds)).await;
        // More than 1000 bytes of the truststore each, and less than 2000.
        let uri = format!("spiffe://example.com/{}", "a".repeat(500));
        let certificate = |n: u32| {
            let more = json!({"issuance": "SelfSigned", "uris": [uri]});
            asking(&env, &format!("acme-{n}"), more)
        };
        let is_full = |o: &Value| {
            condition(o, "Trusted").is_some_and(|c| {
                let told = c["message"].as_str().expect("a message");
                c["reason"] == "TruststoreFull"
                    && told.contains("the maxBytes of the ClientGrant are used up")
            })
        };
        acme.request("one", certificate(1)).await;
        acme.ready("one").await;
        acme.request("two", certificate(2)).await;
        acme.until("two", "without room", is_full).await;
        assert!(acme.secrets().get_opt("two").await.unwrap().is_none());
        let object = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        assert!(
            warnings(&object).contains("the maxBytes of a ClientGrant"),
            "{object}"
        );

        // Another grant has its own bytes, and a renewal needs none.
        zeta.request("client", certificate(3)).await;
        zeta.ready("client").await;
        let renew = json!({"metadata": {"annotations": {"mtls-operator.io/renew": "now"}}});
        acme.patch("one", renew).await;
        acme.until("one", "renewed", |o| {
            o["status"]["revision"] == 2 && says(o, "Ready") == "True"
        })
        .await;
        acme.until("two", "still without room", is_full).await;

        // With more bytes both are trusted, and both stay when the grant has fewer again.
        change(&env, GRANT, "acme", json!({"maxBytes": 4000})).await;
        acme.ready("two").await;
        change(&env, GRANT, "acme", json!({"maxBytes": 1024})).await;
        acme.request("three", certificate(4)).await;
        acme.until("three", "without room", is_full).await;
        for name in ["one", "two"] {
            acme.ready(name).await;
            let caller = Caller::of(&acme.secrets().get(name).await.unwrap());
            assert_eq!(caller.calls(&env).await, "200", "{name}");
        }
    });
}

/// URIs of 2048 bytes.
fn uris(count: usize) -> Vec<String> {
    let uri = |n: usize| format!("spiffe://example.com/{n:02}{}", "a".repeat(2048 - 23));
    (0..count).map(uri).collect()
}

/// PEM of authorities, so many bytes less at most one URI.
fn bulk(bytes: usize) -> String {
    let (mut text, mut number) = (String::new(), 0);
    let per_uri = Ca::with_uris("a", &uris(2)).pem.len() - Ca::with_uris("a", &uris(1)).pem.len();
    while bytes - text.len() > 2 * per_uri {
        let count = ((bytes - text.len()) / per_uri - 1).min(50);
        text += &Ca::with_uris(&format!("Bulk CA {number}"), &uris(count)).pem;
        number += 1;
    }
    text
}
