//! No tenant makes the operator call AWS outside of the policy, or learns what exists there.
use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Namespace, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use sandbox::{
    control::Calls,
    operator::grant_namespaces,
    prepare::{hosted_zone, http_api},
};
use serde_json::{Value, json};

use crate::support::{
    kubernetes::{
        policy_files::Bounded,
        tenants::{Tenant, is_forbidden},
    },
    world::{eventually, run, world},
};

#[test]
fn no_aws_call_leaves_the_policy() {
    run(async {
        let bounded = Bounded::start("outside", &[]).await;
        let env = &bounded.env;
        let tenant = Tenant::of(env, &env.namespace).await;
        let zone = &env.prepared.zone;
        let theirs = world().aws.new_account();
        let there = format!("z{}.example.org", env.account.id);
        let zone_of_others = hosted_zone(&env.account, &there).await.unwrap();
        bounded.rules(&json!([bounded.rule(json!({
            "roles": [{"arn": format!("arn:aws:iam::{}:role/own", env.account.id)}],
            "kmsKeys": [format!("arn:aws:kms:eu-west-1:{}:key/own", env.account.id)],
            "certificates": [format!("arn:aws:acm:eu-west-1:{}:certificate/own-*", env.account.id)],
        }))]));
        let (account, own) = (&theirs.id, &env.account.id);
        let role = |account: &str| json!({"roleArn": format!("arn:aws:iam::{account}:role/admin")});
        let certificate = format!("arn:aws:acm:eu-west-1:{own}:certificate/theirs");
        let rows = [
            (json!({"domainName": format!("mtls.{there}")}), "spec.domainName"),
            (json!({"domainName": format!("mtls.my{zone}")}), "spec.domainName"),
            (
                json!({
                    "serverCertificate": {"request": {"subjectAlternativeNames": [format!("www.{there}")]}},
                }),
                "subjectAlternativeNames",
            ),
            (
                json!({"dns": {"route53": {"hostedZoneId": zone_of_others}}}),
                "spec.dns.route53.hostedZoneId",
            ),
            (
                json!({"dns": {"route53": {"hostedZoneId": "ZNOTTHERE"}}}),
                "spec.dns.route53.hostedZoneId",
            ),
            (
                json!({"dns": {"route53": {"assumeRole": role(account)}}}),
                "spec.dns.route53.assumeRole",
            ),
            (
                json!({"aws": {"assumeRole": role(account)}}),
                "spec.aws.assumeRole",
            ),
            (json!({"aws": {"assumeRole": role(own)}}), "spec.aws.assumeRole"),
            (json!({"aws": {"region": "us-east-1"}}), "Region us-east-1"),
            (
                json!({"aws": {"accountId": account}}),
                &format!("account {account}"),
            ),
            (
                json!({"truststore": {"bucket": "their-truststores"}}),
                "spec.truststore: s3://their-truststores/",
            ),
            (
                json!({"truststore": {"key": "e2e/other/d.pem"}}),
                "spec.truststore: s3://",
            ),
            (
                json!({"truststore": {"key": format!("e2e/{}/../other/d.pem", env.namespace)}}),
                "spec.truststore: s3://",
            ),
            (
                json!({"truststore": {"kmsKeyArn": format!("arn:aws:kms:eu-west-1:{own}:key/theirs")}}),
                "spec.truststore.kmsKeyArn",
            ),
            (
                json!({"serverCertificate": {"existing": {"arn": certificate}}}),
                "existing.arn",
            ),
            (
                json!({
                    "serverCertificate": {
                        "existing": {
                            "arn": format!("arn:aws:acm:eu-west-1:{own}:certificate/own-1"),
                            "ownershipVerificationArn": certificate,
                        },
                    },
                }),
                "existing.ownershipVerificationArn",
            ),
            (json!({"adoptionPolicy": "Unowned"}), "spec.adoptionPolicy"),
        ];
        let mark = env.mark().await;
        let mut told = vec![];
        for (n, (more, _)) in rows.iter().enumerate() {
            let mut spec = json!({"domainName": format!("attack-{n}.{zone}"), "deletionPolicy": "Delete"});
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            tenant.create(json!({"name": format!("attack-{n}")}), spec).await;
        }
        for (n, (_, field)) in rows.iter().enumerate() {
            let name = format!("attack-{n}");
            let message = bounded.not_permitted(&name, field).await;
            // The message has the tenant's own words, and none of the rule's.
            assert!(
                !message.contains("own-*") && !message.contains("role/own"),
                "{message}"
            );
            told.push(message);
        }
        let not_owned = told[3].replace(&zone_of_others, "ZNOTTHERE");
        assert_eq!(
            not_owned, told[4],
            "the message does not tell whether a zone exists"
        );
        for n in 0..rows.len() {
            tenant
                .domains()
                .delete(&format!("attack-{n}"), &DeleteParams::default())
                .await
                .unwrap();
            tenant.gone(&format!("attack-{n}")).await;
        }
        assert_eq!(bounded.operations(mark).await, BTreeSet::new());
        for account in [account.as_str(), "us-east-1"] {
            let which = Calls {
                account,
                since: mark,
                ..Calls::default()
            };
            assert_eq!(env.control().calls(&which).await.unwrap().calls.len(), 0);
        }
    });
}

