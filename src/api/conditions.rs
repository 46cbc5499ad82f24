//! The words of both kinds' conditions: types and reasons. Closed on purpose: users write alerts and scripts
//! against them, so one that is here does not change its meaning, and nothing else ever stands in a
//! condition.

/// Declares a fieldless enum whose variants' names are words that users read, and whose variants'
/// documentation says when.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)* }

        impl $name {
            /// Every one, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// The one that is written so; none for words that are not ours.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }

            /// What it means: its documentation.
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
/// `type` of a condition. All are positive but the last three, which are present only while True.
pub enum ConditionType {
    /// Both kinds: the spec can be understood and is allowed.
    Accepted,
    /// MtlsDomain: every Secret, ConfigMap, API and stage that the spec names is there and usable.
    ResolvedRefs,
    /// MtlsDomain: the server certificate is ISSUED and covers the name.
    CertificateIssued,
    /// MtlsDomain: the bundle of trusted certificates has been checked, is in S3, and its version is known.
    TruststorePublished,
    /// MtlsDomain: the custom domain is AVAILABLE with that certificate and that truststore version.
    DomainProgrammed,
    /// MtlsDomain: each mapping is there, and none that should not be.
    MappingsProgrammed,
    /// MtlsDomain: the name points at the domain.
    DNSProgrammed,
    /// MtlsDomain: no mapped API answers on its execute-api endpoint.
    BypassClosed,
    /// MtlsDomain, only while `spec.identity` asks for it or something of it is left to take away: every
    /// integration of the mapped APIs that takes headers passes them on, and callers cannot send them
    /// themselves.
    IdentityPropagated,
    /// ClientCertificate: the certificate and its key are in the Secret, as the spec says and not due for
    /// renewal.
    Issued,
    /// ClientCertificate: its issuer, or itself, is in the truststore version that the domain uses now.
    Trusted,
    /// Both kinds: all of the above.
    Ready,
    /// MtlsDomain, only while True: a mapped API is also served by a domain without mutual TLS.
    BypassDetected,
    /// Both kinds, only while True (kstatus): the operator is working towards the spec.
    Reconciling,
    /// Both kinds, only while True (kstatus): nothing will happen until the spec changes.
    Stalled,
}
}

