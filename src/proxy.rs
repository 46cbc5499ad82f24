//! HTTP proxies that the environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), and the calls that
//! never use one. Probes (`probe`) use no proxy: they see a domain as its callers do.

use std::fmt;

use aws_smithy_http_client::{
    Connector,
    proxy::{ProxyConfig, ProxyError},
    tls::{Provider, TlsContext, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::HttpRequest,
    runtime_components::RuntimeComponents,
};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{Config, InferConfigError};

/// Destinations that are always called directly: the instance metadata, the credentials of ECS and of EKS Pod
/// Identity, and this machine. Behind a proxy these addresses belong to another machine, with other
/// credentials or none.
const NEVER: [&str; 7] = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "fd00:ec2::/32",
    "127.0.0.0/8",
    "::1",
    "localhost",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // The message leaves out the value, which may hold a password.
    #[error("{0} is not the address of a proxy: write http://HOST:PORT or https://HOST:PORT")]
    Address(&'static str),
    #[error("no Kubernetes configuration")]
    Kubernetes(#[from] InferConfigError),
}

/// Proxies by the scheme of the call. Its Debug output has no passwords.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<Uri>,
    http: Option<Uri>,
    /// Destinations without a proxy: `NO_PROXY` and [`NEVER`].
    direct: String,
}

impl Proxies {
    /// Reads the proxies from this process's environment: each variable in upper case, else in lower case.
    ///
    /// # Errors
    /// Returns [`Error::Address`] for a variable that is not the address of a proxy.
    pub fn from_env() -> Result<Proxies, Error> {
        Proxies::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Proxies, Error> {
        let value = |name: &str| {
            let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
            set(name).or_else(|| set(&name.to_ascii_lowercase()))
        };
        let proxy = |name: &'static str| {
            value(name)
                .map(|v| address(&v).ok_or(Error::Address(name)))
                .transpose()
        };
        let theirs = value("NO_PROXY").unwrap_or_default();
        let theirs = theirs.split([',', ' ']).filter(|entry| !entry.is_empty());
        // Many users write "*.example.com" for ".example.com".
        let theirs = theirs.map(|entry| {
            entry
                .strip_prefix('*')
                .filter(|rest| rest.starts_with('.'))
                .unwrap_or(entry)
        });
        let direct = theirs.chain(NEVER).collect::<Vec<_>>().join(",");
        Ok(Proxies {
            https: proxy("HTTPS_PROXY")?,
            http: proxy("HTTP_PROXY")?,
            direct,
        })
    }

    /// HOST:PORT of the proxy that HTTPS calls go through.
    pub fn shown(&self) -> Option<String> {
        self.https.as_ref().map(host_and_port)
    }

    /// HTTP client for the AWS SDK: one TLS stack, and these proxies.
    pub fn http_client(&self, tls: TlsContext) -> SharedHttpClient {
        let with = |proxy: Result<ProxyConfig, ProxyError>| {
            let proxy = proxy
                .expect("its scheme and host have been checked")
                .no_proxy(&self.direct);
            client(proxy, tls.clone())
        };
        match (self.https.clone(), self.http.clone()) {
            (None, None) => client(ProxyConfig::disabled(), tls),
            (Some(https), None) => with(ProxyConfig::https(https)),
            (None, Some(http)) => with(ProxyConfig::http(http)),
            (Some(https), Some(http)) if https == http => with(ProxyConfig::all(https)),
            // The SDK's configuration takes one proxy.
            (Some(https), Some(http)) => SharedHttpClient::new(ByScheme {
                https: with(ProxyConfig::https(https)),
                http: with(ProxyConfig::http(http)),
            }),
        }
    }

    /// Returns the configuration of the Kubernetes client: from the kubeconfig, with the proxy that kubectl
    /// would choose, else from the Pod, without a proxy.
    ///
    /// # Errors
    /// Returns [`Error::Kubernetes`] when there is no configuration.
    pub async fn kubernetes_config(&self) -> Result<Config, Error> {
        let mut config = Config::infer().await?;
        config.proxy_url = config
            .proxy_url
            .take()
            .and_then(|found| self.to_api_server(&config.cluster_url, found));
        Ok(config)
    }

    /// Returns the proxy between a kubeconfig's `server` and this process. `found`: kube's choice, from the
    /// kubeconfig's `proxy-url` or the environment. kube matches `NO_PROXY` against the address of the proxy,
    /// not of the server.
    fn to_api_server(&self, server: &Uri, found: Uri) -> Option<Uri> {
        match &self.https {
            Some(environment) if environment.authority() == found.authority() => {
                let matcher = Matcher::builder()
                    .https(environment.to_string())
                    .no(self.direct.clone())
                    .build();
                matcher.intercept(server).map(|_| environment.clone())
            }
            _ => Some(found),
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (https, http) = (self.shown(), self.http.as_ref().map(host_and_port));
        f.debug_struct("Proxies")
            .field("https", &https)
            .field("http", &http)
            .field("direct", &self.direct)
            .finish()
    }
}

/// Parses the address of a proxy. The default scheme is http, as in curl.
fn address(text: &str) -> Option<Uri> {
    let text = text.trim();
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_http && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

fn host_and_port(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

fn client(proxy: ProxyConfig, tls: TlsContext) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .build()
    })
}

/// Two clients, or two connectors: each for the calls of one scheme.
#[derive(Debug)]
struct ByScheme<T> {
    https: T,
    http: T,
}

impl HttpClient for ByScheme<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let [https, http] =
            [&self.https, &self.http].map(|client| client.http_connector(settings, components));
        SharedHttpConnector::new(ByScheme { https, http })
    }
}

