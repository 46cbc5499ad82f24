//! Desired state: turns a custom resource into validated values. Produces every refusal of an `MtlsDomain`
//! whose spec cannot be served.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use kube::ResourceExt;

use super::{
    authorities::{DesiredAuthority, authorities},
    placement::{OperatorConfig, Placement},
};

use crate::{
    api::{
        AdoptionPolicy, BucketCreation, ClientCertField, ClientGrantSpec, DefaultEndpoint,
        ExistingCertificate, IdentityHeader, IpAddressType, MappedApi, MtlsDomain, RestDeployment,
        ServerKeyAlgorithm,
        conditions::Reason,
        durations::{DEFAULT_LEAF, length},
    },
    aws::{acm, gateway::domains},
    pki::{digest::short_hash, leaf::LeafRequest},
    status::{Refused, invalid},
};

/// A ClientCertificate whose certificates are trusted as long as the object exists.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfSigned {
    pub namespace: String,
    pub name: String,
    /// Truststore entry name of its certificates.
    pub entry: String,
    /// Names of the Secrets of the current and the next certificate. `None`: the object cannot be read, or
    /// its grant decision is unknown; its trusted certificates then stay as they are.
    pub secrets: Option<[String; 2]>,
    /// Content of its certificate, with the longest lifetime that the spec, the domain and the grant allow. A
    /// user who may write Secrets in that namespace could put any certificate into these Secrets.
    pub request: LeafRequest,
    /// Grants, one of which has to admit the names in each of its trusted certificates. `None`: any names.
    pub grants: Option<Vec<ClientGrantSpec>>,
}

/// Prefix of the context variables that an authorizer sets.
pub const AUTHORIZER_SOURCE: &str = "authorizer.";

#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    pub placement: Placement,
    pub adoption: AdoptionPolicy,
    pub certificate: DesiredCertificate,
    /// True when the operator creates the truststore's bucket if it does not exist.
    pub create_bucket: bool,
    /// ARN of the KMS key that encrypts the truststore; `None`: the bucket's default encryption.
    pub kms_key: Option<String>,
    pub authorities: Vec<DesiredAuthority>,
    /// ClientCertificates whose self-signed certificates are trusted.
    pub self_signed: Vec<SelfSigned>,
    /// Namespaces in which the operator watches ClientCertificates; `None`: all.
    pub watched: Option<BTreeSet<String>>,
    /// Longest lifetime of a leaf that may be issued under an authority whose key the operator has.
    pub longest_leaf: SignedDuration,
    pub overlap: Option<SignedDuration>,
    pub mappings: BTreeMap<String, MappedApi>,
    /// Headers that the mapped APIs pass on, and the context variable that each comes from.
    pub identity: BTreeMap<String, String>,
    /// Authorizer that API Gateway calls for every request to the mapped APIs.
    pub authorizer: Option<DesiredAuthorizer>,
    pub default_endpoint: DefaultEndpoint,
    pub rest_deployment: RestDeployment,
    pub ip_address_type: domains::IpAddressType,
}

/// A Lambda authorizer.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredAuthorizer {
    /// An authorizer that the operator creates for this function, by its ARN.
    Function(String),
    /// Existing authorizers, by the id of their API.
    Existing(BTreeMap<String, String>),
}

/// Server certificate.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredCertificate {
    /// A certificate that the operator requests. `keep`: a domain that is taken over keeps its certificate,
    /// because the spec names none.
    Request { request: DesiredRequest, keep: bool },
    /// A certificate that exists in ACM, with the public certificate that proves the ownership of the name
    /// where API Gateway requires that.
    Existing {
        arn: String,
        ownership_arn: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredRequest {
    /// All names, including the domain name, sorted.
    pub names: Vec<String>,
    pub key_algorithm: acm::KeyAlgorithm,
    /// Idempotency token: two requests within an hour with the same token yield the same certificate.
    pub token: String,
}

/// Requirements that the ClientCertificates of one domain place on it.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Longest lifetime of a leaf under an authority.
    pub longest: SignedDuration,
    pub self_signed: Vec<SelfSigned>,
    /// Namespaces in which the operator watches ClientCertificates; `None`: all.
    pub watched: Option<BTreeSet<String>>,
}

