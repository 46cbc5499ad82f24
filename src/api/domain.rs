//! The MtlsDomain kind: an API Gateway custom domain with mutual TLS. Trust, identity and status are in
//! modules of their own.
//! Long because most of it is the users' manual.

#![allow(clippy::duplicated_attributes)] // misfires on several printcolumns of one type

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    self, AssumeRole, DeletionPolicy, Duration, Identity, MtlsDomainStatus, Trust, Truststore, is_default,
};

/// Desired state of the domain.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mtls-operator.io",
    version = "v1alpha1",
    kind = "MtlsDomain",
    namespaced,
    doc = "An API Gateway custom domain that accepts only callers with a trusted client certificate. The operator manages its server certificate, truststore, API mappings and DNS records, and disables the APIs' default endpoint.",
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
#[x_kube(validation = api::set_at_creation(&["aws", "region"], "delete this MtlsDomain and create one in \
                                                                  the other Region"))]
#[x_kube(validation = api::set_at_creation(&["aws", "accountId"], "delete this MtlsDomain and create one for the other account"))]
#[x_kube(validation = Rule::new("self.domainName.size() <= 64 || (has(self.serverCertificate) ? has(self.serverCertificate.existing) : self.adoptionPolicy == 'Unowned')")
    .message("ACM does not issue a certificate whose first name is longer than 64 characters: request one by \
              hand, with a shorter first name and domainName as an additional name, and name it in \
              serverCertificate.existing.arn"))]
#[serde(rename_all = "camelCase")]
pub struct MtlsDomainSpec {
    /// Host name that clients call, exact and in lower case, at most 238 characters, and at most 64 unless
    /// `serverCertificate.existing` names the certificate or the operator takes the domain over. Immutable:
    /// API Gateway cannot rename a domain. The API server rejects wildcards: on mutual TLS domains of a
    /// Region, across all accounts, API Gateway accepts a certificate subject from one issuer only, and
    /// wildcard subjects collide there.
    #[x_kube(validation = Rule::new("self == oldSelf").message("domainName is immutable: create another MtlsDomain for the other name"))]
    #[x_kube(validation = Rule::new("!self.contains('*')")
        .message("write one exact host name per MtlsDomain, not a wildcard: API Gateway accepts a \
                  certificate subject on mutual TLS domains of a Region from one issuer only, across all \
                  accounts, and wildcard subjects collide"))]
    #[x_kube(validation = Rule::new("self.contains('*') || self.matches('^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]([a-z0-9-]{0,61}[a-z0-9])$')")
        .message("write a full host name in lower case, without scheme, port or trailing dot, as in api.example.com, \
                  and an internationalized name in Punycode, as in xn--mller-kva.example"))]
    #[schemars(length(min = 1, max = 238))]
    pub domain_name: String,

    /// AWS account and Region of the domain, and the operator's role there. Unset: the operator's own account
    /// and Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsPlace>,

    /// Certificate that the domain shows to its callers. Unset: `request: {}`; on a domain that the operator
    /// takes over, the certificate that the domain has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<ServerCertificate>,

    /// Authorities whose client certificates the domain accepts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust: Trust,

    /// S3 object with the trusted certificates. Unset: an object in the operator's bucket.
    // As `dns.external`.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truststore: Option<Truststore>,

    /// Paths of the domain and the API behind each path. At most 200. The longest matching path wins. Unset:
    /// none.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    #[schemars(length(max = 200))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<ApiMapping>,

    /// Fate of the domain's mappings that `mappings` does not list: Delete or Keep. Unset: Delete on a domain
    /// that the operator created; Keep on a domain that the operator took over, where the message of
    /// MappingsProgrammed names these mappings.
    #[schemars(with = "UnlistedMappings")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted_mappings: Option<UnlistedMappings>,

    /// Handling of the mapped APIs' default endpoint (`https://<api id>.execute-api...`), which does not
    /// require a client certificate. Disable: the operator disables the endpoint for all stages of an API,
    /// the first time only once the domain's own name works. It never enables the endpoint again, not even
    /// when this object is deleted (to enable it: `aws apigatewayv2 update-api --api-id ...
    /// --no-disable-execute-api-endpoint`). Keep: the operator leaves the endpoint as it is, and BypassClosed
    /// is False with reason KeptOpen. Default: Disable.
    #[serde(default)]
    pub default_endpoint: DefaultEndpoint,

    /// Permission to deploy the mapped stages of a REST API, which makes a disabled default endpoint
    /// effective. Allow: the operator deploys once, which publishes every other pending edit of that API too.
    /// Never: the operator writes a stage's description again without a change, which is enough according to
    /// AWS. Where the endpoint still answers, BypassClosed is False with reason WaitingForDeployment and
    /// names the stage. Default: Never.
    #[serde(default)]
    pub rest_deployment: RestDeployment,

    /// Manager of the DNS records that point the name at the domain. Unset: `route53: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,

    /// Address types of the domain: IPv4, or DualStack for IPv4 and IPv6. Default: IPv4.
    #[serde(default)]
    pub ip_address_type: IpAddressType,

    /// Headers with the caller's identity for the back ends. Unset: only the values that API Gateway passes
    /// to Lambda functions by default; other back ends receive none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// Handling of existing AWS resources. Never: the operator does not change existing resources, and the
    /// conditions have reason ForeignOwner. Unowned: the operator takes over resources without an ownership
    /// tag, unless a caller would lose access. With Never, the operator restores the ownership tag of a
    /// custom domain that loses it, as long as everything else shows that the operator created the domain: it
    /// has the operator's certificate and truststore, and its TXT marker is in Route 53. The operator
    /// replaces a certificate that loses the tag and does not change that certificate any more. Records that
    /// lose the marker stay as they are, also when this object is deleted. Default: Never.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,

    /// Fate of the AWS resources after this object is deleted. Delete: the operator deletes them. Retain:
    /// they stay, and the operator removes its ownership tags. Unset: the operator deletes the resources that
    /// it created and retains the resources that it took over. Buckets, the ACM validation record and the
    /// disabled default endpoints stay in any case.
    #[schemars(with = "DeletionPolicy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Scope of the operator's writes to AWS. Manage: the operator brings AWS to the desired state. Observe:
    /// the operator writes nothing to AWS, does not delete either, and lists the planned actions in
    /// `status.plan`. Default: Manage.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// true: the operator leaves everything in AWS as it is, and does not delete either, until this is false
    /// again. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub suspend: bool,

    /// Limits for the ClientCertificates of this domain. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Clients>,
}

