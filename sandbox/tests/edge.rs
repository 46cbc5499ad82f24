//! Tests of the edge with curl, and of its verification against the openssl command.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_acm::primitives::Blob;
use common::{configuration, domain, truststore};
use openssl::x509::{X509, X509VerifyResult};
use sandbox::aws::{Account, Aws, Options};
use sandbox::control::Control;
use sandbox::edge::{Edge, trust};
use sandbox::prepare::{Preparation, Prepared, prepare};

const DAY: i64 = 86_400;

/// Shell commands as in the walk-throughs. `root` <- `i1` <- ... <- `i4`, with a leaf `l0` to `l4` under
/// each.
const CORPUS: &str = r#"
new_key() { if [ $2 = ec ]; then openssl ecparam -genkey -name prime256v1 -noout -out $1.key; else openssl genrsa -out $1.key $2; fi; }
self_signed() { name=$1; shift; openssl req -x509 -new -sha256 -key $name.key -subj /CN=$name -out $name.crt "$@"; }
request() { openssl req -new -key $1.key -subj "${2:-/CN=$1}" -out $1.csr; }
# issued NAME ISSUER DAYS EXTENSIONS
issued() { request $1; openssl x509 -req -sha256 -in $1.csr -CA $2.crt -CAkey $2.key -CAcreateserial -days $3 -extfile <(printf "$4") -out $1.crt; }
ca='basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign'
leaf='basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth'

new_key root 2048; self_signed root -days 3650
issuer=root; kind=ec
for n in 1 2 3 4; do new_key i$n $kind; issued i$n $issuer 2000 "$ca"; issuer=i$n; [ $kind = ec ] && kind=2048 || kind=ec; done
new_key l0 ec; issued l0 root 30 "$leaf"
for n in 1 2 3 4; do new_key l$n 2048; issued l$n i$n 30 "$leaf"; done

new_key self1 2048; request self1                                        # X.509 v1, where openssl still makes them
openssl x509 -req -sha256 -signkey self1.key -in self1.csr -days 365 -out self1.crt
new_key self3 ec; self_signed self3 -days 365 -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature
new_key child ec; issued child self3 30 "$leaf"                          # under one that is no authority
new_key selfca 2048; self_signed selfca -days 365                        # CA:TRUE, which is what req -x509 makes
new_key v1leaf 2048; request v1leaf
openssl x509 -req -sha256 -in v1leaf.csr -CA root.crt -CAkey root.key -set_serial 01 -days 365 -out v1leaf.crt
new_key caleaf ec; issued caleaf root 365 "$ca"
new_key weak 1024; issued weak root 365 "$leaf"
new_key stranger ec; self_signed stranger -days 3650; new_key lost ec; issued lost stranger 365 "$leaf"
mkdir imposter; cd imposter; new_key root 2048; self_signed root -days 3650; cd ..

# an intermediate that outlives its root
new_key old ec; self_signed old -days 10; new_key young ec; issued young old 100 "$ca"; new_key lyoung ec; issued lyoung young 90 "$leaf"

# expired, and not yet valid
new_key expired ec; issued expired root -1 "$leaf"
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' > ca.cnf
touch index.txt; echo 0A > serial; new_key early ec; request early
openssl ca -batch -config ca.cnf -cert root.crt -keyfile root.key -in early.csr -startdate 20450101000000Z -enddate 20470101000000Z -out early.crt -notext
"#;

fn run(dir: &Path, script: &str) -> (bool, String) {
    let output = Command::new("bash")
        .args(["-ec", script])
        .current_dir(dir)
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn corpus() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (made, text) = run(dir.path(), CORPUS);
    assert!(made, "{text}");
    dir
}

fn read(dir: &Path, names: &[&str]) -> String {
    names
        .iter()
        .map(|name| std::fs::read_to_string(dir.join(format!("{name}.crt"))).unwrap())
        .collect()
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .try_into()
        .unwrap()
}

