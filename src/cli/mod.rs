//! Commands beside the operator itself: `doctor` and `iam-policy`.

pub mod doctor;
pub mod iam;
