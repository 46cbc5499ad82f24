//! What the operator has to be allowed in IAM, and the command that prints it as a policy: [`rights`] is the
//! table, [`usage`] what of it is in use, [`document`] the policy. Reads manifests; asks neither Kubernetes
//! nor AWS.

mod document;
mod manifests;
mod rights;
#[cfg(test)]
mod tests;
mod usage;

use anyhow::Context;
use clap::Args;
use document::policy;
use rights::Feature;
use std::collections::BTreeSet;
use std::path::PathBuf;
use usage::{Known, Principal, Usage};

/// IAM's limit for a managed policy, white space not counted. Source: IAM User Guide, "IAM and AWS STS
/// quotas".
const LONGEST: usize = 6144;

/// Print the least that the operator has to be allowed in IAM, as a policy in JSON (docs/iam.md).
///
/// Of the MtlsDomains in the manifests; without any, of everything the operator can do. What no manifest and
/// no flag says stays a wildcard.
#[derive(Args)]
pub struct IamPolicy {
    /// Files, and folders of files, with MtlsDomains in YAML or JSON; everything else in them is passed over.
    /// `-` is standard input, as in `kubectl get mtlsdomains -A -o yaml | mtls-operator iam-policy -`.
    manifests: Vec<PathBuf>,
    /// The AWS account of the MtlsDomains that name none.
    #[arg(long)]
    account: Option<String>,
    /// The Region of the MtlsDomains that name none.
    #[arg(long)]
    region: Option<String>,
    /// The bucket of the MtlsDomains that name none, as the operator's --truststore-bucket.
    #[arg(long)]
    bucket: Option<String>,
    /// The id of a hosted zone of the MtlsDomains that name none; can be given several times.
    #[arg(long)]
    zone: Vec<String>,
    /// Without manifests: something that the operator is to be able to do beyond the least; can be given
    /// several times. Unset: all of these.
    #[arg(long, value_enum, conflicts_with = "manifests")]
    feature: Vec<Feature>,
    /// Print the policy of this role, which MtlsDomains in the manifests have the operator assume, instead of
    /// the operator's own.
    #[arg(long, requires = "manifests")]
    role: Option<String>,
}

/// The policy as text, and what else there is to say about it.
///
/// # Errors
/// A manifest that cannot be read.
pub fn print(args: IamPolicy) -> anyhow::Result<(String, Vec<String>)> {
    let known = Known {
        account: args.account,
        region: args.region,
        bucket: args.bucket,
        zones: args.zone,
    };
    let usages = match args.manifests.as_slice() {
        [] if args.feature.is_empty() => vec![Usage::of_features(Feature::all(), &known)],
        [] => vec![Usage::of_features(args.feature.into_iter().collect(), &known)],
        paths => manifests::read(paths)?
            .iter()
            .map(|domain| Usage::of(domain, &known))
            .collect(),
    };
    let principal = args.role.map_or(Principal::Operator, Principal::Role);
    let policy = policy(&usages, &principal);
    let text = serde_json::to_string_pretty(&policy).context("a policy is plain data")?;
    let mut remarks = Vec::new();
    if policy.statement.is_empty() {
        remarks.push("there is no MtlsDomain that this is needed for".to_owned());
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
            "IAM takes at most {LONGEST} characters: print it without manifests, by --account, --region, \
             --bucket, --zone and --feature"
        ));
    }
    Ok((text, remarks))
}
