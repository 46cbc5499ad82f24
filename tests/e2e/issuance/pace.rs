//! A certificate is issued at a pace that nobody can force: requests, losses and other writers of its Secret.
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, api, ask_for_renewal, certificate_spec, change, condition, create, get, issued,
            ready_domain, says, summary, until, until_object,
        },
        recorder::event,
        secrets::{damage, sound, text},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_contested_secret_is_corrected_ever_more_slowly_and_recovers() {
    let env = TestEnv::start("contested").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    issued(&env, "client1", 1).await;
    let stranger = Ca::new("Stranger CA").leaf("theirs");
    let began = Instant::now();
    let (mut overwrites, mut seen) = (0, false);
    while began.elapsed() < Duration::from_secs(12) {
        damage(
            &env,
            "client1",
            &[("tls.crt", &stranger.crt), ("tls.key", &stranger.key)],
        )
        .await;
        overwrites += 1;
        let object = get(&env, CERTIFICATE, "client1").await;
        seen |= condition(&object, "Ready").is_some_and(|c| {
            let message = c["message"].to_string();
            c["status"] == "False"
                && c["reason"] == "ContestedByOther"
                && message.contains("the Secret client1")
                && message.contains("managedFields: ")
        });
    }
    let rests = Instant::now();
    let revision = get(&env, CERTIFICATE, "client1").await["status"]["revision"].clone();
    assert!(seen, "the conditions report the other writer");
    assert!(
        overwrites > 10 && revision.as_i64() <= Some(7),
        "{overwrites} overwrites, revision {revision}"
    );
    let note = event(&env, "client1", "ContestedByOther").await;
    assert!(note.contains("another writer"), "{note}");
    let secret = eventually("the Secret is good again", async || {
        let secret = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
        match text(&secret, "tls.crt") == stranger.crt {
            true => Err("theirs".to_owned()),
            false => sound(&secret).await.map(|_| secret),
        }
    })
    .await;
    assert!(rests.elapsed() < Duration::from_secs(90), "{:?}", rests.elapsed());
    until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
    assert_eq!(Caller::of(&secret).calls(&env).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contested_label_is_corrected_ever_more_slowly() {
    let env = TestEnv::start("labels").await;
    ready_domain(&env).await;
    let mut spec = certificate_spec("client1");
    spec["secretTemplate"] = json!({"labels": {"team": "payments"}});
    create(&env, CERTIFICATE, "client1", spec).await;
    issued(&env, "client1", 1).await;
    let theirs = Patch::Merge(json!({"metadata": {"labels": {"team": "theirs"}}}));
    let (began, mut corrected) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(12) {
        let secret = env.secrets().get("client1").await.expect("the Secret");
        let team = secret.metadata.labels.as_ref().and_then(|l| l.get("team"));
        if team.is_some_and(|team| team == "payments") {
            corrected += 1;
            env.secrets()
                .patch("client1", &PatchParams::default(), &theirs)
                .await
                .expect("a label");
        }
    }
    assert!((3..=8).contains(&corrected), "{corrected} times ours");
    let object = until_object(&env, CERTIFICATE, "client1", "says so", |o| {
        condition(o, "Issued").is_some_and(|c| c["message"].to_string().contains("another writer keeps"))
    })
    .await;
    assert_eq!(summary(&object), ["True", "", ""], "the certificate is good");
    event(&env, "client1", "ContestedByOther").await;
    eventually("the label is ours", async || {
        let secret = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
        let labels = secret.metadata.labels.unwrap_or_default();
        match labels.get("team").is_some_and(|team| team == "payments") {
            true => Ok(()),
            false => Err(format!("{labels:?}")),
        }
    })
    .await;
    until_object(&env, CERTIFICATE, "client1", "says no more", |o| {
        condition(o, "Issued").is_some_and(|c| !c["message"].to_string().contains("another writer"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_at_once_but_five_times_an_hour() {
    let env = TestEnv::start("requests").await;
    ready_domain(&env).await;
    for name in ["annotated", "changed"] {
        create(&env, CERTIFICATE, name, certificate_spec(name)).await;
        issued(&env, name, 1).await;
    }
    let ask = async |n: i64| {
        ask_for_renewal(&env, "annotated", &n.to_string()).await;
        let names = json!({"dnsNames": [format!("n{n}.example")]});
        change(&env, CERTIFICATE, "changed", names).await;
    };
    for n in 2..=6 {
        ask(n).await;
        for name in ["annotated", "changed"] {
            issued(&env, name, n).await;
        }
    }
    let asked_at = Timestamp::now();
    ask(7).await;
    let object = until(
        &env,
        CERTIFICATE,
        "changed",
        "Ready",
        "False",
        "TooManyCertificates",
    )
    .await;
    assert_eq!(object["status"]["revision"], 6, "{object}");
    let note = event(&env, "changed", "TooManyCertificates").await;
    let again: Timestamp = note
        .rsplit(' ')
        .next()
        .and_then(|time| time.parse().ok())
        .unwrap_or_else(|| panic!("a time at the end: {note}"));
    let waits = again.duration_since(asked_at);
    assert!(
        waits <= SignedDuration::from_mins(60) && waits > SignedDuration::from_mins(50),
        "{note}"
    );
    let object = until_object(&env, CERTIFICATE, "annotated", "says so", |o| {
        condition(o, "Issued").is_some_and(|c| {
            let message = c["message"].to_string();
            message.contains("; the next one: the operator issued 5 certificates within an hour")
        })
    })
    .await;
    assert_eq!(summary(&object), ["True", "", ""], "the certificate is good");
    assert_eq!(object["status"]["revision"], 6);
    event(&env, "annotated", "TooManyCertificates").await;
    // A lost Secret does not wait for the hour.
    env.secrets()
        .delete("changed", &Default::default())
        .await
        .expect("deleted");
    let (_, secret) = issued(&env, "changed", 7).await;
    assert_eq!(Caller::of(&secret).calls(&env).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_certificate_is_never_dropped_from_the_status() {
    let env = TestEnv::start("superseded").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    issued(&env, "client1", 1).await;
    let end = Timestamp::now() + SignedDuration::from_secs(20);
    let previous: Vec<_> = (0..20)
        .map(|n| {
            let end = if n == 7 {
                end
            } else {
                end + SignedDuration::from_hours(n + 1)
            };
            json!({"issuerKeyId": "aa", "serialNumber": format!("{n:02}"), "notAfter": end.to_string()})
        })
        .collect();
    api(&env, CERTIFICATE)
        .patch_status(
            "client1",
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"previous": previous}})),
        )
        .await
        .expect("a status");
    ask_for_renewal(&env, "client1", "now").await;
    let object = until_object(&env, CERTIFICATE, "client1", "says so", |o| {
        condition(o, "Issued").is_some_and(|c| {
            let message = c["message"].to_string();
            message.contains("; the next one: 20 certificates of this object that were superseded")
        })
    })
    .await;
    assert_eq!(says(&object, "Ready"), "True");
    assert_eq!(object["status"]["revision"], 1);
    event(&env, "client1", "TooManyCertificates").await;
    // One of them expires.
    let (object, _) = issued(&env, "client1", 2).await;
    assert_eq!(object["status"]["previous"].as_array().map(Vec::len), Some(20));
    assert!(Timestamp::now() >= end);
}
