//! What is there: the world around one `MtlsDomain` as read from Kubernetes and AWS, in plain data. No I/O
//! here; `observe` fills it, `plan` judges it.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    api::conditions::Reason,
    aws::{
        acm,
        gateway::{self, Domain, Mapping},
        route53,
    },
    pki::{
        certificate::{Certificate, ParseError},
        truststore::Bundle,
    },
    probe::{https, public_dns::PublicName},
};

/// A reading that succeeded, or why it did not. A failed reading is never "nothing there".
pub type Seen<T> = Result<T, Unseen>;

/// Why something could not be read, ready for a condition: stable words, no request ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    pub reason: Reason,
    pub message: String,
}

/// What is looked at first, because only AWS knows whether the operator's policy allows it.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// As in [`Observed`].
    pub zones: Seen<BTreeMap<String, ZoneChoice>>,
    /// The APIs that the spec maps, by id; `None`: there is no such API.
    pub apis: BTreeMap<String, Seen<Option<gateway::Api>>>,
}

#[derive(Clone, Debug)]
pub struct Observed {
    /// The source of each authority of the spec, by the authority's name.
    pub authorities: BTreeMap<String, Source>,
    /// The keys of generated authorities that the MtlsDomain's annotations record, by the authority's name.
    pub recorded: BTreeMap<String, String>,
    /// The leaves of the domain's ClientCertificates, as their statuses have them. For the report: nothing is
    /// decided by it.
    pub leaves: Vec<Leaf>,
    /// The certificates in the Secrets of self-signed ClientCertificates, by the names of their entries.
    pub self_signed: Seen<BTreeMap<String, Vec<Certificate>>>,
    /// The hosted zone of the domain name and of every name of a certificate to request. Empty when the
    /// records are somebody else's.
    pub zones: Seen<BTreeMap<String, ZoneChoice>>,
    /// Every certificate in ACM for the domain name, ours or not.
    pub certificates: Seen<Vec<acm::Certificate>>,
    /// Certificates by their ARN, `None`: there is none. Those that the spec names, and those that a domain
    /// of ours, or one to be taken over, has now.
    pub named: BTreeMap<String, Seen<Option<acm::Certificate>>>,
    /// What Route 53 has at the name of each validation record of our certificates.
    pub validation: Seen<BTreeMap<String, Vec<route53::RecordSet>>>,
    pub bucket: Seen<Option<Bucket>>,
    /// The latest version of the truststore object.
    pub published: Seen<Option<Published>>,
    /// The truststore that the domain uses now, whoever wrote it; `None`: it has no mutual TLS, or that
    /// version is gone.
    pub pinned: Seen<Option<Pinned>>,
    pub domain: Seen<Option<Domain>>,
    pub mappings: Seen<Vec<Mapping>>,
    /// The APIs that the spec maps, by id; `None`: there is no such API. With those that the domain still
    /// maps and that carry the ownership tags.
    pub apis: BTreeMap<String, Seen<Option<Api>>>,
    /// Every record set at the domain name and at its owner marker; when that is missing, also where another
    /// tool may say whose they are.
    pub records: Seen<Vec<route53::RecordSet>>,
    /// Whether our last change of the records has reached all of Route 53; true when none is known to be
    /// under way.
    pub records_in_sync: Seen<bool>,
    /// What public DNS says of the domain name, once there is something to point at; only looked at where
    /// somebody else makes the records and that is to be verified.
    pub public: Seen<Option<PublicName>>,
    /// How often somebody else has taken our headers out of an API, by its id.
    pub corrections: BTreeMap<String, u32>,
}

impl Observed {
    /// The certificate with this ARN, when it is among those that were read.
    pub fn certificate(&self, arn: &str) -> Option<&acm::Certificate> {
        let named = self.named.values().flatten().flatten();
        self.certificates
            .iter()
            .flatten()
            .chain(named)
            .find(|c| c.arn == arn)
    }
}

/// The content of an authority's Secret, ConfigMap or `pem`.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Its certificates, or what is wrong with them; those that only complete their chains; and whether the
    /// private key of the first one is there too.
    Read {
        certificates: Result<Vec<Certificate>, ParseError>,
        completing: Result<Vec<Certificate>, ParseError>,
        key: Key,
    },
    /// What a label selector finds, by the names of the objects.
    Several(BTreeMap<String, Source>),
    /// A Secret of a generated authority's name without its labels; the text says what it lacks.
    NotOwned(String),
    /// The object or the key in it is not there; the text names both.
    Missing(String),
    /// The Kubernetes API did not answer.
    Unseen(Unseen),
}

