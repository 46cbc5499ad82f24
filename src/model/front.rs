//! Front end of a domain, where mutual TLS ends: what trust, DNS, server certificates and the report have to
//! know of it. Each data plane fills it from its own resources. Pure.

use super::step::{Step, StepState};
use crate::{api::AdoptionPolicy, observation::seen::Seen};

/// Front end that exists. It says nothing about its own settings, which only its data plane plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Domain name that callers use.
    pub name: String,
    pub ownership: Ownership,
    /// True when the operator may change the front end now: it owns the front end, and can manage its
    /// settings.
    pub is_managed: bool,
    pub progress: Progress,
    /// ARN of the server certificate in use; empty when the front end has none of its Region.
    pub certificate_arn: String,
    /// ARN of the public certificate that proves the ownership of the name.
    pub ownership_certificate_arn: Option<String>,
    /// URI of the truststore in use; `None`: no mutual TLS.
    pub truststore_uri: Option<String>,
    pub dns_target: DnsTarget,
}

/// Front end as it was read; `None`: there is none.
pub type ObservedFront = Seen<Option<Front>>;

impl Front {
    /// True for a front end that existed before, and that the operator has taken over or is about to take
    /// over.
    pub fn is_taken_over(&self, adoption: AdoptionPolicy) -> bool {
        match self.ownership {
            Ownership::Adopted => true,
            Ownership::Unowned => adoption == AdoptionPolicy::Unowned,
            Ownership::Made | Ownership::NotOwned(_) => false,
        }
    }
}

/// Returns the front end once the operator may change it; otherwise the state of a step that waits for it.
pub fn managed(front: &ObservedFront) -> Result<&Front, StepState> {
    match front {
        Err(why) => Err(StepState::unknown(why)),
        Ok(Some(front)) if front.is_managed => Ok(front),
        Ok(_) => Err(StepState::WaitingFor(Step::DomainProgrammed)),
    }
}

/// Ownership of a front end with the desired name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Owned by this MtlsDomain, and created by the operator.
    Made,
    /// Owned by this MtlsDomain, and taken over.
    Adopted,
    /// Not owned: the front end has no ownership tag.
    Unowned,
    /// Owned by the owner that its ownership tag names.
    NotOwned(String),
}

impl Ownership {
    /// True when this MtlsDomain owns the front end.
    pub fn is_ours(&self) -> bool {
        matches!(self, Ownership::Made | Ownership::Adopted)
    }
}

/// Progress of the last change of a front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The front end serves its settings.
    Settled,
    /// A change is in progress: callers may still meet the settings before it.
    Changing,
    /// The front end waits for its owner.
    Waiting,
}

/// Target of the DNS records that lead to a front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsTarget {
    /// Host name, without a trailing dot.
    pub name: String,
    /// Hosted zone id of the target, for an alias record.
    pub hosted_zone_id: String,
}
