//! Denied calls: the policy or lock that denies a call, by AWS's message, and the remedy. Pure. Source of the
//! texts: IAM User Guide, "Troubleshoot access denied error messages".

/// What denies a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// No policy of the operator's role allows the action.
    Missing,
    /// A policy denies the action explicitly; AWS does not say which.
    Explicit,
    /// The operator's own IAM policy denies the action explicitly.
    Identity,
    /// The session policy that was passed when the role was assumed.
    Session,
    /// The permissions boundary of the operator's role.
    Boundary,
    ServiceControl,
    ResourceControl,
    /// The policy of the resource; for S3 of the bucket.
    Resource,
    /// The trust policy of a role to assume.
    RoleTrust,
    /// The policy of a VPC endpoint.
    Endpoint,
    /// S3 Object Lock: a retention period or a legal hold.
    ObjectLock,
    /// The policy of a KMS key.
    Key,
    /// The account may not use the service or Region.
    Account,
}

/// Codes that say that the account may not use a service or Region.
const ACCOUNT: [&str; 7] = [
    "AccountProblem",
    "AllAccessDisabled",
    "InvalidPayer",
    "NotSignedUp",
    "OptInRequired",
    "RegionDisabledException",
    "SubscriptionRequiredException",
];

/// Kinds of policies, by the words of AWS's messages.
const POLICIES: [(&str, Denial); 9] = [
    ("service control polic", Denial::ServiceControl),
    ("resource control polic", Denial::ResourceControl),
    ("permissions boundar", Denial::Boundary),
    ("permission boundar", Denial::Boundary),
    ("session polic", Denial::Session),
    ("vpc endpoint polic", Denial::Endpoint),
    ("role trust polic", Denial::RoleTrust),
    ("resource-based polic", Denial::Resource),
    ("identity-based polic", Denial::Identity),
];

/// True when a policy denies the call explicitly, rather than not allowing it.
fn is_explicit(text: &str) -> bool {
    text.contains("explicit deny") || text.contains("explicitly den")
}

impl Denial {
    /// Returns what denies a call that failed with this AWS error code and message. `action`: the IAM action
    /// that the call lacks.
    pub fn of(code: Option<&str>, action: &str, message: &str) -> Denial {
        let text = message.to_lowercase();
        if code.is_some_and(|code| ACCOUNT.contains(&code)) {
            return Denial::Account;
        }
        if text.contains("object lock") || text.contains("legal hold") {
            return Denial::ObjectLock;
        }
        let is_explicit = is_explicit(&text);
        let named = POLICIES.iter().find(|(words, _)| text.contains(words));
        match named.map(|(_, denial)| *denial) {
            Some(Denial::Resource) if action.starts_with("kms:") => Denial::Key,
            // The operator's policy is to allow the action, and does not.
            Some(Denial::Identity) if !is_explicit => Denial::Missing,
            Some(denial) => denial,
            None if is_explicit && action.starts_with("kms:") => Denial::Key,
            None if is_explicit => Denial::Explicit,
            None => Denial::Missing,
        }
    }

    /// True when the remedy is outside the operator's IAM policy: the same call soon cannot help.
    pub fn is_lasting(self) -> bool {
        self != Denial::Missing
    }

    /// Returns what denies the action, and the remedy.
    pub fn remedy(self, action: &str, message: &str) -> String {
        let denies = match is_explicit(&message.to_lowercase()) {
            true => "denies",
            false => "does not allow",
        };
        match self {
            // Both the role's policy and the key's policy can allow the use of a key.
            Denial::Missing if action.starts_with("kms:") => {
                format!(
                    "the operator may not {action}: allow it in its IAM policy, or in the KMS key's policy"
                )
            }
            Denial::Missing => format!("the operator may not {action}: allow it in its IAM policy"),
            Denial::Explicit => format!(
                "a policy denies the operator {action} explicitly: remove that Deny statement, or exempt the \
                 operator's role from it"
            ),
            Denial::Identity => {
                format!("the operator's IAM policy denies {action} explicitly: remove that Deny statement")
            }
            Denial::Session => format!(
                "the session policy of the operator's credentials {denies} {action}: change the policy that \
                 is passed when the operator's role is assumed"
            ),
            Denial::Boundary => format!(
                "the permissions boundary of the operator's role {denies} {action}: have the boundary changed"
            ),
            Denial::ServiceControl => format!(
                "a service control policy of the organization {denies} {action}: have the policy changed, or \
                 comply with it (spec.aws.tags sets the tags that it requires)"
            ),
            Denial::ResourceControl => format!(
                "a resource control policy of the organization {denies} {action}: have the policy changed, \
                 or comply with it{}",
                encryption(action)
            ),
            Denial::Resource if action.starts_with("s3:") => format!(
                "the bucket's policy {denies} {action}: change the policy, or comply with it{}",
                encryption(action)
            ),
            Denial::Resource => {
                format!("the resource's policy {denies} {action}: change the policy of the resource")
            }
            Denial::RoleTrust => {
                format!("the role's trust policy {denies} {action}: add the operator's role to that policy")
            }
            Denial::Endpoint => format!(
                "the policy of the VPC endpoint {denies} {action}: allow it there for the operator's role"
            ),
            Denial::ObjectLock => format!(
                "S3 Object Lock protects the object from {action}: wait until its retention period ends or \
                 its legal hold is removed, or set spec.deletionPolicy to Retain, which leaves the object \
                 in AWS"
            ),
            Denial::Key => format!(
                "the KMS key's policy {denies} {action}: allow it there for the operator's role, or name \
                 another key in spec.truststore.kmsKeyArn"
            ),
            Denial::Account => format!(
                "the AWS account may not use {action}: enable the service and the Region in the account, or \
                 contact AWS Support"
            ),
        }
    }
}

