//! Of two replicas only the leader writes to AWS, and the other takes over when the leader is killed or
//! stopped. The test prints how long that takes, and does not assert it: `replicas killed_s=...
//! stopped_s=...`, until a deleted mapping is there again.
use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use sandbox::{
    control::{Calls, Fault},
    operator::{Operator, OperatorOptions},
    process::free_port,
};
use serde_json::json;

use crate::support::{
    test_env::TestEnv,
    world::{eventually, run, world},
};

/// Another replica of this environment's operator.
async fn second(env: &TestEnv) -> Operator {
    let mut variables = world().operator_env(&env.account, &env.prepared.bucket);
    for (name, value) in [
        ("CLUSTER_ID", "e2e"),
        ("DRIFT_INTERVAL", "1s"),
        ("TRUSTSTORE_PROPAGATION", "1s"),
    ] {
        variables.push((format!("MTLS_OPERATOR_{name}"), value.into()));
    }
    let options = OperatorOptions {
        binary: env!("CARGO_BIN_EXE_mtls-operator").into(),
        dir: world().dir.join(format!("{}-second", env.namespace)),
        namespace: env.namespace.clone(),
        watch: vec![env.namespace.clone()],
        env: variables,
        args: vec![],
    };
    Operator::start(&world().kubernetes, options)
        .await
        .expect("the second replica starts")
}

async fn holder(env: &TestEnv) -> Option<String> {
    let leases = Api::<Lease>::namespaced(env.client.clone(), &env.namespace);
    leases
        .get("mtls-operator")
        .await
        .ok()?
        .spec?
        .holder_identity
        .filter(|holder| !holder.is_empty())
}

/// Deletes the mapping, and waits until a replica has restored it. Returns the seconds since `since`.
async fn corrected(env: &TestEnv, since: Instant) -> f64 {
    let mark = env.mark().await;
    let id = env.mapping_id("").await;
    let request = env
        .gateway()
        .delete_api_mapping()
        .domain_name(env.host())
        .api_mapping_id(id);
    request.send().await.expect("DeleteApiMapping");
    eventually("the mapping is restored", async || {
        let which = Calls {
            account: &env.account.id,
            since: mark,
            operation: "CreateApiMapping",
            ..Calls::default()
        };
        let calls = env
            .control()
            .calls(&which)
            .await
            .map_err(|e| e.to_string())?
            .calls;
        if calls.is_empty() {
            Err("not yet".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    since.elapsed().as_secs_f64()
}

#[test]
fn one_of_two_replicas_writes_and_the_other_takes_over_when_it_ends() {
    run(async {
        let mut env = TestEnv::start("replicas").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let first_holder = holder(&env).await.expect("a replica leads");
        let mut second = second(&env).await;
        eventually("the standby says who leads", async || {
            let log = std::fs::read_to_string(second.log()).map_err(|e| e.to_string())?;
            let says = |line: &&str| line.contains("another process leads") && line.contains(&first_holder);
            if log.lines().filter(says).count() == 1 {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;

        // Both run; one leads, and drift is corrected once.
        let mark = env.mark().await;
        corrected(&env, Instant::now()).await;
        env.reconciles(2).await;
        let made = env
            .writes(mark)
            .await
            .into_iter()
            .filter(|write| write == "CreateApiMapping")
            .count();
        assert_eq!((made, holder(&env).await.as_ref()), (1, Some(&first_holder)));

        // The leader is killed in the middle of a call: the other must find out whether AWS has done it.
        let fault = Fault {
            operation: "CreateApiMapping",
            account: &env.account.id,
            hold: true,
            ..Fault::default()
        };
        let rule = env
            .control()
            .add_faults(&[fault])
            .await
            .expect("the emulator takes it")
            .remove(0)
            .id;
        let id = env.mapping_id("").await;
        let request = env
            .gateway()
            .delete_api_mapping()
            .domain_name(env.host())
            .api_mapping_id(id);
        request.send().await.expect("DeleteApiMapping");
        env.holds(rule, "the leader's call").await;
        let killed = Instant::now();
        env.operator.kill();
        env.control().release(rule).await.expect("the emulator answers");
        env.control()
            .remove_fault(rule)
            .await
            .expect("the emulator answers");
        eventually("another leads", async || match holder(&env).await {
            Some(now) if now != first_holder => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        eventually("the mapping is there, once", async || {
            match env.mapped().await.len() {
                1 => Ok(()),
                count => Err(format!("{count} mappings")),
            }
        })
        .await;
        let killed_s = killed.elapsed().as_secs_f64();
        let second_holder = holder(&env).await.expect("a replica leads");

        // The leader is stopped: it releases the Lease.
        let listen = format!("127.0.0.1:{}", free_port().expect("a port"));
        env.operator.set_env("MTLS_OPERATOR_LISTEN", &listen);
        env.operator.restart().expect("the operator starts again");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        eventually("the first is ready to go on", async || {
            let answer = http
                .get(format!("http://{listen}/readyz"))
                .send()
                .await
                .map_err(|e| e.to_string())?;
            if answer.status().is_success() {
                Ok(())
            } else {
                Err(answer.text().await.unwrap_or_default())
            }
        })
        .await;
        let stopped = Instant::now();
        let status = second
            .stop()
            .await
            .expect("the operator need not be killed")
            .expect("the operator ran");
        assert!(status.success(), "{status}");
        let stopped_s = corrected(&env, stopped).await;
        assert_ne!(holder(&env).await.as_ref(), Some(&second_holder));
        println!("replicas killed_s={killed_s:.1} stopped_s={stopped_s:.1}");
    });
}
