//! No tenant takes over, deletes or changes a domain or an API of another, and forged fields decide nothing.
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mtls_operator::{
    api::MtlsDomain, aws::tags::OWNER_TAG, dataplane::api_gateway::deployments::PENDING_IDENTITY_TAG,
};
use sandbox::{control::Calls, prepare::http_api};
use serde_json::{Value, json};

use crate::support::{
    kubernetes::{
        policy_files::Bounded,
        tenants::{Tenant, is_forbidden},
    },
    world::{eventually, run, world},
};

#[test]
fn a_deleted_domain_touches_no_api_that_its_last_edit_named() {
    run(async {
        let bounded = Bounded::start("lastedit", &[]).await;
        let env = &bounded.env;
        bounded.tag_api().await;
        let tenant = Tenant::of(env, &env.namespace).await;
        bounded.rules(&json!([bounded.rule(json!({}))]));
        // As the operator leaves the APIs in the middle of its work for others.
        let gateway = env.gateway();
        let mut theirs = vec![];
        for (name, key, value) in [
            ("stale", PENDING_IDENTITY_TAG, "d1"),
            ("served", "mtls-operator.io/header.x-sub", "c/other/d"),
        ] {
            let id = http_api(&env.account, name, None).await.unwrap();
            let arn = format!("arn:aws:apigateway:{}::/apis/{id}", env.account.region);
            gateway
                .tag_resource()
                .resource_arn(arn)
                .tags(key, value)
                .send()
                .await
                .unwrap();
            theirs.push(id);
        }
        let mappings = json!([{"path": "", "api": {"id": env.prepared.api_id, "stage": "$default"}}]);
        let spec = json!({
            "domainName": env.host(), "mappings": mappings, "deletionPolicy": "Delete",
            "trust": {"authorities": [{"name": "partners", "generate": {}}]},
        });
        tenant.create(json!({"name": "d"}), spec).await;
        env.ready("d").await;
        let mark = env.mark().await;
        let paths = ["", "b"].iter().zip(&theirs);
        let mapping = |(path, id)| json!({"path": path, "api": {"id": id, "stage": "$default"}});
        let mappings: Vec<_> = paths.map(mapping).collect();
        tenant
            .patch(
                "d",
                json!({"spec": {"mappings": mappings, "restDeployment": "Allow"}}),
            )
            .await;
        tenant
            .domains()
            .delete("d", &DeleteParams::default())
            .await
            .unwrap();
        tenant.gone("d").await;
        assert_eq!(env.gateway_domains().await, [""; 0], "its own is deleted");
        let which = Calls {
            account: &env.account.id,
            since: mark,
            ..Calls::default()
        };
        for call in env.control().calls(&which).await.unwrap().calls {
            let not_owned = theirs.iter().any(|id| call.resource.contains(id.as_str()));
            assert!(!not_owned || call.operation == "GetApi", "{call:?}");
        }
        for id in theirs {
            let tags = gateway.get_api().api_id(id).send().await.unwrap().tags.unwrap();
            assert!(
                tags.keys().any(|key| key.starts_with("mtls-operator.io/")),
                "{tags:?}"
            );
        }
    });
}

