//! Actions on DNS records.

use std::fmt;

use crate::aws::{errors::Error, route53::Change, session::Session};

/// Action on DNS records. The operator can repeat it without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Route53Action {
    /// Changes records in one atomic batch.
    ChangeRecords { zone_id: String, changes: Vec<Change> },
}

impl fmt::Display for Route53Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route53Action::ChangeRecords { zone_id, changes } => {
                let names: Vec<_> = changes
                    .iter()
                    .map(|c| format!("{:?} {} {}", c.action, c.record.kind, c.record.name))
                    .collect();
                write!(f, "change records in {zone_id}: {}", names.join(", "))
            }
        }
    }
}

impl Route53Action {
    /// Makes the call. Returns the ID of the change.
    pub async fn perform(&self, session: &Session) -> Result<String, Error> {
        match self {
            Route53Action::ChangeRecords { zone_id, changes } => {
                session.route53.change(zone_id, changes).await
            }
        }
    }
}
