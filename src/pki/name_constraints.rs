//! Name constraints of authorities, and the names that they admit. Pure. Source: RFC 5280, section 4.2.1.10.

use x509_parser::extensions::{self, GeneralName, GeneralSubtree};

use super::name;

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

    /// Returns the first of these names that the constraints do not admit.
    pub(crate) fn refuses(&self, names: Vec<Name<'_>>) -> Option<String> {
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
pub(crate) enum Name<'c> {
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
