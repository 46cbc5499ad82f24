//! Choice of the grant that allows a certificate of another namespace. Pure and total: no I/O, no clock; the
//! caller passes grants, certificates, labels and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::glob::{self, Kind};

use crate::{
    api::{
        ClientCertificate, ClientGrant, ClientGrantSpec, Issuance,
        durations::{DEFAULT_LEAF, length},
    },
    model::leaf_request::asked,
    pki::leaf::LeafRequest,
    policy::Namespace,
    status::{
        Refused,
        text::{WITHIN, listed},
    },
};

/// Returns the certificate's request, which the operator compares with the grants.
pub fn grant_request(cert: &ClientCertificate) -> Result<GrantRequest, Refused> {
    let duration = cert.spec.duration.as_ref().map(length);
    let (request, _) = asked(cert, duration.unwrap_or(DEFAULT_LEAF))?;
    Ok(GrantRequest {
        uid: cert.uid().unwrap_or_default(),
        created: cert.creation_timestamp().map(|t| t.0),
        namespace: cert.namespace().expect("ClientCertificate is namespaced"),
        name: cert.name_any(),
        by_csr: cert.spec.csr.is_some(),
        request,
        issuance: cert.spec.issuance,
        authority: cert.spec.authority.clone(),
        duration,
    })
}

/// Maximum number of parts that a message lists.
const MOST_TOLD: usize = 10;

/// Request of one ClientCertificate for a grant. Slots go to requests in the order of their age: the oldest
/// first.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantRequest {
    pub uid: String,
    pub created: Option<Timestamp>,
    pub namespace: String,
    pub name: String,
    /// True when `request` comes from `spec.csr`.
    pub by_csr: bool,
    pub request: LeafRequest,
    pub issuance: Issuance,
    pub authority: Option<String>,
    /// Duration in the spec; `None`: any that the grant allows.
    pub duration: Option<SignedDuration>,
}

impl GrantRequest {
    pub fn age(&self) -> (Option<Timestamp>, &str, &str) {
        (self.created, &self.namespace, &self.name)
    }
}

/// Facts by which the operator decides on one domain's certificates in other namespaces.
pub struct EvaluationContext<'a> {
    /// Grants for this domain.
    pub grants: Vec<&'a ClientGrant>,
    /// True when there are grants that the operator cannot read and that may be for this domain.
    pub unreadable: bool,
    /// Authority that issues for the domain when a certificate names none; `None`: not known.
    pub issuing: Option<&'a str>,
    /// Labels by namespace; a namespace without an entry has unknown labels.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    pub now: Timestamp,
    /// [`names_outside`] of a certificate and a grant. A function, so that the caller can cache it: a tenant
    /// chooses how long the names are.
    pub names_outside: &'a dyn Fn(&GrantRequest, &ClientGrant) -> Arc<[String]>,
}

/// Decision on one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed(Terms),
    /// Parts of the spec that do not fit, for a condition.
    Denied(String),
    /// Unknown fact on which the decision depends, for a condition.
    Unknown(String),
}

/// Maximum bytes of a grant's self-signed certificates in the truststore, unless it says another.
pub const DEFAULT_SHARE: usize = 64 * 1024;

/// Terms under which a grant allows a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub grant: String,
    /// Authority that the grant names; `None`: the domain's issuing one.
    pub authority: Option<String>,
    pub max_duration: Option<SignedDuration>,
    pub not_after: Option<Timestamp>,
    /// Maximum bytes of the grant's self-signed certificates in the truststore.
    pub max_bytes: usize,
    /// True when the grant limits its slots and this certificate has one of its slots.
    pub is_counted: bool,
}

/// Decides on one certificate. Calls `others`, the requests of the domain with or without this one, only when
/// the decision depends on slots.
pub fn decide(
    grant_request: &Arc<GrantRequest>,
    others: impl FnOnce() -> Vec<Arc<GrantRequest>>,
    context: &EvaluationContext,
) -> Decision {
    let alone = allocate(std::slice::from_ref(grant_request), context).remove(0);
    let depends_on_slots = match &alone {
        Decision::Allowed(terms) => terms.is_counted,
        Decision::Unknown(_) => context.grants.iter().any(|g| g.spec.max_certificates.is_some()),
        Decision::Denied(_) => false,
    };
    if !depends_on_slots {
        return alone;
    }
    let mut older = others();
    older.retain(|other| other.age() < grant_request.age());
    older.push(grant_request.clone());
    allocate(&older, context).pop().unwrap_or(alone)
}