#[test]
fn verdicts_are_those_of_openssl_verify() {
    let dir = corpus();
    // The truststore, its certificates with a complete chain of at most 4, the client's certificate, days
    // from now, result.
    type Case = (
        &'static [&'static str],
        &'static [&'static str],
        &'static str,
        i64,
        bool,
    );
    let cases: &[Case] = &[
        (&["root"], &["root"], "l0", 0, true),
        (&["root", "i1"], &["root", "i1"], "l1", 0, true),
        (&["i1", "root"], &["root", "i1"], "l1", 0, true),
        (&["root", "i1", "i2"], &["root", "i1", "i2"], "l2", 0, true),
        (
            &["root", "i1", "i2", "i3"],
            &["root", "i1", "i2", "i3"],
            "l3",
            0,
            true,
        ),
        (
            &["root", "i1", "i2", "i3"],
            &["root", "i1", "i2", "i3"],
            "l0",
            0,
            true,
        ),
        // a chain of five
        (
            &["root", "i1", "i2", "i3", "i4"],
            &["root", "i1", "i2", "i3"],
            "l4",
            0,
            false,
        ),
        (
            &["root", "i1", "i2", "i3", "i4"],
            &["root", "i1", "i2", "i3"],
            "l3",
            0,
            true,
        ),
        // an incomplete one
        (&["root"], &["root"], "l1", 0, false),
        (&["i1"], &[], "l1", 0, false),
        (&["i1", "i2"], &[], "l2", 0, false),
        (&["root", "i2"], &["root"], "l2", 0, false),
        (&["l0"], &[], "l0", 0, false),
        // the client's certificate itself
        (&["self1"], &["self1"], "self1", 0, true),
        (&["self3"], &["self3"], "self3", 0, true),
        (&["selfca"], &["selfca"], "selfca", 0, true),
        (&["self3"], &["self3"], "child", 0, false),
        (&["root", "l0"], &["root", "l0"], "l0", 0, true),
        (&["root"], &["root"], "self3", 0, false),
        (&["self1"], &["self1"], "self3", 0, false),
        (&["root"], &["root"], "root", 0, true),
        // versions and extensions
        (&["root"], &["root"], "v1leaf", 0, true),
        (&["root"], &["root"], "caleaf", 0, true),
        (&["root"], &["root"], "weak", 0, false),
        // other authorities
        (&["root"], &["root"], "lost", 0, false),
        (&["stranger"], &["stranger"], "l0", 0, false),
        (&["stranger", "root"], &["stranger", "root"], "l0", 0, true),
        (&["imposter/root"], &["imposter/root"], "l0", 0, false),
        (&["imposter/root", "i1"], &["imposter/root"], "l1", 0, false),
        // time
        (&["root"], &["root"], "l0", -1, false),
        (&["root"], &["root"], "l0", 31, false),
        (&["root"], &["root"], "expired", 0, false),
        (&["root"], &["root"], "early", 0, false),
        (&["root"], &["root"], "early", 365 * 20, false),
        (&["self3"], &["self3"], "self3", 366, false),
        (&["old", "young"], &["old", "young"], "lyoung", 5, true),
        (&["old", "young"], &["old", "young"], "lyoung", 20, true),
        (&["old", "young"], &["old", "young"], "lyoung", 95, false),
    ];
    for (bundle, whole, leaf, days, want) in cases {
        let at = now() + days * DAY;
        std::fs::write(dir.path().join("whole.pem"), read(dir.path(), whole)).unwrap();
        // An empty file is an error to openssl; an empty truststore is a refusal.
        let (openssl, text) = run(
            dir.path(),
            &format!(
                "[ -s whole.pem ] && openssl verify -partial_chain -auth_level 2 -attime {at} -no-CApath \
                 -no-CAstore \
                 -CAfile whole.pem {leaf}.crt"
            ),
        );
        let anchors = trust::certificates(&read(dir.path(), bundle));
        assert_eq!(anchors.len(), bundle.len());
        let certificate = X509::from_pem(read(dir.path(), &[leaf]).as_bytes()).unwrap();
        let verdict = trust::judge(&anchors, &certificate, at).unwrap();
        let case = format!("{leaf} by {bundle:?} in {days} days: {verdict}; openssl: {text}");
        assert_eq!(
            (verdict == X509VerifyResult::OK, openssl),
            (*want, *want),
            "{case}"
        );
    }
}

