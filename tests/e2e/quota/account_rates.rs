//! Thirty domains and changes of the authority that all of them trust stay below AWS's rates, also beside a
//! stranger who uses the same account.
use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use sandbox::control::{Call, Calls, Profile};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::holds,
    kubernetes::{
        objects::{DOMAIN, says},
        recorder::Recorder,
    },
    partner_ca::Ca,
    rates::faster,
    test_env::TestEnv,
    world::{eventually, run},
};

/// Speed of time: a domain name operation each half second, 600 calls of API Gateway a second.
const SPEED: f64 = 60.0;

/// Starts an environment with AWS's quotas and delays in force. The operator reconciles again only because of
/// events.
async fn start(name: &str) -> TestEnv {
    let rates = faster(SPEED);
    let variables = [
        ("MTLS_OPERATOR_AWS_RATE", rates.as_str()),
        ("MTLS_OPERATOR_DRIFT_INTERVAL", "5m"),
    ];
    let env = TestEnv::start_with(name, &variables).await;
    env.control()
        .set_profile(&env.account.id, Profile::Aws)
        .await
        .unwrap();
    env.control().speed_up(&env.account.id, SPEED).await.unwrap();
    env
}

/// Writes the authority that every domain of an environment trusts.
async fn share(env: &TestEnv, pem: &str) {
    let maps = Api::<ConfigMap>::namespaced(env.client.clone(), &env.namespace);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"ca.crt": pem},
    });
    maps.patch("shared", &PatchParams::apply("user").force(), &Patch::Apply(&map))
        .await
        .expect("a ConfigMap");
}

fn trust(more: &[Value]) -> Value {
    let shared = json!({"name": "shared", "configMapRef": {"name": "shared", "key": "ca.crt"}});
    json!({"authorities": ([&[shared], more].concat())})
}

/// Creates domains `d00`, `d01`, ..., all at once; the last of them trusts `more` too.
async fn create(env: &TestEnv, count: usize, more: &[Value]) -> Vec<String> {
    let names: Vec<_> = (0..count).map(|n| format!("d{n:02}")).collect();
    let one = async |(n, name): (usize, &String)| {
        let more = if n + 1 == count { more } else { &[] };
        let host = format!("{name}.{}", env.prepared.zone);
        env.create_domain(name, json!({"domainName": host, "trust": trust(more)}))
            .await
    };
    join_all(names.iter().enumerate().map(one)).await;
    names
}

/// Calls of an operation after `mark`, with the names of their domains.
async fn calls(env: &TestEnv, mark: u64, operation: &str) -> Vec<(String, Call)> {
    let which = Calls {
        account: &env.account.id,
        since: mark,
        operation,
        ..Calls::default()
    };
    let all = env.control().calls(&which).await.expect("the journal").calls;
    let name = |call: &Call| call.resource.split('.').next().unwrap_or_default().to_owned();
    all.into_iter().map(|call| (name(&call), call)).collect()
}

fn is_throttled(call: &Call) -> bool {
    call.code.contains("Throttl") || call.code == "TooManyRequestsException"
}

/// Calls throttled so far.
async fn throttled(env: &TestEnv) -> Vec<String> {
    let of_account = Calls {
        account: &env.account.id,
        ..Calls::default()
    };
    let all = env.control().calls(&of_account).await.expect("the journal").calls;
    all.iter()
        .filter(|call| is_throttled(call))
        .map(|call| format!("{} {}", call.operation, call.resource))
        .collect()
}

/// Waits until each of the domains accepts certificates of `newest`, and of none of `before`.
async fn all_trust(env: &TestEnv, names: &[String], newest: &Ca, before: &[Ca]) {
    for name in names {
        eventually(&format!("the trust of {name}"), async || {
            let edge = env
                .control()
                .edge(&env.account.id)
                .await
                .map_err(|e| e.to_string())?;
            let host = format!("{name}.{}", env.prepared.zone);
            let domain = edge
                .domains
                .iter()
                .find(|d| d.domain_name == host)
                .ok_or("the domain is not there")?;
            let pem = domain.truststore.as_ref().ok_or("no mutual TLS")?.pem.clone();
            let last = holds(&pem, &newest.pem) && !before.iter().any(|ca| holds(&pem, &ca.pem));
            if last {
                Ok(())
            } else {
                Err(format!("{} {pem}", domain.status))
            }
        })
        .await;
    }
}

