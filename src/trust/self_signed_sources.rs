//! Truststore sources of ClientCertificates that sign themselves. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::self_signed;

use crate::{
    grants::evaluation,
    model::{
        desired::{Desired, SelfSigned},
        observed::Observed,
    },
    pki::{
        certificate::Certificate,
        compile::offer,
        form,
        leaf::LeafRequest,
        lint::SourceError,
        truststore::{Bundle, Entry, identity},
    },
};

/// Returns the sources of self-signed ClientCertificates. A superseded certificate stays for `overlap`, as if
/// it had issued its successor; after the deletion of its ClientCertificate, every certificate leaves at
/// once. A certificate that no release of the operator can have issued leaves at once too: such an anchor may
/// be an authority. `others` are the sources of the authorities.
pub(crate) fn sources(
    d: &Desired,
    o: &Observed,
    previous: Option<&Bundle>,
    others: &[offer::Source],
    now: Timestamp,
) -> Vec<offer::Source> {
    let source = |authority: String, state, certificates: Result<Vec<Certificate>, SourceError>| {
        let life = |c: &Certificate| c.not_after.duration_since(c.not_before);
        offer::Source {
            authority,
            state,
            issues: true,
            longest_leaf: certificates.iter().flatten().map(life).max(),
            certificates,
            completing: vec![],
            client: true,
            share: None,
        }
    };
    let wanted = d.self_signed.iter().map(|wanted| {
        let read = o
            .self_signed
            .as_ref()
            .ok()
            .and_then(|all| all.get(&wanted.entry))
            .filter(|_| wanted.secrets.is_some());
        let may_be_trusted = |c: &&Certificate| {
            let Some(said) = admitted(c, Some(wanted)) else {
                return false;
            };
            form::is_as_asked(c, said, &wanted.request, now).is_ok() || is_there_already(c, wanted, previous)
        };
        let trusted = read.map(|all| all.iter().filter(may_be_trusted).cloned().collect());
        offer::Source {
            share: wanted.share.clone(),
            ..source(
                wanted.entry.clone(),
                offer::State::Active,
                trusted.ok_or(SourceError::Missing),
            )
        }
    });
    let gone = previous.map(|bundle| withdrawn(d, bundle)).unwrap_or_default();
    let gone = gone
        .into_iter()
        .map(|entry| source(entry.to_owned(), offer::State::Withdrawn, Ok(vec![])));
    let hidden = previous.map(|bundle| out_of_view(d, bundle)).unwrap_or_default();
    let hidden = hidden
        .into_iter()
        .map(|entry| source(entry.to_owned(), offer::State::Active, Err(SourceError::Missing)));
    let refused = previous
        .map(|bundle| refused(d, bundle, others))
        .unwrap_or_default();
    let refused = (!refused.is_empty()).then(|| {
        source(
            self_signed::REFUSED.to_owned(),
            offer::State::Withdrawn,
            Ok(refused),
        )
    });
    wanted.chain(gone).chain(hidden).chain(refused).collect()
}

/// True when the truststore already holds the certificate for this ClientCertificate. A certificate for an
/// earlier spec stays while it is in the Secret: every server must trust its successor before the swap, even
/// with a short overlap.
fn is_there_already(certificate: &Certificate, wanted: &SelfSigned, previous: Option<&Bundle>) -> bool {
    let mut there = previous.iter().flat_map(|bundle| &bundle.entries);
    let is_it =
        |e: &Entry| e.authority == wanted.entry && e.keep_until.is_none() && e.certificate == *certificate;
    there.any(is_it)
}

/// Returns the content of a certificate that a release of the operator could have issued, if a grant permits
/// its names, of the present or an earlier spec.
fn admitted(certificate: &Certificate, wanted: Option<&SelfSigned>) -> Option<LeafRequest> {
    let said = form::signed_itself(certificate).ok()?;
    let grants = wanted.and_then(|wanted| wanted.grants.as_ref());
    let permits = |grants: &Vec<_>| grants.iter().any(|grant| evaluation::admits_names(&said, grant));
    grants.is_none_or(permits).then_some(said)
}

/// Returns the certificates in this truststore that may not stay for any ClientCertificate. A certificate
/// that the spec lists as an authority is trusted as that authority.
fn refused(d: &Desired, bundle: &Bundle, others: &[offer::Source]) -> Vec<Certificate> {
    let listed = |c: &Certificate| {
        let active = others
            .iter()
            .filter(|source| source.state == offer::State::Active);
        active
            .flat_map(|source| source.certificates.iter().flatten())
            .any(|other| identity(other) == identity(c))
    };
    let wanted = |entry: &Entry| {
        d.self_signed
            .iter()
            .find(|wanted| wanted.entry == entry.authority)
    };
    let own = bundle
        .entries
        .iter()
        .filter(|entry| self_signed::is_self_signed(&entry.authority));
    let refused = own
        .filter(|entry| admitted(&entry.certificate, wanted(entry)).is_none() && !listed(&entry.certificate));
    refused.map(|entry| entry.certificate.clone()).collect()
}

/// Returns the entries whose certificates must leave this truststore because their ClientCertificate is
/// deleted.
pub fn withdrawn<'b>(d: &Desired, bundle: &'b Bundle) -> BTreeSet<&'b str> {
    unlisted(d, bundle).filter(|entry| is_in_view(d, entry)).collect()
}

/// Returns the entries whose ClientCertificate is in an unwatched namespace: their certificates stay as they
/// are.
fn out_of_view<'b>(d: &Desired, bundle: &'b Bundle) -> BTreeSet<&'b str> {
    unlisted(d, bundle)
        .filter(|entry| !is_in_view(d, entry))
        .collect()
}

fn unlisted<'b>(d: &Desired, bundle: &'b Bundle) -> impl Iterator<Item = &'b str> {
    let entries = bundle
        .entries
        .iter()
        .map(|e| e.authority.as_str())
        .filter(|entry| self_signed::is_self_signed(entry));
    entries.filter(|entry| !d.self_signed.iter().any(|wanted| wanted.entry == *entry))
}

/// True when the operator watches the namespace of the entry.
fn is_in_view(d: &Desired, entry: &str) -> bool {
    let Some(watched) = &d.watched else { return true };
    self_signed::namespace(entry).is_none_or(|namespace| watched.contains(namespace))
}

#[cfg(test)]
pub(crate) mod tests;
