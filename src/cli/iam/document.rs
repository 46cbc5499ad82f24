//! Policy document: statements from usages. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    rights::{Resource, needed},
    usage::{Principal, Usage},
};

/// Identity-based policy. Source of the form: IAM User Guide, "IAM JSON policy elements reference".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    pub version: &'static str,
    pub statement: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    pub sid: String,
    pub effect: &'static str,
    pub action: BTreeSet<&'static str>,
    pub resource: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: Condition,
}

/// Condition of a statement, by operator and key.
type Condition = BTreeMap<&'static str, BTreeMap<&'static str, BTreeSet<String>>>;

/// Returns the policy that the principal needs for all usages, and nothing else.
pub fn policy(usages: &[Usage], principal: &Principal) -> Policy {
    // Allowed actions by resource, and for hosted zones also by record names.
    let mut allowed = BTreeMap::<(Resource, String), (BTreeSet<&'static str>, BTreeSet<String>)>::new();
    for usage in usages {
        for (action, on) in needed(&usage.features, usage.reads_only) {
            if !usage.is_by(principal, action) {
                continue;
            }
            for arn in usage.arns(on) {
                let (actions, names) = allowed.entry((on, arn)).or_default();
                actions.insert(action);
                if on == Resource::Records {
                    names.extend(usage.record_names.iter().cloned());
                }
            }
        }
    }
    // Resources with the same allowed actions share a statement.
    let mut statements = BTreeMap::<_, BTreeSet<String>>::new();
    for ((on, arn), (actions, names)) in allowed {
        statements.entry((on, actions, names)).or_default().insert(arn);
    }
    let mut count = BTreeMap::<Resource, usize>::new();
    let statement = |((on, action, names), resource)| {
        let count = count.entry(on).or_default();
        *count += 1;
        let number = if *count == 1 {
            String::new()
        } else {
            count.to_string()
        };
        Statement {
            sid: format!("{on:?}{number}"),
            effect: "Allow",
            action,
            resource,
            condition: condition(on, names),
        }
    };
    Policy {
        version: "2012-10-17",
        statement: statements.into_iter().map(statement).collect(),
    }
}

fn condition(on: Resource, names: BTreeSet<String>) -> Condition {
    let one = |operator, key, values| (operator, BTreeMap::from([(key, values)]));
    match on {
        // Source: API Gateway Developer Guide, "Using service-linked roles".
        Resource::ServiceLinkedRole => {
            let service = "ops.apigateway.amazonaws.com".to_owned();
            [one("StringEquals", "iam:AWSServiceName", [service].into())].into()
        }
        // Source: Route 53 Developer Guide, "Using IAM policy conditions for fine-grained access control".
        Resource::Records => {
            let types = ["A", "AAAA", "CNAME", "TXT"].map(str::to_owned).into();
            let types = one(
                "ForAllValues:StringEquals",
                "route53:ChangeResourceRecordSetsRecordTypes",
                types,
            );
            let known = !names.contains("*");
            let names = one(
                "ForAllValues:StringLike",
                "route53:ChangeResourceRecordSetsNormalizedRecordNames",
                names,
            );
            [types].into_iter().chain(known.then_some(names)).collect()
        }
        _ => Condition::new(),
    }
}
