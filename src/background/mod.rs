//! Periodic work beside the reconciles, which overlays a condition.

pub mod bypass_scan;
