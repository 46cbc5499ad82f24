//! The complete local world: Kubernetes, the AWS emulator, the edge and DNS, and the operator's settings for
//! them.
use std::path::{Path, PathBuf};

use crate::{
    aws::{self, Account, Aws},
    control::Control,
    control_plane,
    dns::Dns,
    edge::{self, Edge},
    kubernetes::{self, Kubernetes},
    requirements, tools,
};

/// Failure to start the world.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Requirements(#[from] requirements::Missing),
    #[error("Kubernetes")]
    Kubernetes(#[from] kubernetes::Error),
    #[error("the AWS emulator")]
    Aws(#[from] aws::Error),
    #[error("the edge")]
    Edge(#[from] edge::Error),
    #[error("the DNS server")]
    Dns(#[source] std::io::Error),
    #[error("cannot use {path}", path = path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Local world; everything runs until this value is dropped, or its process ends in any way.
pub struct World {
    pub dir: PathBuf,
    pub kubernetes: Kubernetes,
    pub aws: Aws,
    pub edge: Edge,
    pub dns: Dns,
}

/// Returns what has to be downloaded or built before a world can start, each with its duration. Empty when
/// everything exists.
///
/// # Errors
/// Some [`Error`]: a program is missing on this machine, or the environment requests an unknown version.
pub fn to_wait_for() -> Result<Vec<String>, Error> {
    requirements::check()?;
    let kubernetes =
        tools::to_wait_for().map_err(|error| kubernetes::Error::from(control_plane::Error::from(error)))?;
    Ok([kubernetes, aws::to_wait_for()?].into_iter().flatten().collect())
}

impl World {
    /// Builds everything that has to be built once, and starts the world. `dir` gets logs, kubeconfig and the
    /// CA of the edge.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn start(dir: &Path, options: &aws::Options) -> Result<Self, Error> {
        requirements::check()?;
        std::fs::create_dir_all(dir).map_err(|source| Error::Folder {
            path: dir.to_owned(),
            source,
        })?;
        let dir = dir.canonicalize().map_err(|source| Error::Folder {
            path: dir.to_owned(),
            source,
        })?;
        let (kubernetes, aws) = tokio::join!(Kubernetes::start(&dir), Aws::start(&dir, options));
        let (kubernetes, aws) = (kubernetes?, aws?);
        let edge = Edge::start(aws.endpoint(), &dir.join("edge-ca.pem")).await?;
        let dns = Dns::start(Control::new(aws.endpoint()), std::net::Ipv4Addr::LOCALHOST)
            .await
            .map_err(Error::Dns)?;
        Ok(World {
            dir,
            kubernetes,
            aws,
            edge,
            dns,
        })
    }

    /// Returns the path of the CA of every server certificate of the edge.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("edge-ca.pem")
    }

    /// Returns the environment that makes an operator use this world as `account`.
    #[must_use]
    pub fn operator_env(&self, account: &Account, bucket: &str) -> Vec<(String, String)> {
        let mut env = account.env();
        let settings = [
            ("DNS_RESOLVER", self.dns.address().to_string()),
            ("PROBE_CONNECT_TO", self.edge.address().to_string()),
            ("PROBE_CA_FILE", self.ca_file().display().to_string()),
            ("AWS_RATE", "*=unlimited".to_owned()),
            ("TRUSTSTORE_BUCKET", bucket.to_owned()),
            ("DRIFT_INTERVAL", "5s".to_owned()),
            ("LISTEN", "127.0.0.1:0".to_owned()),
            ("LOG_FORMAT", "compact".to_owned()),
        ];
        env.extend(settings.map(|(name, value)| (format!("MTLS_OPERATOR_{name}"), value)));
        env
    }
}