#[test]
fn unreadable_certificates_are_skipped() {
    let dir = corpus();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bundle = format!(
        "# root\n{}{broken}\n# i1\r\n{}trailing",
        read(dir.path(), &["root"]),
        read(dir.path(), &["i1"])
    );
    assert_eq!(trust::certificates(&bundle).len(), 2);
    assert!(
        trust::certificates("").is_empty() && trust::certificates("-----BEGIN CERTIFICATE-----").is_empty()
    );
}

/// Emulator with an edge in front, an account with the resources of a user, and a corpus of certificates.
struct World {
    corpus: tempfile::TempDir,
    edge: Edge,
    aws: Aws,
    account: Account,
    prepared: Prepared,
}

impl World {
    async fn start() -> Self {
        let corpus = tokio::task::spawn_blocking(corpus).await.unwrap();
        let aws = Aws::start(corpus.path(), &Options::default()).await.unwrap();
        let edge = Edge::start(aws.endpoint(), &corpus.path().join("public-ca.pem"))
            .await
            .unwrap();
        let account = aws.new_account();
        let prepared = prepare(&account, &Preparation::of_its_own(&account))
            .await
            .unwrap();
        Self {
            corpus,
            edge,
            aws,
            account,
            prepared,
        }
    }

    fn gateway(&self) -> aws_sdk_apigatewayv2::Client {
        aws_sdk_apigatewayv2::Client::new(&self.account.sdk())
    }

    fn pem(&self, names: &[&str]) -> String {
        read(self.corpus.path(), names)
    }

    /// Returns curl's result: true when there was an answer, and its body and status, or curl's error
    /// message.
    async fn curl(&self, url: &str, more: &str) -> (bool, String) {
        let dir: PathBuf = self.corpus.path().into();
        let host = url.trim_start_matches("https://").split('/').next().unwrap();
        let script = format!(
            "curl -sS --max-time 30 --cacert public-ca.pem --connect-to {host}:443:{} -w ' %{{http_code}}' \
             {more} '{url}' 2>&1",
            self.edge.address()
        );
        tokio::task::spawn_blocking(move || run(&dir, &script))
            .await
            .unwrap()
    }

    async fn get(&self, host: &str, client: &str) -> String {
        let certificate = if client.is_empty() {
            String::new()
        } else {
            format!("--cert {client}.crt --key {client}.key")
        };
        let (answered, text) = self.curl(&format!("https://{host}/"), &certificate).await;
        if answered {
            text
        } else {
            format!("no answer: {text}")
        }
    }
}

/// A handshake under the API's own name needs no client certificate.
#[tokio::test]
async fn a_host_header_alone_does_not_reach_a_domain_with_mutual_tls() {
    let world = World::start().await;
    let name = format!("api.{}", world.prepared.zone);
    domain(
        &world.account,
        &world.prepared,
        &name,
        Some(&world.pem(&["root"])),
    )
    .await;
    let own = format!(
        "https://{}.execute-api.us-east-1.amazonaws.com/",
        world.prepared.api_id
    );
    let by_host = format!("--header 'host: {name}'");
    assert_eq!(world.curl(&own, "").await.1, HELLO);
    assert_eq!(world.curl(&own, &by_host).await.1, FORBIDDEN);
    let control = Control::new(world.aws.endpoint());
    let knob = ("host_alone_selects", 1.0);
    control.set_knobs(&world.account.id, &[knob]).await.unwrap();
    assert_eq!(world.curl(&own, &by_host).await.1, HELLO);
}

