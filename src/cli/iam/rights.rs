//! Table of the calls that each feature of the operator needs, and of their resources.
//! [`errors::iam_actions`] alone knows the IAM actions of a call; this table adds the feature and the
//! resource.
//!
//! Sources: Service Authorization Reference (ACM, API Gateway Management V2, KMS, Lambda, Route 53, S3, STS):
//! "Actions" for the resource types of each action, `*` where it has none; "Resource types" for the forms of
//! ARNs.

use std::collections::BTreeSet;

use clap::ValueEnum;

use crate::aws::{call_guard, errors};

/// Features of the operator beyond the least, which is a custom domain with mutual TLS and a truststore in an
/// existing bucket, without the server certificate and DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Feature {
    /// Requests server certificates from ACM: serverCertificate.request, the default
    RequestedCertificate,
    /// Writes DNS records into a hosted zone found by its name: dns.route53, the default
    Route53,
    /// Writes DNS records into a named hosted zone: dns.route53.hostedZoneId
    Route53ZoneId,
    /// Disables the execute-api endpoints of mapped APIs: defaultEndpoint Disable, the default
    ClosedEndpoint,
    /// Passes fields of the client certificate on in headers: identity.headers
    IdentityHeaders,
    /// Attaches a Lambda authorizer to the mapped APIs: identity.authorizer
    Authorizer,
    /// Creates that authorizer for a Lambda function: identity.authorizer.functionArn
    AuthorizerFunction,
    /// Creates the truststore's bucket: truststore.bucketCreation IfMissing
    BucketCreation,
    /// Encrypts the truststore with a KMS key: truststore.kmsKeyArn, or the default of the bucket
    KmsKey,
    /// Sets tags that users demand: aws.tags, and the operator's --aws-tags
    Tags,
    /// Adopts existing resources: adoptionPolicy Unowned
    Adoption,
    /// Deletes the operator's resources once the MtlsDomain is deleted: deletionPolicy Delete or unset
    Deletion,
    /// Releases resources once the MtlsDomain is deleted: deletionPolicy Retain, or adoptionPolicy Unowned
    Retention,
    /// Assumes roles: aws.assumeRole and dns.route53.assumeRole
    AssumedRole,
}

impl Feature {
    pub fn all() -> BTreeSet<Feature> {
        Feature::value_variants().iter().copied().collect()
    }
}

/// Resource of a permission. The name is the statement's Sid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `*`, for lists and for resources that do not exist yet.
    Anything,
    Certificates,
    /// Every custom domain and its mappings, among which the operator finds those that bypass mutual TLS.
    AllDomains,
    DomainCollection,
    Domain,
    /// Permission to change a truststore. Users report that it needs both the domain and the collection.
    MutualTls,
    MappingCollection,
    Mapping,
    /// Every API and the lists of APIs: the operator reads every API that one of its domains maps, even when
    /// another client created the mapping.
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
    /// Records of the hosted zone with the operator's names and types.
    Records,
    RecordChanges,
    Bucket,
    Truststore,
    /// Every object that an adopted domain may have as its truststore.
    AllTruststores,
    KmsKey,
    Role,
}

/// Calls for one of these features, on one resource.
pub struct Right {
    /// Features that need the calls; empty for every use.
    pub needed_for: &'static [Feature],
    /// Operations as [`crate::aws`] names them.
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

/// Every call but `sts:GetCallerIdentity`, which needs no permission (AWS STS API Reference).
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
        &["acm:DeleteCertificate", "acm:AddTagsToCertificate"],
        Resource::Certificates,
    ),
    needed_for(
        &[Feature::Retention],
        &["acm:RemoveTagsFromCertificate"],
        Resource::Certificates,
    ),
    // The custom domain and its mappings.
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
    // The APIs behind the domain.
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
    // Ownership tags on domains and APIs.
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
            "s3:PutBucketTagging",
        ],
        Resource::Bucket,
    ),
    needed_for(&[Feature::AssumedRole], &[errors::ASSUME_ROLE], Resource::Role),
];

/// Actions that a call needs besides its own, or only with a feature: the resource, and the feature without
/// which no such action is needed.
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
    ("s3:PutBucketTagging", Resource::Bucket, Some(Feature::Tags)),
    ("s3:PutObjectTagging", Resource::Truststore, Some(Feature::Tags)),
];

/// Returns the IAM actions that these features need, each with its resource. `reads_only` leaves out all
/// changes.
pub fn needed(features: &BTreeSet<Feature>, reads_only: bool) -> BTreeSet<(&'static str, Resource)> {
    let rights = RIGHTS.iter().filter(|right| {
        right.needed_for.is_empty() || right.needed_for.iter().any(|feature| features.contains(feature))
    });
    let calls = rights.flat_map(|right| right.operations.iter().map(|operation| (*operation, right.on)));
    let calls = calls.filter(|(operation, _)| !reads_only || !call_guard::is_write(operation));
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
