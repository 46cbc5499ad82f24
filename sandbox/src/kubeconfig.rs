//! Kubeconfigs: the access of a user to an API server, in one file with everything embedded.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::{Value, json};

/// Content of a kubeconfig.
#[derive(Debug, Clone)]
pub struct Access {
    /// URL of the API server.
    pub server: String,
    /// CA of the API server's certificate, PEM.
    pub ca: String,
    /// Bearer token of the user.
    pub token: String,
    /// Default namespace.
    pub namespace: String,
}

impl Access {
    /// Writes a kubeconfig that only the user may read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_saphyr::to_string(&self.document()).expect("JSON can be written as YAML");
        write_private(path, &text)
    }

    /// Returns the configuration for a client in this process.
    ///
    /// # Errors
    /// `server` or `ca` is invalid.
    pub async fn config(&self) -> Result<Config, KubeconfigError> {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(self.document()).expect("the document below is a kubeconfig");
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        // Ignores the user's HTTPS_PROXY: the server is on the loopback address.
        config.proxy_url = None;
        Ok(config)
    }

    fn document(&self) -> Value {
        let ca = openssl::base64::encode_block(self.ca.as_bytes());
        let context = json!({"cluster": "sandbox", "user": "sandbox", "namespace": self.namespace});
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "contexts": [{"name": "sandbox", "context": context}],
            "clusters": [{
                "name": "sandbox",
                "cluster": {"server": self.server, "certificate-authority-data": ca},
            }],
            "users": [{"name": "sandbox", "user": {"token": self.token}}],
        })
    }
}

/// Writes a file with a key or a token in it, readable by the user alone.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}
