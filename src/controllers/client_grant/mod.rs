//! ClientGrant: reports the use of a grant.

pub mod controller;
