//! Attack by the tenant acme, and its effect on another tenant and on the operator's process.
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::Client;
use sandbox::process::free_port;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, create, domain_spec, says, until},
        teams::{GRANT, Team, asking, granting},
        tenants::requester,
    },
    test_env::TestEnv,
    world::eventually,
};

/// Maximum time until a new certificate of another tenant is Ready. The operator's goal is 2 s, which
/// docs/reliability.md compares with what an idle machine shows; a busy one is no failure of the operator.
const SERVED: Duration = Duration::from_secs(10);

/// Number of certificates of the other tenant in one measurement.
const SAMPLES: usize = 24;

/// Time after which a measurement ends with a failure.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Time limit of an answer of /livez.
const LIVE: Duration = Duration::from_secs(1);

/// Environment with the domain `partners`, an attacker and a bystander.
pub struct Attack {
    pub env: TestEnv,
    pub acme: Team,
    zeta: Team,
    probes: Probes,
    listen: String,
    requests: usize,
}

impl Attack {
    /// Starts alone on the machine. `grant`: terms of the attacker's ClientGrant. The bystander's has no
    /// slots: a certificate that competes for slots waits a few seconds by design.
    pub async fn start(name: &str, grant: Value) -> Attack {
        let listen = format!("127.0.0.1:{}", free_port().expect("a port"));
        let variables = [
            ("MTLS_OPERATOR_LISTEN", listen.as_str()),
            ("MTLS_OPERATOR_DRIFT_INTERVAL", "15m"),
            ("MTLS_OPERATOR_TRUSTSTORE_PROPAGATION", "2s"),
        ];
        let env = TestEnv::start_alone(name, &["acme", "zeta"], &variables).await;
        let trust = json!({
            "authorities": [
                {"name": "main", "generate": {}},
                {"name": "bundles", "configMapSelector": {"matchLabels": {"partner": "yes"}}},
            ],
            "issuingAuthority": "main",
        });
        create(&env, DOMAIN, "partners", domain_spec(&env, trust)).await;
        until(&env, DOMAIN, "partners", "Ready", "True", "").await;
        let (acme, zeta) = (requester(&env, "acme").await, requester(&env, "zeta").await);
        create(&env, GRANT, "acme", granting(&acme.namespace, grant)).await;
        let names = json!({"commonNames": ["zeta-*"]});
        create(&env, GRANT, "zeta", granting(&zeta.namespace, names)).await;
        let mut attack = Attack {
            probes: Probes::start(&listen).await,
            env,
            acme,
            zeta,
            listen,
            requests: 0,
        };
        // Both grants are in force, and connections are open.
        for _ in 0..2 {
            attack.served().await;
        }
        attack
    }

    /// Kills the operator and starts it again, with all that the attack has made in its first lists.
    pub async fn restart(&mut self) {
        self.probes.end();
        self.env.operator.kill();
        self.env.end_lease().await;
        self.env.operator.restart().expect("the operator starts");
        self.probes = Probes::start(&self.listen).await;
        self.served().await;
    }