/// Decides on each certificate and returns the decisions in the order of the requests: slots go to the
/// oldest.
pub fn allocate(grant_requests: &[Arc<GrantRequest>], context: &EvaluationContext) -> Vec<Decision> {
    let mut order: Vec<usize> = (0..grant_requests.len()).collect();
    order.sort_by(|a, b| grant_requests[*a].age().cmp(&grant_requests[*b].age()));
    // Grants without a limit come first, so that no certificate takes a slot that it does not need.
    let mut grants = context.grants.clone();
    grants.sort_by_key(|g| (g.spec.max_certificates.is_some(), g.name_any()));
    let mut slots = vec![Slots::default(); grants.len()];
    let mut decisions = vec![None; grant_requests.len()];
    for at in order {
        decisions[at] = Some(evaluate(&grant_requests[at], &grants, &mut slots, context));
    }
    decisions.into_iter().flatten().collect()
}

/// Slots of one grant: those that certificates have taken, and those that they may have taken.
#[derive(Clone, Copy, Default)]
struct Slots {
    taken: u32,
    tentative: u32,
}

impl Slots {
    /// Returns `None` when unknown facts decide whether there is a free slot.
    fn is_free(self, max: Option<u32>) -> Option<bool> {
        let Some(max) = max else { return Some(true) };
        match self {
            Slots { taken, .. } if taken >= max => Some(false),
            Slots { taken, tentative } if taken.saturating_add(tentative) >= max => None,
            _ => Some(true),
        }
    }
}

fn evaluate(
    grant_request: &GrantRequest,
    grants: &[&ClientGrant],
    slots: &mut [Slots],
    context: &EvaluationContext,
) -> Decision {
    let namespace = Namespace {
        name: &grant_request.namespace,
        labels: context.labels.get(&grant_request.namespace),
    };
    let (mut nearest, mut full): (Option<(&ClientGrant, Vec<String>)>, _) = (None, None);
    let mut tentative = BTreeSet::new();
    for (at, grant) in grants.iter().enumerate() {
        let selected = grant.spec.namespaces.selects(namespace);
        if selected == Some(false) {
            continue;
        }
        let parts = denials(grant_request, grant, context);
        if !parts.is_empty() {
            let is_nearer = nearest.as_ref().is_none_or(|(_, best)| parts.len() < best.len());
            // A message shows the content of a grant only to the namespaces that the grant selects.
            if is_nearer && selected == Some(true) {
                nearest = Some((grant, parts));
            }
            continue;
        }
        match (selected, slots[at].is_free(grant.spec.max_certificates)) {
            (_, Some(false)) if selected == Some(true) => full = Some(grant.name_any()),
            (_, Some(false)) => {}
            (Some(true), Some(true)) => {
                let is_certain = tentative.is_empty() && !context.unreadable;
                if is_certain {
                    slots[at].taken += 1
                } else {
                    slots[at].tentative += 1
                }
                tentative.iter().for_each(|at: &usize| slots[*at].tentative += 1);
                return Decision::Allowed(terms(grant));
            }
            _ => {
                tentative.insert(at);
            }
        }
    }
    tentative.iter().for_each(|at| slots[*at].tentative += 1);
    if !tentative.is_empty() {
        let what = if namespace.labels.is_none() {
            "the labels of this namespace"
        } else {
            "the labels of some namespaces"
        };
        return Decision::Unknown(format!("{what}, by which ClientGrants select, are not known yet"));
    }
    if context.unreadable {
        return Decision::Unknown(
            "there are ClientGrants that this version of the operator cannot read".into(),
        );
    }
    Decision::Denied(match (full, nearest) {
        (Some(grant), _) => format!(
            "older ClientCertificates have all slots of the ClientGrant {grant} (its spec.maxCertificates): \
             delete one of them, or ask the domain's owner for more"
        ),
        (None, Some((grant, parts))) => {
            format!(
                "{}: outside of the ClientGrant {}, which is the nearest. Change it, or ask the domain's \
                 owner for a grant that it fits",
                listed(parts.iter().map(String::as_str), MOST_TOLD, WITHIN),
                grant.name_any()
            )
        }
        (None, None) => NONE.to_owned(),
    })
}

