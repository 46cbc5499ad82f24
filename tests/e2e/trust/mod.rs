//! The truststore of a domain: whose certificates it accepts, since when, until when, and where the
//! truststore is stored.
mod bucket;
mod changed_ca_secret;
mod distrust;
mod expiry;
mod generated_authorities;
mod partner_files;
mod rotation;
mod sources;
mod stored_object;
