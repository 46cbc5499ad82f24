//! Action of a plan on the Secrets of a certificate.

use crate::pki::inspect::Violation;

/// Action on the Secret.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Correct the metadata and the keystore; key and leaf are in the desired state.
    Complete,
    /// Issue a leaf into the Secret.
    Issue(Violation),
    /// Keep the next self-signed certificate in a second Secret, or the private key of a request that the
    /// issuer may answer later.
    Stage { revision: i64 },
    /// Move the staged certificate into the Secret.
    Swap,
    /// Delete the staged Secret.
    Unstage,
}
