//! No tenant gets the name, the certificate or a Secret of another.
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, certificate_spec, condition, create, issued, ready_domain, says},
        secrets::{create_secret, text},
        teams::{GRANT, Team, asking, granting},
        tenants::{by_csr, csr, is_forbidden, requester},
    },
    test_env::TestEnv,
    world::run,
};

#[test]
fn no_tenant_gets_the_name_of_another() {
    run(async {
        let env = TestEnv::start_among("names", &["acme"], &[]).await;
        ready_domain(&env).await;
        let acme = requester(&env, "acme").await;
        let example: Value =
            serde_saphyr::from_str(include_str!("../../../examples/client-grant.yaml")).unwrap();
        let mut grant = example["spec"].clone();
        grant["namespaces"] = json!({"names": [acme.namespace]});
        create(&env, GRANT, "acme", grant).await;
        let theirs = "spiffe://example.com/zeta/pay";
        let up = "spiffe://example.com/acme/../zeta";
        let subject = |more: Value| {
            let mut subject = json!({"commonName": "acme-1"});
            more.as_object()
                .unwrap()
                .iter()
                .for_each(|(field, value)| subject[field] = value.clone());
            json!({"subject": subject})
        };
        let rows = [
            (asking(&env, "zeta-1", json!({})), "spec.subject.commonName"),
            (asking(&env, "acme-1", json!({"uris": [theirs]})), "spec.uris[0]"),
            (asking(&env, "acme-1", json!({"uris": [up]})), "spec.uris[0]"),
            (
                asking(&env, "acme-1", json!({"dnsNames": ["zeta.example.com"]})),
                "spec.dnsNames[0]",
            ),
            (
                asking(
                    &env,
                    "acme-1",
                    json!({"emailAddresses": ["ops@zeta.example.com"]}),
                ),
                "spec.emailAddresses[0]",
            ),
            (
                asking(&env, "acme-1", subject(json!({"organizations": ["Zeta"]}))),
                "spec.subject.organizations[0]",
            ),
            (
                asking(&env, "acme-1", json!({"issuance": "SelfSigned"})),
                "spec.issuance",
            ),
            (
                asking(&env, "acme-1", json!({"authority": "other"})),
                "spec.authority",
            ),
            (
                by_csr(&env, &csr("zeta-1", None)),
                "spec.csr (subject.commonName)",
            ),
            (by_csr(&env, &csr("acme-1", Some(theirs))), "spec.csr (uris[0])"),
            (by_csr(&env, &csr("acme-1", Some(up))), "spec.csr (uris[0])"),
            // Names that look like other names.
            (
                asking(&env, "acme-\u{202e}1", json!({})),
                "spec.subject.commonName (contains U+202E",
            ),
            (
                asking(&env, "acme-\u{ff11}", json!({})),
                "spec.subject.commonName (is not in the Unicode form NFKC",
            ),
            (
                by_csr(&env, &csr("acme-\u{200b}1", None)),
                "spec.csr (subject.commonName (contains U+200B",
            ),
            // Parts of a subject within a part of a subject.
            (
                asking(&env, "acme-1,CN=zeta-1", json!({})),
                "must not contain = or ,",
            ),
            (
                asking(&env, "acme-1\nx-client: zeta-1", json!({})),
                "must not contain line breaks",
            ),
            (
                asking(&env, "acme-1\u{7}", json!({})),
                "must not contain line breaks or control characters",
            ),
            (
                by_csr(&env, &csr("acme-1=zeta-1", None)),
                "must not contain = or ,",
            ),
            (
                by_csr(&env, &csr("acme-1\r\nx-client: zeta-1", None)),
                "must not contain line breaks",
            ),
            (
                by_csr(&env, &csr("acme-1\u{2028}", None)),
                "must not contain line breaks or control characters",
            ),
        ];
        for (n, (spec, _)) in rows.iter().enumerate() {
            acme.request(&format!("c{n}"), spec.clone()).await;
        }
        for (n, (_, words)) in rows.iter().enumerate() {
            acme.refused(&format!("c{n}"), words).await;
        }
        // A tenant gets a granted name, and no other tenant gets it later.
        acme.request(
            "own",
            asking(
                &env,
                "acme-1",
                json!({
                    "uris": ["spiffe://example.com/acme/pay"],
                    "subject": {"commonName": "acme-1", "organizations": ["Acme"]},
                }),
            ),
        )
        .await;
        acme.ready("own").await;
        acme.patch("own", json!({"spec": {"uris": [theirs]}})).await;
        acme.refused("own", "spec.uris[0]").await;
        let secrets = acme.secrets().list(&Default::default()).await.unwrap().items;
        assert_eq!(
            secrets.len(),
            1,
            "{:?}",
            secrets.iter().map(|s| &s.metadata.name).collect::<Vec<_>>()
        );
    });
}

