//! A certificate that a user puts into a Secret of a self-signed certificate is never trusted.
use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{DOMAIN, condition, create, ready_domain, says, until},
        planted_secrets::{P256, child, forged, plant, secret, tenant, uploads, was_never_trusted},
        secrets::text,
        teams::{GRANT, asking, granting},
        tenants::requester,
    },
    test_env::TestEnv,
    world::run,
};

#[test]
fn a_planted_secret_makes_no_tenant_an_authority() {
    run(async {
        let env = TestEnv::start_among("planted", &["acme"], &[]).await;
        ready_domain(&env).await;
        let acme = tenant(&env).await;
        let usual = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n";
        let exponent3 = [
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-pkeyopt",
            "rsa_keygen_pubexp:3",
        ];
        let variants = [
            ("v1", forged("acme-v1", None, &P256).await),
            (
                "ku",
                forged(
                    "acme-ku",
                    Some("keyUsage=critical,keyCertSign,digitalSignature"),
                    &P256,
                )
                .await,
            ),
            (
                "bare",
                forged("acme-bare", Some("subjectKeyIdentifier=hash"), &P256).await,
            ),
            (
                "ca",
                forged("acme-ca", Some("basicConstraints=critical,CA:TRUE"), &P256).await,
            ),
            ("leaf", forged("acme-leaf", Some(usual), &P256).await),
            (
                "more",
                forged(
                    "acme-more",
                    Some(&format!("{usual}1.2.3=critical,ASN1:NULL")),
                    &P256,
                )
                .await,
            ),
            ("e3", forged("acme-e3", Some(usual), &exponent3).await),
            ("other", forged("zeta-admin", None, &P256).await),
        ];
        let mark = env.mark().await;
        for (variant, anchor) in &variants {
            let name = format!("acme-{variant}");
            plant(&acme, secret(&name, &name, &anchor.crt, &anchor.key)).await;
            plant(
                &acme,
                secret(&format!("{name}-next"), &name, &anchor.crt, &anchor.key),
            )
            .await;
            let spec = json!({"issuance": "SelfSigned", "privateKey": {"rotationPolicy": "Never"}});
            acme.request(&name, asking(&env, &name, spec)).await;
        }
        for (variant, anchor) in &variants {
            let name = format!("acme-{variant}");
            acme.ready(&name).await;
            let own = acme.secrets().get(&name).await.unwrap();
            assert!(
                !holds(&text(&own, "tls.crt"), &anchor.crt),
                "{variant}: the Secret holds what was planted"
            );
            assert_ne!(
                text(&own, "tls.key"),
                anchor.key,
                "{variant}: another user knows the key"
            );
            assert_eq!(
                Caller::of(&own).calls(&env).await,
                "200",
                "{variant}: the certificate of the operator is accepted"
            );
            assert_eq!(
                anchor.calls(&env).await,
                "403",
                "{variant}: the planted certificate is not"
            );
            for anchor in [anchor, &Caller::of(&own)] {
                assert_eq!(
                    child(anchor, "zeta-admin").await.calls(&env).await,
                    "403",
                    "{variant}: nor is a certificate that it signs"
                );
            }
        }
        let all: Vec<_> = variants.iter().map(|(_, anchor)| anchor).collect();
        was_never_trusted(&env, &all).await;
        let stored = uploads(&env, mark).await;
        assert!(
            stored <= variants.len(),
            "{stored} uploads for {} certificates",
            variants.len()
        );
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    });
}

