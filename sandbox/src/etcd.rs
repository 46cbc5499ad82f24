//! Writes into the etcd of a control plane, past its API server: it restores objects of an earlier control
//! plane with UIDs, dates, managed fields and status, none of which a client of the API server can set.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use openssl::base64::encode_block;
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// Socket of the control plane's etcd, in its folder. With a "port", because etcd requires one.
pub(crate) const SOCKET: &str = "etcd.sock:0";

/// Puts the value at the key, by the JSON gateway of etcd's API.
pub(crate) async fn put(dir: &Path, key: &str, value: &Value) -> io::Result<()> {
    let socket: PathBuf = dir.join(SOCKET);
    let stream = UnixStream::connect(socket).await?;
    let (mut etcd, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let value = value.to_string();
    let body = json!({"key": encode_block(key.as_bytes()), "value": encode_block(value.as_bytes())});
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v3/kv/put")
        .header("host", "etcd");
    let request = request
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a constant path is one");
    let answer = etcd.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = answer
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    if status.is_success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "etcd answers {status}: {}",
        String::from_utf8_lossy(&body)
    )))
}

/// Returns the key under which the API server stores an object of the core group or of a
/// CustomResourceDefinition.
pub(crate) fn key(group: &str, plural: &str, namespace: Option<&str>, name: &str) -> String {
    let parts = ["/registry", group, plural, namespace.unwrap_or_default(), name];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn keys_match_those_of_the_api_server() {
        assert_eq!(key("", "namespaces", None, "a"), "/registry/namespaces/a");
        assert_eq!(key("", "secrets", Some("a"), "b"), "/registry/secrets/a/b");
        let custom = key("mtls-operator.io", "mtlsdomains", Some("a"), "b");
        assert_eq!(custom, "/registry/mtls-operator.io/mtlsdomains/a/b");
    }
}
