//! Observed state around one `MtlsDomain`, as read from Kubernetes and AWS, in plain data. No I/O here:
//! `observe` fills it, and `plan` decides by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::front::ObservedFront;

use crate::{
    aws::{
        acm,
        gateway::{apis, authorizers, domains::Domain, integrations, mappings::Mapping},
        route53,
        tags::Tags,
    },
    observation::seen::{Seen, Unseen},
    pki::{certificate::Certificate, pem_error::ParseError, truststore::Bundle},
    probe::{https, public_dns::PublicName},
};

/// First reads of a reconcile, which the operator's policy needs for its decision.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Hosted zones, as in [`Observed`].
    pub zones: Seen<BTreeMap<String, ZoneChoice>>,
    /// The APIs that the spec maps, by id; `None`: there is no such API.
    pub apis: BTreeMap<String, Seen<Option<apis::Api>>>,
}

#[derive(Clone, Debug)]
pub struct Observed {
    /// The source of each authority of the spec, by the authority's name.
    pub authorities: BTreeMap<String, Source>,
    /// The keys of generated authorities that the MtlsDomain's annotations record, by the authority's name.
    pub recorded: BTreeMap<String, String>,
    /// The leaves of the domain's ClientCertificates, from their statuses. For the report only: no decision
    /// depends on them.
    pub leaves: Vec<Leaf>,
    /// The certificates in the Secrets of self-signed ClientCertificates, by the names of their entries.
    pub self_signed: Seen<BTreeMap<String, Vec<Certificate>>>,
    /// The hosted zone of the domain name and of every name of a certificate to request. Empty when another
    /// party manages the records.
    pub zones: Seen<BTreeMap<String, ZoneChoice>>,
    /// Every certificate in ACM for the domain name, owned or not.
    pub certificates: Seen<Vec<acm::Certificate>>,
    /// Certificates by their ARN, `None`: there is none. Contains the certificates that the spec names, and
    /// those that an owned domain, or a domain to be taken over, has now.
    pub named: BTreeMap<String, Seen<Option<acm::Certificate>>>,
    /// The record sets in Route 53 at the name of each validation record of the owned certificates.
    pub validation: Seen<BTreeMap<String, Vec<route53::RecordSet>>>,
    pub bucket: Seen<Option<Bucket>>,
    /// The latest version of the truststore object.
    pub published: Seen<Option<Published>>,
    /// The truststore that the domain uses now, regardless of its writer; `None`: the domain has no mutual
    /// TLS, or that version is gone.
    pub pinned: Seen<Option<Pinned>>,
    pub domain: Seen<Option<Domain>>,
    /// The domain, as the steps beside the data plane know it.
    pub front: ObservedFront,
    pub mappings: Seen<Vec<Mapping>>,
    /// The APIs that the spec maps, by id; `None`: there is no such API. Includes the APIs that the domain
    /// still maps and that carry the ownership tags.
    pub apis: BTreeMap<String, Seen<Option<Api>>>,
    /// Every record set at the domain name and at its ownership record. When that record is missing, also the
    /// record sets by which another tool may record ownership.
    pub records: Seen<Vec<route53::RecordSet>>,
    /// True when the operator's last change of the records has reached all of Route 53, or no change is known
    /// to be in progress.
    pub records_in_sync: Seen<bool>,
    /// Public DNS answer for the domain name, once there is a target. Read only when another party creates
    /// the records and the spec requires their verification.
    pub public: Seen<Option<PublicName>>,
    /// Number of times that another writer has removed the operator's headers or authorizer from an API, by
    /// its id.
    pub corrections: BTreeMap<String, u32>,
}

impl Observed {
    /// Returns the certificate with this ARN, when it is among the certificates that were read.
    pub fn certificate(&self, arn: &str) -> Option<&acm::Certificate> {
        let named = self.named.values().flatten().flatten();
        self.certificates
            .iter()
            .flatten()
            .chain(named)
            .find(|c| c.arn == arn)
    }
}

/// Content of an authority's Secret, ConfigMap or `pem`.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The certificates, or their error; the certificates that only complete their chains; and whether the
    /// operator can issue under the first certificate, which then is the certificate of the private key.
    Read {
        certificates: Result<Vec<Certificate>, ParseError>,
        completing: Result<Vec<Certificate>, ParseError>,
        can_issue: CanIssue,
    },
    /// The objects that a label selector finds, by their names.
    Several(BTreeMap<String, Source>),
    /// A Secret with the name of a generated authority but without its labels; the text says which labels it
    /// lacks.
    NotOwned(String),
    /// The object or its key does not exist; the text names both.
    Missing(String),
    /// The Kubernetes API did not answer.
    Unseen(Unseen),
}

/// A leaf that a ClientCertificate holds, or held before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Name of the ClientCertificate.
    pub holder: String,
    pub issuer: LeafIssuer,
    pub not_after: Timestamp,
}

