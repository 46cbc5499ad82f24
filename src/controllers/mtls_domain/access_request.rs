//! AWS resources that a spec accesses, for the operator's policy to decide on: all resources that the spec
//! names, all that its defaults lead to, and all that the operator discovers. Pure.

use std::collections::BTreeMap;

use crate::{
    api::{AdoptionPolicy, MtlsDomain},
    aws::route53,
    model::{
        observed::{Preflight, ZoneChoice},
        placement::{DesiredDns, Placement},
    },
    observation::seen::Seen,
    policy::{AccessRequest, Resource},
};

/// Returns the requests for the resources that the spec names, and for their placement. Before AWS reports
/// the placement, `placement` has an empty account, Region or bucket. A `deleted` domain requests only the
/// access that its deletion needs.
pub fn of(domain: &MtlsDomain, placement: &Placement, deleted: bool) -> Vec<AccessRequest> {
    let spec = &domain.spec;
    let aws = spec.aws.clone().unwrap_or_default();
    let mut all = vec![access_request(
        format!("spec.domainName: {}", spec.domain_name),
        Resource::Name(spec.domain_name.clone()),
    )];
    if !placement.region.is_empty() {
        all.push(access_request(
            format!("Region {} (spec.aws.region)", placement.region),
            Resource::Region(placement.region.clone()),
        ));
    }
    if !placement.account.is_empty() {
        all.push(access_request(
            format!("account {} (spec.aws)", placement.account),
            Resource::Account(placement.account.clone()),
        ));
    }
    if let Some(role) = aws.assume_role {
        all.push(access_request(
            format!("spec.aws.assumeRole.roleArn: {}", role.role_arn),
            Resource::Role(role.role_arn),
        ));
    }
    if let DesiredDns::Route53 { zone_id, role_arn } = &placement.dns {
        let zone = zone_id.iter().map(|id| {
            (
                format!("spec.dns.route53.hostedZoneId: {id}"),
                Resource::Zone(Some(id.clone())),
            )
        });
        let role = role_arn.iter().map(|arn| {
            (
                format!("spec.dns.route53.assumeRole.roleArn: {arn}"),
                Resource::Role(arn.clone()),
            )
        });
        all.extend(
            zone.chain(role)
                .map(|(part, resource)| access_request(part, resource)),
        );
    }
    if !placement.bucket.is_empty() {
        let object = Resource::Object {
            bucket: placement.bucket.clone(),
            key: placement.key.clone(),
        };
        all.push(access_request(
            format!("spec.truststore: {}", placement.truststore_uri()),
            object,
        ));
    }
    if !deleted {
        all.extend(to_build(domain));
    }
    all
}

/// Returns the requests that only creating and changing a domain needs.
fn to_build(domain: &MtlsDomain) -> Vec<AccessRequest> {
    let spec = &domain.spec;
    let certificate = spec.server_certificate.clone().unwrap_or_default();
    let mut all = Vec::new();
    for name in certificate
        .request
        .into_iter()
        .flat_map(|request| request.subject_alternative_names)
    {
        let part = format!("spec.serverCertificate.request.subjectAlternativeNames: {name}");
        all.push(access_request(part, Resource::Name(name)));
    }
    if let Some(existing) = certificate.existing {
        let ownership = existing
            .ownership_verification_arn
            .map(|arn| ("ownershipVerificationArn", arn));
        for (field, arn) in [("arn", existing.arn)].into_iter().chain(ownership) {
            all.push(access_request(
                format!("spec.serverCertificate.existing.{field}: {arn}"),
                Resource::Certificate(arn),
            ));
        }
    }
    if let Some(arn) = spec.truststore.as_ref().and_then(|t| t.kms_key_arn.clone()) {
        all.push(access_request(
            format!("spec.truststore.kmsKeyArn: {arn}"),
            Resource::KmsKey(arn),
        ));
    }
    let authorizer = spec
        .identity
        .as_ref()
        .and_then(|identity| identity.authorizer.clone());
    if let Some(arn) = authorizer.and_then(|authorizer| authorizer.function_arn) {
        all.push(access_request(
            format!("spec.identity.authorizer.functionArn: {arn}"),
            Resource::Function(arn),
        ));
    }
    if spec.adoption_policy == AdoptionPolicy::Unowned {
        all.push(access_request(
            "spec.adoptionPolicy: Unowned".into(),
            Resource::Adoption,
        ));
    }
    all
}

