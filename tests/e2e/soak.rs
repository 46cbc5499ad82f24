//! Soak test, half an hour in which everything happens at once: many domains and certificates with random
//! edits, drift, faults and kills. At the end all of it is as the specs say, nothing is left over, and the
//! operator's memory has not grown. Not part of a normal run:
//! `cargo test --test e2e -- --ignored soak --nocapture`. `SOAK_MINUTES`, `SOAK_DOMAINS` and
//! `SOAK_CERTIFICATES` change its size, `SOAK_SEED` repeats a run.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use sandbox::control::{Fault, When};
use serde_json::{Value, json};

use crate::{
    objects::{Ca, DOMAIN, create, holds, truststore_of},
    world::{TestEnv, run},
};

/// Partners whose authorities come and go.
const PARTNERS: usize = 4;
/// Maximum time until everything is in the desired state, once nothing more happens.
const DEADLINE: Duration = Duration::from_secs(900);
/// Time between two kills.
const KILL: Duration = Duration::from_secs(60);
/// Maximum memory at the end, in relation to that of the warm process: more is a leak.
const GROWTH: f64 = 1.25;
/// Faults at random calls.
const TROUBLES: [(u16, &str, bool); 4] = [
    (429, "TooManyRequestsException", false),
    (500, "InternalFailure", false),
    (503, "ServiceUnavailable", false),
    (0, "", true),
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Current spec of a domain.
#[derive(Clone, Debug, Default)]
struct DesiredState {
    partners: BTreeSet<usize>,
    dual_stack: bool,
    paths: BTreeSet<String>,
}

struct Soak {
    env: TestEnv,
    random: fastrand::Rng,
    partners: Vec<Ca>,
    domains: BTreeMap<String, DesiredState>,
    /// Certificates, and the domain of each.
    certificates: BTreeMap<String, String>,
    /// Number of certificates created by the edits.
    created: usize,
}

#[test]
#[ignore = "takes half an hour, see the module"]
fn soak() {
    run(async {
        let (minutes, domains) = (setting("SOAK_MINUTES", 30), setting("SOAK_DOMAINS", 200));
        let (certificates, seed) = (
            setting("SOAK_CERTIFICATES", 2_000),
            setting("SOAK_SEED", fastrand::u64(..)),
        );
        println!("SOAK_SEED={seed}");
        let env = TestEnv::start_with("soak", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "20s")]).await;
        // An account's quota of custom domains, which can be raised, is 120.
        env.control()
            .set_knobs(&env.account.id, &[("domain_limit", 2.0 * domains as f64)])
            .await
            .expect("the emulator answers");
        let partners = (0..PARTNERS).map(|i| Ca::new(&format!("partner {i}"))).collect();
        let random = fastrand::Rng::with_seed(seed);
        let mut soak = Soak {
            env,
            random,
            partners,
            domains: [].into(),
            certificates: [].into(),
            created: 0,
        };
        soak.fill(domains as usize, certificates as usize).await;
        soak.settled().await;
        let (started, mut killed, mut sampled) = (Instant::now(), Instant::now(), Instant::now());
        let (mut edits, mut kills, mut memory) = (0, 0, vec![soak.memory()]);
        while started.elapsed() < Duration::from_secs(minutes * 60) {
            soak.something_happens().await;
            edits += 1;
            if killed.elapsed() > KILL {
                soak.env.operator.kill();
                soak.env.operator.restart().expect("the operator starts again");
                (killed, kills) = (Instant::now(), kills + 1);
            }
            // The process is warm again, and the next kill is still to come.
            if sampled.elapsed() > KILL && killed.elapsed() > KILL / 2 {
                memory.push(soak.memory());
                sampled = Instant::now();
                println!(
                    "{:>4} s: {edits} edits, {kills} kills, {:.0} MiB",
                    started.elapsed().as_secs(),
                    memory[memory.len() - 1]
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for fault in soak.env.control().faults().await.expect("the emulator answers") {
            soak.env
                .control()
                .remove_fault(fault.id)
                .await
                .expect("the emulator answers");
        }
        let settled = soak.settled().await;
        soak.becomes_as_desired().await;
        memory.push(soak.memory());
        println!(
            "soak minutes={minutes} domains={} certs={} edits={edits} kills={kills} settled_s={:.0} \
             rss_mib={:.0}..{:.0}",
            soak.domains.len(),
            soak.certificates.len(),
            settled.as_secs_f64(),
            memory[0],
            memory[memory.len() - 1]
        );
        assert!(
            memory[memory.len() - 1] < memory[0] * GROWTH,
            "memory grows: {memory:?} MiB"
        );
    });
}

impl Soak {
    async fn fill(&mut self, domains: usize, certificates: usize) {
        for i in 0..domains {
            let (name, desired) = (
                format!("d{i}"),
                DesiredState {
                    paths: [String::new()].into(),
                    ..DesiredState::default()
                },
            );
            let mut spec = self.spec(&desired);
            spec["domainName"] = json!(self.host(&name));
            create(&self.env, DOMAIN, &name, spec).await;
            self.domains.insert(name, desired);
        }
        for _ in 0..certificates {
            self.create().await;
        }
    }

    fn host(&self, domain: &str) -> String {
        format!("{domain}.{}", self.env.prepared.zone)
    }

    fn spec(&self, desired: &DesiredState) -> Value {
        let partners = desired
            .partners
            .iter()
            .map(|i| json!({"name": format!("partner{i}"), "pem": self.partners[*i].pem}));
        let own = json!({"name": "partners", "generate": {}});
        let api = json!({"id": self.env.prepared.api_id, "stage": "$default"});
        let mapping = |path: &String| json!({"path": path, "api": api});
        json!({
            "trust": {"authorities": std::iter::once(own).chain(partners).collect::<Vec<_>>()},
            "ipAddressType": if desired.dual_stack { "DualStack" } else { "IPv4" },
            "mappings": desired.paths.iter().map(mapping).collect::<Vec<_>>(),
        })
    }

    async fn create(&mut self) {
        let domain = self.any_domain();
        let name = format!("c{}", self.created);
        self.created += 1;
        self.env.create_certificate(&name, &domain).await;
        self.certificates.insert(name, domain);
    }

    fn any_domain(&mut self) -> String {
        format!("d{}", self.random.usize(..self.domains.len()))
    }

    fn any_certificate(&mut self) -> Option<String> {
        let at = self.random.usize(..self.certificates.len().max(1));
        self.certificates.keys().nth(at).cloned()
    }

    async fn something_happens(&mut self) {
        match self.random.u8(..10) {
            0..=3 => self.edit().await,
            4 => self.create().await,
            5 => {
                let Some(name) = self.any_certificate() else {
                    return;
                };
                self.env
                    .certificates()
                    .delete(&name, &DeleteParams::default())
                    .await
                    .expect("the resource can be deleted");
                self.certificates.remove(&name);
            }
            6 => {
                let Some(name) = self.any_certificate() else {
                    return;
                };
                let patch = json!({
                    "metadata": {"annotations": {"mtls-operator.io/renew": self.random.u64(..).to_string()}},
                });
                let patched = self
                    .env
                    .certificates()
                    .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                    .await;
                patched.expect("the object can be changed");
            }
            7 => {
                let Some(name) = self.any_certificate() else {
                    return;
                };
                let _may_not_be_there_yet = self.env.secrets().delete(&name, &DeleteParams::default()).await;
            }
            8 => self.drift().await,
            _ => {
                let (status, code, drop_reply) = TROUBLES[self.random.usize(..TROUBLES.len())];
                let when = if drop_reply && self.random.bool() {
                    When::After
                } else {
                    When::Before
                };
                let (account, skip) = (self.env.account.id.clone(), self.random.u64(..20));
                let fault = Fault {
                    account: &account,
                    status,
                    code,
                    drop_reply,
                    when,
                    skip,
                    ..Fault::default()
                };
                self.env
                    .control()
                    .add_faults(&[fault])
                    .await
                    .expect("the emulator takes it");
            }
        }
    }

    async fn edit(&mut self) {
        let name = self.any_domain();
        let (what, partner) = (self.random.u8(..3), self.random.usize(..PARTNERS));
        let desired = self.domains.get_mut(&name).expect("the domain is there");
        let toggled = format!("p{partner}");
        match what {
            0 if !desired.partners.remove(&partner) => drop(desired.partners.insert(partner)),
            1 => desired.dual_stack = !desired.dual_stack,
            2 if !desired.paths.remove(&toggled) => drop(desired.paths.insert(toggled)),
            _ => {}
        }
        let spec = self.spec(&self.domains[&name].clone());
        self.env.change(&name, spec).await;
    }

    /// Changes a resource behind the operator's back. A resource that does not exist (yet) cannot be changed.
    async fn drift(&mut self) {
        let host = {
            let name = self.any_domain();
            self.host(&name)
        };
        let gateway = self.env.gateway();
        if self.random.bool() {
            let mappings = gateway.get_api_mappings().domain_name(&host).send().await;
            let id = mappings
                .ok()
                .and_then(|all| all.items?.into_iter().next()?.api_mapping_id);
            if let Some(id) = id {
                let _gone_already = gateway
                    .delete_api_mapping()
                    .domain_name(&host)
                    .api_mapping_id(id)
                    .send()
                    .await;
            }
        } else {
            let request = gateway
                .update_api()
                .api_id(&self.env.prepared.api_id)
                .disable_execute_api_endpoint(false);
            let _troubled = request.send().await;
        }
    }

    fn memory(&mut self) -> f64 {
        let id = self.env.operator.process().expect("the operator runs").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the operator runs");
        let kib = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<f64>()
                .ok()
        });
        kib.expect("Linux says so") / 1024.0
    }

    /// Waits until every object is Ready with its current spec. Returns the time that this took.
    async fn settled(&self) -> Duration {
        let started = Instant::now();
        loop {
            let mut waiting = vec![];
            for kind in ["MtlsDomain", "ClientCertificate"] {
                let objects = crate::objects::api(&self.env, kind)
                    .list(&ListParams::default())
                    .await
                    .expect("a list");
                for object in objects {
                    let value = serde_json::to_value(&object).expect("JSON");
                    let ready = value["status"]["conditions"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .any(|c| {
                            c["type"] == "Ready"
                                && c["status"] == "True"
                                && c["observedGeneration"] == value["metadata"]["generation"]
                        });
                    if !ready {
                        waiting.push(format!(
                            "{kind} {} {}",
                            object.name_any(),
                            value["status"]["conditions"]
                        ));
                    }
                }
            }
            if waiting.is_empty() {
                return started.elapsed();
            }
            assert!(
                started.elapsed() < DEADLINE,
                "not Ready, {} of them:\n{}",
                waiting.len(),
                waiting[..waiting.len().min(5)].join("\n")
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn becomes_as_desired(&self) {
        let started = Instant::now();
        while let Err(difference) = self.differences().await {
            assert!(started.elapsed() < DEADLINE, "{difference}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Differences from the specs. The operator notices drift of the last moment at the next reconcile only.
    async fn differences(&self) -> Result<(), String> {
        let env = &self.env;
        let hosts: BTreeSet<_> = env.gateway_domains().await.into_iter().collect();
        same(
            "custom domains",
            hosts,
            self.domains.keys().map(|name| self.host(name)).collect(),
        )?;
        same(
            "server certificates",
            env.server_certificates().await.len(),
            self.domains.len(),
        )?;
        same("the closed endpoint", env.endpoint_closed().await, true)?;
        let checks = self
            .domains
            .iter()
            .map(|(name, desired)| self.differences_of(name, desired));
        stream::iter(checks)
            .buffer_unordered(16)
            .try_collect::<()>()
            .await?;
        let labelled = ListParams::default().labels("mtls-operator.io/client-certificate");
        let secrets: BTreeSet<_> = env
            .secrets()
            .list(&labelled)
            .await
            .expect("a list")
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        same("Secrets", secrets, self.certificates.keys().cloned().collect())
    }

    async fn differences_of(&self, name: &str, desired: &DesiredState) -> Result<(), String> {
        let (gateway, host) = (self.env.gateway(), self.host(name));
        let domain = gateway
            .get_domain_name()
            .domain_name(&host)
            .send()
            .await
            .expect("the domain is there");
        let configuration = &domain.domain_name_configurations()[0];
        let kind = configuration
            .ip_address_type()
            .expect("the domain has an address type")
            .as_str();
        same(name, kind, if desired.dual_stack { "dualstack" } else { "ipv4" })?;
        let mappings = gateway
            .get_api_mappings()
            .domain_name(&host)
            .max_results("100")
            .send()
            .await
            .expect("mappings");
        let paths = mappings
            .items
            .unwrap_or_default()
            .into_iter()
            .map(|m| m.api_mapping_key.unwrap_or_default());
        same(name, &paths.collect::<BTreeSet<_>>(), &desired.paths)?;
        let (_, text) = truststore_of(&self.env, &host).await;
        same(
            name,
            text.matches("BEGIN CERTIFICATE").count(),
            1 + desired.partners.len(),
        )?;
        same(
            name,
            desired
                .partners
                .iter()
                .all(|i| holds(&text, &self.partners[*i].pem)),
            true,
        )
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, there: T, desired: T) -> Result<(), String> {
    if there == desired {
        Ok(())
    } else {
        Err(format!("{what}: {there:?} and not {desired:?}"))
    }
}
