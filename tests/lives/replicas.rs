//! Two replicas of one operator, as the chart runs them: only the leader writes to AWS, and the other goes on when it is killed or stopped. How long
//! that takes is printed, not asserted: `replicas killed_s=... stopped_s=...`, until what was taken
//! away is there again.
use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use sandbox::{
    control::{Calls, Fault},
    operator::{Operator, OperatorOptions},
    process::free_port,
};
use serde_json::json;

use crate::world::{Life, eventually, run, world};

/// Another replica of this life's operator.
async fn second(life: &Life) -> Operator {
    let mut env = world().operator_env(&life.account, &life.prepared.bucket);
    for (name, value) in [("CLUSTER_ID", "lives"), ("DRIFT_INTERVAL", "1s"), ("TRUSTSTORE_PROPAGATION", "1s")] {
        env.push((format!("MTLS_OPERATOR_{name}"), value.into()));
    }
    let options = OperatorOptions {
        binary: env!("CARGO_BIN_EXE_mtls-operator").into(),
        dir: world().dir.join(format!("{}-second", life.namespace)),
        namespace: life.namespace.clone(),
        watch: vec![life.namespace.clone()],
        env,
        args: vec![],
    };
    Operator::start(&world().kubernetes, options).await.expect("the second replica starts")
}

async fn holder(life: &Life) -> Option<String> {
    let leases = Api::<Lease>::namespaced(life.client.clone(), &life.namespace);
    leases.get("mtls-operator").await.ok()?.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

/// Takes the mapping away and waits until somebody has put it back; the seconds since then.
async fn repaired(life: &Life, since: Instant) -> f64 {
    let mark = life.mark().await;
    let id = life.mapping_id("").await;
    let request = life.gateway().delete_api_mapping().domain_name(life.host()).api_mapping_id(id);
    request.send().await.expect("DeleteApiMapping");
    eventually("the mapping is put back", async || {
        let which = Calls { account: &life.account.id, since: mark, operation: "CreateApiMapping", ..Calls::default() };
        let calls = life.control().calls(&which).await.map_err(|e| e.to_string())?.calls;
        if calls.is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    since.elapsed().as_secs_f64()
}

#[test]
fn of_two_replicas_one_writes_and_the_other_goes_on_when_it_ends() {
    run(async {
        let mut life = Life::start("replicas").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        let first_holder = holder(&life).await.expect("somebody leads");
        let mut second = second(&life).await;
        eventually("the standby says who leads", async || {
            let log = std::fs::read_to_string(second.log()).map_err(|e| e.to_string())?;
            let says = |line: &&str| line.contains("another process leads") && line.contains(&first_holder);
            if log.lines().filter(says).count() == 1 { Ok(()) } else { Err(log) }
        })
        .await;

        // Both run; one leads, and drift is put back once.
        let mark = life.mark().await;
        repaired(&life, Instant::now()).await;
        life.reconciles(2).await;
        let made = life.writes(mark).await.into_iter().filter(|write| write == "CreateApiMapping").count();
        assert_eq!((made, holder(&life).await.as_ref()), (1, Some(&first_holder)));

        // Killed in the middle of a call: whether AWS has done it is for the other to find out.
        let fault = Fault { operation: "CreateApiMapping", account: &life.account.id, hold: true, ..Fault::default() };
        let rule = life.control().add_faults(&[fault]).await.expect("the double takes it").remove(0).id;
        let id = life.mapping_id("").await;
        let request = life.gateway().delete_api_mapping().domain_name(life.host()).api_mapping_id(id);
        request.send().await.expect("DeleteApiMapping");
        life.holds(rule, "the leader's call").await;
        let killed = Instant::now();
        life.operator.kill();
        life.control().release(rule).await.expect("the double answers");
        life.control().remove_fault(rule).await.expect("the double answers");
        eventually("another leads", async || match holder(&life).await {
            Some(now) if now != first_holder => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        eventually("the mapping is there, once", async || match life.mapped().await.len() {
            1 => Ok(()),
            count => Err(format!("{count} mappings")),
        })
        .await;
        let killed_s = killed.elapsed().as_secs_f64();
        let second_holder = holder(&life).await.expect("somebody leads");

        // Stopped: the Lease is given back.
        let listen = format!("127.0.0.1:{}", free_port().expect("a port"));
        life.operator.set_env("MTLS_OPERATOR_LISTEN", &listen);
        life.operator.restart().expect("it starts again");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        eventually("the first is ready to go on", async || {
            let answer = http.get(format!("http://{listen}/readyz")).send().await.map_err(|e| e.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.text().await.unwrap_or_default()) }
        })
        .await;
        let stopped = Instant::now();
        let status = second.stop().await.expect("it need not be killed").expect("it ran");
        assert!(status.success(), "{status}");
        let stopped_s = repaired(&life, stopped).await;
        assert_ne!(holder(&life).await.as_ref(), Some(&second_holder));
        println!("replicas killed_s={killed_s:.1} stopped_s={stopped_s:.1}");
    });
}
