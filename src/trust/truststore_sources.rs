//! Sources of the next truststore, from the spec and what is known of their certificates. Pure.

use std::collections::BTreeSet;

use super::{
    generated_authority::{self, Ownership},
    self_signed::is_self_signed,
};

use crate::{
    api::AuthorityState,
    model::{
        authorities::{DesiredAuthority, DesiredSource},
        desired::Desired,
        observed::{CanIssue, Observed, Source},
    },
    pki::{
        compile::offer as compile,
        lint::SourceError,
        truststore::{Bundle, DistrustedKeys},
    },
};

pub(crate) const NOTHING_SELECTED: &str =
    "no ConfigMap in this namespace has the labels of its configMapSelector";

/// Merges the published bundle with the bundle in use. The published bundle holds the recorded state of a
/// certificate. Certificates in use stay, also after another writer removed the version that followed.
pub(crate) fn merged(published: Option<&Bundle>, pinned: Option<&Bundle>) -> Option<Bundle> {
    let mut all = published.or(pinned)?.clone();
    for entry in pinned.iter().flat_map(|b| &b.entries) {
        if all.find(&entry.certificate).is_none() {
            all.entries.push(entry.clone());
        }
    }
    all.distrusted = merged_keys([published, pinned].into_iter().flatten());
    Some(all)
}

pub(crate) fn merged_keys<'b>(bundles: impl Iterator<Item = &'b Bundle>) -> DistrustedKeys {
    let mut all = DistrustedKeys::new();
    for (authority, keys) in bundles.flat_map(|bundle| &bundle.distrusted) {
        let known = all.entry(authority.clone()).or_default();
        for (key, took_effect) in keys {
            *known.entry(key.clone()).or_default() |= took_effect;
        }
    }
    all
}

/// Returns the compile sources of an authority. Each object of a label selector is a source of its own,
/// `<authority>/<object>`: a broken object keeps its last certificates, and the other objects still take
/// effect.
pub(crate) fn sources(
    wanted: &DesiredAuthority,
    o: &Observed,
    d: &Desired,
    previous: Option<&Bundle>,
) -> Vec<compile::Source> {
    let part = |object: &str| format!("{}/{object}", wanted.name);
    let found = o.authorities.get(&wanted.name);
    let mut all = match (found, &wanted.source) {
        (Some(Source::Several(all)), _) => all
            .iter()
            .map(|(object, found)| source(part(object), wanted, Some(found), d, o))
            .collect(),
        // Unknown source: its present parts stay.
        (_, DesiredSource::ConfigMaps { .. }) => {
            let names: BTreeSet<_> = previous
                .iter()
                .flat_map(|b| &b.entries)
                .map(|entry| &entry.authority)
                .collect();
            let is_part = |name: &&String| name.starts_with(&part("")) && !is_self_signed(name);
            let parts = names.into_iter().filter(is_part);
            parts
                .map(|name| source(name.clone(), wanted, found, d, o))
                .collect()
        }
        (found, _) => vec![source(wanted.name.clone(), wanted, found, d, o)],
    };
    if wanted.state == AuthorityState::Distrusted {
        let is_seen = !matches!(found, Some(Source::Unseen(_)));
        all.extend(recalled(wanted, &all, is_seen, previous));
    }
    all
}

/// Returns the parts of a Distrusted entry that its source no longer has: parts with distrusted keys, or with
/// entries in the truststore under its name.
fn recalled(
    wanted: &DesiredAuthority,
    known: &[compile::Source],
    is_seen: bool,
    previous: Option<&Bundle>,
) -> Vec<compile::Source> {
    let of_entries = previous
        .iter()
        .flat_map(|b| &b.entries)
        .map(|entry| &entry.authority);
    let names: BTreeSet<_> = previous
        .iter()
        .flat_map(|b| b.distrusted.keys())
        .chain(of_entries)
        .collect();
    let is_part = |name: &str| name.split('/').next() == Some(&wanted.name);
    let names = names
        .into_iter()
        .filter(|name| is_part(name) && !known.iter().any(|s| s.authority == **name));
    let gone = |name: &String| compile::Source {
        authority: name.clone(),
        state: compile::State::Distrusted,
        issues: false,
        longest_leaf: None,
        certificates: if is_seen {
            Ok(vec![])
        } else {
            Err(SourceError::Unseen)
        },
        completing: vec![],
        client: false,
        share: None,
    };
    names.map(gone).collect()
}

pub(crate) fn source(
    authority: String,
    wanted: &DesiredAuthority,
    found: Option<&Source>,
    d: &Desired,
    o: &Observed,
) -> compile::Source {
    let state = match wanted.state {
        AuthorityState::Active => compile::State::Active,
        AuthorityState::Distrusted => compile::State::Distrusted,
    };
    let mut beside = Vec::new();
    let (certificates, can_issue) = match found {
        // The generated key has another certificate beside it: the operator does not trust that certificate.
        Some(Source::Read {
            can_issue: CanIssue::Broken { .. },
            ..
        }) if matches!(wanted.source, DesiredSource::Generated { .. }) => (Err(SourceError::Missing), false),
        // The operator did not generate the Secret, or cannot know: it ignores the Secret's contents, for
        // trust and for distrust.
        Some(Source::Read { .. }) if generated_authority::ownership(d, o, wanted) != Ownership::Ours => {
            (Err(SourceError::Missing), false)
        }
        Some(Source::Read {
            certificates,
            completing,
            can_issue,
        }) => {
            let certificates = match (certificates, completing) {
                (Err(error), _) => Err(SourceError::Unreadable(error.clone())),
                // A distrust does not need the certificates that only complete a chain.
                (Ok(_), Err(error)) if state == compile::State::Active => {
                    Err(SourceError::Unreadable(error.clone()))
                }
                (Ok(certificates), completing) => {
                    beside.extend(completing.iter().flatten().cloned());
                    Ok(certificates.clone())
                }
            };
            (certificates, *can_issue == CanIssue::Yes)
        }
        Some(Source::Unseen(_)) => (Err(SourceError::Unseen), false),
        _ => (Err(SourceError::Missing), false),
    };
    // A Secret without its key may still have valid leaves: the bundle records that it could issue.
    let issues = can_issue && wanted.may_issue();
    let longest_leaf = issues.then_some(d.longest_leaf);
    compile::Source {
        authority,
        state,
        issues,
        longest_leaf,
        certificates,
        completing: beside,
        client: false,
        share: None,
    }
}