/// Returns the certificate that the edge shows for a name.
async fn shown(world: &World, name: &str) -> X509 {
    let script = format!(
        "openssl s_client -connect {} -servername {name} </dev/null 2>/dev/null | openssl x509",
        world.edge.address()
    );
    let dir: PathBuf = world.corpus.path().into();
    let (_, text) = tokio::task::spawn_blocking(move || run(&dir, &script))
        .await
        .unwrap();
    X509::from_pem(text.as_bytes()).unwrap_or_else(|_| panic!("{name}: {text}"))
}

#[tokio::test]
async fn the_edge_shows_exactly_the_certificate_that_acm_has() {
    let world = World::start().await;
    let name = format!("shown.{}", world.prepared.zone);
    let (arn, _) = domain(&world.account, &world.prepared, &name, None).await;
    let acm = aws_sdk_acm::Client::new(&world.account.sdk());
    let of_acm = async |arn: &str| {
        let answer = acm.get_certificate().certificate_arn(arn).send().await.unwrap();
        X509::from_pem(answer.certificate.unwrap().as_bytes()).unwrap()
    };
    let found = shown(&world, &name).await;
    assert_eq!(found.to_der().unwrap(), of_acm(&arn).await.to_der().unwrap());
    let described = acm
        .describe_certificate()
        .certificate_arn(&arn)
        .send()
        .await
        .unwrap();
    let serial = described.certificate.unwrap().serial.unwrap().replace(':', "");
    let of_shown = found.serial_number().to_bn().unwrap().to_hex_str().unwrap();
    assert_eq!(of_shown.to_lowercase(), serial);
    assert_eq!(world.get(&name, "").await, HELLO);

    // A certificate of the user's own: callers do not trust it by the sandbox's CA.
    let make = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout own.key -out own.crt -subj /CN={name} \
         -addext subjectAltName=DNS:{name}"
    );
    assert!(run(world.corpus.path(), &make).0);
    let file = |name: &str| std::fs::read(world.corpus.path().join(name)).unwrap();
    let import = acm
        .import_certificate()
        .certificate(Blob::new(file("own.crt")))
        .private_key(Blob::new(file("own.key")));
    let own = import.send().await.unwrap().certificate_arn.unwrap();
    let update = world
        .gateway()
        .update_domain_name()
        .domain_name(&name)
        .domain_name_configurations(configuration(&own));
    update.send().await.unwrap();
    let found = shown(&world, &name).await;
    assert_eq!(found.to_pem().unwrap(), file("own.crt"));
    assert!(world.get(&name, "").await.starts_with("no answer"));
    let (_, text) = world.curl(&format!("https://{name}/"), "--cacert own.crt").await;
    assert_eq!(text, HELLO);
}

const HELLO: &str = r#""Hello World!" 200"#;
const FORBIDDEN: &str = r#"{"message":"Forbidden"} 403"#;

