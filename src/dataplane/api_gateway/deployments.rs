//! Deployments that a change of headers or authorizers waits for. Pure.

use std::collections::BTreeSet;

use crate::aws::gateway::apis::Stage;

/// Tag of an API between a change of its headers and its deployment: the IDs of the earlier deployments of
/// the mapped stages.
pub const PENDING_IDENTITY_TAG: &str = "mtls-operator.io/pending-identity";
/// Maximum length of a tag's value. Source: API Gateway Developer Guide, "Tag restrictions".
const LONGEST_TAG: usize = 256;

/// Returns the deployment of a stage, or a placeholder for a stage without deployment, whose first deployment
/// differs from it.
pub(crate) fn deployment(stage: &Stage) -> &str {
    if stage.deployment_id.is_empty() {
        "none"
    } else {
        &stage.deployment_id
    }
}

/// Returns the deployments that fit into the tag. The remainder, after more than twenty stages with a
/// deployment of their own each, counts as deployed.
pub(crate) fn deployments(stages: &[&Stage]) -> String {
    let ids: BTreeSet<_> = stages.iter().map(|stage| deployment(stage)).collect();
    let mut all = String::new();
    for id in ids {
        if all.len() + id.len() < LONGEST_TAG {
            all += if all.is_empty() { "" } else { " " };
            all += id;
        }
    }
    all
}