/// Issuer of a leaf, as a status names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafIssuer {
    /// Distinguished name (RFC 4514).
    Name(String),
    /// Key identifier, in hexadecimal.
    KeyId(String),
}

/// Answer to the question whether the operator can issue leaves under an authority, wherever its private key
/// is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanIssue {
    Yes,
    /// The source has nothing to issue with.
    No,
    /// The source has something to issue with that cannot be used.
    Broken {
        why: String,
        /// True when the private key is the reason, so that the certificates alone do not show it.
        of_key: bool,
    },
}

/// Bucket of the truststore.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    pub region: String,
    /// True when versioning is enabled now (not suspended).
    pub versioned: bool,
    /// Settings of a bucket that this cluster's operator created. Read only where the spec allows the
    /// operator to create a bucket.
    pub made: Option<Made>,
}

/// Settings of a bucket that the operator created.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Ownership tag: the MtlsDomain that the bucket was created for.
    pub owner: String,
    pub tags: Tags,
    /// True when all public access is blocked.
    pub private: bool,
    /// The KMS key that the bucket encrypts with by default; `None`: S3's own key.
    pub kms_key: Option<String>,
}

/// Latest version of the truststore object.
#[derive(Clone, Debug)]
pub struct Published {
    /// Empty when the object was stored while the bucket had no versioning: such an object cannot be pinned.
    pub version: String,
    /// The ownership tag of the object, if it carries one.
    pub owner: Option<String>,
    /// The KMS key that the object is encrypted with.
    pub kms_key: Option<String>,
    /// Value of `spec.truststore.kmsKeyArn` when the operator stored the object: S3 resolves an alias.
    pub desired_kms_key: Option<String>,
    /// Value of `spec.truststore.encryption` when the operator stored the object without a KMS key.
    pub encryption: Option<String>,
    /// Fingerprints of the tags that the operator stored the object with.
    pub tags: BTreeSet<String>,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    pub bundle: Arc<Bundle>,
}

/// Truststore version that a domain uses.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The ownership tag of the object, if it carries one.
    pub owner: Option<String>,
    pub bundle: Arc<Bundle>,
}

/// Public hosted zone that a name belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneChoice {
    Found(route53::Zone),
    Missing,
    /// Two or more public zones have the same name; their ids, sorted. Only the spec can say which zone is
    /// delegated.
    Ambiguous(Vec<String>),
}

impl ZoneChoice {
    pub fn found(&self) -> Option<&route53::Zone> {
        match self {
            ZoneChoice::Found(zone) => Some(zone),
            _ => None,
        }
    }
}

/// An API that the spec maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    pub api: apis::Api,
    /// The stages that the spec maps; `None`: there is no such stage.
    pub stages: BTreeMap<String, Option<apis::Stage>>,
    /// The answer of the default endpoint at these stages, the most open one. Read only once the endpoint is
    /// reported closed.
    pub probe: Option<https::ProbeResult>,
    /// Read only where the spec requests headers, or the API carries the operator's ownership tags.
    pub integrations: Option<Seen<Vec<integrations::Integration>>>,
    /// Read only where the spec requests an authorizer, or the API has one of the operator's.
    pub authorizers: Option<Seen<Authorizers>>,
}

/// Authorizers and routes of an API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authorizers {
    pub all: Vec<authorizers::Authorizer>,
    pub routes: Vec<authorizers::Route>,
    /// The ids of the operator's authorizers whose function API Gateway may call for them.
    pub permitted: BTreeSet<String>,
}

impl Api {
    /// Returns the mapped stages that exist.
    pub fn there(&self) -> impl Iterator<Item = &apis::Stage> {
        self.stages.values().flatten()
    }

    /// Returns the mapped stages without auto-deploy, which serve the API as it was last deployed to them.
    pub fn by_hand(&self) -> impl Iterator<Item = &apis::Stage> {
        self.there().filter(|stage| !stage.auto_deploy)
    }
}

/// Leftovers of an `MtlsDomain` that is being deleted.
#[derive(Clone, Debug)]
pub struct Leftovers {
    /// The hosted zone that the records were in; `None`: the zone is gone, and the records with it.
    pub zone_id: Option<String>,
    /// Every record set at the domain name and at its ownership record.
    pub records: Seen<Vec<route53::RecordSet>>,
    pub domain: Seen<Option<Domain>>,
    pub mappings: Seen<Vec<Mapping>>,
    /// The APIs that the spec or the domain maps and that may carry the ownership tags, by id.
    pub apis: BTreeMap<String, Seen<Option<Api>>>,
    pub certificates: Seen<Vec<acm::Certificate>>,
    /// The versions of the truststore object that carry the ownership tag.
    pub versions: Seen<Vec<String>>,
}
