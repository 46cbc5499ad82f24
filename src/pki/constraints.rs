//! Constraints of authorities on the certificates below them (keyUsage, extended key usage, path length, name
//! constraints). Pure. Source: RFC 5280, sections 4.2.1.3, 4.2.1.9, 4.2.1.10 and 4.2.1.12.

use x509_parser::{prelude::FromDer, x509::X509Name};

use super::{certificate::Certificate, name, name_constraints::Name};

pub(crate) fn names(certificate: &Certificate) -> Vec<Name<'_>> {
    let subject = X509Name::from_der(&certificate.subject_der)
        .map(|(_, name)| name::rdns(&name))
        .unwrap_or_default();
    // An empty subject is in every subtree (RFC 5280, section 4.2.1.10).
    let subject = (!subject.is_empty()).then_some(Name::Subject(&certificate.subject, subject));
    let alternative = certificate
        .dns_names
        .iter()
        .map(|name| Name::Dns(name))
        .chain(certificate.uris.iter().map(|uri| Name::Uri(uri)))
        .chain(
            certificate
                .email_addresses
                .iter()
                .map(|address| Name::Email(address)),
        );
    subject.into_iter().chain(alternative).collect()
}

/// Authority of a chain, and its constraint that a certificate below breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authority {authority} {constraint}")]
pub struct Violation {
    /// Subject of the authority, by RFC 4514.
    pub authority: String,
    /// Constraint, and the certificate that breaks it.
    pub constraint: String,
}

/// Returns the first constraint that every client certificate under `chain[0]` breaks, with any names.
/// `chain`: from the issuing authority up to the root.
pub fn of_authorities(chain: &[Certificate]) -> Option<Violation> {
    let violated = chain.iter().enumerate().find_map(|(at, authority)| {
        let constraint = of_authority(authority, &chain[..at])?;
        Some((authority, constraint))
    });
    violated.map(|(authority, constraint)| Violation {
        authority: authority.subject.clone(),
        constraint,
    })
}

/// Returns the first constraint of `chain`, from its issuing authority up to the root, that this client
/// certificate breaks.
pub fn of_leaf(leaf: &Certificate, chain: &[Certificate]) -> Option<Violation> {
    of_authorities(chain).or_else(|| {
        chain.iter().find_map(|authority| {
            let name = authority.name_constraints.as_ref()?.refuses(names(leaf))?;
            let constraint = format!("has name constraints (nameConstraints) that do not admit {name}");
            Some(Violation {
                authority: authority.subject.clone(),
                constraint,
            })
        })
    })
}

/// Returns the constraint of one authority that is broken. `below`: the authorities between it and the client
/// certificate.
fn of_authority(authority: &Certificate, below: &[Certificate]) -> Option<String> {
    if !authority.may_sign {
        return Some("may not sign certificates: its keyUsage has no keyCertSign".to_owned());
    }
    if !authority.is_ca && authority.version == 3 {
        return Some("is no authority: its basicConstraints do not say CA:TRUE".to_owned());
    }
    if authority.unknown_critical {
        return Some("has a critical extension that is not known: a verifier may reject it".to_owned());
    }
    if !authority.client_auth {
        let constraint = "is not for client certificates: its extended key usage has no clientAuth";
        return Some(constraint.to_owned());
    }
    // A certificate that an authority issued to itself, for a new key, does not count.
    let counted = below
        .iter()
        .filter(|certificate| certificate.subject_key != certificate.issuer_key)
        .count();
    if let Some(longest) = authority
        .path_len
        .filter(|longest| counted > usize::try_from(*longest).unwrap_or(0))
    {
        return Some(format!(
            "has a path length (pathLen) of {longest}, and {counted} authorities stand below it"
        ));
    }
    let constraints = authority.name_constraints.as_ref()?;
    let name = below
        .iter()
        .find_map(|certificate| constraints.refuses(names(certificate)))?;
    Some(format!(
        "has name constraints (nameConstraints) that do not admit {name}"
    ))
}

#[cfg(test)]
pub(crate) mod tests;
