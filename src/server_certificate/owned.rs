//! Ownership of certificates in ACM, and their validation records. Pure.

use std::collections::BTreeSet;

use crate::{
    aws::{acm, tags::OWNER_TAG},
    model::{desired::DesiredRequest, observed::Observed, placement::Placement},
};

/// True for a certificate with exactly the names of the spec, and with its key algorithm where it names one.
pub(crate) fn fits(wanted: &DesiredRequest, c: &acm::Certificate) -> bool {
    let key = wanted.key_algorithm.as_ref();
    c.names == wanted.names && key.is_none_or(|key| c.key_algorithm == *key)
}

/// True for a certificate with the ownership tag.
pub fn is_ours(placement: &Placement, c: &acm::Certificate) -> bool {
    c.tags.get(OWNER_TAG) == Some(&placement.owner)
}

pub(crate) fn owned<'a>(
    placement: &'a Placement,
    o: &'a Observed,
) -> impl Iterator<Item = &'a acm::Certificate> {
    o.certificates.iter().flatten().filter(|c| is_ours(placement, c))
}

/// Returns the CNAMEs that prove to ACM the control of a certificate's names, at the issue and at each
/// renewal: name and value without final dot, sorted, without duplicates.
pub fn validation(c: &acm::Certificate) -> Vec<(String, String)> {
    let records = c.validation.iter().filter_map(|v| v.record.as_ref());
    let records = records.map(|(name, value)| (name.clone(), value.trim_end_matches('.').to_owned()));
    records.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the validation records as lines of a zone file.
pub fn lines(c: &acm::Certificate) -> String {
    let lines: Vec<_> = validation(c)
        .iter()
        .map(|(name, value)| format!("{name}. CNAME {value}."))
        .collect();
    lines.join("; ")
}
