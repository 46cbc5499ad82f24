//! A leaf is renewed on time or on request, without a gap; a renewal that fails keeps the leaf.
use kube::api::{Patch, PatchParams};
use mtls_operator::pki::authority::CLOCK_SLACK;
use serde_json::{Value, json};

use crate::support::{
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, ask_for_renewal, certificate_spec, condition, create, delete, issued, ready_domain,
            summary, until_object,
        },
        recorder::{Recorder, event},
        secrets::{sound, text},
    },
    test_env::TestEnv,
};

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

fn serial(object: &Value) -> &str {
    object["status"]["serialNumber"]
        .as_str()
        .expect("a serial number")
}

fn superseded(object: &Value) -> Vec<&str> {
    let previous = object["status"]["previous"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    previous
        .iter()
        .filter_map(|leaf| leaf["serialNumber"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_follows_an_annotation_and_deletion_does_not_revoke() {
    let env = TestEnv::start("asked").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let (first, old) = issued(&env, "client1", 1).await;
    assert!(
        serial(&first).split(':').all(|byte| byte.len() == 2),
        "as API Gateway writes it: {}",
        serial(&first)
    );

    ask_for_renewal(&env, "client1", "a").await;
    let (second, new) = issued(&env, "client1", 2).await;
    assert_ne!(text(&old, "tls.key"), text(&new, "tls.key"));
    assert_eq!(superseded(&second), [serial(&first)]);
    ask_for_renewal(&env, "client1", "b").await;
    let (third, _) = issued(&env, "client1", 3).await;
    assert_eq!(superseded(&third), [serial(&first), serial(&second)]);
    // The operator replaces a lost Secret once, and not once more for the old request.
    env.secrets()
        .delete("client1", &Default::default())
        .await
        .expect("deleted");
    let (fourth, secret) = issued(&env, "client1", 4).await;
    assert_eq!(superseded(&fourth).len(), 3);
    sound(&secret).await.expect("sound");

    delete(&env, CERTIFICATE, "client1").await;
    let note = event(&env, "client1", "StillAccepted").await;
    let until = fourth["status"]["notAfter"].as_str().expect("a date");
    assert!(
        note.contains(serial(&fourth)) && note.contains(until) && note.contains("3 that it superseded"),
        "{note}"
    );
    for caller in [Caller::of(&old), Caller::of(&secret)] {
        assert_eq!(
            caller.calls(&env).await,
            "200",
            "all leaves work, as the Event says"
        );
    }
    assert_eq!(fourth["status"]["revision"], 4, "nothing was issued in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_fails_keeps_the_leaf_and_says_why() {
    let env = TestEnv::start("fails").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    let (_, old) = issued(&env, "client1", 1).await;
    let immutable = Patch::Merge(json!({"immutable": true}));
    env.secrets()
        .patch("client1", &PatchParams::default(), &immutable)
        .await
        .expect("the Secret is immutable now");

    ask_for_renewal(&env, "client1", "now").await;
    let object = until_object(&env, CERTIFICATE, "client1", "says why", |o| {
        condition(o, "Issued").is_some_and(|c| {
            c["message"]
                .to_string()
                .contains("the next one: cannot issue into the Secret client1")
        })
    })
    .await;
    assert_eq!(
        summary(&object),
        ["True", "", ""],
        "the leaf in the Secret is good: {}",
        object["status"]
    );
    let note = event(&env, "client1", "NotIssued").await;
    assert!(note.contains("cannot issue into the Secret client1"), "{note}");
    let there = env.secrets().get("client1").await.expect("the Secret");
    assert_eq!(there.data, old.data);
    assert_eq!(Caller::of(&there).calls(&env).await, "200");

    // The operator tries again by itself, whatever the cause was.
    env.secrets()
        .delete("client1", &Default::default())
        .await
        .expect("deleted");
    let (object, _) = issued(&env, "client1", 2).await;
    assert_eq!(condition(&object, "Issued").expect("Issued")["status"], "True");
    assert!(
        !condition(&object, "Issued").expect("Issued")["message"]
            .to_string()
            .contains("the next one")
    );
}
