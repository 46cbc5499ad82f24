//! IAM permissions that the operator needs, and the command that prints them as a policy: [`rights`] is the
//! table, [`usage`] selects the used part of it, [`document`] is the policy. Reads manifests; calls neither
//! Kubernetes nor AWS.

pub mod document;
pub mod manifests;
pub mod rights;
pub mod usage;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Context;
use clap::Args;
use kube::ResourceExt;

use super::iam::{
    document::policy,
    rights::Feature,
    usage::{Known, Principal, Usage},
};

use crate::aws::{partitions, tags::Tag};

/// Maximum length of a managed policy, in characters without white space. Source: IAM User Guide, "IAM and
/// AWS STS quotas".
const LONGEST: usize = 6144;

/// Prints the least IAM permissions that the operator needs, as a policy in JSON (docs/iam.md).
///
/// Covers the MtlsDomains in the manifests; without manifests, everything that the operator can do. Values
/// that no manifest and no flag gives stay wildcards.
#[derive(Args)]
pub struct IamPolicy {
    /// Files, and folders of files, with MtlsDomains in YAML or JSON; other objects are ignored. `-` is
    /// standard input, as in `kubectl get mtlsdomains -A -o yaml | mtls-operator iam-policy -`. Default: no
    /// manifests.
    manifests: Vec<PathBuf>,
    /// AWS account of the MtlsDomains that name none. Default: any account.
    #[arg(long)]
    account: Option<String>,
    /// Region of the MtlsDomains that name none. Default: any Region.
    #[arg(long)]
    region: Option<String>,
    /// Bucket of the MtlsDomains that name none, as the operator's --truststore-bucket. Default: any bucket.
    #[arg(long)]
    bucket: Option<String>,
    /// Hosted zone id of the MtlsDomains that name none. Can be given several times. Default: any zone.
    #[arg(long)]
    zone: Vec<String>,
    /// Tags on everything, as the operator's --aws-tags. Default: none.
    #[arg(long, value_delimiter = ',')]
    aws_tags: Vec<Tag>,
    /// Feature to allow beyond the least, without manifests. Can be given several times. Default: all
    /// features.
    #[arg(long, value_enum, conflicts_with = "manifests")]
    feature: Vec<Feature>,
    /// ARN of a role: prints its policy instead of the operator's own. MtlsDomains in the manifests have the
    /// operator assume the role. Default: the operator's own policy.
    #[arg(long, requires = "manifests")]
    role: Option<String>,
}

/// Returns the policy as text, and remarks about it.
///
/// # Errors
/// A manifest that cannot be read, and an unknown Region.
pub fn print(args: IamPolicy) -> anyhow::Result<(String, Vec<String>)> {
    args.region
        .as_deref()
        .map_or(Ok(()), partitions::check)
        .context("--region")?;
    let known = Known {
        account: args.account,
        region: args.region,
        bucket: args.bucket,
        zones: args.zone,
        tags: !args.aws_tags.is_empty(),
    };
    let usages = match args.manifests.as_slice() {
        [] if args.feature.is_empty() => vec![Usage::of_features(Feature::all(), &known)],
        [] => {
            let tags = known.tags.then_some(Feature::Tags);
            let features = args.feature.into_iter().chain(tags).collect();
            vec![Usage::of_features(features, &known)]
        }
        paths => {
            let domains = manifests::read(paths)?;
            for domain in &domains {
                let checked = domain.region().map_or(Ok(()), partitions::check);
                checked.with_context(|| format!("MtlsDomain {}: spec.aws.region", domain.name_any()))?;
            }
            domains.iter().map(|domain| Usage::of(domain, &known)).collect()
        }
    };
    let principal = args.role.map_or(Principal::Operator, Principal::Role);
    let policy = policy(&usages, &principal);
    let text = serde_json::to_string_pretty(&policy).context("a policy is plain data")?;
    let mut remarks = Vec::new();
    if policy.statement.is_empty() {
        remarks.push("no MtlsDomain needs this policy".to_owned());
    }
    if principal == Principal::Operator {
        let roles: BTreeSet<_> = usages.iter().flat_map(Usage::roles).collect();
        remarks.extend(
            roles
                .iter()
                .map(|role| format!("{role} needs a policy of its own: --role {role}")),
        );
    }
    if text.chars().filter(|c| !c.is_whitespace()).count() > LONGEST {
        remarks.push(format!(
            "IAM takes at most {LONGEST} characters: print the policy without manifests, by --account, \
             --region, --bucket, --zone and --feature"
        ));
    }
    Ok((text, remarks))
}

#[cfg(test)]
pub(crate) mod tests;
