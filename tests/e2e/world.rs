//! Common start of every test environment: one local world for all tests of this binary; for each test a
//! namespace, an AWS account and an operator of its own, under the rights that the chart ships.
use std::{
    fs::File,
    path::PathBuf,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_acm::types::{Filters, KeyAlgorithm};
use aws_sdk_apigatewayv2::operation::get_domain_name::GetDomainNameOutput;
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecordSet, RrType};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mtls_operator::api::{ClientCertificate, MtlsDomain};
use sandbox::{
    api_proxy::ApiProxy,
    aws::{Account, Options},
    control::{Calls, Control},
    operator::{Operator, OperatorOptions},
    prepare::{Preparation, Prepared, prepare},
    world::World,
};
use tokio::runtime::Runtime;

/// Maximum time of any step, on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(180);

/// Interval between two checks of a condition. On two cores, more frequent checks slow down the processes
/// under test.
const POLL: Duration = Duration::from_millis(200);

/// The world, on a runtime that outlives every test: its edge and DNS server run there.
static WORLD: LazyLock<(World, Runtime, File)> = LazyLock::new(|| {
    std::thread::spawn(|| {
        let runtime = Runtime::new().expect("threads can be started");
        let (dir, lock) = folder().expect("a temporary folder");
        let world = runtime.block_on(async {
            let world = World::start(
                &dir,
                &Options {
                    node: true,
                    ..Options::default()
                },
            )
            .await
            .expect("the local world stands");
            let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds");
            world
                .kubernetes
                .install_crds(&crds)
                .await
                .expect("the CRDs can be installed");
            world
        });
        (world, runtime, lock)
    })
    .join()
    .expect("the world starts")
});

/// Creates a folder for the world, which stays with its logs until the next run, and removes those of earlier
/// runs. The folder is locked while this process lives.
fn folder() -> std::io::Result<(PathBuf, File)> {
    const PREFIX: &str = "mtls-e2e-";
    for other in std::env::temp_dir().read_dir()?.flatten() {
        let lock = File::open(other.path().join("lock"));
        if other.file_name().to_string_lossy().starts_with(PREFIX) && lock.is_ok_and(|l| l.try_lock().is_ok())
        {
            std::fs::remove_dir_all(other.path())?;
        }
    }
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    Ok((dir, lock))
}

/// Runs a test on the runtime of the world, so that no connection that another test uses ends with this one.
pub fn run(test: impl Future<Output = ()>) {
    WORLD.1.block_on(Box::pin(test));
}

/// Share of the world that one test has.
pub struct TestEnv {
    pub namespace: String,
    pub account: Account,
    pub prepared: Prepared,
    pub operator: Operator,
    pub client: Client,
}

pub fn world() -> &'static World {
    &WORLD.0
}

impl TestEnv {
    /// Starts with a hosted zone, a bucket and an API in an account of its own, and the operator running.
    pub async fn start(name: &str) -> TestEnv {
        TestEnv::start_with(name, &[]).await
    }

    /// Starts with these environment variables, which override those that make the operator use this world.
    pub async fn start_with(name: &str, variables: &[(&str, &str)]) -> TestEnv {
        TestEnv::start_among(name, &[], variables).await
    }

    /// Starts with more namespaces that the operator watches; see [`TestEnv::beside`].
    pub async fn start_among(name: &str, beside: &[&str], variables: &[(&str, &str)]) -> TestEnv {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let world = tokio::task::spawn_blocking(world)
            .await
            .expect("the world starts");
        let namespace = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = world.kubernetes.admin();
        world.kubernetes.namespace(&namespace).await.expect("a namespace");
        let account = world.aws.new_account();
        let prepared = prepare(&account, &Preparation::of_its_own(&account))
            .await
            .expect("zone, bucket and API");
        let mut all = world.operator_env(&account, &prepared.bucket);
        all.push(("MTLS_OPERATOR_CLUSTER_ID".into(), "e2e".into()));
        all.push(("MTLS_OPERATOR_DRIFT_INTERVAL".into(), "1s".into()));
        all.push(("MTLS_OPERATOR_TRUSTSTORE_PROPAGATION".into(), "1s".into()));
        all.extend(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let options = OperatorOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_mtls-operator")),
            dir: world.dir.join(&namespace),
            namespace: namespace.clone(),
            watch: [""]
                .iter()
                .chain(beside)
                .map(|other| beside_of(&namespace, other))
                .collect(),
            env: all,
            args: vec![],
        };
        let operator = Operator::start(&world.kubernetes, options)
            .await
            .expect("the operator starts");
        TestEnv {
            namespace,
            account,
            prepared,
            operator,
            client,
        }
    }

