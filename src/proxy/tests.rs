//! Tests of `proxy`.

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
    let text = format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\r\n{body}");
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
        (
            "NO_PROXY",
            "10.0.0.0/8 *.internal,k8s.example,port.example:443 [2001:db8::7]:443,2001:db8::8",
        ),
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
        ("https://port.example", "proxy.example:3128", None),
        ("https://[2001:db8::7]", "proxy.example:3128", None),
        ("https://[2001:db8::8]", "proxy.example:3128", None),
        (
            "https://[2001:db8::9]",
            "proxy.example:3128",
            Some("http://proxy.example:3128/"),
        ),
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