#[test]
fn secrets_of_others_are_neither_read_nor_written_and_their_objects_not_revealed() {
    run(async {
        let env = TestEnv::start_among("reach", &["acme"], &[]).await;
        ready_domain(&env).await;
        create_secret(&env, "victim", &[("password", "hunter2")]).await;
        let acme = requester(&env, "acme").await;

        // No message and no Event tells whether there is a domain.
        acme.request("there", asking(&env, "acme-1", json!({}))).await;
        let nowhere = json!({"domainRef": {"name": "nowhere", "namespace": env.namespace}});
        acme.request("nowhere", asking(&env, "acme-1", nowhere)).await;
        let in_no_namespace = json!({"domainRef": {"name": "partners", "namespace": "no-such-namespace"}});
        acme.request("unknown", asking(&env, "acme-1", in_no_namespace))
            .await;
        let long = json!({"duration": "876000h"});
        acme.request("long", asking(&env, "acme-1", long)).await;
        let mut told = Vec::new();
        for name in ["there", "nowhere", "unknown", "long"] {
            acme.refused(name, "").await;
            let object = acme.until(name, "Ready", |o| says(o, "Ready") == "False").await;
            let mut conditions = object["status"]["conditions"].clone();
            conditions
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|c| c["lastTransitionTime"] = Value::Null);
            told.push(conditions);
        }
        assert!(told.iter().all(|one| *one == told[0]), "{told:#?}");

        // References to Secrets are to those of the tenant's own namespace, also by names that exist
        // elsewhere.
        create(&env, GRANT, "acme", granting(&acme.namespace, json!({}))).await;
        let keystore = |secret: &str| {
            json!({
                "keystores": {"pkcs12": {"passwordSecretRef": {"name": secret, "key": "password"}}},
            })
        };
        for (name, secret) in [("reads", "victim"), ("reads-nothing", "no-such-secret")] {
            acme.request(name, asking(&env, "acme-1", keystore(secret))).await;
        }
        let mut told = Vec::new();
        for name in ["reads", "reads-nothing"] {
            let object = acme
                .until(name, "not found", |o| says(o, "Ready") == "False")
                .await;
            let message = condition(&object, "Ready").unwrap()["message"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(!message.contains("hunter2"));
            told.push(message.replace("victim", "?").replace("no-such-secret", "?"));
        }
        assert_eq!(told[0], told[1]);

        // A secretName that exists elsewhere is written in the tenant's namespace. The operator leaves an
        // existing Secret alone that is not the certificate's.
        acme.request("writes", asking(&env, "acme-2", json!({"secretName": "victim"})))
            .await;
        acme.ready("writes").await;
        assert_eq!(
            text(&env.secrets().get("victim").await.unwrap(), "password"),
            "hunter2"
        );
        let theirs = json!({"metadata": {"name": "app"}, "stringData": {"password": "own"}});
        acme.secrets()
            .create(&PostParams::default(), &serde_json::from_value(theirs).unwrap())
            .await
            .unwrap();
        acme.request("overwrites", asking(&env, "acme-3", json!({"secretName": "app"})))
            .await;
        acme.until("overwrites", "SecretNotOwned", |o| {
            condition(o, "Issued").is_some_and(|c| c["reason"] == "SecretNotOwned")
        })
        .await;
        assert_eq!(text(&acme.secrets().get("app").await.unwrap(), "password"), "own");
        // Resources that the tenant itself may reach by its own token.
        let outside = Team {
            client: acme.client.clone(),
            namespace: env.namespace.clone(),
        };
        assert!(is_forbidden(outside.secrets().get("victim").await));
        assert!(is_forbidden(outside.api(DOMAIN).get("partners").await));
        assert!(is_forbidden(outside.api(GRANT).get("acme").await));
        assert!(is_forbidden(acme.api(GRANT).list(&Default::default()).await));
    });
}

