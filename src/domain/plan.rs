//! Decides: what is desired and what is there in, what to do next out. Pure and total: no I/O, no clock, no failure.
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    desired::Desired,
    observed::{Observed, Unseen},
};
use crate::{
    api::conditions::Reason,
    aws::{acm, gateway::DomainRequest, route53::Change},
    pki::compile::Compiled,
};

mod certificates;
mod custom_domain;
mod default_endpoint;
mod dns;
mod mappings;
mod references;
pub mod self_signed;
mod truststore;

/// The tag on certificates and domains, and the metadata key on truststore objects, that says whose they are.
pub const OWNER_TAG: &str = "mtls-operator.io/owner";
/// S3 keeps metadata keys in lower case and without `/`.
pub const OWNER_METADATA: &str = "owner";
/// On an API between a change and the deployment that makes it effective.
pub const PENDING_TAG: &str = "mtls-operator.io/pending-deployment";

/// Each step is a condition type, in the order in which they come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    ResolvedRefs,
    CertificateIssued,
    TruststorePublished,
    DomainProgrammed,
    MappingsProgrammed,
    DnsProgrammed,
    BypassClosed,
}

impl Step {
    pub const ALL: [Step; 7] = [
        Step::ResolvedRefs,
        Step::CertificateIssued,
        Step::TruststorePublished,
        Step::DomainProgrammed,
        Step::MappingsProgrammed,
        Step::DnsProgrammed,
        Step::BypassClosed,
    ];
}

/// One call to AWS, or one object in Kubernetes. Each can be repeated without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the key and certificate of a generated authority and keep them in their Secret.
    GenerateAuthority {
        authority: String,
    },
    RequestCertificate(acm::CertificateRequest),
    DeleteCertificate {
        arn: String,
    },
    /// One atomic batch.
    ChangeRecords {
        zone_id: String,
        changes: Vec<Change>,
    },
    PutTruststore {
        bucket: String,
        key: String,
        body: String,
    },
    CreateDomain(DomainRequest),
    /// Always the one full configuration, always in place.
    UpdateDomain(DomainRequest),
    DeleteDomain {
        name: String,
    },
    CreateMapping {
        path: String,
        api_id: String,
        stage: String,
    },
    UpdateMapping {
        id: String,
        path: String,
        api_id: String,
        stage: String,
    },
    DeleteMapping {
        id: String,
        path: String,
    },
    MarkPending {
        api_arn: String,
    },
    CloseEndpoint {
        api_id: String,
    },
    Deploy {
        api_id: String,
        stage: String,
    },
    UnmarkPending {
        api_arn: String,
    },
    DeleteTruststoreVersion {
        bucket: String,
        key: String,
        version: String,
    },
}

/// How a step stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Done(Reason, String),
    /// We are on it now.
    Act(String),
    /// Somebody else is working on it: nothing to do but look again.
    Wait(Reason, String),
    /// What it builds on does not exist yet.
    Behind(Step),
    /// Somebody has to put something right first.
    Blocked(Reason, String),
    /// It could not be looked at.
    Unknown(Unseen),
}

impl Verdict {
    pub fn is_done(&self) -> bool {
        matches!(self, Verdict::Done(..))
    }

    fn done(reason: Reason, message: impl Into<String>) -> Self {
        Verdict::Done(reason, message.into())
    }

    fn wait(reason: Reason, message: impl Into<String>) -> Self {
        Verdict::Wait(reason, message.into())
    }

    fn blocked(reason: Reason, message: impl Into<String>) -> Self {
        Verdict::Blocked(reason, message.into())
    }

    fn unknown(unseen: &Unseen) -> Self {
        Verdict::Unknown(unseen.clone())
    }
}

/// What to do for one step and how it stands. A blocked step may still have something to do for its other parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub verdict: Verdict,
    pub actions: Vec<Action>,
}

impl Judged {
    fn act(what: impl Into<String>, actions: Vec<Action>) -> Self {
        Judged { verdict: Verdict::Act(what.into()), actions }
    }
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        Judged { verdict, actions: Vec::new() }
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: BTreeMap<Step, Judged>,
    /// The certificate that the domain shall have, if there is one.
    pub certificate: Option<acm::Certificate>,
    /// The truststore as it shall be, when enough could be seen to say so.
    pub truststore: Option<Compiled>,
}

impl Plan {
    pub fn actions(&self) -> impl Iterator<Item = (Step, &Action)> {
        self.steps.iter().flat_map(|(step, judged)| judged.actions.iter().map(|a| (*step, a)))
    }
}

/// What to do next so that what is there becomes what is desired.
pub fn plan(d: &Desired, o: &Observed, now: Timestamp) -> Plan {
    let truststore = truststore::compile(d, o, now);
    let certificate = certificates::chosen(d, o).cloned();
    let refs = references::resolved_refs(d, o, truststore.as_ref());
    let published = truststore::publish(d, o, &refs, truststore.as_ref());
    let issued = certificates::certificates(d, o);
    let programmed = custom_domain::domain(d, o, certificate.as_ref(), &issued.verdict, &published.verdict);
    let mapped = mappings::mappings(d, o);
    let named = dns::dns(d, o, &mapped.verdict);
    let closed = default_endpoint::bypass(d, o, &named.verdict);
    let judged = [refs, issued, published, programmed, mapped, named, closed];
    let steps = Step::ALL.into_iter().zip(judged).collect();
    Plan { steps, certificate, truststore }
}
