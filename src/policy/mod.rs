//! The operator's policy: the AWS rights that each namespace may use. Decides whether all resources that a
//! spec names fit one rule. Pure and total: no I/O, no clock; the caller passes the file's
//! content, the access requests of a spec and the namespace's labels.

pub mod file;
pub mod follow;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    api::{AdoptionPolicy, Namespaces, given, listed},
    status::text,
};

/// Maximum number of parts that a message lists.
const MOST_TOLD: usize = 10;

/// Content of the policy file. The operator serves a spec when all of its resources fit one rule. A policy
/// without rules allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    pub rules: Vec<Rule>,
}

/// Resources that MtlsDomains of some namespaces may use in AWS. Every spec needs names, zones, Regions,
/// accounts, buckets and APIs: a rule without a list for these allows all, an empty list allows none. A spec
/// can do without roles, KMS keys, existing certificates, functions, tags and adoption: a rule without a list
/// for these allows none. `{namespace}` in a domain suffix, a prefix or a tag's value stands for the name of
/// the MtlsDomain's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Name of the rule, for people and for messages about the file.
    pub name: String,
    /// Namespaces whose MtlsDomains the rule is for.
    pub namespaces: Namespaces,
    /// Host names, each for itself and everything below it. Bounds the domain name and every other name of a
    /// certificate to request.
    #[serde(default, deserialize_with = "listed")]
    pub domain_suffixes: Option<Vec<String>>,
    /// Hosted zones into which the operator writes records, named by the spec or found by the operator.
    #[serde(default, deserialize_with = "listed")]
    pub hosted_zone_ids: Option<Vec<String>>,
    #[serde(default, deserialize_with = "listed")]
    pub regions: Option<Vec<String>>,
    /// Accounts in which the operator creates domains, as AWS itself reports for the credentials.
    #[serde(default, deserialize_with = "listed")]
    pub accounts: Option<Vec<String>>,
    /// Roles that a spec may have the operator assume, for the domain or for Route 53. Default: none.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Buckets that may store truststores.
    #[serde(default, deserialize_with = "listed")]
    pub buckets: Option<Vec<Bucket>>,
    /// ARNs of the KMS keys that a spec may name; an ARN that ends in `*` is a prefix. Default: none.
    #[serde(default)]
    pub kms_keys: Vec<String>,
    /// ARNs of the ACM certificates that a spec may name, written as in `kmsKeys`.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// APIs that a spec may map. The operator changes these APIs too: it disables their default endpoints.
    #[serde(default, deserialize_with = "given")]
    pub apis: Option<Apis>,
    /// ARNs of the Lambda functions that a spec may name, written as in `kmsKeys`.
    #[serde(default)]
    pub functions: Vec<String>,
    /// Keys of the tags that a spec may set. Tags decide who may do what in AWS. Default: none.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Permission for a spec to take over AWS resources without an ownership tag.
    #[serde(default)]
    pub adoption: AdoptionPolicy,
}

/// A role, and the external id that its trust policy requires.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    pub arn: String,
    /// External id: the same for one role in all rules. Never set by a tenant: an external id that the caller
    /// chooses protects no role.
    #[serde(default)]
    pub external_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bucket {
    pub name: String,
    /// Folder, with the `/` at its end. Default: every key.
    #[serde(default)]
    pub prefix: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apis {
    /// Tag that the APIs carry.
    pub tag: Tag,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

/// Namespace of the spec. `labels`: `None` while they are not known.
#[derive(Clone, Copy, Debug)]
pub struct Namespace<'a> {
    pub name: &'a str,
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// Resource that a spec names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// Field of the spec with its value, for people. Holds nothing that the writer of the spec does not know.
    pub part: String,
    pub resource: Resource,
}

/// Resource that a rule can bound. `None`: AWS did not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Host name.
    Name(String),
    /// Id of a hosted zone.
    Zone(Option<String>),
    Region(String),
    Account(String),
    /// ARN of a role to assume.
    Role(String),
    /// Place of the truststore.
    Object {
        bucket: String,
        key: String,
    },
    /// ARN of a KMS key.
    KmsKey(String),
    Certificate(String),
    Function(String),
    /// Tags of an API; empty for a missing API, so that no tenant learns which APIs exist.
    Api(Option<BTreeMap<String, String>>),
    /// Key of a tag that the spec sets.
    TagKey(String),
    /// Takeover of AWS resources without an ownership tag.
    Adoption,
    /// Account, Region and bucket before AWS has answered: no rule allows them, and no rule denies them.
    Unresolved,
}

/// Decision on a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All resources of the spec fit one rule.
    Allowed,
    /// Parts that fit no rule, for a condition.
    Denied(String),
    /// The decision depends on this fact.
    Unknown(Missing),
}

/// Fact that a decision depends on, and that the operator does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Labels of the namespace.
    Labels,
    /// Requested resource.
    Resource,
}

impl Policy {
    /// Decides whether all requested resources fit one of the namespace's rules.
    pub fn decide(&self, namespace: Namespace, requests: &[AccessRequest]) -> Decision {
        let of_namespace = |selected| {
            self.rules
                .iter()
                .filter(move |r| r.namespaces.selects(namespace) == selected)
        };
        let rules: Vec<_> = of_namespace(Some(true)).collect();
        let whole = |rule: &Rule| {
            let allowed: Vec<_> = requests
                .iter()
                .map(|r| rule.allows(&r.resource, namespace.name))
                .collect();
            let has = |answer| allowed.contains(&answer);
            if has(Some(false)) {
                Some(false)
            } else {
                (!has(None)).then_some(true)
            }
        };
        let fits: Vec<_> = rules.iter().map(|rule| whole(rule)).collect();
        if fits.contains(&Some(true)) {
            Decision::Allowed
        } else if fits.contains(&None) {
            Decision::Unknown(Missing::Resource)
        } else if of_namespace(None).next().is_some() {
            Decision::Unknown(Missing::Labels)
        } else {
            Decision::Denied(denials(&rules, namespace, requests))
        }
    }

