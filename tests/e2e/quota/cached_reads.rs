//! Unchanged domains share their reads, and no action and no missed change follows from an old read.
use std::collections::BTreeMap;

use futures::future::join_all;
use sandbox::control::{Call, Calls, Fault};
use serde_json::json;

use crate::support::{
    test_env::TestEnv,
    world::{eventually, run},
};

/// Full resync interval: 15 s, with lists and a reconcile each second, and mappings and records every 5 s.
const EVERYTHING: (&str, &str) = ("MTLS_OPERATOR_DRIFT_INTERVAL", "15s");

/// Maximum number of each read: so many for each domain, or for all of them, in so many seconds. Cached reads
/// of one domain are up to a fifth younger.
fn allowed(operation: &str, domains: usize) -> Option<(usize, f64)> {
    let of_each = |count: usize, seconds: f64| Some((count * domains, seconds * 0.8));
    let of_all = |seconds: f64| Some((1, seconds * 0.8));
    match operation {
        "GetDomainNames" | "GetApis" | "GetRestApis" | "ListCertificates" => of_all(1.0),
        "ListHostedZones" => of_all(5.0),
        "HeadBucket" | "GetBucketVersioning" | "GetStages" => of_all(15.0),
        "GetApiMappings" => of_each(1, 5.0),
        // The validation record, the alias and the ownership tag.
        "ListResourceRecordSets" => of_each(3, 5.0),
        "HeadObject" | "DescribeCertificate" | "ListTagsForCertificate" => of_each(1, 15.0),
        _ => None,
    }
}

/// Calls of the operator after `mark`.
async fn calls(env: &TestEnv, mark: u64) -> Vec<Call> {
    let which = Calls {
        account: &env.account.id,
        since: mark,
        ..Calls::default()
    };
    let all = env.control().calls(&which).await.expect("the journal").calls;
    // The scan for mTLS bypasses has an interval of its own.
    all.into_iter()
        .filter(|call| (call.service.as_str(), call.operation.as_str()) != ("apigateway", "GetDomainNames"))
        .collect()
}

#[test]
fn twenty_unchanged_domains_share_their_reads() {
    run(async {
        const DOMAINS: usize = 20;
        let env = TestEnv::start_with("readings", &[EVERYTHING]).await;
        let names: Vec<_> = (0..DOMAINS).map(|n| format!("d{n:02}")).collect();
        let host = |name: &str| json!({"domainName": format!("{name}.{}", env.prepared.zone)});
        join_all(names.iter().map(|name| env.create_domain(name, host(name)))).await;
        for name in &names {
            env.ready(name).await;
        }
        // The operator still reconciles some domains because of its last change.
        let mut mark = env.mark().await;
        eventually("no more single reads", async || {
            let since = calls(&env, mark).await;
            let lists = since
                .iter()
                .filter(|call| call.operation == "GetDomainNames")
                .count();
            let single = since
                .iter()
                .filter(|call| call.operation == "GetDomainName")
                .count();
            if single == 0 && lists >= 3 {
                return Ok(());
            }
            if single > 0 {
                mark = env.mark().await;
            }
            Err(format!("{single} single reads"))
        })
        .await;
        let mark = env.mark().await;
        let all = eventually("twenty reconciles of each domain", async || {
            let all = calls(&env, mark).await;
            let lists = all
                .iter()
                .filter(|call| call.operation == "GetDomainNames")
                .count();
            if lists >= 20 {
                Ok(all)
            } else {
                Err(format!("{lists} lists"))
            }
        })
        .await;
        let seconds = all.last().expect("there are some").time - all[0].time;
        let mut counts = BTreeMap::<&str, usize>::new();
        for call in &all {
            *counts.entry(&call.operation).or_default() += 1;
        }
        for (operation, count) in &counts {
            let (times, every) =
                allowed(operation, DOMAINS).unwrap_or_else(|| panic!("{operation}: {counts:?}"));
            let most = times * ((seconds / every) as usize + 1);
            assert!(
                *count <= most,
                "{count} {operation} in {seconds:.0} s, {most} are allowed: {counts:?}"
            );
        }
        assert!(
            counts["GetApiMappings"] >= 2 * DOMAINS,
            "the operator reconciles each of them: {counts:?}"
        );
    });
}

