//! Common parts of all benches: a local world of their own, domains in service, certificates by the thousand,
//! and their cost.
// Each bench uses a part of this module.
#![allow(dead_code)]
pub mod cost;
pub mod rates;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use mtls_operator::api::{ClientCertificate, MtlsDomain};
use sandbox::{
    aws::{Account, Options},
    operator::{Operator, OperatorOptions},
    prepare::{Preparation, Prepared, prepare},
    process::free_port,
    world::World,
};

const DOMAIN: &str = "partners";
const NAMESPACE: &str = "bench";
/// Maximum time of any step but the issuing itself.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Time without a reconcile after which the operator counts as idle.
const SETTLED: Duration = Duration::from_secs(2);
/// Metric that counts reconciles of certificates.
const RECONCILES: &str = "controller_runtime_reconcile_total{controller=\"clientcertificate\"";
/// Number of certificates that are created at the same time.
const CREATORS: usize = 32;

/// Returns the number of certificates: the first argument that is a number (`cargo bench --bench issuance --
/// 500`), or `default`.
pub fn count(default: usize) -> usize {
    std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(default)
}

/// Runs the bench and ends the process with its result.
pub fn run(bench: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(bench)
}

/// A local world, and an operator in it that watches one namespace.
pub struct Bench {
    pub client: Client,
    pub operator: Operator,
    /// URL of the operator's metrics.
    metrics: String,
    http: reqwest::Client,
    pub account: Account,
    pub prepared: Prepared,
    pub world: World,
}

impl Bench {
    /// Starts a world and an operator, and returns once the operator leads and is idle.
    pub async fn start(dir: &Path) -> Result<Bench> {
        Bench::start_with(dir, &[]).await
    }

    /// Starts the same with further settings, such as `("AWS_RATE", ...)`.
    pub async fn start_with(dir: &Path, others: &[(&str, &str)]) -> Result<Bench> {
        let world = World::start(dir, &Options::default()).await?;
        world
            .kubernetes
            .install_crds(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds"))
            .await?;
        world.kubernetes.namespace(NAMESPACE).await?;
        let account = world.aws.new_account();
        let prepared = prepare(&account, &Preparation::of_its_own(&account)).await?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut env = world.operator_env(&account, &prepared.bucket);
        let settings = [
            ("LISTEN", listen.as_str()),
            ("CLUSTER_ID", "bench"),
            ("DRIFT_INTERVAL", "5m"),
            ("LOG", "warn"),
            // This bench reads the metrics 20 times a second, unlike a usual scraper.
            ("METRICS_PER_CERTIFICATE", "false"),
        ];
        let settings = settings.iter().chain(others);
        env.extend(settings.map(|(name, value)| (format!("MTLS_OPERATOR_{name}"), (*value).to_owned())));
        let options = OperatorOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_mtls-operator")),
            dir: dir.join("operator"),
            namespace: NAMESPACE.into(),
            watch: vec![NAMESPACE.into()],
            env,
            args: vec![],
        };
        let operator = Operator::start(&world.kubernetes, options).await?;
        let (client, metrics) = (world.kubernetes.admin(), format!("http://{listen}/metrics"));
        let http = reqwest::Client::builder().no_proxy().build()?;
        let bench = Bench {
            client,
            operator,
            metrics,
            http,
            account,
            prepared,
            world,
        };
        bench.leads().await?;
        Ok(bench)
    }

    /// Waits until the operator leads.
    pub async fn leads(&self) -> Result<()> {
        until("the operator leads", async || {
            Ok(self.metric("leader_election_master_status").await? == 1.0)
        })
        .await
    }

    pub fn domains(&self) -> Api<MtlsDomain> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn certificates(&self) -> Api<ClientCertificate> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn operator_id(&mut self) -> Result<u32> {
        Ok(self.operator.process().context("the operator runs")?.id())
    }

    /// Creates a domain with an authority of its own, and waits until it is Ready.
    pub async fn serve_domain(&self) -> Result<()> {
        self.create_domain(DOMAIN, serde_json::json!({"name": "partners", "generate": {}}))
            .await?;
        until("the domain is Ready", async || {
            let status = self.domains().get(DOMAIN).await?.status.unwrap_or_default();
            Ok(is_ready(&status.conditions))
        })
        .await
    }

