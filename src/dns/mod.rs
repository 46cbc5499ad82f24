//! DNS of a domain name: hosted zones, records and their ownership, and public DNS answers.

pub mod observe;
pub mod plan;
pub mod records;
pub mod zone;
