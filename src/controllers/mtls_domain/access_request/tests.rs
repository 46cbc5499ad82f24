//! Tests of the requests that a spec and its placement lead to.

use super::*;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    api::{self, MtlsDomain},
    aws::{gateway::apis, route53},
    model::{
        observed::{Preflight, ZoneChoice},
        placement::{OperatorConfig, Placement, UnresolvedPlacement},
    },
    observation::seen::{Seen, Unseen},
    policy::Resource,
};

fn domain(spec: Value) -> MtlsDomain {
    let metadata = json!({"name": "d", "namespace": "shop"});
    let mut object = json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain"});
    (object["metadata"], object["spec"]) = (metadata, spec);
    serde_json::from_value(object).unwrap()
}

/// A spec with every field that can name a resource in AWS.
fn whole() -> Value {
    let arn = |service: &str, what: &str| format!("arn:aws:{service}:eu-west-1:123456789012:{what}");
    json!({
        "domainName": "a.example.com",
        "aws": {
            "region": "eu-west-1", "accountId": "123456789012",
            "assumeRole": {"roleArn": "arn:aws:iam::123456789012:role/a"},
        },
        "serverCertificate": {
            "request": {"subjectAlternativeNames": ["b.example.com"]},
            "existing": {
                "arn": arn("acm", "certificate/a"),
                "ownershipVerificationArn": arn("acm", "certificate/b"),
            },
        },
        "truststore": {"bucket": "bkt", "key": "k/k.pem", "kmsKeyArn": arn("kms", "key/a")},
        "mappings": [{"path": "", "api": {"id": "a1b2c3", "stage": "$default"}}],
        "dns": {"route53": {
            "hostedZoneId": "Z1", "assumeRole": {"roleArn": "arn:aws:iam::123456789012:role/b"},
        }},
        // Existing authorizers count only in mapped APIs, which the policy decides on.
        "identity": {"headers": [], "authorizer": {
            "functionArn": arn("lambda", "function:f"),
            "existing": [{"apiId": "a1b2c3", "authorizerId": "a1b2c3"}],
        }},
        "adoptionPolicy": "Unowned",
    })
}

fn preflight(api: Seen<Option<apis::Api>>) -> Preflight {
    let zone = route53::Zone {
        id: "ZSECRET".into(),
        name: "example.com".into(),
        private: false,
    };
    let zones = [
        ("a.example.com".to_owned(), ZoneChoice::Found(zone)),
        ("b.example.org".to_owned(), ZoneChoice::Missing),
    ];
    Preflight {
        zones: Ok(zones.into()),
        apis: [("a1b2c3".to_owned(), api)].into(),
    }
}

/// Collects the paths of all fields of a schema, each with its value in `value`.
fn fields<'a>(
    schema: &Value,
    value: Option<&'a Value>,
    path: &str,
    found: &mut Vec<(String, Option<&'a Value>)>,
) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let (path, value) = (format!("{path}.{name}"), value.and_then(|v| v.get(name)));
        match inner.get("items") {
            Some(items) => fields(items, value.and_then(|v| v.get(0)), &path, found),
            None => fields(inner, value, &path, found),
        }
        found.push((path, value));
    }
}

#[test]
fn every_aws_resource_that_a_spec_names_is_checked_by_the_policy() {
    let crd = api::definitions()
        .into_iter()
        .find(|crd| crd.spec.names.kind == "MtlsDomain")
        .unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let (spec, mut all) = (whole(), vec![]);
    fields(schema, Some(&spec), "spec", &mut all);
    let of_aws = |path: &str| {
        let name = path.rsplit('.').next().unwrap_or_default();
        ["Arn", "Id"].iter().any(|end| name.ends_with(end))
            || [
                "arn",
                "id",
                "region",
                "bucket",
                "domainName",
                "subjectAlternativeNames",
            ]
            .contains(&name)
            || path == "spec.truststore.key"
    };
    let domain = domain(spec.clone());
    let placement = UnresolvedPlacement::of(&domain, "e2e");
    let requests = format!(
        "{:?}",
        [
            unresolved(&domain, &placement, false),
            found(&domain, &preflight(Ok(None)))
        ]
        .concat()
    );
    let named: Vec<_> = all.iter().filter(|(path, _)| of_aws(path)).collect();
    assert!(named.len() >= 12, "{named:?}");
    for (path, value) in named {
        let value =
            value.unwrap_or_else(|| panic!("{path} is new: add it to whole(), and request access for it"));
        let value = value.as_str().or(value[0].as_str()).unwrap();
        assert!(requests.contains(value), "no request covers {path}: {requests}");
    }
}

#[test]
fn default_resources_are_checked_once_they_are_known() {
    let domain = domain(json!({"domainName": "a.example.com"}));
    let resources = |all: Vec<AccessRequest>| all.into_iter().map(|r| r.resource).collect::<Vec<_>>();
    let name = Resource::Name("a.example.com".into());
    assert_eq!(
        resources(unresolved(
            &domain,
            &UnresolvedPlacement::of(&domain, "e2e"),
            false
        )),
        [name.clone(), Resource::Unresolved]
    );
    let operator_config = OperatorConfig {
        cluster_id: "e2e",
        account: "123456789012",
        region: "eu-west-1",
        truststore_bucket: Some("t-{account}-{region}"),
        tags: &BTreeMap::new(),
    };
    let object = Resource::Object {
        bucket: "t-123456789012-eu-west-1".into(),
        key: "e2e/shop/d.pem".into(),
    };
    let expected = [
        name,
        Resource::Region("eu-west-1".into()),
        Resource::Account("123456789012".into()),
        object,
    ];
    let placement = Placement::of(&domain, &operator_config);
    assert_eq!(resources(of(&domain, &placement, false)), expected);
}

#[test]
fn requests_for_discovered_resources_disclose_only_the_spec() {
    let unseen = Unseen {
        reason: crate::api::conditions::Reason::Unreachable,
        message: "m".into(),
    };
    let tags = BTreeMap::from([("team".to_owned(), "secret".to_owned())]);
    let there = apis::Api {
        id: "a1b2c3".into(),
        arn: "arn".into(),
        protocol: apis::Protocol::Http,
        private: false,
        endpoint_closed: false,
        tags: tags.clone(),
    };
    let domain = domain(whole());
    for (api, expected) in [
        (Ok(Some(there)), Some(tags)),
        (Ok(None), Some(BTreeMap::new())),
        (Err(unseen.clone()), None),
    ] {
        let all = found(&domain, &preflight(api));
        assert_eq!(all[1].resource, Resource::Api(expected));
        assert_eq!(all[0].resource, Resource::Zone(Some("ZSECRET".into())));
        assert!(
            all.iter().all(|r| !r.part.to_lowercase().contains("secret")),
            "{all:?}"
        );
        assert_eq!(all.len(), 2, "a missing zone needs no request");
    }
    assert_eq!(zones(&Err(unseen))[0].resource, Resource::Zone(None));
}

#[test]
fn deletion_requests_neither_apis_nor_adoption() {
    let domain = domain(whole());
    let all = unresolved(&domain, &UnresolvedPlacement::of(&domain, "e2e"), true);
    let kinds: Vec<_> = all.iter().map(|r| format!("{:?}", r.resource)).collect();
    let starts = [
        "Name",
        "Region",
        "Account",
        "Role",
        "Zone",
        "Role",
        "Object",
        "Unresolved",
    ];
    assert!(
        kinds.len() == starts.len() && kinds.iter().zip(starts).all(|(k, s)| k.starts_with(s)),
        "{kinds:?}"
    );
}
