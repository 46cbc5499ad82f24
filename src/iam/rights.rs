//! The table: which calls each thing that the operator can do takes, and what they are made on. Which IAM
//! actions a call needs is known to [`errors::iam_actions`] alone; here stands what that does not say: what
//! for, and on which resource.
//!
//! Sources: Service Authorization Reference (ACM, API Gateway Management V2, KMS, Lambda, Route 53, S3, STS):
//! "Actions" for the resource types that each action takes, `*` where it takes none; "Resource types" for the
//! forms of ARNs.

use crate::aws::{errors, gate};
use clap::ValueEnum;
use std::collections::BTreeSet;

/// What the operator can do beyond the least, which is a custom domain with mutual TLS and a truststore in a
/// bucket that is there, the server certificate and DNS being somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Feature {
    /// Request server certificates from ACM: serverCertificate.request, the default
    RequestedCertificate,
    /// Write DNS records into a hosted zone that is found by its name: dns.route53, the default
    Route53,
    /// Write them into a zone that is named: dns.route53.hostedZoneId
    Route53ZoneId,
    /// Close the execute-api endpoints of mapped APIs: defaultEndpoint Disable, the default
    ClosedEndpoint,
    /// Pass the client certificate's fields on in headers: identity.headers
    IdentityHeaders,
    /// Put a Lambda authorizer on the mapped APIs: identity.authorizer
    Authorizer,
    /// Make that authorizer of a Lambda function: identity.authorizer.functionArn
    AuthorizerFunction,
    /// Make the truststore's bucket: truststore.bucketCreation IfMissing
    BucketCreation,
    /// Encrypt the truststore with a KMS key: truststore.kmsKeyArn, or the default of the bucket
    KmsKey,
    /// Take over what is there already: adoptionPolicy Unowned
    Adoption,
    /// Delete what the operator made once the MtlsDomain is deleted: deletionPolicy Delete or unset
    Deletion,
    /// Let go of it then: deletionPolicy Retain, or adoptionPolicy Unowned
    Retention,
    /// Assume roles: aws.assumeRole and dns.route53.assumeRole
    AssumedRole,
}

impl Feature {
    pub fn all() -> BTreeSet<Feature> {
        Feature::value_variants().iter().copied().collect()
    }
}

/// What a right is on. The name is the statement's Sid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `*`: lists, and what is not there yet.
    Anything,
    Certificates,
    /// Every custom domain and its mappings: those that lead around mutual TLS are looked for among all of
    /// them.
    AllDomains,
    DomainCollection,
    Domain,
    /// The right to change a truststore. Users report that it takes both the domain and the collection.
    MutualTls,
    MappingCollection,
    Mapping,
    /// Every API and the lists of them: the operator looks at whatever a domain of its own maps, whoever
    /// mapped it.
    AllApis,
    Api,
    Deployments,
    Stages,
    Integrations,
    AuthorizerCollection,
    Authorizers,
    RoutesAndMethods,
    Function,
    Tags,
    ServiceLinkedRole,
    HostedZone,
    /// Its records, of our names and types.
    Records,
    RecordChanges,
    Bucket,
    Truststore,
    /// Whatever object a domain that is taken over has as its truststore.
    AllTruststores,
    KmsKey,
    Role,
}

/// Calls that are made for one of these features, on this.
pub struct Right {
    /// None: always.
    pub needed_for: &'static [Feature],
    /// As [`crate::aws`] names them.
    pub operations: &'static [&'static str],
    pub on: Resource,
}

const fn always(operations: &'static [&'static str], on: Resource) -> Right {
    Right {
        needed_for: &[],
        operations,
        on,
    }
}

const fn needed_for(
    needed_for: &'static [Feature],
    operations: &'static [&'static str],
    on: Resource,
) -> Right {
    Right {
        needed_for,
        operations,
        on,
    }
}

