//! Which cluster this is: the first part of every ownership tag that we leave in AWS. Reads one Namespace.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PartialObjectMeta};

use super::Error;

/// The id given by flag, else the UID of the namespace kube-system, the id that the field has settled on
/// (<https://github.com/kubernetes/kubernetes/issues/77487>): there from the start, never deleted, different
/// in each cluster. Reading it needs a right on Namespaces, which Roles cannot give: there the flag must be
/// set.
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
