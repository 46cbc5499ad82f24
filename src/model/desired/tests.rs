//! Tests of `desired`.

use super::*;

use std::collections::BTreeMap;

use jiff::SignedDuration;

use serde_json::{Map, Value, json};

use crate::{
    api::{AuthorityState, KeyAlgorithm as ApiKeyAlgorithm, MtlsDomain, conditions::Reason},
    aws::session::RoleToAssume,
    model::{
        authorities::{DesiredAuthority, DesiredSource, key_kind},
        placement::{OperatorConfig, access},
    },
    pki::keys::KeyKind,
    status::Refused,
};

const ACCOUNT: &str = "123456789012";

const REGION: &str = "eu-west-1";

fn domain(change: impl FnOnce(&mut Value)) -> MtlsDomain {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": "partners", "namespace": "shop", "uid": "u"},
        "spec": {"domainName": "a.example.com", "truststore": {"bucket": "b"}},
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

fn wanted(domain: &MtlsDomain, truststore_bucket: Option<&str>, longest: i64) -> Result<Desired, Refused> {
    let operator_config = OperatorConfig {
        cluster_id: "c",
        account: ACCOUNT,
        region: REGION,
        truststore_bucket,
        tags: &BTreeMap::new(),
    };
    let longest = SignedDuration::from_hours(longest);
    desired(
        domain,
        &operator_config,
        Clients {
            longest,
            self_signed: vec![],
            watched: None,
        },
    )
}

#[test]
fn a_spec_that_cannot_be_served_is_refused_with_its_field() {
    let existing = |arn: &str| json!({"existing": {"arn": arn}});
    let arn = |place: &str| format!("arn:aws:acm:{place}:certificate/1");
    let authority = |source: Value| {
        let mut authority = source;
        authority["name"] = json!("a");
        json!({"authorities": [authority]})
    };
    let authorizer = |ids: &[&str]| {
        let all: Vec<_> = ids
            .iter()
            .map(|id| json!({"apiId": id, "authorizerId": "z"}))
            .collect();
        json!({"headers": [], "authorizer": {"existing": all}})
    };
    let mapped = json!([{"path": "", "api": {"id": "a1", "stage": "s"}}]);
    type Case = (&'static str, Value, Option<(Reason, &'static str)>);
    let invalid = |field| Some((Reason::InvalidSpec, field));
    let cases: Vec<Case> = vec![
        ("nothing", json!({}), None),
        ("its account", json!({"aws": {"accountId": ACCOUNT}}), None),
        (
            "another account",
            json!({"aws": {"accountId": "999999999999"}}),
            Some((Reason::WrongAccount, "spec.aws.accountId")),
        ),
        (
            "more tags than the schema and the flag allow together",
            json!({"aws": {"tags": (0..41).map(|n| (format!("k{n}"), json!("v"))).collect::<Map<_, _>>()}}),
            invalid("spec.aws.tags"),
        ),
        (
            "no bucket",
            json!({"truststore": null}),
            invalid("spec.truststore.bucket"),
        ),
        (
            "a certificate here",
            json!({"serverCertificate": existing(&arn("eu-west-1:123456789012"))}),
            None,
        ),
        (
            "a certificate in another Region",
            json!({"serverCertificate": existing(&arn("us-east-1:123456789012"))}),
            invalid("spec.serverCertificate.existing.arn"),
        ),
        (
            "a certificate of another account",
            json!({"serverCertificate": existing(&arn("eu-west-1:999999999999"))}),
            invalid("spec.serverCertificate.existing.arn"),
        ),
        (
            "a proof of another account",
            json!({"serverCertificate": {"existing": {
                "arn": arn("eu-west-1:123456789012"),
                "ownershipVerificationArn": arn("eu-west-1:999999999999"),
            }}}),
            invalid("spec.serverCertificate.existing.ownershipVerificationArn"),
        ),
        (
            "an authority without a source",
            json!({"trust": authority(json!({}))}),
            invalid("authority a: set exactly one"),
        ),
        (
            "a kind of key that does not exist",
            json!({"trust": authority(json!({
                "generate": {"privateKey": {"algorithm": "RSA", "size": 256}},
            }))}),
            invalid("authority a: privateKey"),
        ),
        (
            "labels",
            json!({"trust": authority(json!({
                "configMapSelector": {"matchLabels": {"x.y/a": "b"}, "key": "k"},
            }))}),
            None,
        ),
        (
            "an invalid label",
            json!({"trust": authority(json!({
                "configMapSelector": {"matchLabels": {"a,b": "c"}, "key": "k"},
            }))}),
            invalid("configMapSelector.matchLabels"),
        ),
        (
            "an invalid value of a label",
            json!({"trust": authority(json!({
                "configMapSelector": {"matchLabels": {"a": "b,c=d"}, "key": "k"},
            }))}),
            invalid("configMapSelector.matchLabels"),
        ),
        (
            "an authorizer for each API",
            json!({"mappings": mapped, "identity": authorizer(&["a1"])}),
            None,
        ),
        (
            "an authorizer is missing",
            json!({"mappings": mapped, "identity": authorizer(&[])}),
            invalid("names no authorizer for the API a1"),
        ),
        (
            "an authorizer too many",
            json!({"mappings": mapped, "identity": authorizer(&["a1", "a2"])}),
            invalid("the API a2 is in none"),
        ),
    ];
    for (what, spec, expected) in cases {
        let domain = domain(|o| {
            for (field, value) in spec.as_object().unwrap() {
                o["spec"][field] = value.clone();
            }
        });
        match (wanted(&domain, None, 1), expected) {
            (Ok(_), None) => {}
            (Err(refused), Some((reason, told))) => {
                assert_eq!(refused.reason, reason, "{what}");
                assert!(refused.message.contains(told), "{what}: {}", refused.message);
            }
            (found, expected) => panic!("{what}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn unset_fields_default_to_the_operators_configuration() {
    let bare = domain(|o| o["spec"]["truststore"] = Value::Null);
    let Desired {
        placement,
        truststore,
        ..
    } = wanted(&bare, Some("t-{account}-{region}"), 1).unwrap();
    assert_eq!(placement.truststore.as_ref(), Some(&truststore));
    assert_eq!(
        truststore.uri(),
        "s3://t-123456789012-eu-west-1/c/shop/partners.pem"
    );
    assert_eq!(
        (placement.location().as_str(), placement.owner.as_str()),
        ("123456789012/eu-west-1", "c/shop/partners")
    );
    assert_eq!(
        wanted(&domain(|_| {}), Some("other"), 1)
            .unwrap()
            .truststore
            .bucket,
        "b",
        "the spec takes precedence"
    );
    assert_eq!(placement.route53_account(), ACCOUNT);
    let role = domain(|o| {
        let role = json!({"roleArn": "arn:aws:iam::999999999999:role/r"});
        o["spec"]["dns"] = json!({"route53": {"assumeRole": role}});
    });
    assert_eq!(
        wanted(&role, None, 1).unwrap().placement.route53_account(),
        "999999999999"
    );
    for (owner, ours) in [
        ("c/shop/partners", true),
        ("c/other/partners", true),
        ("other/shop/partners", false),
        ("cc/shop/partners", false),
    ] {
        assert_eq!(placement.is_of_this_cluster(owner), ours, "{owner}");
    }
}

#[test]
fn the_longest_leaf_is_bounded_by_the_default_and_by_max_duration() {
    for (longest, max, expected) in [
        (1, None, 2160),
        (5000, None, 5000),
        (5000, Some("3000h"), 3000),
        (1, Some("24h"), 24),
        (5000, Some("9000h"), 5000),
    ] {
        let domain = domain(|o| o["spec"]["clients"] = json!({"maxDuration": max}));
        let found = wanted(&domain, None, longest).unwrap().longest_leaf;
        assert_eq!(found.as_hours(), expected, "{longest} {max:?}");
    }
}

#[test]
fn a_domain_that_is_taken_over_keeps_its_certificate_only_when_the_spec_names_none() {
    let of = |spec: Value| match wanted(&domain(|o| o["spec"]["serverCertificate"] = spec), None, 1)
        .unwrap()
        .certificate
    {
        DesiredCertificate::Request { request, keep } => (request.names, keep),
        DesiredCertificate::Existing { .. } => panic!("none is named"),
    };
    assert_eq!(of(Value::Null), (vec!["a.example.com".into()], true));
    assert_eq!(of(json!({"request": {}})), (vec!["a.example.com".into()], false));
    let names = json!({"request": {"subjectAlternativeNames": ["b.example.com", "a.example.com"]}});
    assert_eq!(of(names).0, ["a.example.com", "b.example.com"], "each once");
}

#[test]
fn an_unset_key_algorithm_is_none_of_the_spec_and_requests_as_rsa_2048_does() {
    let of = |request: Value| match wanted(
        &domain(|o| o["spec"]["serverCertificate"] = json!({"request": request})),
        None,
        1,
    )
    .unwrap()
    .certificate
    {
        DesiredCertificate::Request { request, .. } => request,
        DesiredCertificate::Existing { .. } => panic!("none is named"),
    };
    let (unset, rsa) = (of(json!({})), of(json!({"keyAlgorithm": "RSA_2048"})));
    assert_eq!((unset.key_algorithm.clone(), &unset.token), (None, &rsa.token));
    assert_eq!(
        (unset.new_key(), rsa.new_key()),
        (acm::KeyAlgorithm::Rsa2048, acm::KeyAlgorithm::Rsa2048)
    );
    let ec = of(json!({"keyAlgorithm": "EC_prime256v1"}));
    assert_eq!(ec.key_algorithm, Some(acm::KeyAlgorithm::EcPrime256v1));
    assert_ne!(ec.token, rsa.token);
}

#[test]
fn the_policy_defines_external_ids() {
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let domain = domain(|o| {
        o["spec"]["aws"] = json!({"region": "us-east-1", "assumeRole": {"roleArn": role("a")}});
        o["spec"]["dns"] = json!({"route53": {"assumeRole": {"roleArn": role("b")}}});
    });
    let text = format!(
        "rules: [{{name: r, namespaces: {{}}, roles: [{{arn: '{}', externalId: x}}]}}]",
        role("a")
    );
    let policy = crate::policy::file::parse(&text).unwrap();
    let id = |role: Option<RoleToAssume>| role.map(|role| (role.arn.to_string(), role.external_id));
    let with = access(&domain, Some(&policy));
    assert_eq!(with.region.as_deref(), Some("us-east-1"));
    assert_eq!(id(with.role), Some((role("a"), Some("x".into()))));
    assert_eq!(id(with.route53_role), Some((role("b"), None)));
    assert_eq!(id(access(&domain, None).role), Some((role("a"), None)));
}

#[test]
fn only_active_authorities_with_a_key_issue_and_sources_match_their_objects() {
    let source = |kind: &str| match kind {
        "secret" => DesiredSource::Secret { name: "s".into() },
        "map" => DesiredSource::ConfigMap {
            name: "m".into(),
            key: "k".into(),
        },
        "maps" => DesiredSource::ConfigMaps {
            labels: [("a".into(), "b".into())].into(),
            key: "k".into(),
        },
        _ => DesiredSource::Pem(String::new()),
    };
    let labels = |value: &str| {
        BTreeMap::from([
            ("a".to_owned(), value.to_owned()),
            ("c".to_owned(), String::new()),
        ])
    };
    for (kind, state, issues, secret, reads) in [
        ("secret", AuthorityState::Active, true, Some("s"), [false; 3]),
        ("secret", AuthorityState::Distrusted, false, Some("s"), [false; 3]),
        ("map", AuthorityState::Active, false, None, [true, false, false]),
        ("maps", AuthorityState::Active, false, None, [false, true, false]),
        ("pem", AuthorityState::Active, false, None, [false; 3]),
    ] {
        let wanted = DesiredAuthority {
            name: "a".into(),
            state,
            source: source(kind),
        };
        assert_eq!(
            (wanted.may_issue(), wanted.source.secret().map(String::as_str)),
            (issues, secret),
            "{kind} {state:?}"
        );
        let found = [("m", labels("x")), ("n", labels("b")), ("n", labels("x"))];
        let found = found.map(|(name, labels)| wanted.source.reads_config_map(name, &labels));
        assert_eq!(found, reads, "{kind}: by name, by labels, by neither");
    }
}

#[test]
fn key_kinds_follow_algorithm_and_size() {
    use ApiKeyAlgorithm::{ECDSA, RSA};
    for (algorithm, size, expected) in [
        (ECDSA, None, Some(KeyKind::EcdsaP256)),
        (ECDSA, Some(256), Some(KeyKind::EcdsaP256)),
        (ECDSA, Some(384), Some(KeyKind::EcdsaP384)),
        (ECDSA, Some(2048), None),
        (RSA, None, Some(KeyKind::Rsa2048)),
        (RSA, Some(2048), Some(KeyKind::Rsa2048)),
        (RSA, Some(3072), Some(KeyKind::Rsa3072)),
        (RSA, Some(4096), Some(KeyKind::Rsa4096)),
        (RSA, Some(1024), None),
    ] {
        assert_eq!(key_kind(algorithm, size), expected, "{algorithm:?} {size:?}");
    }
}