/// Returns the desired state that the spec describes.
pub fn desired(domain: &MtlsDomain, s: &OperatorConfig, clients: Clients) -> Result<Desired, Refused> {
    let spec = &domain.spec;
    let placement = Placement::of(domain, s);
    if let Some(wanted) = spec
        .aws
        .as_ref()
        .and_then(|a| a.account_id.as_ref())
        .filter(|a| *a != s.account)
    {
        return Err(Refused {
            reason: Reason::WrongAccount,
            message: format!(
                "spec.aws.accountId is {wanted}, but the operator's credentials belong to account {}: \
                 the operator writes nothing there",
                s.account
            ),
        });
    }
    if placement.bucket.is_empty() {
        return Err(invalid(
            "spec.truststore.bucket: name a versioned bucket here, or start the operator with \
             --truststore-bucket",
        ));
    }
    let authorities = authorities(domain)?;
    let truststore = spec.truststore.clone().unwrap_or_default();
    let cap = spec
        .clients
        .as_ref()
        .and_then(|c| c.max_duration.as_ref())
        .map(length);
    let longest_leaf = clients.longest.max(DEFAULT_LEAF);
    Ok(Desired {
        adoption: spec.adoption_policy,
        certificate: certificate(domain, &placement)?,
        create_bucket: truststore.bucket_creation == Some(BucketCreation::IfMissing),
        kms_key: truststore.kms_key_arn,
        authorities,
        self_signed: clients.self_signed,
        watched: clients.watched,
        longest_leaf: cap.map_or(longest_leaf, |cap| longest_leaf.min(cap)),
        overlap: spec.trust.overlap.as_ref().map(length),
        mappings: mappings(domain),
        identity: spec
            .identity
            .iter()
            .flat_map(|identity| &identity.headers)
            .filter_map(header)
            .collect(),
        authorizer: authorizer(domain)?,
        default_endpoint: spec.default_endpoint,
        rest_deployment: spec.rest_deployment,
        ip_address_type: match spec.ip_address_type {
            IpAddressType::IPv4 => domains::IpAddressType::Ipv4,
            IpAddressType::DualStack => domains::IpAddressType::Dualstack,
        },
        placement,
    })
}

/// Returns the mapped APIs, by path.
pub fn mappings(domain: &MtlsDomain) -> BTreeMap<String, MappedApi> {
    domain
        .spec
        .mappings
        .iter()
        .map(|m| (m.path.clone(), m.api.clone()))
        .collect()
}

/// Returns a header and the context variable of its value. Source of the names: API Gateway Developer Guide,
/// "Variables for access logging".
fn header(header: &IdentityHeader) -> Option<(String, String)> {
    if let Some(key) = &header.from.authorizer_key {
        return Some((header.name.clone(), format!("{AUTHORIZER_SOURCE}{key}")));
    }
    let field = match header.from.client_cert? {
        ClientCertField::SubjectDN => "subjectDN",
        ClientCertField::IssuerDN => "issuerDN",
        ClientCertField::SerialNumber => "serialNumber",
        ClientCertField::NotBefore => "validity.notBefore",
        ClientCertField::NotAfter => "validity.notAfter",
    };
    Some((header.name.clone(), format!("identity.clientCert.{field}")))
}

