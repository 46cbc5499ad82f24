//! One MtlsDomain from its creation to its deletion: what it makes, where it makes it, and what stays.
mod creation;
mod deletion;
mod no_writes;
mod placement;
mod tags;
