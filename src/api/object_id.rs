//! Identity of an object: its namespace and name.

use kube::ResourceExt;

use crate::api::ClientCertificate;

/// Returns the MtlsDomain of a ClientCertificate.
pub fn domain_key(cert: &ClientCertificate) -> DomainKey {
    let namespace = cert.namespace().expect("ClientCertificate is namespaced");
    (
        cert.spec.domain_ref.namespace.clone().unwrap_or(namespace),
        cert.spec.domain_ref.name.clone(),
    )
}

/// Namespace and name of an MtlsDomain.
pub type DomainKey = (String, String);
