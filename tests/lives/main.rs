//! Whole lives through the real API server and the local AWS: each test has a namespace, an account and an operator of its own, and is
//! judged by what is in AWS and Kubernetes afterwards and by the journal of AWS calls.
mod certificate;
mod crash;
mod domain;
mod drift;
mod foreign;
mod interop;
mod objects;
mod renewal;
mod self_signed;
mod situations;
mod steady;
mod trust;
mod world;
