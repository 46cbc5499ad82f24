//! Lives of authorities: whatever they come from, they end in the truststore version that the domain pins, and leave it as designed.
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    objects::*,
    world::{Life, eventually},
};

pub async fn write_config_map(life: &Life, name: &str, pem: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(life.client.clone(), &life.namespace);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"ca.crt": pem}});
    maps.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(map)).await.expect("a ConfigMap");
}

pub fn message(object: &Value, type_: &str) -> String {
    condition(object, type_).map(|c| c["message"].to_string()).unwrap_or_default()
}

/// The domain pins a truststore version of which this is true.
pub async fn pinned(life: &Life, what: &str, held: impl Fn(&str) -> bool) -> (String, String) {
    eventually(&format!("the pinned truststore {what}"), async || {
        let (version, text) = truststore(life).await;
        if held(&text) { Ok((version, text)) } else { Err(text) }
    })
    .await
}

pub async fn answers(life: &Life, caller: &Caller, status: &str, why: &str) {
    eventually(why, async || match caller.calls(life).await {
        seen if seen == status => Ok(()),
        seen => Err(seen),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_from_every_source_are_let_in() {
    let life = Life::start("sources").await;
    let [own, legacy, acme, pasted, stranger] =
        ["Own CA", "Legacy CA", "Acme CA", "Pasted CA", "Stranger CA"].map(Ca::new);
    create_secret(&life, "own-ca", &[("tls.crt", &own.pem), ("tls.key", &own.key)]).await;
    create_secret(&life, "legacy-ca", &[("ca.crt", &legacy.pem)]).await;
    write_config_map(&life, "acme-ca", &acme.pem).await;
    let trust = json!({"authorities": [
        {"name": "own", "secretRef": {"name": "own-ca"}},
        {"name": "legacy", "secretRef": {"name": "legacy-ca"}},
        {"name": "acme", "configMapRef": {"name": "acme-ca"}},
        {"name": "pasted", "pem": pasted.pem},
    ]});
    create(&life, DOMAIN, "partners", domain_spec(&life, trust)).await;
    create(&life, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    until(&life, CERTIFICATE, "client1", "Ready", "True", "").await;

    let (_, text_) = truststore(&life).await;
    for ca in [&own, &legacy, &acme, &pasted] {
        assert!(holds(&text_, &ca.pem), "{text_}");
        answers(&life, &ca.leaf("somebody"), "200", "a leaf of each is let in").await;
    }
    assert!(!holds(&text_, &stranger.pem));
    answers(&life, &stranger.leaf("somebody"), "403", "a stranger's is not").await;

    // The only one with a key issues.
    let secret = life.secrets().get("client1").await.expect("the Secret");
    assert!(holds(&text(&secret, "ca.crt"), &own.pem));
    sound(&secret).await.expect("sound");
    answers(&life, &Caller::of(&secret), "200", "an issued leaf is let in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_source_is_named_and_picked_up_when_it_comes() {
    // Looks that nothing has woken are an hour away: it is the watch that brings the news.
    let life = Life::start_with("missing", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "1h")]).await;
    let (own, late) = (Ca::new("Own CA"), Ca::new("Late CA"));
    let trust = json!({"authorities": [
        {"name": "own", "pem": own.pem},
        {"name": "late", "secretRef": {"name": "late-ca"}},
        {"name": "later", "configMapRef": {"name": "later-ca"}},
    ]});
    create(&life, DOMAIN, "partners", domain_spec(&life, trust)).await;
    let object = until(&life, DOMAIN, "partners", "ResolvedRefs", "False", "RefNotFound").await;
    for name in ["late-ca", "later-ca"] {
        assert!(message(&object, "ResolvedRefs").contains(name), "{}", message(&object, "ResolvedRefs"));
    }
    assert_eq!(summary(&object), ["False", "", ""]);
    // The others do not wait for it.
    until(&life, DOMAIN, "partners", "BypassClosed", "True", "").await;
    answers(&life, &own.leaf("somebody"), "200", "the authority that is there is trusted").await;

    create_secret(&life, "late-ca", &[("ca.crt", &late.pem)]).await;
    let later = Ca::new("Later CA");
    write_config_map(&life, "later-ca", &later.pem).await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    for ca in [&late, &later] {
        answers(&life, &ca.leaf("somebody"), "200", "a leaf of the late one is let in").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_source_keeps_what_it_gave_last() {
    let life = Life::start("broken").await;
    let (own, acme, new) = (Ca::new("Own CA"), Ca::new("Acme CA"), Ca::new("New CA"));
    write_config_map(&life, "acme-ca", &acme.pem).await;
    let authorities = |more: &[Value]| {
        let mut all =
            vec![json!({"name": "own", "pem": own.pem}), json!({"name": "acme", "configMapRef": {"name": "acme-ca"}})];
        all.extend_from_slice(more);
        json!({"authorities": all})
    };
    create(&life, DOMAIN, "partners", domain_spec(&life, authorities(&[]))).await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;

    write_config_map(&life, "acme-ca", "-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n").await;
    let object = until(&life, DOMAIN, "partners", "ResolvedRefs", "False", "").await;
    assert!(message(&object, "ResolvedRefs").contains("authority acme"), "{}", message(&object, "ResolvedRefs"));
    change(&life, DOMAIN, "partners", json!({"trust": authorities(&[json!({"name": "new", "pem": new.pem})])})).await;
    let (_, text) = pinned(&life, "has the new authority", |text| holds(text, &new.pem)).await;
    assert!(holds(&text, &acme.pem), "the broken one's last good certificate is still in it: {text}");
    answers(&life, &acme.leaf("somebody"), "200", "and lets its leaves in").await;

    let renewed = Ca::new("Acme CA 2");
    write_config_map(&life, "acme-ca", &renewed.pem).await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    let (_, text) = truststore(&life).await;
    assert!(
        holds(&text, &renewed.pem) && !holds(&text, &acme.pem),
        "a trust-only authority is what its source says: {text}"
    );
}

/// What pipelines and editors make of one file that holds the authorities of two partners, who call all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_another_shape_locks_nobody_out() {
    let life = Life::start("shapes").await;
    let [first, second, third] = ["First CA", "Second CA", "Third CA"].map(Ca::new);
    let written = format!("{}{}", first.pem, second.pem);
    let joined = format!("{}{}", first.pem.trim_end(), second.pem);
    assert!(joined.contains("-----END CERTIFICATE----------BEGIN CERTIFICATE-----"));
    write_config_map(&life, "acme-ca", &written).await;
    let trust = json!({"authorities": [{"name": "acme", "configMapRef": {"name": "acme-ca"}}]});
    create(&life, DOMAIN, "partners", domain_spec(&life, trust)).await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    let (one, other) = (first.leaf("one"), second.leaf("other"));
    answers(&life, &one, "200", "the first partner").await;
    answers(&life, &other, "200", "the second partner").await;

    // The same certificates: nothing is written, and nobody notices.
    let mark = life.mark().await;
    let indented: String = written.lines().map(|line| format!("  {line}\n")).collect();
    for shape in
        [&joined, &format!("\u{feff}{written}"), &indented, &written.replace('\n', "\r\n"), &joined.replace('\n', " ")]
    {
        write_config_map(&life, "acme-ca", shape).await;
        life.reconciles(2).await;
        until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    }
    assert_eq!(life.writes(mark).await, [""; 0]);

    // What is lost is said, with its line, and stays trusted.
    write_config_map(&life, "acme-ca", &format!("{}the second\u{2014}{}", first.pem, second.pem)).await;
    let object = until(&life, DOMAIN, "partners", "ResolvedRefs", "False", "InvalidCACertificateRef").await;
    let line = first.pem.lines().count() + 1;
    let told = message(&object, "ResolvedRefs");
    assert!(told.contains(&format!("authority acme: line {line}: -----BEGIN after other text")), "{told}");
    assert_eq!((one.calls(&life).await, other.calls(&life).await), ("200".into(), "200".into()));
    assert_eq!(life.writes(mark).await, [""; 0]);

    // A comment in Latin-1: kubectl puts the file into binaryData.
    let latin = [b"Autoridade Certifica\xe7\xe3o\n", written.as_bytes(), third.pem.as_bytes()].concat();
    let maps: Api<ConfigMap> = Api::namespaced(life.client.clone(), &life.namespace);
    let map = ConfigMap {
        binary_data: Some([("ca.crt".to_owned(), ByteString(latin.clone()))].into()),
        ..ConfigMap::default()
    };
    let write = async |map: ConfigMap| {
        let patch = Patch::Apply(ConfigMap {
            metadata: ObjectMeta { name: Some("acme-ca".into()), ..ObjectMeta::default() },
            ..map
        });
        maps.patch("acme-ca", &PatchParams::apply("test").force(), &patch).await.expect("a ConfigMap");
    };
    write(map).await;
    pinned(&life, "has what is in binaryData", |text| [&first, &second, &third].iter().all(|ca| holds(text, &ca.pem)))
        .await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    answers(&life, &third.leaf("newcomer"), "200", "the third partner").await;

    // Under another name: it is said which there are.
    write(ConfigMap { binary_data: Some([("root.crt".to_owned(), ByteString(latin))].into()), ..ConfigMap::default() })
        .await;
    let object = until(&life, DOMAIN, "partners", "ResolvedRefs", "False", "RefNotFound").await;
    let told = message(&object, "ResolvedRefs");
    assert!(told.contains("the ConfigMap acme-ca has no key ca.crt; its keys are root.crt"), "{told}");
    assert_eq!((one.calls(&life).await, other.calls(&life).await), ("200".into(), "200".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_authority_stays_for_its_leaves_and_a_distrusted_one_goes_at_once() {
    let life = Life::start("distrust").await;
    let [old, acme, other] = ["Old CA", "Acme CA", "Other CA"].map(Ca::new);
    create_secret(&life, "old-ca", &[("tls.crt", &old.pem), ("tls.key", &old.key)]).await;
    let old_entry = |state: &str| json!({"name": "old", "state": state, "secretRef": {"name": "old-ca"}});
    let acme_entry = |state: &str| json!({"name": "acme", "state": state, "pem": acme.pem});
    let others = [json!({"name": "new", "generate": {}}), json!({"name": "other", "pem": other.pem})];
    let trust = |issuing: &str, more: Vec<Value>| json!({"issuingAuthority": issuing, "authorities": ([&others[..], &more[..]].concat())});
    create(
        &life,
        DOMAIN,
        "partners",
        domain_spec(&life, trust("old", vec![old_entry("Active"), acme_entry("Active")])),
    )
    .await;
    create(&life, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    until(&life, CERTIFICATE, "client1", "Ready", "True", "").await;
    let living = Caller::of(&life.secrets().get("client1").await.expect("the Secret"));
    answers(&life, &living, "200", "a leaf of the old authority").await;

    // Gone from the spec: certificates move to another issuer, what they had is let in until it has expired.
    change(&life, DOMAIN, "partners", json!({"trust": trust("new", vec![acme_entry("Active")])})).await;
    pinned(&life, "remembers until when", |text| text.contains("keep-until: ")).await;
    eventually("the certificate has another issuer", async || {
        let secret = life.secrets().get("client1").await.expect("the Secret");
        if holds(&text(&secret, "ca.crt"), &old.pem) { Err("the old one") } else { Ok(()) }.map_err(String::from)
    })
    .await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    let (_, kept) = truststore(&life).await;
    assert!(holds(&kept, &old.pem), "{kept}");
    assert_eq!(living.calls(&life).await, "200");
    assert_eq!(acme.leaf("somebody").calls(&life).await, "200");

    // Distrusted: out at once, trust-only or issuing, whatever hangs on it. Nobody else notices.
    change(
        &life,
        DOMAIN,
        "partners",
        json!({"trust": trust("new", vec![old_entry("Distrusted"), acme_entry("Distrusted")])}),
    )
    .await;
    pinned(&life, "is without both", |text| !holds(text, &old.pem) && !holds(text, &acme.pem)).await;
    answers(&life, &living, "403", "a living leaf of a distrusted authority").await;
    answers(&life, &acme.leaf("somebody"), "403", "a distrusted partner").await;
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(other.leaf("somebody").calls(&life).await, "200");
    let moved = Caller::of(&life.secrets().get("client1").await.expect("the Secret"));
    assert_eq!(moved.calls(&life).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_authority_key_is_never_made_anew() {
    let life = Life::start("keylost").await;
    ready_domain(&life).await;
    create(&life, CERTIFICATE, "client1", certificate_spec("client1")).await;
    until(&life, CERTIFICATE, "client1", "Ready", "True", "").await;
    let living = Caller::of(&life.secrets().get("client1").await.expect("the Secret"));
    let (before, _) = truststore(&life).await;
    let mut backup = life.secrets().get("partners.ca-ca").await.expect("the authority's Secret");

    life.secrets().delete("partners.ca-ca", &Default::default()).await.expect("deleted");
    let object = until(&life, DOMAIN, "partners", "ResolvedRefs", "False", "AuthorityKeyLost").await;
    assert!(message(&object, "Ready").contains("authority ca"), "{}", message(&object, "Ready"));
    // Another look, which a change of the spec brings about, does not make one either.
    change(&life, DOMAIN, "partners", json!({"trust": {"overlap": "720h"}})).await;
    until(&life, DOMAIN, "partners", "ResolvedRefs", "False", "AuthorityKeyLost").await;
    assert!(life.secrets().get_opt("partners.ca-ca").await.expect("an answer").is_none());
    assert_eq!(truststore(&life).await.0, before, "the truststore is as it was");
    assert_eq!(living.calls(&life).await, "200", "callers go on being served");

    backup.metadata.resource_version = None;
    backup.metadata.uid = None;
    life.secrets().create(&Default::default(), &backup).await.expect("the backup is restored");
    until(&life, DOMAIN, "partners", "Ready", "True", "").await;
    assert_eq!(truststore(&life).await.0, before);
}
