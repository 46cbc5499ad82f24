//! Two clusters with one operator each share an AWS account, and neither touches the resources of the other.
use std::collections::BTreeSet;

use kube::Api;
use mtls_operator::api::MtlsDomain;
use sandbox::{
    operator::{Operator, OperatorOptions},
    prepare::http_api,
};
use serde_json::json;

use crate::support::{
    kubernetes::{
        objects::{DOMAIN, certificate_spec, condition, says},
        teams::Team,
    },
    test_env::TestEnv,
    world::{eventually, run, world},
};

/// Resources of the account that carry the ownership tag of this cluster, or stand beside such a tag, as they
/// are now.
async fn of_cluster(env: &TestEnv, cluster: &str, host: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for domain in env
        .gateway()
        .get_domain_names()
        .send()
        .await
        .expect("GetDomainNames")
        .items()
    {
        let is_ours = domain
            .tags()
            .into_iter()
            .flatten()
            .any(|(_, owner)| owner.starts_with(&format!("{cluster}/")));
        if is_ours {
            all.insert(format!("{domain:?}"));
        }
    }
    for arn in env.server_certificates().await {
        let tags = env
            .acm()
            .list_tags_for_certificate()
            .certificate_arn(&arn)
            .send()
            .await
            .expect("tags")
            .tags;
        if tags.iter().flatten().any(|tag| {
            tag.value()
                .is_some_and(|owner| owner.starts_with(&format!("{cluster}/")))
        }) {
            all.insert(format!("{arn} {tags:?}"));
        }
    }
    let objects = env
        .s3()
        .list_object_versions()
        .bucket(&env.prepared.bucket)
        .send()
        .await
        .expect("versions");
    let ours = objects
        .versions()
        .iter()
        .filter(|v| v.key().is_some_and(|key| key.starts_with(&format!("{cluster}/"))));
    all.extend(ours.map(|version| format!("{version:?}")));
    all.extend(
        env.records()
            .await
            .iter()
            .filter(|r| r.name.contains(&format!("{host}.")))
            .map(|r| format!("{r:?}")),
    );
    all
}

#[test]
fn two_operators_in_one_account_leave_each_others_resources_alone() {
    run(async {
        // One operator with the cluster id `e2e`, and the other beside it.
        let mut env = TestEnv::start("cluster-a").await;
        let host = env.host();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.reconciles(1).await;
        let namespace = format!("{}-b", env.namespace);
        let mut variables = world().operator_env(&env.account, &env.prepared.bucket);
        variables.push(("MTLS_OPERATOR_CLUSTER_ID".into(), "other".into()));
        variables.push(("MTLS_OPERATOR_DRIFT_INTERVAL".into(), "1s".into()));
        variables.push(("MTLS_OPERATOR_TRUSTSTORE_PROPAGATION".into(), "1s".into()));
        let options = OperatorOptions {
            binary: env!("CARGO_BIN_EXE_mtls-operator").into(),
            dir: world().dir.join(&namespace),
            namespace: namespace.clone(),
            watch: vec![namespace.clone()],
            env: variables,
            args: vec![],
        };
        let mut other = Operator::start(&world().kubernetes, options)
            .await
            .expect("the operator starts");
        let there = Team::admin(&env, &namespace);
        let domains = Api::<MtlsDomain>::namespaced(env.client.clone(), &namespace);
        let create = async |name: &str, host: &str, api: &str| {
            let object = json!({
                "apiVersion": "mtls-operator.io/v1alpha1", "kind": DOMAIN, "metadata": {"name": name},
                "spec": {
                    "domainName": host,
                    "trust": {"authorities": [{"name": "partners", "generate": {}}]},
                    "mappings": [{"path": "", "api": {"id": api, "stage": "$default"}}],
                },
            });
            let object = serde_json::from_value(object).expect("an MtlsDomain");
            domains
                .create(&Default::default(), &object)
                .await
                .expect("the API server takes it");
        };
        let until = async |name: &str, type_: &str, status: &str, reason: &str| {
            eventually(&format!("{name}: {type_}={status}/{reason}"), async || {
                let found = domains.get(name).await.map_err(|e| e.to_string())?;
                let object = serde_json::to_value(found).expect("JSON");
                let held = says(&object, type_) == status
                    && (reason.is_empty()
                        || condition(&object, type_).is_some_and(|c| c["reason"] == reason));
                if held {
                    Ok(())
                } else {
                    Err(object["status"].to_string())
                }
            })
            .await;
        };

        // The first operator stands still from here on, so that every write is the other's. The other goes
        // through a whole scenario, with an object of the same name, in the same zone and bucket, on the same
        // API, and wants the same host name too.
        env.change("d", json!({"suspend": true})).await;
        env.condition("d", "Accepted", |c| c.reason == "Suspended").await;
        let before = of_cluster(&env, "e2e", &host).await;
        assert!(before.len() > 4, "{before:?}");
        let mark = env.mark().await;
        let own = format!("other.{}", env.prepared.zone);
        let api = http_api(&env.account, "another", None).await.expect("an API");
        create("d", &own, &env.prepared.api_id).await;
        create("same", &host, &api).await;
        there
            .request(
                "client1",
                json!({"domainRef": {"name": "d"}, "subject": certificate_spec("client1")["subject"]}),
            )
            .await;
        there.ready("client1").await;
        until("d", "Ready", "True", "").await;
        until("same", "Ready", "False", "ForeignOwner").await;
        other.restart().expect("the operator starts again");
        let theirs = of_cluster(&env, "other", &own).await;
        assert!(theirs.len() > 4, "{theirs:?}");
        for name in ["same", "d"] {
            domains.delete(name, &Default::default()).await.expect("deleted");
            eventually(&format!("the end of {name}"), async || {
                match domains.get_opt(name).await.map_err(|e| e.to_string())? {
                    None => Ok(()),
                    Some(left) => Err(serde_json::to_string(&left.status).expect("JSON")),
                }
            })
            .await;
        }
        assert_eq!(of_cluster(&env, "e2e", &host).await, before);
        assert_eq!(
            of_cluster(&env, "other", &own).await.len(),
            1,
            "the validation record stays"
        );
        let writes = env.writes(mark).await;
        assert!(
            !writes.iter().any(|write| write.ends_with(&format!(" {host}"))),
            "{writes:?}"
        );

        // The first cluster's own operator serves the domain as before.
        other.kill();
        env.change("d", json!({"suspend": false})).await;
        env.ready("d").await;
        let mark = env.mark().await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        env.operator.kill();
    });
}
