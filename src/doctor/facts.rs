//! What there is to judge, in plain data: no I/O, no clock. `gather` fills it, `findings` judges it.

use crate::aws::acm;
use crate::aws::gateway::{Domain, Mapping};
use crate::pki::certificate::Certificate;
use crate::probe::public_dns::PublicName;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;

/// A reading, or why there is none, ready to be shown.
pub type Seen<T> = Result<T, String>;

#[derive(Clone, Debug)]
pub struct Facts {
    pub now: Timestamp,
    pub object: Object,
    /// The custom domain of that name; `None`: there is none.
    pub domain: Seen<Option<Domain>>,
    /// The server certificates for the name: that which the domain has, or all of them while there is no
    /// domain.
    pub certificates: Seen<Vec<acm::Certificate>>,
    /// The truststore that the domain uses; `None`: there is no domain, no mutual TLS, or that version is
    /// gone.
    pub trusted: Seen<Option<Vec<Certificate>>>,
    /// The version of the newest object where the truststore is; `None`: there is none.
    pub newest: Seen<Option<String>>,
    /// Only with something to point at.
    pub dns: Seen<Option<PublicName>>,
    pub mappings: Seen<Vec<Mapping>>,
    /// The stages of each API that the domain maps, by its id; `None`: there is no such API.
    pub stages: BTreeMap<String, Seen<Option<Vec<String>>>>,
    /// The default endpoint of each API that the spec maps, by its id.
    pub endpoints: BTreeMap<String, Seen<Endpoint>>,
    /// The path that is called.
    pub path: String,
    pub client: Option<Client>,
    pub answer: Answer,
}

/// The MtlsDomain, as far as it tells why nothing comes of it.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// NAMESPACE/NAME
    pub name: String,
    pub domain_name: String,
    pub suspended: bool,
    /// Reason and message of the condition Accepted, when it is False.
    pub refused: Option<(String, String)>,
    /// `spec.defaultEndpoint` is Keep.
    pub endpoint_kept: bool,
    /// Message of the condition BypassDetected.
    pub bypass: Option<String>,
}

/// Whether the default endpoint of an API is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Closed,
    Open,
    /// It is set to be closed, and answers nevertheless with this status.
    Answers(u16),
}

/// A caller with a certificate.
#[derive(Clone, Debug)]
pub struct Client {
    pub certificate: Certificate,
    /// What the caller sends along.
    pub others: Vec<Certificate>,
    /// Of a ClientCertificate.
    pub holder: Option<Holder>,
}

#[derive(Clone, Debug)]
pub struct Holder {
    /// NAMESPACE/NAME
    pub name: String,
    /// NAMESPACE/NAME of the MtlsDomain that it is for.
    pub domain: String,
    /// Reason and message of the condition Ready, when it is not True.
    pub unready: Option<(String, String)>,
}

/// What came of calling the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// Why there was none.
    None(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Status(status) => write!(f, "answered with status {status}"),
            Answer::None(why) => write!(f, "no answer: {why}"),
        }
    }
}

impl Facts {
    /// What could not be read, and why; what has one reason in one line.
    pub fn unseen(&self) -> Vec<String> {
        fn of<T>(what: &str, seen: &Seen<T>) -> Option<(String, String)> {
            Some((seen.as_ref().err()?.clone(), what.to_owned()))
        }
        let of_domain = [
            of("the custom domain", &self.domain),
            of("the server certificate", &self.certificates),
            of("the truststore", &self.trusted),
            of("the newest version of the truststore", &self.newest),
            of("DNS", &self.dns),
            of("the API mappings", &self.mappings),
        ];
        let stages = self
            .stages
            .iter()
            .map(|(id, seen)| of(&format!("the API {id}"), seen));
        let endpoints = self
            .endpoints
            .iter()
            .map(|(id, seen)| of(&format!("the execute-api endpoint of {id}"), seen));
        let mut by_reason = BTreeMap::<String, Vec<String>>::new();
        for (why, what) in of_domain.into_iter().chain(stages).chain(endpoints).flatten() {
            by_reason.entry(why).or_default().push(what);
        }
        by_reason
            .into_iter()
            .map(|(why, what)| format!("{}: {why}", what.join(", ")))
            .collect()
    }
}