    /// True when a rule selects namespaces by their labels.
    pub fn needs_labels(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.namespaces.match_labels.is_some())
    }

    /// Returns the external id that the trust policy of this role requires.
    pub fn external_id(&self, role: &str) -> Option<&str> {
        let mut roles = self
            .rules
            .iter()
            .flat_map(|rule| &rule.roles)
            .filter(|r| r.arn == role);
        roles.find_map(|r| r.external_id.as_deref())
    }
}

/// Lists the parts that no rule allows. When some rule allows each part, lists the parts that the nearest
/// rule does not allow. Tells nothing of the rules' content.
pub(crate) fn denials(rules: &[&Rule], namespace: Namespace, requests: &[AccessRequest]) -> String {
    const WAY_OUT: &str = "Change it, or ask the operator's administrator for a rule that it fits";
    let refused = |rule: &&Rule, r: &&AccessRequest| {
        r.resource != Resource::Unresolved && rule.allows(&r.resource, namespace.name) != Some(true)
    };
    let by_all: Vec<_> = requests
        .iter()
        .filter(|r| rules.iter().all(|rule| refused(rule, r)))
        .collect();
    let nearest = rules
        .iter()
        .map(|rule| requests.iter().filter(|r| refused(rule, r)).collect::<Vec<_>>());
    let (parts, how) = match nearest.min_by_key(Vec::len) {
        None => return format!("the operator's policy has no rule for this namespace. {WAY_OUT}"),
        Some(nearest) if by_all.is_empty() => (
            nearest,
            "does not fit the operator's policy together with the rest of the spec",
        ),
        Some(_) => (by_all, "does not fit the operator's policy"),
    };
    format!(
        "{}: {how}. {WAY_OUT}",
        text::listed(parts.iter().map(|r| r.part.as_str()), MOST_TOLD, text::WITHIN)
    )
}

impl Namespaces {
    /// True when this selects the namespace. `None`: the answer depends on labels that are not known.
    pub fn selects(&self, namespace: Namespace) -> Option<bool> {
        if self
            .names
            .as_ref()
            .is_some_and(|names| names.iter().all(|name| name != namespace.name))
        {
            return Some(false);
        }
        let Some(wanted) = &self.match_labels else {
            return Some(true);
        };
        namespace
            .labels
            .map(|labels| wanted.iter().all(|(k, v)| labels.get(k) == Some(v)))
    }
}

impl Rule {
    /// True when the rule allows this resource. `None`: the answer depends on a fact that AWS did not say.
    fn allows(&self, resource: &Resource, namespace: &str) -> Option<bool> {
        let filled = |text: &str| text.replace("{namespace}", namespace);
        let within =
            |list: &Option<Vec<String>>, one: &String| list.as_ref().is_none_or(|list| list.contains(one));
        Some(match resource {
            Resource::Name(name) => {
                let suffixes = self.domain_suffixes.as_ref();
                suffixes.is_none_or(|all| all.iter().any(|suffix| is_below(name, &filled(suffix))))
            }
            Resource::Zone(None) if self.hosted_zone_ids.is_some() => return None,
            Resource::Zone(id) => id.as_ref().is_none_or(|id| within(&self.hosted_zone_ids, id)),
            Resource::Region(region) => within(&self.regions, region),
            Resource::Account(account) => within(&self.accounts, account),
            Resource::Role(arn) => self.roles.iter().any(|role| role.arn == *arn),
            Resource::Object { bucket, key } => {
                let has = |b: &Bucket| {
                    b.name == *bucket
                        && b.prefix
                            .as_ref()
                            .is_none_or(|prefix| is_inside(key, &filled(prefix)))
                };
                self.buckets.as_ref().is_none_or(|all| all.iter().any(has))
            }
            Resource::KmsKey(arn) => is_listed(&self.kms_keys, arn),
            Resource::Certificate(arn) => is_listed(&self.certificates, arn),
            Resource::Function(arn) => is_listed(&self.functions, arn),
            Resource::Api(tags) => match (&self.apis, tags) {
                (None, _) => true,
                (Some(_), None) => return None,
                (Some(Apis { tag }), Some(tags)) => {
                    tags.get(&tag.key).is_some_and(|v| *v == filled(&tag.value))
                }
            },
            Resource::TagKey(key) => self.tags.contains(key),
            Resource::Adoption => self.adoption == AdoptionPolicy::Unowned,
            Resource::Unresolved => return None,
        })
    }
}

/// True when the name is the suffix or below it, on label boundaries. A wildcard name counts as a name below
/// its parent.
fn is_below(name: &str, suffix: &str) -> bool {
    name == suffix
        || name
            .strip_suffix(suffix)
            .is_some_and(|before| before.ends_with('.'))
}

/// True when the key is inside the folder. S3 takes a key as it is, but a reader that resolves `..` must not
/// leave the folder either.
fn is_inside(key: &str, folder: &str) -> bool {
    key.starts_with(folder) && !key.split('/').any(|part| part == "." || part == "..")
}

fn is_listed(list: &[String], arn: &str) -> bool {
    list.iter().any(|one| match one.strip_suffix('*') {
        Some(beginning) => arn.starts_with(beginning),
        None => arn == one,
    })
}

#[cfg(test)]
pub(crate) mod tests;