/// Every call but `sts:GetCallerIdentity`, which needs no right (AWS STS API Reference).
pub const RIGHTS: &[Right] = &[
    // The server certificate.
    always(&["acm:ListCertificates"], Resource::Anything),
    always(
        &["acm:DescribeCertificate", "acm:ListTagsForCertificate"],
        Resource::Certificates,
    ),
    needed_for(
        &[Feature::RequestedCertificate],
        &["acm:RequestCertificate"],
        Resource::Anything,
    ),
    needed_for(
        &[Feature::RequestedCertificate],
        &["acm:DeleteCertificate"],
        Resource::Certificates,
    ),
    needed_for(
        &[Feature::Retention],
        &["acm:RemoveTagsFromCertificate"],
        Resource::Certificates,
    ),
    // The custom domain and what it maps.
    always(
        &[
            "apigateway:GetDomainName",
            "apigateway:GetDomainNames",
            "apigateway:GetApiMappings",
            "apigateway:GetBasePathMappings",
        ],
        Resource::AllDomains,
    ),
    always(&["apigateway:CreateDomainName"], Resource::DomainCollection),
    always(&["apigateway:UpdateDomainName"], Resource::Domain),
    needed_for(
        &[Feature::Deletion],
        &["apigateway:DeleteDomainName"],
        Resource::Domain,
    ),
    always(&["apigateway:CreateApiMapping"], Resource::MappingCollection),
    always(
        &["apigateway:UpdateApiMapping", "apigateway:DeleteApiMapping"],
        Resource::Mapping,
    ),
    // The APIs behind it.
    always(
        &[
            "apigateway:GetApi",
            "apigateway:GetApis",
            "apigateway:GetRestApi",
            "apigateway:GetRestApis",
            "apigateway:GetStages",
        ],
        Resource::AllApis,
    ),
    needed_for(
        &[Feature::ClosedEndpoint],
        &["apigateway:UpdateApi", "apigateway:UpdateRestApi"],
        Resource::Api,
    ),
    needed_for(
        &[
            Feature::ClosedEndpoint,
            Feature::IdentityHeaders,
            Feature::Authorizer,
        ],
        &["apigateway:CreateDeployment"],
        Resource::Deployments,
    ),
    needed_for(
        &[
            Feature::ClosedEndpoint,
            Feature::IdentityHeaders,
            Feature::Authorizer,
        ],
        &["apigateway:UpdateStage"],
        Resource::Stages,
    ),
    needed_for(
        &[Feature::IdentityHeaders],
        &["apigateway:GetIntegrations", "apigateway:GetResources"],
        Resource::AllApis,
    ),
    needed_for(
        &[Feature::IdentityHeaders],
        &["apigateway:UpdateIntegration"],
        Resource::Integrations,
    ),
    needed_for(
        &[Feature::Authorizer],
        &[
            "apigateway:GetAuthorizers",
            "apigateway:GetRoutes",
            "apigateway:GetResources",
        ],
        Resource::AllApis,
    ),
    needed_for(
        &[Feature::AuthorizerFunction],
        &["apigateway:CreateAuthorizer"],
        Resource::AuthorizerCollection,
    ),
    needed_for(
        &[Feature::AuthorizerFunction],
        &["apigateway:UpdateAuthorizer", "apigateway:DeleteAuthorizer"],
        Resource::Authorizers,
    ),
    needed_for(
        &[Feature::Authorizer],
        &["apigateway:UpdateRoute", "apigateway:UpdateMethod"],
        Resource::RoutesAndMethods,
    ),
    needed_for(
        &[Feature::AuthorizerFunction],
        &[
            "lambda:GetPolicy",
            "lambda:AddPermission",
            "lambda:RemovePermission",
        ],
        Resource::Function,
    ),
    // Marks on domains and APIs.
    always(&["apigateway:TagResource"], Resource::Tags),
    needed_for(
        &[
            Feature::ClosedEndpoint,
            Feature::IdentityHeaders,
            Feature::Authorizer,
            Feature::Retention,
        ],
        &["apigateway:UntagResource"],
        Resource::Tags,
    ),
    // DNS.
    needed_for(
        &[Feature::Route53],
        &["route53:ListHostedZones"],
        Resource::Anything,
    ),
    needed_for(
        &[Feature::Route53ZoneId],
        &["route53:GetHostedZone"],
        Resource::HostedZone,
    ),
    needed_for(
        &[Feature::Route53, Feature::Route53ZoneId],
        &["route53:ListResourceRecordSets"],
        Resource::HostedZone,
    ),
    needed_for(
        &[Feature::Route53, Feature::Route53ZoneId],
        &["route53:ChangeResourceRecordSets"],
        Resource::Records,
    ),
    needed_for(
        &[Feature::Route53, Feature::Route53ZoneId],
        &["route53:GetChange"],
        Resource::RecordChanges,
    ),
    // The truststore.
    always(
        &["s3:HeadBucket", "s3:GetBucketVersioning", "s3:ListObjectVersions"],
        Resource::Bucket,
    ),
    always(
        &["s3:HeadObject", "s3:GetObject", "s3:PutObject"],
        Resource::Truststore,
    ),
    needed_for(&[Feature::Deletion], &["s3:DeleteObject"], Resource::Truststore),
    needed_for(
        &[Feature::Adoption],
        &["s3:HeadObject", "s3:GetObject"],
        Resource::AllTruststores,
    ),
    needed_for(
        &[Feature::BucketCreation],
        &[
            "s3:CreateBucket",
            "s3:GetBucketTagging",
            "s3:GetPublicAccessBlock",
            "s3:GetBucketEncryption",
            "s3:PutPublicAccessBlock",
            "s3:PutBucketEncryption",
            "s3:PutBucketVersioning",
        ],
        Resource::Bucket,
    ),
    needed_for(&[Feature::AssumedRole], &[errors::ASSUME_ROLE], Resource::Role),
];

