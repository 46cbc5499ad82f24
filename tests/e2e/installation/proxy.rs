//! An operator whose environment names a proxy calls AWS through it, and nothing else.
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    test_env::TestEnv,
    world::{run, world},
};

/// Address without a host, for which only the proxy answers: programs use no proxy for addresses of this
/// machine.
const AWS: &str = "192.0.2.1:4566";

/// Starts a proxy in front of the AWS emulator. Returns its URL, and the hosts that callers ask it for.
/// Nothing else is reachable through it.
async fn proxy() -> (String, Arc<Mutex<BTreeSet<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let aws = world()
        .aws
        .endpoint()
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let hosts = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = hosts.clone();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let (aws, seen) = (aws.clone(), seen.clone());
            tokio::spawn(async move {
                let mut head = vec![];
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = caller.read_u8().await else { return };
                    head.push(byte);
                }
                // As every proxy does: the absolute URL of the request becomes a path, with one request for
                // each connection.
                let head = String::from_utf8_lossy(&head).into_owned();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let host = target
                    .trim_start_matches("http://")
                    .split('/')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let head = head.replacen(&format!("http://{host}"), "", 1);
                let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                let is_aws = host == AWS;
                seen.lock().expect("no panic").insert(host);
                if is_aws {
                    let mut there = TcpStream::connect(aws).await.expect("the AWS emulator");
                    there.write_all(head.as_bytes()).await.expect("the head");
                    let _ = copy_bidirectional(&mut caller, &mut there).await;
                }
            });
        }
    });
    (address, hosts)
}

#[test]
fn aws_is_called_through_the_proxy_and_nothing_else_is() {
    run(async {
        let (proxy, hosts) = proxy().await;
        let endpoint = format!("http://{AWS}");
        let variables = [
            ("HTTP_PROXY", proxy.as_str()),
            ("HTTPS_PROXY", &proxy),
            ("AWS_ENDPOINT_URL", &endpoint),
        ];
        let env = TestEnv::start_with("proxy", &variables).await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.create_certificate("client1", "d").await;
        env.certificate_ready("client1").await;
        assert_eq!(*hosts.lock().expect("no panic"), BTreeSet::from([AWS.to_owned()]));
        env.delete_domain("d").await;
    });
}