impl MtlsDomain {
    /// Returns the Region of the spec; `None`: the operator's own.
    pub fn region(&self) -> Option<&str> {
        self.spec.aws.as_ref()?.region.as_deref()
    }
}

/// AWS account and Region, and the role to assume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AwsPlace {
    /// AWS Region, for example `eu-west-1`. Unset: the operator's own Region. Cannot be set, changed or
    /// removed later.
    #[x_kube(validation = Rule::new("self.matches('^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$')").message("write a Region's code, as in eu-west-1"))]
    #[schemars(length(min = 1, max = 32))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,

    /// ID of the AWS account that this domain belongs to, twelve digits in quotes. The operator rejects
    /// credentials of any other account before the first write (reason WrongAccount). Unset: the account of
    /// the credentials. Cannot be set, changed or removed later.
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{12}$')").message("write the twelve digits of the account in quotes, as in \"123456789012\""))]
    #[schemars(length(min = 1, max = 32))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,

    /// IAM role that the operator assumes for this domain. The operator creates the domain in the role's
    /// account. Unset: the operator's own role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,

    /// Tags on every resource that the operator creates for this domain, and on a domain that it takes over:
    /// the server certificate, the custom domain, the bucket and the truststore object, which gets the first
    /// 10 by key, S3's limit. At most 40. The operator's `--aws-tags` apply as well; of two tags with one key
    /// this one wins. A tag that is added or changed is set on what exists too, and the truststore object
    /// gets a new version. A tag that is removed here stays in AWS. Unset: none.
    #[x_kube(validation = Rule::new("self.all(k, !k.matches('(?i)^(aws:|mtls-operator[.]io/)'))")
        .message("leave out keys that begin with aws: or mtls-operator.io/: AWS and the operator set these"))]
    #[x_kube(validation = Rule::new("self.all(k, k.matches('^[\\\\p{L}\\\\p{N} _.:/=+@-]{1,128}$') && self[k].matches('^[\\\\p{L}\\\\p{N} _.:/=+@-]*$'))")
        .message("write keys of 1 to 128 and values of at most 256 letters, digits, spaces and _.:/=+-@, as AWS takes them"))]
    #[schemars(extend("maxProperties" = 40, "additionalProperties" = {"type": "string", "maxLength": 256}))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Server certificate of the domain: exactly one of `request` and `existing`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.request) != has(self.existing)").message("set exactly one of request and existing; request: {} is the default"))]