#[test]
fn thirty_domains_and_a_change_of_their_shared_authority_are_not_throttled() {
    run(async {
        const DOMAINS: usize = 30;
        let mut env = start("quotas").await;
        let [first, second, third, fourth, fifth, last] =
            [0, 1, 2, 3, 4, 5].map(|n| Ca::new(&format!("shared {n}")));
        let traitor = Ca::new("traitor");
        share(&env, &first.pem).await;
        let traitor_is = |state: &str| json!({"name": "traitor", "state": state, "pem": traitor.pem});
        let names = create(&env, DOMAINS, &[traitor_is("Active")]).await;

        // The operator is killed in the middle: the next operator continues in the order that the statuses
        // show.
        eventually("some of the domains", async || {
            let made = calls(&env, 0, "CreateDomainName").await.len();
            if made >= DOMAINS / 4 {
                Ok(())
            } else {
                Err(format!("{made} calls"))
            }
        })
        .await;
        env.operator.kill();
        let queued = queued(&env).await;
        let mark = env.mark().await;
        env.end_lease().await;
        env.operator.restart().expect("the operator starts");
        for name in &names {
            env.ready(name).await;
        }
        let made = calls(&env, 0, "CreateDomainName").await;
        let made_once: BTreeSet<_> = made
            .iter()
            .filter(|(_, call)| call.status == Some(201))
            .map(|(n, _)| n)
            .collect();
        assert_eq!(made_once.len(), DOMAINS);
        let after: Vec<_> = made
            .iter()
            .filter(|(_, call)| call.n > mark)
            .map(|(name, _)| name)
            .collect();
        let after: Vec<_> = after.into_iter().filter(|name| queued.contains(name)).collect();
        // The call that was under way when it was killed may have taken effect.
        assert!(
            after.len() + 1 >= queued.len() && queued.len() > DOMAINS / 4,
            "{queued:?}: {after:?}"
        );
        let expected: Vec<_> = queued.iter().filter(|name| after.contains(name)).collect();
        assert_eq!(after, expected, "the order of the queue");

        // One authority changes, and four times more; and a caller must lose access to the last of the
        // domains.
        let record = Recorder::start(&env, DOMAIN, "").await;
        let there = record.seen().len();
        let begin = env.mark().await;
        for ca in [&second, &third, &fourth, &fifth, &last] {
            share(&env, &ca.pem).await;
        }
        let changed = env.mark().await;
        let urgent = names.last().expect("there are thirty");
        env.change(urgent, json!({"trust": trust(&[traitor_is("Distrusted")])}))
            .await;
        all_trust(&env, std::slice::from_ref(urgent), &last, &[traitor]).await;
        all_trust(&env, &names, &last, &[first, second, third, fourth, fifth]).await;

        // A domain whose update was under way before the last change is updated again. The operator updates
        // no other domain twice.
        let updates = calls(&env, begin, "UpdateDomainName").await;
        let mut since_the_last = BTreeMap::<&String, usize>::new();
        for (name, _) in updates.iter().filter(|(_, call)| call.n > changed) {
            *since_the_last.entry(name).or_default() += 1;
        }
        assert_eq!(since_the_last.len(), DOMAINS, "{since_the_last:?}");
        assert!(
            since_the_last.values().all(|count| *count == 1),
            "{since_the_last:?}"
        );

        // By waiting time alone the urgent domain would have been the last. The domains before it had their
        // slots before its request.
        let place = |list: &[(String, Call)]| {
            list.iter()
                .position(|(name, _)| name == urgent)
                .expect("the domain was updated")
        };
        let asked = calls(&env, changed, "PutObject").await;
        let own_key = |call: &Call| call.resource.ends_with(&format!("/{urgent}.pem"));
        let asked = asked
            .iter()
            .map(|(_, call)| call)
            .filter(|call| own_key(call))
            .map(|call| call.n)
            .max();
        let after_it = updates.len() - 1 - place(&updates);
        let still_there = updates.iter().filter(|(_, call)| Some(call.n) > asked).count() - 1;
        assert!(
            after_it >= still_there / 2 && after_it > 0,
            "{after_it} of {still_there} came after the urgent one"
        );

        let writes = record.seen().len() - there;
        assert!(
            writes <= 12 * DOMAINS,
            "{writes} status writes for one change of {DOMAINS} domains"
        );
        let throttled = throttled(&env).await;
        println!(
            "quota domains={DOMAINS} updates_per_domain={:.2} throttled={} status_writes_per_domain={:.1}",
            updates.len() as f64 / DOMAINS as f64,
            throttled.len(),
            writes as f64 / DOMAINS as f64,
        );
        assert_eq!(throttled, [""; 0]);
    });
}

