//! An authority is replaced without one refused call, and stays as long as a valid leaf depends on it.
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::json;

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, api, certificate_spec, change, create, delete, domain_spec, taken_out, until,
        },
        secrets::{create_secret, text},
    },
    leaves::{all_answered, comment, leaves, secret_authority},
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_replaced_without_a_refused_call() {
    let env = Arc::new(TestEnv::start("always").await);
    let trust = |issuing: &str, names: &[&str]| {
        let all: Vec<_> = names
            .iter()
            .map(|name| json!({"name": name, "generate": {"commonName": name}}))
            .collect();
        json!({"issuingAuthority": issuing, "authorities": all})
    };
    create(
        &env,
        DOMAIN,
        "partners",
        domain_spec(&env, trust("first", &["first"])),
    )
    .await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;

    // One caller keeps its first leaf, the other always takes the leaf that is in the Secret.
    let first = Caller::of(&env.secrets().get("client1").await.expect("the Secret"));
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let calling = tokio::spawn({
        let (env, stop, count) = (env.clone(), stop.clone(), count.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let now = Caller::of(&env.secrets().get("client1").await.expect("the Secret"));
                for caller in [&first, &now] {
                    assert_eq!(
                        caller.calls(&env).await,
                        "200",
                        "after {} calls",
                        count.load(Ordering::Relaxed)
                    );
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let called_since = async |before: usize| {
        eventually("more calls", async || {
            assert!(!calling.is_finished(), "a valid leaf was refused");
            let now = count.load(Ordering::Relaxed);
            // One round may have begun before.
            if now >= before + 4 {
                Ok(now)
            } else {
                Err(format!("{now} calls"))
            }
        })
        .await
    };
    let mut calls = called_since(0).await;
    let steps: [(&str, &[&str]); 4] = [
        ("first", &["first", "second"]),
        ("second", &["first", "second"]),
        ("second", &["second"]),
        ("second", &["second", "third"]),
    ];
    for (issuing, names) in steps {
        change(&env, DOMAIN, "partners", json!({"trust": trust(issuing, names)})).await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        let ca = env
            .secrets()
            .get(&format!("partners.{issuing}-ca"))
            .await
            .expect("the authority's Secret");
        leaves(&env, |issuer| issuer == text(&ca, "tls.crt")).await;
        calls = called_since(calls).await;
    }
    let (_, end) = truststore(&env).await;
    assert!(comment(&end, "CN=first").contains("  keep-until: "), "{end}");
    stop.store(true, Ordering::Relaxed);
    calling.await.expect("no valid leaf was ever refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_of_a_deleted_or_moved_certificate_are_accepted_until_they_expire() {
    let env = TestEnv::start("left").await;
    let trust = |names: &[&str]| {
        let all: Vec<_> = names
            .iter()
            .map(|name| json!({"name": name, "generate": {"commonName": name}}))
            .collect();
        json!({"issuingAuthority": "new", "authorities": all})
    };
    create(
        &env,
        DOMAIN,
        "partners",
        domain_spec(&env, trust(&["old", "new"])),
    )
    .await;
    for name in ["deleted", "moved"] {
        let mut spec = certificate_spec(name);
        (spec["authority"], spec["duration"]) = (json!("old"), json!("4000h"));
        create(&env, CERTIFICATE, name, spec).await;
    }
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let mut callers = leaves(&env, |_| true).await;
    let (_, before) = truststore(&env).await;
    assert!(
        comment(&before, "CN=old").contains("  max-leaf: 4000h  "),
        "{before}"
    );

    delete(&env, CERTIFICATE, "deleted").await;
    change(&env, CERTIFICATE, "moved", json!({"authority": null})).await;
    let new = env
        .secrets()
        .get("partners.new-ca")
        .await
        .expect("the authority's Secret");
    callers.extend(leaves(&env, |issuer| issuer == text(&new, "tls.crt")).await);
    assert_eq!(callers.len(), 3);
    all_answered(&env, &callers).await;

    // No certificate asks for so long a validity any more, and no certificate is issued under it.
    change(&env, CERTIFICATE, "moved", json!({"duration": null})).await;
    change(&env, DOMAIN, "partners", json!({"trust": trust(&["new"])})).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let (_, after) = truststore(&env).await;
    assert!(
        comment(&after, "CN=old").contains("  max-leaf: 4000h  keep-until: "),
        "{after}"
    );
    all_answered(&env, &callers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_any_status_keeps_all_trust() {
    let mut env = TestEnv::start("restored").await;
    let ca = Ca::new("Old CA");
    create_secret(&env, "own-ca", &[("tls.crt", &ca.pem), ("tls.key", &ca.key)]).await;
    let both = json!({
        "issuingAuthority": "own",
        "authorities": [secret_authority("own", "own-ca"), {"name": "new", "generate": {}}],
    });
    let spec = domain_spec(&env, both);
    create(&env, DOMAIN, "partners", spec).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let mut callers = leaves(&env, |_| true).await;
    let one = json!({"issuingAuthority": "new", "authorities": [{"name": "new", "generate": {}}]});
    change(&env, DOMAIN, "partners", json!({"trust": one})).await;
    callers.extend(leaves(&env, |issuer| !holds(issuer, &ca.pem)).await);
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let before = truststore(&env).await;
    assert!(comment(&before.1, "CN=Old CA").contains("  keep-until: "));

    // Only a backup of manifests is left of the cluster: without status, finalizers and UIDs.
    env.operator.kill();
    let mark = env.mark().await;
    let mut saved = vec![];
    for (kind, name) in [(DOMAIN, "partners"), (CERTIFICATE, "client1")] {
        saved.push((kind, taken_out(&env, kind, name).await));
    }
    for (kind, object) in saved {
        api(&env, kind)
            .create(&Default::default(), &object)
            .await
            .expect("restored");
    }
    env.operator.restart().expect("the operator starts");
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    leaves(&env, |_| true).await;
    env.reconciles(2).await;
    assert_eq!(truststore(&env).await, before);
    assert_eq!(env.writes(mark).await, [""; 0]);
    all_answered(&env, &callers).await;
}