/// Returns the requests for the zones and APIs of a spec, as they were found. An API that does not exist has
/// no tags.
pub fn found(domain: &MtlsDomain, preflight: &Preflight) -> Vec<AccessRequest> {
    let mut all = zones(&preflight.zones);
    for mapping in &domain.spec.mappings {
        let id = &mapping.api.id;
        let tags = match preflight.apis.get(id) {
            Some(Ok(api)) => Some(api.as_ref().map(|api| api.tags.clone()).unwrap_or_default()),
            Some(Err(_)) | None => None,
        };
        let part = format!(
            "the API {id}, which does not exist or is not for this namespace (spec.mappings, path {:?})",
            mapping.path
        );
        all.push(access_request(part, Resource::Api(tags)));
    }
    all
}

/// Returns the requests for the zones of the names. The messages do not disclose the zones' ids.
pub fn zones(zones: &Seen<BTreeMap<String, ZoneChoice>>) -> Vec<AccessRequest> {
    let Ok(zones) = zones else {
        return vec![access_request(
            "the hosted zone (spec.dns.route53.hostedZoneId)".into(),
            Resource::Zone(None),
        )];
    };
    let found = zones
        .iter()
        .filter_map(|(name, choice)| Some((name, choice.found()?)));
    let zone = |(name, zone): (&String, &route53::Zone)| {
        access_request(
            format!("the hosted zone that {name} is in (spec.dns.route53.hostedZoneId)"),
            Resource::Zone(Some(zone.id.clone())),
        )
    };
    found.map(zone).collect()
}

fn access_request(part: String, resource: Resource) -> AccessRequest {
    AccessRequest { part, resource }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use crate::{
        api::{self, MtlsDomain},
        aws::{gateway::apis, route53},
        controllers::mtls_domain::permission::before_aws,
        model::{
            observed::{Preflight, ZoneChoice},
            placement::{OperatorConfig, Placement},
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
        let placement = before_aws(&domain, "e2e");
        let requests = format!(
            "{:?}",
            [
                of(&domain, &placement, false),
                found(&domain, &preflight(Ok(None)))
            ]
            .concat()
        );
        let named: Vec<_> = all.iter().filter(|(path, _)| of_aws(path)).collect();
        assert!(named.len() >= 12, "{named:?}");
        for (path, value) in named {
            let value = value
                .unwrap_or_else(|| panic!("{path} is new: add it to whole(), and request access for it"));
            let value = value.as_str().or(value[0].as_str()).unwrap();
            assert!(requests.contains(value), "no request covers {path}: {requests}");
        }
    }

    #[test]
    fn default_resources_are_checked_once_they_are_known() {
        let domain = domain(json!({"domainName": "a.example.com"}));
        let resources = |placement: &Placement| {
            of(&domain, placement, false)
                .into_iter()
                .map(|r| r.resource)
                .collect::<Vec<_>>()
        };
        let name = Resource::Name("a.example.com".into());
        assert_eq!(
            resources(&before_aws(&domain, "e2e")),
            std::slice::from_ref(&name)
        );
        let operator_config = OperatorConfig {
            cluster_id: "e2e",
            account: "123456789012",
            region: "eu-west-1",
            truststore_bucket: Some("t-{account}-{region}"),
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
        assert_eq!(resources(&Placement::of(&domain, &operator_config)), expected);
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
        let all = of(&domain, &before_aws(&domain, "e2e"), true);
        let kinds: Vec<_> = all.iter().map(|r| format!("{:?}", r.resource)).collect();
        let starts = ["Name", "Region", "Account", "Role", "Zone", "Role", "Object"];
        assert!(
            kinds.len() == starts.len() && kinds.iter().zip(starts).all(|(k, s)| k.starts_with(s)),
            "{kinds:?}"
        );
    }
}
