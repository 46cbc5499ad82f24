//! The `mtls-operator` command: parses the arguments, connects the parts, and converts errors into an exit
//! code. The only module that reads the environment.
#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{ArgAction, Args, Parser, Subcommand};
use futures::{StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{Client, api::PartialObjectMeta};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use mtls_operator::{
    api::{self, ClientCertificate, ClientGrant, MtlsDomain},
    aws::{
        call_guard::Gate,
        quota::Quota,
        rates::{RateOverride, Rates},
        session::Sessions,
    },
    background::bypass_scan::Bypasses,
    cli::{doctor, iam},
    controllers::{
        client_certificate::{self, due_queue::DueQueue, secret_index::SecretIndex},
        client_grant,
        mtls_domain::{
            self,
            credentials::{self, ServiceAccount},
        },
    },
    grants::index::{self, GrantIndex},
    issuance::signing_key_cache::SigningKeyCache,
    observation::read_cache::{ReadCache, RefreshIntervals},
    policy::{Policy, follow},
    probe::{
        https::{EndpointProbe, ProbeOptions},
        public_dns::PublicDns,
    },
    proxy::Proxies,
    runtime::{
        cluster_id,
        events::Events,
        leader_election as lease,
        reconcile::ConcurrencyLimit,
        watch::{self, Cached, Watch},
    },
    server_certificate::request_limiter::RequestLimiter,
    telemetry::{
        health,
        heartbeat::Heartbeat,
        logging::{self, Format},
        metrics::{self, Metrics},
        object_metrics::Objects,
    },
    trust::{active_trust::ActiveTrust, self_signed::TRUSTED_BY},
};

/// Name of the Lease, the same for every replica.
const LEASE: &str = "mtls-operator";

/// Manages API Gateway custom domains with mutual TLS, as MtlsDomain and ClientCertificate objects declare.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the CustomResourceDefinitions as YAML: to standard output, or one file each into a folder.
    Crds {
        /// Folder for one file per CustomResourceDefinition. Default: standard output.
        folder: Option<PathBuf>,
    },
    IamPolicy(iam::IamPolicy),
    Doctor(doctor::Doctor),
}