#[tokio::test]
async fn a_domain_answers_only_clients_that_its_truststore_trusts() {
    let world = World::start().await;
    let name = format!("api.{}", world.prepared.zone);
    let bundle = world.pem(&["root", "i1", "self1"]);
    let (arn, _) = domain(&world.account, &world.prepared, &name, Some(&bundle)).await;

    for (client, want) in [
        ("l0", HELLO),
        ("l1", HELLO),
        ("self1", HELLO),
        ("v1leaf", HELLO),
        ("l2", FORBIDDEN),
        ("lost", FORBIDDEN),
        ("selfca", FORBIDDEN),
        ("expired", FORBIDDEN),
        ("early", FORBIDDEN),
    ] {
        assert_eq!(world.get(&name, client).await, want, "{client}");
    }
    let get = |client| world.get(&name, client);
    let together = tokio::join!(get("l0"), get("lost"), get("v1leaf"), get("expired"));
    assert_eq!(
        together,
        (HELLO.into(), FORBIDDEN.into(), HELLO.into(), FORBIDDEN.into())
    );
    let url = format!("https://{name}/");
    for more in ["", "--tls-max 1.2"] {
        let (answered, text) = world.curl(&url, more).await;
        assert!(
            !answered && text.ends_with(" 000"),
            "without a certificate: {text}"
        );
    }
    let (_, text) = world.curl(&url, "--tls-max 1.2 --cert l0.crt --key l0.key").await;
    assert_eq!(text, HELLO);
    // The chain that the client sends does not help.
    std::fs::write(world.corpus.path().join("chain.crt"), world.pem(&["l2", "i2"])).unwrap();
    let (_, text) = world.curl(&url, "--cert chain.crt --key l2.key").await;
    assert_eq!(text, FORBIDDEN);

    // Another truststore counts from the update on, and no earlier TLS session is resumed.
    let gateway = world.gateway();
    let update = |mutual_tls| {
        let update = gateway
            .update_domain_name()
            .domain_name(&name)
            .domain_name_configurations(configuration(&arn));
        update.mutual_tls_authentication(mutual_tls).send()
    };
    let second = truststore(&world.account, &world.prepared.bucket, &world.pem(&["stranger"])).await;
    assert_eq!(
        world.get(&name, "lost").await,
        FORBIDDEN,
        "uploaded, but not yet taken"
    );
    update(second).await.unwrap();
    assert_eq!(world.get(&name, "lost").await, HELLO);
    assert_eq!(world.get(&name, "l0").await, FORBIDDEN);

    // No domain, no answer.
    gateway
        .delete_domain_name()
        .domain_name(&name)
        .send()
        .await
        .unwrap();
    assert!(world.get(&name, "lost").await.starts_with("no answer"));
    assert!(
        world
            .get("nobodys.example.com", "")
            .await
            .starts_with("no answer")
    );
}

/// Tests both values of `leaf-anchor-issues-nothing` in ASSUMPTIONS.md.
#[tokio::test]
async fn a_leaf_under_an_anchor_that_is_no_authority_is_refused_unless_the_knob_allows_it() {
    let world = World::start().await;
    let name = format!("api.{}", world.prepared.zone);
    domain(
        &world.account,
        &world.prepared,
        &name,
        Some(&world.pem(&["self3"])),
    )
    .await;
    let control = Control::new(world.aws.endpoint());
    for (knob, want) in [(0.0, FORBIDDEN), (1.0, HELLO)] {
        control
            .set_knobs(&world.account.id, &[("leaf_anchor_issues", knob)])
            .await
            .unwrap();
        assert_eq!(world.get(&name, "child").await, want);
        assert_eq!(world.get(&name, "self3").await, HELLO, "it is its own anchor");
        for stranger in ["l0", "lost"] {
            assert_eq!(world.get(&name, stranger).await, FORBIDDEN, "{stranger}");
        }
    }
}

