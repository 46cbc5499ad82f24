//! A planted authority is not taken for a generated one, and a forged anchor of an earlier release leaves.
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::json;

use crate::support::{
    aws::truststores::{holds, truststore},
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, certificate_spec, change, condition, create, delete, generated,
            ready_domain, until,
        },
        planted_secrets::{P256, child, forged, key_hash, next, recorded, tenant, was_never_trusted},
        secrets::{create_secret, text},
        teams::asking,
    },
    test_env::TestEnv,
    world::{eventually, run},
};

/// Acts as a release that accepted the anchor: writes the anchor into the truststore for this entry, and pins
/// that version.
async fn trusted_before(env: &TestEnv, entry: &str, anchor: &Caller) {
    let (_, before) = truststore(env).await;
    let body = format!(
        "{before}# authority: {entry}  max-leaf: 2160h  subject: CN=forged\n{}",
        anchor.crt
    );
    let key = format!("{}.pem", env.owner("partners"));
    let put = env
        .s3()
        .put_object()
        .bucket(&env.prepared.bucket)
        .key(&key)
        .metadata("owner", env.owner("partners"));
    let version = put
        .body(body.into_bytes().into())
        .send()
        .await
        .expect("PutObject")
        .version_id
        .expect("a version");
    let domain = env.gateway_domain().await;
    let config = domain.domain_name_configurations.unwrap_or_default().remove(0);
    let config = aws_sdk_apigatewayv2::types::DomainNameConfiguration::builder()
        .set_certificate_arn(config.certificate_arn)
        .set_endpoint_type(config.endpoint_type)
        .set_security_policy(config.security_policy)
        .build();
    let trust = aws_sdk_apigatewayv2::types::MutualTlsAuthenticationInput::builder()
        .truststore_uri(format!("s3://{}/{key}", env.prepared.bucket))
        .truststore_version(version)
        .build();
    let update = env.gateway().update_domain_name().domain_name(env.host());
    update
        .domain_name_configurations(config)
        .mutual_tls_authentication(trust)
        .send()
        .await
        .expect("UpdateDomainName");
}

#[test]
fn a_forged_anchor_that_an_earlier_release_trusted_leaves_at_once() {
    run(async {
        let mut env = TestEnv::start_among("forgedold", &["acme"], &[]).await;
        ready_domain(&env).await;
        let acme = tenant(&env).await;
        acme.request(
            "acme-1",
            asking(&env, "acme-1", json!({"issuance": "SelfSigned"})),
        )
        .await;
        let object = acme.ready("acme-1").await;
        let honest = Caller::of(&acme.secrets().get("acme-1").await.unwrap());
        let uid = object["metadata"]["uid"].as_str().unwrap();
        let own = format!("clientcertificates/{}/acme-1/{uid}", acme.namespace);
        for entry in [
            own.as_str(),
            "clientcertificates/elsewhere/hidden/u-1",
            "clientcertificates/old/u-2",
        ] {
            let anchor = forged("acme-forged", None, &P256).await;
            let admin = child(&anchor, "zeta-admin").await;
            env.operator.kill();
            env.end_lease().await;
            trusted_before(&env, entry, &anchor).await;
            eventually(
                "the anchor is in use, as before the upgrade",
                async || match admin.calls(&env).await.as_str() {
                    "200" => Ok(()),
                    other => Err(other.to_owned()),
                },
            )
            .await;
            let mark = env.mark().await;
            env.operator.restart().expect("the operator starts");
            eventually("the anchor has left", async || {
                match admin.calls(&env).await.as_str() {
                    "403" => Ok(()),
                    other => Err(other.to_owned()),
                }
            })
            .await;
            assert!(!holds(&truststore(&env).await.1, &anchor.crt), "{entry}");
            assert_eq!(
                honest.calls(&env).await,
                "200",
                "{entry}: no other caller notices"
            );
            assert_eq!(
                env.writes(mark).await,
                ["PutObject", "UpdateDomainName"],
                "{entry}"
            );
            until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_authority_is_not_taken_for_a_generated_one() {
    let env = TestEnv::start("plantedca").await;
    ready_domain(&env).await;
    let labels = json!({"mtls-operator.io/domain": "partners", "mtls-operator.io/authority": "next"});
    // Under the generated authority's own name without labels; with them; under the name that the spec asks
    // for.
    let variants = [
        ("Mallory", json!({})),
        ("Mallory", labels.clone()),
        ("Partners 2027", labels.clone()),
    ];
    let mut planted = Vec::new();
    for (common_name, labels) in variants {
        let mallory = forged(
            common_name,
            Some("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign"),
            &P256,
        )
        .await;
        let data = json!({"tls.crt": mallory.crt, "tls.key": mallory.key, "ca.crt": mallory.crt});
        let metadata = json!({"name": "partners.next-ca", "labels": labels});
        let secret = json!({"metadata": metadata, "type": "kubernetes.io/tls", "stringData": data});
        let secret: Secret = serde_json::from_value(secret).unwrap();
        env.secrets()
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
        change(&env, DOMAIN, "partners", json!({"trust": next("Partners 2027")})).await;
        let object = until(
            &env,
            DOMAIN,
            "partners",
            "ResolvedRefs",
            "False",
            "SecretNotOwned",
        )
        .await;
        let told = condition(&object, "ResolvedRefs").unwrap()["message"].to_string();
        for word in ["authority next", "partners.next-ca", "Delete it", "secretRef"] {
            assert!(told.contains(word), "{told}");
        }
        // The authority issues nothing, and its key gives no caller access.
        let mut spec = certificate_spec("client1");
        spec["authority"] = json!("next");
        create(&env, CERTIFICATE, "client1", spec).await;
        until(
            &env,
            CERTIFICATE,
            "client1",
            "Issued",
            "Unknown",
            "WaitingForAuthority",
        )
        .await;
        env.reconciles(2).await;
        assert!(
            env.secrets().get_opt("client1").await.unwrap().is_none(),
            "nothing is issued"
        );
        assert_eq!(child(&mallory, "zeta-admin").await.calls(&env).await, "403");
        delete(&env, CERTIFICATE, "client1").await;
        change(&env, DOMAIN, "partners", json!({"trust": generated()})).await;
        env.secrets()
            .delete("partners.next-ca", &Default::default())
            .await
            .unwrap();
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        planted.push(mallory);
    }
    was_never_trusted(&env, &planted.iter().collect::<Vec<_>>()).await;

    // The way out: a user deletes the Secret, and the operator makes its own.
    let mallory = &planted[2];
    let files = [
        ("tls.crt", mallory.crt.as_str()),
        ("tls.key", &mallory.key),
        ("ca.crt", &mallory.crt),
    ];
    create_secret(&env, "partners.next-ca", &files).await;
    change(&env, DOMAIN, "partners", json!({"trust": next("Partners 2027")})).await;
    until(
        &env,
        DOMAIN,
        "partners",
        "ResolvedRefs",
        "False",
        "SecretNotOwned",
    )
    .await;
    env.secrets()
        .delete("partners.next-ca", &Default::default())
        .await
        .unwrap();
    until(&env, DOMAIN, "partners", "Ready", "True", "").await;
    let made = env.secrets().get("partners.next-ca").await.unwrap();
    assert!(holds(&truststore(&env).await.1, &text(&made, "tls.crt")));
    let record = recorded(&env, "next").await;
    assert_eq!(
        record,
        key_hash(&text(&made, "tls.crt")).await,
        "the annotation is the SHA-256 of the public key"
    );
    was_never_trusted(&env, &planted.iter().collect::<Vec<_>>()).await;
}
