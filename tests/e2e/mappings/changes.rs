//! Mappings to HTTP and REST APIs follow the spec in place; unlisted ones go unless the spec keeps them.
use aws_sdk_apigatewayv2::types::ProtocolType;
use kube::api::DeleteParams;
use mtls_operator::aws::tags::ADOPTED_TAG;
use sandbox::prepare::{http_api, rest_api};
use serde_json::{Value, json};

use crate::support::{
    aws::mapped_apis::{closed, mapping, v1},
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn mappings_are_added_changed_and_removed_in_place() {
    run(async {
        let env = TestEnv::start("mappings").await;
        let orders = http_api(&env.account, "orders", None).await.unwrap();
        env.gateway()
            .create_stage()
            .api_id(&orders)
            .stage_name("v2")
            .auto_deploy(true)
            .send()
            .await
            .unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let mark = env.mark().await;
        let all = &env.prepared.api_id;
        let change = async |mappings: &[(&str, &str, &str)]| {
            let listed: Vec<_> = mappings
                .iter()
                .map(|(path, api, stage)| json!({"path": path, "api": {"id": api, "stage": stage}}))
                .collect();
            env.change("d", json!({"mappings": listed})).await;
            env.ready("d").await;
            let wanted: Vec<_> = mappings
                .iter()
                .map(|(p, a, s)| ((*p).to_owned(), (*a).to_owned(), (*s).to_owned()))
                .collect();
            assert_eq!(env.mapped().await, wanted);
        };

        change(&[("", all, "$default"), ("orders", &orders, "$default")]).await;
        let id = env.mapping_id("orders").await;
        change(&[("", all, "$default"), ("orders", &orders, "v2")]).await;
        assert_eq!(env.mapping_id("orders").await, id, "the same mapping");
        change(&[("", all, "$default"), ("orders/v2", &orders, "v2")]).await;
        change(&[("", all, "$default")]).await;

        let mut writes = env.writes(mark).await;
        // The operator closes the new API's own endpoint with its first mapping. A new path may come before
        // or after the old path goes.
        writes[3..5].sort();
        let expected = [
            "CreateApiMapping",
            "UpdateApi",
            "UpdateApiMapping",
            "CreateApiMapping",
            "DeleteApiMapping",
            "DeleteApiMapping",
        ];
        assert_eq!(writes, expected);
    });
}

#[test]
fn an_unlisted_mapping_is_removed_unless_the_spec_keeps_it() {
    run(async {
        let env = TestEnv::start("unlisted").await;
        let intrude = async || {
            let (api, host) = (env.prepared.api_id.clone(), env.host());
            let request = env
                .gateway()
                .create_api_mapping()
                .domain_name(host)
                .api_id(api)
                .stage("$default");
            request.api_mapping_key("intruder").send().await.unwrap();
        };
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        intrude().await;
        eventually("the intruder is gone", async || match env.mapped().await {
            mapped if mapped.len() == 1 => Ok(()),
            mapped => Err(format!("{mapped:?}")),
        })
        .await;

        env.change("d", json!({"unlistedMappings": "Keep"})).await;
        env.ready("d").await;
        intrude().await;
        env.condition("d", "MappingsProgrammed", |c| {
            c.status == "True" && c.message.contains("\"intruder\"")
        })
        .await;
        env.reconciles(2).await;
        assert_eq!(env.mapped().await.len(), 2);

        // The operator does not delete a domain with a mapping of another owner.
        env.domains().delete("d", &DeleteParams::default()).await.unwrap();
        env.condition("d", "DomainProgrammed", |c| {
            c.status == "False" && c.reason == "ForeignOwner"
        })
        .await;
        let ready = env
            .condition("d", "Ready", |c| c.status == "False" && c.reason == "Deleting")
            .await;
        assert!(
            ready.message.contains("still has API mappings") && ready.message.contains("intruder"),
            "{}",
            ready.message
        );
        assert_eq!(env.mapped().await.len(), 2);
        let id = env.mapping_id("intruder").await;
        env.gateway()
            .delete_api_mapping()
            .domain_name(env.host())
            .api_mapping_id(id)
            .send()
            .await
            .unwrap();
        env.domain_gone("d").await;
        assert!(env.gateway_domains().await.is_empty());
    });
}

#[test]
fn multi_level_mappings_change_in_place_and_wait_for_missing_apis() {
    run(async {
        let env = TestEnv::start("mapped").await;
        let http = env.prepared.api_id.clone();
        let rest = rest_api(&env.account, "rest", None).await.unwrap();
        v1(&env)
            .create_deployment()
            .rest_api_id(&rest)
            .stage_name("next")
            .send()
            .await
            .unwrap();
        let later = format!("later{}", env.account.id);
        let mappings = |orders: &str, items: &Value| {
            json!({"mappings": [
                mapping("", &http, "$default"), mapping("orders/v2", &rest, orders), items,
                mapping("later", &later, "$default"),
            ]})
        };
        let items = mapping("orders/v2/items", &http, "$default");
        env.create_domain("d", mappings("prod", &items)).await;

        // The operator serves everything else, DNS and the closed endpoints included.
        let missing = env.condition("d", "ResolvedRefs", |c| c.status == "False").await;
        assert_eq!(missing.reason, "ApiNotFound");
        assert!(
            missing.message.contains(&later) && missing.message.contains("\"later\""),
            "{}",
            missing.message
        );
        env.condition("d", "DNSProgrammed", |c| c.status == "True").await;
        let unmapped = env
            .condition("d", "MappingsProgrammed", |c| c.status == "False")
            .await;
        assert!(
            unmapped.message.contains(&later) && !unmapped.message.contains(&rest),
            "{}",
            unmapped.message
        );
        let line = |path: &str, api: &str, stage: &str| (path.to_owned(), api.to_owned(), stage.to_owned());
        let served = [
            line("", &http, "$default"),
            line("orders/v2", &rest, "prod"),
            line("orders/v2/items", &http, "$default"),
        ];
        assert_eq!(env.mapped().await, served);
        closed(&env, &rest).await;
        assert!(env.endpoint_closed().await);
        env.create_certificate("client1", "d").await;
        env.certificate_ready("client1").await;
        let client1 = env.identity("client1").await;
        for path in ["/hello", "/orders/v2/hello", "/orders/v2/items/1"] {
            let answer = env.call(&env.host(), path, Some(&client1)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        }

        // The API appears, first without its stage.
        let made = env
            .gateway()
            .create_api()
            .name("later")
            .protocol_type(ProtocolType::Http);
        made.tags("awsdouble:id", &later).send().await.unwrap();
        let missing = env
            .condition("d", "ResolvedRefs", |c| c.reason == "StageNotFound")
            .await;
        assert!(
            missing.message.contains(&later) && missing.message.contains("$default"),
            "{}",
            missing.message
        );
        env.gateway()
            .create_stage()
            .api_id(&later)
            .stage_name("$default")
            .auto_deploy(true)
            .send()
            .await
            .unwrap();
        env.ready("d").await;
        assert!(env.mapped().await.contains(&line("later", &later, "$default")));

        // The first mapping gets another stage, the second another API of the other kind.
        let (orders_id, items_id) = (
            env.mapping_id("orders/v2").await,
            env.mapping_id("orders/v2/items").await,
        );
        let mark = env.mark().await;
        env.change("d", mappings("next", &mapping("orders/v2/items", &rest, "prod")))
            .await;
        env.ready("d").await;
        let changed = env.mapped().await;
        for wanted in [
            line("orders/v2", &rest, "next"),
            line("orders/v2/items", &rest, "prod"),
        ] {
            assert!(changed.contains(&wanted), "{changed:?}");
        }
        assert_eq!(
            (
                env.mapping_id("orders/v2").await,
                env.mapping_id("orders/v2/items").await
            ),
            (orders_id, items_id)
        );
        assert_eq!(env.writes(mark).await, ["UpdateApiMapping", "UpdateApiMapping"]);
    });
}

#[test]
fn unlisted_mappings_leave_a_created_domain_and_stay_on_an_adopted_one() {
    run(async {
        let env = TestEnv::start("unlisted").await;
        let other = http_api(&env.account, "other", None).await.unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let add = async |path: &str| {
            let request = env
                .gateway()
                .create_api_mapping()
                .domain_name(env.host())
                .api_mapping_key(path);
            request.api_id(&other).stage("$default").send().await.unwrap();
        };
        add("theirs").await;
        eventually("the unlisted mapping is gone", async || {
            let mapped = env.mapped().await;
            if mapped.len() == 1 {
                Ok(())
            } else {
                Err(format!("{mapped:?}"))
            }
        })
        .await;

        let arn = format!(
            "arn:aws:apigateway:{}::/domainnames/{}",
            env.account.region,
            env.host()
        );
        env.gateway()
            .tag_resource()
            .resource_arn(arn)
            .tags(ADOPTED_TAG, "true")
            .send()
            .await
            .unwrap();
        env.reconciles(1).await;
        add("theirs").await;
        let named = env
            .condition("d", "MappingsProgrammed", |c| c.message.contains("\"theirs\""))
            .await;
        assert_eq!(named.status, "True");
        env.ready("d").await;
        env.reconciles(2).await;
        assert_eq!(env.mapped().await.len(), 2);
        env.change("d", json!({"unlistedMappings": "Delete"})).await;
        eventually("the mapping is gone, as the spec says", async || {
            let mapped = env.mapped().await;
            if mapped.len() == 1 {
                Ok(())
            } else {
                Err(format!("{mapped:?}"))
            }
        })
        .await;
    });
}