#[test]
fn forged_annotations_status_and_owners_decide_nothing() {
    run(async {
        let env = TestEnv::start_among("forged", &["acme"], &[]).await;
        ready_domain(&env).await;
        create(&env, CERTIFICATE, "victim", certificate_spec("zeta-1")).await;
        let (victim, victims) = issued(&env, "victim", 1).await;
        let acme = requester(&env, "acme").await;

        // The status is the operator's: the API server ignores it in the object, and refuses it alone.
        let at = "2026-01-01T00:00:00Z";
        let yes = |type_: &str| {
            json!({
                "type": type_, "status": "True", "reason": type_, "message": "by the ClientGrant acme",
                "lastTransitionTime": at, "observedGeneration": 1,
            })
        };
        let claims = json!({
            "observedGeneration": 1, "conditions": [yes("Accepted"), yes("Issued"), yes("Ready")],
            "revision": 7,
        });
        let forged = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": CERTIFICATE,
            "spec": asking(&env, "acme-1", json!({})), "status": claims,
            "metadata": {
                "name": "forged", "finalizers": ["mtls-operator.io/cleanup"],
                "annotations": {
                    "mtls-operator.io/renew": "now", "mtls-operator.io/renewed": "now",
                    "mtls-operator.io/revision": "9",
                },
                "ownerReferences": [{
                    "apiVersion": "mtls-operator.io/v1alpha1", "kind": CERTIFICATE, "name": "victim",
                    "uid": victim["metadata"]["uid"],
                }],
            },
        });
        let object = serde_json::from_value(forged).unwrap();
        acme.api(CERTIFICATE)
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let patch = Patch::Merge(json!({"status": claims}));
        assert!(is_forbidden(
            acme.api(CERTIFICATE)
                .patch_status("forged", &PatchParams::default(), &patch)
                .await
        ));
        // A status written with that right decides nothing: no grant, no certificate.
        let admin = Team::admin(&env, &acme.namespace);
        if admin.api(CERTIFICATE).get_opt("forged").await.unwrap().is_some() {
            admin
                .api(CERTIFICATE)
                .patch_status("forged", &PatchParams::default(), &patch)
                .await
                .unwrap();
        }
        acme.request("plain", asking(&env, "acme-1", json!({}))).await;
        admin
            .api(CERTIFICATE)
            .patch_status("plain", &PatchParams::default(), &patch)
            .await
            .unwrap();
        // A renewal request causes a reconcile, and no more.
        acme.patch(
            "plain",
            json!({"metadata": {"annotations": {"mtls-operator.io/renew": "please"}}}),
        )
        .await;
        acme.refused("plain", "no ClientGrant").await;
        for name in ["forged", "plain"] {
            assert!(acme.secrets().get_opt(name).await.unwrap().is_none(), "{name}");
        }

        // Renewal requests for certificates of others.
        let outside = Team {
            client: acme.client.clone(),
            namespace: env.namespace.clone(),
        };
        let renew = Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/renew": "now"}}}));
        assert!(is_forbidden(
            outside
                .api(CERTIFICATE)
                .patch("victim", &PatchParams::default(), &renew)
                .await
        ));
        assert!(is_forbidden(
            outside
                .api(CERTIFICATE)
                .delete("victim", &Default::default())
                .await
        ));
        let now = env.secrets().get("victim").await.unwrap();
        assert_eq!(now.data, victims.data, "the victim's Secret is as it was");
    });
}