fn authorizer(domain: &MtlsDomain) -> Result<Option<DesiredAuthorizer>, Refused> {
    let Some(wanted) = domain
        .spec
        .identity
        .as_ref()
        .and_then(|identity| identity.authorizer.as_ref())
    else {
        return Ok(None);
    };
    if let Some(function) = &wanted.function_arn {
        return Ok(Some(DesiredAuthorizer::Function(function.clone())));
    }
    let existing: BTreeMap<_, _> = wanted
        .existing
        .iter()
        .flatten()
        .map(|a| (a.api_id.clone(), a.authorizer_id.clone()))
        .collect();
    let mapped: BTreeSet<_> = domain.spec.mappings.iter().map(|m| &m.api.id).collect();
    let unnamed = mapped.iter().find(|id| !existing.contains_key(**id));
    let unmapped = existing.keys().find(|id| !mapped.contains(id));
    match (unnamed, unmapped) {
        (Some(id), _) => Err(invalid(&format!(
            "spec.identity.authorizer.existing names no authorizer for the API {id}, which spec.mappings \
             maps: add {{apiId: {id}, authorizerId: ...}}"
        ))),
        (None, Some(id)) => Err(invalid(&format!(
            "spec.identity.authorizer.existing: the API {id} is in none of spec.mappings: map it, or remove \
             it here"
        ))),
        (None, None) => Ok(Some(DesiredAuthorizer::Existing(existing))),
    }
}

fn certificate(domain: &MtlsDomain, placement: &Placement) -> Result<DesiredCertificate, Refused> {
    let spec = domain.spec.server_certificate.as_ref();
    if let Some(existing) = spec.and_then(|c| c.existing.clone()) {
        let ExistingCertificate {
            arn,
            ownership_verification_arn: ownership_arn,
        } = existing;
        in_placement("arn", &arn, placement)?;
        ownership_arn.as_ref().map_or(Ok(()), |arn| {
            in_placement("ownershipVerificationArn", arn, placement)
        })?;
        return Ok(DesiredCertificate::Existing { arn, ownership_arn });
    }
    let request = spec.and_then(|c| c.request.clone()).unwrap_or_default();
    let mut names = request.subject_alternative_names;
    names.push(placement.domain_name.clone());
    names.sort();
    names.dedup();
    let key_algorithm = match request.key_algorithm.unwrap_or_default() {
        ServerKeyAlgorithm::EcPrime256v1 => acm::KeyAlgorithm::EcPrime256v1,
        ServerKeyAlgorithm::EcSecp384r1 => acm::KeyAlgorithm::EcSecp384r1,
        ServerKeyAlgorithm::Rsa2048 => acm::KeyAlgorithm::Rsa2048,
    };
    let token = short_hash(&format!(
        "{}\n{}\n{}\n{key_algorithm:?}",
        placement.owner,
        domain.uid().unwrap_or_default(),
        names.join("\n")
    ));
    Ok(DesiredCertificate::Request {
        request: DesiredRequest {
            names,
            key_algorithm,
            token,
        },
        keep: spec.is_none(),
    })
}

/// Checks that a certificate is in the domain's own Region and account: API Gateway accepts no others.
fn in_placement(field: &str, arn: &str, placement: &Placement) -> Result<(), Refused> {
    let parts: Vec<_> = arn.split(':').collect();
    match parts[..] {
        [_, _, _, region, account, ..] if region != placement.region || account != placement.account => {
            Err(invalid(&format!(
                "spec.serverCertificate.existing.{field}: the certificate is in {region} of account \
                 {account}, but the domain is in {} of account {}. API Gateway accepts certificates of its \
                 own Region and account only: request or import one there, and name that",
                placement.region, placement.account
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use jiff::SignedDuration;

    use serde_json::{Value, json};

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

    fn wanted(
        domain: &MtlsDomain,
        truststore_bucket: Option<&str>,
        longest: i64,
    ) -> Result<Desired, Refused> {
        let operator_config = OperatorConfig {
            cluster_id: "c",
            account: ACCOUNT,
            region: REGION,
            truststore_bucket,
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
        let placement = wanted(&bare, Some("t-{account}-{region}"), 1).unwrap().placement;
        assert_eq!(
            placement.truststore_uri(),
            "s3://t-123456789012-eu-west-1/c/shop/partners.pem"
        );
        assert_eq!(
            (placement.location().as_str(), placement.owner.as_str()),
            ("123456789012/eu-west-1", "c/shop/partners")
        );
        assert_eq!(
            wanted(&domain(|_| {}), Some("other"), 1)
                .unwrap()
                .placement
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
        let id = |role: Option<RoleToAssume>| role.map(|role| (role.arn, role.external_id));
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
                (wanted.issues(), wanted.source.secret().map(String::as_str)),
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
}
