//! Trust never shrinks because the operator could not see a resource.
use http::{Method, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use sandbox::{
    api_proxy::{ApiProxy, ProxyAction, Rule},
    control::Calls,
};
use serde_json::json;

use crate::support::{
    aws::truststores::{holds, truststore},
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, create, self_signed, until, with_self_signed},
        secrets::text,
        teams::{GRANT, Team, asking, granting},
    },
    test_env::{TestEnv, through_proxy, through_proxy_with},
    world::{eventually, run},
};

const CERTIFICATES: &str = "/clientcertificates?";

#[test]
fn a_failed_list_of_certificates_removes_nothing_from_the_truststore() {
    run(async {
        let (mut env, proxy) = through_proxy("unlisted").await;
        with_self_signed(&env).await;
        let before = truststore(&env).await;
        for (what, act) in [
            (
                "fails",
                ProxyAction::Refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            ),
            (
                "is forbidden",
                ProxyAction::Refuse(StatusCode::FORBIDDEN, "Forbidden"),
            ),
            ("takes its time", ProxyAction::Hold),
        ] {
            env.operator.stop().await.expect("the operator stops");
            let rule = proxy.add(Rule::of(Some(Method::GET), CERTIFICATES, act));
            let mark = env.mark().await;
            env.operator.restart().expect("the operator starts");
            eventually(&format!("the list {what}"), async || {
                match proxy.fared(rule).expect("there") {
                    fared if fared.fired > 1 || fared.held > 0 => Ok(()),
                    fared => Err(format!("{fared:?}")),
                }
            })
            .await;
            // The operator leads by now, and hears of a change.
            led(&env, &proxy).await;
            let nothing = Calls {
                account: &env.account.id,
                since: mark,
                service: "s3",
                ..Calls::default()
            };
            assert!(
                env.control()
                    .calls(&nothing)
                    .await
                    .expect("the journal")
                    .calls
                    .iter()
                    .all(|c| !c.write),
                "{what}"
            );
            proxy.remove(rule);
            env.reconciles(2).await;
            assert_eq!(truststore(&env).await, before, "{what}");
            assert_eq!(env.writes(mark).await, [""; 0], "{what}");
        }
    });
}

/// Waits until the operator has the Lease, and has listed the domains.
async fn led(env: &TestEnv, proxy: &ApiProxy) {
    eventually("the operator leads", async || {
        let leases = Api::<Lease>::namespaced(env.client.clone(), &env.namespace);
        let lease = leases.get("mtls-operator").await.map_err(|e| e.to_string())?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        let domains = proxy
            .seen()
            .iter()
            .filter(|seen| seen.path.ends_with("/mtlsdomains"))
            .count();
        if !holder.is_empty() && domains > 0 {
            Ok(())
        } else {
            Err(format!("{holder:?}, {domains} lists"))
        }
    })
    .await;
}

#[test]
fn a_namespace_that_is_no_longer_watched_stays_in_the_truststore() {
    run(async {
        let env = TestEnv::start_among("narrowed", &["acme"], &[]).await;
        let (mut env, _proxy) = through_proxy_with(env).await;
        with_self_signed(&env).await;
        let acme = Team::admin(&env, &env.beside("acme"));
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
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        let theirs = text(&acme.secrets().get("client").await.expect("there"), "tls.crt");
        let before = truststore(&env).await;
        assert!(holds(&before.1, &theirs));

        env.operator.stop().await.expect("the operator stops");
        let own = env.namespace.clone();
        env.operator.set_env("MTLS_OPERATOR_WATCH_NAMESPACE", &own);
        let mark = env.mark().await;
        env.operator.restart().expect("the operator starts");
        env.reconciles(2).await;
        assert_eq!(truststore(&env).await, before);
        assert_eq!(env.writes(mark).await, [""; 0]);
        // Trust that is not in doubt keeps changing, and keeps the certificates of the unwatched namespace.
        create(&env, CERTIFICATE, "self2", self_signed("self2")).await;
        until(&env, CERTIFICATE, "self2", "Ready", "True", "").await;
        assert!(holds(&truststore(&env).await.1, &theirs));

        // With the namespace watched again, the certificate leaves as soon as its object does.
        env.operator.stop().await.expect("the operator stops");
        let both = format!("{own},{}", acme.namespace);
        env.operator.set_env("MTLS_OPERATOR_WATCH_NAMESPACE", &both);
        env.operator.restart().expect("the operator starts");
        acme.api(CERTIFICATE)
            .delete("client", &Default::default())
            .await
            .expect("deleted");
        eventually("the certificate is out of the truststore", async || {
            match holds(&truststore(&env).await.1, &theirs) {
                false => Ok(()),
                true => Err("the certificate is trusted".to_owned()),
            }
        })
        .await;
    });
}
