//! The edge: plays API Gateway's front. It terminates TLS for the custom domain names, with the certificates
//! that ACM has for them, and for the default endpoints of the AWS emulator, verifies client certificates,
//! and passes requests on to the emulator's data plane.
//!
//! At every handshake the edge asks the emulator for the *current* configuration of the name: the truststore
//! is the one that API Gateway took at the last update. As in AWS, the handshake fails without a certificate,
//! and an untrusted certificate gets a 403. `sandbox/aws/ASSUMPTIONS.md` lists the behaviour without a
//! source.

mod server_certificates;
pub mod trust;

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use openssl::ssl::{Ssl, SslVerifyMode};
use openssl::x509::{X509, X509VerifyResult};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_openssl::SslStream;

use self::server_certificates::ServerCertificates;
use crate::control::{self, Control, EdgeView, Shown, percent_encode};

/// TLS record with the fatal alert `handshake_failure` (RFC 8446, 6).
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];
/// Time limit of a client's handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Failure to start the edge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the emulator does not name the sandbox's public CA")]
    Authority(#[from] control::Error),
    #[error("cannot write the sandbox's public CA to {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    #[error("{0} is not the endpoint of an emulator on this machine")]
    Endpoint(String),
}

/// Running edge. Dropping it stops it, with all its connections.
pub struct Edge {
    address: SocketAddr,
    listening: JoinHandle<()>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Edge {
    /// Starts the edge on a free port of 127.0.0.1, in front of the emulator at `endpoint`
    /// (`http://127.0.0.1:<port>`). Writes the CA of its server certificates to `ca_file` (PEM).
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn start(endpoint: &str, ca_file: &Path) -> Result<Self, Error> {
        let emulator = endpoint
            .trim_end_matches('/')
            .strip_prefix("http://")
            .and_then(|host| host.parse().ok());
        let emulator = emulator.ok_or_else(|| Error::Endpoint(endpoint.to_owned()))?;
        let control = Control::new(endpoint);
        let authority = control.edge_of_host("").await?.authority;
        std::fs::write(ca_file, authority).map_err(|source| Error::Write {
            path: ca_file.to_owned(),
            source,
        })?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(Error::Listen)?;
        let address = listener.local_addr().map_err(Error::Listen)?;
        let front = Arc::new(Front {
            control,
            emulator,
            server_certificates: ServerCertificates::default(),
        });
        Ok(Self {
            address,
            listening: tokio::spawn(front.listen(listener)),
        })
    }

    /// Returns the address that the edge listens at.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Front {
    control: Control,
    emulator: SocketAddr,
    server_certificates: ServerCertificates,
}

/// Configuration of a host name.
struct Site {
    certificate: Shown,
    /// Truststore of a domain with mutual TLS.
    truststore: Option<String>,
    /// The same as `control::Domain::leaf_anchor_issues`.
    leaf_anchor_issues: bool,
}

/// Headers for the client's requests to the data plane, from the handshake; `None` when the client is
/// refused.
type Caller = Option<Vec<(HeaderName, HeaderValue)>>;
type Body = Either<Incoming, Full<Bytes>>;

impl Front {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((tcp, _)) = accepted {
                    connections.spawn(self.clone().connection(tcp));
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream) {
        let _ = tcp.set_nodelay(true);
        let (mut from_client, mut to_client) = tcp.into_split();
        let Ok(Ok((hello, name))) = timeout(HANDSHAKE_TIMEOUT, read_hello(&mut from_client)).await else {
            return;
        };
        let prepared = self.prepare(&name).await;
        let Some((site, view, ssl)) = prepared else {
            let _ = to_client.write_all(&HANDSHAKE_FAILURE).await;
            return;
        };
        let tcp = tokio::io::join(Cursor::new(hello).chain(from_client), to_client);
        let Ok(mut tls) = SslStream::new(ssl, tcp) else {
            return;
        };
        let handshake = timeout(HANDSHAKE_TIMEOUT, Pin::new(&mut tls).accept()).await;
        if !matches!(handshake, Ok(Ok(()))) {
            // No certificate. A TLS 1.3 client has sent its request already: closing with the request unread
            // would be a TCP reset, which overtakes the alert with the reason.
            let tcp = tls.get_mut();
            let _ = tcp.shutdown().await;
            let _ = timeout(
                Duration::from_secs(1),
                tokio::io::copy(tcp, &mut tokio::io::sink()),
            )
            .await;
            return;
        }
        let caller = caller(&site, &view, tls.ssl().peer_certificate());
        let service = service_fn(|request| self.answer(request, &name, &view, &caller));
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tls), service)
            .await;
    }

    /// Returns the current configuration of `name`; `None` when no domain has the name, or the emulator does
    /// not answer.
    async fn prepare(&self, name: &str) -> Option<(Site, EdgeView, Ssl)> {
        let view = self.control.edge_of_host(name).await.ok()?;
        let site = site(&view, name)?;
        let context = self.server_certificates.context(&site.certificate).ok()?;
        let mut ssl = Ssl::new(&context).ok()?;
        if site.truststore.is_some() {
            // Every certificate passes the handshake and is verified after it: an untrusted certificate gets
            // a 403, not an alert.
            ssl.set_verify_callback(
                SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
                |_, _| true,
            );
        }
        Some((site, view, ssl))
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        name: &str,
        view: &EdgeView,
        caller: &Caller,
    ) -> Result<Response<Body>, Infallible> {
        let Some(facts) = caller else {
            return Ok(message(StatusCode::FORBIDDEN, "Forbidden"));
        };
        // The certificate was verified for the name of the handshake, so a request for another name is
        // refused.
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if !host.eq_ignore_ascii_case(name) && !self.host_alone_selects(&host).await {
            return Ok(message(StatusCode::FORBIDDEN, "Forbidden"));
        }
        let headers = request.headers_mut();
        for name in view.certificate_headers.keys() {
            headers.remove(name.as_str());
        }
        headers.extend(
            facts
                .iter()
                .map(|(name, value)| (Some(name.clone()), value.clone())),
        );
        Ok(self
            .pass_on(request)
            .await
            .unwrap_or_else(|_| message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")))
    }

    /// True when the emulator is told to serve a domain that only the `Host` header names.
    async fn host_alone_selects(&self, host: &str) -> bool {
        let view = self.control.edge_of_host(host).await;
        view.is_ok_and(|view| view.domains.iter().any(|domain| domain.host_alone_selects))
    }

    async fn pass_on(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Box<dyn std::error::Error>> {
        let tcp = TcpStream::connect(self.emulator).await?;
        let (mut emulator, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(path)?;
        let mut response = emulator.send_request(request).await?;
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            response.headers_mut().remove(name); // of the connection to the emulator, not of the client's
        }
        Ok(response.map(Either::Left))
    }
}

/// Reads the ClientHello: returns its bytes, for OpenSSL to read again, and the server name in it. A
/// ClientHello without a name is an error.
async fn read_hello(from_client: &mut OwnedReadHalf) -> io::Result<(Vec<u8>, String)> {
    let mut acceptor = Acceptor::default();
    let (mut hello, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let size = from_client.read(&mut chunk).await?;
        if size == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hello.extend_from_slice(&chunk[..size]);
        let mut unread = &chunk[..size];
        while !unread.is_empty() && acceptor.read_tls(&mut unread)? > 0 {
            if let Some(accepted) = acceptor.accept().map_err(|(bad, _)| io::Error::other(bad))? {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return Ok((hello, name.ok_or(io::ErrorKind::InvalidInput)?));
            }
        }
    }
}

fn site(view: &EdgeView, host: &str) -> Option<Site> {
    let wildcard = format!("*.{}", host.split_once('.')?.1);
    let named = |name: &str| {
        view.domains
            .iter()
            .find(|domain| domain.serving && domain.domain_name.eq_ignore_ascii_case(name))
    };
    if let Some(domain) = named(host).or_else(|| named(&wildcard)) {
        return Some(Site {
            certificate: domain.certificate.as_ref()?.shown.clone()?,
            truststore: domain
                .truststore
                .as_ref()
                .map(|truststore| truststore.pem.clone()),
            leaf_anchor_issues: domain.leaf_anchor_issues,
        });
    }
    Some(Site {
        certificate: view.default_endpoint.clone()?,
        truststore: None,
        leaf_anchor_issues: false,
    })
}

fn caller(site: &Site, view: &EdgeView, certificate: Option<X509>) -> Caller {
    let header = |name: &str, value: &str| {
        Some((
            HeaderName::try_from(name).ok()?,
            HeaderValue::try_from(value).ok()?,
        ))
    };
    let mut headers = vec![header(&view.secret_header, &view.secret)?];
    if let Some(truststore) = &site.truststore {
        let leaf = certificate?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_secs()
            .try_into()
            .ok()?;
        let truststore = trust::certificates(truststore);
        let is_trusted = matches!(trust::judge(&truststore, &leaf, now), Ok(X509VerifyResult::OK));
        let is_under_a_leaf = || site.leaf_anchor_issues && trust::is_under_a_leaf(&truststore, &leaf, now);
        if !(is_trusted || is_under_a_leaf()) {
            return None;
        }
        for (name, field) in &view.certificate_headers {
            headers.push(header(
                name,
                &percent_encode(&trust::client_cert_field(&leaf, field)),
            )?);
        }
    }
    Some(headers)
}

fn message(status: StatusCode, text: &str) -> Response<Body> {
    let body = format!(r#"{{"message":"{text}"}}"#);
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