#[serde(rename_all = "camelCase")]
pub struct ServerCertificate {
    /// Certificate that the operator requests from ACM. The operator proves control of the names by DNS
    /// records and monitors the certificate. When ACM cannot issue the certificate, the operator requests
    /// another certificate: after three days at first, later once a week, and at once when a user deletes the
    /// failed certificate in ACM.
    // As `dns.external`.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<CertificateRequest>,
    /// Existing ACM certificate. The operator only reads the certificate: it does not tag, delete or renew
    /// the certificate. It publishes a warning before the certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingCertificate>,
}

/// Public certificate to request from ACM for `domainName`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRequest {
    /// Key algorithm: EC_prime256v1, EC_secp384r1 or RSA_2048. After a change to another algorithm the
    /// operator requests another certificate and replaces the first one. Unset: the operator keeps the
    /// certificate that it requested before, with any key, and requests a new certificate with RSA_2048.
    #[schemars(with = "ServerKeyAlgorithm")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<ServerKeyAlgorithm>,
    /// Additional host names for the certificate, besides `domainName`. Each name must be in a public hosted
    /// zone of the account unless DNS is external. At most 99. ACM's quota is 10 names a certificate by
    /// default, and at most 100. After a change the operator requests another certificate and replaces the
    /// first one. Unset: none.
    #[x_kube(validation = api::host_names())]
    #[schemars(length(max = 99), inner(length(min = 1, max = 253)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_alternative_names: Vec<String>,
}

/// Key algorithm of a requested server certificate, in ACM's terms.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum ServerKeyAlgorithm {
    /// Elliptic curve P-256.
    #[serde(rename = "EC_prime256v1")]
    EcPrime256v1,
    /// Elliptic curve P-384.
    #[serde(rename = "EC_secp384r1")]
    EcSecp384r1,
    /// RSA with 2048 bits.
    #[serde(rename = "RSA_2048")]
    Rsa2048,
}

/// Existing ACM certificate, in the domain's Region and account.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExistingCertificate {
    /// ARN of the certificate.
    #[x_kube(validation = api::certificate_arn())]
    #[schemars(length(min = 1, max = 2048))]
    pub arn: String,
    /// ARN of a public ACM certificate for the same name, which proves your control of the name. Required
    /// when the certificate was imported into ACM or issued by AWS Private CA; must be unset otherwise. The
    /// public certificate must stay valid: after it expires, API Gateway rejects all updates of the domain.
    #[x_kube(validation = api::certificate_arn())]
    #[schemars(length(min = 1, max = 2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership_verification_arn: Option<String>,
}

/// Path of the domain and the API behind it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ApiMapping {
    /// Path without leading slash: `""` for everything, `orders` for one level, `orders/v2` for several. At
    /// most 300 characters of letters, digits and `$-_.+!*'(),/`.
    #[x_kube(validation = Rule::new("self == '' || self.matches(\"^[a-zA-Z0-9$_.+!*'(),-]+(/[a-zA-Z0-9$_.+!*'(),-]+)*$\")")
        .message("write the path without leading, trailing or double slashes, of letters, digits and $-_.+!*'(), only, as in orders/v2; \"\" is everything"))]
    #[schemars(length(max = 300))]
    pub path: String,
    /// API that serves the path.
    pub api: MappedApi,
}

/// Stage of an HTTP or REST API. The operator reads from AWS which of the two the API is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MappedApi {
    /// ID of the API, the first part of its execute-api host name.
    #[x_kube(validation = api::api_id())]
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    /// Name of the stage, at most 128 characters. The default stage of an HTTP API is `$default`.
    #[x_kube(validation = Rule::new("self == '$default' || self.matches('^[a-zA-Z0-9_-]+$')").message("write the stage's name only, as in prod or $default"))]
    #[schemars(length(min = 1, max = 128))]
    pub stage: String,
}

