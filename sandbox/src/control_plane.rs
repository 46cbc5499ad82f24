//! The three processes of Kubernetes and the files by which they trust each other, in one folder and on the
//! loopback address.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ListParams};
use kube::config::KubeconfigError;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::etcd;
use crate::kubeconfig::{Access, write_private};
use crate::process::{self, Process, free_port};
use crate::tools;

/// Time limit for the start of each of the three processes, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Number of attempts when a port that was free a moment ago is taken.
const PORT_ATTEMPTS: usize = 5;

/// Failure to start the control plane.
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
    #[error("no free port on the loopback address")]
    Port(#[source] io::Error),
    #[error("cannot create the keys and certificates of the API server")]
    Certificates(#[from] rcgen::Error),
    #[error("cannot generate random numbers")]
    Random(#[from] openssl::error::ErrorStack),
    #[error("cannot create a client of the API server")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("cannot create a client of the API server")]
    Client(#[from] kube::Error),
}

/// etcd, kube-apiserver, and kube-controller-manager with the two controllers that deletions need. Ends when
/// dropped.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    dir: PathBuf,
    // Dropped in this order: processes that depend on others first, the lock last.
    controllers: Process,
    _api_server: Process,
    _etcd: Process,
    _lock: File,
}

impl ControlPlane {
    /// Starts an empty control plane in `dir`, where it writes `bin`, `kubeconfig` and its logs. Returns the
    /// access of an administrator (group system:masters).
    pub(crate) async fn start(dir: &Path) -> Result<(Self, Access), Error> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let lock = take(dir)?;
        let bin = dir.join("bin");
        let link = tokio::task::spawn_blocking(move || tools::link_into(&bin));
        link.await.expect("linking programs does not panic")?;

        let (ca, token) = write_credentials(dir)?;
        let etcd = start_etcd(dir).await?;
        let (api_server, access) = start_api_server(dir, ca, token).await?;
        let kubeconfig = dir.join("kubeconfig");
        access.write(&kubeconfig).map_err(io_error(&kubeconfig))?;
        let controllers = start_controllers(dir).await?;
        let dir = dir.to_path_buf();
        Ok((
            Self {
                dir,
                controllers,
                _api_server: api_server,
                _etcd: etcd,
                _lock: lock,
            },
            access,
        ))
    }

    /// Restarts the controllers, because the garbage collector discovers kinds when it starts, and then only
    /// every 30 s.
    pub(crate) async fn restart_controllers(&mut self) -> Result<(), Error> {
        self.controllers = start_controllers(&self.dir).await?;
        Ok(())
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

/// Locks the folder for as long as the file is open, and removes an earlier sandbox's data from it.
fn take(dir: &Path) -> Result<File, Error> {
    let path = dir.join("kubernetes.lock");
    let lock = File::create(&path).map_err(io_error(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::InUse { dir: dir.into() }),
        Err(TryLockError::Error(source)) => return Err(io_error(&path)(source)),
    }
    let data = dir.join("etcd");
    match fs::remove_dir_all(&data) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&data)(error)),
        _ => Ok(lock),
    }
}

/// Writes the API server's certificates and credentials; returns its authority (PEM) and the administrator's
/// token.
fn write_credentials(dir: &Path) -> Result<(String, String), Error> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        write_private(&path, text).map_err(io_error(&path))
    };
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
    write("apiserver.crt", &serving.signed_by(&key, &issuer)?.pem())?;
    write("apiserver.key", &key.serialize_pem())?;

    let accounts = KeyPair::generate()?;
    write("service-accounts.key", &accounts.serialize_pem())?;
    write("service-accounts.pub", &accounts.public_key_pem())?;

    let mut random = [0; 16];
    openssl::rand::rand_bytes(&mut random)?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // Format of kube-apiserver --token-auth-file: token, user, uid, groups.
    write("tokens.csv", &format!("{token},admin,admin,\"system:masters\"\n"))?;
    Ok((ca_pem, token))
}

