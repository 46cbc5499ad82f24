//! Desired state: turns a custom resource into validated values. Produces every refusal of an `MtlsDomain`
//! whose spec cannot be served.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration as StdDuration,
};

use jiff::SignedDuration;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::clients::SelfSigned;
use crate::{
    api::{
        AdoptionPolicy, AssumeRole, Authority, AuthorityKey, AuthorityState, BucketCreation, ClientCertField,
        ConfigMapSelector, DefaultEndpoint, Dns, DnsVerification, Duration, ExistingCertificate,
        IdentityHeader, IpAddressType, KeyAlgorithm as ApiKeyAlgorithm, MappedApi, MtlsDomain,
        RestDeployment, ServerKeyAlgorithm, UnlistedMappings, conditions::Reason,
    },
    aws::{
        acm, gateway,
        session::{self, Access, RoleToAssume},
    },
    pki::{authority::AuthorityRequest, keys::KeyKind},
    policy::Policy,
};

/// Prefix of the context variables that an authorizer sets.
pub const AUTHORIZER_SOURCE: &str = "authorizer.";
/// Lifetime of a leaf whose ClientCertificate specifies none, and the minimum that an authority's entry
/// allows for.
pub const DEFAULT_LEAF: SignedDuration = SignedDuration::from_hours(2160);
/// Lifetime of a generated authority whose spec specifies none.
const DEFAULT_AUTHORITY: SignedDuration = SignedDuration::from_hours(87_600);

/// Refusal of a spec, ready for the condition Accepted. The message names the field and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    pub message: String,
}

/// Configuration of the operator that determines the placement of resources and their names.
#[derive(Clone, Debug)]
pub struct OperatorConfig<'a> {
    pub cluster_id: &'a str,
    pub account: &'a str,
    pub region: &'a str,
    /// Value of `--truststore-bucket`, with the placeholders `{account}` and `{region}`.
    pub truststore_bucket: Option<&'a str>,
}

/// Placement and owner of the resources of one MtlsDomain: all values that its deletion needs, regardless of
/// the rest of the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    pub namespace: String,
    pub name: String,
    pub account: String,
    pub region: String,
    /// `<cluster id>/<namespace>/<name>`, the value of every ownership tag.
    pub owner: String,
    pub domain_name: String,
    pub dns: DesiredDns,
    pub bucket: String,
    pub key: String,
    /// Unset: depends on how the operator got the domain: created or taken over.
    pub unlisted_mappings: Option<UnlistedMappings>,
}

/// Manager of the DNS records of the domain name.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredDns {
    /// The operator, in this hosted zone or else the best match, with this role.
    Route53 {
        zone_id: Option<String>,
        role_arn: Option<String>,
    },
    /// Another party.
    External { verify: DnsVerification },
}

impl DesiredDns {
    fn of(spec: Option<&Dns>) -> Self {
        match spec {
            Some(Dns {
                external: Some(external),
                ..
            }) => DesiredDns::External {
                verify: external.verify.unwrap_or_default(),
            },
            Some(Dns {
                route53: Some(route53),
                ..
            }) => DesiredDns::Route53 {
                zone_id: route53.hosted_zone_id.clone(),
                role_arn: route53.assume_role.as_ref().map(|role| role.role_arn.clone()),
            },
            _ => DesiredDns::Route53 {
                zone_id: None,
                role_arn: None,
            },
        }
    }
}

impl Placement {
    /// Returns the placement of a domain. Without a bucket there is no truststore, and the name is empty.
    pub fn of(domain: &MtlsDomain, s: &OperatorConfig) -> Self {
        let (namespace, name) = (
            domain.namespace().expect("MtlsDomain is namespaced"),
            domain.name_any(),
        );
        let owner = format!("{}/{namespace}/{name}", s.cluster_id);
        let truststore = domain.spec.truststore.clone().unwrap_or_default();
        let bucket = truststore.bucket.or_else(|| {
            s.truststore_bucket
                .map(|t| t.replace("{account}", s.account).replace("{region}", s.region))
        });
        Placement {
            account: s.account.to_owned(),
            region: s.region.to_owned(),
            domain_name: domain.spec.domain_name.clone(),
            dns: DesiredDns::of(domain.spec.dns.as_ref()),
            bucket: bucket.unwrap_or_default(),
            key: truststore.key.unwrap_or_else(|| format!("{owner}.pem")),
            unlisted_mappings: domain.spec.unlisted_mappings,
            namespace,
            name,
            owner,
        }
    }

