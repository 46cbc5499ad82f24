//! Used part of the table with its resources, as far as known: one [`Usage`] for each MtlsDomain, or one for
//! all of them.

use std::collections::BTreeSet;

use super::rights::{Feature, Resource};

use crate::{
    api::{
        AdoptionPolicy, BucketCreation, DefaultEndpoint, DeletionPolicy, ManagementPolicy, MtlsDomain,
        ServerCertificate,
    },
    aws::{arn::Arn, partitions::partition},
};

/// Placeholder for an unknown value.
const ANY: &str = "*";

/// Values from flags, for MtlsDomains that do not give them.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub account: Option<String>,
    pub region: Option<String>,
    /// Bucket name with `{account}` and `{region}` to fill in.
    pub bucket: Option<String>,
    /// Hosted zone ids; empty for any zone.
    pub zones: Vec<String>,
    /// True when the operator sets tags on everything.
    pub tags: bool,
}

/// Principal of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    Operator,
    /// Role that the operator assumes, by its ARN.
    Role(String),
}

/// Used features and their resources; `*` for an unknown value.
#[derive(Clone, Debug)]
pub struct Usage {
    pub features: BTreeSet<Feature>,
    /// True when nothing is changed.
    pub reads_only: bool,
    account: String,
    region: String,
    domain_name: String,
    /// Names of the records to write.
    pub record_names: BTreeSet<String>,
    zones: BTreeSet<String>,
    bucket: String,
    key: String,
    kms_key: Option<String>,
    apis: BTreeSet<String>,
    function: Option<String>,
    /// Role to assume, with the role for Route 53 alone in `route53_role`.
    role: Option<String>,
    route53_role: Option<String>,
}

impl Usage {
    /// Returns the usage of unknown MtlsDomains with these features.
    pub fn of_features(features: BTreeSet<Feature>, known: &Known) -> Usage {
        let any = || ANY.to_owned();
        let account = known.account.clone().unwrap_or_else(any);
        let region = known.region.clone().unwrap_or_else(any);
        Usage {
            features,
            reads_only: false,
            domain_name: any(),
            record_names: [any()].into(),
            zones: zones(known.zones.clone()),
            bucket: known
                .bucket
                .as_ref()
                .map_or_else(any, |bucket| filled(bucket, &account, &region)),
            key: any(),
            kms_key: None,
            apis: [any()].into(),
            function: None,
            role: None,
            route53_role: None,
            account,
            region,
        }
    }

