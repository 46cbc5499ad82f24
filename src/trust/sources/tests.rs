//! Tests of `sources`.

use super::*;

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};

use crate::{
    api::AuthorityState,
    model::observed::{CanIssue, Source},
    pki::{
        authority::{self, AuthorityRequest, tests::at},
        certificate::Certificate,
        keys::{self, Encoding, KeyKind},
        pem_certificates::parse_pem_bundle,
        pem_error::ParseError,
    },
    runtime::fake,
    telemetry::metrics::Metrics,
};

fn bytes(data: &[(&str, &[u8])]) -> BTreeMap<String, ByteString> {
    data.iter()
        .map(|(key, bytes)| ((*key).to_owned(), ByteString(bytes.to_vec())))
        .collect()
}

#[test]
fn data_and_binary_data_of_a_config_map_are_read() {
    let made = authority::generate(&authority::tests::request("a"), at("2026-11-24T12:00:00Z")).unwrap();
    let pem = made.certificate_pem;
    let latin = [b"Autoridade Certifica\xe7\xe3o\n", pem.as_bytes()].concat();
    let map = |data: &[(&str, &str)], binary: &[(&str, &[u8])]| {
        let text = data
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect();
        let mut map = ConfigMap {
            data: Some(text),
            binary_data: Some(bytes(binary)),
            ..ConfigMap::default()
        };
        map.metadata.name = Some("acme".into());
        of_config_map(&map, "ca.crt")
    };
    let read = only_trusted(&pem);
    assert!(matches!(&read, Source::Read { certificates: Ok(found), .. } if found.len() == 1));
    assert_eq!(map(&[("ca.crt", &pem)], &[]), read);
    assert_eq!(map(&[], &[("ca.crt", &latin)]), read);
    let missing = |told: &str| Source::Missing(format!("the ConfigMap acme has no key ca.crt{told}"));
    assert_eq!(map(&[], &[]), missing(""));
    assert_eq!(
        map(&[("ca.pem", &pem)], &[("root.crt", &latin)]),
        missing("; its keys are ca.pem; root.crt")
    );
    let many = ["1", "2", "3", "4", "5", "6", "7"].map(|key| (key, ""));
    assert_eq!(
        map(&many, &[]),
        missing("; its keys are 1; 2; 3; 4; 5; and 2 more")
    );
    assert_eq!(
        of_config_map(&ConfigMap::default(), "k"),
        Source::Missing("the ConfigMap  has no key k".into())
    );
}

#[test]
fn the_key_of_a_secret_matches_in_every_encoding() {
    let now = at("2026-11-24T12:00:00Z");
    let [made, other] =
        ["a", "b"].map(|name| authority::generate(&authority::tests::request(name), now).unwrap());
    let key = made.key_pem.as_str();
    let sec1 = keys::pem(&keys::parse(key).unwrap(), Encoding::Pkcs1).unwrap();
    let of = |key: &[u8]| {
        let data = bytes(&[("tls.crt", made.certificate_pem.as_bytes()), ("tls.key", key)]);
        match of_secret(
            "acme",
            &Secret {
                data: Some(data),
                ..Secret::default()
            },
        ) {
            Source::Read {
                certificates: Ok(_),
                can_issue,
                ..
            } => can_issue,
            other => panic!("{other:?}"),
        }
    };
    let indented: String = key.lines().map(|line| format!("  {line}\n")).collect();
    let crlf = key.replace('\n', "\r\n");
    let shapes: [&[u8]; 9] = [
        key.as_bytes(),
        sec1.as_bytes(),
        crlf.as_bytes(),
        indented.as_bytes(),
        &key.replace('\n', "\\n").into_bytes(),
        &[b"\xef\xbb\xbf", key.as_bytes()].concat(),
        &[b"\xef\xbb\xbf", crlf.as_bytes()].concat(),
        &[b"Schl\xfcssel\n", key.as_bytes()].concat(),
        &[made.certificate_pem.trim_end().as_bytes(), key.as_bytes()].concat(),
    ];
    for shape in shapes {
        assert_eq!(of(shape), CanIssue::Yes, "{}", String::from_utf8_lossy(shape));
    }
    let broken = |why: &str| CanIssue::Broken {
        why: why.to_owned(),
        of_key: true,
    };
    assert_eq!(
        [of(other.key_pem.as_bytes()), of(b"garbage"), of(b" \n"), of(b"")],
        [
            broken("tls.key does not belong to any certificate in tls.crt (the first is CN=a)"),
            broken("tls.key: there is no PEM block with a private key"),
            CanIssue::No,
            CanIssue::No
        ]
    );
}