    /// Creates a domain with one authority. Its domain name is `name` in the zone.
    pub async fn create_domain(&self, name: &str, authority: serde_json::Value) -> Result<()> {
        let domain = serde_json::from_value(serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": {"name": name},
            "spec": {
                "domainName": format!("{name}.{}", self.prepared.zone),
                "trust": {"authorities": [authority]},
                "mappings": [{"path": "", "api": {"id": self.prepared.api_id, "stage": "$default"}}],
            },
        }))?;
        self.domains().create(&PostParams::default(), &domain).await?;
        Ok(())
    }

    /// Returns the number of domains that are Ready.
    pub async fn ready_domains(&self) -> Result<usize> {
        let all = self.domains().list(&ListParams::default()).await?;
        let is_ready = |d: &&MtlsDomain| {
            d.status
                .as_ref()
                .is_some_and(|status| is_ready(&status.conditions))
        };
        Ok(all.iter().filter(is_ready).count())
    }

    /// Returns the sum of the operator's metrics whose name and labels begin with `name`.
    async fn metric(&self, name: &str) -> Result<f64> {
        let text = match self.http.get(&self.metrics).send().await {
            Ok(answer) => answer.text().await?,
            Err(error) if error.is_connect() => return Ok(0.0), // not up yet
            Err(error) => return Err(error.into()),
        };
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Waits until the operator has reconciled certificates at least `reconciles` times since its start and
    /// is idle. Returns the time of the last reconcile.
    pub async fn settled(&self, reconciles: usize) -> Result<Instant> {
        let (mut last, mut since) = (0.0, Instant::now());
        while last < reconciles as f64 || since.elapsed() < SETTLED {
            let now = self.metric(RECONCILES).await?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            ensure!(
                since.elapsed() < DEADLINE,
                "the operator stopped after {last} of {reconciles} reconciles of certificates"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(since)
    }

    /// Creates `count` certificates as fast as possible, and waits until `ready` has named as many.
    pub async fn issue(&self, count: usize, ready: impl Stream<Item = Result<String>>) -> Result<Issued> {
        let mut ready = std::pin::pin!(ready);
        let started = Instant::now();
        let creating = async {
            create(&self.certificates(), count, drop).await?;
            anyhow::Ok(started.elapsed())
        };
        let waiting = async {
            let mut names = HashSet::new();
            while names.len() < count {
                names.insert(ready.try_next().await?.context("the watch goes on")?);
            }
            anyhow::Ok(started.elapsed())
        };
        let (creating, all) = tokio::try_join!(creating, waiting)?;
        Ok(Issued { creating, all })
    }

    /// Checks that each of the `count` certificates has its Secret.
    pub async fn check(&self, count: usize) -> Result<()> {
        let secrets = self
            .secrets()
            .list(&ListParams::default().labels("mtls-operator.io/client-certificate"))
            .await?;
        let is_whole = |s: &&Secret| {
            ["tls.crt", "tls.key"]
                .iter()
                .all(|key| s.data.iter().any(|data| data.contains_key(*key)))
        };
        let whole = secrets.iter().filter(is_whole).count();
        ensure!(
            whole == count,
            "{whole} Secrets with key and certificate for {count} certificates"
        );
        Ok(())
    }

    /// Returns the names of certificates as they become Ready. The watch is established when this function
    /// returns.
    pub async fn ready(&self) -> Result<impl Stream<Item = Result<String>> + use<>> {
        // The watch has a client of its own, because it occupies a connection.
        let api = Api::<ClientCertificate>::namespaced(self.world.kubernetes.admin(), NAMESPACE);
        let mut events = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
        while !matches!(
            events.try_next().await?.context("the watch goes on")?,
            watcher::Event::InitDone
        ) {}
        let applied = events.applied_objects().map_err(anyhow::Error::from);
        Ok(applied.try_filter_map(async |c| {
            let conditions = c
                .status
                .as_ref()
                .map(|s| s.conditions.as_slice())
                .unwrap_or_default();
            Ok(is_ready(conditions).then(|| c.name_any()))
        }))
    }
}

/// Durations since the first create.
pub struct Issued {
    /// Time until the last certificate was created.
    pub creating: Duration,
    /// Time until the last certificate was Ready.
    pub all: Duration,
}

/// Creates certificates `c0`, `c1`, ..., as a user's script would, and passes each to `created`.
pub async fn create(
    api: &Api<ClientCertificate>,
    count: usize,
    created: impl Fn(ClientCertificate),
) -> Result<()> {
    let one = async |i: usize| {
        let certificate = serde_json::from_value(serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1",
            "kind": "ClientCertificate",
            "metadata": {"name": format!("c{i}")},
            "spec": {
                "domainRef": {"name": DOMAIN},
                "subject": {"commonName": format!("client {i}"), "organizations": ["Acme"]},
            },
        }))?;
        created(api.create(&PostParams::default(), &certificate).await?);
        anyhow::Ok(())
    };
    stream::iter(0..count)
        .map(one)
        .buffer_unordered(CREATORS)
        .try_collect()
        .await
}

fn is_ready(conditions: &[Condition]) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Waits until the condition holds, for [`DEADLINE`] at the most.
pub async fn until(what: &str, holds: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await? {
        ensure!(
            Instant::now() < deadline,
            "after {DEADLINE:?} it does not hold that {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
