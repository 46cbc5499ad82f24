//! Wiring of the operator: connects watches, leader election, controllers and probes, and runs them until a
//! signal or the loss of the Lease.

pub mod options;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    aws::{call_guard::Gate, quota::Quota, rates::Rates, session::Sessions},
    background::bypass_scan::Bypasses,
    controllers::{
        client_certificate::{self, due_queue::DueQueue, secret_index::SecretIndex},
        client_grant,
        mtls_domain::{
            self,
            credentials::{self, ServiceAccount},
        },
        watches::Watches,
    },
    grants::index::GrantIndex,
    issuance::signing_key_cache::SigningKeyCache,
    observation::{read_cache::ReadCache, refresh_intervals::RefreshIntervals},
    operator::options::Options,
    policy::follow::{self, InForce},
    probe::{https::EndpointProbe, public_dns::PublicDns},
    proxy::Proxies,
    runtime::{
        cluster_id,
        concurrency::ConcurrencyLimit,
        events::Events,
        leader_election::{self, Leadership},
        thin,
        threads::{Threads, within},
        workers::Workers,
    },
    server_certificate::request_limiter::RequestLimiter,
    telemetry::{
        health,
        heartbeat::Heartbeat,
        logging::{self},
        metrics::{self, Metrics},
        metrics_auth::MetricsAuth,
        object_metrics::Objects,
    },
    trust::active_trust::ActiveTrust,
};

/// Name of the Lease, the same for every replica.
const LEASE: &str = "mtls-operator";
/// Context of an error of a client.
const UNUSABLE: &str = "cannot use the Kubernetes configuration";
/// Time that the main thread gets to end after the loss of the Lease.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Parts that the start connects and the leader's work uses.
struct Operator {
    options: Options,
    client: Client,
    /// Name of this replica.
    host: String,
    watches: Watches,
    policy: InForce,
    gate: Gate,
    metrics: Metrics,
    heartbeat: Heartbeat,
    leadership: Leadership,
    workers: Arc<Workers>,
}

/// Runs the operator until a signal, its controllers on `main`; fails when it cannot start, or when it has
/// lost the Lease.
pub fn run(options: Options, level: logging::Level, main: &Runtime) -> anyhow::Result<()> {
    let threads = Threads::start()?;
    let done = main.block_on(run_with(options, level, &threads));
    threads.end();
    done
}

async fn run_with(options: Options, level: logging::Level, threads: &Threads) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let terminate = within(&threads.lease, || signal(SignalKind::terminate()))?;
    threads.lease.spawn(stop_on_signal(terminate, stop.clone()));
    let (metrics, mut registry) = Metrics::new();
    let mut background = JoinSet::new();
    let policy = policy_in_force(&options, &metrics, &mut background)?;
    let (config, own_namespace) = configuration(&options).await?;
    let client = connect(config.clone())?;
    let host = options
        .pod_name
        .clone()
        .or_else(host_name)
        .unwrap_or_else(|| "mtls-operator".into());
    let watches = Watches::start(
        &within(&threads.watch, || thin::client(config.clone())).context(UNUSABLE)?,
        &options.watch_namespace,
        &policy,
        &mut background,
        threads.watch.handle(),
    );
    let (identity, end_of_lease) = (leader_election::identity(&host), CancellationToken::new());
    let (lease_client, (leadership, election)) = within(&threads.lease, || {
        let client = connect(config)?;
        let elected = leader_election::elect(
            client.clone(),
            &own_namespace,
            LEASE,
            &identity,
            end_of_lease.clone(),
        );
        anyhow::Ok((client, elected))
    })?;
    threads.lease.spawn(end_without_the_lease(leadership.clone()));
    let may_write = leadership.clone();
    let gate = Gate::new(Quota::new(Rates::with(&options.aws_rate)), move || {
        may_write.may_write()
    });
    let operator = Operator {
        options,
        client,
        host,
        watches,
        policy,
        gate,
        workers: Arc::new(Workers::start(&metrics)?),
        metrics,
        heartbeat: Heartbeat::default(),
        leadership,
    };
    operator.register(&mut registry);
    let metrics_auth = operator
        .options
        .metrics_auth
        .then(|| MetricsAuth::new(lease_client));
    operator.serve_probes(
        registry,
        level,
        metrics_auth,
        stop.clone(),
        &mut background,
        &threads.lease,
    )?;
    tokio::select! {
        () = stop.cancelled() => {}
        () = operator.leadership.acquired() => {
            tracing::info!(%identity, "leading");
            operator.lead(&stop, &mut background).await?;
        }
    }
    end_of_lease.cancel();
    election.await.context("the election did not end")?;
    tracing::info!("stopped");
    Ok(())
}

