//! Credentials endpoint on this machine, from which the operator renews its credentials during a long run, as
//! a Pod does with EKS Pod Identity. It answers with what the suite's own provider has then: keys, a profile,
//! SSO.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub struct CredentialsEndpoint {
    env: Vec<(String, String)>,
    answers: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Drop for CredentialsEndpoint {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl CredentialsEndpoint {
    /// Starts on a free port of 127.0.0.1. `lifetime` is that of credentials which have no end of their own.
    pub async fn start(provider: SharedCredentialsProvider, lifetime: Duration) -> CredentialsEndpoint {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        // Other users of this machine do not know it.
        let token = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let token: String = token
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .rev()
            .take(40)
            .collect();
        let env = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{address}/")),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token.clone()),
        ];
        let answers = Arc::<AtomicUsize>::default();
        let count = answers.clone();
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if answer(stream, &token, &provider, lifetime).await == Some(true) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        CredentialsEndpoint {
            env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            answers,
            listening,
        }
    }

    /// Settings of a process that takes its credentials from here.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// How often credentials were given out.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }
}

/// Answers one request: true with credentials, false with a refusal.
async fn answer(
    mut stream: TcpStream,
    token: &str,
    provider: &SharedCredentialsProvider,
    lifetime: Duration,
) -> Option<bool> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    let request = String::from_utf8_lossy(&request);
    let authorized = request.lines().any(|line| {
        line.split_once(": ")
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case("authorization") && value == token)
    });
    let credentials = match authorized {
        true => provider.provide_credentials().await.ok(),
        false => None,
    };
    let (status, body) = match &credentials {
        Some(credentials) => ("200 OK", document(credentials, lifetime)),
        None => ("403 Forbidden", "{}".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.ok()?;
    stream.shutdown().await.ok()?;
    Some(credentials.is_some())
}

fn document(credentials: &Credentials, lifetime: Duration) -> String {
    let end = credentials
        .expiry()
        .unwrap_or_else(|| SystemTime::now() + lifetime);
    let end = jiff::Timestamp::try_from(end).expect("a date of this century");
    json!({
        "AccessKeyId": credentials.access_key_id(),
        "SecretAccessKey": credentials.secret_access_key(),
        "Token": credentials.session_token().unwrap_or_default(),
        "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
    .to_string()
}
