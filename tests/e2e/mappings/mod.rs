//! API mappings of a domain, and the ways to a mapped API that go around mutual TLS.
mod bypass;
mod changes;
mod default_endpoints;
mod deployments;
