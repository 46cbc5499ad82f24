//! HTTPS client for an API's default endpoint, seen from outside like a caller that bypasses the custom
//! domain.

use std::{
    error::Error as StdError,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use hickory_resolver::TokioResolver;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::probe;

const TIMEOUT: Duration = Duration::from_secs(5);

// Not a doc comment, which would become the help of the whole command. Settings of the network path; without
// them the path is that of every caller. TLS and HTTP always name the called host, wherever the connection
// goes.
#[derive(Args, Debug, Clone, Default, PartialEq)]
pub struct ProbeOptions {
    /// DNS server (address:port) that resolves names. Default: the system's.
    #[arg(
        long = "dns-resolver",
        env = "MTLS_OPERATOR_DNS_RESOLVER",
        value_name = "DNS_RESOLVER"
    )]
    pub resolver: Option<SocketAddr>,
    /// HOST:PORT that HTTPS calls (probes of execute-api endpoints, and the doctor's) connect to, like curl's
    /// --connect-to. Default: the host's addresses in DNS.
    #[arg(
        long = "probe-connect-to",
        env = "MTLS_OPERATOR_PROBE_CONNECT_TO",
        value_name = "PROBE_CONNECT_TO"
    )]
    pub connect_to: Option<String>,
    /// PEM file with the certificates that HTTPS calls trust. Default: the system's.
    #[arg(
        long = "probe-ca-file",
        env = "MTLS_OPERATOR_PROBE_CA_FILE",
        value_name = "PROBE_CA_FILE"
    )]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{0:?} is not HOST:PORT")]
    ConnectTo(String),
    #[error("the CA file {path} cannot be read")]
    ReadCa {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the CA file {0} holds no certificate")]
    NoCa(PathBuf),
    #[error("no TLS provider is installed in this process")]
    NoProvider,
    #[error("the resolver cannot be set up")]
    Resolver(#[source] hickory_resolver::net::NetError),
    #[error("the HTTPS client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Answer of the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// Answer of a disabled endpoint: 404 (HTTP APIs), or 403 with `ForbiddenException` (REST APIs). An open
    /// endpoint may answer the same, an HTTP API without a route for `/` with 404 and a REST API that
    /// requires an API key with 403, so this result counts only together with the API's own flag.
    Refused(u16),
    /// Any other answer: the request reached the API or its back end. Also 403 with another error type: an
    /// open REST API answers `MissingAuthenticationTokenException` where it has no method, and
    /// `AccessDeniedException` when the caller has no permission.
    Answered(u16),
    /// No answer, with a reason in stable words.
    Unreachable(String),
}

/// Client for probes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EndpointProbe {
    client: reqwest::Client,
}

impl EndpointProbe {
    pub fn new(options: &ProbeOptions) -> Result<EndpointProbe, ProbeError> {
        Ok(EndpointProbe {
            client: client(options, None)?,
        })
    }

    /// Requests `https://<host>/<stage>/` and classifies the answer. Without its stage, a REST API refuses
    /// every request.
    pub async fn probe(&self, host: &str, stage: &str) -> ProbeResult {
        let path = if stage == "$default" {
            String::new()
        } else {
            format!("{stage}/")
        };
        match self.client.get(format!("https://{host}/{path}")).send().await {
            Ok(answer) => match answer.status().as_u16() {
                404 => ProbeResult::Refused(404),
                403 if is_forbidden(answer.headers().get("x-amzn-errortype")) => ProbeResult::Refused(403),
                other => ProbeResult::Answered(other),
            },
            Err(e) => ProbeResult::Unreachable(reason(&e).to_owned()),
        }
    }
}

/// Client certificate, the certificates sent with it, and its key. Has no Debug, because it contains a
/// private key.
pub struct ClientIdentity(reqwest::Identity);

impl ClientIdentity {
    /// Creates an identity from PEM texts, the client certificate first.
    ///
    /// # Errors
    /// [`ProbeError::Client`]: one of the two is damaged.
    pub fn new(certificates: &str, key: &str) -> Result<ClientIdentity, ProbeError> {
        let both = zeroize::Zeroizing::new(format!("{key}\n{certificates}"));
        reqwest::Identity::from_pem(both.as_bytes())
            .map(ClientIdentity)
            .map_err(ProbeError::Client)
    }
}

