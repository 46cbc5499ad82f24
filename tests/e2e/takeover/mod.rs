//! Resources that the operator did not create: taken over when the spec says so, otherwise left alone.
mod adoption;
mod other_owners;
mod refusals;
mod two_clusters;
