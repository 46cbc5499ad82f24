//! An operator that is killed at any write, before or after its effect, is continued by the next one: nothing
//! is there twice, and nothing is left over.
use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use sandbox::{
    api_proxy::{ProxyAction, Rule, Seen},
    control::{Fault, When},
};

use crate::support::{
    scenario::{self, Held, Told},
    test_env::{TestEnv, through_proxy},
    world::run,
};

/// Number of environments at a time: each mostly waits.
const AT_ONCE: usize = 6;

#[test]
fn a_kill_at_any_aws_write_is_continued_by_the_next_operator() {
    run(async {
        let mut env = TestEnv::start("unkilled").await;
        scenario::prepare(&env).await;
        let mark = env.mark().await;
        let told = scenario::tell(&mut env, None).await;
        let calls = scenario::calls(&env, mark).await;
        // Number of each call among those of its operation.
        let mut counts = BTreeMap::<String, u64>::new();
        let writes = calls.into_iter().filter(|call| call.write).map(|call| {
            let count = counts.entry(call.operation.clone()).or_default();
            *count += 1;
            (call.operation, *count - 1)
        });
        let writes: Vec<_> = writes.collect();
        let points: Vec<_> = writes
            .iter()
            .flat_map(|write| [(write, When::Before), (write, When::After)])
            .collect();
        let runs = points
            .iter()
            .map(|((operation, skip), when)| killed_at(operation, *skip, *when, &told));
        stream::iter(runs).buffer_unordered(AT_ONCE).collect::<()>().await;
        println!("crashes points={0} converged={0} leaked=0", points.len());
    });
}

async fn killed_at(operation: &str, skip: u64, when: When, expected: &Told) {
    let mut env = TestEnv::start("killed").await;
    scenario::prepare(&env).await;
    let point = format!("killed {when:?} {operation} number {}", skip + 1);
    let account = env.account.id.clone();
    let hold = Fault {
        operation,
        account: &account,
        skip,
        when,
        hold: true,
        ..Fault::default()
    };
    let rule = env
        .control()
        .add_faults(&[hold])
        .await
        .expect("the emulator takes it")
        .remove(0)
        .id;
    let told = scenario::tell(&mut env, Some(Held::Aws(rule))).await;
    assert!(
        scenario::was_killed(&env, Held::Aws(rule)).await,
        "{point}: there was no such call"
    );
    assert_eq!(told.served, expected.served, "{point}");
    assert_eq!(told.left, expected.left, "{point}");
    env.operator.kill();
}

/// Write of the operator to Kubernetes: its method, and its place as the scenario names it.
type Write = (http::Method, String);

/// Returns the place of a write in words that are the same in every run: without the namespace, and with all
/// Events as one place, because each has a name of its own.
fn place(env: &TestEnv, seen: &Seen) -> Option<Write> {
    let path = seen
        .path
        .split_once(&format!("/namespaces/{}/", env.namespace))?
        .1;
    // No result depends on the Lease: the next operator takes over that of a dead one.
    let path = match path.split_once('/').unwrap_or((path, "")) {
        ("leases", _) => return None,
        ("events", name) if !name.is_empty() => "events/*",
        _ => path,
    };
    seen.is_write().then(|| (seen.method.clone(), path.to_owned()))
}

#[test]
fn a_kill_at_any_kubernetes_write_is_continued_by_the_next_operator() {
    run(async {
        let (mut env, proxy) = through_proxy("unkilled").await;
        scenario::prepare(&env).await;
        let told = scenario::tell(&mut env, None).await;
        let mut counts = BTreeMap::<Write, u64>::new();
        for write in proxy.seen().iter().filter_map(|seen| place(&env, seen)) {
            *counts.entry(write).or_default() += 1;
        }
        // The number of status writes depends on timing. The short form tries each kind of write at its first
        // time, the long form at every one.
        let all = |count: u64| if long() { 0..count } else { 0..1 };
        let writes = counts
            .iter()
            .flat_map(|(write, count)| all(*count).map(move |skip| (write, skip)));
        let points: Vec<_> = writes
            .flat_map(|(write, skip)| [(write, skip, When::Before), (write, skip, When::After)])
            .collect();
        let kinds: BTreeSet<_> = counts
            .keys()
            .map(|(method, path)| format!("{method} {path}"))
            .collect();
        for known in [
            "POST secrets",
            "PATCH mtlsdomains/d",
            "PATCH mtlsdomains/d/status",
            "DELETE secrets/d.partners-ca",
        ] {
            assert!(kinds.contains(known), "{known}: {kinds:?}");
        }
        let runs = points
            .iter()
            .map(|(write, skip, when)| killed_at_write(write, *skip, *when, &told));
        let killed: Vec<bool> = stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
        let points = killed.iter().filter(|killed| **killed).count();
        println!("crashes of Kubernetes writes points={points} converged={points} leaked=0");
    });
}

/// True when every occurrence of every write is tried, not only the first: that takes some minutes more.
fn long() -> bool {
    std::env::var_os("MTLS_LIVES_LONG").is_some()
}

/// Returns false when this run had fewer such writes.
async fn killed_at_write((method, path): &Write, skip: u64, when: When, expected: &Told) -> bool {
    let (mut env, proxy) = through_proxy("killed").await;
    scenario::prepare(&env).await;
    let point = format!("killed {when:?} {method} {path} number {}", skip + 1);
    // The dry run of a Secret writes nothing: its query begins otherwise.
    let query = match path.as_str() {
        "secrets" => "?&fieldManager",
        _ => "?",
    };
    let path = format!("/namespaces/{}/{path}{query}", env.namespace);
    let rule = Rule {
        skip,
        times: 1,
        when,
        ..Rule::of(Some(method.clone()), &path, ProxyAction::Hold)
    };
    let held = Held::Cluster(&proxy, proxy.add(rule));
    let told = scenario::tell(&mut env, Some(held)).await;
    let killed = scenario::was_killed(&env, held).await;
    assert!(killed || skip > 0, "{point}: the scenario has no such write");
    assert_eq!(told.served, expected.served, "{point}");
    assert_eq!(told.left, expected.left, "{point}");
    env.operator.kill();
    killed
}