/// Domains whose statuses say that they wait in the queue, in the order of the queue.
async fn queued(env: &TestEnv) -> Vec<String> {
    let domains = env.domains().list(&ListParams::default()).await.expect("a list");
    let since = |name: String, conditions: &[_]| {
        let queued = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            c.type_ == "DomainProgrammed" && c.reason == "Queued"
        };
        conditions
            .iter()
            .find(queued)
            .map(|c| (c.last_transition_time.0, name))
    };
    let mut queued: Vec<_> = domains
        .iter()
        .filter_map(|d| {
            since(
                d.name_any(),
                d.status.as_ref().map_or(&[], |s| s.conditions.as_slice()),
            )
        })
        .collect();
    queued.sort();
    queued.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn a_stranger_who_uses_the_same_quota_slows_the_operator_and_nothing_else() {
    run(async {
        const DOMAINS: usize = 5;
        let env = start("shared-quota").await;
        let (first, last) = (Ca::new("shared 0"), Ca::new("shared 1"));
        share(&env, &first.pem).await;
        let record = Recorder::start(&env, DOMAIN, "").await;
        let eats = async {
            let gateway = env.gateway();
            // A name without an owner: the calls count against the quota, and have no other effect.
            let unowned = format!("stranger.{}", env.prepared.zone);
            loop {
                let _ = gateway.update_domain_name().domain_name(&unowned).send().await;
                let _ = gateway.create_domain_name().domain_name(&unowned).send().await;
                tokio::time::sleep(std::time::Duration::from_secs_f64(40.0 / SPEED)).await;
            }
        };
        let works = async {
            let names = create(&env, DOMAINS, &[]).await;
            for name in &names {
                env.ready(name).await;
            }
            share(&env, &last.pem).await;
            all_trust(&env, &names, &last, &[first]).await;
        };
        tokio::select! { () = eats => {}, () = works => {} }
        for object in record.seen() {
            assert_ne!(says(&object, "Ready"), "False", "{object}");
        }
        for operation in ["CreateDomainName", "UpdateDomainName"] {
            let (theirs, ours): (Vec<_>, Vec<_>) = calls(&env, 0, operation)
                .await
                .into_iter()
                .partition(|(name, _)| name == "stranger");
            let count = |calls: &[(String, Call)], refused: bool| {
                calls
                    .iter()
                    .filter(|(_, call)| is_throttled(call) == refused)
                    .count()
            };
            assert!(count(&theirs, false) > 0, "the stranger did not use the quota");
            // A refused caller waits for a whole interval: AWS refuses it again only if the other caller has
            // used that interval, too.
            assert!(
                count(&ours, true) <= count(&theirs, false),
                "{operation}: {ours:?}"
            );
        }
    });
}
