//! Environment of one test: a namespace, an AWS account and an operator of its own, under the rights that the
//! chart ships.
use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use mtls_operator::api::{ClientCertificate, MtlsDomain};
use sandbox::{
    api_proxy::ApiProxy,
    aws::Account,
    operator::{Operator, OperatorOptions},
    prepare::{Preparation, Prepared, prepare},
};

use super::{machine_share::Share, world::world};

/// Share of the world that one test has.
pub struct TestEnv {
    pub namespace: String,
    pub account: Account,
    pub prepared: Prepared,
    pub operator: Operator,
    pub client: Client,
    /// Dropped last, after the operator.
    _share: Share,
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
        TestEnv::start_at(Share::shared().await, name, beside, variables).await
    }

    /// Starts while no other environment runs, for a test that measures time.
    pub async fn start_alone(name: &str, beside: &[&str], variables: &[(&str, &str)]) -> TestEnv {
        TestEnv::start_at(Share::alone().await, name, beside, variables).await
    }

    async fn start_at(share: Share, name: &str, beside: &[&str], variables: &[(&str, &str)]) -> TestEnv {
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
            _share: share,
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
}

pub fn beside_of(namespace: &str, other: &str) -> String {
    if other.is_empty() {
        namespace.into()
    } else {
        format!("{namespace}-{other}")
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
