//! Reads of AWS in the terms of conditions: what a failed read means, and the cache of reads. Reads only.

pub mod read_cache;
pub mod refresh_intervals;
pub mod seen;
pub mod single_flight;
