//! A self-signed certificate is trusted before it is handed out, always works, and leaves the truststore when
//! it is deleted.
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Patch;
use sandbox::control::{Fault, When};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, ask_for_renewal, change, condition, create, delete, domain_spec, generated,
            issued, ready_domain, summary, until,
        },
        recorder::{Recorder, event},
        secrets::{damage, sound, text},
    },
    partner_ca::Ca,
    test_env::TestEnv,
    world::{eventually, run},
};

fn self_signed(common_name: &str) -> Value {
    json!({
        "domainRef": {"name": "partners"}, "issuance": "SelfSigned", "subject": {"commonName": common_name},
    })
}

async fn answers(env: &TestEnv, caller: &Caller, status: &str, why: &str) {
    eventually(why, async || match caller.calls(env).await {
        seen if seen == status => Ok(()),
        seen => Err(seen),
    })
    .await;
}

async fn gone(env: &TestEnv, secret: &str) {
    eventually(&format!("{secret} is gone"), async || {
        match env.secrets().get_opt(secret).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|s| s.map(|s| s.metadata)))),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_itself_renewed_without_a_gap_and_untrusted_when_deleted() {
    let env = TestEnv::start("selfsigned").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", self_signed("client1")).await;
    let (object, first) = issued(&env, "client1", 1).await;
    assert_eq!(sound(&first).await.expect("sound").trim(), "subject=CN=client1");
    assert_eq!(
        text(&first, "tls.crt"),
        text(&first, "ca.crt"),
        "no other certificate vouches for it"
    );
    assert!(holds(&truststore(&env).await.1, &text(&first, "tls.crt")));
    let old = Caller::of(&first);
    assert_eq!(old.calls(&env).await, "200");
    assert_eq!(
        condition(&object, "Trusted").expect("Trusted")["reason"],
        "Trusted"
    );
    gone(&env, "client1-next").await;

    // A caller who reads the Secret while it is renewed gets in with its content.
    let recorder = Recorder::start(&env, CERTIFICATE, "client1").await;
    ask_for_renewal(&env, "client1", "now").await;
    let second = eventually("the certificate is renewed", async || {
        let secret = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
        assert_eq!(Caller::of(&secret).calls(&env).await, "200", "no gap");
        if text(&secret, "tls.crt") == text(&first, "tls.crt") {
            Err("the first one")
        } else {
            Ok(secret)
        }
        .map_err(String::from)
    })
    .await;
    assert_eq!(
        sound(&second).await.expect("sound").trim(),
        "subject=CN=client1,serialNumber=2"
    );
    let (object, _) = issued(&env, "client1", 2).await;
    for seen in recorder.until(&object).await {
        assert_eq!(summary(&seen), ["True", "", ""], "{}", seen["status"]);
    }
    assert!(
        event(&env, "client1", "SubjectChanges")
            .await
            .contains("match the CN")
    );
    assert_eq!(
        old.calls(&env).await,
        "200",
        "the old certificate stays for callers who still have it"
    );
    let new = Caller::of(&second);

    delete(&env, CERTIFICATE, "client1").await;
    answers(&env, &new, "403", "out of the truststore at once").await;
    answers(&env, &old, "403", "and what it had before, too").await;
    gone(&env, "client1").await;
    gone(&env, "client1-next").await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_certificate_leaves_after_the_overlap() {
    let env = TestEnv::start("overlap").await;
    let trust = json!({"authorities": [], "overlap": "5s"});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    // Without any authority the first certificate is the whole truststore.
    create(&env, CERTIFICATE, "client1", self_signed("client1")).await;
    let (_, first) = issued(&env, "client1", 1).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    ask_for_renewal(&env, "client1", "now").await;
    let (_, second) = issued(&env, "client1", 2).await;
    answers(&env, &Caller::of(&first), "403", "the overlap is over").await;
    assert_eq!(Caller::of(&second).calls(&env).await, "200");
    let (_, text_) = truststore(&env).await;
    assert!(
        !holds(&text_, &text(&first, "tls.crt")) && holds(&text_, &text(&second, "tls.crt")),
        "{text_}"
    );

    // API Gateway needs at least one certificate: the last one cannot leave before there is another, and the
    // operator says so.
    delete(&env, CERTIFICATE, "client1").await;
    until(&env, DOMAIN, "partners", "Ready", "False", "NoValidCACertificate").await;
    assert_eq!(Caller::of(&second).calls(&env).await, "200");
    change(&env, DOMAIN, "partners", json!({"trust": generated()})).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(Caller::of(&second).calls(&env).await, "403");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_belongs_to_one_certificate() {
    let env = TestEnv::start("subject").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", self_signed("client1")).await;
    issued(&env, "client1", 1).await;
    create(&env, CERTIFICATE, "client2", self_signed("Client1")).await;
    create(&env, CERTIFICATE, "client3", self_signed("ca")).await; // as the generated authority
    for (name, holder) in [
        ("client2", "ClientCertificate client1"),
        ("client3", "authority ca"),
    ] {
        let object = until(&env, CERTIFICATE, name, "Accepted", "False", "SubjectInUse").await;
        assert!(
            condition(&object, "Ready").expect("Ready")["message"]
                .to_string()
                .contains(holder),
            "{object}"
        );
        assert!(
            env.secrets()
                .get_opt(&format!("{name}-next"))
                .await
                .expect("an answer")
                .is_none()
        );
    }
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;

    let first = Caller::of(&env.secrets().get("client1").await.expect("the Secret"));
    delete(&env, CERTIFICATE, "client1").await;
    let (_, second) = issued(&env, "client2", 1).await;
    assert_eq!(
        Caller::of(&second).calls(&env).await,
        "200",
        "the subject is free"
    );
    assert_eq!(first.calls(&env).await, "403");
}

#[test]
fn an_interrupted_renewal_is_finished_by_the_next_operator() {
    let points = [
        ("PutObject", When::After),
        ("UpdateDomainName", When::Before),
        ("UpdateDomainName", When::After),
    ];
    run(async {
        join_all(points.map(|(operation, when)| Box::pin(killed_at(operation, when)))).await;
    });
}

async fn killed_at(operation: &str, when: When) {
    let mut env = TestEnv::start("swapped").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", self_signed("client1")).await;
    let (_, first) = issued(&env, "client1", 1).await;
    gone(&env, "client1-next").await;
    let account = env.account.id.clone();
    let hold = Fault {
        operation,
        account: &account,
        when,
        hold: true,
        ..Fault::default()
    };
    let fault = env
        .control()
        .add_faults(&[hold])
        .await
        .expect("a rule")
        .remove(0)
        .id;
    ask_for_renewal(&env, "client1", "now").await;
    env.holds(fault, &format!("{operation} {when:?}")).await;
    let next = env
        .secrets()
        .get("client1-next")
        .await
        .expect("the new certificate waits to be trusted");
    env.operator.kill();
    env.control().remove_fault(fault).await.expect("gone");
    assert_eq!(Caller::of(&first).calls(&env).await, "200");
    env.operator.restart().expect("the operator starts");
    let (_, second) = issued(&env, "client1", 2).await;
    assert_eq!(
        second.data, next.data,
        "{operation} {when:?}: the waiting certificate is used"
    );
    assert_eq!(Caller::of(&second).calls(&env).await, "200");
    gone(&env, "client1-next").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_clean_up_leaves_nothing_and_a_lost_secret_is_issued_again() {
    let mut env = TestEnv::start("leftover").await;
    ready_domain(&env).await;
    create(&env, CERTIFICATE, "client1", self_signed("client1")).await;
    let (_, first) = issued(&env, "client1", 1).await;
    gone(&env, "client1-next").await;
    env.operator.kill();
    let mut left: Secret = first.clone();
    left.metadata.name = Some("client1-next".into());
    (
        left.metadata.resource_version,
        left.metadata.uid,
        left.metadata.managed_fields,
    ) = (None, None, None);
    env.secrets()
        .create(&Default::default(), &left)
        .await
        .expect("as a crash leaves it");
    env.operator.restart().expect("the operator starts");
    gone(&env, "client1-next").await;
    assert_eq!(
        env.secrets().get("client1").await.expect("the Secret").data,
        first.data
    );

    env.secrets()
        .delete("client1", &Default::default())
        .await
        .expect("deleted");
    let (object, second) = issued(&env, "client1", 2).await;
    assert_eq!(
        sound(&second).await.expect("sound").trim(),
        "subject=CN=client1,serialNumber=2"
    );
    assert_eq!(Caller::of(&second).calls(&env).await, "200");
    assert_eq!(
        Caller::of(&first).calls(&env).await,
        "200",
        "a caller with a copy is not shut out by the loss"
    );
    assert_eq!(object["status"]["previous"].as_array().map(Vec::len), Some(1));

    // The operator does not trust a certificate because another writer put it into the Secret, and replaces
    // it.
    let stranger = Ca::new("Stranger CA");
    damage(&env, "client1", &[("tls.crt", &stranger.pem)]).await;
    let (_, third) = issued(&env, "client1", 3).await;
    assert_eq!(stranger.leaf("caller").calls(&env).await, "403");
    assert_eq!(Caller::of(&third).calls(&env).await, "200");
    let merge = Patch::Merge(json!({"metadata": {"labels": {"mtls-operator.io/trusted-by": null}}}));
    env.secrets()
        .patch("client1", &Default::default(), &merge)
        .await
        .expect("a label less");
    eventually("the label is back", async || {
        let labels = env
            .secrets()
            .get("client1")
            .await
            .map_err(|e| e.to_string())?
            .metadata
            .labels
            .unwrap_or_default();
        labels
            .get("mtls-operator.io/trusted-by")
            .map(drop)
            .ok_or(format!("{labels:?}"))
    })
    .await;
    assert_eq!(Caller::of(&third).calls(&env).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_spec_of_a_self_signed_certificate_makes_no_gap() {
    let env = TestEnv::start("changedself").await;
    let trust = json!({"authorities": [{"name": "ca", "generate": {}}], "overlap": "0s"});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    let spec = json!({
        "domainRef": {"name": "partners"}, "issuance": "SelfSigned", "subject": {"commonName": "client1"},
    });
    create(&env, CERTIFICATE, "client1", spec).await;
    issued(&env, "client1", 1).await;
    let changes = [
        json!({"subject": {"commonName": "client2"}}),
        json!({"dnsNames": ["a.example"]}),
        json!({"duration": "30h"}),
    ];
    for (revision, spec) in (2..).zip(changes) {
        let before = env.secrets().get("client1").await.unwrap();
        change(&env, CERTIFICATE, "client1", spec.clone()).await;
        eventually("the new certificate is in the Secret", async || {
            let secret = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
            let answer = Caller::of(&secret).calls(&env).await;
            // The operator may have replaced this certificate, and superseded it, while the call was under
            // way.
            let still = env
                .secrets()
                .get("client1")
                .await
                .map_err(|e| e.to_string())?
                .data
                == secret.data;
            assert!(!still || answer == "200", "{spec}: a gap: {answer}");
            if text(&secret, "tls.crt") == text(&before, "tls.crt") {
                Err("the one before")
            } else {
                Ok(())
            }
            .map_err(String::from)
        })
        .await;
        let (_, now) = issued(&env, "client1", revision).await;
        assert_eq!(Caller::of(&now).calls(&env).await, "200");
        let old = Caller::of(&before);
        eventually("the overlap is over", async || {
            match old.calls(&env).await.as_str() {
                "403" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
    }
}
