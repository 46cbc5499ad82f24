//! A lost or damaged Secret is issued again, one of another owner is left alone, and the spec decides what a
//! deletion leaves.
use serde_json::json;

use crate::support::{
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, certificate_spec, change, create, delete, issued, ready_domain, says,
            summary, until,
        },
        secrets::{create_secret, damage, sound, text, version},
    },
    test_env::TestEnv,
    world::eventually,
};

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
async fn a_secret_is_deleted_with_its_certificate_unless_the_spec_retains_it() {
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
