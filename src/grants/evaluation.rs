//! Choice of the grant that allows a certificate of another namespace. Pure and total: no I/O, no clock; the
//! caller passes grants, certificates, labels and the time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{
    glob::{self, Kind},
    names,
};

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

/// Facts by which the operator decides on one domain's certificates in other namespaces.
pub struct EvaluationContext<'a> {
    /// Grants for this domain that the operator can read, in the order of [`preference`].
    pub grants: Vec<&'a ClientGrant>,
    /// Authority that issues for the domain when a certificate names none; `None`: not known.
    pub issuing: Option<&'a str>,
    pub now: Timestamp,
}

/// Sort key of grants: those without a limit come first, so that no certificate takes a slot that it does not
/// need.
pub fn preference(grant: &ClientGrant) -> (bool, String) {
    (grant.spec.max_certificates.is_some(), grant.name_any())
}

/// Decision on one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed(Terms),
    /// Parts of the spec that do not fit, for a condition.
    Denied(String),
    /// The decision depends on a fact that the operator does not know. The text is the denial that holds
    /// without the grants that might select the namespace: "unknown" must not tell a tenant what a grant for
    /// other namespaces allows.
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

/// Result of the slots for one request. Grants are positions in the list that the request's [`Fit`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed(usize),
    /// The grant, if any, of which older requests have all slots.
    Denied(Option<usize>),
    /// The same, while a fact is unknown that may allow the request.
    Unknown(Option<usize>),
}

/// Fit of one request to each grant of its domain, slots aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Positions of the grants that admit the request; true for a grant that selects the namespace for
    /// certain. Ends with the first such grant without a limit.
    admitting: Vec<(usize, bool)>,
    /// Denial by the nearest grant that selects the namespace and does not admit the request.
    nearest: Option<String>,
}

impl Fit {
    /// Compares the request with each grant. `labels` of the namespace: `None` if not known. `outside`
    /// returns the number of [`names_outside`] of the grant at a position, so that the caller can cache it: a
    /// tenant chooses how long the names are.
    pub fn of(
        grant_request: &GrantRequest,
        labels: Option<&BTreeMap<String, String>>,
        context: &EvaluationContext,
        mut outside: impl FnMut(usize) -> usize,
    ) -> Fit {
        let namespace = Namespace {
            name: &grant_request.namespace,
            labels,
        };
        let (mut admitting, mut nearest): (_, Option<(usize, &ClientGrant)>) = (Vec::new(), None);
        for (at, grant) in context.grants.iter().enumerate() {
            let selected = grant.spec.namespaces.selects(namespace);
            if selected == Some(false) {
                continue;
            }
            let is_selected = selected == Some(true);
            let parts = outside(at) + other_denials(grant_request, &grant.spec, context).count();
            if parts > 0 {
                let is_nearer = nearest.is_none_or(|(best, _)| parts < best);
                // A message shows the content of a grant only to the namespaces that the grant selects.
                if is_nearer && is_selected {
                    nearest = Some((parts, grant));
                }
                continue;
            }
            admitting.push((at, is_selected));
            if is_selected && grant.spec.max_certificates.is_none() {
                break;
            }
        }
        let nearest = nearest.map(|(_, grant)| {
            format!(
                "{}: outside of the ClientGrant {}, which is the nearest. Change it, or ask the domain's \
                 owner for a grant that it fits",
                listed(
                    denials(grant_request, &grant.spec, context)
                        .iter()
                        .map(String::as_str),
                    MOST_TOLD,
                    WITHIN,
                ),
                grant.name_any()
            )
        });
        Fit { admitting, nearest }
    }

