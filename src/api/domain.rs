//! The MtlsDomain: spec of one API Gateway custom domain behind mutual TLS. Trust, identity and status have
//! files of their own.

#![allow(clippy::duplicated_attributes)] // misfires on several printcolumns of one type

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AssumeRole, DeletionPolicy, Duration, Identity, MtlsDomainStatus, Trust, Truststore, is_default,
};

/// What the domain should be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mtls-operator.io",
    version = "v1alpha1",
    kind = "MtlsDomain",
    namespaced,
    doc = "An API Gateway custom domain that answers only callers with a trusted client certificate, with everything that takes: server certificate, truststore, API mappings, DNS, and the default endpoint closed.",
    status = "MtlsDomainStatus",
    derive = "PartialEq",
    shortname = "mtd",
    category = "mtls",
    selectable = ".spec.domainName",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters: it goes into label values and AWS tags"),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domainName"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetDomainName", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = super::set_at_creation(&["aws", "region"], "delete this MtlsDomain and create one in \
                                                                  the other Region"))]
#[x_kube(validation = super::set_at_creation(&["aws", "accountId"], "delete this MtlsDomain and create one for the other account"))]
#[serde(rename_all = "camelCase")]
pub struct MtlsDomainSpec {
    /// The host name that clients call, exact and in lower case. Immutable: API Gateway cannot rename a
    /// domain. Wildcards are refused: in a Region, across all accounts, API Gateway accepts a certificate
    /// subject on mutual TLS domains from one issuer only, and wildcard subjects are where that collides.
    #[x_kube(validation = Rule::new("self == oldSelf").message("domainName is immutable: create another MtlsDomain for the other name"))]
    #[x_kube(validation = Rule::new("!self.contains('*')")
        .message("write one exact host name per MtlsDomain, not a wildcard: API Gateway accepts a \
                  certificate subject on mutual TLS domains of a Region from one issuer only, across all \
                  accounts, and wildcard subjects collide"))]
    #[x_kube(validation = Rule::new("self.contains('*') || self.matches('^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]([a-z0-9-]{0,61}[a-z0-9])$')")
        .message("write a full host name in lower case, without scheme, port or trailing dot, as in api.example.com"))]
    #[schemars(length(min = 1, max = 238))]
    pub domain_name: String,

    /// Where in AWS the domain lives and who the operator is there. Unset: the operator's own account and
    /// Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsPlace>,

    /// The certificate that the domain shows to its callers. Unset: `request: {}`; on a domain that is taken
    /// over, the certificate that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<ServerCertificate>,

    /// Whose client certificates are let in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust: Trust,

    /// The S3 object with the trusted certificates. Unset: in the operator's bucket.
    // As `dns.external`.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truststore: Option<Truststore>,

    /// Which API answers under which path; the longest match wins. At most 200.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    #[schemars(length(max = 200))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<ApiMapping>,

    /// What happens to mappings of the domain that `mappings` does not list: Delete or Keep. Unset: Delete on
    /// a domain that the operator made; Keep on one taken over, where they are named in the message of
    /// MappingsProgrammed.
    #[schemars(with = "UnlistedMappings")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted_mappings: Option<UnlistedMappings>,

    /// What happens to the mapped APIs' default endpoint (`https://<api id>.execute-api...`), which does not
    /// require a client certificate. Disable: it is closed, for all stages of an API, the first time only
    /// once the domain's own name works; the operator never opens it again, not even when this object is
    /// deleted (to do so: `aws apigatewayv2 update-api --api-id ... --no-disable-execute-api-endpoint`).
    /// Keep: it is left as it is, and BypassClosed is False with reason KeptOpen.
    #[serde(default)]
    pub default_endpoint: DefaultEndpoint,

    /// Whether the operator may deploy the mapped stages of a REST API to make its closed default endpoint
    /// effective. Allow: it deploys once, which publishes every other pending edit of that API too. Never: it
    /// writes a stage's description again as it is, which AWS says is enough; where the endpoint still
    /// answers, BypassClosed is False with reason WaitingForDeployment and names the stage.
    #[serde(default)]
    pub rest_deployment: RestDeployment,

    /// Who makes the name point at the domain. Unset: `route53: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,

    /// Which addresses the domain has: IPv4, or DualStack for IPv4 and IPv6.
    #[serde(default)]
    pub ip_address_type: IpAddressType,

    /// What the back ends learn about the caller's certificate. Unset: what API Gateway tells Lambda
    /// functions by itself; other back ends learn nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// What to do about resources in AWS that exist already. Never: they are not touched, and the conditions
    /// say ForeignOwner. Unowned: those without any ownership tag are taken over, as long as nobody loses
    /// access by it. With Never, a custom domain that loses the tag is given it back while everything else
    /// says that the operator made it: it has the operator's certificate and truststore, and its TXT marker
    /// stands in Route 53. A certificate that loses the tag is replaced and left alone; records that lose the
    /// marker stay as they are, also when this object goes.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,

    /// What becomes of the resources in AWS once this object is deleted. Delete: they are deleted. Retain:
    /// they stay and carry no ownership tag any longer. Unset: what the operator made is deleted, what it
    /// took over stays. Buckets, the ACM validation record and the closed default endpoints stay in any case.
    #[schemars(with = "DeletionPolicy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Manage: the operator makes AWS as the spec says. Observe: it writes nothing to AWS, not even to
    /// delete, and says in `status.plan` what it would do.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// true: leave everything in AWS as it is, and do not even delete, until this is false again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,

    /// Bounds for the ClientCertificates of this domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Clients>,
}