words! {
/// `reason` of a condition.
pub enum Reason {
    // -- Done. --
    /// The spec can be understood and is allowed.
    Accepted,
    /// Everything that the spec names is there.
    ResolvedRefs,
    /// The certificate is there and valid.
    Issued,
    /// The truststore is in S3 and the domain can be given its version.
    Published,
    /// AWS is as the spec says.
    Programmed,
    /// Somebody else's DNS records were seen and are right.
    Verified,
    /// The default endpoints are disabled, and an HTTPS request to them was refused.
    Closed,
    /// The certificate's issuer, or the certificate, is in the truststore that the domain uses.
    Trusted,
    /// Nothing is missing.
    Ready,

    // -- Waiting: not an error, nothing to be done by anybody. --
    /// On its way: AWS or the operator is working on it.
    Progressing,
    /// An AWS operation that may be called only so often is waiting for its turn; the message says how long
    /// at most.
    Queued,
    /// An earlier step has to be done first; the message names it.
    WaitingForPrerequisite,
    /// ACM has yet to see the validation record. Minutes as a rule; when it takes longer, check that the
    /// public DNS delegates to the hosted zone and that no CAA record keeps Amazon out. With `dns.external`,
    /// create the records that the message lists.
    WaitingForValidation,
    /// The server certificate has yet to be issued.
    WaitingForCertificate,
    /// The truststore has yet to be published.
    WaitingForTruststore,
    /// The custom domain has yet to be made, or is UPDATING.
    WaitingForDomain,
    /// The mappings have yet to be made.
    WaitingForMappings,
    /// The name has yet to point at the domain; with `dns.external`, create the records of
    /// `status.dns.records`.
    WaitingForDNS,
    /// The domain's authority has yet to be made, or to be trusted.
    WaitingForAuthority,
    /// The MtlsDomain has yet to become so far that certificates can be issued or trusted.
    WaitingForDomainTrust,
    /// Somebody else's part is missing: a deployment of the API that the operator may not make itself
    /// (`restDeployment`).
    WaitingForDeployment,
    /// The certificate is being issued or renewed.
    Issuing,
    /// The object is being deleted; the message says what is waited for.
    Deleting,
    /// `suspend` is true: the operator leaves everything as it is.
    Suspended,
    /// `managementPolicy` is Observe: the operator says in `status.plan` what it would do.
    Observing,

    // -- The spec has to change. --
    /// The spec contradicts itself or what AWS allows; the message says what to write.
    InvalidSpec,
    /// No rule of the operator's policy allows this namespace what the message names: a name, zone, Region,
    /// account, role, bucket, API or certificate. Change that, or ask whoever runs the operator for a rule
    /// that it fits.
    NotPermitted,
    /// Another MtlsDomain, which is older, has this domain name in the same account and Region.
    DomainNameClaimed,
    /// The object's resources are in another account or Region than it now says (annotation
    /// `mtls-operator.io/home`).
    HomeChanged,
    /// The account that the credentials lead to is not the one that the spec names.
    WrongAccount,
    /// The spec asks for more than `clients.maxDuration` of the domain.
    DurationNotAllowed,
    /// A self-signed certificate would have the subject of another one, or of an authority, in the domain's
    /// truststore; API Gateway refuses two. Choose another.
    SubjectInUse,

    // -- Something that the spec names is missing or unusable. Absent and forbidden read the same. --
    /// A Secret, ConfigMap, MtlsDomain, ACM certificate, authorizer or Lambda function that the spec names is
    /// not there, or is not open to this namespace.
    RefNotFound,
    /// A reference's kind, key or content is not what it should be: Gateway API's `InvalidCACertificateRef`.
    InvalidCACertificateRef,
    /// No authority is left to trust: Gateway API's `NoValidCACertificate`. API Gateway needs at least one
    /// certificate.
    NoValidCACertificate,
    /// An authority's source is broken. Its certificates stay trusted as they were last; the others go on
    /// changing.
    AuthoritySourceBroken,
    /// The operator may not use an object of another namespace: Gateway API's `RefNotPermitted`.
    RefNotPermitted,
    /// The domain has no authority of that name, or none that can issue.
    AuthorityNotFound,
    /// A generated authority's key is gone while its certificate is trusted. Restore the Secret from its
    /// backup, or add an authority under another name and point `issuingAuthority` at it. Callers go on being
    /// served.
    AuthorityKeyLost,
    /// An authority has a new key under the subject of the old one, and API Gateway refuses two certificates
    /// with one subject: give the new one another subject. Until then the old one stays trusted and nothing
    /// is issued.
    AuthoritySubjectReused,
    /// A mapped API is not in the account and Region.
    ApiNotFound,
    /// A mapped API has no such stage.
    StageNotFound,
    /// A mapped API cannot be served with mutual TLS (WebSocket or private).
    ApiNotSupported,
    /// No public hosted zone holds the name, or two do; set `dns.route53.hostedZoneId`.
    HostedZoneNotFound,
    /// The truststore's bucket is not there; create it with versioning, or set `bucketCreation: IfMissing`.
    BucketNotFound,
    /// The truststore's bucket is in another Region than the domain: name one in the domain's.
    BucketInOtherRegion,
    /// The truststore's bucket keeps no versions; enable versioning, so that each change can be told from the
    /// one before.
    BucketNotVersioned,

    // -- AWS or somebody else stands in the way. --
    /// It exists already and has another owner, or none (then `adoptionPolicy: Unowned` takes it over).
    ForeignOwner,
    /// Somebody else keeps undoing what the operator sets; it has stopped after three repairs, until the spec
    /// changes. Find out who manages the thing that the message names.
    ContestedByOther,
    /// The operator's role lacks a right; the message names the IAM action.
    PermissionDenied,
    /// The operator has no AWS credentials, or AWS does not accept them. Give its ServiceAccount an IAM role,
    /// by the annotation `eks.amazonaws.com/role-arn` or by a Pod Identity association, and restart its Pods;
    /// the message has the cause.
    CredentialsMissing,
    /// The certificate cannot be had: ACM failed, it expired, was revoked, or does not cover the name; the
    /// message says which.
    CertificateFailed,
    /// API Gateway does not take the truststore, or warns of a certificate in it.
    TruststoreRejected,
    /// The domain's truststore holds as many certificates, or bytes, as API Gateway takes, and this
    /// self-signed certificate does not fit: authorities come first, then self-signed certificates by age.
    /// Ask for fewer or shorter names, or have others removed.
    TruststoreFull,
    /// Trust would be narrowed: certificates are alive that hang on what is to go; the message names them.
    TrustInUse,
    /// API Gateway does not take the domain as it should be; the message says why.
    DomainRejected,
    /// AWS does not take the change; the message says why.
    AwsRejected,
    /// A quota of the account is used up; the message names it.
    QuotaExceeded,
    /// AWS or the Kubernetes API server does not answer, or not sensibly. Tried again by itself.
    Unreachable,
    /// AWS asks to be called less often. Tried again by itself.
    Throttled,
    /// There is a Secret of that name that the operator did not make. ClientCertificate: choose another
    /// `secretName`, or remove the Secret. MtlsDomain: it has the name of a generated authority's, and lacks
    /// its labels, its subject, or the record of its key; it is not trusted and issues nothing. Delete it, or
    /// use it on purpose: with `secretRef`, in an authority of another name.
    SecretNotOwned,
    /// The MtlsDomain exists no more, or is being deleted.
    DomainGone,

    // -- The default endpoint. --
    /// `defaultEndpoint: Keep` leaves it open.
    KeptOpen,
    /// BypassClosed: the default endpoint is disabled, but nothing could be asked whether it still answers.
    /// DNSProgrammed: `verify` is None, so nobody looked.
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

    /// metav1.Condition's own pattern and limits for types and reasons.
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