impl Operator {
    /// Registers the metrics of AWS calls and of single objects.
    fn register(&self, registry: &mut Registry) {
        let own = registry.sub_registry_with_prefix(metrics::PREFIX);
        self.gate.calls.register(own);
        own.register_collector(Box::new(self.watches.sizes()));
        let leads = self.leadership.clone();
        own.register_collector(Box::new(Objects {
            domains: self.watches.domains.store(),
            certificates: self.watches.certificates.store(),
            grants: self.watches.grants.store(),
            quota: self.gate.quota.clone(),
            leads: Box::new(move || leads.is_held()),
            each_certificate: self.options.metrics_per_certificate,
        }));
    }

    /// Serves liveness, readiness, metrics and the log level until `stop`.
    fn serve_probes(
        &self,
        registry: Registry,
        level: logging::Level,
        metrics_auth: Option<MetricsAuth>,
        stop: CancellationToken,
        background: &mut JoinSet<()>,
        thread: &Runtime,
    ) -> anyhow::Result<()> {
        let listen = self.options.listen;
        let listener = within(thread, || health::listen(listen))
            .with_context(|| format!("cannot listen at {listen}"))?;
        tracing::info!(address = %listener.local_addr()?, "serving /livez, /readyz, /metrics and /loglevel");
        let (to_sync, watched) = (self.watches.synced.clone(), self.watches.synced.clone());
        let (heartbeat, candidate) = (self.heartbeat.clone(), self.leadership.clone());
        let workers = self.workers.clone();
        let not_live = move || {
            let dead = watched
                .iter()
                .find(|s| s.has_ended())
                .map(|s| format!("the watch of {} has ended", s.kind()));
            let out = candidate
                .is_over()
                .then(|| "the leader election has ended in this process".to_owned());
            heartbeat.problem().or(dead).or(out).or_else(|| workers.problem())
        };
        let shown = health::Shown {
            registry,
            unready: Box::new(move || to_sync.iter().find_map(|s| s.problem())),
            not_live: Box::new(not_live),
            level,
            metrics_auth,
        };
        let serve = async move {
            if let Err(error) = health::serve(listener, shown, stop).await {
                tracing::error!(error = %logging::chain(&error), "probes");
            }
        };
        background.spawn_on(serve, thread.handle());
        Ok(())
    }

    /// Runs the controllers until `stop`; fails when another process may lead.
    async fn lead(self, stop: &CancellationToken, background: &mut JoinSet<()>) -> anyhow::Result<()> {
        self.metrics.leads(true);
        self.gate.quota.start_over();
        for s in &self.watches.synced {
            tokio::select! { () = s.wait() => {}, () = stop.cancelled() => {} }
        }
        // Read only now: a new leader reads everything again.
        let cluster_id = cluster_id::cluster_id(self.client.clone(), self.options.cluster_id.as_deref())
            .await
            .context("set --cluster-id when the operator may not read namespaces")?;
        let leadership = self.leadership.clone();
        tokio::select! {
            done = self.control(cluster_id, stop, background) => done,
            // Another process may lead from here on. Calls in flight end by their own timeouts; no new call
            // starts.
            () = leadership.lost() => anyhow::bail!("the lease was lost"),
        }
    }