    /// True when an ownership tag is that of an MtlsDomain of this cluster.
    pub fn is_of_this_cluster(&self, owner: &str) -> bool {
        let cluster = self
            .owner
            .strip_suffix(&format!("{}/{}", self.namespace, self.name));
        cluster.is_some_and(|cluster| owner.starts_with(cluster))
    }

    pub fn truststore_uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// Returns the account that the hosted zones are in.
    pub fn route53_account(&self) -> &str {
        match &self.dns {
            DesiredDns::Route53 {
                role_arn: Some(role), ..
            } => session::account_of(role),
            _ => &self.account,
        }
    }

    /// Returns the value of the annotation `mtls-operator.io/home`.
    pub fn location(&self) -> String {
        format!("{}/{}", self.account, self.region)
    }
}

/// Returns the Region and the roles of the AWS calls for a domain. The policy defines the roles' external
/// ids.
pub fn access(domain: &MtlsDomain, policy: Option<&Policy>) -> Access {
    let aws = domain.spec.aws.clone().unwrap_or_default();
    let route53 = domain
        .spec
        .dns
        .as_ref()
        .and_then(|dns| dns.route53.clone())
        .unwrap_or_default();
    let role = |AssumeRole { role_arn: arn }| RoleToAssume {
        external_id: policy
            .and_then(|policy| policy.external_id(&arn))
            .map(str::to_owned),
        arn,
    };
    Access {
        region: aws.region,
        role: aws.assume_role.map(role),
        route53_role: route53.assume_role.map(role),
    }
}

/// Returns the name of the Secret of the generated authority `authority` of the MtlsDomain `domain`.
pub fn authority_secret(domain: &str, authority: &str) -> String {
    format!("{domain}.{authority}-ca")
}

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
    pub ip_address_type: gateway::IpAddressType,
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

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredAuthority {
    pub name: String,
    pub state: AuthorityState,
    pub source: DesiredSource,
}

