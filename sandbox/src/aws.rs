//! AWS emulator (`sandbox/aws`, Python) as a child process, and accounts on it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, io, iter};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use sha2::{Digest, Sha256};

use crate::cache;
use crate::control::{Control, Profile};
use crate::process::{self, Process, free_port};
use crate::tools;

/// Default Region of an account.
pub const REGION: &str = "eu-west-1";
/// Folder of the emulator's source: the sandbox runs from a checkout.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/aws");

/// Failure to start the AWS emulator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run python3")]
    Python(#[source] io::Error),
    #[error("python3 is not usable: {0}")]
    PythonRefuses(String),
    #[error("cannot read {path}")]
    Requirements {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set up Python for the AWS emulator")]
    Setup(#[from] cache::Error),
    #[error("cannot set up Node.js for the AWS emulator")]
    Node(#[from] tools::Error),
    #[error("no free port")]
    Port(#[source] io::Error),
    #[error("the AWS emulator does not run")]
    Process(#[from] process::Error),
}

/// Initial behaviour of the emulator. [`Control`] can change it later, account by account.
#[derive(Clone, Debug)]
pub struct Options {
    pub profile: Profile,
    /// Knobs (`sandbox/aws/README.md`) that differ from the profile.
    pub knobs: Vec<(&'static str, f64)>,
    /// True to run functions in Node.js too; Node.js is downloaded the first time on a machine.
    pub node: bool,
    /// True to hold every request and answer against AWS's models; a violation is answered with 500.
    pub validate: bool,
}

impl Default for Options {
    /// Returns options without delays and quotas.
    fn default() -> Self {
        let delays = ["issue_delay", "update_settle"];
        Self {
            profile: Profile::Fast,
            knobs: delays.map(|knob| (knob, 0.0)).to_vec(),
            node: false,
            validate: false,
        }
    }
}

/// Running emulator. Dropping it ends the process.
#[derive(Debug)]
pub struct Aws {
    endpoint: String,
    control: Control,
    process: Process,
}

impl Aws {
    /// Starts the emulator on a free port of 127.0.0.1, with its log in `dir/aws.log`, and waits until it
    /// answers. The first time on a machine, its Python packages are installed into the user's cache, which
    /// takes about 20 s.
    ///
    /// Any [`Error`].
    /// [`Error`].
    pub async fn start(dir: &Path, options: &Options) -> Result<Self, Error> {
        let with_node = options.node;
        let (python, node) = tokio::task::spawn_blocking(move || {
            let python = python_with("double", &Path::new(SOURCE).join("requirements.txt"))?;
            Ok::<_, Error>((python, with_node.then(tools::node).transpose()?))
        })
        .await
        .expect("setting up Python and Node.js does not panic")?;
        loop {
            match Self::start_with(&python, node.as_deref(), dir, options).await {
                Err(Error::Process(error)) if error.is_port_taken() => {}
                started => return started,
            }
        }
    }

    async fn start_with(
        python: &Path,
        node: Option<&Path>,
        dir: &Path,
        options: &Options,
    ) -> Result<Self, Error> {
        let port = free_port().map_err(Error::Port)?;
        let mut command = Command::new(python);
        command
            .args(["-m", "awsemulator", "--port", &port.to_string()])
            .current_dir(dir);
        // The functions' code is unpacked into this folder, and stays when the emulator is killed.
        command.env("TMPDIR", dir);
        // Without bytecode, so that the checkout stays unchanged.
        command
            .env("PYTHONPATH", SOURCE)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
            .env("AWSDOUBLE_PROFILE", options.profile.name())
            .env("AWSDOUBLE_VALIDATE", if options.validate { "1" } else { "0" });
        if let Some(folder) = node.and_then(Path::parent) {
            let path = env::var_os("PATH").unwrap_or_default();
            let all = iter::once(folder.to_owned()).chain(env::split_paths(&path));
            command.env(
                "PATH",
                env::join_paths(all).expect("the parts of a PATH make a PATH"),
            );
        }
        for (knob, value) in &options.knobs {
            command.env(format!("AWSDOUBLE_{}", knob.to_uppercase()), value.to_string());
        }
        let mut process = Process::start("the AWS emulator", command, &dir.join("aws.log"))?;
        let endpoint = format!("http://127.0.0.1:{port}");
        let control = Control::new(&endpoint);
        process
            .wait_until("it does not answer", Duration::from_secs(60), || {
                control.healthy()
            })
            .await?;
        Ok(Self {
            endpoint,
            control,
            process,
        })
    }

    /// Returns `http://127.0.0.1:<port>`, for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the client of the control API.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Returns the path of the emulator's log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Returns the account with this id, 12 digits. Accounts exist without being created.
    #[must_use]
    pub fn account(&self, id: &str) -> Account {
        Account::new(&self.endpoint, id)
    }

    /// Returns an account that no other test uses.
    #[must_use]
    pub fn new_account(&self) -> Account {
        self.account(&unused_account_id())
    }
}

/// AWS account on an emulator, with zones, certificates, domain names, quotas and journal of its own.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: String,
    pub region: String,
    endpoint: String,
    /// Shared by all clients: it reads the machine's CA certificates, and keeps connections.
    http: SharedHttpClient,
}

impl Account {
    /// Returns an account on the emulator at `endpoint`, in [`REGION`].
    #[must_use]
    pub fn new(endpoint: &str, id: &str) -> Self {
        debug_assert!(
            id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit()),
            "{id}"
        );
        // The SDK is built without a client of its own.
        let http = Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        Self {
            id: id.to_owned(),
            region: REGION.to_owned(),
            endpoint: endpoint.to_owned(),
            http,
        }
    }

    /// Returns the environment by which SDKs and the AWS CLI use this account. The emulator takes the access
    /// key as the account id.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_REGION", &self.region),
            ("AWS_ACCESS_KEY_ID", &self.id),
            ("AWS_SECRET_ACCESS_KEY", "sandbox"),
        ];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    /// Returns an SDK configuration for this account, independent of the process's environment. Calls are not
    /// retried.
    #[must_use]
    pub fn sdk(&self) -> SdkConfig {
        let credentials = Credentials::new(&self.id, "sandbox", None, None, "sandbox");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .region(Region::new(self.region.clone()))
            .endpoint_url(&self.endpoint)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(Duration::from_secs(30))
                    .build(),
            )
            .build()
    }
}

/// Returns an account id that no other process uses: random, so that test processes that share an emulator do
/// not meet.
#[must_use]
pub fn unused_account_id() -> String {
    // The keys of a RandomState are random enough, and avoid a dependency.
    let random = RandomState::new().hash_one(());
    (100_000_000_000 + random % 900_000_000_000).to_string()
}

/// Returns the interpreter of a venv in the cache with these packages. Installs the venv when it does not
/// exist yet.
///
/// # Errors
/// Any [`Error`].
pub fn python_with(what: &str, requirements: &Path) -> Result<PathBuf, Error> {
    let venv = cache::build_once(&venv_name(what, requirements)?, |dir| {
        let step = |label: &str, program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).arg(if label.ends_with("venv") {
                dir
            } else {
                requirements
            });
            cache::run_reporting(label, command, &dir.join("setup.log"), cache::last_line)
        };
        step("Python venv", Path::new("python3"), &["-m", "venv"])?;
        let install = [
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
        ];
        step(
            "Python packages of the AWS emulator",
            &dir.join("bin/python"),
            &install,
        )?;
        Ok(())
    })?;
    Ok(venv.join("bin/python"))
}

/// Returns what has to be installed before the AWS emulator can start, and how long that takes; None when
/// everything is installed.
///
/// # Errors
/// Any [`Error`].
pub fn to_wait_for() -> Result<Option<String>, Error> {
    let name = venv_name("double", &Path::new(SOURCE).join("requirements.txt"))?;
    let missing = !cache::directory()?.join(name).exists();
    Ok(missing.then(|| {
        "Python packages of the AWS emulator: from PyPI, once on this machine: about a minute".to_owned()
    }))
}

fn venv_name(what: &str, requirements: &Path) -> Result<String, Error> {
    let wanted = std::fs::read(requirements).map_err(|source| Error::Requirements {
        path: requirements.to_owned(),
        source,
    })?;
    // A venv belongs to the interpreter that created it, which an update of the machine removes.
    let output = Command::new("python3")
        .args(["-c", "import sys; print(sys.version, sys.base_prefix)"])
        .output();
    let output = output.map_err(Error::Python)?;
    if !output.status.success() {
        return Err(Error::PythonRefuses(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    let hash = Sha256::new()
        .chain_update(&wanted)
        .chain_update(&output.stdout)
        .finalize();
    let hash: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("python-{what}-{hash}"))
}