    /// Runs the three controllers and the scan for bypasses, which share caches and what they know of trust
    /// and grants.
    async fn control(
        self,
        cluster_id: String,
        stop: &CancellationToken,
        background: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let Operator { options, watches, .. } = &self;
        let events = Events::new(self.client.clone(), &self.host);
        let bypasses = Arc::new(Bypasses::default());
        let (active_trust, trust_changes) = ActiveTrust::new();
        let active_trust = Arc::new(active_trust);
        let grant_index = Arc::new(GrantIndex::new(
            &watches.grants,
            &watches.certificates,
            watches.domains.store(),
            &watches.namespaces,
        ));
        let sessions = Sessions::new(&self.gate);
        let service_account = Arc::new(ServiceAccount::new(self.client.clone()));
        let (asked, account) = (sessions.clone(), service_account.clone());
        background.spawn(async move { credentials::check(asked, &account).await });
        let domain = Arc::new(mtls_domain::context::Ctx {
            client: self.client.clone(),
            cluster_id,
            truststore_bucket: options.truststore_bucket.clone(),
            aws_tags: crate::aws::tags::of_flag(options.aws_tags.clone()).map_err(anyhow::Error::msg)?,
            watched: (!options.watch_namespace.is_empty())
                .then(|| options.watch_namespace.iter().cloned().collect()),
            refresh: RefreshIntervals::within(options.drift_interval),
            cache: ReadCache::default(),
            sessions,
            service_account,
            gate: self.gate.clone(),
            probe: EndpointProbe::new(&options.outside)?,
            public_dns: PublicDns::new(options.outside.resolver)?,
            events: events.clone(),
            metrics: self.metrics.clone(),
            heartbeat: self.heartbeat.clone(),
            domains: watches.domains.store(),
            certificates: watches.certificates.store(),
            secrets: watches.secrets.store(),
            config_maps: watches.config_maps.store(),
            active_trust: active_trust.clone(),
            request_limiter: RequestLimiter::default(),
            bypasses: bypasses.clone(),
            claims: Arc::default(),
            policy: self.policy.clone(),
            namespaces: watches.namespaces.store(),
            grant_index: grant_index.clone(),
            concurrency: ConcurrencyLimit::new(mtls_domain::controller::AT_ONCE),
            workers: self.workers.clone(),
            states: Mutex::new(HashMap::new()),
        });
        let certificate = Arc::new(client_certificate::context::Ctx {
            client: self.client.clone(),
            events: events.clone(),
            metrics: self.metrics.clone(),
            heartbeat: self.heartbeat.clone(),
            grant_index: grant_index.clone(),
            certificates: watches.certificates.store(),
            domains: watches.domains.store(),
            active_trust,
            secrets: watches.secrets.store(),
            signing_keys: SigningKeyCache::default(),
            secret_index: SecretIndex::default(),
            due_queue: DueQueue::default(),
            concurrency: ConcurrencyLimit::new(client_certificate::controller::AT_ONCE),
            workers: self.workers.clone(),
            started: Instant::now(),
            propagation: jiff::SignedDuration::try_from(options.truststore_propagation)?,
            states: Mutex::new(HashMap::new()),
        });
        let grant = Arc::new(client_grant::controller::Ctx {
            client: self.client.clone(),
            events,
            metrics: self.metrics.clone(),
            heartbeat: self.heartbeat.clone(),
            grants: watches.grants.store(),
            domains: watches.domains.store(),
            grant_index,
        });
        tokio::join!(
            mtls_domain::controller::run(domain, watches, stop.clone()),
            client_certificate::controller::run(certificate, watches, trust_changes, stop.clone()),
            client_grant::controller::run(grant, watches, stop.clone()),
            bypasses.run(options.bypass_scan_interval, stop.clone()),
        );
        Ok(())
    }
}

fn policy_in_force(
    options: &Options,
    metrics: &Metrics,
    background: &mut JoinSet<()>,
) -> anyhow::Result<InForce> {
    let Some(file) = options.policy.clone() else {
        return Ok(follow::none(metrics));
    };
    let (policy, follow) = follow::follow(file, metrics.clone())?;
    background.spawn(follow);
    Ok(policy)
}

/// Returns the configuration of the clients of the API server, and the namespace of the Lease.
async fn configuration(options: &Options) -> anyhow::Result<(kube::Config, String)> {
    let proxies = Proxies::from_env()?;
    let config = proxies.kubernetes_config().await?;
    let own_namespace = options
        .lease_namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), watching = ?options.watch_namespace, "starting");
    if let Some(proxy) = proxies.shown() {
        tracing::info!(
            proxy,
            "HTTPS_PROXY is set: calls to AWS use the proxy, probes do not"
        );
    }
    Ok((config, own_namespace))
}

/// Returns a client of the API server that belongs to the current runtime.
fn connect(config: kube::Config) -> anyhow::Result<Client> {
    Client::try_from(config).context(UNUSABLE)
}

async fn stop_on_signal(mut terminate: Signal, stop: CancellationToken) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
}

/// Ends the process when its main thread has not done so in time after the loss of the Lease. No call to AWS
/// starts without the Lease, but a write to Kubernetes might.
async fn end_without_the_lease(leadership: Leadership) {
    leadership.acquired().await;
    leadership.lost().await;
    tokio::time::sleep(LAST_WORK).await;
    tracing::error!("the main thread goes on without the lease");
    std::process::exit(1);
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