async fn start_etcd(dir: &Path) -> Result<Process, Error> {
    // Sockets in the folder instead of ports: they cannot collide, and no other user of the machine can talk
    // to an etcd without a password. Relative, because the path of a socket is limited to 108 bytes; with a
    // "port", which is part of the file's name, because etcd requires one.
    let socket = dir.join(etcd::SOCKET);
    for socket in [&socket, &dir.join("etcd-peer.sock:0")] {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(socket)(error));
            }
            _ => {}
        }
    }
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
        // Tests write hundreds of MB within the five minutes between two compactions; the default is 2 GB.
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ]);
    let mut etcd = Process::start("etcd", command, &dir.join("etcd.log"))?;
    etcd.wait_until("it has no socket", START_DEADLINE, || async { socket.exists() })
        .await?;
    Ok(etcd)
}

async fn start_api_server(dir: &Path, ca: String, token: String) -> Result<(Process, Access), Error> {
    let mut access = Access {
        server: String::new(),
        ca,
        token,
        namespace: "default".into(),
    };
    let mut attempt = 1;
    loop {
        let port = free_port().map_err(Error::Port)?;
        access.server = format!("https://127.0.0.1:{port}");
        let mut command = Command::new(dir.join("bin/kube-apiserver"));
        command
            .current_dir(dir)
            .arg(format!("--secure-port={port}"))
            .args([
                "--bind-address=127.0.0.1",
                // Explicit, so that the server does not search for a network; and no endpoints for the
                // `kubernetes` Service, which may not be on the loopback address.
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
                // No Pods here need a token. The other plugin makes `blockOwnerDeletion` require a
                // permission, as OpenShift does: the operator's rules are tested under it.
                "--disable-admission-plugins=ServiceAccount",
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
            ]);
        let log = dir.join("kube-apiserver.log");
        let mut process = Process::start("kube-apiserver", command, &log)?;
        match wait_for_api_server(&mut process, &access).await {
            Ok(()) => return Ok((process, access)),
            Err(Error::Process(error)) if error.is_port_taken() && attempt < PORT_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

async fn wait_for_api_server(process: &mut Process, access: &Access) -> Result<(), Error> {
    let client = Client::try_from(access.config().await?)?;
    let ready = || async {
        let readyz = http::Request::get("/readyz")
            .body(Vec::new())
            .expect("a constant path is one");
        client.request_text(readyz).await.is_ok_and(|text| text == "ok")
    };
    process
        .wait_until("/readyz does not say ok", START_DEADLINE, ready)
        .await?;
    // The server creates the namespaces itself, some time after it is ready.
    let namespaces = Api::<Namespace>::all(client.clone());
    let made = || async {
        let list = namespaces.list_metadata(&ListParams::default()).await;
        let has = |name: &str| {
            let mut all = list.iter().flat_map(|list| &list.items);
            all.any(|each| each.metadata.name.as_deref() == Some(name))
        };
        has("default") && has("kube-system")
    };
    process
        .wait_until("it has created no namespaces", START_DEADLINE, made)
        .await?;
    Ok(())
}

async fn start_controllers(dir: &Path) -> Result<Process, Error> {
    let log = dir.join("kube-controller-manager.log");
    let logged = || fs::read(&log).unwrap_or_default();
    let before = logged().len();
    let mut command = Command::new(dir.join("bin/kube-controller-manager"));
    command.current_dir(dir).args([
        "--kubeconfig=kubeconfig",
        "--controllers=garbage-collector-controller,namespace-controller",
        "--leader-elect=false",
        "--secure-port=0",
    ]);
    let mut controllers = Process::start("kube-controller-manager", command, &log)?;
    // The process serves no endpoint to poll. From this log line on the garbage collector knows every kind.
    let synced = || async {
        let logged = logged();
        String::from_utf8_lossy(&logged[before..]).contains("Proceeding to collect garbage")
    };
    controllers
        .wait_until("its garbage collector has not synced", START_DEADLINE, synced)
        .await?;
    Ok(controllers)
}
