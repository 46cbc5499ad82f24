//! What every whole life starts from: one local world for all tests of this binary; for each test a namespace, an AWS account and an
//! operator of its own, under the rights that the chart ships.
use std::{
    future::Future,
    path::PathBuf,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use mtls_operator::api::{ClientCertificate, MtlsDomain};
use sandbox::{
    aws::{Account, Options},
    operator::{Operator, OperatorOptions},
    prepare::{Preparation, Prepared, prepare},
    world::World,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take, on a machine that does much else.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The world, on a runtime that outlives every test: its edge and DNS server run there.
pub static WORLD: LazyLock<(World, TempDir, Runtime)> = LazyLock::new(|| {
    std::thread::spawn(|| {
        let runtime = Runtime::new().expect("threads can be started");
        let dir = tempfile::Builder::new().prefix("mtls-lives-").tempdir().expect("a temporary folder");
        let world = runtime.block_on(async {
            let world = World::start(dir.path(), &Options::default()).await.expect("the local world stands");
            let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds");
            world.kubernetes.install_crds(&crds).await.expect("the CRDs can be installed");
            world
        });
        (world, dir, runtime)
    })
    .join()
    .expect("the world starts")
});

/// One test's share of the world.
pub struct Life {
    pub namespace: String,
    pub account: Account,
    pub prepared: Prepared,
    pub operator: Operator,
    pub client: Client,
}

pub fn world() -> &'static World {
    &WORLD.0
}

impl Life {
    /// With a hosted zone, a bucket and an API in an account of its own, and the operator running.
    pub async fn start(name: &str) -> Life {
        Life::start_with(name, &[]).await
    }

    /// `env` comes after what makes the operator use this world, and wins.
    pub async fn start_with(name: &str, env: &[(&str, &str)]) -> Life {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let world = tokio::task::spawn_blocking(world).await.expect("the world starts");
        let namespace = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = world.kubernetes.admin();
        world.kubernetes.namespace(&namespace).await.expect("a namespace");
        let account = world.aws.new_account();
        let prepared = prepare(&account, &Preparation::of_its_own(&account)).await.expect("zone, bucket and API");
        let mut all = world.operator_env(&account, &prepared.bucket).expect("a free port");
        all.push(("MTLS_OPERATOR_CLUSTER_ID".into(), "lives".into()));
        all.push(("MTLS_OPERATOR_DRIFT_INTERVAL".into(), "1s".into()));
        all.extend(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let options = OperatorOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_mtls-operator")),
            dir: world.dir.join(&namespace),
            namespace: namespace.clone(),
            watch: vec![namespace.clone()],
            env: all,
            args: vec![],
        };
        let operator = Operator::start(&world.kubernetes, options).await.expect("the operator starts");
        Life { namespace, account, prepared, operator, client }
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

    /// `mtls.<the zone of this life>`.
    pub fn host(&self) -> String {
        format!("mtls.{}", self.prepared.zone)
    }
}

/// Asks again and again until there is an answer; panics with the last thing that was seen when it takes too long.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > DEADLINE => panic!("{what}: not within {DEADLINE:?}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
