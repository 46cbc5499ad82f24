//! A Kubernetes API with nothing behind it: etcd, kube-apiserver, and kube-controller-manager with the two controllers that
//! make deletion real (garbage collector, namespaces). Everything lives in one folder and on the loopback address.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::{conditions, wait};
use kube::{Client, ResourceExt};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::json;
use tokio::sync::Mutex;

use crate::process::{self, Process, free_port};
use crate::tools;

/// For each of the three processes, on a machine that is busy with other things.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// How often a port that was free a moment ago may turn out to be taken.
const PORT_ATTEMPTS: usize = 5;
/// Tokens of service accounts outlive every sandbox.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;
const FIELD_MANAGER: &str = "sandbox";

/// Why there is no Kubernetes, or why it did not take something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Tools(#[from] tools::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error("cannot use {path}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{dir} is in use by another sandbox", dir = dir.display())]
    InUse { dir: PathBuf },
    #[error("cannot make the keys and certificates of the API server")]
    Certificates(#[from] rcgen::Error),
    #[error("cannot make random numbers")]
    Random(#[from] openssl::error::ErrorStack),
    #[error("the kubeconfig that was just written is not understood")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("cannot {doing}")]
    Request {
        doing: String,
        #[source]
        source: kube::Error,
    },
    #[error("{path} is not YAML", path = path.display())]
    Yaml {
        path: PathBuf,
        #[source]
        source: serde_saphyr::Error,
    },
    #[error("{path} has something in it that is no CustomResourceDefinition", path = path.display())]
    NotACrd { path: PathBuf },
    #[error("the API server does not serve {0}")]
    NotServed(String),
}

/// A running Kubernetes API. Dropping it ends all of its processes; its folder stays, with the logs in it.
#[derive(Debug)]
pub struct Kubernetes {
    /// Of an administrator (group system:masters), with everything embedded.
    pub kubeconfig: PathBuf,
    dir: PathBuf,
    server: String,
    ca: String,
    config: Config,
    // Dropped in this order: those that depend on others first.
    controllers: Mutex<Process>,
    _api_server: Process,
    _etcd: Process,
    _lock: File,
}

impl Kubernetes {
    /// Starts one in `dir`, from nothing: what an earlier one left there is removed, but for the logs. On a machine that
    /// has the programs already this takes seconds; see [`tools::link_into`].
    ///
    /// # Errors
    /// All of [`Error`]; those of a process quote the end of its log.
    pub async fn start(dir: &Path) -> Result<Self, Error> {
        let dir = std::path::absolute(dir).map_err(io_error(dir))?;
        fs::create_dir_all(&dir).map_err(io_error(&dir))?;
        let lock = take(&dir)?;
        let bin = dir.join("bin");
        tokio::task::spawn_blocking(move || tools::link_into(&bin))
            .await
            .expect("linking programs does not panic")?;

        let credentials = Credentials::write(&dir)?;
        let etcd = start_etcd(&dir).await?;
        let (api_server, server) = start_api_server(&dir, &credentials).await?;
        let kubeconfig = dir.join("kubeconfig");
        let config = write_kubeconfig(
            &kubeconfig,
            &server,
            &credentials.ca,
            &credentials.admin_token,
            "default",
        )
        .await?;
        let controllers = start_controllers(&dir).await?;
        Ok(Self {
            kubeconfig,
            dir,
            server,
            ca: credentials.ca,
            config,
            controllers: Mutex::new(controllers),
            _api_server: api_server,
            _etcd: etcd,
            _lock: lock,
        })
    }

    /// A new client with the administrator's rights. It belongs to the async runtime that calls this.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client::try_from(self.config.clone())
            .expect("a client of this configuration has been made before")
    }

    /// A folder for PATH: kubectl, and what else the sandbox runs.
    #[must_use]
    pub fn bin_dir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Makes sure that the namespace is there.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn namespace(&self, name: &str) -> Result<(), Error> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let namespaces = Api::<Namespace>::all(self.admin());
        let applied = namespaces
            .patch(
                name,
                &PatchParams::apply(FIELD_MANAGER),
                &Patch::Apply(object),
            )
            .await;
        applied
            .map(|_| ())
            .map_err(request(format!("create the namespace {name}")))
    }

    /// Applies every CustomResourceDefinition in a YAML file, or in the *.yaml files of a folder, and waits until kubectl
    /// and the garbage collector know them.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Yaml`], [`Error::NotACrd`], [`Error::Request`] when the API server refuses one, and
    /// [`Error::NotServed`].
    pub async fn install_crds(&self, path: &Path) -> Result<(), Error> {
        let crds = Api::<CustomResourceDefinition>::all(self.admin());
        let mut new = false;
        for crd in read_crds(path)? {
            let name = crd["metadata"]["name"].as_str().unwrap_or_default();
            let failed =
                |source| request(format!("install the CustomResourceDefinition {name}"))(source);
            new |= crds.get_opt(name).await.map_err(failed)?.is_none();
            crds.patch(
                name,
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(&crd),
            )
            .await
            .map_err(failed)?;
            let served =
                tokio::time::timeout(START_DEADLINE, self.wait_until_served(&crds, name)).await;
            served.map_err(|_| Error::NotServed(name.into()))??;
        }
        if new {
            // The garbage collector looks for new kinds every 30 s, and when it starts.
            let mut controllers = self.controllers.lock().await;
            *controllers = start_controllers(&self.dir).await?;
        }
        Ok(())
    }

    /// Makes sure that the service account is there, and writes a kubeconfig with a token of it; `namespace` is its default
    /// namespace too.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::Io`].
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        path: &Path,
    ) -> Result<(), Error> {
        let accounts = Api::<ServiceAccount>::namespaced(self.admin(), namespace);
        let object =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        let failed = |source| {
            request(format!(
                "make a token of the service account {namespace}/{name}"
            ))(source)
        };
        accounts
            .patch(
                name,
                &PatchParams::apply(FIELD_MANAGER),
                &Patch::Apply(object),
            )
            .await
            .map_err(failed)?;
        let spec = TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..Default::default()
        };
        let asked = TokenRequest {
            spec,
            ..Default::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &asked)
            .await
            .map_err(failed)?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        write_kubeconfig(path, &self.server, &self.ca, &token, namespace)
            .await
            .map(|_| ())
    }

    /// Established is not enough: discovery, which kubectl and the garbage collector go by, follows a moment later.
    async fn wait_until_served(
        &self,
        crds: &Api<CustomResourceDefinition>,
        name: &str,
    ) -> Result<(), Error> {
        let established =
            wait::await_condition(crds.clone(), name, conditions::is_crd_established()).await;
        let Ok(Some(crd)) = established else {
            return Err(Error::NotServed(name.into()));
        };
        let client = self.admin();
        for version in crd.spec.versions.iter().filter(|version| version.served) {
            let group_version = format!("{}/{}", crd.spec.group, version.name);
            loop {
                let found = client.list_api_group_resources(&group_version).await;
                if found.is_ok_and(|list| {
                    list.resources
                        .iter()
                        .any(|resource| resource.name == crd.spec.names.plural)
                }) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

fn request(doing: String) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Request { doing, source }
}

/// Locks the folder for as long as the file is open, and clears it of an earlier sandbox's data.
fn take(dir: &Path) -> Result<File, Error> {
    let path = dir.join("kubernetes.lock");
    let lock = File::create(&path).map_err(io_error(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(Error::InUse { dir: dir.into() }),
        Err(fs::TryLockError::Error(source)) => return Err(io_error(&path)(source)),
    }
    let data = dir.join("etcd");
    match fs::remove_dir_all(&data) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&data)(error)),
        _ => Ok(lock),
    }
}

