//! Facts to check, in plain data: no I/O, no clock. `gather` fills them, `findings` checks them.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;

use crate::{
    aws::{
        acm,
        gateway::{domains::Domain, mappings::Mapping},
    },
    pki::certificate::Certificate,
    probe::public_dns::PublicName,
};

/// A value, or a displayable reason why it could not be read.
pub type Seen<T> = Result<T, String>;

#[derive(Clone, Debug)]
pub struct Facts {
    pub now: Timestamp,
    pub object: Object,
    /// Custom domain of that name; `None` when there is none.
    pub domain: Seen<Option<Domain>>,
    /// Server certificates for the name: the domain's certificate, or all certificates while there is no
    /// domain.
    pub certificates: Seen<Vec<acm::Certificate>>,
    /// Truststore that the domain uses; `None` when there is no domain, no mutual TLS, or the version is
    /// gone.
    pub trusted: Seen<Option<Vec<Certificate>>>,
    /// Version of the newest truststore object; `None` when there is none.
    pub newest: Seen<Option<String>>,
    /// Public DNS of the name, only when the domain has a target.
    pub dns: Seen<Option<PublicName>>,
    pub mappings: Seen<Vec<Mapping>>,
    /// Stages of each API that the domain maps, by its id; `None` when there is no such API.
    pub stages: BTreeMap<String, Seen<Option<Vec<String>>>>,
    /// Default endpoint of each API that the spec maps, by its id.
    pub endpoints: BTreeMap<String, Seen<Endpoint>>,
    /// Path of the call.
    pub path: String,
    pub client: Option<Client>,
    pub answer: Answer,
}

/// The MtlsDomain, with the fields that explain a failure.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Name as NAMESPACE/NAME.
    pub name: String,
    pub domain_name: String,
    pub suspended: bool,
    /// Reason and message of the condition Accepted, when it is False.
    pub refused: Option<(String, String)>,
    /// True when `spec.defaultEndpoint` is Keep.
    pub endpoint_kept: bool,
    /// Message of the condition BypassDetected.
    pub bypass: Option<String>,
}

/// State of the default endpoint of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Closed,
    Open,
    /// The endpoint is set to disabled, and answers nevertheless with this status.
    Answers(u16),
}

/// Caller with a certificate.
#[derive(Clone, Debug)]
pub struct Client {
    pub certificate: Certificate,
    /// Certificates that the caller sends with its own.
    pub others: Vec<Certificate>,
    /// ClientCertificate that the certificate comes from, if any.
    pub holder: Option<Holder>,
}

#[derive(Clone, Debug)]
pub struct Holder {
    /// Name as NAMESPACE/NAME.
    pub name: String,
    /// NAMESPACE/NAME of the MtlsDomain that the ClientCertificate is for.
    pub domain: String,
    /// Reason and message of the condition Ready, when it is not True.
    pub unready: Option<(String, String)>,
}

/// Outcome of a call to the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// No answer, with the reason.
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
    /// Returns the facts that could not be read, with the reasons; facts with the same reason share a line.
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
