//! Changed and deleted API mappings and DNS records are restored.
use aws_sdk_route53::types::{AliasTarget, ChangeAction, ResourceRecordSet, RrType};
use sandbox::prepare::{http_proxy_api, rest_api};
use serde_json::json;

use super::table::{Figures, Notice::EveryFiveMinutes, Table};
use crate::support::{aws::existing_resources::record, test_env::TestEnv};

/// Back end that no caller reaches.
const NOWHERE: &str = "http://192.0.2.1";

async fn alias_elsewhere(env: &TestEnv, kind: RrType) {
    let mut now = env.record(kind).await.unwrap();
    let target = now.alias_target.clone().unwrap();
    let target = AliasTarget::builder()
        .dns_name("d-elsewhere.execute-api.eu-west-1.amazonaws.com")
        .hosted_zone_id(target.hosted_zone_id)
        .evaluate_target_health(false)
        .build()
        .unwrap();
    now.alias_target = Some(target);
    env.change_record(ChangeAction::Upsert, now).await;
}

async fn marker(env: &TestEnv) -> ResourceRecordSet {
    let all = env.records().await.into_iter();
    all.into_iter()
        .find(|r| r.r#type == RrType::Txt && r.name.starts_with("_mtls-operator."))
        .unwrap()
}

async fn unmap(env: &TestEnv, path: &str) {
    let id = env.mapping_id(path).await;
    env.gateway()
        .delete_api_mapping()
        .domain_name(env.host())
        .api_mapping_id(id)
        .send()
        .await
        .unwrap();
}

pub async fn rows() -> Figures {
    let env = TestEnv::start("drift-records").await;
    let (own, zone) = (env.prepared.api_id.clone(), env.prepared.zone.clone());
    let other = http_proxy_api(&env.account, "other", NOWHERE, true)
        .await
        .unwrap();
    let rest = rest_api(&env.account, "rest", None).await.unwrap();
    env.gateway()
        .create_stage()
        .api_id(&own)
        .stage_name("beta")
        .auto_deploy(true)
        .send()
        .await
        .unwrap();
    let mapping =
        |path: &str, api: &str, stage: &str| json!({"path": path, "api": {"id": api, "stage": stage}});
    let mappings = json!([
        mapping("", &own, "$default"),
        mapping("orders/v2", &own, "$default"),
        mapping("rest", &rest, "prod")
    ]);
    env.create_domain("d", json!({"mappings": mappings, "ipAddressType": "DualStack"}))
        .await;
    env.ready("d").await;
    let theirs = record(&format!("theirs.{zone}."), RrType::A, "192.0.2.1");
    env.change_record(ChangeAction::Create, theirs).await;
    let mut table = Table::of(env).await;

    for path in ["", "orders/v2", "rest"] {
        let what = format!("the mapping {path:?} deleted");
        let (theirs, ours) = (["DeleteApiMapping"], ["CreateApiMapping"]);
        table
            .corrected(&what, EveryFiveMinutes, &theirs, &ours, async |env| {
                unmap(env, path).await
            })
            .await;
    }
    let both = (&["UpdateApiMapping"], &["UpdateApiMapping"]);
    for (what, api, stage) in [
        ("another API", &other, "$default"),
        ("another stage", &own, "beta"),
    ] {
        let what = format!("{what} behind a mapping");
        table
            .corrected(&what, EveryFiveMinutes, both.0, both.1, async |env| {
                let id = env.mapping_id("orders/v2").await;
                let request = env
                    .gateway()
                    .update_api_mapping()
                    .domain_name(env.host())
                    .api_mapping_id(id);
                request.api_id(api).stage(stage).send().await.unwrap();
            })
            .await;
    }
    table
        .corrected(
            "one more mapping",
            EveryFiveMinutes,
            &["CreateApiMapping"],
            &["DeleteApiMapping"],
            async |env| {
                let request = env
                    .gateway()
                    .create_api_mapping()
                    .domain_name(env.host())
                    .api_id(&other);
                request
                    .stage("$default")
                    .api_mapping_key("more")
                    .send()
                    .await
                    .unwrap();
            },
        )
        .await;

    for (kind, word) in [(RrType::A, "A"), (RrType::Aaaa, "AAAA")] {
        let change = |action: &str| format!("ChangeResourceRecordSets {action} {word} HOST");
        let (what, theirs, ours) = (
            format!("the {word} record deleted"),
            change("DELETE"),
            change("CREATE"),
        );
        table
            .corrected(&what, EveryFiveMinutes, &[&theirs], &[&ours], async |env| {
                let there = env.record(kind.clone()).await.unwrap();
                env.change_record(ChangeAction::Delete, there).await;
            })
            .await;
        let (what, change) = (format!("another target of the {word} record"), change("UPSERT"));
        table
            .corrected(&what, EveryFiveMinutes, &[&change], &[&change], async |env| {
                alias_elsewhere(env, kind.clone()).await;
            })
            .await;
    }
    let validation = table
        .env
        .records()
        .await
        .into_iter()
        .find(|r| r.r#type == RrType::Cname)
        .unwrap();
    let name = validation.name.trim_end_matches('.').to_owned();
    let change = |action: &str| format!("ChangeResourceRecordSets {action} CNAME {name}");
    table
        .corrected(
            "the validation record deleted",
            EveryFiveMinutes,
            &[&change("DELETE")],
            &[&change("CREATE")],
            {
                let validation = validation.clone();
                async |env: &TestEnv| env.change_record(ChangeAction::Delete, validation).await
            },
        )
        .await;
    let both = change("UPSERT");
    table
        .corrected(
            "another value of the validation record",
            EveryFiveMinutes,
            &[&both],
            &[&both],
            async |env| {
                let other = record(&validation.name, RrType::Cname, "elsewhere.example.net.");
                env.change_record(ChangeAction::Upsert, other).await;
            },
        )
        .await;

    let mark = marker(&table.env).await;
    let name = mark.name.trim_end_matches('.').to_owned();
    let change = |action: &str| format!("ChangeResourceRecordSets {action} TXT {name}");
    let back = async |env: &TestEnv| env.change_record(ChangeAction::Upsert, mark.clone()).await;
    table
        .reported(
            "the ownership record deleted",
            EveryFiveMinutes,
            &[&change("DELETE")],
            (
                "DNSProgrammed",
                "True",
                "Programmed",
                "without the operator's ownership record",
            ),
            async |env| env.change_record(ChangeAction::Delete, mark.clone()).await,
            &back,
        )
        .await;
    table
        .reported(
            "the ownership record changed",
            EveryFiveMinutes,
            &[&change("UPSERT")],
            (
                "DNSProgrammed",
                "False",
                "ForeignOwner",
                "the ownership record of another owner",
            ),
            async |env| {
                let theirs = record(&mark.name, RrType::Txt, "\"mtls-operator=theirs\"");
                env.change_record(ChangeAction::Upsert, theirs).await;
            },
            &back,
        )
        .await;
    table.end().await
}
