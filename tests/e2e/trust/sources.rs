//! Authorities from every source end in the truststore that the domain pins; a missing or broken source locks
//! no caller out.
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, certificate_spec, change, create, domain_spec, summary, until},
        secrets::{create_secret, sound, text},
        trust_sources::{answers, message, pinned, write_config_map},
    },
    partner_ca::Ca,
    test_env::TestEnv,
};

#[tokio::test(flavor = "multi_thread")]
async fn authorities_from_every_source_are_trusted() {
    let env = TestEnv::start("sources").await;
    let [own, legacy, acme, pasted, stranger] =
        ["Own CA", "Legacy CA", "Acme CA", "Pasted CA", "Stranger CA"].map(Ca::new);
    create_secret(&env, "own-ca", &[("tls.crt", &own.pem), ("tls.key", &own.key)]).await;
    create_secret(&env, "legacy-ca", &[("ca.crt", &legacy.pem)]).await;
    write_config_map(&env, "acme-ca", &acme.pem).await;
    let trust = json!({"authorities": [
        {"name": "own", "secretRef": {"name": "own-ca"}},
        {"name": "legacy", "secretRef": {"name": "legacy-ca"}},
        {"name": "acme", "configMapRef": {"name": "acme-ca"}},
        {"name": "pasted", "pem": pasted.pem},
    ]});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;

    let (_, text_) = truststore(&env).await;
    for ca in [&own, &legacy, &acme, &pasted] {
        assert!(holds(&text_, &ca.pem), "{text_}");
        answers(&env, &ca.leaf("caller"), "200", "a leaf of each is let in").await;
    }
    assert!(!holds(&text_, &stranger.pem));
    answers(&env, &stranger.leaf("caller"), "403", "a stranger's is not").await;

    // The only authority with a key issues.
    let secret = env.secrets().get("client1").await.expect("the Secret");
    assert!(holds(&text(&secret, "ca.crt"), &own.pem));
    sound(&secret).await.expect("sound");
    answers(&env, &Caller::of(&secret), "200", "an issued leaf is let in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_source_is_named_and_picked_up_when_it_comes() {
    // Resyncs are an hour away: the watch brings the news.
    let env = TestEnv::start_with("missing", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "1h")]).await;
    let (own, late) = (Ca::new("Own CA"), Ca::new("Late CA"));
    let trust = json!({"authorities": [
        {"name": "own", "pem": own.pem},
        {"name": "late", "secretRef": {"name": "late-ca"}},
        {"name": "later", "configMapRef": {"name": "later-ca"}},
    ]});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    let object = until(&env, DOMAIN, "partners", "ResolvedRefs", "False", "RefNotFound").await;
    for name in ["late-ca", "later-ca"] {
        assert!(
            message(&object, "ResolvedRefs").contains(name),
            "{}",
            message(&object, "ResolvedRefs")
        );
    }
    assert_eq!(summary(&object), ["False", "", ""]);
    // The other authorities do not wait for the missing one.
    until(&env, DOMAIN, "partners", "BypassClosed", "True", "").await;
    answers(
        &env,
        &own.leaf("caller"),
        "200",
        "the authority that is there is trusted",
    )
    .await;

    create_secret(&env, "late-ca", &[("ca.crt", &late.pem)]).await;
    let later = Ca::new("Later CA");
    write_config_map(&env, "later-ca", &later.pem).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    for ca in [&late, &later] {
        answers(
            &env,
            &ca.leaf("caller"),
            "200",
            "a leaf of the late one is let in",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_source_keeps_its_last_certificates() {
    let env = TestEnv::start("broken").await;
    let (own, acme, new) = (Ca::new("Own CA"), Ca::new("Acme CA"), Ca::new("New CA"));
    write_config_map(&env, "acme-ca", &acme.pem).await;
    let authorities = |more: &[Value]| {
        let mut all = vec![
            json!({"name": "own", "pem": own.pem}),
            json!({"name": "acme", "configMapRef": {"name": "acme-ca"}}),
        ];
        all.extend_from_slice(more);
        json!({"authorities": all})
    };
    create(&env, DOMAIN, "partners", domain_spec(&env, authorities(&[]))).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;

    write_config_map(
        &env,
        "acme-ca",
        "-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n",
    )
    .await;
    let object = until(&env, DOMAIN, "partners", "ResolvedRefs", "False", "").await;
    assert!(
        message(&object, "ResolvedRefs").contains("authority acme"),
        "{}",
        message(&object, "ResolvedRefs")
    );
    change(
        &env,
        DOMAIN,
        "partners",
        json!({"trust": authorities(&[json!({"name": "new", "pem": new.pem})])}),
    )
    .await;
    let (_, text) = pinned(&env, "has the new authority", |text| holds(text, &new.pem)).await;
    assert!(
        holds(&text, &acme.pem),
        "the broken one's last good certificate is still in it: {text}"
    );
    answers(&env, &acme.leaf("caller"), "200", "and lets its leaves in").await;

    let renewed = Ca::new("Acme CA 2");
    write_config_map(&env, "acme-ca", &renewed.pem).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let (_, text) = truststore(&env).await;
    assert!(
        holds(&text, &renewed.pem) && !holds(&text, &acme.pem),
        "a trust-only authority is what its source says: {text}"
    );
}

/// Forms that pipelines and editors give one file with the authorities of two partners, who call all the
/// while.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_in_another_form_locks_no_caller_out() {
    let env = TestEnv::start("shapes").await;
    let [first, second, third] = ["First CA", "Second CA", "Third CA"].map(Ca::new);
    let written = format!("{}{}", first.pem, second.pem);
    let joined = format!("{}{}", first.pem.trim_end(), second.pem);
    assert!(joined.contains("-----END CERTIFICATE----------BEGIN CERTIFICATE-----"));
    write_config_map(&env, "acme-ca", &written).await;
    let trust = json!({"authorities": [{"name": "acme", "configMapRef": {"name": "acme-ca"}}]});
    create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let (one, other) = (first.leaf("one"), second.leaf("other"));
    answers(&env, &one, "200", "the first partner").await;
    answers(&env, &other, "200", "the second partner").await;

    // The certificates are the same: the operator writes nothing, and no caller notices.
    let mark = env.mark().await;
    let indented: String = written.lines().map(|line| format!("  {line}\n")).collect();
    for shape in [
        &joined,
        &format!("\u{feff}{written}"),
        &indented,
        &written.replace('\n', "\r\n"),
        &joined.replace('\n', " "),
    ] {
        write_config_map(&env, "acme-ca", shape).await;
        env.reconciles(2).await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    }
    assert_eq!(env.writes(mark).await, [""; 0]);

    // The operator names a lost certificate with its line, and keeps trusting it.
    write_config_map(
        &env,
        "acme-ca",
        &format!("{}the second\u{2014}{}", first.pem, second.pem),
    )
    .await;
    let object = until(
        &env,
        DOMAIN,
        "partners",
        "ResolvedRefs",
        "False",
        "InvalidCACertificateRef",
    )
    .await;
    let line = first.pem.lines().count() + 1;
    let told = message(&object, "ResolvedRefs");
    assert!(
        told.contains(&format!(
            "authority acme: line {line}: -----BEGIN after other text"
        )),
        "{told}"
    );
    assert_eq!(
        (one.calls(&env).await, other.calls(&env).await),
        ("200".into(), "200".into())
    );
    assert_eq!(env.writes(mark).await, [""; 0]);

    // A comment in Latin-1: kubectl puts the file into binaryData.
    let latin = [
        b"Autoridade Certifica\xe7\xe3o\n",
        written.as_bytes(),
        third.pem.as_bytes(),
    ]
    .concat();
    let maps: Api<ConfigMap> = Api::namespaced(env.client.clone(), &env.namespace);
    let map = ConfigMap {
        binary_data: Some([("ca.crt".to_owned(), ByteString(latin.clone()))].into()),
        ..ConfigMap::default()
    };
    let write = async |map: ConfigMap| {
        let patch = Patch::Apply(ConfigMap {
            metadata: ObjectMeta {
                name: Some("acme-ca".into()),
                ..ObjectMeta::default()
            },
            ..map
        });
        maps.patch("acme-ca", &PatchParams::apply("test").force(), &patch)
            .await
            .expect("a ConfigMap");
    };
    write(map).await;
    pinned(&env, "has what is in binaryData", |text| {
        [&first, &second, &third].iter().all(|ca| holds(text, &ca.pem))
    })
    .await;
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    answers(&env, &third.leaf("newcomer"), "200", "the third partner").await;

    // The file has another name: the operator lists the names that exist.
    write(ConfigMap {
        binary_data: Some([("root.crt".to_owned(), ByteString(latin))].into()),
        ..ConfigMap::default()
    })
    .await;
    let object = until(&env, DOMAIN, "partners", "ResolvedRefs", "False", "RefNotFound").await;
    let told = message(&object, "ResolvedRefs");
    assert!(
        told.contains("the ConfigMap acme-ca has no key ca.crt; its keys are root.crt"),
        "{told}"
    );
    assert_eq!(
        (one.calls(&env).await, other.calls(&env).await),
        ("200".into(), "200".into())
    );
}