    /// Returns the usage of one MtlsDomain.
    pub fn of(domain: &MtlsDomain, known: &Known) -> Usage {
        let spec = &domain.spec;
        let aws = spec.aws.clone().unwrap_or_default();
        let route53 = spec
            .dns
            .as_ref()
            .map_or(Some(Default::default()), |dns| dns.route53.clone());
        let truststore = spec.truststore.clone().unwrap_or_default();
        let role = aws.assume_role.map(|role| role.role_arn);
        let of_role = role.as_deref().map(|role| Arn::from(role).account().to_owned());
        let base = Known {
            account: aws.account_id.or(of_role).or(known.account.clone()),
            region: aws.region.or(known.region.clone()),
            bucket: truststore.bucket.or(known.bucket.clone()),
            zones: route53
                .as_ref()
                .and_then(|dns| dns.hosted_zone_id.clone())
                .map_or(known.zones.clone(), |id| vec![id]),
            tags: known.tags,
        };
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| ANY.to_owned());
        let object = format!(
            "{ANY}/{}/{}.pem",
            part(&domain.metadata.namespace),
            part(&domain.metadata.name)
        );
        Usage {
            reads_only: spec.management_policy == ManagementPolicy::Observe,
            domain_name: spec.domain_name.clone(),
            record_names: record_names(domain),
            key: truststore.key.unwrap_or(object),
            kms_key: truststore.kms_key_arn,
            apis: spec
                .mappings
                .iter()
                .map(|mapping| mapping.api.id.clone())
                .collect(),
            function: authorizer(domain).and_then(|authorizer| authorizer.function_arn.clone()),
            role,
            route53_role: route53.and_then(|dns| dns.assume_role).map(|role| role.role_arn),
            ..Usage::of_features(features(domain, &base), &base)
        }
    }

    /// Returns the roles to assume.
    pub fn roles(&self) -> impl Iterator<Item = &String> {
        self.role.iter().chain(&self.route53_role)
    }

    /// True when this principal performs the action.
    pub fn is_by(&self, principal: &Principal, action: &str) -> bool {
        let role = match action.split(':').next() {
            Some("sts") => None, // the operator assumes roles with its own permissions
            Some("route53") => self.route53_role.as_ref().or(self.role.as_ref()),
            _ => self.role.as_ref(),
        };
        match principal {
            Principal::Operator => role.is_none(),
            Principal::Role(arn) => role == Some(arn),
        }
    }

    /// Returns the ARNs of the resource.
    pub fn arns(&self, resource: Resource) -> Vec<String> {
        let Usage {
            account,
            region,
            domain_name: name,
            bucket,
            key,
            ..
        } = self;
        let partition = partition(region);
        let arn = |rest: &str| format!("arn:{partition}:{rest}");
        let gateway = |path: &str| arn(&format!("apigateway:{region}::{path}"));
        let of_apis = |http: &str, rest: &str| -> Vec<String> {
            let of = |id: &String| [format!("/apis/{id}{http}"), format!("/restapis/{id}{rest}")];
            self.apis.iter().flat_map(of).map(|path| gateway(&path)).collect()
        };
        let zones = || {
            self.zones
                .iter()
                .map(|id| arn(&format!("route53:::hostedzone/{id}")))
                .collect()
        };
        match resource {
            Resource::Anything => vec![ANY.to_owned()],
            Resource::Certificates => vec![arn(&format!("acm:{region}:{account}:certificate/*"))],
            Resource::AllDomains => vec![gateway("/domainnames"), gateway("/domainnames/*")],
            Resource::DomainCollection => vec![gateway("/domainnames")],
            Resource::Domain => vec![gateway(&format!("/domainnames/{name}"))],
            Resource::MutualTls => vec![gateway("/domainnames"), gateway(&format!("/domainnames/{name}"))],
            Resource::MappingCollection => vec![gateway(&format!("/domainnames/{name}/apimappings"))],
            Resource::Mapping => vec![gateway(&format!("/domainnames/{name}/apimappings/*"))],
            Resource::AllApis => ["/apis", "/apis/*", "/restapis", "/restapis/*"]
                .map(gateway)
                .into(),
            Resource::Api => of_apis("", ""),
            Resource::Deployments => of_apis("/deployments", "/deployments"),
            Resource::Stages => of_apis("/stages/*", "/stages/*"),
            Resource::Integrations => of_apis("/integrations/*", "/resources/*/methods/*/integration"),
            Resource::AuthorizerCollection => of_apis("/authorizers", "/authorizers"),
            Resource::Authorizers => of_apis("/authorizers/*", "/authorizers/*"),
            Resource::RoutesAndMethods => of_apis("/routes/*", "/resources/*/methods/*"),
            Resource::Function => match &self.function {
                Some(function) => vec![function.clone()],
                None => vec![arn(&format!("lambda:{region}:{account}:function:*"))],
            },
            Resource::Tags => vec![gateway("/tags/*")],
            Resource::ServiceLinkedRole => {
                vec![arn(&format!(
                    "iam::{account}:role/aws-service-role/ops.apigateway.amazonaws.com/*"
                ))]
            }
            Resource::HostedZone | Resource::Records => zones(),
            Resource::RecordChanges => vec![arn("route53:::change/*")],
            Resource::Bucket => vec![arn(&format!("s3:::{bucket}"))],
            Resource::Truststore => vec![arn(&format!("s3:::{bucket}/{key}"))],
            Resource::AllTruststores => vec![arn("s3:::*/*")],
            Resource::KmsKey => match &self.kms_key {
                // IAM identifies a key by its id alone.
                Some(key) => vec![
                    key.split_once(":alias/")
                        .map_or(key.clone(), |(of, _)| format!("{of}:key/*")),
                ],
                None => vec![arn(&format!("kms:{region}:{account}:key/*"))],
            },
            Resource::Role if self.roles().next().is_none() => vec![arn("iam::*:role/*")],
            Resource::Role => self.roles().cloned().collect(),
        }
    }
}

