//! Constraints of authorities on the certificates below them (keyUsage, extended key usage, path length, name
//! constraints). Pure. Source: RFC 5280, sections 4.2.1.3, 4.2.1.9, 4.2.1.10 and 4.2.1.12.

use x509_parser::{
    extensions::{self, GeneralName, GeneralSubtree},
    prelude::FromDer,
    x509::X509Name,
};

use super::{certificate::Certificate, name};

/// Name constraints of an authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameConstraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

/// Maximum number of names times subtrees compared for one certificate; beyond it the certificate is refused.
/// OpenSSL has such a limit too.
const MAX_COMPARED: usize = 1 << 14;

/// Set of names, by the form of the names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subtree {
    Dns(String),
    Uri(String),
    Email(String),
    /// Relative distinguished names in their normal form, from the root down.
    Directory(Vec<String>),
    /// IP addresses and other forms that no certificate of ours carries.
    Other,
    /// Unreadable form: permits no name.
    Unreadable,
}

impl NameConstraints {
    pub(crate) fn of(extension: &extensions::NameConstraints<'_>) -> NameConstraints {
        let read =
            |trees: &Option<Vec<GeneralSubtree<'_>>>| trees.iter().flatten().map(Subtree::of).collect();
        NameConstraints {
            permitted: read(&extension.permitted_subtrees),
            excluded: read(&extension.excluded_subtrees),
        }
    }

    /// Returns the constraints of an extension that cannot be read: they permit no name.
    pub(crate) fn unreadable() -> NameConstraints {
        NameConstraints {
            permitted: vec![Subtree::Unreadable],
            excluded: vec![],
        }
    }

    /// Returns the first of a certificate's names that these constraints do not admit.
    fn refuses(&self, certificate: &Certificate) -> Option<String> {
        let names = names(certificate);
        if names
            .len()
            .saturating_mul(self.permitted.len() + self.excluded.len())
            > MAX_COMPARED
        {
            return Some(format!("{} names: that many are not compared", names.len()));
        }
        names
            .into_iter()
            .find(|name| !self.admits(name))
            .map(|name| name.text())
    }

    fn admits(&self, name: &Name<'_>) -> bool {
        let permitted: Vec<_> = self.permitted.iter().filter(|tree| tree.concerns(name)).collect();
        (permitted.is_empty() || permitted.iter().any(|tree| tree.holds(name)))
            && !self
                .excluded
                .iter()
                .any(|tree| tree.concerns(name) && tree.holds(name))
    }
}

impl Subtree {
    fn of(tree: &GeneralSubtree<'_>) -> Subtree {
        match &tree.base {
            GeneralName::DNSName(name) => Subtree::Dns(name.to_ascii_lowercase()),
            GeneralName::URI(host) => Subtree::Uri(host.to_ascii_lowercase()),
            GeneralName::RFC822Name(address) => Subtree::Email((*address).to_owned()),
            GeneralName::DirectoryName(name) => Subtree::Directory(name::rdns(name)),
            GeneralName::Invalid(..) => Subtree::Unreadable,
            _ => Subtree::Other,
        }
    }

    fn concerns(&self, name: &Name<'_>) -> bool {
        matches!(
            (self, name),
            (Subtree::Dns(_), Name::Dns(_))
                | (Subtree::Uri(_), Name::Uri(_))
                | (Subtree::Email(_), Name::Email(_))
                | (Subtree::Directory(_), Name::Subject(..))
                | (Subtree::Unreadable, _)
        )
    }

    fn holds(&self, name: &Name<'_>) -> bool {
        match (self, name) {
            (Subtree::Dns(base), Name::Dns(name)) => is_below(&name.to_ascii_lowercase(), base),
            (Subtree::Uri(base), Name::Uri(uri)) => host(uri).is_some_and(|host| is_host_of(&host, base)),
            (Subtree::Email(base), Name::Email(address)) => {
                match (address.rsplit_once('@'), base.rsplit_once('@')) {
                    (Some((local, host)), Some((base_local, base_host))) => {
                        local == base_local && host.eq_ignore_ascii_case(base_host)
                    }
                    (Some((_, host)), None) => {
                        is_host_of(&host.to_ascii_lowercase(), &base.to_ascii_lowercase())
                    }
                    (None, _) => false,
                }
            }
            (Subtree::Directory(base), Name::Subject(_, rdns)) => rdns.starts_with(base),
            _ => false,
        }
    }
}

/// Name of a certificate that name constraints apply to.
enum Name<'c> {
    Subject(&'c str, Vec<String>),
    Dns(&'c str),
    Uri(&'c str),
    Email(&'c str),
}

impl Name<'_> {
    fn text(&self) -> String {
        match self {
            Name::Subject(subject, _) => format!("the subject {subject}"),
            Name::Dns(name) => format!("the DNS name {name}"),
            Name::Uri(uri) => format!("the URI {uri}"),
            Name::Email(address) => format!("the e-mail address {address}"),
        }
    }
}

fn names(certificate: &Certificate) -> Vec<Name<'_>> {
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

/// True when labels on the left of the base make the DNS name; OpenSSL takes a leading dot too.
fn is_below(name: &str, base: &str) -> bool {
    let base = base.strip_prefix('.').unwrap_or(base);
    base.is_empty() || name == base || name.strip_suffix(base).is_some_and(|rest| rest.ends_with('.'))
}

/// True when the host is the base itself, or below a base that begins with a dot.
fn is_host_of(host: &str, base: &str) -> bool {
    match base.strip_prefix('.') {
        Some(domain) => host
            .strip_suffix(domain)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => host == base,
    }
}

/// Returns the host of a URI, in lower case; `None` when there is no host, as in `urn:x:y`.
fn host(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = if host.starts_with('[') {
        host
    } else {
        host.split(':').next().unwrap_or_default()
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
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
            let name = authority.name_constraints.as_ref()?.refuses(leaf)?;
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
        .find_map(|certificate| constraints.refuses(certificate))?;
    Some(format!(
        "has name constraints (nameConstraints) that do not admit {name}"
    ))
}

#[cfg(test)]
mod tests;