    /// Measures while `pressure` is repeated, prints the result, and checks the bounds.
    pub async fn judge(&mut self, attack: &str, size: &str, pressure: impl AsyncFn(&TestEnv, &Team, usize)) {
        let pid = self.pid();
        let (env, acme) = (&self.env, &self.acme);
        let pressing = async {
            for round in 0.. {
                pressure(env, acme, round).await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        let (zeta, requests) = (&self.zeta, self.requests);
        let measuring = async {
            let mut seconds = vec![];
            for number in 0..SAMPLES {
                seconds.push(served(env, zeta, requests + number).await.as_secs_f64());
            }
            seconds
        };
        let mut seconds = tokio::select! {
            seconds = measuring => seconds,
            () = pressing => unreachable!("it has no end"),
        };
        self.requests += SAMPLES;
        seconds.sort_by(f64::total_cmp);
        let p99 = seconds[(SAMPLES * 99).div_ceil(100) - 1];
        let process = self.env.operator.process().expect("the operator was started");
        let ended = process.ended().expect("Linux says so");
        assert_eq!(ended, None, "{attack} {size}: the operator has ended");
        let peak = memory(pid, "VmHWM:");
        let (slowest, failures) = self.probes.told();
        println!(
            "fairness attack={attack} size={size} other_tenant_p99_s={p99:.2} rss_mib={peak:.0} alive=1 \
             livez_max_s={:.2}",
            slowest.as_secs_f64()
        );
        assert_eq!(self.pid(), pid);
        assert!(p99 <= SERVED.as_secs_f64(), "{attack} {size}: {seconds:?}");
        assert!(
            peak < memory_limit(),
            "{attack} {size}: {peak} MiB, {}",
            memory_limit()
        );
        assert_eq!(failures, [""; 0], "{attack} {size}: /livez");
    }

    async fn served(&mut self) -> Duration {
        self.requests += 1;
        served(&self.env, &self.zeta, self.requests - 1).await
    }

    fn pid(&mut self) -> u32 {
        self.env
            .operator
            .process()
            .expect("the operator was started")
            .id()
    }
}

/// Returns the time until a new certificate of the tenant is Ready, and deletes it.
async fn served(env: &TestEnv, tenant: &Team, number: usize) -> Duration {
    let (name, certificates) = (format!("probe-{number}"), tenant.api(CERTIFICATE));
    let spec = asking(env, &format!("zeta-{number}"), json!({}));
    let started = Instant::now();
    tenant.request(&name, spec).await;
    let took = loop {
        let object = serde_json::to_value(certificates.get(&name).await.expect("the object")).expect("JSON");
        if says(&object, "Ready") == "True" {
            break started.elapsed();
        }
        assert!(started.elapsed() < GIVE_UP, "not Ready: {}", object["status"]);
        sleep(Duration::from_millis(20)).await;
    };
    certificates
        .delete(&name, &Default::default())
        .await
        .expect("deleted");
    took
}

/// Requests for /livez, five a second.
struct Probes {
    told: Arc<Mutex<(Duration, Vec<String>)>>,
    task: JoinHandle<()>,
}

impl Probes {
    /// Begins with the first answer.
    async fn start(listen: &str) -> Probes {
        // reqwest brings no crypto provider: the first caller installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(LIVE)
            .build()
            .expect("a client");
        let url = format!("http://{listen}/livez");
        eventually("/livez answers", async || {
            http.get(&url).send().await.map(drop).map_err(|e| e.to_string())
        })
        .await;
        let told = Arc::<Mutex<(Duration, Vec<String>)>>::default();
        let task = tokio::spawn(ask(http, url, told.clone()));
        Probes { told, task }
    }

    /// Slowest answer, and all failures.
    fn told(&self) -> (Duration, Vec<String>) {
        self.told.lock().expect("no holder panics").clone()
    }

    fn end(&self) {
        self.task.abort();
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.end();
    }
}

async fn ask(http: Client, url: String, told: Arc<Mutex<(Duration, Vec<String>)>>) {
    loop {
        let started = Instant::now();
        let answer = http.get(&url).send().await.and_then(|a| a.error_for_status());
        let took = started.elapsed();
        {
            let mut told = told.lock().expect("no holder panics");
            told.0 = told.0.max(took);
            if let Err(error) = answer {
                told.1.push(format!("{error} after {took:?}"));
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Memory of a process in MiB, by the name of its line in /proc.
pub fn memory(pid: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let kib = status.lines().find_map(|each| {
        each.strip_prefix(line)?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    });
    kib.expect("Linux says so") / 1024.0
}

/// Memory limit of the chart in MiB.
fn memory_limit() -> f64 {
    let values: Value =
        serde_saphyr::from_str(include_str!("../../../charts/mtls-operator/values.yaml")).expect("YAML");
    let limit = values["resources"]["limits"]["memory"].as_str().expect("a limit");
    limit
        .strip_suffix("Mi")
        .and_then(|mib| mib.parse().ok())
        .expect("MiB")
}