/// Message when no grant selects the namespace. Equal whether the domain exists or not.
const NONE: &str = "spec.domainRef: there is no such MtlsDomain, or no ClientGrant beside it allows \
                    this namespace certificates for it; ask the domain's owner for one";

fn terms(grant: &ClientGrant) -> Terms {
    Terms {
        grant: grant.name_any(),
        authority: grant.spec.authority.clone(),
        max_duration: grant.spec.max_duration.as_ref().map(length),
        not_after: grant.spec.not_after.as_ref().map(|t| t.0),
        max_bytes: grant.spec.max_bytes.map_or(DEFAULT_SHARE, |bytes| bytes as usize),
        is_counted: grant.spec.max_certificates.is_some(),
    }
}

/// True when the grant admits every name of this certificate.
pub fn admits_names(request: &LeafRequest, grant: &ClientGrantSpec) -> bool {
    names_outside(request, grant).is_empty()
}

/// Returns the fields of the certificate with a name that the grant does not admit.
pub fn names_outside(r: &LeafRequest, grant: &ClientGrantSpec) -> Vec<String> {
    let common_name = std::slice::from_ref(&r.common_name);
    let names: [(&str, Kind, &[String], &[String]); 9] = [
        ("subject.commonName", Kind::Text, common_name, &grant.common_names),
        (
            "subject.organizations",
            Kind::Text,
            &r.organizations,
            &grant.organizations,
        ),
        (
            "subject.organizationalUnits",
            Kind::Text,
            &r.organizational_units,
            &grant.organizational_units,
        ),
        ("subject.countries", Kind::Text, &r.countries, &grant.countries),
        ("subject.localities", Kind::Text, &r.localities, &grant.localities),
        ("subject.provinces", Kind::Text, &r.provinces, &grant.provinces),
        ("dnsNames", Kind::Dns, &r.dns_names, &grant.dns_names),
        ("uris", Kind::Uri, &r.uris, &grant.uris),
        (
            "emailAddresses",
            Kind::Mail,
            &r.email_addresses,
            &grant.email_addresses,
        ),
    ];
    let mut outside = Vec::new();
    for (field, kind, asked, granted) in names {
        let denials = asked
            .iter()
            .enumerate()
            .filter(|(_, name)| !granted.iter().any(|p| glob::matches(kind, p, name)));
        outside.extend(denials.map(|(at, _)| match field {
            "subject.commonName" => field.to_owned(),
            list => format!("{list}[{at}]"),
        }));
    }
    outside
}

/// Returns the parts of the certificate's spec that the grant does not admit.
fn denials(grant_request: &GrantRequest, grant: &ClientGrant, context: &EvaluationContext) -> Vec<String> {
    let name = |field: &String| {
        if grant_request.by_csr {
            format!("spec.csr ({field})")
        } else {
            format!("spec.{field}")
        }
    };
    let mut parts: Vec<String> = (context.names_outside)(grant_request, grant)
        .iter()
        .map(name)
        .collect();
    let grant = &grant.spec;
    if grant_request.issuance != grant.issuance {
        parts.push("spec.issuance".into());
    }
    let wanted = grant.authority.as_deref().or(context.issuing);
    if grant_request
        .authority
        .as_deref()
        .is_some_and(|named| Some(named) != wanted)
    {
        parts.push("spec.authority".into());
    }
    let longest = grant.max_duration.as_ref().map(length);
    if grant_request
        .duration
        .zip(longest)
        .is_some_and(|(asked, longest)| asked > longest)
    {
        parts.push("spec.duration".into());
    }
    if grant.not_after.as_ref().is_some_and(|end| end.0 <= context.now) {
        parts.push("the time, since it is over (its spec.notAfter)".into());
    }
    parts
}

#[cfg(test)]
mod tests;
