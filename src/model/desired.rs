//! Desired state: turns a custom resource into validated values. Produces every refusal of an `MtlsDomain`
//! whose spec cannot be served.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use kube::ResourceExt;

use super::{
    authorities::{DesiredAuthority, authorities},
    placement::{OperatorConfig, Placement, TruststoreObject},
};

use crate::{
    api::{
        AdoptionPolicy, BucketCreation, ClientCertField, ClientGrantSpec, DefaultEndpoint, Encryption,
        ExistingCertificate, IdentityHeader, IpAddressType, MappedApi, MtlsDomain, RestDeployment,
        ServerKeyAlgorithm,
        conditions::Reason,
        durations::{DEFAULT_LEAF, length},
    },
    aws::{acm, arn::Arn, gateway::domains, s3, tags},
    pki::{compile::offer::Share, digest::short_hash, leaf::LeafRequest},
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
    /// Share of the truststore that it is in. `None`: in none, as in the domain's own namespace.
    pub share: Option<Share>,
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
    pub truststore: TruststoreObject,
    /// True when the operator creates the truststore's bucket if it does not exist.
    pub create_bucket: bool,
    /// ARN of the KMS key that encrypts the truststore.
    pub kms_key: Option<String>,
    /// Encryption that the spec names; `None`: the KMS key's, or the bucket's default.
    pub encryption: Option<s3::Encryption>,
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
    /// An authorizer that the operator creates for this function.
    Function(Arn),
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
    Existing { arn: Arn, ownership_arn: Option<Arn> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredRequest {
    /// All names, including the domain name, sorted.
    pub names: Vec<String>,
    /// Key algorithm that the spec names. `None`: any, and RSA_2048 for a new certificate.
    pub key_algorithm: Option<acm::KeyAlgorithm>,
    /// Idempotency token: two requests within an hour with the same token yield the same certificate.
    pub token: String,
}

impl DesiredRequest {
    /// Returns the key algorithm of a new certificate. RSA_2048 is ACM's own default (ACM API Reference,
    /// RequestCertificate); whether API Gateway accepts the others is the assumption
    /// `ec-server-certificate`.
    pub fn new_key(&self) -> acm::KeyAlgorithm {
        self.key_algorithm.clone().unwrap_or(acm::KeyAlgorithm::Rsa2048)
    }
}

/// Requirements that the ClientCertificates of one domain place on it.
#[derive(Clone, Debug, Default)]
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
    if placement.tags.len() > tags::MOST {
        return Err(invalid(&format!(
            "spec.aws.tags: with the operator's --aws-tags there are {} tags, and at most {} are possible: \
             leave some out",
            placement.tags.len(),
            tags::MOST
        )));
    }
    let Some(object) = placement.truststore.clone() else {
        return Err(invalid(
            "spec.truststore.bucket: name a versioned bucket here, or start the operator with \
             --truststore-bucket",
        ));
    };
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
        truststore: object,
        create_bucket: truststore.bucket_creation == Some(BucketCreation::IfMissing),
        kms_key: truststore.kms_key_arn,
        encryption: match truststore.encryption.unwrap_or_default() {
            Encryption::BucketDefault => None,
            Encryption::SSES3 => Some(s3::Encryption::SseS3),
            Encryption::SSEKMS => Some(s3::Encryption::SseKms),
        },
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

/// Returns why the spec cannot be served; `None`: it can.
pub fn refusal(domain: &MtlsDomain, s: &OperatorConfig) -> Option<Refused> {
    desired(domain, s, Clients::default()).err()
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
        return Ok(Some(DesiredAuthorizer::Function(function.as_str().into())));
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
        let (arn, ownership_arn) = (Arn::from(arn), ownership_arn.map(Arn::from));
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
    let key_algorithm = request.key_algorithm.map(|algorithm| match algorithm {
        ServerKeyAlgorithm::EcPrime256v1 => acm::KeyAlgorithm::EcPrime256v1,
        ServerKeyAlgorithm::EcSecp384r1 => acm::KeyAlgorithm::EcSecp384r1,
        ServerKeyAlgorithm::Rsa2048 => acm::KeyAlgorithm::Rsa2048,
    });
    let mut request = DesiredRequest {
        names,
        key_algorithm,
        token: String::new(),
    };
    request.token = short_hash(&format!(
        "{}\n{}\n{}\n{:?}",
        placement.owner,
        domain.uid().unwrap_or_default(),
        request.names.join("\n"),
        request.new_key()
    ));
    Ok(DesiredCertificate::Request {
        request,
        keep: spec.is_none(),
    })
}

/// Checks that a certificate is in the domain's own Region and account: API Gateway accepts no others.
fn in_placement(field: &str, arn: &Arn, placement: &Placement) -> Result<(), Refused> {
    let (region, account) = (arn.region(), arn.account());
    // The schema admits no ARN without an account.
    let is_there = region == placement.region && account == placement.account;
    if is_there || account.is_empty() {
        return Ok(());
    }
    Err(invalid(&format!(
        "spec.serverCertificate.existing.{field}: the certificate is in {region} of account {account}, but \
         the domain is in {} of account {}. API Gateway accepts certificates of its own Region and account \
         only: request or import one there, and name that",
        placement.region, placement.account
    )))
}

#[cfg(test)]
mod tests;
