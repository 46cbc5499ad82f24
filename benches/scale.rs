//! Cost of many ClientCertificates while nothing changes, and the cost of a restart: `cargo bench --bench
//! scale [-- COUNT]`.
//!
//! The operator itself issues the certificates first, so that all objects are real. Last line: `scale
//! certs=... restart_s=... rss_mib=... idle_rss_mib=... writes_60s=...`.
mod common;

use std::time::{Duration, Instant};

use anyhow::Result;
use common::{
    Bench,
    cost::{Requests, Usage},
    count,
};

/// Time during which the operator may write nothing.
const STEADY: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    common::run(bench())
}

async fn bench() -> Result<()> {
    let count = count(10_000);
    let dir = tempfile::tempdir()?;
    let mut bench = Bench::start(dir.path()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = Usage::of(bench.operator_id()?)?;
    println!(
        "without any certificate: RSS {:.1} MiB, {:.1} MiB at most",
        idle.rss, idle.peak
    );

    bench.serve_domain().await?;
    let issued = bench.issue(count, bench.ready().await?).await?;
    bench.settled(count).await?;
    bench.check(count).await?;
    let full = Usage::of(bench.operator_id()?)?;
    println!(
        "{count} certificates created in {:.0?}, all Ready after {:.0?}: RSS {:.1} MiB, {:.1} MiB at most",
        issued.creating, issued.all, full.rss, full.peak
    );

    bench.operator.stop().await?;
    let before = Requests::so_far(&bench.client).await?;
    let started = Instant::now();
    bench.operator.restart()?;
    let restart = bench.settled(count).await? - started;
    let after = Requests::so_far(&bench.client).await?;
    let restarted = Usage::of(bench.operator_id()?)?;
    println!(
        "restarted: idle after {restart:.1?}, {:.1?} of CPU, RSS {:.1} MiB, {:.1} MiB at most; requests: {}",
        restarted.cpu,
        restarted.rss,
        restarted.peak,
        after.since(&before)
    );

    tokio::time::sleep(STEADY).await;
    let steady = Requests::so_far(&bench.client).await?.since(&after);
    let usage = Usage::of(bench.operator_id()?)?;
    println!(
        "{STEADY:?} of steady state: {:.2?} of CPU, RSS {:.1} MiB; requests: {steady}",
        usage.cpu - restarted.cpu,
        usage.rss
    );
    bench.operator.stop().await?;
    println!(
        "scale certs={count} restart_s={:.1} rss_mib={:.1} idle_rss_mib={:.1} writes_60s={}",
        restart.as_secs_f64(),
        usage.rss.max(full.rss),
        idle.rss,
        steady.writes()
    );
    Ok(())
}