/// Calls `https://<host><path>` as a client with this certificate, or with none. Returns the status of the
/// answer, or why there is none.
///
/// # Errors
/// The call cannot be made with these options.
pub async fn call(
    options: &ProbeOptions,
    identity: Option<ClientIdentity>,
    host: &str,
    path: &str,
) -> Result<Result<u16, &'static str>, ProbeError> {
    let request = client(options, identity)?.get(format!("https://{host}/{}", path.trim_start_matches('/')));
    Ok(request
        .send()
        .await
        .map(|answer| answer.status().as_u16())
        .map_err(|error| reason(&error)))
}

fn client(options: &ProbeOptions, identity: Option<ClientIdentity>) -> Result<reqwest::Client, ProbeError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(ProbeError::NoProvider); // reqwest would panic
    }
    let connect_to = options.connect_to.as_deref().map(host_and_port).transpose()?;
    let resolver = options
        .resolver
        .map(|server| probe::resolver(Some(server)))
        .transpose()
        .map_err(ProbeError::Resolver)?;
    let mut client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy() // callers use none, and the cluster's proxy might answer instead of the endpoint
        .pool_max_idle_per_host(0); // each reconcile opens a new connection
    if let Some(path) = &options.ca_file {
        client = client.tls_certs_only(certificates(path)?);
    }
    if connect_to.is_some() || resolver.is_some() {
        client = client.dns_resolver(Arc::new(Names { connect_to, resolver }));
    }
    if let Some(ClientIdentity(identity)) = identity {
        client = client.identity(identity);
    }
    client.build().map_err(ProbeError::Client)
}

/// True when API Gateway's error type is that of a disabled endpoint, or is absent.
fn is_forbidden(error_type: Option<&reqwest::header::HeaderValue>) -> bool {
    error_type
        .and_then(|t| t.to_str().ok())
        .is_none_or(|t| t.split(':').next() == Some("ForbiddenException"))
}

/// Resolver of the address to connect to.
struct Names {
    connect_to: Option<(String, u16)>,
    resolver: Option<TokioResolver>,
}

#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve")]
struct DoesNotResolve;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        // Port 0 means the default port of the scheme.
        let (host, port) = self
            .connect_to
            .clone()
            .unwrap_or_else(|| (name.as_str().to_owned(), 0));
        let resolver = self.resolver.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = if let Ok(address) = host.parse::<IpAddr>() {
                vec![SocketAddr::new(address, port)]
            } else if let Some(resolver) = resolver {
                let answer = resolver.lookup_ip(host).await.map_err(|_| DoesNotResolve)?;
                answer
                    .iter()
                    .map(|address| SocketAddr::new(address, port))
                    .collect()
            } else {
                let answer = tokio::net::lookup_host((host.as_str(), port)).await;
                answer.map_err(|_| DoesNotResolve)?.collect()
            };
            if found.is_empty() {
                return Err(DoesNotResolve.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), ProbeError> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse::<u16>().ok()?))
    });
    parts
        .filter(|(host, port)| !host.is_empty() && *port > 0)
        .ok_or_else(|| ProbeError::ConnectTo(text.to_owned()))
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, ProbeError> {
    let pem = std::fs::read(path).map_err(|source| ProbeError::ReadCa {
        path: path.to_owned(),
        source,
    })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(ProbeError::NoCa(path.to_owned())),
    }
}

/// Returns the reason for no answer. The errors themselves contain addresses, ports and times.
fn reason(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        return "no answer within 5 seconds";
    }
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = next {
        if e.is::<DoesNotResolve>() {
            return "the name does not resolve";
        }
        if let Some(reason) = e.downcast_ref::<rustls::Error>().map(tls_reason) {
            return reason;
        }
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return "connection refused",
                std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
                    return "no route to the endpoint";
                }
                _ => {}
            }
            // An io::Error returns its inner error by its own method only.
            if let Some(inner) = io.get_ref() {
                let inner: &(dyn StdError + 'static) = inner;
                next = Some(inner);
                continue;
            }
        }
        next = e.source();
    }
    "the connection could not be made, or broke"
}

fn tls_reason(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "its certificate is from an authority that is not trusted here"
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "its certificate is for another name"
        }
        rustls::Error::InvalidCertificate(_) => "its certificate is not valid",
        _ => "the TLS handshake failed",
    }
}

#[cfg(test)]
mod tests;
