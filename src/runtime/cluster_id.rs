//! Identity of the cluster: the first part of every ownership tag in AWS. Reads one Namespace.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PartialObjectMeta};

use crate::runtime::Error;

/// Returns the id given by flag, else the UID of the namespace kube-system, the usual id of a cluster
/// (<https://github.com/kubernetes/kubernetes/issues/77487>): it exists from the start, is never deleted, and
/// differs in each cluster. Reading it needs a permission on Namespaces, which Roles cannot grant: with Roles
/// only, the flag must be set.
pub async fn cluster_id(client: Client, flag: Option<&str>) -> Result<String, Error> {
    if let Some(id) = flag {
        return Ok(id.to_owned());
    }
    let namespace = Api::<PartialObjectMeta<Namespace>>::all(client)
        .get_metadata("kube-system")
        .await
        .map_err(Error::on("read", "Namespace", "", "kube-system"))?;
    Ok(namespace
        .metadata
        .uid
        .expect("the API server gives every object a UID"))
}