#[test]
fn a_replaced_secret_is_not_trusted_and_the_old_certificate_stays() {
    run(async {
        let env = TestEnv::start_among("replaced", &["acme"], &[]).await;
        ready_domain(&env).await;
        let acme = tenant(&env).await;
        for name in ["acme-1", "acme-2"] {
            acme.request(name, asking(&env, name, json!({"issuance": "SelfSigned"})))
                .await;
            acme.ready(name).await;
        }
        let first = acme.secrets().get("acme-1").await.unwrap();
        let second = Caller::of(&acme.secrets().get("acme-2").await.unwrap());
        let planted = forged("acme-1", None, &P256).await;
        let ours = text(&first, "tls.crt");
        let both = |a: &str, b: &str| format!("{a}{b}");
        let revision = |n: i64| {
            move |o: &Value| o["status"]["revision"].as_i64() >= Some(n) && says(o, "Ready") == "True"
        };
        // The planted certificate alone; after the operator's; before it; beside it in ca.crt; another
        // object's certificate with its key.
        let changes: [BTreeMap<&str, String>; 5] = [
            [
                ("tls.crt", planted.crt.clone()),
                ("tls.key", planted.key.clone()),
                ("ca.crt", planted.crt.clone()),
            ]
            .into(),
            [("tls.crt", both(&ours, &planted.crt))].into(),
            [
                ("tls.crt", both(&planted.crt, &ours)),
                ("tls.key", planted.key.clone()),
            ]
            .into(),
            [("ca.crt", both(&ours, &planted.crt))].into(),
            [
                ("tls.crt", second.crt.clone()),
                ("tls.key", second.key.clone()),
                ("ca.crt", second.crt.clone()),
            ]
            .into(),
        ];
        for (n, change) in (2..).zip(changes) {
            let before = Caller::of(&acme.secrets().get("acme-1").await.unwrap());
            let patch = Patch::Merge(json!({"stringData": change}));
            acme.secrets()
                .patch("acme-1", &PatchParams::default(), &patch)
                .await
                .unwrap();
            acme.until("acme-1", "made good", revision(n)).await;
            let now = acme.secrets().get("acme-1").await.unwrap();
            assert_eq!(Caller::of(&now).calls(&env).await, "200");
            assert_eq!(
                before.calls(&env).await,
                "200",
                "a caller with a copy is still accepted"
            );
            assert_eq!(child(&planted, "zeta-admin").await.calls(&env).await, "403");
        }
        assert_eq!(second.calls(&env).await, "200");
        was_never_trusted(&env, &[&planted]).await;
        // One object's labels on another's Secret: neither object accepts the Secret.
        let patch =
            Patch::Merge(json!({"metadata": {"labels": {"mtls-operator.io/client-certificate": "acme-1"}}}));
        acme.secrets()
            .patch("acme-2", &PatchParams::default(), &patch)
            .await
            .unwrap();
        acme.until("acme-2", "not its Secret any more", |o| {
            condition(o, "Issued").is_some_and(|c| c["reason"] == "SecretNotOwned")
        })
        .await;
        env.reconciles(2).await;
        assert_eq!(second.calls(&env).await, "200", "the trusted certificate stays");
    });
}

#[test]
fn a_forged_secret_of_a_self_signed_certificate_adds_no_trust() {
    run(async {
        let env = TestEnv::start_among("forge", &["acme"], &[]).await;
        ready_domain(&env).await;
        let acme = requester(&env, "acme").await;
        create(
            &env,
            GRANT,
            "acme",
            granting(&acme.namespace, json!({"issuance": "SelfSigned"})),
        )
        .await;
        acme.request(
            "client",
            asking(&env, "acme-1", json!({"issuance": "SelfSigned"})),
        )
        .await;
        acme.ready("client").await;
        let good = acme.secrets().get("client").await.unwrap();
        // A certificate with another tenant's name goes into the Secret that the domain reads.
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, "zeta-1");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let forged = Caller {
            crt: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        };
        let data =
            json!({"stringData": {"tls.crt": forged.crt, "ca.crt": forged.crt, "tls.key": forged.key}});
        for secret in ["client", "client-next"] {
            let labels =
                json!({"metadata": {"name": secret, "labels": good.metadata.labels}, "type": good.type_});
            let mut new = labels.clone();
            new["stringData"] = data["stringData"].clone();
            let patched = match secret {
                "client" => {
                    acme.secrets()
                        .patch(secret, &PatchParams::default(), &Patch::Merge(data.clone()))
                        .await
                }
                _ => {
                    acme.secrets()
                        .create(&PostParams::default(), &serde_json::from_value(new).unwrap())
                        .await
                }
            };
            patched.unwrap();
        }
        // The domain has been reconciled since: another certificate has come into its truststore.
        acme.request("other", asking(&env, "acme-2", json!({"issuance": "SelfSigned"})))
            .await;
        acme.ready("other").await;
        assert!(!holds(&truststore(&env).await.1, &forged.crt));
        assert_ne!(forged.calls(&env).await, "200");
        acme.until("client", "the Secret is corrected", |o| {
            o["status"]["revision"].as_i64() > Some(1)
        })
        .await;
    });
}