/// Certificates and key of a hierarchy by openssl: a root, an authority below it, and the one that issues.
fn hierarchy() -> ([String; 3], String) {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &str| {
        let out = std::process::Command::new("openssl")
            .args(args.split(' '))
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{args}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    std::fs::write(dir.path().join("ext"), "basicConstraints=critical,CA:TRUE\n").unwrap();
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {ec} -keyout root.key -out root.crt -subj /CN=Root"
    ));
    for (below, above) in [("middle", "root"), ("issuing", "middle")] {
        openssl(&format!(
            "req -new {ec} -keyout {below}.key -out csr -subj /CN={below}"
        ));
        openssl(&format!(
            "x509 -req -in csr -CA {above}.crt -CAkey {above}.key -CAcreateserial -days 9 -extfile ext \
             -out {below}.crt"
        ));
    }
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    (
        ["root.crt", "middle.crt", "issuing.crt"].map(text),
        text("issuing.key"),
    )
}

#[test]
fn the_certificate_of_the_key_issues_wherever_it_stands() {
    let ([root, middle, issuing], key) = hierarchy();
    let (stranger, _) = made("Stranger");
    let orders: [&[&String]; 8] = [
        &[&issuing, &middle, &root],
        &[&issuing, &root, &middle],
        &[&middle, &issuing, &root],
        &[&middle, &root, &issuing],
        &[&root, &issuing, &middle],
        &[&root, &middle, &issuing],
        &[&root, &issuing, &middle, &issuing, &root],
        &[&stranger, &root, &middle, &issuing],
    ];
    let wanted = parse_pem_bundle(&issuing).unwrap().remove(0);
    for order in orders {
        let text: String = order.iter().map(|pem| pem.as_str()).collect();
        let Source::Read {
            certificates: Ok(found),
            can_issue,
            ..
        } = read(&[("tls.crt", &text), ("tls.key", &key)])
        else {
            panic!("{text}");
        };
        assert_eq!(can_issue, CanIssue::Yes, "{found:?}");
        assert_eq!((&found[0], found.len()), (&wanted, order.len()));
        let mut rest = parse_pem_bundle(&text).unwrap();
        rest.remove(rest.iter().position(|c| *c == wanted).unwrap());
        assert_eq!(found[1..], rest, "the others keep their order");
    }
    let broken = |tls_crt: &str, tls_key: &str, ca_crt: &str| match read(&[
        ("tls.crt", tls_crt),
        ("tls.key", tls_key),
        ("ca.crt", ca_crt),
    ]) {
        Source::Read {
            can_issue: CanIssue::Broken { why, of_key },
            ..
        } => (why, of_key),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        broken(&issuing, &key, &root),
        (
            "the chain stops at CN=issuing: add its issuer (CN=middle) to tls.crt or ca.crt, up to the \
             self-signed root"
                .to_owned(),
            false
        )
    );
    let (why, of_key) = broken(&format!("{middle}{root}"), &key, &issuing);
    assert!(
        of_key && why == "the certificate of tls.key, CN=issuing, is in ca.crt: put it into tls.crt",
        "{why}"
    );
}

fn made(common_name: &str) -> (String, String) {
    let duration = jiff::SignedDuration::from_hours(24);
    let request = AuthorityRequest {
        common_name: common_name.into(),
        organizations: vec![],
        duration,
        key: KeyKind::EcdsaP256,
    };
    let made = authority::generate(&request, jiff::Timestamp::now()).unwrap();
    (made.certificate_pem, made.key_pem.to_string())
}

fn read(data: &[(&str, &str)]) -> Source {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
        .collect();
    of_secret(
        "own",
        &Secret {
            data: Some(data),
            ..Secret::default()
        },
    )
}

#[test]
fn certificates_of_ca_crt_are_kept_apart_from_those_of_tls_crt() {
    let ((own, key), (other, _)) = (made("Own"), made("Other"));
    let certificate = |pem: &str| parse_pem_bundle(pem).unwrap();
    let source = |certificates: Result<Vec<Certificate>, ParseError>, completing, can_issue| Source::Read {
        certificates,
        completing,
        can_issue,
    };
    let (own_, other_, none) = (certificate(&own), certificate(&other), Ok(vec![]));
    let cases: [(&[(&str, &str)], Source); 6] = [
        (
            &[("tls.crt", &own), ("tls.key", &key), ("ca.crt", &other)],
            source(Ok(own_.clone()), Ok(other_.clone()), CanIssue::Yes),
        ),
        (
            &[("tls.crt", &own), ("tls.key", "")],
            source(Ok(own_.clone()), none.clone(), CanIssue::No),
        ),
        (
            &[("ca.crt", &other)],
            source(Ok(other_.clone()), none.clone(), CanIssue::No),
        ),
        (
            &[("tls.crt", "x"), ("ca.crt", &other)],
            source(Err(ParseError::NotPem), Ok(other_), CanIssue::No),
        ),
        (
            &[("tls.crt", &own), ("ca.crt", "x")],
            source(Ok(own_), Err(ParseError::NotPem), CanIssue::No),
        ),
        (
            &[("tls.key", &key)],
            Source::Missing("the Secret own has neither tls.crt nor ca.crt".into()),
        ),
    ];
    for (data, expected) in cases {
        assert_eq!(
            read(data),
            expected,
            "{:?}",
            data.iter().map(|(key, _)| key).collect::<Vec<_>>()
        );
    }
}