    /// Namespace that was requested beside the one of this environment.
    pub fn beside(&self, other: &str) -> String {
        beside_of(&self.namespace, other)
    }

    pub fn domains(&self) -> Api<MtlsDomain> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn certificates(&self) -> Api<ClientCertificate> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `mtls.<the zone of this env>`.
    pub fn host(&self) -> String {
        format!("mtls.{}", self.prepared.zone)
    }

    /// Ownership tag of the MtlsDomain `name` in AWS.
    pub fn owner(&self, name: &str) -> String {
        format!("e2e/{}/{name}", self.namespace)
    }

    // ---- Kubernetes

    /// Creates an MtlsDomain with a generated authority and everything mapped to the prepared API; `spec` is
    /// merged over that.
    pub async fn create_domain(&self, name: &str, spec: serde_json::Value) -> MtlsDomain {
        let mut object = serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": {"name": name},
            "spec": {
                "domainName": self.host(),
                "trust": {"authorities": [{"name": "partners", "generate": {}}]},
                "mappings": [{"path": "", "api": {"id": self.prepared.api_id, "stage": "$default"}}],
            },
        });
        for (field, value) in spec.as_object().expect("a spec is an object") {
            object["spec"][field] = value.clone();
        }
        let object = serde_json::from_value(object).expect("an MtlsDomain");
        self.domains()
            .create(&PostParams::default(), &object)
            .await
            .expect("the MtlsDomain is accepted")
    }

    pub async fn create_certificate(&self, name: &str, domain: &str) -> ClientCertificate {
        let object = serde_json::from_value(serde_json::json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
            "metadata": {"name": name},
            "spec": {"domainRef": {"name": domain}, "subject": {"commonName": name}, "secretName": name},
        }))
        .expect("a ClientCertificate");
        self.certificates()
            .create(&PostParams::default(), &object)
            .await
            .expect("the ClientCertificate is accepted")
    }

    /// Merges `spec` into the spec of an MtlsDomain.
    pub async fn change(&self, name: &str, spec: serde_json::Value) {
        let patch = Patch::Merge(serde_json::json!({"spec": spec}));
        self.domains()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("the change is accepted");
    }

    /// Condition of the MtlsDomain, as soon as it is about the current spec and `wanted` holds.
    pub async fn condition(&self, name: &str, type_: &str, wanted: impl Fn(&Condition) -> bool) -> Condition {
        eventually(&format!("{type_} of {name}"), async || {
            let domain = self.domains().get(name).await.map_err(|e| e.to_string())?;
            let generation = domain.metadata.generation;
            let conditions = domain.status.map(|s| s.conditions).unwrap_or_default();
            let found = conditions
                .iter()
                .find(|c| c.type_ == type_ && c.observed_generation == generation && wanted(c));
            found.cloned().ok_or_else(|| shown(&conditions))
        })
        .await
    }

    /// Waits until the MtlsDomain is Ready with its current spec.
    pub async fn ready(&self, name: &str) -> Condition {
        self.condition(name, "Ready", |c| c.status == "True").await
    }

    pub async fn certificate_ready(&self, name: &str) {
        eventually(&format!("Ready of the certificate {name}"), async || {
            let certificate = self.certificates().get(name).await.map_err(|e| e.to_string())?;
            let generation = certificate.metadata.generation;
            let conditions = certificate.status.map(|s| s.conditions).unwrap_or_default();
            let ready = conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True" && c.observed_generation == generation);
            if ready { Ok(()) } else { Err(shown(&conditions)) }
        })
        .await
    }

    /// Deletes the MtlsDomain and waits until it is gone.
    pub async fn delete_domain(&self, name: &str) {
        self.domains()
            .delete(name, &DeleteParams::default())
            .await
            .expect("the MtlsDomain can be deleted");
        self.domain_gone(name).await;
    }

    pub async fn domain_gone(&self, name: &str) {
        eventually(&format!("the end of {name}"), async || {
            match self.domains().get_opt(name).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(left) => Err(shown(&left.status.map(|s| s.conditions).unwrap_or_default())),
            }
        })
        .await
    }

    // ---- the journal

    pub fn control(&self) -> &'static Control {
        world().aws.control()
    }

    /// Number of the last AWS call so far.
    pub async fn mark(&self) -> u64 {
        let none = Calls {
            account: "none",
            ..Calls::default()
        };
        self.control().calls(&none).await.expect("the journal").last
    }

    /// Writes of this account after `mark`: the operation, then for Route 53 the changes, as in
    /// `ChangeResourceRecordSets CREATE A mtls.example.com`.
    pub async fn writes(&self, mark: u64) -> Vec<String> {
        let which = Calls {
            account: &self.account.id,
            since: mark,
            writes: true,
            ..Calls::default()
        };
        let journal = self.control().calls(&which).await.expect("the journal");
        let line = |c: sandbox::control::Call| {
            // The caller chooses whether names end with a dot.
            let changes = c
                .detail
                .iter()
                .map(|change| format!(" {}", change.trim_end_matches('.')));
            changes.fold(c.operation, |line, change| line + &change)
        };
        journal.calls.into_iter().map(line).collect()
    }

    /// Waits until the operator has made `count` whole reconciles from now on. Each reconcile reads the
    /// domain: by its name, or in the list of all when it expects no change; and by its name again if the
    /// list shows one.
    pub async fn reconciles(&self, count: usize) {
        let mark = self.mark().await;
        eventually(&format!("{count} more reconciles"), async || {
            let which = Calls {
                account: &self.account.id,
                since: mark,
                service: "apigatewayv2",
                ..Calls::default()
            };
            let calls = self
                .control()
                .calls(&which)
                .await
                .map_err(|e| e.to_string())?
                .calls;
            let seen = calls
                .iter()
                .filter(|c| ["GetDomainName", "GetDomainNames"].contains(&c.operation.as_str()));
            let seen = seen.count();
            // The first reconcile may have begun before the mark, the last may be under way, and one may have
            // read the domain twice.
            if seen >= count + 3 {
                Ok(())
            } else {
                Err(format!("{seen} reads of the domain"))
            }
        })
        .await
    }

    /// Waits until the fault rule holds a call.
    pub async fn holds(&self, rule: u64, what: &str) {
        eventually(&format!("{what}: the call"), async || {
            let faults = self.control().faults().await.map_err(|e| e.to_string())?;
            let state = faults
                .into_iter()
                .find(|f| f.id == rule)
                .ok_or("the rule is gone")?;
            if state.held > 0 {
                Ok(())
            } else {
                Err(format!("{state:?}"))
            }
        })
        .await;
    }

    /// Waits until the fault rule holds a call, kills the operator in the middle of it, and starts it again.
    pub async fn kill_at(&mut self, rule: u64, what: &str) {
        self.holds(rule, what).await;
        self.operator.kill();
        self.control().remove_fault(rule).await.unwrap();
        self.operator.restart().unwrap();
    }

    /// Deletes the Lease of an operator that was killed, so that the next operator need not wait until it
    /// runs out.
    pub async fn end_lease(&self) {
        let leases = Api::<Lease>::namespaced(self.client.clone(), &self.namespace);
        let _ = leases.delete("mtls-operator", &DeleteParams::default()).await; // none yet is fine
    }

    // ---- AWS

    pub fn gateway(&self) -> aws_sdk_apigatewayv2::Client {
        aws_sdk_apigatewayv2::Client::new(&self.account.sdk())
    }

    pub fn route53(&self) -> aws_sdk_route53::Client {
        aws_sdk_route53::Client::new(&self.account.sdk())
    }

    pub fn acm(&self) -> aws_sdk_acm::Client {
        aws_sdk_acm::Client::new(&self.account.sdk())
    }

    pub fn s3(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::new(&self.account.sdk())
    }

    /// Custom domain with the name of [`TestEnv::host`].
    pub async fn gateway_domain(&self) -> GetDomainNameOutput {
        self.gateway()
            .get_domain_name()
            .domain_name(self.host())
            .send()
            .await
            .expect("the custom domain")
    }

    /// Names of all custom domains of the account.
    pub async fn gateway_domains(&self) -> Vec<String> {
        let all = self
            .gateway()
            .get_domain_names()
            .send()
            .await
            .expect("GetDomainNames");
        all.items()
            .iter()
            .filter_map(|d| d.domain_name().map(str::to_owned))
            .collect()
    }

    /// Mappings of the custom domain, sorted: path, API, stage.
    pub async fn mapped(&self) -> Vec<(String, String, String)> {
        let all = self
            .gateway()
            .get_api_mappings()
            .domain_name(self.host())
            .send()
            .await
            .expect("GetApiMappings");
        let text = |t: Option<&str>| t.unwrap_or_default().trim_start_matches("(none)").to_owned();
        let mut mapped: Vec<_> = all
            .items()
            .iter()
            .map(|m| (text(m.api_mapping_key()), text(m.api_id()), text(m.stage())))
            .collect();
        mapped.sort();
        mapped
    }

    pub async fn mapping_id(&self, path: &str) -> String {
        let all = self
            .gateway()
            .get_api_mappings()
            .domain_name(self.host())
            .send()
            .await
            .expect("GetApiMappings");
        let found = all
            .items()
            .iter()
            .find(|m| m.api_mapping_key().unwrap_or_default() == path);
        found
            .and_then(|m| m.api_mapping_id())
            .expect("the mapping is there")
            .to_owned()
    }

    /// True when the default endpoint of the prepared API is closed.
    pub async fn endpoint_closed(&self) -> bool {
        let api = self
            .gateway()
            .get_api()
            .api_id(&self.prepared.api_id)
            .send()
            .await
            .expect("GetApi");
        api.disable_execute_api_endpoint().unwrap_or_default()
    }

    /// Record sets of the zone but its own NS and SOA.
    pub async fn records(&self) -> Vec<ResourceRecordSet> {
        let request = self
            .route53()
            .list_resource_record_sets()
            .hosted_zone_id(&self.prepared.zone_id);
        let all = request
            .send()
            .await
            .expect("ListResourceRecordSets")
            .resource_record_sets;
        all.into_iter()
            .filter(|r| !matches!(r.r#type, RrType::Ns | RrType::Soa))
            .collect()
    }

    /// Record of that type at [`TestEnv::host`].
    pub async fn record(&self, kind: RrType) -> Option<ResourceRecordSet> {
        let name = format!("{}.", self.host());
        self.records()
            .await
            .into_iter()
            .find(|r| r.name == name && r.r#type == kind)
    }

    pub async fn change_record(&self, action: ChangeAction, record: ResourceRecordSet) {
        let change = Change::builder()
            .action(action)
            .resource_record_set(record)
            .build()
            .expect("a change");
        let batch = ChangeBatch::builder().changes(change).build().expect("a batch");
        let request = self
            .route53()
            .change_resource_record_sets()
            .hosted_zone_id(&self.prepared.zone_id);
        request
            .change_batch(batch)
            .send()
            .await
            .expect("the record can be changed");
    }

    /// ARNs of all certificates of the account, sorted.
    pub async fn server_certificates(&self) -> Vec<String> {
        let kinds = [
            KeyAlgorithm::EcPrime256v1,
            KeyAlgorithm::EcSecp384r1,
            KeyAlgorithm::Rsa2048,
            KeyAlgorithm::Rsa4096,
        ];
        let includes = Filters::builder().set_key_types(Some(kinds.to_vec())).build();
        let all = self
            .acm()
            .list_certificates()
            .includes(includes)
            .into_paginator()
            .items()
            .send();
        let all = all
            .collect::<Result<Vec<_>, _>>()
            .await
            .expect("ListCertificates");
        let mut arns: Vec<_> = all.into_iter().filter_map(|c| c.certificate_arn).collect();
        arns.sort();
        arns
    }

    /// Versions of all objects in the bucket, newest first; delete markers do not count.
    pub async fn object_versions(&self) -> Vec<String> {
        let all = self
            .s3()
            .list_object_versions()
            .bucket(&self.prepared.bucket)
            .send()
            .await;
        let all = all.expect("ListObjectVersions");
        all.versions()
            .iter()
            .filter_map(|v| v.version_id().map(str::to_owned))
            .collect()
    }

    // ---- callers

    /// Calls `https://<host><path>` at the edge as a caller would.
    pub async fn call(&self, host: &str, path: &str, identity: Option<&Identity>) -> Answer {
        self.call_with(host, path, identity, &[]).await
    }

    /// Calls as [`TestEnv::call`] does, with more options of curl.
    pub async fn call_with(
        &self,
        host: &str,
        path: &str,
        identity: Option<&Identity>,
        options: &[&str],
    ) -> Answer {
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
            "--cacert",
        ])
        .arg(world().ca_file());
        curl.arg("--connect-to")
            .arg(format!("{host}:443:{}", world().edge.address()));
        let dir = tempfile::tempdir().expect("a temporary folder");
        if let Some(Identity { certificate, key }) = identity {
            for (option, file, content) in [("--cert", "tls.crt", certificate), ("--key", "tls.key", key)] {
                let file = dir.path().join(file);
                std::fs::write(&file, content).expect("a file");
                curl.arg(option).arg(file);
            }
        }
        let out = curl
            .args(options)
            .arg(format!("https://{host}{path}"))
            .output()
            .await
            .expect("curl runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').expect("curl writes the status");
        let body = if status == "000" {
            String::from_utf8_lossy(&out.stderr).into_owned()
        } else {
            body.to_owned()
        };
        Answer {
            status: status.parse().expect("a number"),
            body,
        }
    }

    /// Identity in a Secret of type kubernetes.io/tls.
    pub async fn identity(&self, secret: &str) -> Identity {
        let data = self
            .secrets()
            .get(secret)
            .await
            .expect("the Secret")
            .data
            .unwrap_or_default();
        Identity {
            certificate: data["tls.crt"].0.clone(),
            key: data["tls.key"].0.clone(),
        }
    }
}

/// Environment whose operator talks to the API server through a proxy.
pub async fn through_proxy(name: &str) -> (TestEnv, ApiProxy) {
    through_proxy_with(TestEnv::start(name).await).await
}

/// Puts that proxy into an environment that has started, and has no objects yet.
pub async fn through_proxy_with(mut env: TestEnv) -> (TestEnv, ApiProxy) {
    let proxy = ApiProxy::start(world().kubernetes.admin_config())
        .await
        .expect("a proxy");
    env.operator.kill();
    env.operator
        .go_through(&proxy.url())
        .expect("its kubeconfig can be written");
    env.end_lease().await;
    env.operator.restart().expect("the operator starts");
    (env, proxy)
}

fn beside_of(namespace: &str, other: &str) -> String {
    if other.is_empty() {
        namespace.into()
    } else {
        format!("{namespace}-{other}")
    }
}

/// Client certificate and its key, PEM.
pub struct Identity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// Answer to a caller; status 0 is no answer at all, with curl's message.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Conditions, one a line, for the message of a test that fails.
fn shown(conditions: &[Condition]) -> String {
    let line = |c: &Condition| {
        format!(
            "\n  {}={} {} (generation {:?}): {}",
            c.type_, c.status, c.reason, c.observed_generation, c.message
        )
    };
    conditions.iter().map(line).collect()
}

/// Repeats the check until it succeeds; panics with its last error when it takes too long.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match check().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > DEADLINE => {
                panic!(
                    "{what}: not within {DEADLINE:?}; logs are in {}; last seen: {seen}",
                    world().dir.display()
                )
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
