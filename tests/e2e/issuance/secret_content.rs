//! The Secret of a certificate holds every file that programs mount, and follows the spec.
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use mtls_operator::pki::authority::CLOCK_SLACK;
use sandbox::control::Calls;
use serde_json::json;

use crate::support::{
    aws::truststores::holds,
    edge_calls::Caller,
    journal::{control, last_call},
    kubernetes::{
        objects::{CERTIFICATE, certificate_spec, change, create, delete, get, issued, ready_domain},
        recorder::{Recorder, events_about},
        secrets::{openssl, sound, text, version},
    },
    test_env::TestEnv,
    world::eventually,
};

async fn not_after_less_not_before(secret: &Secret) -> i64 {
    let dir = tempfile::tempdir().expect("a folder");
    let crt = text(secret, "tls.crt");
    let dates = openssl(
        dir.path(),
        &["x509", "-noout", "-dates", "-dateopt", "iso_8601"],
        &crt,
    )
    .await
    .expect("dates");
    let seconds: Vec<_> = dates
        .lines()
        .map(|line| {
            line.split_once('=')
                .expect("name=date")
                .1
                .replace(' ', "T")
                .parse::<jiff::Timestamp>()
                .expect("a date")
                .as_second()
        })
        .collect();
    seconds[1] - seconds[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_holds_every_file_that_programs_mount_and_costs_no_aws_call() {
    // Resyncs are an hour away: every call until then is for the certificate.
    let env = TestEnv::start_with("layout", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "1h")]).await;
    ready_domain(&env).await;
    let since = last_call().await;
    let recorder = Recorder::start(&env, CERTIFICATE, "client1").await;
    let mut spec = certificate_spec("client1");
    spec["secretName"] = json!("client1-mtls");
    spec["secretTemplate"] =
        json!({"labels": {"team": "payments"}, "annotations": {"example.com/for": "acme"}});
    create(&env, CERTIFICATE, "client1", spec).await;
    let (object, secret) = issued(&env, "client1", 1).await;

    let calls = control()
        .calls(&Calls {
            account: &env.account.id,
            since,
            ..Calls::default()
        })
        .await
        .expect("the journal");
    assert_eq!(
        calls.calls.iter().map(|c| &c.operation).collect::<Vec<_>>(),
        [""; 0],
        "not even a read"
    );
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let keys: Vec<_> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(sound(&secret).await.expect("sound").trim(), "subject=CN=client1");
    assert_eq!(
        secret
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("team"))
            .map(String::as_str),
        Some("payments")
    );
    assert_eq!(
        secret
            .metadata
            .annotations
            .as_ref()
            .and_then(|l| l.get("example.com/for"))
            .map(String::as_str),
        Some("acme")
    );
    let authority = env
        .secrets()
        .get("partners.ca-ca")
        .await
        .expect("the authority's Secret");
    assert!(
        holds(&text(&authority, "tls.crt"), &text(&secret, "ca.crt")),
        "ca.crt is the issuer"
    );
    assert_eq!(Caller::of(&secret).calls(&env).await, "200");

    let dir = tempfile::tempdir().expect("a folder");
    let shown = openssl(
        dir.path(),
        &["x509", "-noout", "-fingerprint", "-sha256"],
        &text(&secret, "tls.crt"),
    )
    .await
    .expect("a fingerprint");
    let hex = |text: &str| {
        text.chars()
            .filter(char::is_ascii_hexdigit)
            .collect::<String>()
            .to_lowercase()
    };
    let shown = hex(shown.split_once('=').expect("name=value").1);
    assert_eq!(
        hex(object["status"]["fingerprintSha256"]
            .as_str()
            .expect("in the status")),
        shown
    );
    assert_eq!(object["status"]["revision"], 1);

    // The operator wrote one status and one Secret, and nothing that happened since changed them.
    create(&env, CERTIFICATE, "fence", certificate_spec("fence")).await;
    issued(&env, "fence", 1).await;
    let states = recorder.until(&get(&env, CERTIFICATE, "client1").await).await;
    assert_eq!(
        states
            .iter()
            .filter(|o| o["status"]["conditions"].is_array())
            .count(),
        1,
        "{states:?}"
    );
    assert_eq!(
        events_about(&env, "client1").await,
        [""; 0],
        "the object reports success"
    );
    let again = env.secrets().get("client1-mtls").await.expect("the Secret");
    assert_eq!(version(&again), version(&secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_spec_is_issued_again() {
    let env = TestEnv::start("changed").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let (_, first) = issued(&env, "client1", 1).await;

    change(
        &env,
        CERTIFICATE,
        "client1",
        json!({"subject": {"commonName": "client2", "organizations": ["Acme"]}}),
    )
    .await;
    let (_, second) = issued(&env, "client1", 2).await;
    assert_eq!(
        sound(&second).await.expect("sound").trim(),
        "subject=CN=client2,O=Acme"
    );
    assert_ne!(
        text(&first, "tls.key"),
        text(&second, "tls.key"),
        "a new key, as rotationPolicy Always says"
    );

    change(&env, CERTIFICATE, "client1", json!({"duration": "30h"})).await;
    let (_, third) = issued(&env, "client1", 3).await;
    assert_eq!(
        not_after_less_not_before(&third).await,
        30 * 3600 + CLOCK_SLACK.as_secs(),
        "the duration, and the slack for slow clocks"
    );

    change(
        &env,
        CERTIFICATE,
        "client1",
        json!({"privateKey": {"algorithm": "RSA", "size": 2048, "encoding": "PKCS1"}}),
    )
    .await;
    let (object, fourth) = issued(&env, "client1", 4).await;
    assert!(
        text(&fourth, "tls.key").starts_with("-----BEGIN RSA PRIVATE KEY-----"),
        "PKCS#1"
    );
    sound(&fourth).await.expect("sound");
    assert_eq!(object["status"]["revision"], 4, "one leaf for each change");
    assert_eq!(Caller::of(&fourth).calls(&env).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_owner_of_the_secret_follow_the_spec_and_the_leaf_stays() {
    let env = TestEnv::start("relabelled").await;
    ready_domain(&env).await;
    let mut spec = certificate_spec("client1");
    spec["secretTemplate"] = json!({"labels": {"team": "payments", "tier": "one"}});
    spec["deletionPolicy"] = json!("Retain");
    create(&env, CERTIFICATE, "client1", spec).await;
    let (_, before) = issued(&env, "client1", 1).await;
    let stays = Patch::Merge(json!({"metadata": {"labels": {"other": "kept"}}}));
    env.secrets()
        .patch("client1", &PatchParams::default(), &stays)
        .await
        .expect("a label");

    let template =
        json!({"labels": {"team": "billing", "tier": null}, "annotations": {"example.com/for": "acme"}});
    change(
        &env,
        CERTIFICATE,
        "client1",
        json!({"secretTemplate": template, "deletionPolicy": "Delete"}),
    )
    .await;
    let after = eventually("the Secret has the new labels and owner", async || {
        let found = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
        let labels = found.metadata.labels.clone().unwrap_or_default();
        let label = |key: &str| labels.get(key).map(String::as_str);
        let annotated = found
            .metadata
            .annotations
            .iter()
            .flatten()
            .any(|(key, value)| key == "example.com/for" && value == "acme");
        let owned = found
            .metadata
            .owner_references
            .as_ref()
            .is_some_and(|owners| owners.len() == 1);
        let as_wanted =
            [label("team"), label("tier"), label("other")] == [Some("billing"), None, Some("kept")];
        if as_wanted && annotated && owned {
            Ok(found)
        } else {
            Err(format!("{:?}", found.metadata))
        }
    })
    .await;
    assert_eq!(before.data, after.data, "key and leaf stay");
    delete(&env, CERTIFICATE, "client1").await;
    eventually("the garbage collector takes it now", async || {
        match env.secrets().get_opt("client1").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|s| s.map(|s| s.metadata)))),
        }
    })
    .await;
}
