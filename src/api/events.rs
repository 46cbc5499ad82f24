//! Reasons of Events. The set is closed, as the set of condition reasons is, and for the same purpose;
//! docs/events.md lists it.

use super::conditions::{Reason, words};

words! {
/// `reason` of an Event about something that no condition reports.
pub enum Notice {
    /// MtlsDomain: the operator released it without AWS, as the annotation `mtls-operator.io/abandon`
    /// requests; the note says which resources may be left in AWS.
    Abandoned,
    /// MtlsDomain: it is deleted, and its resources in AWS stay as they are (`deletionPolicy`, or
    /// `managementPolicy: Observe`); the note lists the resources.
    Retained,
    /// MtlsDomain: ACM renews the server certificate only once it finds in public DNS the records that the
    /// note lists.
    RenewalPending,
    /// MtlsDomain: ACM could not renew the server certificate; the note says why, and what to do.
    RenewalFailed,
    /// MtlsDomain: the server certificate expires within 30 days and has not been renewed.
    CertificateExpiring,
    /// MtlsDomain: the server certificate was renewed, under the same ARN.
    CertificateRenewed,
    /// ClientCertificate: it was deleted, and the domain still accepts issued copies; the note says until
    /// when.
    StillAccepted,
    /// ClientCertificate: a renewed self-signed certificate has another serialNumber in its subject than the
    /// previous certificate.
    SubjectChanges,
    /// ClientCertificate: the operator could not issue or renew it; the note says why. The operator retries.
    NotIssued,
    /// ClientCertificate: its keystore stays as it is and the next certificate waits, because the Secret with
    /// the password is gone, or has no label `mtls-operator.io/keystore-password: "true"`; earlier releases
    /// needed no label.
    KeystorePasswordMissing,
    /// ClientCertificate: the operator renewed it, or issued it again because the spec or the authority
    /// changed; the note says until when it is valid.
    Renewed,
    /// MtlsDomain: its deletion waits; the note says for what: `suspend` set to false, the certificate no
    /// longer in use, API mappings removed, a rule of the operator's policy, a refusal by AWS lifted.
    DeletionWaits,
}
}

/// `reason` of an Event with its type and meaning. [`EventReason::all`] lists all reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventReason {
    word: &'static str,
    is_warning: bool,
    when: &'static str,
}

impl EventReason {
    /// Returns the Event reason for a condition that changes to `reason`. `None` for a reason without an
    /// Event: one of progress, of success, or of a state that the spec asks for.
    pub fn of_condition(reason: Reason) -> Option<Self> {
        use Reason::*;
        let is_warning = match reason {
            Reason::Ready => false,
            Accepted | ResolvedRefs | Issued | Published | Programmed | Verified | Closed | Trusted => {
                return None;
            }
            Progressing | Queued | WaitingForPrerequisite | WaitingForValidation | WaitingForCertificate => {
                return None;
            }
            WaitingForTruststore | WaitingForDomain | WaitingForMappings | WaitingForDNS => return None,
            WaitingForAuthority | WaitingForDomainTrust | Issuing | Deleting | Suspended | Observing => {
                return None;
            }
            KeptOpen | NotVerified => return None,
            // The operator retries.
            Unreachable | Throttled => return None,
            // A user has to act.
            WaitingForDeployment => true,
            InvalidSpec | NotPermitted | DomainNameClaimed | HomeChanged | WrongAccount => true,
            DurationNotAllowed
            | SubjectInUse
            | RefNotFound
            | InvalidCACertificateRef
            | NoValidCACertificate => true,
            AuthoritySourceBroken | RefNotPermitted | AuthorityNotFound | AuthorityKeyLost => true,
            AuthoritySubjectReused | ApiNotFound | StageNotFound | ApiNotSupported | HostedZoneNotFound => {
                true
            }
            BucketNotFound | BucketInOtherRegion | BucketNotVersioned | ForeignOwner | ContestedByOther => {
                true
            }
            PermissionDenied | CredentialsMissing | CredentialsRejected | CertificateFailed
            | TruststoreRejected | TruststoreFull | TrustInUse | TooManyCertificates => true,
            DomainRejected => true,
            AwsRejected | QuotaExceeded | RecordProtected | SecretNotOwned | SecretRejected | DomainGone
            | StillAnswering | OtherDomain => true,
        };
        Some(Self {
            word: reason.as_str(),
            is_warning,
            when: reason.meaning(),
        })
    }

    /// Returns all Event reasons: the notices, then the reasons of conditions.
    pub fn all() -> impl Iterator<Item = Self> {
        let notices = Notice::ALL.iter().copied().map(Self::from);
        notices.chain(Reason::ALL.iter().copied().filter_map(Self::of_condition))
    }

    pub fn as_str(self) -> &'static str {
        self.word
    }

    /// True for type Warning, false for Normal.
    pub fn is_warning(self) -> bool {
        self.is_warning
    }

    /// Returns the occasion of such an Event.
    pub fn when(self) -> &'static str {
        self.when
    }
}

impl From<Notice> for EventReason {
    fn from(notice: Notice) -> Self {
        let is_warning = match notice {
            Notice::Abandoned | Notice::RenewalPending | Notice::RenewalFailed => true,
            Notice::CertificateExpiring | Notice::NotIssued | Notice::KeystorePasswordMissing => true,
            Notice::Retained
            | Notice::CertificateRenewed
            | Notice::StillAccepted
            | Notice::SubjectChanges => false,
            Notice::Renewed | Notice::DeletionWaits => false,
        };
        Self {
            word: notice.as_str(),
            is_warning,
            when: notice.meaning(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    use crate::api::conditions::Reason;

    #[test]
    fn a_reason_is_one_thing() {
        let words: Vec<_> = EventReason::all().map(EventReason::as_str).collect();
        assert_eq!(
            words.iter().collect::<BTreeSet<_>>().len(),
            words.len(),
            "{words:?}"
        );
    }

    #[test]
    fn what_is_waited_for_and_what_is_desired_is_no_event() {
        for reason in [
            Reason::Queued,
            Reason::KeptOpen,
            Reason::Observing,
            Reason::Unreachable,
        ] {
            assert_eq!(EventReason::of_condition(reason), None, "{reason}");
        }
        let is_warning = |reason| EventReason::of_condition(reason).map(EventReason::is_warning);
        assert_eq!(
            (is_warning(Reason::Ready), is_warning(Reason::PermissionDenied)),
            (Some(false), Some(true))
        );
    }
}