#[test]
fn a_domain_of_others_is_neither_taken_over_nor_deleted() {
    run(async {
        let bounded = Bounded::start("victim", &["attacker"]).await;
        let env = &bounded.env;
        bounded.tag_api().await;
        let tenant = Tenant::of(env, &env.beside("attacker")).await;
        let own = bounded.rule(json!({}));
        let attackers = |more: Value| {
            let mut rule = json!({
                "name": "attacker", "namespaces": {"names": [tenant.namespace]}, "adoption": "Unowned",
                "domainSuffixes": [format!("attacker.{}", env.prepared.zone)],
            });
            rule.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            rule
        };
        bounded.rules(&json!([own, attackers(json!({}))]));
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let home = format!("{}/{}", env.account.id, env.account.region);
        let forged = json!({
            "name": "d", "finalizers": ["mtls-operator.io/cleanup"],
            "annotations": {"mtls-operator.io/home": home},
        });
        let truststore = json!({"bucket": env.prepared.bucket, "key": format!("{}.pem", env.owner("d"))});
        let spec = json!({
            "domainName": env.host(), "truststore": truststore, "adoptionPolicy": "Unowned",
            "deletionPolicy": "Delete",
            "unlistedMappings": "Delete", "trust": {"authorities": [{"name": "mine", "generate": {}}]},
        });
        let shown = async || {
            let g = env.gateway_domain().await;
            format!(
                "{:?} {:?} {:?}",
                g.domain_name_configurations, g.mutual_tls_authentication, g.tags
            )
        };
        let before = shown().await;
        let statuses = async || {
            env.ready("d").await;
            assert_eq!(shown().await, before);
            assert_eq!(
                env.gateway_domain().await.tags.unwrap().get(OWNER_TAG),
                Some(&env.owner("d"))
            );
            assert_eq!(
                (env.mapped().await.len(), env.object_versions().await.len()),
                (1, 1)
            );
        };

        // As if the domain had been served and had something to clean up.
        let mark = env.mark().await;
        tenant.create(forged.clone(), spec.clone()).await;
        let told = tenant.refused("d", "NotPermitted").await;
        assert!(
            told.starts_with(&format!("spec.domainName: {}", env.host())),
            "{told}"
        );
        tenant
            .domains()
            .delete("d", &DeleteParams::default())
            .await
            .unwrap();
        eventually("the deletion waits", async || {
            let told = tenant.refused("d", "NotPermitted").await;
            if told.contains("nothing is deleted in AWS") {
                Ok(())
            } else {
                Err(told)
            }
        })
        .await;
        tenant
            .patch(
                "d",
                json!({"metadata": {"annotations": {"mtls-operator.io/abandon": "d"}}}),
            )
            .await;
        tenant.gone("d").await;
        statuses().await;

        // The same where the policy allows both the name: the older object has it, and ownership tags in AWS
        // say whose the resources are.
        bounded.rules(&json!([
            own, {"name": "attacker", "namespaces": {"names": [tenant.namespace]}, "adoption": "Unowned"},
        ]));
        eventually("the policy allows the tenant", async || {
            let name = json!({"generateName": "probe-"});
            let probe = tenant
                .create(
                    name,
                    json!({
                        "domainName": format!("probe.{}", env.prepared.zone), "suspend": false,
                        "managementPolicy": "Observe",
                    }),
                )
                .await;
            let accepted = eventually("a reconcile", async || {
                let status = tenant
                    .domains()
                    .get(&probe.name_any())
                    .await
                    .unwrap()
                    .status
                    .unwrap_or_default();
                let accepted = status.conditions.into_iter().find(|c| c.type_ == "Accepted");
                accepted.map(|c| c.status).ok_or("none".into())
            })
            .await;
            tenant
                .domains()
                .delete(&probe.name_any(), &DeleteParams::default())
                .await
                .unwrap();
            if accepted == "True" {
                Ok(())
            } else {
                Err("not yet".into())
            }
        })
        .await;
        tenant.create(forged, spec).await;
        let told = tenant.refused("d", "DomainNameClaimed").await;
        assert!(!told.contains(&env.namespace), "{told}");
        tenant
            .domains()
            .delete("d", &DeleteParams::default())
            .await
            .unwrap();
        tenant.gone("d").await;
        statuses().await;
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}

#[test]
fn a_tenants_writes_into_the_operators_own_fields_decide_nothing() {
    run(async {
        let bounded = Bounded::start("forged", &["victim"]).await;
        let env = &bounded.env;
        bounded.tag_api().await;
        let tenant = Tenant::of(env, &env.namespace).await;
        let victims: Api<MtlsDomain> = Api::namespaced(tenant.client.clone(), &env.beside("victim"));
        let abandon = Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/abandon": "d"}}}));
        assert!(
            is_forbidden(victims.patch("d", &PatchParams::default(), &abandon).await),
            "not in another namespace"
        );
        assert!(is_forbidden(victims.get("d").await));
        let namespaces = Api::<Namespace>::all(tenant.client.clone());
        let label = Patch::Merge(json!({"metadata": {"labels": {"team": "victim"}}}));
        assert!(is_forbidden(
            namespaces
                .patch(&env.namespace, &PatchParams::default(), &label)
                .await
        ));

        // The status is the operator's: the API server ignores it in the object, and refuses it alone.
        let claims = json!({
            "targetDomainName": "d-theirs.execute-api.eu-west-1.amazonaws.com",
            "certificate": {
                "arn": "arn:aws:acm:eu-west-1:999999999999:certificate/theirs", "status": "ISSUED",
            },
            "truststore": {"uri": "s3://theirs/theirs.pem"},
            "conditions": [
                {
                    "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
                },
                {
                    "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
                },
            ],
        });
        let not_owned = json!({"domainName": "mtls.example.org", "deletionPolicy": "Delete"});
        let object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": {"name": "forged"},
            "spec": not_owned, "status": claims,
        });
        let mark = env.mark().await;
        let made = tenant
            .domains()
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
        assert_eq!(made.status.unwrap_or_default().certificate, None);
        // (The role of this test has * on mtlsdomains, which is not their status.)
        let patch = Patch::Merge(json!({"status": claims}));
        assert!(is_forbidden(
            tenant
                .domains()
                .patch_status("forged", &PatchParams::default(), &patch)
                .await
        ));
        tenant.refused("forged", "NotPermitted").await;
        // A user who may write the status all the same decides nothing either.
        env.domains()
            .patch_status("forged", &PatchParams::default(), &patch)
            .await
            .unwrap();
        tenant
            .patch(
                "forged",
                json!({
                    "metadata": {
                        "finalizers": ["mtls-operator.io/cleanup"],
                        "annotations": {"mtls-operator.io/home": "999999999999/eu-west-1"},
                    },
                }),
            )
            .await;
        tenant.refused("forged", "NotPermitted").await;
        tenant
            .domains()
            .delete("forged", &DeleteParams::default())
            .await
            .unwrap();
        eventually("the deletion waits", async || {
            let told = tenant.refused("forged", "NotPermitted").await;
            if told.contains("nothing is deleted in AWS") {
                Ok(())
            } else {
                Err(told)
            }
        })
        .await;
        assert_eq!(bounded.operations(mark).await, BTreeSet::new());
        tenant
            .patch("forged", json!({"metadata": {"finalizers": []}}))
            .await;
        tenant.gone("forged").await;

        // A placement of the tenant's own making, before the first reconcile: the operator makes, reads and
        // deletes nothing there.
        bounded.rules(&json!([bounded.rule(json!({}))]));
        let theirs = world().aws.new_account();
        let mark = env.mark().await;
        let home = format!("{}/{}", theirs.id, theirs.region);
        let spec =
            json!({"domainName": env.host(), "trust": {"authorities": [{"name": "a", "generate": {}}]}});
        let metadata = json!({
            "name": "home", "finalizers": ["mtls-operator.io/cleanup"],
            "annotations": {"mtls-operator.io/home": home},
        });
        tenant.create(metadata, spec).await;
        tenant.refused("home", "HomeChanged").await;
        tenant
            .domains()
            .delete("home", &DeleteParams::default())
            .await
            .unwrap();
        tenant.refused("home", "HomeChanged").await;
        tenant
            .patch(
                "home",
                json!({"metadata": {"annotations": {"mtls-operator.io/abandon": "home"}}}),
            )
            .await;
        tenant.gone("home").await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        let which = Calls {
            account: &theirs.id,
            since: mark,
            ..Calls::default()
        };
        assert_eq!(env.control().calls(&which).await.unwrap().calls.len(), 0);
    });
}
