//! The key of a generated authority is recorded, stored once, and never replaced when it is lost.
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::truststore,
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, api, certificate_spec, change, condition, create, delete, domain_spec,
            generated, issued, ready_domain, until,
        },
        planted_secrets::{key_hash, recorded},
        recorder::Recorder,
        secrets::text,
        trust_sources::message,
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_authority_key_is_never_created_again() {
    let env = TestEnv::start("keylost").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
    let living = Caller::of(&env.secrets().get("client1").await.expect("the Secret"));
    let (before, _) = truststore(&env).await;
    let mut backup = env
        .secrets()
        .get("partners.ca-ca")
        .await
        .expect("the authority's Secret");

    env.secrets()
        .delete("partners.ca-ca", &Default::default())
        .await
        .expect("deleted");
    let object = until(
        &env,
        DOMAIN,
        "partners",
        "ResolvedRefs",
        "False",
        "AuthorityKeyLost",
    )
    .await;
    assert!(
        message(&object, "Ready").contains("authority ca"),
        "{}",
        message(&object, "Ready")
    );
    // Another reconcile, which a change of the spec causes, does not create a key either.
    change(&env, DOMAIN, "partners", json!({"trust": {"overlap": "720h"}})).await;
    until(
        &env,
        DOMAIN,
        "partners",
        "ResolvedRefs",
        "False",
        "AuthorityKeyLost",
    )
    .await;
    assert!(
        env.secrets()
            .get_opt("partners.ca-ca")
            .await
            .expect("an answer")
            .is_none()
    );
    assert_eq!(truststore(&env).await.0, before, "the truststore is as it was");
    assert_eq!(living.calls(&env).await, "200", "callers go on being served");

    backup.metadata.resource_version = None;
    backup.metadata.uid = None;
    env.secrets()
        .create(&Default::default(), &backup)
        .await
        .expect("the backup is restored");
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(truststore(&env).await.0, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_recorded_first_and_a_record_without_its_secret_is_replaced() {
    let env = TestEnv::start("record").await;
    // As a crash between the record and the Secret leaves them.
    let lost = "0".repeat(64);
    let object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": DOMAIN,
        "metadata": {"name": "partners", "annotations": {"mtls-operator.io/generated.ca": lost}},
        "spec": domain_spec(&env, generated()),
    });
    let recorder = Recorder::start(&env, DOMAIN, "").await;
    api(&env, DOMAIN)
        .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap();
    let object = until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let secret = env.secrets().get("partners.ca-ca").await.unwrap();
    let record = recorded(&env, "ca").await;
    assert_eq!(record, key_hash(&text(&secret, "tls.crt")).await);
    for seen in recorder.until(&object).await {
        assert_ne!(
            condition(&seen, "ResolvedRefs").map(|c| c["reason"].clone()),
            Some(json!("SecretNotOwned")),
            "{seen}"
        );
    }
    // Without the record the truststore proves whose key it is: a backup of manifests has no annotations.
    let none = Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/generated.ca": null}}}));
    api(&env, DOMAIN)
        .patch("partners", &PatchParams::default(), &none)
        .await
        .unwrap();
    let mark = env.mark().await;
    env.reconciles(2).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let (_, leaf) = issued(&env, "client1", 1).await;
    assert_eq!(Caller::of(&leaf).calls(&env).await, "200");
    assert_eq!(
        (env.writes(mark).await, recorded(&env, "ca").await),
        (vec![], String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_called_clientcertificates_is_trusted_as_any_other_and_stored_once() {
    let env = TestEnv::start("calledso").await;
    ready_domain(&env).await;
    let [third, pasted] = ["Third CA", "Pasted CA"].map(Ca::new);
    let map = json!({
        "metadata": {"name": "third.party", "labels": {"kind": "third"}}, "data": {"ca.crt": third.pem},
    });
    let maps =
        kube::Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(env.client.clone(), &env.namespace);
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap())
        .await
        .unwrap();
    // A self-signed certificate beside it, whose entry begins with the same word.
    let spec = json!({
        "domainRef": {"name": "partners"}, "issuance": "SelfSigned", "subject": {"commonName": "client1"},
    });
    create(&env, CERTIFICATE, "client1", spec).await;
    let (_, leaf) = issued(&env, "client1", 1).await;
    let own = Caller::of(&leaf);
    let with = |source: Value| {
        let mut authority = json!({"name": "clientcertificates"});
        source
            .as_object()
            .unwrap()
            .iter()
            .for_each(|(field, value)| authority[field] = value.clone());
        json!({
            "trust": {"issuingAuthority": "ca", "authorities": [{"name": "ca", "generate": {}}, authority]},
        })
    };
    let selector = json!({"configMapSelector": {"matchLabels": {"kind": "third"}}, "pem": null});
    let pem = json!({"pem": pasted.pem});
    for (source, ca) in [(selector, &third), (pem, &pasted)] {
        let mark = env.mark().await;
        change(&env, DOMAIN, "partners", with(source)).await;
        eventually("the certificate is accepted", async || {
            match ca.leaf("caller").calls(&env).await.as_str() {
                "200" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        env.reconciles(3).await;
        assert_eq!(env.writes(mark).await, ["PutObject", "UpdateDomainName"], "once");
        assert_eq!(own.calls(&env).await, "200");
    }
    delete(&env, CERTIFICATE, "client1").await;
    eventually("the certificate leaves, and no other", async || {
        match own.calls(&env).await.as_str() {
            "403" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    assert_eq!(pasted.leaf("caller").calls(&env).await, "200");
}
