//! Attacks by load, each at a size that once held up or ended the operator, and at twice that: another tenant
//! is served within two seconds meanwhile, /livez answers, and memory stays below the chart's limit.
use std::ops::Range;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P521_SHA512};
use serde_json::{Value, json};

use crate::support::{
    attack::Attack,
    kubernetes::{
        objects::CERTIFICATE,
        teams::{Team, asking},
    },
    test_env::TestEnv,
    world::run,
};

/// Parallel requests of an attacker.
const AT_ONCE: usize = 8;

#[test]
fn many_certificates_of_one_name_hold_up_no_other_tenant() {
    run(async {
        let mut attack = Attack::start("samename", json!({})).await;
        for (keys, many) in [("a02-one-key", false), ("a02-many-keys", true)] {
            for (size, count) in [("1x", 150), ("2x", 300)] {
                let pem = evil(count, many);
                select(&attack.env, &pem).await;
                attack
                    .judge(keys, size, async |env, _, round| {
                        select(env, &format!("# {round}\n{pem}")).await;
                    })
                    .await;
            }
        }
    });
}

/// PEM of so many authorities of one name, each signed by a key of that name that is not among them.
fn evil(count: usize, many_keys: bool) -> String {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).expect("a key");
    let params = |serial: usize| {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, "Evil");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serial_number = Some((serial as u64).into());
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2045, 1, 1));
        params
    };
    let (absent, mut own) = (Issuer::new(params(0), key()), key());
    let mut text = String::new();
    for serial in 1..=count {
        if many_keys {
            own = key();
        }
        text += &params(serial)
            .signed_by(&own, &absent)
            .expect("a certificate")
            .pem();
    }
    text
}

/// Writes the ConfigMap `evil`, which the domain selects.
async fn select(env: &TestEnv, pem: &str) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "evil", "labels": {"partner": "yes"}},
        "data": {"ca.crt": pem},
    });
    Api::<ConfigMap>::namespaced(env.client.clone(), &env.namespace)
        .patch("evil", &PatchParams::apply("test").force(), &Patch::Apply(map))
        .await
        .expect("a ConfigMap");
}

#[test]
fn a_thousand_big_objects_do_not_fill_the_memory() {
    run(async {
        let mut attack = Attack::start("bigobjects", json!({})).await;
        let maps: Api<ConfigMap> = Api::namespaced(attack.env.client.clone(), &attack.acme.namespace);
        let touch = async |_: &TestEnv, _: &Team, round: usize| {
            let change = Patch::Merge(json!({"data": {"round": round.to_string()}}));
            maps.patch("big-0", &PatchParams::default(), &change)
                .await
                .expect("a change");
        };
        for (size, numbers) in [("1x", 0..1000), ("2x", 1000..2000)] {
            many(numbers, async |n| {
                let map = serde_json::from_value(json!({"metadata": big(n)})).expect("an object");
                maps.create(&PostParams::default(), &map)
                    .await
                    .expect("a ConfigMap");
            })
            .await;
            attack.judge("a03-configmaps", size, touch).await;
        }
        attack.restart().await;
        attack.judge("a03-configmaps-restarted", "2x", touch).await;
        maps.delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .expect("deleted");
    });
}

#[test]
fn big_certificates_do_not_fill_the_memory() {
    run(async {
        // The API server takes about eight of these a second while other processes use its cores.
        let mut attack = Attack::start("bigcertificates", json!({})).await;
        let certificates = attack.acme.api(CERTIFICATE);
        let spec = json!({
            "domainRef": {"name": "partners", "namespace": "nowhere"}, "subject": {"commonName": "x"},
        });
        let touch = async |_: &TestEnv, acme: &Team, round: usize| {
            acme.patch(
                "big-0",
                json!({"spec": {"subject": {"commonName": format!("x{round}")}}}),
            )
            .await;
        };
        for (size, numbers) in [("0.1x", 0..100), ("0.2x", 100..200)] {
            many(numbers, async |n| {
                let object = json!({
                    "apiVersion": "mtls-operator.io/v1alpha1", "kind": CERTIFICATE, "metadata": big(n),
                    "spec": spec,
                });
                let object = serde_json::from_value(object).expect("an object");
                certificates
                    .create(&PostParams::default(), &object)
                    .await
                    .expect("the API server takes it");
            })
            .await;
            attack.judge("a03-certificates", size, touch).await;
        }
    });
}

