//! Calls of a TLS client at the edge, with curl.
use k8s_openapi::api::core::v1::Secret;
use tokio::process::Command;

use super::{kubernetes::secrets::text, test_env::TestEnv, world::world};

impl TestEnv {
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

/// Certificate (leaf first) and key of a caller, in PEM.
pub struct Caller {
    pub crt: String,
    pub key: String,
}

impl Caller {
    pub fn of(secret: &Secret) -> Caller {
        Caller {
            crt: text(secret, "tls.crt"),
            key: text(secret, "tls.key"),
        }
    }

    /// Returns the HTTP status of an HTTPS request through the edge; "000" when the handshake failed.
    pub async fn calls(&self, env: &TestEnv) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("crt"), &self.crt).expect("a file");
        std::fs::write(dir.path().join("key"), &self.key).expect("a file");
        let host = env.host();
        let out = Command::new("curl")
            .args([
                "--silent",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ])
            .args(["--cert", "crt", "--key", "key", "--cacert"])
            .arg(world().ca_file())
            .args([
                "--connect-to",
                &format!("{host}:443:{}", world().edge.address()),
                &format!("https://{host}/"),
            ])
            .current_dir(dir.path())
            .output()
            .await
            .expect("curl is there");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}
