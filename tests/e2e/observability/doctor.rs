//! Program `mtls-operator doctor` names each fault of a domain and of a caller, and changes nothing.
use std::collections::BTreeSet;

use aws_sdk_route53::types::{AliasTarget, ChangeAction, ResourceRecordSet, RrType};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use sandbox::control::{Calls, CertificateState};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    edge_calls::Caller,
    partner_ca::Ca,
    test_env::TestEnv,
    world::{run, world},
};

/// Runs the program. Returns its output and its exit code.
async fn doctor(env: &TestEnv, args: &[&str]) -> (Value, i32) {
    let out = Command::new(env!("CARGO_BIN_EXE_mtls-operator"))
        .arg("doctor")
        .args(args)
        .args(["--output", "json"])
        .env_clear()
        .envs(world().operator_env(&env.account, &env.prepared.bucket))
        // The program has the operator's own rights, as in its pod.
        .env(
            "KUBECONFIG",
            env.operator.log().with_file_name("operator.kubeconfig"),
        )
        .output()
        .await
        .expect("the program runs");
    let code = out.status.code().expect("the program ends by itself");
    let said =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| json!(String::from_utf8_lossy(&out.stderr)));
    (said, code)
}

/// Returns the words of the findings. The program must have been able to read everything.
async fn found(env: &TestEnv, args: &[&str]) -> BTreeSet<String> {
    let (said, code) = doctor(env, args).await;
    assert_eq!(said["unseen"], json!([]), "{said:#}");
    let findings = said["findings"].as_array().unwrap_or_else(|| panic!("{said:#}"));
    assert_eq!(code, i32::from(!findings.is_empty()), "{said:#}");
    findings
        .iter()
        .map(|finding| finding["what"].as_str().expect("a word").to_owned())
        .collect()
}

fn words(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns the findings about a caller with these files.
async fn about(env: &TestEnv, caller: &Caller) -> BTreeSet<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (cert, key) = (file("crt", &caller.crt), file("key", &caller.key));
    found(env, &[&env.host(), "--cert", &cert, "--key", &key]).await
}

/// Tries a caller's files in the forms in which other programs write and accept them: curl gets in with each.
async fn callers_files_of_every_shape(env: &TestEnv, caller: &Caller) {
    let (crt, key) = (caller.crt.as_str(), caller.key.as_str());
    let shapes = [
        (
            "certificate and key in one",
            format!("{crt}{key}"),
            format!("{crt}{key}"),
        ),
        (
            "the key first, with text",
            format!("Bag Attributes\n{key}Bag Attributes\n{crt}"),
            key.to_owned(),
        ),
        ("joined", format!("{}{key}", crt.trim_end()), key.to_owned()),
        (
            "a byte order mark",
            format!("\u{feff}{crt}"),
            format!("\u{feff}{key}"),
        ),
        (
            "of Windows",
            crt.replace('\n', "\r\n"),
            format!("\u{feff}{}", key.replace('\n', "\r\n")),
        ),
    ];
    for (name, crt, key) in shapes {
        assert_eq!(about(env, &Caller { crt, key }).await, words(&[]), "{name}");
    }
}

/// Creates a chain of authorities, the first self-signed, and a caller under the last who sends all but the
/// first along. Returns the authorities in PEM, and the caller.
fn chain(names: &[&str]) -> (Vec<String>, Caller) {
    let (mut pems, mut above): (Vec<String>, Option<Issuer<'static, KeyPair>>) = (vec![], None);
    let make = |name: &str, ca: bool, above: &mut Option<Issuer<'static, KeyPair>>| {
        let key = KeyPair::generate().expect("a key");
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = if ca {
            IsCa::Ca(BasicConstraints::Unconstrained)
        } else {
            IsCa::NoCa
        };
        params.extended_key_usages = if ca {
            vec![]
        } else {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        };
        let made = match above.as_ref() {
            Some(issuer) => params.signed_by(&key, issuer),
            None => params.self_signed(&key),
        };
        *above = Some(Issuer::new(params, key));
        (made.expect("a certificate").pem(), key_pem)
    };
    for name in names {
        pems.push(make(name, true, &mut above).0);
    }
    let (leaf, key) = make("caller", false, &mut above);
    (
        pems.clone(),
        Caller {
            crt: [vec![leaf], pems.split_off(1)].concat().concat(),
            key,
        },
    )
}

#[test]
fn each_fault_of_a_caller_is_named() {
    run(async {
        let env = TestEnv::start("doctor").await;
        let host = env.host();
        let (partners, under_partner) = chain(&["doctor-root", "doctor-intermediate"]);
        let partner = Ca::new("doctor-partner");
        let authorities = json!([
            {"name": "partners", "generate": {}},
            {"name": "root", "pem": partners[0]},
            {"name": "partner", "pem": partner.pem},
        ]);
        env.create_domain(
            "d",
            json!({"trust": {"authorities": authorities, "issuingAuthority": "partners"}}),
        )
        .await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        let client1 = format!("{}/client1", env.namespace);
        let mark = env.mark().await;

        assert_eq!(
            found(&env, &[&host, "--certificate", &client1]).await,
            words(&[]),
            "all is well"
        );
        assert_eq!(
            found(&env, &[&format!("{}/d", env.namespace)]).await,
            words(&[]),
            "no caller is given"
        );
        callers_files_of_every_shape(&env, &partner.leaf("x")).await;
        assert_eq!(
            about(&env, &Ca::new("doctor-stranger").leaf("x")).await,
            words(&["certificate-not-trusted"])
        );
        assert_eq!(
            about(&env, &under_partner).await,
            words(&["issuer-not-in-truststore"]),
            "only its root is trusted"
        );
        let (_, deep) = chain(&["doctor-root", "doctor-intermediate"]);
        assert_eq!(
            about(&env, &deep).await,
            words(&["certificate-not-trusted"]),
            "the same names, other keys"
        );
        assert_eq!(about(&env, &partner.leaf("x")).await, words(&[]), "trusted");
        let gone = partner.leaf_until("gone", rcgen::date_time_ymd(2024, 1, 1));
        assert_eq!(about(&env, &gone).await, words(&["client-certificate-expired"]));
        assert_eq!(
            found(&env, &[&host, "--certificate", &client1, "--path", "/x"]).await,
            words(&[]),
            "the empty path takes everything"
        );
        assert_eq!(
            env.writes(mark).await,
            Vec::<String>::new(),
            "the program only reads"
        );
    });
}

