//! Condition Trusted of a certificate. Pure.

use super::{desired::Desired, self_signed};

use crate::{
    api::conditions::{ConditionType, Reason},
    pki::certificate::Certificate,
    status::{StepCondition, StepStatus},
    trust::active_trust::Trust,
};

/// Returns the condition Trusted of the leaf in the Secret.
pub(crate) fn trusted(
    d: &Desired,
    trust: Option<&Trust>,
    domain_gone: bool,
    leaf: Option<&Certificate>,
) -> StepCondition {
    let who = if d.self_signed { "it" } else { "its issuer" };
    let is_in = |leaf: &Certificate| trust.is_some_and(|trust| trust.accepts(leaf));
    let (status, reason, message) = match (trust, leaf) {
        (Some(trust), leaf) if d.self_signed && trust.has_no_room(&d.entry) && !leaf.is_some_and(is_in) => (
            StepStatus::Blocked,
            Reason::TruststoreFull,
            self_signed::FULL.to_owned(),
        ),
        (_, None) => (
            StepStatus::Working,
            Reason::WaitingForCertificate,
            "nothing is issued yet".to_owned(),
        ),
        (None, _) if domain_gone => (
            StepStatus::Blocked,
            Reason::DomainGone,
            "the MtlsDomain does not exist".to_owned(),
        ),
        (None, _) => (
            StepStatus::Working,
            Reason::WaitingForDomainTrust,
            "the domain has not had its first reconcile yet, or does not serve".to_owned(),
        ),
        (Some(trust), Some(leaf)) if trust.accepts(leaf) => (
            StepStatus::Done,
            Reason::Trusted,
            format!("{who} is in the truststore version that the domain uses"),
        ),
        (Some(_), Some(_)) => (
            StepStatus::Working,
            Reason::WaitingForDomainTrust,
            format!("{who} is not in the truststore version that the domain uses"),
        ),
    };
    StepCondition {
        type_: ConditionType::Trusted,
        status,
        reason,
        message,
    }
}
