//! A leaf is renewed on time or on request, without a gap; a renewal that fails keeps the leaf.
use std::ops::Range;

use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams, PostParams};
use mtls_operator::pki::{
    authority::{CLOCK_SLACK, SigningAuthority},
    inspect::{self, RenewBefore},
    leaf::{self, LeafRequest},
};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::support::{
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, ask_for_renewal, certificate_spec, condition, create, delete, domain_spec,
            issued, ready_domain, summary, until,
        },
        recorder::{Recorder, event},
        secrets::{create_secret, sound, text},
    },
    leaves::secret_authority,
    partner_ca::Ca,
    test_env::TestEnv,
};

/// Creates the Secret of a certificate with a leaf of an hour, as the operator issued it so long ago that its
/// renewal, 10 minutes before the end, is due in that many seconds.
async fn issued_an_hour_ago(env: &TestEnv, ca: &SigningAuthority, name: &str, due: Range<i64>) {
    let minute = SignedDuration::from_mins(1);
    let request = LeafRequest {
        common_name: name.into(),
        duration: minute * 60,
        ..LeafRequest::default()
    };
    let now = Timestamp::now();
    let (key, leaf) = loop {
        let key = KeyPair::generate().expect("a key");
        let at = now - minute * 50 + SignedDuration::from_secs(due.end);
        let leaf = leaf::issue(&request, &key.subject_public_key_info(), ca, at).expect("a leaf");
        // The serial number decides about the last seconds.
        let renewal = inspect::renewal_time(&leaf.certificate, RenewBefore::Duration(minute * 10));
        if due.contains(&renewal.duration_since(now).as_secs()) {
            break (key, leaf);
        }
    };
    let secret = json!({
        "metadata": {
            "name": name,
            "labels": {"mtls-operator.io/client-certificate": name},
            "annotations": {"mtls-operator.io/revision": "1"},
        },
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": leaf.chain_pem, "tls.key": key.serialize_pem(), "ca.crt": leaf.ca_pem},
    });
    env.secrets()
        .create(
            &PostParams::default(),
            &serde_json::from_value(secret).expect("a Secret"),
        )
        .await
        .expect("the API server takes the Secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_is_renewed_on_time_and_without_a_gap() {
    let env = TestEnv::start("renewed").await;
    let ca = Ca::new("Own CA");
    create_secret(&env, "own-ca", &[("tls.crt", &ca.pem), ("tls.key", &ca.key)]).await;
    let trust = json!({"authorities": [secret_authority("own", "own-ca")]});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let ca = SigningAuthority::from_pem(ca.pem.as_bytes(), ca.key.as_bytes(), None).expect("an authority");
    // Until its renewal, the second object waits in another place than the first one, whose renewal is near.
    for (name, due) in [("client1", 8..14), ("client2", 22..45)] {
        issued_an_hour_ago(&env, &ca, name, due).await;
        let mut spec = certificate_spec(name);
        (spec["duration"], spec["renewBefore"]) = (json!("1h"), json!("10m"));
        create(&env, CERTIFICATE, name, spec).await;
    }
    let (first, old) = issued(&env, "client1", 1).await;
    assert_eq!(first["status"]["revision"], 1, "not due yet");
    let recorder = Recorder::start(&env, CERTIFICATE, "client1").await;
    let (second, new) = issued(&env, "client1", 2).await;
    assert_ne!(text(&old, "tls.crt"), text(&new, "tls.crt"));
    sound(&new).await.expect("sound");
    let at = |o: &Value, field: &str| {
        o["status"][field]
            .as_str()
            .expect(field)
            .parse::<Timestamp>()
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
async fn a_spec_that_asks_for_renewals_without_end_waits_for_the_least_interval() {
    let env = TestEnv::start("endless").await;
    ready_domain(&env).await;
    for (name, duration, before, least) in [
        ("short", "1h", "59m59s", SignedDuration::from_mins(5)),
        ("long", "720h", "719h59m59s", SignedDuration::from_mins(432)),
    ] {
        let mut spec = certificate_spec(name);
        (spec["duration"], spec["renewBefore"]) = (json!(duration), json!(before));
        create(&env, CERTIFICATE, name, spec).await;
        let (object, _) = issued(&env, name, 1).await;
        let at = |field: &str| {
            let text = object["status"][field].as_str().expect(field);
            text.parse::<Timestamp>().expect("a date")
        };
        let waits = at("renewalTime").duration_since(at("notBefore") + CLOCK_SLACK);
        let second = SignedDuration::from_secs(1);
        assert!(
            (least - second..=least + second * 2).contains(&waits),
            "{name}: {waits:#}"
        );
        assert_eq!(object["status"]["revision"], 1);
    }
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
    let object = until(&env, CERTIFICATE, "client1", "Issued", "False", "SecretRejected").await;
    let message = condition(&object, "Issued").expect("there")["message"].to_string();
    for words in [
        "the API server rejects the Secret",
        "delete it, and the operator writes a new one",
        "field is immutable",
        "Until then the Secret holds CN=client1",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let log = std::fs::read_to_string(env.operator.log()).expect("the log");
    for text in [&message, &log] {
        for dump in ["Some(", "Status {", "ListMeta"] {
            assert!(!text.contains(dump), "{dump}: {text}");
        }
    }
    let note = event(&env, "client1", "SecretRejected").await;
    assert!(note.contains("field is immutable"), "{note}");
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