#[test]
fn each_fault_of_a_domain_is_named() {
    run(async {
        let mut env = TestEnv::start("patient").await;
        let host = env.host();
        env.create_domain("d", json!({})).await;
        env.create_certificate("client1", "d").await;
        env.ready("d").await;
        env.certificate_ready("client1").await;
        let client1 = format!("{}/client1", env.namespace);
        let args = [host.as_str(), "--certificate", &client1];
        let mut expected = BTreeSet::new();
        let mut now = async |env: &TestEnv, word: &str| {
            expected.insert(word.to_owned());
            assert_eq!(found(env, &args).await, expected, "{word}");
        };
        env.operator.kill(); // it would correct all of this
        let mark = env.mark().await;
        assert_eq!(found(&env, &args).await, words(&[]), "all is well");
        let account = env.account.id.clone();
        let reads = Calls {
            account: &account,
            operation: "GetApi",
            since: mark,
            ..Calls::default()
        };
        let reads = env.control().stats(&reads).await.expect("the journal");
        assert_eq!(reads.calls, 1, "its one API is read once");

        let gateway = env.gateway();
        let update = gateway
            .update_api()
            .api_id(&env.prepared.api_id)
            .disable_execute_api_endpoint(false);
        update.send().await.expect("UpdateApi");
        now(&env, "bypass-open").await;

        let domain = env.gateway_domain().await;
        let uri = domain
            .mutual_tls_authentication
            .expect("mutual TLS")
            .truststore_uri
            .expect("a URI");
        let (bucket, key) = uri
            .strip_prefix("s3://")
            .and_then(|path| path.split_once('/'))
            .expect("an S3 URI");
        let newer = aws_sdk_s3::primitives::ByteStream::from_static(b"# newer");
        env.s3()
            .put_object()
            .bucket(bucket)
            .key(key)
            .body(newer)
            .send()
            .await
            .expect("PutObject");
        now(&env, "truststore-stale").await;

        let id = env.mapping_id("").await;
        gateway
            .delete_api_mapping()
            .domain_name(&host)
            .api_mapping_id(id)
            .send()
            .await
            .expect("DeleteApiMapping");
        now(&env, "mapping-missing").await;

        let record = env.record(RrType::A).await.expect("the alias");
        let zone = record.alias_target.expect("an alias").hosted_zone_id;
        let target = AliasTarget::builder()
            .hosted_zone_id(zone)
            .dns_name("d-elsewhere.execute-api.eu-west-1.amazonaws.com");
        let target = target.evaluate_target_health(false).build().expect("a target");
        let wrong = ResourceRecordSet::builder()
            .name(format!("{host}."))
            .r#type(RrType::A)
            .alias_target(target);
        env.change_record(ChangeAction::Upsert, wrong.build().expect("a record"))
            .await;
        now(&env, "dns-missing").await;

        let arn = env.server_certificates().await.remove(0);
        let expired = CertificateState {
            arn: &arn,
            status: "EXPIRED",
            ..CertificateState::default()
        };
        env.control()
            .set_certificate(&expired)
            .await
            .expect("the emulator takes it");
        now(&env, "server-certificate-not-issued").await;

        env.control()
            .set_domain_status(&env.account.id, &host, "UPDATING", "")
            .await
            .expect("the emulator takes it");
        now(&env, "domain-updating").await;

        env.change("d", json!({"suspend": true})).await;
        now(&env, "suspended").await;
    });
}

#[test]
fn unreadable_resources_are_named() {
    run(async {
        let env = TestEnv::start("blind").await;
        let host = env.host();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.control()
            .deny(&env.account.id, &["acm:*", "s3:*"])
            .await
            .expect("the emulator takes it");
        let (said, code) = doctor(&env, &[&host]).await;
        assert_eq!((code, &said["findings"]), (2, &json!([])), "{said:#}");
        let unseen = said["unseen"].to_string();
        assert!(
            unseen.contains("acm:DescribeCertificate") && unseen.contains("s3:HeadObject"),
            "{unseen}"
        );
        let (said, code) = doctor(&env, &["absent.example.com"]).await;
        assert!(
            code == 2
                && said
                    .to_string()
                    .contains("there is no MtlsDomain for absent.example.com"),
            "{said}"
        );
        let missing = format!("{}/absent", env.namespace);
        let (said, code) = doctor(&env, &[&host, "--certificate", &missing]).await;
        let told = format!("mtls-operator: there is no ClientCertificate {missing}");
        assert_eq!(
            (code, said.as_str().map(str::trim)),
            (2, Some(told.as_str())),
            "a sentence"
        );
    });
}
