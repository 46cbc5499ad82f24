//! How fast ClientCertificates are issued, what that costs, and how fast it could go at most: `cargo bench --bench issuance [-- COUNT]`.
//!
//! The limit is measured in the same run on the same API server: a plain loop that creates the same Secret and patches the same status,
//! before and after, with the best of several numbers of requests at once. Figures of one run can be compared with each other, not those of
//! different machines. Last line: `issuance certs_per_s=... bare_per_s=... ratio=... rss_mib=... writes_per_cert=...`.
mod common;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use common::{
    Bench,
    cost::{Requests, Usage},
    count, create,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mtls_operator::api::ClientCertificate;

/// Requests at once that the plain loop is tried with.
const AT_ONCE: [usize; 4] = [8, 16, 32, 64];

fn main() -> Result<()> {
    common::run(bench())
}

async fn bench() -> Result<()> {
    let count = count(2000);
    let dir = tempfile::tempdir()?;
    let mut bench = Bench::start(dir.path()).await?;
    bench.serve_domain().await?;
    let model = Model::of_one(&bench).await?;
    let mut bare = Bare::default();
    bare.measure(&bench, &model, "before", count).await?;

    let (id, ready) = (bench.operator_id()?, bench.ready().await?);
    let (usage_before, requests_before) = (Usage::of(id)?, Requests::so_far(&bench.client).await?);
    let issued = bench.issue(count, ready).await?;
    bench.quiet(count).await?;
    let (usage, requests) = (Usage::of(id)?, Requests::so_far(&bench.client).await?.since(&requests_before));
    bench.check(count).await?;
    bare.measure(&bench, &model, "after", count).await?;
    bench.operator.stop().await?;

    let each = |total: f64| total / count as f64;
    let cpu = usage.cpu - usage_before.cpu;
    println!(
        "{count} certificates: created in {:.1?}, all Ready with a Secret after {:.1?}",
        issued.creating, issued.all
    );
    println!(
        "operator: {:.2} ms of CPU each, RSS {:.0} MiB at the end and {:.0} MiB at most",
        each(cpu.as_secs_f64() * 1000.0),
        usage.rss,
        usage.peak
    );
    println!(
        "requests: {requests}; each {:.2} writes and {:.2} reads",
        each(requests.writes() as f64),
        each(requests.reads() as f64)
    );
    for (at_once, rate) in bare.rates() {
        println!("bare, {at_once} at once: {rate:.0} pairs/s");
    }
    let (rate, limit) = (count as f64 / issued.all.as_secs_f64(), bare.best());
    println!(
        "issuance certs_per_s={rate:.1} bare_per_s={limit:.1} ratio={:.2} rss_mib={:.0} writes_per_cert={:.2}",
        rate / limit,
        usage.peak,
        each(requests.writes() as f64)
    );
    Ok(())
}

/// What the operator makes of one certificate.
struct Model {
    secret: Secret,
    status: serde_json::Value,
}

impl Model {
    async fn of_one(bench: &Bench) -> Result<Model> {
        bench.issue(1, bench.ready().await?).await?;
        let certificate = bench.certificates().get("c0").await?;
        let secret = bench.secrets().get("c0").await?;
        bench.certificates().delete("c0", &DeleteParams::default()).await?;
        common::until("the Secret goes with its object", async || Ok(bench.secrets().get_opt("c0").await?.is_none()))
            .await?;
        Ok(Model { secret, status: serde_json::to_value(certificate.status.context("it is issued")?)? })
    }

    /// The Secret as it would be created for `certificate`.
    fn secret(&self, certificate: &ClientCertificate) -> Secret {
        let mut secret = self.secret.clone();
        let meta = &mut secret.metadata;
        (meta.name, meta.namespace) = (certificate.metadata.name.clone(), certificate.metadata.namespace.clone());
        (meta.uid, meta.resource_version, meta.creation_timestamp, meta.managed_fields) = (None, None, None, None);
        for owner in meta.owner_references.iter_mut().flatten() {
            (owner.name, owner.uid) = (certificate.name_any(), certificate.uid().unwrap_or_default());
        }
        secret
    }
}

/// The plain loop: for each number of requests at once, how many pairs in how long.
#[derive(Default)]
struct Bare([(usize, Duration); AT_ONCE.len()]);

impl Bare {
    /// In namespaces that the operator does not watch; `count` pairs in all.
    async fn measure(&mut self, bench: &Bench, model: &Model, when: &str, count: usize) -> Result<()> {
        let share = count.div_ceil(AT_ONCE.len());
        for (at_once, (pairs, took)) in AT_ONCE.into_iter().zip(&mut self.0) {
            let namespace = format!("bare-{when}-{at_once}");
            bench.world.kubernetes.namespace(&namespace).await?;
            let certificates = Api::<ClientCertificate>::namespaced(bench.client.clone(), &namespace);
            let secrets = Api::<Secret>::namespaced(bench.client.clone(), &namespace);
            create(&certificates, share).await?;
            let there = certificates.list(&Default::default()).await?.items;
            let pair = async |certificate: ClientCertificate| {
                secrets.create(&PostParams::default(), &model.secret(&certificate)).await?;
                let patch = Patch::Merge(serde_json::json!({"status": model.status}));
                certificates.patch_status(&certificate.name_any(), &PatchParams::default(), &patch).await?;
                anyhow::Ok(())
            };
            let started = Instant::now();
            stream::iter(there).map(pair).buffer_unordered(at_once).try_collect::<()>().await?;
            *pairs += share;
            *took += started.elapsed();
        }
        Ok(())
    }

    /// Pairs per second for each number of requests at once.
    fn rates(&self) -> impl Iterator<Item = (usize, f64)> {
        AT_ONCE.into_iter().zip(self.0).map(|(at_once, (pairs, took))| (at_once, pairs as f64 / took.as_secs_f64()))
    }

    fn best(&self) -> f64 {
        self.rates().map(|(_, rate)| rate).fold(0.0, f64::max)
    }
}
