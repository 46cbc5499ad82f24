//! Many domains and certificates with their desired state, random edits of them, and the comparison at the
//! end.
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

use super::{
    attack::memory,
    aws::truststores::{holds, truststore_of},
    kubernetes::objects::{DOMAIN, create},
    partner_ca::Ca,
    test_env::TestEnv,
};

/// Partners whose authorities come and go.
pub const PARTNERS: usize = 4;

/// Maximum time until everything is in the desired state, once nothing more happens.
pub const DEADLINE: Duration = Duration::from_secs(900);

/// Faults at random calls.
pub const TROUBLES: [(u16, &str, bool); 4] = [
    (429, "TooManyRequestsException", false),
    (500, "InternalFailure", false),
    (503, "ServiceUnavailable", false),
    (0, "", true),
];

/// Current spec of a domain.
#[derive(Clone, Debug, Default)]
pub struct DesiredState {
    pub partners: BTreeSet<usize>,
    pub dual_stack: bool,
    pub paths: BTreeSet<String>,
}

pub struct Soak {
    pub env: TestEnv,
    pub random: fastrand::Rng,
    pub partners: Vec<Ca>,
    pub domains: BTreeMap<String, DesiredState>,
    /// Certificates, and the domain of each.
    pub certificates: BTreeMap<String, String>,
    /// Number of certificates created by the edits.
    pub created: usize,
}

impl Soak {
    pub async fn fill(&mut self, domains: usize, certificates: usize) {
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

    pub fn host(&self, domain: &str) -> String {
        format!("{domain}.{}", self.env.prepared.zone)
    }

    pub fn spec(&self, desired: &DesiredState) -> Value {
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

    pub async fn create(&mut self) {
        let domain = self.any_domain();
        let name = format!("c{}", self.created);
        self.created += 1;
        self.env.create_certificate(&name, &domain).await;
        self.certificates.insert(name, domain);
    }

    pub fn any_domain(&mut self) -> String {
        format!("d{}", self.random.usize(..self.domains.len()))
    }

    pub fn any_certificate(&mut self) -> Option<String> {
        let at = self.random.usize(..self.certificates.len().max(1));
        self.certificates.keys().nth(at).cloned()
    }

    pub async fn something_happens(&mut self) {
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

    pub async fn edit(&mut self) {
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
    pub async fn drift(&mut self) {
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

    pub fn memory(&mut self) -> f64 {
        let id = self.env.operator.process().expect("the operator runs").id();
        memory(id, "VmRSS:")
    }

    /// Waits until every object is Ready with its current spec. Returns the time that this took.
    pub async fn settled(&self) -> Duration {
        let started = Instant::now();
        loop {
            let mut waiting = vec![];
            for kind in ["MtlsDomain", "ClientCertificate"] {
                let objects = crate::support::kubernetes::objects::api(&self.env, kind)
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

    pub async fn becomes_as_desired(&self) {
        let started = Instant::now();
        while let Err(difference) = self.differences().await {
            assert!(started.elapsed() < DEADLINE, "{difference}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Differences from the specs. The operator notices drift of the last moment at the next reconcile only.
    pub async fn differences(&self) -> Result<(), String> {
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

    pub async fn differences_of(&self, name: &str, desired: &DesiredState) -> Result<(), String> {
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

pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, there: T, desired: T) -> Result<(), String> {
    if there == desired {
        Ok(())
    } else {
        Err(format!("{what}: {there:?} and not {desired:?}"))
    }
}
