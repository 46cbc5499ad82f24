//! Rate at which the operator issues ClientCertificates, its cost, and the highest possible rate: `cargo
//! bench --bench issuance [-- COUNT]`.
//!
//! The same run measures the bare limit on the same API server, before and after, while no operator runs: a
//! plain loop that creates the same Secret and patches the same status, with the best of several numbers of
//! concurrent requests, and nothing else going on. But the operator's rate runs from the first create of a
//! certificate to the last status. Those creates, a third write for each certificate, take their part of the
//! same machine, which no operator can win back. So the bench measures the ceiling too: all three writes by
//! plain loops, without an operator and without a watch. On two cores that API server and etcd share with
//! everything else, the ceiling is at about 0.8 of the bare limit: there no operator reaches 0.8 of the bare
//! limit, and the distance from the ceiling shows how good this operator is. Compare figures of one run with
//! each other only, not those of different machines, nor those of a machine that is busy with other work.
//! Last line: `issuance certs_per_s=... bare_per_s=... ratio=... rss_mib=... writes_per_cert=...
//! ceiling=...`: `ratio` is the operator's rate and `ceiling` that of the three plain writes, both as parts
//! of the bare limit.
mod common;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use common::{
    Bench,
    cost::{Requests, Usage},
    count, create,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, channel::mpsc::unbounded, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use mtls_operator::api::ClientCertificate;

/// Numbers of concurrent requests that the plain loop tries.
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
    bench.operator.stop().await?;
    let mut plain = Plain::default();
    plain.measure(&bench, &model, "before", count).await?;

    bench.operator.restart()?;
    bench.leads().await?;
    let (id, ready) = (bench.operator_id()?, bench.ready().await?);
    let (usage_before, requests_before) = (Usage::of(id)?, Requests::so_far(&bench.client).await?);
    let server_before = api_server_cpu(&bench.client).await?;
    let issued = bench.issue(count, ready).await?;
    let server = api_server_cpu(&bench.client).await? - server_before;
    bench.settled(count).await?;
    let (usage, requests) = (
        Usage::of(id)?,
        Requests::so_far(&bench.client).await?.since(&requests_before),
    );
    bench.check(count).await?;
    bench.operator.stop().await?;
    plain.measure(&bench, &model, "after", count).await?;

    let each = |total: f64| total / count as f64;
    let cpu = usage.cpu - usage_before.cpu;
    let (server, in_loops) = (
        each(server.as_secs_f64() * 1000.0),
        plain.all.server_each().as_secs_f64() * 1000.0,
    );
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
        "API server: {server:.2} ms of CPU each, creating the certificate included; {in_loops:.2} ms for all \
         three writes by plain loops"
    );
    println!(
        "requests: {requests}; each {:.2} writes and {:.2} reads",
        each(requests.writes() as f64),
        each(requests.reads() as f64)
    );
    let rate = count as f64 / issued.all.as_secs_f64();
    let ((ceiling, at_once), (limit, pairs_at_once)) = (plain.all.best(), plain.pairs.best());
    println!(
        "the ceiling, all three writes by plain loops without an operator: {ceiling:.0}/s, with {at_once} at \
         once; the operator: {:.2} of it",
        rate / ceiling
    );
    println!("the bare limit, Secret and status by a plain loop: {limit:.0}/s, with {pairs_at_once} at once");
    println!(
        "issuance certs_per_s={rate:.1} bare_per_s={limit:.1} ratio={:.2} rss_mib={:.0} \
         writes_per_cert={:.2} ceiling={:.2}",
        rate / limit,
        usage.peak,
        each(requests.writes() as f64),
        ceiling / limit
    );
    Ok(())
}

/// Returns the CPU time that the API server has used since its start, by its own count, without etcd's.
async fn api_server_cpu(client: &Client) -> Result<Duration> {
    let text = client
        .request_text(http::Request::get("/metrics").body(vec![])?)
        .await?;
    let seconds = text
        .lines()
        .find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    Ok(Duration::from_secs_f64(
        seconds.context("the API server counts its CPU time")?.parse()?,
    ))
}

/// Secret and status that the operator writes for one certificate.
struct Model {
    secret: Secret,
    status: serde_json::Value,
}

impl Model {
    async fn of_one(bench: &Bench) -> Result<Model> {
        bench.issue(1, bench.ready().await?).await?;
        let certificate = bench.certificates().get("c0").await?;
        let secret = bench.secrets().get("c0").await?;
        bench
            .certificates()
            .delete("c0", &DeleteParams::default())
            .await?;
        common::until("the Secret goes with its object", async || {
            Ok(bench.secrets().get_opt("c0").await?.is_none())
        })
        .await?;
        Ok(Model {
            secret,
            status: serde_json::to_value(certificate.status.context("it is issued")?)?,
        })
    }