/// Returns the fields that comply with a policy that demands encryption; empty for other actions.
fn encryption(action: &str) -> &'static str {
    match action {
        "s3:PutObject" => {
            " (spec.truststore.kmsKeyArn or spec.truststore.encryption sends the encryption that it requires)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: &str = "User: arn:aws:sts::1:assumed-role/op is not authorized to perform";

    #[test]
    fn a_denial_is_what_aws_names() {
        for (code, action, end, expected) in [
            ("AccessDenied", "s3:PutObject", "", Denial::Missing),
            (
                "AccessDeniedException",
                "acm:RequestCertificate",
                "because no identity-based policy allows the acm:RequestCertificate action",
                Denial::Missing,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "with an explicit deny in an identity-based policy",
                Denial::Identity,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "with an explicit deny",
                Denial::Explicit,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "with an explicit deny in a service control policy: arn:aws:organizations::1:policy/o-1/p-1",
                Denial::ServiceControl,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "because no service control policy allows the s3:PutObject action",
                Denial::ServiceControl,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "with an explicit deny in a resource control policy",
                Denial::ResourceControl,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "because no permissions boundary allows the s3:PutObject action",
                Denial::Boundary,
            ),
            (
                "AccessDenied",
                "route53:ChangeResourceRecordSets",
                "because no session policy allows the route53:ChangeResourceRecordSets action",
                Denial::Session,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "with an explicit deny in a VPC endpoint policy",
                Denial::Endpoint,
            ),
            (
                "AccessDenied",
                "s3:PutObject",
                "with an explicit deny in a resource-based policy",
                Denial::Resource,
            ),
            (
                "AccessDenied",
                "sts:AssumeRole",
                "because no role trust policy allows the sts:AssumeRole action",
                Denial::RoleTrust,
            ),
            (
                "AccessDenied",
                "kms:GenerateDataKey",
                "because no resource-based policy allows the kms:GenerateDataKey action",
                Denial::Key,
            ),
            (
                "AccessDenied",
                "kms:Decrypt",
                "because the resource does not exist in this Region, no resource-based policies allow \
                 access, or a resource-based policy explicitly denies access",
                Denial::Key,
            ),
            (
                "AccessDenied",
                "kms:GenerateDataKey",
                "with an explicit deny in a service control policy",
                Denial::ServiceControl,
            ),
            (
                "AccessDenied",
                "s3:DeleteObjectVersion",
                "Access Denied because object protected by object lock.",
                Denial::ObjectLock,
            ),
            ("OptInRequired", "acm:ListCertificates", "", Denial::Account),
        ] {
            let message = format!("{WHO}: {action} {end}");
            let found = Denial::of(Some(code), action, &message);
            assert_eq!(found, expected, "{message}");
            let remedy = found.remedy(action, &message);
            assert!(remedy.contains(action), "{remedy}");
            assert_eq!(
                remedy.contains("allow it in its IAM policy"),
                expected == Denial::Missing,
                "{remedy}"
            );
            assert_eq!(found.is_lasting(), expected != Denial::Missing, "{message}");
        }
    }

    /// Names of resources, which users choose, decide nothing.
    #[test]
    fn a_name_is_no_policy() {
        for name in [
            "service-control-policy",
            "session-policy",
            "explicit-deny",
            "object-lock",
        ] {
            let message = format!("{WHO}: s3:PutObject on resource: \"arn:aws:s3:::{name}/k\"");
            assert_eq!(
                Denial::of(Some("AccessDenied"), "s3:PutObject", &message),
                Denial::Missing
            );
        }
    }

    #[test]
    fn a_remedy_says_whether_a_policy_denies_or_does_not_allow() {
        let of = |message: &str| Denial::of(None, "s3:PutObject", message).remedy("s3:PutObject", message);
        assert!(of("with an explicit deny in a permissions boundary").contains("role denies s3:PutObject"));
        assert!(of("because no permissions boundary allows it").contains("does not allow s3:PutObject"));
        let bucket = of("with an explicit deny in a resource-based policy");
        assert!(bucket.contains("spec.truststore.kmsKeyArn"), "{bucket}");
    }
}
