//! Kinds of failed calls to AWS.

/// Class of a failure, by which the caller decides how to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The resource that the call names does not exist.
    NotFound,
    /// The resource exists already, is in use, is being changed, or is not in the state that the call
    /// requires.
    Conflict,
    /// The name is taken: in this account, or by another account where names are unique across accounts.
    Taken,
    /// AWS rejects the request; the request, or a resource or setting that it depends on, has to change.
    Invalid,
    /// A record protection or a change guardrail of Route 53 rejects the change.
    Protected,
    /// Denied by a policy or a lock: see [`crate::aws::denial`]. The error's `iam_action` names the action.
    Denied,
    /// AWS rejects the credentials or the time of the request, or the credential source has no credentials.
    Credentials,
    /// A quota on the number of resources is exhausted: waiting does not help.
    Quota,
    /// Too many calls; the quota's bucket is empty.
    Throttled,
    /// Missing or unreadable answer, or an internal error of AWS: the call may have taken effect.
    Transient,
}

impl Kind {
    /// Returns the value of the metric label: one word, from a closed set.
    pub fn word(self) -> &'static str {
        match self {
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Taken => "taken",
            Kind::Invalid => "invalid",
            Kind::Protected => "protected",
            Kind::Denied => "denied",
            Kind::Credentials => "credentials",
            Kind::Quota => "quota",
            Kind::Throttled => "throttled",
            Kind::Transient => "transient",
        }
    }
}