#[test]
fn a_domain_that_is_not_served_keeps_its_name_from_no_other() {
    run(async {
        let cases = ["bucket", "zone", "api", "account", "suspended"];
        let mut bounded = Bounded::start("unclaimed", &cases).await;
        let env = &bounded.env;
        let (zone, api_id) = (&env.prepared.zone, &env.prepared.api_id);
        // Each older object is refused for something that its spec alone does not show: the default key in the
        // bucket, the zone that the operator finds, the tags of the API, the account of the credentials.
        let rule = |case: &str, bounds: Value| {
            let mut rule = json!({
                "name": case, "namespaces": {"names": [env.beside(case)]}, "domainSuffixes": [zone],
            });
            rule.as_object_mut()
                .unwrap()
                .extend(bounds.as_object().unwrap().clone());
            rule
        };
        let buckets = json!({"buckets": [{"name": env.prepared.bucket, "prefix": "elsewhere/"}]});
        bounded.rules(&json!([
            {"name": "own", "namespaces": {"names": [env.namespace]}, "domainSuffixes": [zone]},
            rule("bucket", buckets),
            rule("zone", json!({"hostedZoneIds": ["ZELSEWHERE"]})),
            rule("api", json!({"apis": {"tag": {"key": "team", "value": "{namespace}"}}})),
            rule("account", json!({})),
            rule("suspended", json!({})),
        ]));
        let mut last = None;
        for case in cases {
            let tenant = Tenant::of(env, &env.beside(case)).await;
            let mut spec = json!({
                "domainName": format!("{case}.{zone}"),
                "trust": {"authorities": [{"name": "partners", "generate": {}}]},
                "mappings": [{"path": "", "api": {"id": api_id, "stage": "$default"}}],
            });
            match case {
                "account" => spec["aws"] = json!({"accountId": "999999999999"}),
                "suspended" => spec["suspend"] = json!(true),
                _ => {}
            }
            last = Some(tenant.create(json!({"name": "older"}), spec).await);
            match case {
                "account" => drop(tenant.refused("older", "WrongAccount").await),
                "suspended" => {}
                _ => drop(tenant.refused("older", "NotPermitted").await),
            }
        }
        // The API server keeps creation times in whole seconds.
        let born = last.unwrap().metadata.creation_timestamp.unwrap().0;
        eventually("the next second", async || {
            match Timestamp::now().as_second() > born.as_second() {
                true => Ok(()),
                false => Err(born.to_string()),
            }
        })
        .await;
        let create = async |case: &str| {
            let spec = json!({"domainName": format!("{case}.{zone}"), "mappings": []});
            env.create_domain(case, spec).await
        };
        for case in cases {
            create(case).await;
        }
        for case in cases {
            env.ready(case).await;
        }
        // After a restart the operator knows nothing of the older objects until it has reconciled them. Each
        // condition that becomes False has an Event.
        bounded.env.operator.restart().unwrap();
        bounded.env.end_lease().await;
        let env = &bounded.env;
        env.reconciles(3).await;
        for case in cases {
            env.ready(case).await;
        }
        let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
        let told = events.list(&ListParams::default()).await.unwrap().items;
        let claimed = told.iter().filter_map(|e| e.reason.as_deref());
        let claimed: Vec<_> = claimed.filter(|reason| *reason == "DomainNameClaimed").collect();
        assert_eq!(claimed, [""; 0]);
    });
}

