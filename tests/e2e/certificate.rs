//! ClientCertificates over time: the content of the Secret through change, loss, renewal and deletion.
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use mtls_operator::pki::authority::CLOCK_SLACK;
use sandbox::control::Calls;
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::holds,
    edge_calls::Caller,
    journal::{control, last_call},
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, certificate_spec, change, create, delete, get, issued, ready_domain, says,
            summary, until,
        },
        recorder::{Recorder, events_about},
        secrets::{create_secret, damage, openssl, sound, text, version},
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
async fn a_certificate_is_what_everything_mounts_and_costs_no_call_to_aws() {
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
async fn a_lost_or_damaged_secret_is_issued_again() {
    let env = TestEnv::start("damaged").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    create(&env, CERTIFICATE, "other", certificate_spec("other")).await;
    let (_, good) = issued(&env, "client1", 1).await;
    let (_, other) = issued(&env, "other", 1).await;

    env.secrets()
        .delete("client1", &Default::default())
        .await
        .expect("deleted");
    corrected(&env, good.metadata.uid.as_deref(), "").await;

    let damages = [
        [("tls.crt", "garbage".to_owned())],
        [("tls.key", text(&other, "tls.key"))],
        [("ca.crt", text(&other, "tls.crt"))],
    ];
    for damages in &damages {
        let values: Vec<_> = damages
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        damage(&env, "client1", &values).await;
        corrected(&env, None, values[0].1).await;
    }
    let (_, secret) = issued(&env, "client1", 1).await;
    assert_eq!(Caller::of(&secret).calls(&env).await, "200");
    let (untouched, _) = issued(&env, "other", 1).await;
    assert_eq!(untouched["status"]["revision"], 1);
}

/// Waits until the Secret is there, sound, of the right subject, not the Secret with that UID, and without
/// that value.
async fn corrected(env: &TestEnv, uid: Option<&str>, value: &str) {
    eventually("the Secret is good again", async || {
        let found = env
            .secrets()
            .get_opt("client1")
            .await
            .map_err(|e| e.to_string())?
            .ok_or("no Secret")?;
        if uid.is_some() && found.metadata.uid.as_deref() == uid {
            return Err("the old one".into());
        }
        if !value.is_empty()
            && ["tls.crt", "tls.key", "ca.crt"]
                .iter()
                .any(|key| text(&found, key) == value)
        {
            return Err("still damaged".to_owned());
        }
        let subject = sound(&found).await?;
        if subject.trim() == "subject=CN=client1" {
            Ok(())
        } else {
            Err(subject)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_owned_is_left_alone_until_it_is_gone() {
    let env = TestEnv::start("not-owned").await;
    ready_domain(&env).await;
    create_secret(&env, "client1", &[("password", "hunter2")]).await;
    let before = env.secrets().get("client1").await.expect("there");
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let object = until(&env, CERTIFICATE, "client1", "Ready", "False", "SecretNotOwned").await;
    assert_eq!(says(&object, "Stalled"), "", "removing the Secret helps too");
    assert_eq!(
        version(&env.secrets().get("client1").await.expect("there")),
        version(&before)
    );

    env.secrets()
        .delete("client1", &Default::default())
        .await
        .expect("deleted");
    let (_, secret) = issued(&env, "client1", 1).await;
    sound(&secret).await.expect("sound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_is_renewed_on_time_and_without_a_gap() {
    let env = TestEnv::start("renewed").await;
    ready_domain(&env).await;
    let mut spec = certificate_spec("client1");
    (spec["duration"], spec["renewBefore"]) = (json!("1h"), json!("59m50s"));
    create(&env, CERTIFICATE, "client1", spec.clone()).await;
    // Due in 22 to 45 seconds: until then the object waits in another place than one whose renewal is near.
    spec["renewBefore"] = json!("59m15s");
    create(&env, CERTIFICATE, "client2", spec).await;
    let (first, old) = issued(&env, "client1", 1).await;
    let recorder = Recorder::start(&env, CERTIFICATE, "client1").await;
    let (second, new) = issued(&env, "client1", 2).await;
    assert_ne!(text(&old, "tls.crt"), text(&new, "tls.crt"));
    sound(&new).await.expect("sound");
    let at = |o: &Value, field: &str| {
        o["status"][field]
            .as_str()
            .expect(field)
            .parse::<jiff::Timestamp>()
            .expect("a date")
    };
    let issued_at = at(&second, "notBefore") + CLOCK_SLACK;
    assert!(
        issued_at >= at(&first, "renewalTime"),
        "not before its time: {first} {second}"
    );
    for seen in recorder.until(&second).await {
        assert_eq!(
            summary(&seen),
            ["True", "", ""],
            "a renewal does not change the summary: {}",
            seen["status"]
        );
    }
    for caller in [Caller::of(&old), Caller::of(&new)] {
        assert_eq!(caller.calls(&env).await, "200", "both are good until they expire");
    }
    issued(&env, "client2", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_goes_with_its_object_unless_it_is_to_stay() {
    let env = TestEnv::start("deleted").await;
    ready_domain(&env).await;
    let mut kept = certificate_spec("kept");
    kept["deletionPolicy"] = json!("Retain");
    create(&env, CERTIFICATE, "kept", kept).await;
    create(&env, CERTIFICATE, "gone", certificate_spec("gone")).await;
    issued(&env, "kept", 1).await;
    issued(&env, "gone", 1).await;
    delete(&env, CERTIFICATE, "kept").await;
    delete(&env, CERTIFICATE, "gone").await;
    eventually("the garbage collector takes the Secret", async || {
        match env.secrets().get_opt("gone").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|s| s.map(|s| s.metadata)))),
        }
    })
    .await;
    let kept = env.secrets().get("kept").await.expect("kept");
    assert_eq!(kept.metadata.owner_references, None);
    assert_eq!(
        Caller::of(&kept).calls(&env).await,
        "200",
        "deletion does not revoke"
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn certificates_outlive_their_domain() {
    let env = TestEnv::start("orphan").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let (_, secret) = issued(&env, "client1", 1).await;
    delete(&env, DOMAIN, "partners").await;
    eventually("the domain is gone", async || {
        match env.domains().get_opt("partners").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|d| d.and_then(|d| d.status)))),
        }
    })
    .await;
    let object = until(&env, CERTIFICATE, "client1", "Ready", "False", "DomainGone").await;
    assert_eq!(says(&object, "Stalled"), "");
    assert_eq!(
        version(&env.secrets().get("client1").await.expect("kept")),
        version(&secret)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_certificate_is_left_alone() {
    let env = TestEnv::start("suspended").await;
    ready_domain(&env).await;
    for name in ["client1", "fence"] {
        create(&env, CERTIFICATE, name, certificate_spec(name)).await;
        issued(&env, name, 1).await;
    }
    change(
        &env,
        CERTIFICATE,
        "client1",
        json!({"suspend": true, "subject": {"commonName": "changed"}}),
    )
    .await;
    let object = until(&env, CERTIFICATE, "client1", "Accepted", "True", "Suspended").await;
    assert_eq!(summary(&object), ["True", "", ""], "as it was");
    for name in ["client1", "fence"] {
        env.secrets()
            .delete(name, &Default::default())
            .await
            .expect("deleted");
    }
    // The Secret that was deleted later is back, so the first one would be back, too.
    eventually("the other Secret is back", async || {
        env.secrets()
            .get_opt("fence")
            .await
            .map_err(|e| e.to_string())?
            .map(drop)
            .ok_or("not yet".to_owned())
    })
    .await;
    assert!(
        env.secrets()
            .get_opt("client1")
            .await
            .expect("an answer")
            .is_none()
    );

    change(&env, CERTIFICATE, "client1", json!({"suspend": false})).await;
    until(&env, CERTIFICATE, "client1", "Accepted", "True", "Accepted").await;
    let (_, secret) = issued(&env, "client1", 1).await;
    assert_eq!(sound(&secret).await.expect("sound").trim(), "subject=CN=changed");
}