#[tokio::test]
async fn default_endpoints_answer_until_they_are_closed() {
    let world = World::start().await;
    let host = &world.prepared.execute_api_host;
    assert_eq!(world.get(host, "").await, HELLO);
    let gateway = world.gateway();
    let close = gateway
        .update_api()
        .api_id(&world.prepared.api_id)
        .disable_execute_api_endpoint(true);
    close.send().await.unwrap();
    assert_eq!(world.get(host, "").await, r#"{"message":"Not Found"} 404"#);
}

#[tokio::test]
async fn the_certificate_and_the_request_reach_the_function() {
    let world = World::start().await;
    let account = &world.account;
    // Function that returns the event of its call.
    let lambda = aws_sdk_lambda::Client::new(&account.sdk());
    let source = "import json\ndef lambda_handler(e, c): return \
                  {'statusCode': 201, 'headers': {'x-echo': 'yes'}, 'body': json.dumps(e)}";
    lambda
        .update_function_code()
        .function_name("hello")
        .zip_file(zipped("hello.py", source).into())
        .send()
        .await
        .unwrap();
    let name = format!("api.{}", world.prepared.zone);
    domain(account, &world.prepared, &name, Some(&world.pem(&["root"]))).await;
    let plain = format!("plain.{}", world.prepared.zone);
    domain(account, &world.prepared, &plain, None).await;

    let body = "x".repeat(300_000);
    std::fs::write(world.corpus.path().join("body"), &body).unwrap();
    let forged = "-H 'x-double-client-cert-subject: CN=forged' -H 'x-double-secret: forged' -H 'X-Own: mine'";
    let client = "--cert l0.crt --key l0.key";
    // Two requests on one connection, the first with a body.
    let url = format!("https://{name}/orders/1?a=b");
    let (_, text) = world
        .curl(
            &url,
            &format!(
                "{client} {forged} -H 'Content-Type: text/plain' -X PUT \
                                               --data-binary @body -o first -w '%{{num_connects}}'"
            ),
        )
        .await;
    assert!(text.starts_with('1'), "{text}");
    let first: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.corpus.path().join("first")).unwrap()).unwrap();
    assert_eq!(first["body"].as_str().map(str::len), Some(body.len()));
    assert_eq!(
        (&first["rawPath"], &first["rawQueryString"]),
        (&"/orders/1".into(), &"a=b".into())
    );
    assert_eq!(first["requestContext"]["http"]["method"], "PUT");
    assert_eq!(first["headers"]["x-own"], "mine");
    assert!(
        !first["headers"]
            .as_object()
            .unwrap()
            .keys()
            .any(|header| header.starts_with("x-double"))
    );
    let shown = &first["requestContext"]["authentication"]["clientCert"];
    assert_eq!(
        (&shown["subjectDN"], &shown["issuerDN"]),
        (&"CN=l0".into(), &"CN=root".into())
    );
    assert_eq!(
        shown["clientCertPem"].as_str().unwrap().trim(),
        world.pem(&["l0"]).trim()
    );
    let (_, serial) = run(
        world.corpus.path(),
        "openssl x509 -in l0.crt -noout -serial | sed 's/serial=//'",
    );
    let digits = shown["serialNumber"]
        .as_str()
        .unwrap()
        .replace(':', "")
        .to_uppercase();
    assert_eq!(digits, serial.trim());
    let (_, dates) = run(
        world.corpus.path(),
        "openssl x509 -in l0.crt -noout -enddate | sed 's/notAfter=//'",
    );
    assert_eq!(shown["validity"]["notAfter"].as_str().unwrap(), dates.trim());

    let twice = format!("{client} -o /dev/null -w '%{{http_code}} %{{num_connects}} ' {url}");
    let (_, text) = world.curl(&url, &format!("-o /dev/null {twice}")).await;
    assert!(
        text.contains("201 1") && text.contains("201 0"),
        "the second request is on the first's connection: {text}"
    );
    let (_, text) = world.curl(&url, &format!("{client} -I")).await;
    assert!(text.contains("x-echo: yes") && text.ends_with(" 201"), "{text}");

    // A client verified for one name is not served another; nor does a name without mutual TLS open a name
    // with it.
    let (_, text) = world.curl(&url, &format!("{client} -H 'Host: {plain}'")).await;
    assert_eq!(text, FORBIDDEN);
    let (_, text) = world
        .curl(&format!("https://{plain}/"), &format!("-H 'Host: {name}'"))
        .await;
    assert_eq!(text, FORBIDDEN);
    let (_, text) = world.curl(&format!("https://{plain}/"), forged).await;
    assert!(
        text.ends_with(" 201") && !text.contains("clientCert") && !text.contains("forged"),
        "{text}"
    );
}

fn zipped(name: &str, text: &str) -> Vec<u8> {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file(name, stored).unwrap();
    archive.write_all(text.as_bytes()).unwrap();
    archive.finish().unwrap().into_inner()
}