fn labelled(name: &str, label: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.into());
    map.metadata.namespace = Some("shop".into());
    map.metadata.labels = Some([("partner".into(), label.into())].into());
    map
}

fn selecting() -> [DesiredAuthority; 1] {
    [DesiredAuthority {
        name: "partners".into(),
        state: AuthorityState::Active,
        source: DesiredSource::ConfigMaps {
            labels: [("partner".into(), "yes".into())].into(),
            key: "ca.crt".into(),
        },
    }]
}

fn workers() -> Workers {
    Workers::start(&Metrics::new().0).unwrap()
}

fn watched(maps: &[ConfigMap]) -> Store<PartialObjectMeta<ConfigMap>> {
    let metadata = |map: &ConfigMap| PartialObjectMeta {
        metadata: map.metadata.clone(),
        ..PartialObjectMeta::default()
    };
    fake::store(maps.iter().map(metadata).collect())
}

#[tokio::test]
async fn a_selector_reads_each_selected_configmap_by_its_name() {
    let mut elsewhere = labelled("elsewhere", "yes");
    elsewhere.metadata.namespace = Some("other".into());
    let names = ["one", "two", "relabelled", "gone"];
    let seen: Vec<_> = names.iter().map(|name| labelled(name, "yes")).collect();
    let seen = [seen, vec![labelled("stranger", "no"), elsewhere]].concat();
    let client = fake::client(|_, path, _| match path.rsplit('/').next().unwrap() {
        name @ ("one" | "two") => (200, serde_json::to_value(labelled(name, "yes")).unwrap()),
        "relabelled" => (200, serde_json::to_value(labelled("relabelled", "no")).unwrap()),
        "gone" => fake::refusal(404, "NotFound"),
        _ => panic!("{path}"),
    });
    let found = super::read(&client, &workers(), &watched(&seen), "shop", "d", &selecting()).await;
    let Some(Source::Several(all)) = found.get("partners") else {
        panic!("{found:?}")
    };
    assert_eq!(all.keys().collect::<Vec<_>>(), ["one", "two"]);

    let none = super::read(&client, &workers(), &watched(&[]), "shop", "d", &selecting()).await;
    assert_eq!(none["partners"], Source::Several([].into()));
    let broken = fake::client(|_, path, _| match path.ends_with("two") {
        true => fake::refusal(500, "InternalError"),
        false => (200, serde_json::to_value(labelled("one", "yes")).unwrap()),
    });
    let found = super::read(
        &broken,
        &workers(),
        &watched(&seen[..2]),
        "shop",
        "d",
        &selecting(),
    )
    .await;
    assert!(matches!(found["partners"], Source::Unseen(_)), "{found:?}");
}

#[tokio::test]
async fn at_most_four_objects_are_read_at_a_time() {
    let running = Arc::new(std::sync::Mutex::new((0, 0)));
    let counted = running.clone();
    let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        let counted = counted.clone();
        async move {
            {
                let mut now = counted.lock().unwrap();
                now.0 += 1;
                now.1 = now.0.max(now.1);
            }
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            counted.lock().unwrap().0 -= 1;
            let map = serde_json::to_vec(&labelled("x", "yes")).unwrap();
            Ok::<_, kube::Error>(http::Response::new(kube::client::Body::from(map)))
        }
    });
    let client = Client::new(service, "default");
    let maps: Vec<_> = (0..30).map(|i| labelled(&format!("m{i}"), "yes")).collect();
    let found = super::read(&client, &workers(), &watched(&maps), "shop", "d", &selecting()).await;
    assert!(matches!(&found["partners"], Source::Several(all) if all.len() == 30));
    assert_eq!(*running.lock().unwrap(), (0, AT_ONCE));
}

#[tokio::test]
async fn sources_are_parsed_by_a_worker_of_their_namespace() {
    let workers = workers();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let mut held = Box::pin(workers.run("shop", move |_| released.recv()));
    assert!(futures::poll!(&mut held).is_pending());
    let client = fake::client(|_, path, _| match path.rsplit('/').next().unwrap() {
        "secret" => (200, serde_json::json!({"metadata": {"name": "secret"}})),
        "map" => (200, serde_json::to_value(labelled("map", "yes")).unwrap()),
        _ => panic!("{path}"),
    });
    let sources = [
        DesiredSource::Pem("no certificate".into()),
        DesiredSource::Secret {
            name: "secret".into(),
        },
        DesiredSource::ConfigMap {
            name: "map".into(),
            key: "ca.crt".into(),
        },
    ];
    for source in sources {
        let wanted = [DesiredAuthority {
            name: "partners".into(),
            state: AuthorityState::Active,
            source: source.clone(),
        }];
        let config_maps = watched(&[]);
        let read = super::read(&client, &workers, &config_maps, "shop", "d", &wanted);
        let mut read = Box::pin(read);
        for _ in 0..50 {
            assert!(futures::poll!(&mut read).is_pending(), "{source:?}");
            tokio::task::yield_now().await;
        }
    }
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
}
