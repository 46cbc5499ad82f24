//! Types and reasons of both kinds' conditions. The sets are closed: users write alerts and scripts against
//! these words, so a word here does not change its meaning, and a condition never has another word.

/// Declares a fieldless enum whose variants' names are words that users read. The documentation of a variant
/// is the word's meaning.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)* }

        impl $name {
            /// All words, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the word as users read it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// Returns the variant of a word; `None` for a word that is not in the set.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }

            /// Returns the meaning of the word: the documentation of the variant.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start(),)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(super) use words;

words! {
/// `type` of a condition. All types are positive but the last three, which are present only while True.
pub enum ConditionType {
    /// Both kinds: spec is valid and permitted.
    Accepted,
    /// MtlsDomain: every Secret, ConfigMap, API and stage that the spec names exists and is usable.
    ResolvedRefs,
    /// MtlsDomain: the server certificate is ISSUED and covers the name.
    CertificateIssued,
    /// MtlsDomain: the bundle of trusted certificates is valid and in S3, and the operator knows its version.
    TruststorePublished,
    /// MtlsDomain: the custom domain is AVAILABLE with the server certificate and the published truststore
    /// version.
    DomainProgrammed,
    /// MtlsDomain: every mapping of the spec exists, and no mapping that should not exist.
    MappingsProgrammed,
    /// MtlsDomain: the name points at the domain.
    DNSProgrammed,
    /// MtlsDomain: no mapped API answers on its execute-api endpoint.
    BypassClosed,
    /// MtlsDomain, only while `spec.identity` is set or the operator has parts of it left to remove: every
    /// integration of the mapped APIs that takes headers passes the headers on, and callers cannot send these
    /// headers themselves.
    IdentityPropagated,
    /// ClientCertificate: the Secret holds the certificate and its key as the spec says, and no renewal is
    /// due.
    Issued,
    /// ClientCertificate: the issuer, or the self-signed certificate itself, is in the truststore version
    /// that the domain uses now.
    Trusted,
    /// Both kinds: all conditions above are True.
    Ready,
    /// MtlsDomain, only while True: a mapped API is also served by a domain without mutual TLS.
    BypassDetected,
    /// Both kinds, only while True (kstatus): the operator is working towards the desired state.
    Reconciling,
    /// Both kinds, only while True (kstatus): the operator makes no progress until the spec changes.
    Stalled,
}
}

words! {
/// `reason` of a condition.
pub enum Reason {
    // -- Done. --
    /// Spec is valid and permitted.
    Accepted,
    /// Every object that the spec names exists.
    ResolvedRefs,
    /// The certificate exists and is valid.
    Issued,
    /// The truststore is in S3, and the domain can use its version.
    Published,
    /// AWS is in the desired state.
    Programmed,
    /// The operator has verified the DNS records that a user created elsewhere.
    Verified,
    /// The default endpoints are disabled and rejected an HTTPS request.
    Closed,
    /// The certificate's issuer, or the certificate, is in the truststore that the domain uses.
    Trusted,
    /// All resources are in the desired state.
    Ready,

    // -- Waiting: not an error, and no action needed. --
    /// AWS or the operator is working on the change.
    Progressing,
    /// A rate-limited AWS operation is waiting in the queue; the message says for how long at most.
    Queued,
    /// An earlier step must finish first; the message names the step.
    WaitingForPrerequisite,
    /// ACM has not seen the validation record yet. The validation usually takes minutes. When it takes
    /// longer, check that the public DNS delegates to the hosted zone and that no CAA record excludes Amazon.
    /// With `dns.external`, create the records that the message lists.
    WaitingForValidation,
    /// ACM has not issued the server certificate yet.
    WaitingForCertificate,
    /// The operator has not published the truststore yet.
    WaitingForTruststore,
    /// The custom domain does not exist yet, or is UPDATING.
    WaitingForDomain,
    /// The mappings do not exist yet.
    WaitingForMappings,
    /// The name does not point at the domain yet. With `dns.external`, create the records of
    /// `status.dns.records`.
    WaitingForDNS,
    /// The domain's authority does not exist yet, or the domain does not trust the authority yet.
    WaitingForAuthority,
    /// The MtlsDomain cannot issue or trust certificates yet.
    WaitingForDomainTrust,
    /// A deployment of the API is missing that the operator is not permitted to make (`restDeployment`).
    WaitingForDeployment,
    /// The operator is issuing or renewing the certificate.
    Issuing,
    /// The object is being deleted; the message says what the operator is waiting for.
    Deleting,
    /// `suspend` is true: the operator leaves everything as it is.
    Suspended,
    /// `managementPolicy` is Observe: the operator lists the planned actions in `status.plan`.
    Observing,

    // -- The spec has to change. --
    /// The spec contradicts itself or what AWS allows; the message says what to write.
    InvalidSpec,
    /// No rule of the operator's policy permits this namespace to use the name, zone, Region, account, role,
    /// bucket, API or certificate that the message names. Change the spec, or ask the operator's
    /// administrator for a rule.
    NotPermitted,
    /// An older MtlsDomain has this domain name in the same account and Region.
    DomainNameClaimed,
    /// The object's resources are in another account or Region than the spec says now (annotation
    /// `mtls-operator.io/home`).
    HomeChanged,
    /// The account that the credentials lead to is not the one that the spec names.
    WrongAccount,
    /// The spec asks for more than `clients.maxDuration` of the domain.
    DurationNotAllowed,
    /// A self-signed certificate would have the subject of another certificate, or of an authority, in the
    /// domain's truststore. API Gateway rejects two certificates with the same subject. Choose another
    /// subject.
    SubjectInUse,

    // -- An object that the spec names is missing or unusable. Absent and forbidden read the same. --
    /// A Secret, ConfigMap, MtlsDomain, ACM certificate, authorizer or Lambda function that the spec names
    /// does not exist, or this namespace has no access to it.
    RefNotFound,
    /// A reference has a wrong kind, key or content: Gateway API's `InvalidCACertificateRef`.
    InvalidCACertificateRef,
    /// No trusted authority is left: Gateway API's `NoValidCACertificate`. API Gateway needs at least one
    /// certificate.
    NoValidCACertificate,
    /// The source of an authority is broken. The last certificates of that authority stay trusted; changes of
    /// the other authorities still take effect.
    AuthoritySourceBroken,
    /// The operator may not use an object of another namespace: Gateway API's `RefNotPermitted`.
    RefNotPermitted,
    /// The domain has no authority of that name, or no authority that can issue.
    AuthorityNotFound,
    /// The key of a generated authority is lost while its certificate is trusted. Restore the Secret from its
    /// backup, or add an authority under another name and set `issuingAuthority` to it. The domain still
    /// accepts callers.
    AuthorityKeyLost,
    /// An authority has a new key under the subject of the old key. API Gateway rejects two certificates with
    /// the same subject: give the new certificate another subject. Until then the old certificate stays
    /// trusted and the operator issues nothing.
    AuthoritySubjectReused,
    /// A mapped API does not exist in the account and Region.
    ApiNotFound,
    /// A mapped API has no such stage.
    StageNotFound,
    /// A mapped API cannot be served with mutual TLS (WebSocket or private).
    ApiNotSupported,
    /// No public hosted zone holds the name, or two zones do; set `dns.route53.hostedZoneId`.
    HostedZoneNotFound,
    /// The truststore's bucket does not exist; create it with versioning, or set `bucketCreation: IfMissing`.
    BucketNotFound,
    /// The truststore's bucket is in another Region than the domain: name a bucket in the domain's Region.
    BucketInOtherRegion,
    /// The truststore's bucket has no versioning. Enable versioning: each change of the truststore must have
    /// a version of its own.
    BucketNotVersioned,

    // -- AWS or another writer prevents the change. --
    /// The resource exists and has another owner, or none (`adoptionPolicy: Unowned` takes over a resource
    /// without owner).
    ForeignOwner,
    /// Another writer keeps reverting the operator's changes. Find out who manages the resource that the
    /// message names. MtlsDomain: the operator has stopped after three corrections, until the spec changes.
    /// ClientCertificate: after each correction of its Secret the operator waits twice as long, up to 10
    /// minutes, and at most a minute once no other writer changes the Secret any more.
    ContestedByOther,
    /// The operator's role lacks a permission, or a policy of the organization or of a resource, a
    /// permissions boundary or a lock denies the call; the message names the IAM action, what denies it, and
    /// the remedy.
    PermissionDenied,
    /// AWS rejects the operator's credentials, because they are invalid, expired or deleted, or because the
    /// operator's clock is wrong; the message says which.
    CredentialsRejected,
    /// The operator has no AWS credentials, or the credential source refuses them. Give the operator's
    /// ServiceAccount an IAM role, by the annotation `eks.amazonaws.com/role-arn` or by a Pod Identity
    /// association, and restart its Pods; the message contains the cause.
    CredentialsMissing,
    /// The server certificate is not usable: ACM failed to issue it, or it expired, was revoked, or does not
    /// cover the name; the message says which.
    CertificateFailed,
    /// API Gateway rejects the truststore, or warns of a certificate in it.
    TruststoreRejected,
    /// The domain's truststore holds as many certificates, or bytes, as API Gateway accepts, or those of one
    /// ClientGrant have as many bytes as its `maxBytes`, and this self-signed certificate does not fit:
    /// authorities come first, then self-signed certificates by age. Request fewer or shorter names, or have
    /// other certificates removed.
    TruststoreFull,
    /// The operator issues no further certificate of this ClientCertificate for now; the message says until
    /// when. Within an hour it issues 5 that the annotation `mtls-operator.io/renew`, the spec or the
    /// authority asks for, and 20 superseded certificates may be unexpired: the domain accepts each of them.
    /// The certificate in the Secret stays.
    TooManyCertificates,
    /// The change would remove a certificate from the truststore that unexpired certificates depend on; the
    /// message names these certificates.
    TrustInUse,
    /// API Gateway rejects the desired domain; the message says why.
    DomainRejected,
    /// AWS rejects the change; the message says why.
    AwsRejected,
    /// A quota of the account is exhausted; the message names the quota. Delete what is unused, or request a
    /// higher quota. The operator retries after a pause of one minute, which doubles.
    QuotaExceeded,
    /// A record protection or a change guardrail of Route 53 rejects the change of the DNS records. Remove
    /// the protection, or set `dns.external`. The operator retries after a pause of one minute, which
    /// doubles.
    RecordProtected,
    /// AWS or the Kubernetes API server does not respond, or its response is unusable. The operator
    /// retries.
    Unreachable,
    /// AWS throttles the operator's calls. The operator retries.
    Throttled,
    /// A Secret of that name exists that the operator did not create. ClientCertificate: choose another
    /// `secretName`, or remove the Secret. MtlsDomain: the Secret has the name of a generated authority's
    /// Secret and lacks its labels, its subject, or the record of its key; the domain does not trust the
    /// Secret, and the operator issues nothing with it. Delete the Secret, or use it on purpose: with
    /// `secretRef`, in an authority of another name.
    SecretNotOwned,
    /// The Kubernetes API server rejects a Secret that the operator writes: a quota, an admission policy or
    /// webhook, missing rights, or `immutable: true`. The message has its sentence and what to do. The
    /// operator retries.
    SecretRejected,
    /// The MtlsDomain no longer exists, or is being deleted.
    DomainGone,

    // -- The default endpoint. --
    /// `defaultEndpoint: Keep` leaves it open.
    KeptOpen,
    /// BypassClosed: the default endpoint is disabled, but the operator could not check that it no longer
    /// answers. DNSProgrammed: `verify` is None, so the operator did not check.
    NotVerified,
    /// The default endpoint is disabled, but still answers.
    StillAnswering,
    /// A mapped API is also served by a custom domain without mutual TLS; the message names it.
    OtherDomain,
}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pattern and limits of metav1.Condition for types and reasons.
    #[test]
    fn words_are_what_the_api_server_takes() {
        let words = ConditionType::ALL
            .iter()
            .map(|t| t.as_str())
            .chain(Reason::ALL.iter().map(|r| r.as_str()));
        for word in words {
            assert!(
                word.starts_with(|c: char| c.is_ascii_uppercase())
                    && word.chars().all(|c| c.is_ascii_alphanumeric()),
                "{word}"
            );
        }
    }

    #[test]
    fn words_are_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("ReconcileError"), None);
    }
}