    pub fn admitting(&self) -> &[(usize, bool)] {
        &self.admitting
    }

    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }

    /// Returns the denial when no grant has a free slot. `full`: grant of which older requests have all
    /// slots.
    pub fn denial(&self, full: Option<&ClientGrant>) -> String {
        match (full, &self.nearest) {
            (Some(grant), _) => format!(
                "older ClientCertificates have all slots of the ClientGrant {} (its spec.maxCertificates): \
                 delete one of them, or ask the domain's owner for more",
                grant.name_any()
            ),
            (None, Some(nearest)) => nearest.clone(),
            (None, None) => NONE.to_owned(),
        }
    }
}

/// Returns the decision of a outcome. `grant` returns the grant at a position.
pub fn decision<'a>(outcome: Outcome, fit: &Fit, grant: impl Fn(usize) -> &'a ClientGrant) -> Decision {
    match outcome {
        Outcome::Allowed(at) => Decision::Allowed(terms(grant(at))),
        Outcome::Denied(full) => Decision::Denied(fit.denial(full.map(grant))),
        Outcome::Unknown(full) => Decision::Unknown(fit.denial(full.map(grant))),
    }
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
        for (at, name) in asked.iter().enumerate() {
            let field = match field {
                "subject.commonName" => field.to_owned(),
                list => format!("{list}[{at}]"),
            };
            if let Some(flaw) = names::flaw(name) {
                outside.push(format!("{field} ({flaw})"));
            } else if !granted.iter().any(|p| glob::matches(kind, p, name)) {
                outside.push(field);
            }
        }
    }
    outside
}

/// Returns the patterns of a grant that match no name, each with the reason.
pub fn futile_patterns(grant: &ClientGrantSpec) -> Vec<String> {
    let patterns: [(&str, &[String]); 9] = [
        ("commonNames", &grant.common_names),
        ("organizations", &grant.organizations),
        ("organizationalUnits", &grant.organizational_units),
        ("countries", &grant.countries),
        ("localities", &grant.localities),
        ("provinces", &grant.provinces),
        ("dnsNames", &grant.dns_names),
        ("uris", &grant.uris),
        ("emailAddresses", &grant.email_addresses),
    ];
    let flawed = patterns.iter().flat_map(|(field, all)| {
        let all = all.iter().enumerate();
        all.filter_map(move |(at, pattern)| Some((field, at, names::flaw(pattern)?)))
    });
    flawed
        .map(|(field, at, flaw)| format!("spec.{field}[{at}] {flaw}"))
        .collect()
}

/// Returns the parts of the certificate's spec that the grant does not admit.
fn denials(
    grant_request: &GrantRequest,
    grant: &ClientGrantSpec,
    context: &EvaluationContext,
) -> Vec<String> {
    let name = |field: String| match grant_request.by_csr {
        true => format!("spec.csr ({field})"),
        false => format!("spec.{field}"),
    };
    let names = names_outside(&grant_request.request, grant).into_iter().map(name);
    let others = other_denials(grant_request, grant, context).map(str::to_owned);
    names.chain(others).collect()
}

/// Returns the parts of the certificate's spec, names aside, that the grant does not admit.
fn other_denials(
    grant_request: &GrantRequest,
    grant: &ClientGrantSpec,
    context: &EvaluationContext,
) -> impl Iterator<Item = &'static str> + use<> {
    let wanted = grant.authority.as_deref().or(context.issuing);
    let named = grant_request.authority.as_deref();
    let longest = grant.max_duration.as_ref().map(length);
    let asked = grant_request.duration.zip(longest);
    let denials = [
        (grant_request.issuance != grant.issuance).then_some("spec.issuance"),
        (named.is_some() && named != wanted).then_some("spec.authority"),
        asked
            .is_some_and(|(asked, longest)| asked > longest)
            .then_some("spec.duration"),
        is_over(grant, context.now).then_some("the time, since it is over (its spec.notAfter)"),
    ];
    denials.into_iter().flatten()
}

fn is_over(grant: &ClientGrantSpec, now: Timestamp) -> bool {
    grant.not_after.as_ref().is_some_and(|end| end.0 <= now)
}

#[cfg(test)]
mod tests;