/// Actions that a call needs besides its own and that are on something else than the call: on what, and the
/// feature without which it needs them not at all.
const BESIDES: &[(&str, Resource, Option<Feature>)] = &[
    ("acm:AddTagsToCertificate", Resource::Certificates, None),
    ("apigateway:AddCertificateToDomain", Resource::MutualTls, None),
    (
        "apigateway:RemoveCertificateFromDomain",
        Resource::MutualTls,
        None,
    ),
    ("apigateway:PUT", Resource::Tags, None), // the tags that come with a new domain
    ("iam:CreateServiceLinkedRole", Resource::ServiceLinkedRole, None),
    ("kms:Decrypt", Resource::KmsKey, Some(Feature::KmsKey)),
    ("kms:GenerateDataKey", Resource::KmsKey, Some(Feature::KmsKey)),
];

/// The IAM actions that these features take, each with what it is on. `reads_only`: nothing is to be changed.
pub fn needed(features: &BTreeSet<Feature>, reads_only: bool) -> BTreeSet<(&'static str, Resource)> {
    let rights = RIGHTS.iter().filter(|right| {
        right.needed_for.is_empty() || right.needed_for.iter().any(|feature| features.contains(feature))
    });
    let calls = rights.flat_map(|right| right.operations.iter().map(|operation| (*operation, right.on)));
    let calls = calls.filter(|(operation, _)| !reads_only || !gate::is_write(operation));
    calls
        .flat_map(|(operation, on)| actions(operation, on, features))
        .collect()
}

fn actions(
    operation: &'static str,
    on: Resource,
    features: &BTreeSet<Feature>,
) -> impl Iterator<Item = (&'static str, Resource)> {
    let named = errors::iam_actions(operation);
    let its_own = named.is_empty().then_some(operation);
    let all = named.iter().copied().chain(its_own);
    all.filter_map(
        move |action| match BESIDES.iter().find(|(beside, ..)| *beside == action) {
            Some((_, _, Some(feature))) if !features.contains(feature) => None,
            Some((_, on, _)) => Some((action, *on)),
            None => Some((action, on)),
        },
    )
}