#[test]
fn drift_in_a_cached_read_is_read_live_before_it_is_corrected() {
    run(async {
        let env = TestEnv::start_with("news", &[EVERYTHING]).await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.reconciles(1).await;
        let mark = env.mark().await;
        let request = env.gateway().update_api().api_id(&env.prepared.api_id);
        request.disable_execute_api_endpoint(false).send().await.unwrap();
        let all = eventually("the endpoint is closed again", async || {
            let all = calls(&env, mark).await;
            let writes = all.iter().filter(|call| call.write).count();
            if writes >= 2 {
                Ok(all)
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await;
        let writes: Vec<_> = all
            .iter()
            .filter(|call| call.write)
            .map(|call| (call.n, call.operation.as_str()))
            .collect();
        assert_eq!(
            writes.iter().map(|(_, operation)| *operation).collect::<Vec<_>>(),
            ["UpdateApi", "UpdateApi"]
        );
        let (theirs, ours) = (writes[0].0, writes[1].0);
        let read = |operation: &str| {
            all.iter()
                .any(|c| c.operation == operation && theirs < c.n && c.n < ours)
        };
        for operation in [
            "GetApis",
            "GetApi",
            "GetDomainName",
            "GetApiMappings",
            "HeadObject",
            "DescribeCertificate",
        ] {
            assert!(read(operation), "no {operation} between the two: {all:?}");
        }
    });
}

#[test]
fn a_change_of_the_spec_is_not_planned_from_the_cache() {
    run(async {
        // The interval is so long that no resync falls due during the test.
        let env = TestEnv::start_with("respec", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "10h")]).await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        // The operator has heard nothing of this change ...
        let id = env.mapping_id("").await;
        env.gateway()
            .delete_api_mapping()
            .domain_name(env.host())
            .api_mapping_id(id)
            .send()
            .await
            .unwrap();
        // ... and sees it with a change of another field.
        env.change("d", json!({"deletionPolicy": "Retain"})).await;
        eventually("the mapping", async || match env.mapped().await.as_slice() {
            [] => Err("none".to_owned()),
            _ => Ok(()),
        })
        .await;
        env.ready("d").await;
    });
}

#[test]
fn where_lists_cannot_be_read_every_resource_is_read_by_its_name() {
    run(async {
        let env = TestEnv::start_with("unlisted", &[EVERYTHING]).await;
        env.create_domain("d", json!({})).await;
        let before = env.ready("d").await;
        env.reconciles(1).await;
        let lists = ["GetDomainNames", "GetApis", "GetRestApis"].map(|operation| Fault {
            operation,
            account: &env.account.id,
            times: -1,
            status: 500,
            code: "InternalFailure",
            ..Fault::default()
        });
        let rules = env.control().add_faults(&lists).await.unwrap();
        let mark = env.mark().await;
        eventually("single reads", async || {
            let all = calls(&env, mark).await;
            let single = |operation: &str| all.iter().filter(|c| c.operation == operation).count();
            let counts = (single("GetDomainName"), single("GetApi"));
            if counts.0 >= 3 && counts.1 >= 3 {
                Ok(())
            } else {
                Err(format!("{counts:?}"))
            }
        })
        .await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(env.ready("d").await, before, "Ready throughout");
        for rule in rules {
            env.control().remove_fault(rule.id).await.unwrap();
        }
        // The operator notices drift in the lists again.
        let request = env.gateway().update_api().api_id(&env.prepared.api_id);
        request.disable_execute_api_endpoint(false).send().await.unwrap();
        eventually("the endpoint is closed again", async || {
            if env.endpoint_closed().await {
                Ok(())
            } else {
                Err(String::new())
            }
        })
        .await;
    });
}
