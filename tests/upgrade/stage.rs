//! Local world that a recorded one is made in and restored into, with one operator for all of its namespaces:
//! Kubernetes, the AWS emulator, the edge, and callers.
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use sandbox::{
    aws::{Account, Options},
    control::{Calls, Control},
    echo::Echo,
    operator::{Operator, OperatorOptions, SERVICE_ACCOUNT, grant},
    process::free_port,
    world::World,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

/// Account that everything is in, and the account of another owner, whose zone the operator cannot see.
pub const ACCOUNT: &str = "123456789012";
pub const REGISTRAR: &str = "210987654321";
/// Cluster id in every ownership tag of the recorded AWS.
pub const CLUSTER_ID: &str = "upgrade";
pub const BUCKET: &str = "truststores-123456789012";
/// Namespace of the operator itself, which is not recorded.
const OPERATOR: &str = "mtls-operator";
/// Placeholder in the recorded AWS for the URL of the back end, which has another port each time.
const BACKEND: &str = "http://backend.invalid";
/// Full resync interval: short, so that all of AWS is read several times in a test.
const DRIFT_INTERVAL: &str = "5s";
/// Maximum time of any step, on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(200);

/// Kinds of Kubernetes objects in the record, owners before the objects that they own.
pub const KINDS: [(&str, &str, &str); 6] = [
    ("", "v1", "Namespace"),
    ("", "v1", "ConfigMap"),
    ("mtls-operator.io", "v1alpha1", "MtlsDomain"),
    ("mtls-operator.io", "v1alpha1", "ClientGrant"),
    ("mtls-operator.io", "v1alpha1", "ClientCertificate"),
    ("", "v1", "Secret"),
];

pub struct Stage {
    pub world: World,
    pub account: Account,
    pub registrar: Account,
    pub client: Client,
    pub echo: Echo,
    /// Address at which the operator serves its metrics.
    listen: String,
    dir: TempDir,
}

impl Stage {
    /// Starts without CRDs, objects and operator, and with an empty AWS.
    pub async fn start() -> Stage {
        let dir = tempfile::Builder::new()
            .prefix("mtls-upgrade-")
            .tempdir()
            .expect("a temporary folder");
        let options = Options {
            node: true,
            ..Options::default()
        };
        let world = World::start(dir.path(), &options)
            .await
            .expect("the local world stands");
        let (account, registrar) = (world.aws.account(ACCOUNT), world.aws.account(REGISTRAR));
        let client = world.kubernetes.admin();
        let echo = Echo::start().await.expect("a back end");
        let listen = format!("127.0.0.1:{}", free_port().expect("a port"));
        Stage {
            world,
            account,
            registrar,
            client,
            echo,
            listen,
            dir,
        }
    }

    pub fn control(&self) -> &Control {
        self.world.aws.control()
    }

    /// Operator for these namespaces, which does not run yet.
    pub async fn operator(&self, namespaces: &[String]) -> Operator {
        let mut env = self.world.operator_env(&self.account, BUCKET);
        let settings = [
            ("CLUSTER_ID", CLUSTER_ID),
            ("DRIFT_INTERVAL", DRIFT_INTERVAL),
            ("TRUSTSTORE_PROPAGATION", "1s"),
            ("LISTEN", &self.listen),
        ];
        env.extend(settings.map(|(name, value)| (format!("MTLS_OPERATOR_{name}"), value.to_owned())));
        let options = OperatorOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_mtls-operator")),
            dir: self.dir.path().join("operator"),
            namespace: OPERATOR.to_owned(),
            watch: namespaces.to_vec(),
            env,
            args: vec![],
        };
        Operator::prepare(&self.world.kubernetes, SERVICE_ACCOUNT, options)
            .await
            .expect("a kubeconfig")
    }

    /// Gives an operator access to these namespaces, by the rights that the chart ships.
    pub async fn grant(&self, namespaces: &[String]) {
        grant(&self.world.kubernetes, OPERATOR, namespaces)
            .await
            .expect("the operator's rights");
    }

    /// Series that the operator shows.
    pub async fn series(&self) -> Result<Vec<String>, String> {
        let answer = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = answer
            .get(format!("http://{}/metrics", self.listen))
            .send()
            .await
            .map_err(|e| e.to_string())?;
        let text = answer.text().await.map_err(|e| e.to_string())?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect())
    }

    /// Sum of these series of a controller (empty: of all).
    pub async fn counted(&self, series: &str, controller: &str) -> Result<f64, String> {
        let label = format!("controller=\"{controller}");
        let all = self.series().await?;
        let of_it = all
            .iter()
            .filter(|line| line.starts_with(series) && line.contains(&label));
        Ok(of_it
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Objects of these namespaces that the record has, in an order that depends on names alone.
    pub async fn objects(&self, namespaces: &[String]) -> Vec<Value> {
        let mut all = vec![];
        for (group, version, kind) in KINDS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            let found = api.list(&ListParams::default()).await.expect("a list").items;
            let of_ours = |o: &DynamicObject| {
                let place = o.metadata.namespace.as_ref().or(o.metadata.name.as_ref());
                place.is_some_and(|place| namespaces.contains(place))
            };
            let mut found: Vec<_> = found.into_iter().filter(of_ours).collect();
            found.sort_by_key(|o| (o.metadata.namespace.clone(), o.metadata.name.clone()));
            all.extend(found.into_iter().map(|object| {
                let mut object = serde_json::to_value(object).expect("JSON");
                object["apiVersion"] = resource.api_version.clone().into();
                object["kind"] = kind.into();
                object
            }));
        }
        all
    }

    /// Number of the last AWS call so far.
    pub async fn last_call(&self) -> u64 {
        let none = Calls {
            account: "none",
            ..Calls::default()
        };
        self.control().calls(&none).await.expect("the journal").last
    }

    /// Dump of both accounts, with [`BACKEND`] in place of the back end's URL.
    pub async fn dump(&self) -> Vec<Value> {
        let mut dumps = vec![];
        for account in [ACCOUNT, REGISTRAR] {
            let dump = self.control().dump(account).await.expect("a dump");
            dumps.push(
                serde_json::from_str(&dump.to_string().replace(&self.echo.url(), BACKEND)).expect("JSON"),
            );
        }
        dumps
    }

    pub async fn load(&self, dumps: &[Value]) {
        for dump in dumps {
            let dump = dump.to_string().replace(BACKEND, &self.echo.url());
            self.control()
                .load(&serde_json::from_str(&dump).expect("JSON"))
                .await
                .expect("the emulator takes its dump");
        }
    }

    /// HTTP status that a caller gets at `https://<host><path>`; 0 is no answer at all.
    pub async fn call(&self, host: &str, path: &str, identity: Option<&Identity>) -> u16 {
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "--silent",
            "--noproxy",
            "*",
            "--max-time",
            "60",
            "--output",
            "/dev/null",
        ])
        .args(["--write-out", "%{http_code}", "--cacert"])
        .arg(self.world.ca_file())
        .args([
            "--connect-to",
            &format!("{host}:443:{}", self.world.edge.address()),
        ]);
        let dir = tempfile::tempdir().expect("a temporary folder");
        if let Some(Identity { certificate, key }) = identity {
            for (option, content) in [("--cert", certificate), ("--key", key)] {
                let file = dir.path().join(option);
                std::fs::write(&file, content).expect("a file");
                curl.arg(option).arg(file);
            }
        }
        let out = curl
            .arg(format!("https://{host}{path}"))
            .output()
            .await
            .expect("curl runs");
        String::from_utf8_lossy(&out.stdout)
            .parse()
            .expect("curl writes the status")
    }
}

/// Client certificate (leaf first) and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// Caller at the time when the world was recorded, and the status that the caller got.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Caller {
    pub name: String,
    pub host: String,
    pub path: String,
    pub identity: Identity,
    pub status: u16,
}

/// `<namespace>/<name>`.
pub fn full_name(object: &Value) -> String {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"))
}

pub fn of_kind<'o>(objects: &'o [Value], kind: &str) -> impl Iterator<Item = &'o Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Repeats the check until it succeeds; panics with its last error when it takes too long.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match check().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > DEADLINE => {
                panic!("{what}: not within {DEADLINE:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
