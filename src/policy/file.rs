//! Parser of the policy file: refuses invalid values and names their field. Pure.

use std::collections::BTreeMap;

use crate::policy::{Policy, Rule};

/// Reason why a text is not a policy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the policy is not understood{field}: {problem}")]
    Format { field: String, problem: String },
    #[error("rule {rule}: {field}: {problem}")]
    Rule {
        rule: String,
        field: String,
        problem: String,
    },
}

/// Parses a policy.
///
/// # Errors
/// Returns [`Error`] with the line or the field, and the valid form.
pub fn parse(text: &str) -> Result<Policy, Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    let policy: Policy = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error
            .location()
            .and_then(|at| text.lines().nth(usize::try_from(at.line()).ok()?.checked_sub(1)?));
        // The message never shows the value behind the field's name.
        let field = line.and_then(|line| line.trim_start_matches([' ', '-', '{']).split_once(':'));
        let field = field
            .map(|(field, _)| format!(", at {field}"))
            .unwrap_or_default();
        Error::Format {
            field,
            problem: error.to_string(),
        }
    })?;
    let (mut names, mut external_ids) = (Vec::new(), BTreeMap::new());
    for rule in &policy.rules {
        let problem = |field: &str, problem: String| Error::Rule {
            rule: rule.name.clone(),
            field: field.into(),
            problem,
        };
        if rule.name.is_empty() || names.contains(&&rule.name) {
            return Err(problem("name", "give each rule a name of its own".into()));
        }
        names.push(&rule.name);
        if let Some((field, said)) = check(rule) {
            return Err(problem(&field, said));
        }
        for role in &rule.roles {
            if *external_ids.entry(&role.arn).or_insert(&role.external_id) != &role.external_id {
                let said = format!(
                    "{} has another external id in an earlier rule: write one and the same",
                    role.arn
                );
                return Err(problem("roles", said));
            }
        }
    }
    Ok(policy)
}

/// Returns the first invalid field of a rule, and the valid form.
fn check(rule: &Rule) -> Option<(String, String)> {
    let filled = |text: &str| text.replace("{namespace}", "n");
    type List<'a> = (&'a str, &'a [String], fn(&str) -> bool, &'a str);
    let lists: [List; 8] = [
        (
            "domainSuffixes",
            rule.domain_suffixes.as_deref().unwrap_or_default(),
            is_host,
            "a name in lower case without a dot at either end, as in payments.example.com",
        ),
        (
            "hostedZoneIds",
            rule.hosted_zone_ids.as_deref().unwrap_or_default(),
            is_zone,
            "the zone's id only, as in Z0123456789ABCDEFGHIJ",
        ),
        (
            "regions",
            rule.regions.as_deref().unwrap_or_default(),
            is_region,
            "a Region's code, as in eu-west-1",
        ),
        (
            "accounts",
            rule.accounts.as_deref().unwrap_or_default(),
            is_account,
            "the twelve digits of an account in quotes",
        ),
        (
            "kmsKeys",
            &rule.kms_keys,
            |arn| is_arn(arn, "kms"),
            "the ARN of a KMS key, or the beginning of some and a *",
        ),
        (
            "certificates",
            &rule.certificates,
            |arn| is_arn(arn, "acm"),
            "the ARN of an ACM certificate, or the beginning of some and a *",
        ),
        (
            "functions",
            &rule.functions,
            |arn| is_arn(arn, "lambda"),
            "the ARN of a Lambda function, or the beginning of some and a *",
        ),
        (
            "tags",
            &rule.tags,
            |key| !key.is_empty() && !key.contains('*'),
            "the whole key of a tag, as in cost-center",
        ),
    ];
    for (field, list, is_right, right) in lists {
        if let Some(wrong) = list.iter().find(|one| !is_right(&filled(one))) {
            return Some((field.into(), format!("{wrong:?} is invalid: write {right}")));
        }
    }
    if let Some(role) = rule.roles.iter().find(|r| !is_role(&r.arn)) {
        return Some((
            "roles".into(),
            format!("{:?}: write the whole ARN of an IAM role", role.arn),
        ));
    }
    for bucket in rule.buckets.iter().flatten() {
        if !is_bucket(&bucket.name) {
            return Some((
                "buckets".into(),
                format!("{:?}: write the bucket's name only", bucket.name),
            ));
        }
        if bucket
            .prefix
            .as_ref()
            .is_some_and(|p| p.starts_with('/') || !p.ends_with('/'))
        {
            let said = "prefix: write a folder with / at its end and none before it, as in payments/; leave \
                        it out for the whole bucket";
            return Some(("buckets".into(), said.into()));
        }
    }
    let tag = rule.apis.as_ref().map(|apis| &apis.tag);
    if tag.is_some_and(|tag| tag.key.is_empty()) {
        return Some(("apis".into(), "tag: key: write the tag's name".into()));
    }
    None
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = label
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.split('.').all(is_label)
}

