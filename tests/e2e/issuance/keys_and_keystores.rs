//! A requester may keep its key, and a keystore opens with the password that the user chose.
use serde_json::json;

use crate::support::{
    aws::truststores::holds,
    edge_calls::Caller,
    example_manifests,
    kubernetes::{
        domains::events,
        objects::{
            CERTIFICATE, DOMAIN, certificate_spec, change, condition, create, get, issued, ready_domain,
            summary, until,
        },
        secrets::{create_password, create_secret, damage, label, openssl, text, version},
    },
    test_env::TestEnv,
    world::eventually,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_keeps_its_key() {
    let env = TestEnv::start("csr").await;
    ready_domain(&env).await;
    let dir = tempfile::tempdir().expect("a folder");
    let request = async |key: &str, more: &[&str]| {
        let words = ["req", "-new", "-nodes", "-newkey", "rsa:2048", "-keyout", key];
        openssl(dir.path(), &[&words[..], more].concat(), "")
            .await
            .expect("a request")
    };
    let names = "subjectAltName=DNS:client1.acme.example,URI:spiffe://acme/client1";
    let csr = request(
        "one",
        &[
            "-subj",
            "/C=DE/O=Acme/OU=a/OU=b/CN=client1",
            "-addext",
            names,
            "-addext",
            "basicConstraints=CA:TRUE",
        ],
    )
    .await;
    create(
        &env,
        CERTIFICATE,
        "client1",
        json!({"domainRef": {"name": "partners"}, "csr": csr}),
    )
    .await;
    let (object, secret) = issued(&env, "client1", 1).await;
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    let keys: Vec<_> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(keys, ["ca.crt", "tls.crt"]);
    let crt = text(&secret, "tls.crt");
    let shown = openssl(
        dir.path(),
        &["x509", "-noout", "-text", "-nameopt", "RFC2253"],
        &crt,
    )
    .await
    .expect("a certificate");
    for part in [
        "Subject: CN=client1,OU=b,OU=a,O=Acme,C=DE\n",
        "DNS:client1.acme.example, URI:spiffe://acme/client1\n",
        "CA:FALSE",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let own_key = |file: &str| std::fs::read_to_string(dir.path().join(file)).expect("the requester's key");
    assert_eq!(
        Caller {
            crt,
            key: own_key("one")
        }
        .calls(&env)
        .await,
        "200"
    );
    assert_eq!(object["status"]["revision"], 1);

    // Another request leads to another leaf. The operator refuses a request that it cannot certify, and keeps
    // the leaf.
    let another = request("two", &["-subj", "/CN=client1"]).await;
    change(&env, CERTIFICATE, "client1", json!({"csr": another})).await;
    let (_, second) = issued(&env, "client1", 2).await;
    assert_eq!(
        Caller {
            crt: text(&second, "tls.crt"),
            key: own_key("two")
        }
        .calls(&env)
        .await,
        "200"
    );
    let weak = openssl(
        dir.path(),
        &[
            "req",
            "-new",
            "-nodes",
            "-newkey",
            "rsa:1024",
            "-keyout",
            "weak",
            "-subj",
            "/CN=client1",
        ],
        "",
    )
    .await
    .expect("a request");
    change(&env, CERTIFICATE, "client1", json!({"csr": weak})).await;
    let object = until(&env, CERTIFICATE, "client1", "Accepted", "False", "InvalidSpec").await;
    assert_eq!(summary(&object), ["False", "", "True"]);
    assert!(
        condition(&object, "Ready").expect("Ready")["message"]
            .to_string()
            .contains("spec.csr: its key is too weak")
    );
    assert_eq!(
        version(&env.secrets().get("client1").await.expect("the Secret")),
        version(&second)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keystore_follows_its_password() {
    let env = TestEnv::start("keystore").await;
    ready_domain(&env).await;
    let mut spec = certificate_spec("client1");
    spec["keystores"] = json!({"pkcs12": {"passwordSecretRef": {"name": "p", "key": "password"}}});
    create(&env, CERTIFICATE, "client1", spec).await;
    let object = until(&env, CERTIFICATE, "client1", "Ready", "False", "RefNotFound").await;
    assert!(
        condition(&object, "Ready").expect("Ready")["message"]
            .to_string()
            .contains("no Secret p with the label")
    );
    assert!(
        env.secrets()
            .get_opt("client1")
            .await
            .expect("an answer")
            .is_none(),
        "all of it or nothing"
    );

    // A Secret without the label reads as none.
    create_secret(&env, "p", &[("password", "one")]).await;
    change(
        &env,
        CERTIFICATE,
        "client1",
        json!({"dnsNames": ["client1.example"]}),
    )
    .await;
    let again = eventually("the new spec is observed", async || {
        let object = get(&env, CERTIFICATE, "client1").await;
        match object["status"]["observedGeneration"] == 2 {
            true => Ok(object),
            false => Err(object.to_string()),
        }
    })
    .await;
    assert_eq!(
        condition(&again, "Ready").expect("Ready")["message"],
        condition(&object, "Ready").expect("Ready")["message"]
    );

    label(&env, "p", json!({"mtls-operator.io/keystore-password": "true"})).await;
    let (_, first) = issued(&env, "client1", 1).await;
    opened(&first, "one").await.expect("the keystore opens");
    damage(&env, "p", &[("password", "two")]).await;
    let second = eventually("the keystore has the new password", async || {
        let secret = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
        opened(&secret, "two").await.map(|()| secret)
    })
    .await;
    assert_eq!(
        text(&first, "tls.crt"),
        text(&second, "tls.crt"),
        "nothing is issued for that"
    );

    // A keystore that another writer puts there is replaced, and not opened.
    damage(&env, "client1", &[("keystore.p12", "not one")]).await;
    let third = eventually("the keystore is the operator's again", async || {
        let secret = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
        opened(&secret, "two").await.map(|()| secret)
    })
    .await;

    // Without the label, the keystore stays with its certificate, and an Event says what to do.
    label(&env, "p", json!({"mtls-operator.io/keystore-password": null})).await;
    eventually("an Event names the label", async || {
        let notes = events(&env, "KeystorePasswordMissing").await;
        match notes.iter().any(|note| note.contains("keystore-password")) {
            true => Ok(()),
            false => Err(format!("{notes:?}")),
        }
    })
    .await;
    let object = until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
    let issued_message = condition(&object, "Issued").expect("Issued")["message"].to_string();
    assert!(
        issued_message.contains("the next one: spec.keystores.pkcs12.passwordSecretRef"),
        "{issued_message}"
    );
    let stays = env.secrets().get("client1").await.expect("the Secret");
    assert_eq!(version(&stays), version(&third));

    // The operator removes a keystore that leaves the spec, and keeps the data of other writers.
    damage(&env, "client1", &[("notes", "another writer's")]).await;
    change(&env, CERTIFICATE, "client1", json!({"keystores": null})).await;
    eventually("the keystore is gone", async || {
        let secret = env.secrets().get("client1").await.map_err(|e| e.to_string())?;
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.clone()).collect();
        if keys == ["ca.crt", "notes", "tls.crt", "tls.key"] {
            Ok(())
        } else {
            Err(format!("{keys:?}"))
        }
    })
    .await;
}

/// Checks that the keystore opens with that password and holds the leaf of the Secret.
async fn opened(secret: &k8s_openapi::api::core::v1::Secret, password: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a folder");
    let keystore = secret
        .data
        .as_ref()
        .and_then(|d| d.get("keystore.p12"))
        .ok_or("no keystore")?;
    std::fs::write(dir.path().join("p12"), &keystore.0).expect("a file");
    let pass = format!("pass:{password}");
    let out = openssl(
        dir.path(),
        &["pkcs12", "-in", "p12", "-nodes", "-passin", &pass],
        "",
    )
    .await?;
    if holds(&out, &text(secret, "tls.crt")) {
        Ok(())
    } else {
        Err("another certificate".into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_certificates_in_every_form_is_served() {
    let env = TestEnv::start("forms").await;
    let dir = tempfile::tempdir().expect("a folder");
    let request = "req -new -newkey rsa:2048 -nodes -keyout globex.key -subj /O=Globex/CN=globex";
    let csr = openssl(dir.path(), &request.split(' ').collect::<Vec<_>>(), "")
        .await
        .expect("a request");
    let lines: Vec<_> = csr.lines().filter(|line| !line.starts_with("-----")).collect();
    create_password(&env, "acme-keystore", "secret").await;
    let paste = ("<-- the lines of globex.csr", lines.join("\n    "));
    example_manifests::apply(&env, "client-certificates.yaml", &[(paste.0, &paste.1)]).await;
    for name in ["acme", "globex", "initech"] {
        let (_, secret) = issued(&env, name, 1).await;
        let caller = match name {
            "globex" => Caller {
                crt: text(&secret, "tls.crt"),
                key: std::fs::read_to_string(dir.path().join("globex.key")).expect("the requester's key"),
            },
            _ => Caller::of(&secret),
        };
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        assert_eq!(caller.calls(&env).await, "200", "{name}");
    }
}
