//! The operator's policy: which namespace may do what with its AWS rights. Decides whether all that a spec
//! reaches for fits one rule. Pure and total: no I/O, no clock; what the file says, what a spec reaches for
//! and the namespace's labels come in.
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    api::{AdoptionPolicy, Namespaces, given, listed},
    conditions,
};

mod file;

pub use file::{Error, parse};

/// Parts that a message lists.
const MOST_TOLD: usize = 10;

/// The content of the file. A spec is served when it fits one rule as a whole, and a policy without rules
/// allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    pub rules: Vec<Rule>,
}

/// What MtlsDomains of some namespaces may reach in AWS. What every spec needs (names, zones, Regions,
/// accounts, buckets, APIs) is bounded where the rule lists it: without the list by nothing, by an empty one
/// entirely. What a spec can do without (roles, KMS keys, existing certificates, functions, taking over) is
/// allowed only where the rule lists it. `{namespace}` in a domain suffix, a prefix or a tag's value stands
/// for the name of the MtlsDomain's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// For people and for messages about the file.
    pub name: String,
    /// Whose MtlsDomains it is for.
    pub namespaces: Namespaces,
    /// Host names, each for itself and everything below it: of the domain, and of every other name of a
    /// certificate to request.
    #[serde(default, deserialize_with = "listed")]
    pub domain_suffixes: Option<Vec<String>>,
    /// The hosted zones that records are written into, named by the spec or found.
    #[serde(default, deserialize_with = "listed")]
    pub hosted_zone_ids: Option<Vec<String>>,
    #[serde(default, deserialize_with = "listed")]
    pub regions: Option<Vec<String>>,
    /// The accounts that domains are made in, as AWS itself says where the credentials lead.
    #[serde(default, deserialize_with = "listed")]
    pub accounts: Option<Vec<String>>,
    /// The roles that a spec may have the operator assume, for the domain or for Route 53. Without: none.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Where truststores are stored.
    #[serde(default, deserialize_with = "listed")]
    pub buckets: Option<Vec<Bucket>>,
    /// The KMS keys that a spec may name, by ARN; one that ends in `*` is a beginning. Without: none.
    #[serde(default)]
    pub kms_keys: Vec<String>,
    /// The ACM certificates that a spec may name, as `kmsKeys`.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// The APIs that a spec may map. They are changed too: their default endpoints are closed.
    #[serde(default, deserialize_with = "given")]
    pub apis: Option<Apis>,
    /// The Lambda functions that a spec may name, as `kmsKeys`.
    #[serde(default)]
    pub functions: Vec<String>,
    /// Whether a spec may take over what exists in AWS and carries no ownership tag.
    #[serde(default)]
    pub adoption: AdoptionPolicy,
}

/// A role, and what its trust policy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    pub arn: String,
    /// One for each role, whichever rule it stands in. Never the user's to choose: it would protect nobody.
    #[serde(default)]
    pub external_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bucket {
    pub name: String,
    /// A folder, with the `/` at its end. Without: every key.
    #[serde(default)]
    pub prefix: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apis {
    /// The tag that they carry.
    pub tag: Tag,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

/// The namespace whose spec is judged. `labels`: `None` while they are not known.
#[derive(Clone, Copy, Debug)]
pub struct Namespace<'a> {
    pub name: &'a str,
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// One thing that a spec reaches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// For people: the field and what it says, and nothing that its writer does not know.
    pub part: String,
    pub resource: Resource,
}

/// What a rule can bound. `None`: AWS did not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A host name.
    Name(String),
    /// The id of a hosted zone.
    Zone(Option<String>),
    Region(String),
    Account(String),
    /// ARN of a role to assume.
    Role(String),
    /// Where the truststore is stored.
    Object {
        bucket: String,
        key: String,
    },
    /// By ARN, as the two that follow.
    KmsKey(String),
    Certificate(String),
    Function(String),
    /// The tags of an API; of one that is not there none, so that nobody learns which are there.
    Api(Option<BTreeMap<String, String>>),
    /// To take over what carries no ownership tag.
    Adoption,
}

/// Whether a spec is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All of it by one rule.
    Allowed,
    /// What fits no rule, for a condition.
    Denied(String),
    /// It hangs on something that could not be read.
    Unknown,
}

impl Policy {
    /// Whether all that is reached for fits one of the namespace's rules.
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
        } else if fits.contains(&None) || of_namespace(None).next().is_some() {
            Decision::Unknown
        } else {
            Decision::Denied(denials(&rules, namespace, requests))
        }
    }

    /// Whether it takes the labels of namespaces to go by it.
    pub fn needs_labels(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.namespaces.match_labels.is_some())
    }

    /// What the trust policy of this role asks for.
    pub fn external_id(&self, role: &str) -> Option<&str> {
        let mut roles = self
            .rules
            .iter()
            .flat_map(|rule| &rule.roles)
            .filter(|r| r.arn == role);
        roles.find_map(|r| r.external_id.as_deref())
    }
}

/// The parts that no rule allows; when each is allowed by some rule, those that the nearest rule does not.
/// Nothing of what the rules say.
fn denials(rules: &[&Rule], namespace: Namespace, requests: &[AccessRequest]) -> String {
    const WAY_OUT: &str = "Change it, or ask whoever runs the operator for a rule that it fits";
    let refused = |rule: &&Rule, r: &&AccessRequest| rule.allows(&r.resource, namespace.name) != Some(true);
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
        conditions::listed(parts.iter().map(|r| r.part.as_str()), MOST_TOLD)
    )
}

impl Namespaces {
    /// Whether it is one of these. `None`: that hangs on labels that are not known.
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
    /// Whether it allows this; `None`: that hangs on what AWS did not say.
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
            Resource::Adoption => self.adoption == AdoptionPolicy::Unowned,
        })
    }
}

/// On label boundaries; a wildcard name is all that is below its parent.
fn is_below(name: &str, suffix: &str) -> bool {
    name == suffix
        || name
            .strip_suffix(suffix)
            .is_some_and(|before| before.ends_with('.'))
}

/// S3 takes a key as it is, but who reads `..` as a way up must not be led out of the folder.
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
mod tests;
