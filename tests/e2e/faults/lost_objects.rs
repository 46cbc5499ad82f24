//! Deletions that the operator did not see are cleaned up later, and a restored cluster serves on.
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, api::ObjectMeta};
use mtls_operator::api::MtlsDomain;
use sandbox::operator::grant;
use serde_json::json;

use crate::support::{
    aws::truststores::truststore,
    edge_calls::Caller,
    kubernetes::{
        objects::{
            CERTIFICATE, DOMAIN, api, certificate_spec, create, delete, domain_spec, generated, issued,
            ready_domain, says, taken_out, until, with_self_signed,
        },
        teams::Team,
    },
    test_env::TestEnv,
    world::{eventually, run, world},
};

#[test]
fn an_object_deleted_while_the_operator_is_down_is_cleaned_up_later() {
    run(async {
        let mut env = TestEnv::start("unwatched").await;
        with_self_signed(&env).await;
        env.operator.kill();
        env.end_lease().await;
        delete(&env, CERTIFICATE, "self1").await;
        delete(&env, DOMAIN, "partners").await;
        // An object that is gone by the time of its reconcile.
        eventually("the certificate is gone", async || {
            match api(&env, CERTIFICATE)
                .get_opt("self1")
                .await
                .map_err(|e| e.to_string())?
            {
                None => Ok(()),
                Some(_) => Err("there".to_owned()),
            }
        })
        .await;
        env.operator.restart().expect("the operator starts");
        env.domain_gone("partners").await;
        eventually("nothing is left", async || {
            let left = (
                env.gateway_domains().await,
                env.server_certificates().await,
                env.object_versions().await,
            );
            let secrets = env
                .secrets()
                .list(&Default::default())
                .await
                .map_err(|e| e.to_string())?
                .items
                .len();
            if left == (vec![], vec![], vec![]) && secrets == 0 {
                Ok(())
            } else {
                Err(format!("{left:?} {secrets}"))
            }
        })
        .await;
    });
}

#[test]
fn a_deleted_namespace_is_cleaned_up_in_aws() {
    run(async {
        let env = TestEnv::start_among("nsgone", &["tenant"], &[]).await;
        // Rights that a Role in the namespace gives would be deleted before the objects are.
        grant(&world().kubernetes, &env.namespace, &[])
            .await
            .expect("rights in all namespaces");
        let tenant = env.beside("tenant");
        let domains = Api::<MtlsDomain>::namespaced(env.client.clone(), &tenant);
        let object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": DOMAIN, "metadata": {"name": "partners"},
            "spec": domain_spec(&env, generated()),
        });
        let object = serde_json::from_value(object).expect("an MtlsDomain");
        domains
            .create(&Default::default(), &object)
            .await
            .expect("the API server takes it");
        let there = Team::admin(&env, &tenant);
        there.request("client1", certificate_spec("client1")).await;
        there.ready("client1").await;
        eventually("Ready", async || {
            let object = serde_json::to_value(domains.get("partners").await.map_err(|e| e.to_string())?)
                .expect("JSON");
            if says(&object, "Ready") == "True" {
                Ok(())
            } else {
                Err(object["status"].to_string())
            }
        })
        .await;
        let namespaces = Api::<Namespace>::all(env.client.clone());
        namespaces
            .delete(&tenant, &Default::default())
            .await
            .expect("deleted");
        eventually("the namespace is gone", async || {
            match namespaces.get_opt(&tenant).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(left) => Err(serde_json::to_string(&left.status).expect("JSON")),
            }
        })
        .await;
        let left = (
            env.gateway_domains().await,
            env.server_certificates().await,
            env.object_versions().await,
        );
        assert_eq!(left, (vec![], vec![], vec![]));
    });
}

#[test]
fn a_restore_without_secrets_names_the_lost_key_and_keeps_serving() {
    run(async {
        let mut env = TestEnv::start("nosecrets").await;
        ready_domain(&env).await;
        create(&env, CERTIFICATE, "client1", certificate_spec("client1")).await;
        let (_, secret) = issued(&env, "client1", 1).await;
        let living = Caller::of(&secret);
        let before = truststore(&env).await;
        env.operator.kill();
        env.end_lease().await;
        let mark = env.mark().await;
        let mut saved = vec![];
        for (kind, name) in [(DOMAIN, "partners"), (CERTIFICATE, "client1")] {
            saved.push((kind, taken_out(&env, kind, name).await));
        }
        let mut backup: Vec<Secret> = vec![];
        for secret in ["partners.ca-ca", "client1"] {
            let mut found = env.secrets().get(secret).await.expect("there");
            let metadata = std::mem::take(&mut found.metadata);
            found.metadata = ObjectMeta {
                name: metadata.name,
                labels: metadata.labels,
                ..Default::default()
            };
            backup.push(found);
            env.secrets()
                .delete(secret, &Default::default())
                .await
                .expect("deleted");
        }
        for (kind, object) in saved {
            api(&env, kind)
                .create(&Default::default(), &object)
                .await
                .expect("restored");
        }
        env.operator.restart().expect("the operator starts");
        until(
            &env,
            DOMAIN,
            "partners",
            "ResolvedRefs",
            "False",
            "AuthorityKeyLost",
        )
        .await;
        until(
            &env,
            CERTIFICATE,
            "client1",
            "Ready",
            "Unknown",
            "WaitingForAuthority",
        )
        .await;
        env.reconciles(2).await;
        assert!(
            env.secrets()
                .get_opt("partners.ca-ca")
                .await
                .expect("an answer")
                .is_none(),
            "none is created again"
        );
        assert_eq!(truststore(&env).await, before);
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(living.calls(&env).await, "200", "callers go on being served");
        // The rest of the backup is restored later.
        for secret in &backup {
            env.secrets()
                .create(&Default::default(), secret)
                .await
                .expect("restored");
        }
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        until(&env, CERTIFICATE, "client1", "Ready", "True", "").await;
        assert_eq!(truststore(&env).await, before);
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}