#[test]
fn an_api_of_others_is_neither_revealed_nor_touched() {
    run(async {
        let bounded = Bounded::start("apioracle", &[]).await;
        let env = &bounded.env;
        let tenant = Tenant::of(env, &env.namespace).await;
        let theirs = http_api(&env.account, "theirs", None).await.unwrap();
        bounded.rules(&json!([bounded.rule(json!({}))]));
        let mark = env.mark().await;
        let mut told = BTreeSet::new();
        for (name, id) in [("there", theirs.as_str()), ("absent", "zzzzzzzzzz")] {
            let mappings = json!([{"path": "", "api": {"id": id, "stage": "$default"}}]);
            let spec = json!({
                "domainName": format!("mtls.{}", env.prepared.zone), "mappings": mappings,
                "restDeployment": "Allow",
            });
            tenant.create(json!({"name": name}), spec).await;
            let message = bounded.not_permitted(name, &format!("the API {id}")).await;
            told.insert(message.replace(id, "ID"));
            let status = serde_json::to_value(tenant.domains().get(name).await.unwrap().status).unwrap();
            let conditions = status["conditions"].as_array().unwrap();
            assert_eq!(
                conditions.len(),
                2,
                "Accepted and Ready and nothing else: {conditions:?}"
            );
            tenant
                .domains()
                .delete(name, &DeleteParams::default())
                .await
                .unwrap();
            tenant.gone(name).await;
        }
        assert_eq!(told.len(), 1, "{told:?}");
        let which = Calls {
            account: &env.account.id,
            since: mark,
            ..Calls::default()
        };
        let calls = env.control().calls(&which).await.unwrap().calls;
        let touched: BTreeSet<_> = calls
            .iter()
            .filter(|c| c.resource.contains(&theirs))
            .map(|c| c.operation.as_str())
            .collect();
        assert_eq!(touched, ["GetApi"].into(), "the operator read its tags");
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}

#[test]
fn a_label_decides_what_a_namespace_may_do_and_a_tenant_cannot_write_it() {
    run(async {
        let bounded = Bounded::start_waking("labelled").await;
        let env = &bounded.env;
        bounded.tag_api().await;
        let tenant = Tenant::of(env, &env.namespace).await;
        let team = &env.namespace;
        bounded.rules(&json!([
            bounded.rule(json!({"namespaces": {"matchLabels": {"team": team}}}))
        ]));
        let mark = env.mark().await;
        let mappings = json!([{"path": "", "api": {"id": env.prepared.api_id, "stage": "$default"}}]);
        let trust = json!({"authorities": [{"name": "partners", "generate": {}}]});
        tenant
            .create(
                json!({"name": "d"}),
                json!({"domainName": env.host(), "mappings": mappings, "trust": trust}),
            )
            .await;
        // As long as the operator cannot read labels, it decides nothing, either way.
        let unclear = env.condition("d", "Accepted", |c| c.status == "Unknown").await;
        assert!(
            unclear.message.contains("labels of the namespace"),
            "{}",
            unclear.message
        );
        grant_namespaces(&world().kubernetes, &env.namespace)
            .await
            .unwrap();
        tenant.refused("d", "NotPermitted").await;

        let (namespaces, admin) = (
            Api::<Namespace>::all(tenant.client.clone()),
            Api::<Namespace>::all(env.client.clone()),
        );
        let params = PatchParams::default();
        let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {"team": value}}}));
        assert!(is_forbidden(
            namespaces
                .patch(&env.namespace, &params, &label(json!(team)))
                .await
        ));
        let mut own = admin.get(&env.namespace).await.unwrap();
        own.metadata
            .labels
            .get_or_insert_default()
            .insert("team".into(), team.clone());
        assert!(is_forbidden(
            namespaces
                .replace(&env.namespace, &PostParams::default(), &own)
                .await
        ));
        let another =
            serde_json::from_value(json!({"metadata": {"name": "another", "labels": {"team": team}}}))
                .unwrap();
        assert!(is_forbidden(
            namespaces.create(&PostParams::default(), &another).await
        ));
        // A label of the object is not a label of its namespace.
        tenant
            .patch(
                "d",
                json!({"metadata": {"labels": {"team": team}}, "spec": {"ipAddressType": "DualStack"}}),
            )
            .await;
        env.condition("d", "Accepted", |c| c.reason == "NotPermitted")
            .await;
        assert_eq!(bounded.operations(mark).await, BTreeSet::new());

        admin
            .patch(&env.namespace, &params, &label(json!(team)))
            .await
            .unwrap();
        env.ready("d").await;
        // A namespace loses its label: the operator applies no further change, and deletes nothing.
        admin
            .patch(&env.namespace, &params, &label(Value::Null))
            .await
            .unwrap();
        tenant.refused("d", "NotPermitted").await;
        let mark = env.mark().await;
        tenant
            .patch("d", json!({"spec": {"ipAddressType": "IPv4"}}))
            .await;
        env.condition("d", "Accepted", |c| c.reason == "NotPermitted")
            .await;
        assert_eq!(
            (bounded.operations(mark).await, env.gateway_domains().await),
            (BTreeSet::new(), vec![env.host()])
        );
        admin
            .patch(&env.namespace, &params, &label(json!(team)))
            .await
            .unwrap();
        env.ready("d").await;
    });
}