/// Fate of mappings that the spec does not list.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlistedMappings {
    /// The operator removes these mappings.
    Delete,
    /// These mappings stay, and the status names them.
    Keep,
}

/// Handling of the mapped APIs' default endpoint.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultEndpoint {
    /// The operator disables the endpoint, so that no caller bypasses the client certificate.
    #[default]
    Disable,
    /// The operator leaves the endpoint as it is. BypassClosed is then False with reason KeptOpen, and Ready
    /// does not wait for BypassClosed.
    Keep,
}

/// Permission to deploy REST stages.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestDeployment {
    /// The operator names the missing deployment and leaves the deployment to a user.
    #[default]
    Never,
    /// The operator deploys.
    Allow,
}

/// Manager of the DNS records for the domain: exactly one of `route53` and `external`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("has(self.route53) != has(self.external)").message("set exactly one of route53 and external; route53: {} is the default"))]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Records that the operator writes into Route 53.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route53: Option<Route53Dns>,
    /// Records that you create elsewhere. The operator lists the records in `status.dns.records` as soon as
    /// it knows them: the records that prove to ACM your control of the server certificate's names, which
    /// must stay for ACM's renewals, and the record that points callers at the domain. Records that the
    /// operator created in Route 53 before stay as they are, even when this object is deleted, because
    /// callers may still depend on them. Delete these records, with the TXT record `_mtls-operator.<name>`,
    /// when you no longer need them.
    // The field with a default is in etcd since earlier releases: with a merge by fields a server-side apply
    // of `{}` would leave a null.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalDns>,
}

/// Records in Route 53.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Route53Dns {
    /// ID of the public hosted zone. Unset: the public zone with the longest name that the domain ends in;
    /// required when two zones have that name. When the zone changes, the operator creates records in the new
    /// zone; the records in the old zone stay, and you may delete them.
    #[x_kube(validation = Rule::new("self.matches('^Z[A-Z0-9]+$')").message("write the zone's id only, without /hostedzone/, as in Z0123456789ABCDEFGHIJ"))]
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted_zone_id: Option<String>,
    /// IAM role that the operator assumes for Route 53 alone, for a zone in another account. The operator
    /// assumes this role with its own credentials, not with the credentials of `aws.assumeRole`. Unset: the
    /// role of the rest of the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
}

/// Records that a user creates elsewhere.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDns {
    /// Check that callers reach the domain. PublicDNS: the operator queries public DNS. It accepts a CNAME of
    /// `status.targetDomainName`, also through other CNAMEs, and the addresses of that name when there are no
    /// others (ALIAS, ANAME, flattened CNAME). Resolvers may cache the absence of a new record for minutes.
    /// None: no check, for names that the operator's resolver cannot resolve; DNSProgrammed is then assumed
    /// to be True. Unset: PublicDNS.
    #[schemars(with = "DnsVerification")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<DnsVerification>,
}

/// Check of records that a user creates elsewhere.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsVerification {
    /// The operator queries public DNS.
    #[default]
    PublicDNS,
    /// No check: DNSProgrammed is assumed to be True. For names that the operator's resolver cannot resolve.
    None,
}

/// Address types of the domain.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpAddressType {
    /// IPv4 only.
    #[default]
    IPv4,
    /// IPv4 and IPv6.
    DualStack,
}

/// Handling of existing AWS resources.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdoptionPolicy {
    /// The operator does not change existing resources, and the conditions have reason ForeignOwner.
    #[default]
    Never,
    /// The operator takes over resources without an ownership tag, unless a caller would lose access.
    Unowned,
}

/// Scope of the operator's writes to AWS.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagementPolicy {
    /// The operator brings AWS to the desired state.
    #[default]
    Manage,
    /// The operator writes nothing to AWS and lists the planned actions in `status.plan`.
    Observe,
}

/// Limits for the ClientCertificates of a domain.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Clients {
    /// Maximum validity period of a ClientCertificate of this domain, at least 1h. The operator rejects a
    /// ClientCertificate with a longer `duration` (reason DurationNotAllowed). A ClientCertificate without
    /// `duration` gets this period when it is shorter than 2160h. Unset: the validity period of the
    /// authority.
    #[x_kube(validation = api::duration_of_at_least("1h", "2160h"))]
    #[schemars(length(max = 25))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
}
