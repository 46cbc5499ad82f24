//! Time that many domains take, compared with the best that AWS's quota allows, and their cost while nothing
//! changes: `cargo bench --bench quota [-- COUNT [SPEED]]`.
//!
//! AWS's quotas are on, its own delays are off. AWS's time runs SPEED times as fast, and the operator keeps
//! to its usual rates and intervals in that time; only the machine's own work takes its real time. The bench
//! creates COUNT domains at once, then changes an authority that all of them trust, then changes nothing for
//! half an hour. Last lines, in AWS's seconds: `steady domains=... calls_per_s=...` and `quota domains=...
//! seconds=... best_seconds=... ratio=...`.
mod common;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::{Bench, rates::faster};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Patch, PatchParams};
use sandbox::control::{Calls, Domain};
use serde_json::json;

/// Interval of AWS's quota for each domain name operation, in seconds.
const INTERVAL: f64 = 30.0;
/// Operator's default for `--drift-interval` and `--bypass-scan-interval`, in seconds.
const EVERYTHING: f64 = 15.0 * 60.0;

fn main() -> Result<()> {
    common::run(bench())
}

async fn bench() -> Result<()> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let (count, speed) = (numbers.next().unwrap_or(30), numbers.next().unwrap_or(10) as f64);
    let dir = tempfile::tempdir()?;
    let (rates, everything) = (faster(speed), format!("{:.0}s", EVERYTHING / speed));
    let settings = [
        ("AWS_RATE", rates.as_str()),
        ("DRIFT_INTERVAL", &everything),
        ("BYPASS_SCAN_INTERVAL", &everything),
    ];
    let mut bench = Bench::start_with(dir.path(), &settings).await?;
    let (control, account) = (bench.world.aws.control(), bench.account.id.as_str());
    let quotas = [
        ("domain_write_interval", INTERVAL),
        ("deployment_interval", 5.0),
        ("apigateway_rate", 10.0),
        ("apigateway_burst", 40.0),
        ("route53_rate", 5.0),
        ("acm_rate_scale", 1.0),
        ("domain_limit", 120.0),
    ];
    control.set_knobs(account, &quotas).await?;
    control.speed_up(account, speed).await?;
    // The token bucket is full at the start, for any calls that the operator's start takes.
    tokio::time::sleep(Duration::from_secs_f64(2.0 * INTERVAL / speed)).await;

    let [old, new] = [authority("old")?, authority("new")?];
    share(&bench, &old).await?;
    let started = Instant::now();
    let shared = json!({"name": "shared", "configMapRef": {"name": "shared", "key": "ca.crt"}});
    let create = |n: usize| (&bench, format!("d{n}"), shared.clone());
    let create = stream::iter((0..count).map(create))
        .map(|(bench, name, shared)| async move { bench.create_domain(&name, shared).await });
    create.buffer_unordered(8).try_collect::<()>().await?;
    let every = Duration::from_secs_f64(INTERVAL / speed) * 4;
    let made = progress(started, every, count, async || bench.ready_domains().await).await?;
    let changing = Instant::now();
    share(&bench, &new).await?;
    let changed = progress(changing, every, count, async || {
        let edge = control.edge(account).await?;
        let flat = |text: &str| text.split_whitespace().collect::<String>();
        let trusts = |d: &&Domain| {
            d.truststore
                .as_ref()
                .is_some_and(|t| flat(&t.pem).contains(&flat(&new)))
        };
        Ok(edge.domains.iter().filter(trusts).count())
    })
    .await?;
    let stats = control
        .stats(&Calls {
            account,
            ..Calls::default()
        })
        .await?;
    let calls = |operation: &str| {
        stats
            .by_operation
            .get(&format!("apigatewayv2.{operation}"))
            .map_or(0, |o| o.calls)
    };
    println!(
        "created in {:.0} s, changed in {:.0} s; AWS calls: {} in all, {} CreateDomainName, {} \
         UpdateDomainName, {} throttled",
        made * speed,
        changed * speed,
        stats.calls,
        calls("CreateDomainName"),
        calls("UpdateDomainName"),
        stats.throttled
    );

    // The first round refreshes all reads that the changes caused; the second round counts.
    let round = Duration::from_secs_f64(EVERYTHING / speed);
    tokio::time::sleep(round).await;
    let since = control
        .stats(&Calls {
            account,
            ..Calls::default()
        })
        .await?
        .last;
    tokio::time::sleep(round).await;
    let steady = control
        .stats(&Calls {
            account,
            since,
            ..Calls::default()
        })
        .await?;
    let by_operation = steady
        .by_operation
        .iter()
        .map(|(name, of)| format!("{} {name}", of.calls));
    println!(
        "nothing happened for 15 minutes, {} writes; AWS calls: {}",
        steady.writes,
        by_operation.collect::<Vec<_>>().join(", ")
    );
    bench.operator.stop().await?;
    println!(
        "steady domains={count} calls_per_s={:.2}",
        steady.calls as f64 / EVERYTHING
    );
    // AWS allows the first call of each operation at once, the others one interval apart.
    let (seconds, best) = ((made + changed) * speed, 2.0 * (count - 1) as f64 * INTERVAL);
    println!(
        "quota domains={count} seconds={seconds:.0} best_seconds={best:.0} ratio={:.2}",
        seconds / best
    );
    Ok(())
}

/// Waits until `done` returns `count`, and returns the seconds since `started`. Fails when the count does not
/// grow for a long time.
async fn progress(
    started: Instant,
    every: Duration,
    count: usize,
    done: impl AsyncFn() -> Result<usize>,
) -> Result<f64> {
    let (mut last, mut since) = (0, Instant::now());
    while last < count {
        let now = done().await?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        ensure!(
            since.elapsed() < every.max(common::DEADLINE),
            "the count stays at {last} of {count}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Writes the ConfigMap that every domain trusts.
async fn share(bench: &Bench, pem: &str) -> Result<()> {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "shared"},
        "data": {"ca.crt": pem},
    });
    bench
        .config_maps()
        .patch(
            "shared",
            &PatchParams::apply("bench").force(),
            &Patch::Apply(&map),
        )
        .await?;
    Ok(())
}

fn authority(name: &str) -> Result<String> {
    let mut params = rcgen::CertificateParams::new(vec![])?;
    params.distinguished_name.remove(rcgen::DnType::CommonName);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    Ok(params.self_signed(&rcgen::KeyPair::generate()?)?.pem())
}