impl HttpConnector for ByScheme<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("https:") {
            self.https.call(request)
        } else {
            self.http.call(request)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{
        net::SocketAddr,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
    use aws_credential_types::Credentials;
    use aws_smithy_http_client::tls::{TlsContext, TrustStore};

    use futures::future::join_all;
    use http::Uri;

    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::TlsAcceptor;

    const STS: &str = "sts.eu-west-1.amazonaws.com";

    fn read(variables: &[(&str, &str)]) -> Result<Proxies, Error> {
        Proxies::read(|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    /// Reads the head of one request.
    async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut read = vec![];
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Answers one call of GetCallerIdentity.
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        head(&mut stream).await;
        let body = "<GetCallerIdentityResponse \
                xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
                <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
        let length = body.len();
        let text =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\r\n{body}");
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// STS over HTTP.
    async fn plain_sts() -> SocketAddr {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        address
    }

    /// STS over HTTPS, and a TLS context that trusts it.
    async fn tls_sts() -> (SocketAddr, TlsContext) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec![STS.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let acceptor = TlsAcceptor::from(Arc::new(
            config
                .with_single_cert(vec![cert.der().clone()], private.into())
                .unwrap(),
        ));
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(stream).await {
                        answer(tls).await;
                    }
                });
            }
        });
        let trusted = TrustStore::empty().with_pem_certificate(cert.pem().into_bytes());
        (
            address,
            TlsContext::builder().with_trust_store(trusted).build().unwrap(),
        )
    }

    /// A proxy that forwards every request to `backend`, and records the first line of each request and its
    /// credentials.
    struct Proxy {
        address: SocketAddr,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Proxy {
        async fn before(backend: SocketAddr) -> Proxy {
            let (listener, address) = listener().await;
            let seen = Arc::new(Mutex::new(vec![]));
            let noted = seen.clone();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let noted = noted.clone();
                    tokio::spawn(async move {
                        let head = head(&mut stream).await;
                        let line = head.lines().next().unwrap_or_default().to_owned();
                        let user = head.lines().find_map(|line| {
                            let (name, value) = line.split_once(": ")?;
                            name.eq_ignore_ascii_case("proxy-authorization")
                                .then(|| format!(" ({value})"))
                        });
                        noted
                            .lock()
                            .unwrap()
                            .push(format!("{line}{}", user.unwrap_or_default()));
                        let mut there = TcpStream::connect(backend).await.unwrap();
                        if line.starts_with("CONNECT ") {
                            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                        } else {
                            there.write_all(head.as_bytes()).await.unwrap();
                        }
                        let _ = copy_bidirectional(&mut stream, &mut there).await;
                    });
                }
            });
            Proxy { address, seen }
        }

        fn seen(&self) -> Vec<String> {
            std::mem::take(&mut self.seen.lock().unwrap())
        }
    }

    /// Calls GetCallerIdentity of STS, at `endpoint` or at the SDK's default endpoint.
    async fn ask(proxies: &Proxies, tls: TlsContext, endpoint: Option<&str>) -> Result<String, String> {
        let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_millis(500));
        let mut config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("a", "b", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                timeouts
                    .operation_attempt_timeout(Duration::from_secs(20))
                    .build(),
            )
            .http_client(proxies.http_client(tls));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint);
        }
        let asked = aws_sdk_sts::Client::new(&config.load().await)
            .get_caller_identity()
            .send()
            .await;
        let answered = asked.map_err(|error| format!("{error:?}"))?;
        Ok(answered.account.unwrap_or_default())
    }

    #[tokio::test]
    async fn calls_of_aws_go_through_the_proxy_of_their_scheme() {
        let (sts, tls) = tls_sts().await;
        let (secure, plain) = (Proxy::before(sts).await, Proxy::before(plain_sts().await).await);
        let to = |proxy: &Proxy| format!("http://user:p%40ss@{}", proxy.address);
        let (at_secure, at_plain) = (to(&secure), to(&plain));
        // Basic credentials: user:p@ss.
        let connect = format!("CONNECT {STS}:443 HTTP/1.1 (Basic dXNlcjpwQHNz)");
        let absolute = "POST http://192.0.2.1:4566/ HTTP/1.1 (Basic dXNlcjpwQHNz)".to_owned();
        let account = Ok("123456789012".to_owned());

        let both = read(&[("HTTPS_PROXY", &at_secure), ("HTTP_PROXY", &at_plain)]).unwrap();
        assert_eq!(ask(&both, tls.clone(), None).await, account);
        assert_eq!((secure.seen(), plain.seen()), (vec![connect.clone()], vec![]));
        // Only a proxy answers for this address, which no machine has.
        assert_eq!(
            ask(&both, tls.clone(), Some("http://192.0.2.1:4566")).await,
            account
        );
        assert_eq!((secure.seen(), plain.seen()), (vec![], vec![absolute.clone()]));

        let one = read(&[("https_proxy", &at_secure)]).unwrap();
        assert_eq!(ask(&one, tls.clone(), None).await, account);
        assert_eq!(secure.seen(), std::slice::from_ref(&connect));
        let same = read(&[("https_proxy", &at_secure), ("http_proxy", &at_secure)]).unwrap();
        assert_eq!(ask(&same, tls.clone(), None).await, account);
        assert_eq!(secure.seen(), [connect]);
        let other = read(&[("HTTP_PROXY", &at_plain)]).unwrap();
        assert_eq!(ask(&other, tls, Some("http://192.0.2.1:4566")).await, account);
        assert_eq!(plain.seen(), [absolute]);
    }

    #[tokio::test]
    async fn credentials_of_the_machine_never_come_through_a_proxy() {
        let sts = plain_sts().await;
        let proxy = Proxy::before(sts).await;
        let at = format!("http://{}", proxy.address);
        let proxies = read(&[
            ("HTTPS_PROXY", &at),
            ("HTTP_PROXY", &at),
            ("NO_PROXY", "192.0.2.0/24"),
        ])
        .unwrap();
        // These addresses answer, but not through the proxy.
        for own in [
            format!("http://{sts}"),
            format!("http://localhost:{}", sts.port()),
        ] {
            let answered = ask(&proxies, TlsContext::default(), Some(&own)).await;
            assert_eq!(answered.as_deref(), Ok("123456789012"), "{own}");
        }
        // This test does not depend on an answer from these addresses; the proxy would record the request.
        let hosts = [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "192.0.2.1",
        ];
        join_all(hosts.map(async |host| {
            let _ = ask(&proxies, TlsContext::default(), Some(&format!("http://{host}"))).await;
        }))
        .await;
        assert_eq!(proxy.seen(), Vec::<String>::new());
        assert!(
            ask(&proxies, TlsContext::default(), Some("http://169.254.1.1"))
                .await
                .is_ok()
        );
        assert_eq!(
            proxy.seen(),
            ["POST http://169.254.1.1/ HTTP/1.1"],
            "and the proxy is one"
        );
    }

    #[test]
    fn the_api_server_is_reached_as_kubectl_reaches_it() {
        let proxies = read(&[
            ("HTTPS_PROXY", "proxy.example:3128"),
            ("NO_PROXY", "10.0.0.0/8 *.internal,k8s.example"),
        ]);
        let proxies = proxies.unwrap();
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        for (server, found, expected) in [
            (
                "https://api.eks.example",
                "proxy.example:3128",
                Some("http://proxy.example:3128/"),
            ),
            ("https://127.0.0.1:6443", "proxy.example:3128", None),
            ("https://localhost:6443", "proxy.example:3128", None),
            ("https://[::1]:6443", "proxy.example:3128", None),
            ("https://10.96.0.1", "proxy.example:3128", None),
            ("https://k8s.example", "proxy.example:3128", None),
            ("https://api.internal", "proxy.example:3128", None),
            // The kubeconfig's own.
            (
                "https://127.0.0.1:6443",
                "http://other.example:3128",
                Some("http://other.example:3128/"),
            ),
        ] {
            let got = proxies.to_api_server(&uri(server), uri(found));
            assert_eq!(
                got.map(|uri| uri.to_string()).as_deref(),
                expected,
                "{server} {found}"
            );
        }
    }

    #[test]
    fn an_invalid_proxy_address_is_refused_without_its_password() {
        for value in [
            "socks5://user:secret@proxy:1080",
            "http://",
            "user:secret@pro xy",
            "ftp://proxy",
        ] {
            let refused = read(&[("https_proxy", value)]).unwrap_err().to_string();
            assert!(
                refused.starts_with("HTTPS_PROXY is not the address of a proxy"),
                "{refused}"
            );
            assert!(!refused.contains("secret"), "{refused}");
        }
        let proxies = read(&[
            ("HTTPS_PROXY", ""),
            ("https_proxy", "http://user:secret@proxy.example"),
        ])
        .unwrap();
        assert_eq!(proxies.shown().as_deref(), Some("proxy.example:80"));
        assert!(!format!("{proxies:?}").contains("secret"), "{proxies:?}");
        assert_eq!(read(&[]).unwrap().shown(), None);
    }
}
