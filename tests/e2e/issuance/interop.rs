//! Every usual TLS library completes a handshake with the files of a Secret, and an independent linter finds
//! no error in them.
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use sandbox::tools;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::support::{
    kubernetes::{
        objects::{CERTIFICATE, DOMAIN, create, domain_spec, issued, until},
        secrets::{create_password, create_secret, openssl, sound, text},
    },
    test_env::TestEnv,
    world::world,
};

const PASSWORD: &str = "change it 1";

/// Path of the Go program of `tests/interop`.
fn go_program() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    tools::go_program("interop", &source, ".", &[]).expect("the Go program can be built")
}

async fn output(mut command: Command, input: &str) -> String {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let write = async {
        // A program that does not read its input says so by its answer.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let (out, ()) = tokio::join!(child.wait_with_output(), write);
    let out = out.expect("the program ends");
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// Objections of zlint to these certificates.
async fn findings(pem: &str) -> String {
    let mut lint = Command::new(
        tokio::task::spawn_blocking(go_program)
            .await
            .expect("the program is built"),
    );
    lint.arg("lint");
    output(lint, pem).await
}

/// Issues certificates of every kind of key, name and issuer, with a keystore, and creates the domain that
/// trusts them.
async fn issue_all(env: &TestEnv) -> Vec<(&'static str, Secret)> {
    let dir = tempfile::tempdir().expect("a folder");
    let run = async |line: &str| {
        openssl(dir.path(), &line.split(' ').collect::<Vec<_>>(), "")
            .await
            .expect(line)
    };
    let ext = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    std::fs::write(dir.path().join("ext"), ext).expect("a file");
    let ec = "-nodes -newkey ec -pkeyopt ec_paramgen_curve:P-384";
    run(&format!(
        "req -x509 {ec} -days 3650 -keyout root.key -out root.pem -subj /DC=com/DC=example/CN=Root \
                  -addext keyUsage=critical,keyCertSign"
    ))
    .await;
    run(&format!(
        "req {ec} -keyout ca.key -out ca.csr -multivalue-rdn -subj /DC=com/DC=example/O=B+OU=A/CN=Issuing"
    ))
    .await;
    run(
        "x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -days 3000 -extfile ext -out \
         ca.pem",
    )
    .await;
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("a file");
    let values = [
        ("tls.crt", read("ca.pem")),
        ("tls.key", read("ca.key")),
        ("ca.crt", read("root.pem")),
    ];
    create_secret(
        env,
        "issuing-ca",
        &values.each_ref().map(|(key, value)| (*key, value.as_str())),
    )
    .await;
    create_password(env, "p", PASSWORD).await;
    let trust = json!({"issuingAuthority": "own", "authorities": [
        {"name": "own", "generate": {"commonName": "Partners", "organizations": ["Acme", "Acme Labs"]}},
        {
            "name": "rsa",
            "generate": {"commonName": "Partners RSA", "privateKey": {"algorithm": "RSA", "size": 2048}},
        },
        {"name": "issuing", "secretRef": {"name": "issuing-ca"}},
    ]});
    create(env, DOMAIN, "partners", domain_spec(env, trust)).await;
    let full = json!({
        "commonName": "client1", "organizations": ["Acme", "Größe & Söhne"],
        "organizationalUnits": ["a", "b"], "countries": ["DE"],
        "localities": ["Berlin"], "provinces": ["Berlin"],
    });
    let kinds: [(&str, Value); 4] = [
        ("plain", json!({"subject": {"commonName": "plain"}})),
        (
            "full",
            json!({
                "authority": "rsa", "subject": full,
                "privateKey": {"algorithm": "RSA", "size": 2048, "encoding": "PKCS1"},
                "dnsNames": ["client1.acme.example"], "uris": ["spiffe://acme.example/client1"],
                "emailAddresses": ["ops@acme.example"],
            }),
        ),
        (
            "chained",
            json!({
                "authority": "issuing", "subject": {"commonName": "chained"},
                "privateKey": {"size": 384, "encoding": "PKCS1"},
            }),
        ),
        (
            "itself",
            json!({"issuance": "SelfSigned", "subject": {"commonName": "itself"}}),
        ),
    ];
    for (name, fields) in &kinds {
        let mut spec = json!({
            "domainRef": {"name": "partners"},
            "keystores": {"pkcs12": {"passwordSecretRef": {"name": "p", "key": "password"}}},
        });
        spec.as_object_mut()
            .expect("an object")
            .extend(fields.as_object().expect("an object").clone());
        create(env, CERTIFICATE, name, spec).await;
    }
    until(env, DOMAIN, "partners", "Ready", "True", "").await;
    join_all(kinds.map(async |(name, _)| (name, issued(env, name, 1).await.1))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_usual_client_is_accepted_and_a_linter_finds_no_error() {
    let env = TestEnv::start("interop").await;
    let secrets = issue_all(&env).await;
    for (name, secret) in &secrets {
        sound(secret).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let pem = text(secret, "tls.crt");
        let (leaf, end) = pem
            .split_once("-----END CERTIFICATE-----")
            .expect("a certificate");
        assert_eq!(
            findings(&format!("{leaf}-----END CERTIFICATE-----{}", &end[..1])).await,
            "",
            "{name}"
        );
        let certificates = pem.matches("BEGIN CERTIFICATE").count();
        assert_eq!(
            certificates,
            if *name == "chained" { 2 } else { 1 },
            "{name}: the leaf, and intermediates but not the root"
        );
    }
    for authority in ["partners.own-ca", "partners.rsa-ca"] {
        let secret = env
            .secrets()
            .get(authority)
            .await
            .expect("the authority's Secret");
        assert_eq!(findings(&text(&secret, "tls.crt")).await, "", "{authority}");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(
        findings(broken).await.contains("not a certificate"),
        "zlint finds the fault"
    );

    join_all(
        secrets
            .iter()
            .map(|(name, secret)| everybody_calls(&env, name, secret)),
    )
    .await;
}

async fn everybody_calls(env: &TestEnv, name: &str, secret: &Secret) {
    let dir = tempfile::tempdir().expect("a folder");
    for (file, bytes) in secret.data.iter().flatten() {
        std::fs::write(dir.path().join(file), &bytes.0).expect("a file");
    }
    let (host, ca, address) = (env.host(), world().ca_file(), world().edge.address().to_string());
    let ca = ca.to_str().expect("text").to_owned();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let python = r#"
import socket, ssl, sys
address, host, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain("tls.crt", "tls.key")
at, port = address.rsplit(":", 1)
with context.wrap_socket(socket.create_connection((at, int(port))), server_hostname=host) as s:
    s.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host.encode())
    print(s.recv(100).split(b"\r\n")[0].decode())
"#;
    let to = format!("{host}:443:{address}");
    let curl = [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "30",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--cacert",
        &ca,
        "--connect-to",
        &to,
    ];
    let url = format!("https://{host}/");
    let p12 = format!("keystore.p12:{PASSWORD}");
    let go = tokio::task::spawn_blocking(go_program)
        .await
        .expect("the program is built");
    let go = go.to_str().expect("text");
    let java = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/Client.java");
    let java = java.to_str().expect("text");
    let with = |program: &str, args: &[&[&str]]| {
        let mut command = Command::new(program);
        command.args(args.concat()).current_dir(dir.path());
        command
    };
    let calls = [
        (
            "openssl s_client",
            with(
                "openssl",
                &[&[
                    "s_client",
                    "-quiet",
                    "-verify_return_error",
                    "-connect",
                    &address,
                    "-servername",
                    &host,
                    "-CAfile",
                    &ca,
                    "-cert",
                    "tls.crt",
                    "-key",
                    "tls.key",
                ]],
            ),
            request.as_str(),
            "HTTP/1.1 200",
        ),
        (
            "curl with PEM",
            with("curl", &[&curl, &["--cert", "tls.crt", "--key", "tls.key", &url]]),
            "",
            "200",
        ),
        (
            "curl with PKCS #12",
            with("curl", &[&curl, &["--cert-type", "P12", "--cert", &p12, &url]]),
            "",
            "200",
        ),
        (
            "Python",
            with("python3", &[&["-c", python, &address, &host, &ca]]),
            "",
            "HTTP/1.1 200",
        ),
        (
            "Go",
            with(go, &[&["call", &address, &host, &ca, "tls.crt", "tls.key"]]),
            "",
            "200",
        ),
        (
            "Java",
            with("java", &[&[java, &address, &host, &ca, "keystore.p12", PASSWORD]]),
            "",
            "HTTP/1.1 200",
        ),
    ];
    for (client, command, input, expected) in calls {
        if client == "Java"
            && std::process::Command::new("javac")
                .arg("-version")
                .output()
                .is_err()
        {
            println!("not tried with Java: there is no JDK here");
            continue;
        }
        let seen = output(command, input).await;
        assert!(
            seen.contains(expected),
            "{client} with the certificate {name}: {seen}"
        );
    }
}
