//! Context and rules common to the actions of several services.

use crate::aws::{
    errors::{Error, Kind},
    tags::{OWNER_TAG, Tags},
};

/// Values that actions of one owner share.
#[derive(Clone, Copy, Debug)]
pub struct ActionContext<'a> {
    /// Value of the ownership tag.
    pub owner: &'a str,
    pub domain_name: &'a str,
    /// Tags that the spec and the operator's configuration demand on each resource that the operator creates.
    pub tags: &'a Tags,
}

impl ActionContext<'_> {
    /// Returns the ownership tag and the demanded tags.
    pub(super) fn all_tags(&self) -> Tags {
        let mut tags = self.tags.clone();
        tags.insert(OWNER_TAG.to_owned(), self.owner.to_owned());
        tags
    }
}

/// Returns the keys of tags as text.
pub(super) fn keys(tags: &Tags) -> String {
    let keys: Vec<_> = tags.keys().map(String::as_str).collect();
    keys.join(", ")
}

/// Treats a resource that is to be deleted and does not exist as deleted.
pub(super) fn gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}