/// What the API server is told to trust, and to be trusted by.
struct Credentials {
    /// PEM.
    ca: String,
    admin_token: String,
}

impl Credentials {
    fn write(dir: &Path) -> Result<Self, Error> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name
            .push(DnType::CommonName, "sandbox Kubernetes");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (ca_pem, issuer) = (ca.self_signed(&ca_key)?.pem(), Issuer::new(ca, ca_key));
        let key = KeyPair::generate()?;
        let mut serving = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        serving
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        write_private(
            &dir.join("apiserver.crt"),
            &serving.signed_by(&key, &issuer)?.pem(),
        )?;
        write_private(&dir.join("apiserver.key"), &key.serialize_pem())?;
        let accounts = KeyPair::generate()?;
        write_private(&dir.join("service-accounts.key"), &accounts.serialize_pem())?;
        write_private(
            &dir.join("service-accounts.pub"),
            &accounts.public_key_pem(),
        )?;

        let mut random = [0; 16];
        openssl::rand::rand_bytes(&mut random)?;
        let admin_token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        // kube-apiserver --token-auth-file: token, user, uid, groups.
        write_private(
            &dir.join("tokens.csv"),
            &format!("{admin_token},admin,admin,\"system:masters\"\n"),
        )?;
        Ok(Self {
            ca: ca_pem,
            admin_token,
        })
    }
}

