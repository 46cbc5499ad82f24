//! Tests of `https`.

use super::*;

use std::{io::Write, net::SocketAddr, path::Path, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

const HOST: &str = "a1b2.execute-api.eu-west-1.amazonaws.com";

/// Starts an endpoint that answers each request with `answer`, and a request for another host or path
/// than expected with 500. Returns its address and its CA.
async fn endpoint(name: &str, answer: &'static str) -> (SocketAddr, tempfile::NamedTempFile) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], private.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(socket).await else {
                continue;
            };
            let sni = tls.get_ref().1.server_name().map(str::to_owned);
            let mut request = vec![0; 4096];
            let read = tls.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
            let path = ["get / http", "get /prod/ http"]
                .iter()
                .any(|line| request.starts_with(line));
            let host = request.contains(&format!("host: {HOST}\r\n")) && sni.as_deref() == Some(HOST);
            let right = path && host;
            let status = if right { answer } else { "500 Not The Host" };
            let text =
                format!("HTTP/1.1 {status}\r\nlocation: https://elsewhere/\r\ncontent-length: 0\r\n\r\n");
            let _ = tls.write_all(text.as_bytes()).await;
            let _ = tls.shutdown().await;
        }
    });
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(cert.pem().as_bytes()).unwrap();
    (address, ca)
}

/// Starts a DNS server that knows one name, at 127.0.0.1.
async fn dns(known: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let end = 12 + packet[12..length].iter().position(|b| *b == 0).unwrap() + 5;
            let labels: Vec<u8> = known
                .split('.')
                .flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat())
                .collect();
            let is_known = packet[12..end - 5].eq_ignore_ascii_case(&labels);
            let is_a = packet[end - 4..end - 2] == [0, 1];
            let found = u8::from(is_known && is_a);
            let mut reply = packet[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x84, if is_known { 0 } else { 3 }, 0, 1, 0, found, 0, 0, 0, 0]);
            if found == 1 {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    address
}

async fn probed(options: ProbeOptions) -> ProbeResult {
    EndpointProbe::new(&options)
        .unwrap()
        .probe(HOST, "$default")
        .await
}

fn through(address: SocketAddr, ca: &tempfile::NamedTempFile) -> ProbeOptions {
    ProbeOptions {
        connect_to: Some(address.to_string()),
        ca_file: Some(ca.path().to_owned()),
        resolver: None,
    }
}

fn unreachable(why: &str) -> ProbeResult {
    ProbeResult::Unreachable(why.to_owned())
}

#[tokio::test]
async fn an_answer_is_classified_by_its_status() {
    for (answer, verdict) in [
        ("404 Not Found", ProbeResult::Refused(404)),
        ("403 Forbidden", ProbeResult::Refused(403)),
        (
            "403 Forbidden\r\nx-amzn-errortype: ForbiddenException",
            ProbeResult::Refused(403),
        ),
        (
            "403 Forbidden\r\nx-amzn-errortype: MissingAuthenticationTokenException",
            ProbeResult::Answered(403),
        ),
        ("200 OK", ProbeResult::Answered(200)),
        ("401 Unauthorized", ProbeResult::Answered(401)),
        ("302 Found", ProbeResult::Answered(302)),
        ("503 Service Unavailable", ProbeResult::Answered(503)),
    ] {
        let (address, ca) = endpoint(HOST, answer).await;
        let probe = EndpointProbe::new(&through(address, &ca)).unwrap();
        assert_eq!(probe.probe(HOST, "$default").await, verdict);
        assert_eq!(probe.probe(HOST, "prod").await, verdict, "the same at a stage");
    }
}

#[tokio::test]
async fn the_reason_for_no_answer_is_stable() {
    let (address, ca) = endpoint(HOST, "404 Not Found").await;
    let (_, other_ca) = endpoint(HOST, "404 Not Found").await;
    let untrusted = "its certificate is from an authority that is not trusted here";
    assert_eq!(probed(through(address, &other_ca)).await, unreachable(untrusted));
    let (misnamed, its_ca) = endpoint("other.example.com", "404 Not Found").await;
    assert_eq!(
        probed(through(misnamed, &its_ca)).await,
        unreachable("its certificate is for another name")
    );
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        probed(through(free, &ca)).await,
        unreachable("connection refused")
    );
    let nowhere = ProbeOptions {
        connect_to: Some("no-such-host.invalid:443".into()),
        ..ProbeOptions::default()
    };
    assert_eq!(probed(nowhere).await, unreachable("the name does not resolve"));
}

#[tokio::test]
async fn names_are_resolved_by_the_configured_server() {
    let (address, ca) = endpoint(HOST, "404 Not Found").await;
    let at = |host: &str, resolver| ProbeOptions {
        connect_to: Some(format!("{host}:{}", address.port())),
        ca_file: Some(ca.path().to_owned()),
        resolver: Some(resolver),
    };
    let resolver = dns("edge.example.com").await;
    assert_eq!(
        probed(at("edge.example.com", resolver)).await,
        ProbeResult::Refused(404)
    );
    assert_eq!(
        probed(at("none.example.com", resolver)).await,
        unreachable("the name does not resolve")
    );
    // Without connect_to the probe resolves the probed host itself.
    let direct = ProbeOptions {
        resolver: Some(resolver),
        ..ProbeOptions::default()
    };
    assert_eq!(probed(direct).await, unreachable("the name does not resolve"));
}

/// Runs in a process of its own, because the environment belongs to the whole process.
#[tokio::test]
async fn a_proxy_of_the_environment_is_not_for_probes() {
    const INNER: &str = "MTLS_OPERATOR_TEST_PROBE";
    const NAME: &str = "probe::https::tests::a_proxy_of_the_environment_is_not_for_probes";
    if std::env::var_os(INNER).is_some() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // The proxy is an address of this machine, where the connection may be refused; the outer process
        // checks whether the inner one contacted the proxy.
        let here = ProbeOptions {
            resolver: Some(dns(HOST).await),
            ..ProbeOptions::default()
        };
        assert!(matches!(probed(here).await, ProbeResult::Unreachable(_)));
        return;
    }
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", proxy.local_addr().unwrap());
    let variables = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"].map(|name| (name, &at));
    let mut inner = tokio::process::Command::new(std::env::current_exe().unwrap());
    let inner = inner
        .args(["--exact", NAME])
        .env(INNER, "1")
        .envs(variables)
        .env_remove("NO_PROXY");
    let run = tokio::select! {
        run = inner.env_remove("no_proxy").output() => run.unwrap(),
        _ = proxy.accept() => panic!("the probe asked the proxy"),
    };
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn options_are_parsed_or_refused() {
    for (text, expected) in [
        ("127.0.0.1:8443", Some(("127.0.0.1", 8443))),
        ("edge.local:443", Some(("edge.local", 443))),
        ("[::1]:443", Some(("::1", 443))),
        ("127.0.0.1", None),
        (":443", None),
        ("edge:0", None),
        ("edge:https", None),
    ] {
        let got = host_and_port(text).ok();
        assert_eq!(got.as_ref().map(|(h, p)| (h.as_str(), *p)), expected, "{text}");
    }
    assert!(matches!(
        certificates(Path::new("/nonexistent")),
        Err(ProbeError::ReadCa { .. })
    ));
    assert!(matches!(
        certificates(Path::new("/dev/null")),
        Err(ProbeError::NoCa(_))
    ));
}