impl DesiredAuthority {
    /// True when leaves may be issued under the authority once its key is available.
    pub fn issues(&self) -> bool {
        self.state == AuthorityState::Active
            && matches!(
                self.source,
                DesiredSource::Generated { .. } | DesiredSource::Secret { .. }
            )
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum DesiredSource {
    Generated {
        secret: String,
        request: AuthorityRequest,
    },
    Secret {
        name: String,
    },
    ConfigMap {
        name: String,
        key: String,
    },
    /// Every ConfigMap with these labels.
    ConfigMaps {
        labels: BTreeMap<String, String>,
        key: String,
    },
    Pem(String),
}

impl DesiredSource {
    /// Returns the name of the Secret that the source is read from.
    pub fn secret(&self) -> Option<&String> {
        match self {
            DesiredSource::Generated { secret: name, .. } | DesiredSource::Secret { name } => Some(name),
            _ => None,
        }
    }

    /// True when the source is read from the ConfigMap with this name and these labels.
    pub fn reads_config_map(&self, called: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            DesiredSource::ConfigMap { name, .. } => name == called,
            DesiredSource::ConfigMaps { labels: wanted, .. } => {
                wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
            }
            _ => false,
        }
    }
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
            IpAddressType::IPv4 => gateway::IpAddressType::Ipv4,
            IpAddressType::DualStack => gateway::IpAddressType::Dualstack,
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

/// Returns the authorities of a spec, in its order.
pub fn authorities(domain: &MtlsDomain) -> Result<Vec<DesiredAuthority>, Refused> {
    let name = domain.name_any();
    domain
        .spec
        .trust
        .authorities
        .iter()
        .map(|a| authority(a, &name))
        .collect()
}

fn authority(a: &Authority, domain: &str) -> Result<DesiredAuthority, Refused> {
    let source = if let Some(generate) = &a.generate {
        DesiredSource::Generated {
            secret: authority_secret(domain, &a.name),
            request: AuthorityRequest {
                common_name: generate.common_name.clone().unwrap_or_else(|| a.name.clone()),
                organizations: generate.organizations.clone(),
                duration: generate.duration.as_ref().map_or(DEFAULT_AUTHORITY, length),
                key: authority_key(generate.private_key.as_ref()).ok_or_else(|| {
                    invalid(&format!(
                        "authority {}: privateKey: write size 256 or 384 for ECDSA; 2048, 3072 or 4096 for \
                         RSA",
                        a.name
                    ))
                })?,
            },
        }
    } else if let Some(secret) = &a.secret_ref {
        DesiredSource::Secret {
            name: secret.name.clone(),
        }
    } else if let Some(map) = &a.config_map_ref {
        DesiredSource::ConfigMap {
            name: map.name.clone(),
            key: map.key.clone(),
        }
    } else if let Some(ConfigMapSelector { match_labels, key }) = &a.config_map_selector {
        if let Some(label) = match_labels
            .iter()
            .find(|(key, value)| !is_label(key, value))
            .map(|(key, _)| key)
        {
            return Err(invalid(&format!(
                "authority {}: configMapSelector.matchLabels[{label:?}] is not a label: write letters, \
                 digits, -, _ and . (at most 63), \
                 before the value of a name with a domain also one /",
                a.name
            )));
        }
        DesiredSource::ConfigMaps {
            labels: match_labels.clone(),
            key: key.clone(),
        }
    } else if let Some(pem) = &a.pem {
        DesiredSource::Pem(pem.clone())
    } else {
        return Err(invalid(&format!(
            "authority {}: set exactly one of generate, secretRef, configMapRef, configMapSelector, pem",
            a.name
        )));
    };
    Ok(DesiredAuthority {
        name: a.name.clone(),
        state: a.state,
        source,
    })
}

/// True when the API server accepts the label in a selector, as a single label.
fn is_label(key: &str, value: &str) -> bool {
    let is_word = |word: &str| {
        let ends = [word.bytes().next(), word.bytes().last()];
        word.len() <= 63
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
    };
    let (prefix, name) = key.split_once('/').unwrap_or(("x", key));
    let is_prefix = !prefix.is_empty()
        && prefix.len() <= 253
        && prefix.split('.').all(|part| !part.is_empty() && is_word(part));
    is_prefix && !name.is_empty() && is_word(name) && is_word(value)
}

fn authority_key(key: Option<&AuthorityKey>) -> Option<KeyKind> {
    key_kind(
        key.and_then(|k| k.algorithm).unwrap_or_default(),
        key.and_then(|k| k.size),
    )
}

/// Returns the kind of key that an algorithm and size of a spec mean; `None` when they do not fit together.
pub fn key_kind(algorithm: ApiKeyAlgorithm, size: Option<i32>) -> Option<KeyKind> {
    match (algorithm, size) {
        (ApiKeyAlgorithm::ECDSA, None | Some(256)) => Some(KeyKind::EcdsaP256),
        (ApiKeyAlgorithm::ECDSA, Some(384)) => Some(KeyKind::EcdsaP384),
        (ApiKeyAlgorithm::RSA, None | Some(2048)) => Some(KeyKind::Rsa2048),
        (ApiKeyAlgorithm::RSA, Some(3072)) => Some(KeyKind::Rsa3072),
        (ApiKeyAlgorithm::RSA, Some(4096)) => Some(KeyKind::Rsa4096),
        _ => None,
    }
}

/// Converts a spec's duration to the operator's internal type.
pub fn length(duration: &Duration) -> SignedDuration {
    let duration = StdDuration::from(*duration);
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Returns 32 hexadecimal digits, the length of ACM's idempotency token and of the TXT ownership record.
pub fn short_hash(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_owned()
}

/// Returns the SHA-256 of `bytes`, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn invalid(message: &str) -> Refused {
    Refused {
        reason: Reason::InvalidSpec,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
        let policy = crate::policy::parse(&text).unwrap();
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