async fn start_etcd(dir: &Path) -> Result<Process, Error> {
    // Sockets in the folder, not ports: none to collide, and nobody else on the machine can talk to an etcd that asks for
    // no password. Relative, because the path of a socket has an end at 108 bytes; with a
    // "port", which is part of the file's name, because etcd insists on one.
    let _ = fs::remove_file(dir.join("etcd.sock:0"));
    let _ = fs::remove_file(dir.join("etcd-peer.sock:0"));
    let mut command = Command::new(dir.join("bin/etcd"));
    command.current_dir(dir).args([
        "--name=sandbox",
        "--data-dir=etcd",
        "--listen-client-urls=unix://etcd.sock:0",
        "--advertise-client-urls=unix://etcd.sock:0",
        "--listen-peer-urls=unix://etcd-peer.sock:0",
        "--initial-advertise-peer-urls=unix://etcd-peer.sock:0",
        "--initial-cluster=sandbox=unix://etcd-peer.sock:0",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]);
    let mut etcd = Process::start("etcd", command, &dir.join("etcd.log"))?;
    let socket = dir.join("etcd.sock:0");
    etcd.wait_until("it has no socket", START_DEADLINE, || async {
        socket.exists()
    })
    .await?;
    Ok(etcd)
}

/// The running API server and its URL.
async fn start_api_server(
    dir: &Path,
    credentials: &Credentials,
) -> Result<(Process, String), Error> {
    let mut attempt = 1;
    loop {
        let port = free_port().map_err(io_error(dir))?;
        let server = format!("https://{}:{port}", Ipv4Addr::LOCALHOST);
        let mut command = Command::new(dir.join("bin/kube-apiserver"));
        command
            .current_dir(dir)
            .arg(format!("--secure-port={port}"))
            .args([
                "--bind-address=127.0.0.1",
                // Said outright, the server does not look for a network; and no endpoints are written for the `kubernetes`
                // Service, which may not be on the loopback address.
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--etcd-servers=unix://etcd.sock:0",
                "--cert-dir=.",
                "--tls-cert-file=apiserver.crt",
                "--tls-private-key-file=apiserver.key",
                "--token-auth-file=tokens.csv",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-key-file=service-accounts.pub",
                "--service-account-signing-key-file=service-accounts.key",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                // No Pods here that would need a token. The other one makes `blockOwnerDeletion` need a right, as OpenShift does.
                "--disable-admission-plugins=ServiceAccount",
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
            ]);
        let mut process =
            Process::start("kube-apiserver", command, &dir.join("kube-apiserver.log"))?;
        match wait_for_api_server(&mut process, &server, credentials).await {
            Ok(()) => return Ok((process, server)),
            Err(Error::Process(error)) if error.is_port_taken() && attempt < PORT_ATTEMPTS => {
                attempt += 1
            }
            Err(error) => return Err(error),
        }
    }
}