/// Where in AWS, and as whom.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AwsPlace {
    /// AWS Region, for example `eu-west-1`. Unset: the operator's own. Cannot be set, changed or removed
    /// later.
    #[x_kube(validation = Rule::new("self.matches('^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$')").message("write a Region's code, as in eu-west-1"))]
    #[schemars(length(min = 1, max = 32))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,

    /// The twelve digits of the AWS account that this domain belongs to: a guard, any other account is
    /// refused before the first write. Unset: whichever account the credentials lead to. Cannot be set,
    /// changed or removed later. Quote it in YAML.
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{12}$')").message("write the twelve digits of the account in quotes, as in \"123456789012\""))]
    #[schemars(length(min = 1, max = 32))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,

    /// The role to assume for this domain, which is then made in the role's account. Unset: the operator's
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
}

/// The domain's own certificate: exactly one of `request` and `existing`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.request) != has(self.existing)").message("set exactly one of request and existing; request: {} is the default"))]
#[serde(rename_all = "camelCase")]
pub struct ServerCertificate {
    /// Have the operator request one from ACM, prove the names by DNS records, and watch it. What ACM cannot
    /// issue is requested again by itself, after three days at first and once a week at last, at once when
    /// the failed one is deleted in ACM.
    // As `dns.external`.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<CertificateRequest>,
    /// Use one that is in ACM already. The operator only reads it: it is not tagged, deleted or renewed, and
    /// a warning is given before it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingCertificate>,
}

/// A public certificate to request from ACM for `domainName`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequest {
    /// Kind of key: EC_prime256v1, EC_secp384r1, or RSA_2048 for callers that know nothing else. Unset:
    /// EC_prime256v1. A change requests another certificate and puts it in the first one's place.
    #[schemars(with = "ServerKeyAlgorithm")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<ServerKeyAlgorithm>,
    /// More host names for the certificate, besides `domainName`, each in a public hosted zone of the account
    /// unless DNS is external. A change requests another certificate and puts it in the first one's place.
    /// ACM's default quota is 10 names a certificate, at most 100.
    #[x_kube(validation = super::host_names())]
    #[schemars(length(max = 99), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alternative_names: Vec<String>,
}

/// Key of a requested server certificate, in ACM's words.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum ServerKeyAlgorithm {
    /// Elliptic curve P-256.
    #[default]
    #[serde(rename = "EC_prime256v1")]
    EcPrime256v1,
    /// Elliptic curve P-384.
    #[serde(rename = "EC_secp384r1")]
    EcSecp384r1,
    /// For callers that know nothing else.
    #[serde(rename = "RSA_2048")]
    Rsa2048,
}

/// A certificate that is in ACM already, in the domain's Region and account.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExistingCertificate {
    /// Its ARN.
    #[x_kube(validation = super::certificate_arn())]
    #[schemars(length(min = 1, max = 2048))]
    pub arn: String,
    /// ARN of a public ACM certificate for the same name, which proves that the name is yours. Needed when
    /// the certificate was imported into ACM or issued by AWS Private CA, otherwise to be left out. It must
    /// stay valid: once expired, API Gateway locks all updates of the domain.
    #[x_kube(validation = super::certificate_arn())]
    #[schemars(length(min = 1, max = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership_verification_arn: Option<String>,
}

/// One path of the domain and the API behind it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ApiMapping {
    /// The path without leading slash: `""` for everything, `orders` for one level, `orders/v2` for several.
    /// At most 300 characters of letters, digits and `$-_.+!*'(),/`.
    #[x_kube(validation = Rule::new("self == '' || self.matches(\"^[a-zA-Z0-9$_.+!*'(),-]+(/[a-zA-Z0-9$_.+!*'(),-]+)*$\")")
        .message("write the path without leading, trailing or double slashes, of letters, digits and $-_.+!*'(), only, as in orders/v2; \"\" is everything"))]
    #[schemars(length(max = 300))]
    pub path: String,
    /// The API that answers there.
    pub api: MappedApi,
}

