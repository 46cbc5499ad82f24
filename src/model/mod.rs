//! Desired and observed state of one `MtlsDomain`, its steps and their actions, in plain data. No I/O, and no
//! decision except the validation of a spec.

pub mod action;
pub mod authorities;
pub mod desired;
pub mod front;
pub mod leaf_request;
pub mod observed;
pub mod placement;
pub mod step;