async fn wait_for_api_server(
    process: &mut Process,
    server: &str,
    credentials: &Credentials,
) -> Result<(), Error> {
    let config = config(kubeconfig(
        server,
        &credentials.ca,
        &credentials.admin_token,
        "default",
    ))
    .await?;
    let client = Client::try_from(config).map_err(request("make a client".into()))?;
    let ready = || async {
        let path = http_get("/readyz");
        client
            .request_text(path)
            .await
            .is_ok_and(|text| text == "ok")
    };
    process
        .wait_until("/readyz does not say ok", START_DEADLINE, ready)
        .await?;
    // The server makes them itself, some time after it is ready.
    let namespaces = Api::<Namespace>::all(client.clone());
    let made = || async {
        let list = namespaces.list(&Default::default()).await;
        list.is_ok_and(|list| {
            ["default", "kube-system"]
                .iter()
                .all(|name| list.iter().any(|each| each.name_any() == *name))
        })
    };
    process
        .wait_until("it has no default namespace", START_DEADLINE, made)
        .await?;
    Ok(())
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path)
        .body(Vec::new())
        .expect("the path is a constant")
}

async fn start_controllers(dir: &Path) -> Result<Process, Error> {
    let log = dir.join("kube-controller-manager.log");
    let before = fs::metadata(&log).map_or(0, |file| file.len()) as usize;
    let mut command = Command::new(dir.join("bin/kube-controller-manager"));
    command.current_dir(dir).args([
        "--kubeconfig=kubeconfig",
        "--controllers=garbage-collector-controller,namespace-controller",
        "--leader-elect=false",
        "--secure-port=0",
    ]);
    let mut controllers = Process::start("kube-controller-manager", command, &log)?;
    // It serves nothing that could be asked. From this line on it acts on what is deleted at once.
    let synced = || async {
        let text = fs::read(&log).unwrap_or_default();
        String::from_utf8_lossy(text.get(before..).unwrap_or_default())
            .contains("Proceeding to collect garbage")
    };
    controllers
        .wait_until(
            "its garbage collector has not synced",
            START_DEADLINE,
            synced,
        )
        .await?;
    Ok(controllers)
}

fn kubeconfig(server: &str, ca: &str, token: &str, namespace: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox", "namespace": namespace}}],
        "clusters": [{"name": "sandbox", "cluster": {
            "server": server, "certificate-authority-data": openssl::base64::encode_block(ca.as_bytes()),
        }}],
        "users": [{"name": "sandbox", "user": {"token": token}}],
    })
}

async fn config(kubeconfig: serde_json::Value) -> Result<Config, Error> {
    let kubeconfig: Kubeconfig =
        serde_json::from_value(kubeconfig).expect("the document above is a kubeconfig");
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None; // Whatever the user's HTTPS_PROXY says: the server is on the loopback address.
    Ok(config)
}

async fn write_kubeconfig(
    path: &Path,
    server: &str,
    ca: &str,
    token: &str,
    namespace: &str,
) -> Result<Config, Error> {
    let document = kubeconfig(server, ca, token, namespace);
    let text = serde_saphyr::to_string(&document).expect("a JSON document can be written as YAML");
    write_private(path, &text)?;
    config(document).await
}

/// Keys and tokens: for the user alone.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(io_error(path))
}

fn read_crds(path: &Path) -> Result<Vec<serde_json::Value>, Error> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries = fs::read_dir(path).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        });
        files = entries.map_err(io_error(path))?;
        files.retain(|file| {
            file.extension()
                .is_some_and(|extension| extension == "yaml")
        });
        files.sort();
    }
    let mut crds = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(io_error(&file))?;
        let documents: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&text).map_err(|source| Error::Yaml {
                path: file.clone(),
                source,
            })?;
        if documents
            .iter()
            .any(|document| document["kind"] != "CustomResourceDefinition")
        {
            return Err(Error::NotACrd { path: file });
        }
        crds.extend(documents);
    }
    Ok(crds)
}