/// Runs the operator when no command is given. AWS credentials and Region come from the usual sources of an
/// AWS SDK.
#[derive(Args)]
struct Run {
    /// Namespace to watch. Can be given several times (in the environment: separated by commas). Default: all
    /// namespaces.
    #[arg(long, env = "MTLS_OPERATOR_WATCH_NAMESPACE", value_delimiter = ',')]
    watch_namespace: Vec<String>,
    /// Name of this cluster in every ownership tag. Never change it while objects exist. Default: the UID of
    /// the namespace kube-system.
    #[arg(long, env = "MTLS_OPERATOR_CLUSTER_ID")]
    cluster_id: Option<String>,
    /// Namespace of the Lease. Default: the operator's own namespace.
    #[arg(long, env = "MTLS_OPERATOR_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Versioned bucket for the truststores of domains that name none. The operator replaces {account} and
    /// {region}. Default: none; a domain without a bucket is rejected.
    #[arg(long, env = "MTLS_OPERATOR_TRUSTSTORE_BUCKET")]
    truststore_bucket: Option<String>,
    /// Full resync interval of truststores, integrations and the inputs of certificates, for example 15m.
    /// Mappings and records refresh every third of it, account-wide lists of domains, APIs and certificates
    /// every fifteenth.
    #[arg(long, env = "MTLS_OPERATOR_DRIFT_INTERVAL", default_value = "15m", value_parser = interval)]
    drift_interval: Duration,
    /// Interval between two scans of all custom domains of an account and Region for mTLS bypasses, for
    /// example 15m.
    #[arg(long, env = "MTLS_OPERATOR_BYPASS_SCAN_INTERVAL", default_value = "15m", value_parser = interval)]
    bypass_scan_interval: Duration,
    /// Time that a new truststore version takes to reach every server of AWS, for example 90s. The operator
    /// hands out a self-signed certificate, or moves certificates to another authority, only after this time.
    #[arg(long, env = "MTLS_OPERATOR_TRUSTSTORE_PROPAGATION", default_value = "90s", value_parser = interval)]
    truststore_propagation: Duration,
    /// YAML file with the policy that limits what namespaces may do with the operator's permissions in AWS
    /// (docs/policy.md). Default: no limits.
    #[arg(long, env = "MTLS_OPERATOR_POLICY")]
    policy: Option<PathBuf>,
    /// Rate of an AWS operation, OPERATION=RATE:BURST, for example CreateDomainName=1/60:1 or *=unlimited.
    /// Can be given several times. Default: AWS's documented quotas.
    #[arg(long, env = "MTLS_OPERATOR_AWS_RATE", value_delimiter = ',')]
    aws_rate: Vec<RateOverride>,
    #[command(flatten)]
    outside: ProbeOptions,
    /// Address and port of /livez, /readyz, /metrics and /loglevel (docs/metrics.md). [::] is every address
    /// of the machine, IPv6 and IPv4; on a machine without IPv6 it means 0.0.0.0.
    #[arg(long, env = "MTLS_OPERATOR_LISTEN", default_value = "[::]:8080")]
    listen: SocketAddr,
    /// Serves three metric series for each ClientCertificate; set it to false with very many of them.
    #[arg(long, env = "MTLS_OPERATOR_METRICS_PER_CERTIFICATE", default_value_t = true, action = ArgAction::Set)]
    metrics_per_certificate: bool,
    /// Log level, or tracing directives.
    #[arg(long, env = "MTLS_OPERATOR_LOG", default_value = "info")]
    log: String,
    /// Format of log lines.
    #[arg(long, env = "MTLS_OPERATOR_LOG_FORMAT", value_enum, default_value = "json")]
    log_format: Format,
    /// Name of this replica in Events and in the Lease. Default: the host's name.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a duration such as 30s or 5m".to_owned())?;
    let duration = Duration::try_from(parsed).map_err(|_| "a duration is not negative".to_owned())?;
    if duration < Duration::from_secs(1) {
        Err("at least 1s".into())
    } else {
        Ok(duration)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (result, failure) = match cli.command {
        Some(Command::Crds { folder }) => (crds(folder), ExitCode::FAILURE),
        Some(Command::IamPolicy(args)) => (iam_policy(args), ExitCode::FAILURE),
        // 1 means that the doctor found a problem.
        Some(Command::Doctor(args)) => (doctor(args), ExitCode::from(2)),
        None => (start(cli.run), ExitCode::FAILURE),
    };
    result.unwrap_or_else(|error| {
        eprintln!("mtls-operator: {error:#}");
        failure
    })
}

fn crds(folder: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    for (name, yaml) in api::crds() {
        match &folder {
            Some(folder) => {
                let path = folder.join(name);
                std::fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn iam_policy(args: iam::IamPolicy) -> anyhow::Result<ExitCode> {
    let (policy, remarks) = iam::print(args)?;
    println!("{policy}");
    remarks
        .iter()
        .for_each(|remark| eprintln!("mtls-operator: {remark}"));
    Ok(ExitCode::SUCCESS)
}

fn doctor(args: doctor::Doctor) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(doctor::run(args))
}

fn start(run: Run) -> anyhow::Result<ExitCode> {
    let level = logging::init(&run.log, run.log_format)?;
    runtime()?.block_on(operate(run, level))?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // kube and the AWS SDK find aws-lc-rs by themselves; the client of the probe uses the process's default.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // One thread issues certificates as fast as an API server with a quarter of a core accepts them. More
    // threads would wake each other up all the time and use memory of their own. Slow work (RSA keys,
    // keystores) gets further threads as needed.
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn operate(run: Run, level: logging::Level) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let (metrics, mut registry) = Metrics::new();
    let mut background = JoinSet::new();
    let policy = match run.policy {
        Some(file) => {
            let (policy, follow) = follow::follow(file, metrics.clone())?;
            background.spawn(follow);
            policy
        }
        None => follow::none(&metrics),
    };
    let proxies = Proxies::from_env()?;
    let config = proxies.kubernetes_config().await?;
    let own_namespace = run
        .lease_namespace
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("cannot use the Kubernetes configuration")?;
    let host = run
        .pod_name
        .or_else(host_name)
        .unwrap_or_else(|| "mtls-operator".into());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), watching = ?run.watch_namespace, "starting");
    if let Some(proxy) = proxies.shown() {
        tracing::info!(
            proxy,
            "HTTPS_PROXY is set: calls to AWS use the proxy, probes do not"
        );
    }

    let (active_trust, trust_changes) = ActiveTrust::new();
    let active_trust = Arc::new(active_trust);
    let ns = &run.watch_namespace;
    let (domains, drive_domains) = Watch::<Cached<MtlsDomain>>::new(&client, ns, watch::all_of_it);
    let (certificates, drive_certificates) =
        Watch::<Cached<ClientCertificate>>::new(&client, ns, watch::all_of_it);
    let (secrets, drive_secrets) = Watch::<PartialObjectMeta<Secret>>::new(&client, ns, |secret| {
        secret.types = None; // the same for each of thousands
        watch::identity_and(TRUSTED_BY, secret);
    });
    // Specs select ConfigMaps by any label.
    let (config_maps, drive_maps) = Watch::<PartialObjectMeta<ConfigMap>>::new(&client, ns, watch::all_of_it);
    let (namespaces, drive_namespaces) =
        Watch::<PartialObjectMeta<Namespace>>::of_cluster(&client, watch::all_of_it);
    let (grants, drive_grants) = Watch::<Cached<ClientGrant>>::new(&client, ns, watch::all_of_it);
    // Watched only when a policy or grant needs labels, because the watch needs a permission that Roles
    // cannot grant.
    let needs_labels = |p: &Option<Arc<Policy>>| p.as_ref().is_some_and(|p| p.needs_labels());
    let mut by_label = grants
        .subscribe()
        .filter(|g| future::ready(index::needs_labels(g)))
        .boxed();
    let mut needed = policy.clone();
    background.spawn(async move {
        tokio::select! {
            Ok(_) = needed.wait_for(needs_labels) => {}
            Some(_) = by_label.next() => {}
            else => return,
        }
        // The subscription has served its purpose, and unread events accumulate.
        drop(by_label);
        drive_namespaces.await;
    });
    for drive in [
        drive_domains,
        drive_certificates,
        drive_secrets,
        drive_maps,
        drive_grants,
    ] {
        background.spawn(drive);
    }
    let mut synced = vec![
        domains.synced(),
        certificates.synced(),
        secrets.synced(),
        config_maps.synced(),
        grants.synced(),
    ];
    if needs_labels(&policy.borrow()) {
        synced.push(namespaces.synced());
    }

    let identity = lease::identity(&host);
    let end_of_lease = CancellationToken::new();
    let (leadership, election) = lease::elect(
        client.clone(),
        &own_namespace,
        LEASE,
        &identity,
        end_of_lease.clone(),
    );
    let may_write = leadership.clone();
    let gate = Gate::new(Quota::new(Rates::with(&run.aws_rate)), move || {
        may_write.may_write()
    });
    let own = registry.sub_registry_with_prefix(metrics::PREFIX);
    gate.calls.register(own);
    let leads = leadership.clone();
    own.register_collector(Box::new(Objects {
        domains: domains.store(),
        certificates: certificates.store(),
        grants: grants.store(),
        quota: gate.quota.clone(),
        leads: Box::new(move || leads.is_held()),
        each_certificate: run.metrics_per_certificate,
    }));

    let listener = health::listen(run.listen).with_context(|| format!("cannot listen at {}", run.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /livez, /readyz, /metrics and /loglevel");
    let (to_sync, end_of_probes, heartbeat) = (synced.clone(), stop.clone(), Heartbeat::default());
    let (watched, heartbeats, candidate) = (synced.clone(), heartbeat.clone(), leadership.clone());
    let not_live = move || {
        let dead = watched
            .iter()
            .find(|s| s.has_ended())
            .map(|s| format!("the watch of {} has ended", s.kind()));
        let out = candidate
            .is_over()
            .then(|| "the leader election has ended in this process".to_owned());
        heartbeats.problem().or(dead).or(out)
    };
    let unready = Box::new(move || to_sync.iter().find_map(|s| s.problem()));
    let shown = health::Shown {
        registry,
        unready,
        not_live: Box::new(not_live),
        level,
    };
    background.spawn(async move {
        if let Err(error) = health::serve(listener, shown, end_of_probes).await {
            tracing::error!(error = %logging::chain(&error), "probes");
        }
    });

    tokio::select! {
        () = stop.cancelled() => {}
        () = leadership.acquired() => {
            metrics.leads(true);
            tracing::info!(%identity, "leading");
            gate.quota.start_over();
            for s in &synced {
                tokio::select! { () = s.wait() => {}, () = stop.cancelled() => {} }
            }
            // Read only now: a new leader reads everything again.
            let cluster_id = cluster_id::cluster_id(client.clone(), run.cluster_id.as_deref())
                .await
                .context("set --cluster-id when the operator may not read namespaces")?;
            let probe = EndpointProbe::new(&run.outside)?;
            let events = Events::new(client.clone(), &host);
            let bypasses = Arc::new(Bypasses::default());
            let grant_index = Arc::new(GrantIndex::new(
                grants.store(),
                certificates.store(),
                domains.store(),
                namespaces.store(),
            ));
            let sessions = Sessions::new(&gate);
            let service_account = Arc::new(ServiceAccount::new(client.clone()));
            let (asked, account) = (sessions.clone(), service_account.clone());
            background.spawn(async move { credentials::check(asked, &account).await });
            let domain_ctx = Arc::new(mtls_domain::context::Ctx {
                client: client.clone(),
                cluster_id,
                truststore_bucket: run.truststore_bucket,
                watched: (!run.watch_namespace.is_empty())
                    .then(|| run.watch_namespace.iter().cloned().collect()),
                refresh: RefreshIntervals::within(run.drift_interval),
                cache: ReadCache::default(),
                sessions,
                service_account,
                gate,
                probe,
                public_dns: PublicDns::new(run.outside.resolver)?,
                events: events.clone(),
                metrics: metrics.clone(),
                heartbeat: heartbeat.clone(),
                domains: domains.store(),
                certificates: certificates.store(),
                active_trust: active_trust.clone(),
                request_limiter: RequestLimiter::default(),
                bypasses: bypasses.clone(),
                policy,
                namespaces: namespaces.store(),
                grant_index: grant_index.clone(),
                concurrency: ConcurrencyLimit::new(mtls_domain::controller::AT_ONCE),
                states: Mutex::new(HashMap::new()),
            });
            let certificate_ctx = Arc::new(client_certificate::context::Ctx {
                client: client.clone(),
                events: events.clone(),
                metrics: metrics.clone(),
                heartbeat: heartbeat.clone(),
                grant_index: grant_index.clone(),
                certificates: certificates.store(),
                domains: domains.store(),
                active_trust,
                secrets: secrets.store(),
                signing_keys: SigningKeyCache::default(),
                secret_index: SecretIndex::default(),
                due_queue: DueQueue::default(),
                concurrency: ConcurrencyLimit::new(client_certificate::controller::AT_ONCE),
                started: Instant::now(),
                propagation: jiff::SignedDuration::try_from(run.truststore_propagation)?,
                states: Mutex::new(HashMap::new()),
            });
            let domain_watches = mtls_domain::controller::Watches {
                domains: domains.clone(),
                certificates: certificates.clone(),
                secrets: secrets.clone(),
                config_maps,
                namespaces: namespaces.clone(),
                grants: grants.clone(),
            };
            let grant_ctx = Arc::new(client_grant::controller::Ctx {
                client: client.clone(),
                events,
                metrics: metrics.clone(),
                heartbeat: heartbeat.clone(),
                grants: grants.store(),
                domains: domains.store(),
                grant_index,
            });
            let grant_watches = client_grant::controller::Watches {
                grants: grants.clone(),
                certificates: certificates.clone(),
                domains: domains.clone(),
                namespaces: namespaces.clone(),
            };
            let certificate_watches = client_certificate::controller::Watches {
                certificates,
                domains,
                secrets,
                grants,
                namespaces,
                active_trust: trust_changes,
            };
            let work = async {
                tokio::join!(
                    mtls_domain::controller::run(domain_ctx, &domain_watches, stop.clone()),
                    client_certificate::controller::run(certificate_ctx, certificate_watches, stop.clone()),
                    client_grant::controller::run(grant_ctx, &grant_watches, stop.clone()),
                    bypasses.run(run.bypass_scan_interval, stop.clone()),
                )
            };
            tokio::select! {
                _ = work => {}
                // Another process may lead from here on. Calls in flight end by their own timeouts; no new
                // call starts.
                () = leadership.lost() => anyhow::bail!("the lease was lost"),
            }
        }
    }
    end_of_lease.cancel();
    election.await.context("the election did not end")?;
    tracing::info!("stopped");
    Ok(())
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parsed(flags: &[&str]) -> Cli {
        Cli::try_parse_from([&["mtls-operator"], flags].concat()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The chart's extraArgs follow the chart's own arguments.
    #[test]
    fn the_last_of_a_flag_wins_and_lists_add_up() {
        let run = parsed(&[
            "--listen=[::]:8080",
            "--metrics-per-certificate=true",
            "--log-format=json",
            "--drift-interval=15m",
            "--dns-resolver=127.0.0.1:53",
            "--watch-namespace=a,b",
            "--aws-rate=*=unlimited",
            "--listen=127.0.0.1:9090",
            "--metrics-per-certificate=false",
            "--log-format=compact",
            "--drift-interval=30m",
            "--dns-resolver=127.0.0.2:53",
            "--watch-namespace=c",
            "--aws-rate=CreateDomainName=1/60:1",
        ])
        .run;
        assert_eq!(run.listen.to_string(), "127.0.0.1:9090");
        assert!(!run.metrics_per_certificate);
        assert_eq!(run.log_format, Format::Compact);
        assert_eq!(run.drift_interval, Duration::from_secs(1800));
        assert_eq!(
            run.outside.resolver.map(|r| r.to_string()).as_deref(),
            Some("127.0.0.2:53")
        );
        assert_eq!(run.watch_namespace, ["a", "b", "c"]);
        assert_eq!(run.aws_rate.len(), 2);
        let doctor = [
            "doctor",
            "a.example.com",
            "--path=/a",
            "--output=text",
            "--path=/b",
            "--output=json",
        ];
        assert!(Cli::try_parse_from([&["mtls-operator"][..], &doctor].concat()).is_ok());
    }

    /// Lists the arguments of a command, as rows of a table.
    fn rows(command: &clap::Command, list: &mut String) {
        use std::fmt::Write;
        list.push_str("\n| argument | variable | default | |\n|---|---|---|---|\n");
        for argument in command
            .get_arguments()
            .filter(|a| !["help", "version"].contains(&a.get_id().as_str()))
        {
            let value = argument
                .get_value_names()
                .and_then(|names| names.first())
                .map(ToString::to_string);
            let value = value.unwrap_or_else(|| argument.get_id().to_string().to_uppercase());
            let repeated = matches!(argument.get_action(), ArgAction::Append)
                .then_some(", ...")
                .unwrap_or_default();
            let name = argument.get_long().map_or(format!("{value}{repeated}"), |long| {
                format!("--{long} {value}{repeated}")
            });
            let code = |text: String| {
                if text.is_empty() {
                    text
                } else {
                    format!("`{text}`")
                }
            };
            let env = argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let default: Vec<_> = argument
                .get_default_values()
                .iter()
                .map(|v| v.to_string_lossy())
                .collect();
            let mut help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default()
                .replace('|', "\\|");
            let choices = argument.get_possible_values();
            if !choices.is_empty() && argument.get_action().takes_values() {
                let choices: Vec<_> = choices
                    .iter()
                    .map(|choice| format!("`{}`", choice.get_name()))
                    .collect();
                write!(help, " ({})", choices.join(", ")).unwrap();
            }
            let row = [code(name), code(env), code(default.join(",")), help];
            writeln!(list, "| {} |", row.join(" | ")).unwrap();
        }
        list.push('\n');
    }

    #[test]
    fn every_flag_is_listed() {
        const BEGIN: &str = "<!-- Generated: WRITE_DOCS=1 cargo test --bin mtls-operator -->\n";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/flags.md");
        let (cli, mut list) = (Cli::command(), String::from("\n## The operator\n"));
        rows(&cli, &mut list);
        for command in cli.get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            list.push_str(&format!(
                "## mtls-operator {}\n\n{}.\n",
                command.get_name(),
                about.trim_end_matches('.')
            ));
            rows(command, &mut list);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, now) = text
            .split_once(BEGIN)
            .expect("the mark at the beginning of the list");
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{list}")).unwrap();
        } else {
            assert!(
                now == list,
                "docs/flags.md is stale: WRITE_DOCS=1 cargo test --bin mtls-operator"
            );
        }
    }

    #[test]
    fn it_listens_at_every_address_unless_told_otherwise() {
        assert_eq!(parsed(&[]).run.listen.to_string(), "[::]:8080");
    }

    #[test]
    fn intervals() {
        assert_eq!(interval("5m"), Ok(Duration::from_secs(300)));
        assert!(interval("0s").is_err() && interval("-5m").is_err() && interval("soon").is_err());
    }
}