fn zones(known: Vec<String>) -> BTreeSet<String> {
    if known.is_empty() {
        [ANY.to_owned()].into()
    } else {
        known.into_iter().collect()
    }
}

fn filled(bucket: &str, account: &str, region: &str) -> String {
    bucket.replace("{account}", account).replace("{region}", region)
}

fn authorizer(domain: &MtlsDomain) -> Option<&crate::api::Authorizer> {
    domain.spec.identity.as_ref()?.authorizer.as_ref()
}

fn features(domain: &MtlsDomain, known: &Known) -> BTreeSet<Feature> {
    let spec = &domain.spec;
    let truststore = spec.truststore.clone().unwrap_or_default();
    let route53 = spec
        .dns
        .as_ref()
        .map_or(Some(Default::default()), |dns| dns.route53.clone());
    let zone_id = route53.as_ref().is_some_and(|dns| dns.hosted_zone_id.is_some());
    let requested = spec
        .server_certificate
        .as_ref()
        .is_none_or(|certificate| certificate.existing.is_none());
    let adopts = spec.adoption_policy == AdoptionPolicy::Unowned;
    let takes_roles = spec.aws.as_ref().is_some_and(|aws| aws.assume_role.is_some())
        || route53.as_ref().is_some_and(|dns| dns.assume_role.is_some());
    let uses = [
        (Feature::RequestedCertificate, requested),
        // Further names may lie in other zones, which the operator finds by their names.
        (
            Feature::Route53,
            route53.is_some() && (!zone_id || !other_names(domain).is_empty()),
        ),
        (Feature::Route53ZoneId, zone_id),
        (
            Feature::ClosedEndpoint,
            spec.default_endpoint == DefaultEndpoint::Disable,
        ),
        (Feature::IdentityHeaders, spec.identity.is_some()),
        (Feature::Authorizer, authorizer(domain).is_some()),
        (
            Feature::AuthorizerFunction,
            authorizer(domain).is_some_and(|authorizer| authorizer.function_arn.is_some()),
        ),
        (
            Feature::BucketCreation,
            truststore.bucket_creation == Some(BucketCreation::IfMissing),
        ),
        (Feature::KmsKey, truststore.kms_key_arn.is_some()),
        (
            Feature::Tags,
            known.tags || spec.aws.as_ref().is_some_and(|aws| !aws.tags.is_empty()),
        ),
        (Feature::Adoption, adopts),
        (
            Feature::Deletion,
            spec.deletion_policy != Some(DeletionPolicy::Retain),
        ),
        (
            Feature::Retention,
            spec.deletion_policy == Some(DeletionPolicy::Retain)
                || (adopts && spec.deletion_policy.is_none()),
        ),
        (Feature::AssumedRole, takes_roles),
    ];
    uses.into_iter()
        .filter(|(_, used)| *used)
        .map(|(feature, _)| feature)
        .collect()
}

/// Returns the names of the server certificate other than the domain's.
fn other_names(domain: &MtlsDomain) -> &[String] {
    match &domain.spec.server_certificate {
        Some(ServerCertificate {
            request: Some(request),
            ..
        }) => &request.subject_alternative_names,
        _ => &[],
    }
}

/// Returns the domain name, and a wildcard for names that begin with an underscore, below it and below the
/// certificate's other names: ACM's validation records and the ownership tag.
fn record_names(domain: &MtlsDomain) -> BTreeSet<String> {
    let name = &domain.spec.domain_name;
    let below = |name: &String| format!("_{ANY}.{}", name.trim_start_matches("*."));
    other_names(domain)
        .iter()
        .chain([name])
        .map(below)
        .chain([name.clone()])
        .collect()
}
