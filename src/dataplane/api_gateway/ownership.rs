//! Ownership tags of headers and authorizers on an API. Pure.

use std::collections::BTreeMap;

use super::authorizer::AUTHORIZER_TAG;

use crate::model::{observed::Api, placement::Placement};

/// Tag of an API before the operator sets a header there, followed by the header's name; its value is the
/// owner.
pub const HEADER_TAG: &str = "mtls-operator.io/header.";

/// Returns the names of the headers with the ownership tag of this MtlsDomain.
pub(crate) fn ours<'a>(placement: &'a Placement, api: &'a Api) -> impl Iterator<Item = &'a str> {
    ownership_tags(api)
        .filter(|(_, owner)| **owner == placement.owner)
        .map(|(name, _)| name)
}

pub(crate) fn ownership_tags(api: &Api) -> impl Iterator<Item = (&str, &String)> {
    api.api
        .tags
        .iter()
        .filter_map(|(key, owner)| Some((key.strip_prefix(HEADER_TAG)?, owner)))
}

/// True when another owner has headers or an authorizer on the API, and still needs the tag of pending
/// deployments.
pub(crate) fn others(placement: &Placement, api: &Api) -> bool {
    api.api
        .tags
        .iter()
        .any(|(key, owner)| is_ownership_tag(key) && *owner != placement.owner)
}

/// True when this owner has a header or an authorizer on the API.
pub fn has_ownership_tag(placement: &Placement, tags: &BTreeMap<String, String>) -> bool {
    tags.iter()
        .any(|(key, owner)| is_ownership_tag(key) && *owner == placement.owner)
}

/// True when this owner has an authorizer on the API, or was about to create one.
pub fn has_authorizer(placement: &Placement, tags: &BTreeMap<String, String>) -> bool {
    tags.get(AUTHORIZER_TAG) == Some(&placement.owner)
}

fn is_ownership_tag(key: &str) -> bool {
    key.starts_with(HEADER_TAG) || key == AUTHORIZER_TAG
}