/// One stage of an HTTP or REST API. Which of the two it is the operator finds out by looking.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MappedApi {
    /// The API's id, the first part of its execute-api host name.
    #[x_kube(validation = super::api_id())]
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    /// The stage's name; an HTTP API's default stage is `$default`.
    #[x_kube(validation = Rule::new("self == '$default' || self.matches('^[a-zA-Z0-9_-]+$')").message("write the stage's name only, as in prod or $default"))]
    #[schemars(length(min = 1, max = 128))]
    pub stage: String,
}

/// Fate of mappings that the spec does not list.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlistedMappings {
    /// They are removed.
    Delete,
    /// They stay, and are named in the status.
    Keep,
}

/// Fate of the mapped APIs' default endpoint.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultEndpoint {
    /// Closed, so that nobody gets round the client certificate.
    #[default]
    Disable,
    /// Left as it is. BypassClosed is then False with reason KeptOpen, and Ready does not wait for it.
    Keep,
}

/// Whether REST stages may be deployed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestDeployment {
    /// The operator says which deployment is missing and leaves it to somebody else.
    #[default]
    Never,
    /// The operator deploys.
    Allow,
}

/// Who makes the name point at the domain: exactly one of `route53` and `external`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.route53) != has(self.external)").message("set exactly one of route53 and external; route53: {} is the default"))]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// The operator writes the records into Route 53.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route53: Option<Route53Dns>,
    /// Somebody else makes the records, which are listed in `status.dns.records` as soon as they are known:
    /// one or more that prove to ACM whose the names of the server certificate are, which must stay for its
    /// renewals, and the one that callers come by. Records that the operator made in Route 53 before stay as
    /// they are, even when this object is deleted, for callers may still come by them: delete them, with the
    /// TXT record `_mtls-operator.<name>`, when they are no longer needed.
    // The field with a default stands in etcd since earlier releases: with a merge by fields a server-side
    // apply of `{}` would leave a null.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalDns>,
}

/// Records in Route 53.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Route53Dns {
    /// The public hosted zone. Unset: the public zone with the longest name that the domain ends in; needed
    /// when two zones have that name. When it changes, records are made in the new zone; those in the one
    /// before stay, and are yours to delete.
    #[x_kube(validation = Rule::new("self.matches('^Z[A-Z0-9]+$')").message("write the zone's id only, without /hostedzone/, as in Z0123456789ABCDEFGHIJ"))]
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted_zone_id: Option<String>,
    /// The role to assume for Route 53 alone, when the zone is in another account. The operator takes it on
    /// with its own credentials, not with those of `aws.assumeRole`. Unset: as for the rest of the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
}

/// Records made elsewhere.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDns {
    /// How the operator convinces itself that callers get to the domain. PublicDNS: it asks public DNS, where
    /// a CNAME of `status.targetDomainName` counts, at whatever remove, and so do its addresses and nothing
    /// but its addresses (ALIAS, ANAME, flattened CNAME). Resolvers may go on saying for minutes that a new
    /// record is not there. None: not at all, for names that the operator's resolver cannot see;
    /// DNSProgrammed is then taken for true. Unset: PublicDNS.
    #[schemars(with = "DnsVerification")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<DnsVerification>,
}

/// How records made elsewhere are checked.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsVerification {
    /// By asking public DNS.
    #[default]
    PublicDNS,
    /// Not at all: DNSProgrammed is taken for true. For names that the operator's resolver cannot see.
    None,
}

/// Addresses of the domain.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpAddressType {
    /// IPv4 only.
    #[default]
    IPv4,
    /// IPv4 and IPv6.
    DualStack,
}

/// What to do about AWS resources that exist already.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdoptionPolicy {
    /// They are not touched, and the conditions say ForeignOwner.
    #[default]
    Never,
    /// Those without any ownership tag are taken over, as long as nobody loses access by it.
    Unowned,
}

/// Whether the operator acts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagementPolicy {
    /// It makes AWS as the spec says.
    #[default]
    Manage,
    /// It writes nothing to AWS, and says in `status.plan` what it would do.
    Observe,
}

/// Bounds for the ClientCertificates of a domain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Clients {
    /// The longest life a ClientCertificate of this domain may have. Unset: as long as its authority lives.
    /// One that asks for more is refused; one that asks for nothing gets this when it is shorter than 2160h.
    #[x_kube(validation = super::duration_of_at_least("1h", "2160h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
}
