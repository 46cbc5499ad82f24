//! Context and rules common to the actions of several services.

use crate::aws::errors::{Error, Kind};

/// Values that actions of one owner share.
#[derive(Clone, Copy, Debug)]
pub struct ActionContext<'a> {
    /// Value of the ownership tag.
    pub owner: &'a str,
    pub domain_name: &'a str,
}

/// Treats a resource that is to be deleted and does not exist as deleted.
pub(super) fn gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}
