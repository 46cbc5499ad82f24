//! The server certificate in ACM: requested and replaced by the operator, or an existing one that it only
//! reads.
mod changes_and_expiry;
mod existing;
mod requests;