    /// Returns the Secret as the operator would create it for `certificate`.
    fn secret(&self, certificate: &ClientCertificate) -> Secret {
        let mut secret = self.secret.clone();
        let meta = &mut secret.metadata;
        (meta.name, meta.namespace) = (
            certificate.metadata.name.clone(),
            certificate.metadata.namespace.clone(),
        );
        (
            meta.uid,
            meta.resource_version,
            meta.creation_timestamp,
            meta.managed_fields,
        ) = (None, None, None, None);
        for owner in meta.owner_references.iter_mut().flatten() {
            (owner.name, owner.uid) = (certificate.name_any(), certificate.uid().unwrap_or_default());
        }
        secret
    }
}

/// Rates of the plain loops, for each number of concurrent requests.
#[derive(Default)]
struct Plain {
    /// Rates of all three writes: from the first create of a certificate to the last pair.
    all: Rates,
    /// Rates of the pairs alone, once all certificates exist.
    pairs: Rates,
}

/// Number of certificates, duration, and CPU time of the API server, for each number of concurrent requests.
#[derive(Default)]
struct Rates([(usize, Duration, Duration); AT_ONCE.len()]);

impl Plain {
    /// Measures while the operator does not run.
    async fn measure(&mut self, bench: &Bench, model: &Model, when: &str, count: usize) -> Result<()> {
        let share = count.div_ceil(AT_ONCE.len());
        for (i, at_once) in AT_ONCE.into_iter().enumerate() {
            let namespace = format!("all-{when}-{at_once}");
            bench.world.kubernetes.namespace(&namespace).await?;
            let (created, there) = unbounded();
            let certificates = Api::<ClientCertificate>::namespaced(bench.client.clone(), &namespace);
            let (server, started) = (api_server_cpu(&bench.client).await?, Instant::now());
            let creating = create(&certificates, share, |certificate| {
                let _ = created.unbounded_send(certificate); // the loop below reads to the end
            });
            let creating = async { creating.await.inspect(|()| created.close_channel()) };
            tokio::try_join!(creating, pairs(bench, model, &namespace, there, at_once))?;
            let took = started.elapsed();
            self.all
                .add(i, share, took, api_server_cpu(&bench.client).await? - server);

            let namespace = format!("pairs-{when}-{at_once}");
            bench.world.kubernetes.namespace(&namespace).await?;
            let certificates = Api::<ClientCertificate>::namespaced(bench.client.clone(), &namespace);
            create(&certificates, share, drop).await?;
            let there = certificates.list(&ListParams::default()).await?.items;
            let (server, started) = (api_server_cpu(&bench.client).await?, Instant::now());
            pairs(bench, model, &namespace, stream::iter(there), at_once).await?;
            let took = started.elapsed();
            self.pairs
                .add(i, share, took, api_server_cpu(&bench.client).await? - server);
        }
        Ok(())
    }
}

/// Creates the Secret and patches the status of each certificate, `at_once` at a time.
async fn pairs(
    bench: &Bench,
    model: &Model,
    namespace: &str,
    there: impl Stream<Item = ClientCertificate>,
    at_once: usize,
) -> Result<()> {
    let certificates = Api::<ClientCertificate>::namespaced(bench.client.clone(), namespace);
    let secrets = Api::<Secret>::namespaced(bench.client.clone(), namespace);
    let pair = async |certificate: ClientCertificate| {
        secrets
            .create(&PostParams::default(), &model.secret(&certificate))
            .await?;
        let patch = Patch::Merge(serde_json::json!({"status": model.status}));
        certificates
            .patch_status(&certificate.name_any(), &PatchParams::default(), &patch)
            .await?;
        anyhow::Ok(())
    };
    there.map(pair).buffer_unordered(at_once).try_collect().await
}

impl Rates {
    fn add(&mut self, i: usize, count: usize, took: Duration, server: Duration) {
        let (all, time, cpu) = &mut self.0[i];
        *all += count;
        *time += took;
        *cpu += server;
    }

    /// Returns the CPU time of the API server for each certificate.
    fn server_each(&self) -> Duration {
        let count: usize = self.0.iter().map(|(count, ..)| count).sum();
        self.0
            .iter()
            .map(|(.., cpu)| cpu)
            .sum::<Duration>()
            .div_f64(count as f64)
    }

    /// Returns the best rate per second, and its number of concurrent requests.
    fn best(&self) -> (f64, usize) {
        let rates = self
            .0
            .iter()
            .map(|(count, took, _)| *count as f64 / took.as_secs_f64());
        rates
            .zip(AT_ONCE)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .expect("there are some")
    }
}
