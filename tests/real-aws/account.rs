//! Account of the suite: the one that `REAL_AWS_ACCOUNT` and `REAL_AWS_ZONE` name, or an account of the AWS
//! emulator. Also calls of its endpoints, and the maximum times there.
use std::{
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use kube::Client;
use sandbox::{
    aws::{Options, REGION},
    control::Control,
    kubernetes::Kubernetes,
    operator::{Operator, OperatorOptions},
    prepare::hosted_zone,
    world::World,
};

use crate::credentials::CredentialsEndpoint;

/// Rights of the credentials: those of the operator and of the suite.
const POLICY: &str = include_str!("policy.json");
/// Prefix of all names that any run makes.
pub const ALL_RUNS: &str = "mtls-real-";
/// Cluster in the operator's ownership tags, in every run.
const NAMESPACE: &str = "real-aws";

pub struct Account {
    pub id: String,
    pub region: String,
    pub sdk: SdkConfig,
    pub zone: String,
    pub zone_id: String,
    /// Prefix of all names that this run makes.
    pub run: String,
    /// Maximum time of any step.
    pub timeout: Duration,
    dir: PathBuf,
    operator_env: Vec<(String, String)>,
    /// None for keys without an end, which the operator has in its environment.
    credentials: Option<CredentialsEndpoint>,
    place: Place,
}

enum Place {
    Real(Box<Kubernetes>),
    Local(Box<World>),
}

/// Client certificate and its key, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl Account {
    pub async fn open(dir: &Path) -> Account {
        let account = match (setting("REAL_AWS_ACCOUNT"), setting("REAL_AWS_ZONE")) {
            (Some(id), Some(zone)) => Account::real(dir, id, zone).await,
            (None, None) => Account::local(dir).await,
            _ => panic!(
                "set REAL_AWS_ACCOUNT (12 digits) and REAL_AWS_ZONE (a public hosted zone's name), or neither"
            ),
        };
        account
            .kubernetes()
            .install_crds(&root().join("crds"))
            .await
            .expect("the CRDs can be installed");
        account
            .kubernetes()
            .namespace(NAMESPACE)
            .await
            .expect("a namespace");
        account
    }

    /// Opens the account with the credentials and the Region of the environment. They must be those of the
    /// named account: the suite may do nothing to another.
    async fn real(dir: &Path, id: String, zone: String) -> Account {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        let sdk = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .load()
            .await;
        let region = sdk.region().expect("no Region: set AWS_REGION").to_string();
        let caller = aws_sdk_sts::Client::new(&sdk)
            .get_caller_identity()
            .send()
            .await
            .expect("credentials that work");
        let whose = caller.account.unwrap_or_default();
        assert_eq!(
            whose, id,
            "the credentials are of account {whose}, REAL_AWS_ACCOUNT names {id}"
        );
        let zones = aws_sdk_route53::Client::new(&sdk)
            .list_hosted_zones_by_name()
            .dns_name(&zone)
            .send()
            .await;
        let zones = zones.expect("ListHostedZonesByName").hosted_zones;
        let is_it = |z: &&aws_sdk_route53::types::HostedZone| {
            z.name.trim_end_matches('.') == zone && !z.config.as_ref().is_some_and(|c| c.private_zone)
        };
        let zone_id = zones
            .iter()
            .find(is_it)
            .expect("the account has the public hosted zone of REAL_AWS_ZONE")
            .id();
        let zone_id = zone_id.trim_start_matches("/hostedzone/").to_owned();
        let provider = sdk.credentials_provider().expect("there are credentials");
        let keys = provider.provide_credentials().await.expect("credentials");
        let mut operator_env = vec![
            ("AWS_REGION".to_owned(), region.clone()),
            ("MTLS_OPERATOR_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ];
        let credentials = match keys.session_token() {
            // Temporary: an hour, as a rule, which is less than a run takes.
            Some(_) => Some(CredentialsEndpoint::start(provider, Duration::from_secs(900)).await),
            None => {
                operator_env.extend([
                    ("AWS_ACCESS_KEY_ID".to_owned(), keys.access_key_id().to_owned()),
                    (
                        "AWS_SECRET_ACCESS_KEY".to_owned(),
                        keys.secret_access_key().to_owned(),
                    ),
                ]);
                None
            }
        };
        let kubernetes = Kubernetes::start(dir).await.expect("a local Kubernetes");
        Account {
            id,
            region,
            sdk,
            zone,
            zone_id,
            run: run(),
            timeout: Duration::from_secs(90 * 60),
            dir: dir.to_owned(),
            operator_env,
            credentials,
            place: Place::Real(Box::new(kubernetes)),
        }
    }

    async fn local(dir: &Path) -> Account {
        let world = World::start(dir, &Options::default())
            .await
            .expect("the local world stands");
        let account = world.aws.new_account();
        let zone = format!("z{}.example.com", account.id);
        let zone_id = hosted_zone(&account, &zone).await.expect("a hosted zone");
        let policy = serde_json::from_str(POLICY).expect("JSON");
        let allowed = Control::new(world.aws.endpoint())
            .allow(&account.id, &policy)
            .await;
        allowed.expect("a policy that the emulator knows");
        // The SDK renews credentials ten seconds before their end.
        let keys = Credentials::new(&account.id, "sandbox", Some("token".into()), None, "sandbox");
        let provider = SharedCredentialsProvider::new(keys);
        let credentials = CredentialsEndpoint::start(provider, Duration::from_secs(15)).await;
        let mut operator_env = world.operator_env(&account, "");
        operator_env.retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
        Account {
            id: account.id.clone(),
            region: REGION.to_owned(),
            sdk: account.sdk(),
            zone,
            zone_id,
            run: run(),
            timeout: Duration::from_secs(60),
            dir: dir.to_owned(),
            operator_env,
            credentials: Some(credentials),
            place: Place::Local(Box::new(world)),
        }
    }

    pub fn place(&self) -> String {
        let where_ = match self.place {
            Place::Real(_) => "the real account",
            Place::Local(_) => {
                "an account of the AWS emulator (REAL_AWS_ACCOUNT and REAL_AWS_ZONE are not set)"
            }
        };
        format!(
            "{where_} {} in {}, zone {}, names {}*",
            self.id, self.region, self.zone, self.run
        )
    }

    /// How often the operator took its credentials; `None` when it has them in its environment.
    pub fn credentials_taken(&self) -> Option<usize> {
        self.credentials.as_ref().map(CredentialsEndpoint::answers)
    }

    fn kubernetes(&self) -> &Kubernetes {
        match &self.place {
            Place::Real(kubernetes) => kubernetes,
            Place::Local(world) => &world.kubernetes,
        }
    }

    pub fn client(&self) -> Client {
        self.kubernetes().admin()
    }

    pub fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    /// Name of this run in the zone.
    pub fn host(&self, name: &str) -> String {
        format!("{}-{name}.{}", self.run, self.zone)
    }

    pub async fn operator(&self) -> Operator {
        let mut env = self.operator_env.clone();
        env.extend(
            self.credentials
                .iter()
                .flat_map(CredentialsEndpoint::env)
                .cloned(),
        );
        env.push(("MTLS_OPERATOR_CLUSTER_ID".into(), self.run.clone()));
        env.push(("MTLS_OPERATOR_TRUSTSTORE_BUCKET".into(), self.run.clone()));
        let options = OperatorOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_mtls-operator")),
            dir: self.dir.join("operator"),
            namespace: NAMESPACE.into(),
            watch: vec![NAMESPACE.into()],
            env,
            args: vec![],
        };
        Operator::start(self.kubernetes(), options)
            .await
            .expect("the operator starts")
    }

    /// HTTP status of `https://<host><path>`, requested from `front`, which is a host too; "000" when there
    /// was no answer.
    pub async fn status(
        &self,
        host: &str,
        front: &str,
        path: &str,
        caller: Option<&Identity>,
        more: &[&str],
    ) -> String {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "--silent",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        let front = match &self.place {
            Place::Real(_) => format!("{front}:443"),
            Place::Local(world) => {
                curl.arg("--cacert").arg(world.ca_file());
                world.edge.address().to_string()
            }
        };
        curl.arg("--connect-to").arg(format!("::{front}"));
        if let Some(caller) = caller {
            for (option, name, content) in [
                ("--cert", "crt", &caller.certificate),
                ("--key", "key", &caller.key),
            ] {
                let file = dir.path().join(name);
                std::fs::write(&file, content).expect("a file");
                curl.arg(option).arg(file);
            }
        }
        let out = curl
            .args(more)
            .arg(format!("https://{host}{path}"))
            .output()
            .await
            .expect("curl is there");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Waits until the status is this one, and checks that it stays so for a minute (less on the emulator):
    /// AWS spreads a change over many machines, which for a while answer differently.
    pub async fn settles(&self, what: &str, expected: &str, status: impl AsyncFn() -> String) {
        self.eventually(what, async || {
            let seen = status().await;
            if seen == expected { Ok(()) } else { Err(seen) }
        })
        .await;
        let since = Instant::now();
        while since.elapsed() < self.timeout / 90 {
            tokio::time::sleep(self.timeout / 900).await;
            assert_eq!(
                status().await,
                expected,
                "{what}: it was so {:?} ago",
                since.elapsed()
            );
        }
    }

    /// Repeats the check until it succeeds; panics with its last error when it takes too long.
    pub async fn eventually<T>(&self, what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
        let started = Instant::now();
        loop {
            match check().await {
                Ok(found) => return found,
                Err(seen) if started.elapsed() > self.timeout => {
                    panic!("{what}: not within {:?}; last seen: {seen}", self.timeout)
                }
                Err(_) => tokio::time::sleep(self.timeout / 600).await,
            }
        }
    }
}

fn run() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    format!("{ALL_RUNS}{now:x}")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