/// A leaf of a ClientCertificate, or one that it held before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Names the ClientCertificate.
    pub holder: String,
    pub issuer: LeafIssuer,
    pub not_after: Timestamp,
}

/// How a status names a leaf's issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafIssuer {
    /// RFC 4514.
    Name(String),
    /// Hexadecimal.
    KeyId(String),
}

/// The private key beside an authority's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Absent,
    Matches,
    /// It is there, but belongs to another certificate or cannot be read.
    Mismatch,
}

/// The truststore's bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    pub region: String,
    /// Versioning is on now (not suspended).
    pub versioned: bool,
    /// When it is one that this cluster's operator made; looked at only where the spec lets us make one.
    pub made: Option<Made>,
}

/// What is kept of a bucket that the operator made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The ownership tag: which MtlsDomain it was made for.
    pub owner: String,
    /// All public access is blocked.
    pub private: bool,
    /// The KMS key that it encrypts with by default; none: S3's own.
    pub kms_key: Option<String>,
}

/// The latest version of the truststore object.
#[derive(Clone, Debug)]
pub struct Published {
    /// Empty when it was stored while the bucket gave no versions: nothing that can be pinned.
    pub version: String,
    /// The ownership tag of the object, if it carries one.
    pub owner: Option<String>,
    /// The KMS key that it is encrypted with.
    pub kms_key: Option<String>,
    /// `spec.truststore.kmsKeyArn` as it was when we stored it: S3 resolves an alias.
    pub desired_kms_key: Option<String>,
    /// Hex SHA-256 of its bytes.
    pub sha256: String,
    pub bundle: Bundle,
}

/// The truststore version that a domain uses.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The ownership tag of the object, if it carries one.
    pub owner: Option<String>,
    pub bundle: Bundle,
}

/// The public hosted zone that a name belongs into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneChoice {
    Found(route53::Zone),
    Missing,
    /// Two public zones of one name; their ids, sorted. Only the spec can say which one the world asks.
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
    pub api: gateway::Api,
    /// The stages that the spec maps; `None`: there is no such stage.
    pub stages: BTreeMap<String, Option<gateway::Stage>>,
    /// What the default endpoint answered at these stages, the most open of them; only looked at once it is
    /// said to be closed.
    pub probe: Option<https::ProbeResult>,
    /// Only looked at where headers are asked for, or marked as ours.
    pub integrations: Option<Seen<Vec<gateway::Integration>>>,
    /// Only looked at where one is asked for, or there is one of ours.
    pub authorizers: Option<Seen<Authorizers>>,
}

/// Who is asked about callers of an API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authorizers {
    pub all: Vec<gateway::Authorizer>,
    pub routes: Vec<gateway::Route>,
    /// The ids of those of ours whose function API Gateway may call for them.
    pub permitted: BTreeSet<String>,
}

impl Api {
    /// The mapped stages that are there.
    pub fn there(&self) -> impl Iterator<Item = &gateway::Stage> {
        self.stages.values().flatten()
    }

    /// Those that serve what was last deployed to them.
    pub fn by_hand(&self) -> impl Iterator<Item = &gateway::Stage> {
        self.there().filter(|stage| !stage.auto_deploy)
    }
}

/// What is left of an `MtlsDomain` that is being deleted.
#[derive(Clone, Debug)]
pub struct Leftovers {
    /// The hosted zone that the records were in; `None`: it is gone, and they with it.
    pub zone_id: Option<String>,
    /// Every record set at the domain name and at its owner marker.
    pub records: Seen<Vec<route53::RecordSet>>,
    pub domain: Seen<Option<Domain>>,
    pub mappings: Seen<Vec<Mapping>>,
    /// The APIs that the spec or the domain maps and that may carry the ownership tags, by id.
    pub apis: BTreeMap<String, Seen<Option<Api>>>,
    pub certificates: Seen<Vec<acm::Certificate>>,
    /// The versions of the truststore object that carry the ownership tag.
    pub versions: Seen<Vec<String>>,
}