fn is_zone(text: &str) -> bool {
    text.len() > 1
        && text.starts_with('Z')
        && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

fn is_region(text: &str) -> bool {
    text.split('-').count() >= 3
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.chars().all(|c| c.is_ascii_digit())
}

fn is_role(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(6, ':').collect();
    let ["arn", _, "iam", "", account, role] = parts.as_slice() else {
        return false;
    };
    is_account(account) && role.starts_with("role/") && !role.contains('*')
}

/// True for a whole ARN of the service, or for a prefix that includes the service.
fn is_arn(text: &str, service: &str) -> bool {
    let parts: Vec<_> = text.splitn(6, ':').collect();
    parts.first() == Some(&"arn")
        && parts.get(2) == Some(&service)
        && !text.strip_suffix('*').unwrap_or(text).contains('*')
        && (text.ends_with('*') || parts.len() == 6)
}

fn is_bucket(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in docs/policy.md is a valid policy.
    #[test]
    fn the_documented_example_is_a_policy() {
        let page = include_str!("../../docs/policy.md");
        let example = page
            .split("```yaml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        let policy = parse(example).unwrap();
        assert!(policy.rules.len() > 1);
        // The example shows every field.
        let shown: Vec<_> = policy.rules.iter().map(|r| format!("{r:?}")).collect();
        for unset in [
            "domain_suffixes: None",
            "roles: []",
            "kms_keys: []",
            "certificates: []",
            "apis: None",
            "functions: []",
            "tags: []",
            "adoption: Never",
        ] {
            assert!(
                shown.iter().any(|rule| !rule.contains(unset)),
                "{unset} in every rule of the example"
            );
        }
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_field() {
        let rule = |more: &str| format!("rules:\n- name: a\n  namespaces: {{names: [a]}}\n{more}");
        assert_eq!(parse("rules: []").unwrap().rules.len(), 0);
        parse(&rule("  accounts: [\"012345678901\"]\n  regions: []")).unwrap();
        for (text, parts) in [
            (String::new(), ["not understood", "end of input"]),
            ("rules:".into(), ["not understood", "rules"]),
            ("rulez: []".into(), ["rulez", "rules"]),
            ("rules: [{name: a}]".into(), ["not understood", "namespaces"]),
            ("rules: [{name: a, namespaces: }]".into(), ["not understood", ""]),
            (
                "rules: [{name: a, namespaces: {labels: {}}}]".into(),
                ["labels", "matchLabels"],
            ),
            (
                "rules: [{name: a, namespaces: {matchLabels: }}]".into(),
                ["not understood", ""],
            ),
            (
                "rules: [{name: a, namespaces: {}}, {name: a, namespaces: {}}]".into(),
                ["rule a", "name of its own"],
            ),
            (
                "rules: [{name: a, namespaces: {}}".into(),
                ["not understood", "line"],
            ),
            (rule("  domainSuffixes:"), ["domainSuffixes", "line 4"]),
            (
                rule("  domainSuffixes: example.com"),
                ["domainSuffixes", "line 4"],
            ),
            (
                rule("  domainSuffix: [example.com]"),
                ["domainSuffix", "domainSuffixes"],
            ),
            (
                rule("  domainSuffixes: [a.example.com]\n  domainSuffixes: [example.com]"),
                ["not understood", "domainSuffixes"],
            ),
            (
                rule("  domainSuffixes: [.example.com]"),
                ["rule a: domainSuffixes", "without a dot"],
            ),
            (
                rule("  domainSuffixes: [\"*.example.com\"]"),
                ["rule a: domainSuffixes", "*.example.com"],
            ),
            (
                rule("  domainSuffixes: [Example.com]"),
                ["rule a: domainSuffixes", "lower case"],
            ),
            (
                rule("  domainSuffixes: [\"{team}.example.com\"]"),
                ["rule a: domainSuffixes", "{team}"],
            ),
            (
                rule("  domainSuffixes: [\"\"]"),
                ["rule a: domainSuffixes", "without a dot"],
            ),
            (
                rule("  hostedZoneIds: [/hostedzone/Z1]"),
                ["rule a: hostedZoneIds", "id only"],
            ),
            (rule("  regions: [europe]"), ["rule a: regions", "eu-west-1"]),
            (
                rule("  accounts: [\"1234\"]"),
                ["rule a: accounts", "twelve digits"],
            ),
            (
                rule("  roles: [{arn: \"arn:aws:iam::123456789012:role/*\"}]"),
                ["rule a: roles", "whole ARN"],
            ),
            (
                rule("  roles: [{arn: \"arn:aws:iam::123456789012:role/a\", externalID: x}]"),
                ["externalID", "externalId"],
            ),
            (
                rule(
                    "  roles: [{arn: \"arn:aws:iam::123456789012:role/a\", externalId: x}, \
                 {arn: \"arn:aws:iam::123456789012:role/a\"}]",
                ),
                ["rule a: roles", "another external id"],
            ),
            (
                rule("  buckets: [{name: s3://b}]"),
                ["rule a: buckets", "name only"],
            ),
            (
                rule("  buckets: [{name: bucket, prefix: pay}]"),
                ["rule a: buckets", "/ at its end"],
            ),
            (
                rule("  buckets: [{name: bucket, prefix: \"\"}]"),
                ["rule a: buckets", "leave it out"],
            ),
            (
                rule("  apis: {tag: {key: \"\", value: a}}"),
                ["rule a: apis", "name"],
            ),
            (rule("  apis: {}"), ["not understood", "tag"]),
            (rule("  apis:"), ["not understood", "line 4"]),
            (rule("  kmsKeys: [\"*\"]"), ["rule a: kmsKeys", "ARN"]),
            (
                rule("  functions: [\"arn:aws:kms:eu-west-1:123456789012:key/a\"]"),
                ["rule a: functions", "Lambda"],
            ),
            (rule("  tags: [\"team*\"]"), ["rule a: tags", "whole key"]),
            (rule("  tags: {team: payments}"), ["tags", "line 4"]),
            (rule("  adoption: Always"), ["Always", "Unowned"]),
        ] {
            let said = parse(&text).expect_err(&text).to_string();
            assert!(
                parts.iter().all(|part| said.contains(part)) && !said.contains('\n'),
                "{text}\n{said}"
            );
        }
    }
}
