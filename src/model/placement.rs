//! Placement of the resources of an `MtlsDomain`: account, Region, owner, bucket and hosted zone. Pure.

use kube::ResourceExt;

use crate::{
    api::{AssumeRole, Dns, DnsVerification, MtlsDomain, UnlistedMappings, object_id::ObjectId},
    aws::{
        arn::Arn,
        session::{Access, RoleToAssume},
        tags::Tags,
    },
    policy::Policy,
};

/// Configuration of the operator that determines the placement of resources and their names.
#[derive(Clone, Debug)]
pub struct OperatorConfig<'a> {
    pub cluster_id: &'a str,
    pub account: &'a str,
    pub region: &'a str,
    /// Value of `--truststore-bucket`, with the placeholders `{account}` and `{region}`.
    pub truststore_bucket: Option<&'a str>,
    /// Value of `--aws-tags`.
    pub tags: &'a Tags,
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
    /// `None`: neither the spec nor the operator's configuration names a bucket.
    pub truststore: Option<TruststoreObject>,
    /// Unset: depends on how the operator got the domain: created or taken over.
    pub unlisted_mappings: Option<UnlistedMappings>,
    /// Tags on every resource that the operator creates: of the configuration and of the spec, which wins.
    pub tags: Tags,
}

/// Placement as far as the spec and the operator's configuration determine it, before AWS has answered. The
/// policy never allows anything for it: AWS may report another account than the spec expects.
#[derive(Clone, Debug, PartialEq)]
pub struct UnresolvedPlacement {
    pub account: Option<String>,
    pub region: Option<String>,
    pub dns: DesiredDns,
    /// `None`: the spec names no bucket.
    pub truststore: Option<TruststoreObject>,
}

impl UnresolvedPlacement {
    pub fn of(domain: &MtlsDomain, cluster_id: &str) -> Self {
        let aws = domain.spec.aws.clone().unwrap_or_default();
        let bucket = domain.spec.truststore.as_ref().and_then(|t| t.bucket.clone());
        UnresolvedPlacement {
            account: aws.account_id,
            region: aws.region,
            dns: DesiredDns::of(domain.spec.dns.as_ref()),
            truststore: bucket.map(|bucket| TruststoreObject::of(domain, cluster_id, bucket)),
        }
    }
}

/// S3 object that stores a truststore.
#[derive(Clone, Debug, PartialEq)]
pub struct TruststoreObject {
    pub bucket: String,
    pub key: String,
}

impl TruststoreObject {
    fn of(domain: &MtlsDomain, cluster_id: &str, bucket: String) -> Self {
        let key = domain.spec.truststore.as_ref().and_then(|t| t.key.clone());
        TruststoreObject {
            bucket,
            key: key.unwrap_or_else(|| format!("{}.pem", owner(domain, cluster_id))),
        }
    }

    pub fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}

/// Returns the value of every ownership tag of a domain's resources.
fn owner(domain: &MtlsDomain, cluster_id: &str) -> String {
    format!("{cluster_id}/{}", ObjectId::of(domain))
}

/// Manager of the DNS records of the domain name.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredDns {
    /// The operator, in this hosted zone or else the best match, with this role.
    Route53 {
        zone_id: Option<String>,
        role_arn: Option<Arn>,
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
                role_arn: route53
                    .assume_role
                    .as_ref()
                    .map(|role| role.role_arn.as_str().into()),
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
        let tags_of_spec = domain.spec.aws.iter().flat_map(|aws| aws.tags.clone());
        let named = domain.spec.truststore.as_ref().and_then(|t| t.bucket.clone());
        let bucket = named.or_else(|| {
            s.truststore_bucket
                .map(|t| t.replace("{account}", s.account).replace("{region}", s.region))
        });
        Placement {
            account: s.account.to_owned(),
            region: s.region.to_owned(),
            domain_name: domain.spec.domain_name.clone(),
            dns: DesiredDns::of(domain.spec.dns.as_ref()),
            truststore: bucket.map(|bucket| TruststoreObject::of(domain, s.cluster_id, bucket)),
            unlisted_mappings: domain.spec.unlisted_mappings,
            owner: owner(domain, s.cluster_id),
            tags: s.tags.clone().into_iter().chain(tags_of_spec).collect(),
            namespace,
            name,
        }
    }

    pub fn id(&self) -> ObjectId {
        ObjectId::new(&self.namespace, &self.name)
    }

    /// True when an ownership tag is that of an MtlsDomain of this cluster.
    pub fn is_of_this_cluster(&self, owner: &str) -> bool {
        let cluster = self.owner.strip_suffix(&self.id().to_string());
        cluster.is_some_and(|cluster| owner.starts_with(cluster))
    }

    /// Returns the account that the hosted zones are in.
    pub fn route53_account(&self) -> &str {
        match &self.dns {
            DesiredDns::Route53 {
                role_arn: Some(role), ..
            } => role.account(),
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
        arn: arn.into(),
    };
    Access {
        region: aws.region,
        role: aws.assume_role.map(role),
        route53_role: route53.assume_role.map(role),
    }
}