async fn many(numbers: Range<usize>, create: impl AsyncFn(usize)) {
    let create = &create;
    stream::iter(numbers)
        .for_each_concurrent(AT_ONCE, |number| create(number))
        .await;
}

/// Metadata of an object with an annotation of 250 kB.
fn big(number: usize) -> Value {
    json!({"name": format!("big-{number}"), "annotations": {"x": "y".repeat(250_000)}})
}

#[test]
fn certificates_that_are_always_due_hold_up_no_other_tenant() {
    run(async {
        let terms = json!({"maxDuration": "720h", "maxCertificates": 10});
        let mut attack = Attack::start("alwaysdue", terms).await;
        let bounds = json!({"duration": "720h", "renewBefore": "719h59m59s"});
        let mut there = 0;
        for (size, count) in [("1x", 5), ("2x", 10)] {
            for n in there..count {
                let spec = asking(&attack.env, &format!("acme-{n}"), bounds.clone());
                attack.acme.request(&format!("due-{n}"), spec).await;
            }
            for n in there..count {
                attack.acme.ready(&format!("due-{n}")).await;
            }
            there = count;
            // Each edit causes a reconcile.
            let ask = async |_: &TestEnv, acme: &Team, round: usize| {
                let patch = json!({"metadata": {"labels": {"round": round.to_string()}}});
                acme.patch(&format!("due-{}", round % count), patch).await;
            };
            attack.judge("a05", size, ask).await;
        }
        for n in 0..there {
            let object = attack.acme.api(CERTIFICATE).get(&format!("due-{n}")).await;
            let revision = object.expect("the object").data["status"]["revision"].as_u64();
            assert!((Some(1)..Some(5)).contains(&revision), "{n}: {revision:?}");
        }
    });
}

#[test]
fn certificates_with_all_names_they_may_have_hold_up_no_other_tenant() {
    run(async {
        let terms = json!({
            "uris": ["spiffe://example.com/acme/*"], "issuance": "SelfSigned", "maxCertificates": 20,
        });
        let mut attack = Attack::start("filling", terms).await;
        refused(&attack).await;
        let more = json!({"issuance": "SelfSigned", "uris": uris(8192)});
        edited(&mut attack, "a06", [10, 20], more).await;
    });
}

#[test]
fn edits_beside_many_certificates_of_one_grant_hold_up_no_other_tenant() {
    run(async {
        let terms = json!({
            "uris": ["spiffe://example.com/acme/*"], "maxDuration": "720h", "maxCertificates": 10,
        });
        let mut attack = Attack::start("grantcpu", terms).await;
        refused(&attack).await;
        edited(&mut attack, "a07", [150, 300], json!({"uris": uris(8192)})).await;
    });
}

/// Checks that the API server rejects names that are longer together.
async fn refused(attack: &Attack) {
    let spec = asking(&attack.env, "acme-long", json!({"uris": uris(100_000)}));
    let object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": CERTIFICATE, "metadata": {"name": "long"},
        "spec": spec,
    });
    let object = serde_json::from_value(object).expect("an object");
    let answer = attack
        .acme
        .api(CERTIFICATE)
        .create(&PostParams::default(), &object)
        .await;
    let told = answer.expect_err("the API server rejects it").to_string();
    assert!(told.contains("8192"), "{told}");
}

/// Creates so many certificates, and edits one of them again and again.
async fn edited(attack: &mut Attack, name: &str, sizes: [usize; 2], more: Value) {
    let mut there = 0;
    for (size, count) in [("1x", sizes[0]), ("2x", sizes[1])] {
        let (env, acme) = (&attack.env, &attack.acme);
        many(there..count, async |n| {
            acme.request(&format!("c{n}"), asking(env, &format!("acme-{n}"), more.clone()))
                .await;
        })
        .await;
        there = count;
        let edit = async |_: &TestEnv, acme: &Team, round: usize| {
            let renew_before = format!("{}h", 100 + round % 20);
            acme.patch("c0", json!({"spec": {"renewBefore": renew_before}}))
                .await;
        };
        attack.judge(name, size, edit).await;
    }
}

/// Fifty URIs with so many bytes together at most.
fn uris(bytes: usize) -> Vec<String> {
    let uri = |n: usize| {
        let uri = format!("spiffe://example.com/acme/{n:02}");
        let rest = bytes / 50 - uri.len();
        uri + &"a".repeat(rest)
    };
    (0..50).map(uri).collect()
}
